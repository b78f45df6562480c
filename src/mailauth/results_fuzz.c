/* What is read of Authentication-Results fields, and names beside a list of public suffixes: the first line of the input is an
authserv-id or a domain, the next the list (rules with blanks between), the rest a field. */
#include <libpsl.h>
#include <stdio.h>

#include "mailauth/arc.h"
#include "mailauth/dmarc.h"

static enum dns_result query(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  *ret = (struct dns_answer){.v = arena_array(a, struct dns_record, 1), .n = 1};
  ret->v[0] = (struct dns_record){.type = type, .text = STR("v=DMARC1; p=reject; adkim=r")};
  return name.len % 3 ? DNS_OK : DNS_NODATA;
}

static struct str organization(void *arg, struct arena *a, struct str domain) {
  const char *got = psl_registrable_domain(arg, str_dup_c(a, domain));
  return got ? str_dup(a, str_c(got)) : domain;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size > 16384)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str rest = str_tainted(str_dup(a, str_n((const char *)data, size))), first = str_cut(&rest, '\n'), results;
  struct str rules = str_is_set(rest) ? str_cut(&rest, '\n') : STR_EMPTY, field = str_is_set(rest) ? rest : STR_EMPTY;
  if (arc_results_of(a, field, first, &results)) {
    if (results.len > field.len)
      __builtin_trap();
    (void)arc_results_state(results);
  }
  char *text = str_dup_c(a, rules);
  for (char *p = text; *p; p++)
    *p = *p == ' ' ? '\n' : *p;
  FILE *f = rules.len ? fmemopen(text, rules.len, "r") : NULL;
  psl_ctx_t *psl = f ? psl_load_fp(f) : NULL;
  if (f)
    fclose(f);
  if (psl) {
    struct dmarc_dns dns = {query, organization, psl};
    struct dmarc_found found;
    bool trouble = false;
    dmarc_find(a, &dns, str_lower(a, first), &found);
    (void)dmarc_aligned(a, &dns, &found, str_lower(a, first), field, false, &trouble);
  }
  psl_free(psl);
  arena_free(a);
  return 0;
}
