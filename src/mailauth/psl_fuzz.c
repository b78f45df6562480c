/* Lists of public suffixes, which administrators fetch from elsewhere: the first line is a domain, the rest the list. */
#include <libpsl.h>
#include <stdio.h>
#include <string.h>

#include "mailauth/dmarc.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size > 16384)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str list = str_dup(a, str_n((const char *)data, size)), domain = dmarc_domain(a, str_cut(&list, '\n'));
  FILE *f = str_is_set(list) && list.len > 0 ? fmemopen((char *)(uintptr_t)list.p, list.len, "r") : NULL;
  if (f != NULL) {
    psl_ctx_t *psl = psl_load_fp(f);
    fclose(f);
    if (psl != NULL && psl_suffix_count(psl) > 0) {
      const char *text = str_dup_c(a, domain), *got = psl_registrable_domain(psl, text);
      if (got != NULL && (strlen(got) > strlen(text) || strcmp(got, text + strlen(text) - strlen(got)) != 0))
        __builtin_trap();
    }
    psl_free(psl);
  }
  arena_free(a);
  return 0;
}
