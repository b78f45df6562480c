/* A header is read in steps: what is asked for never passes its end, and however much is there, the answer is the same. */
#include <stdlib.h>
#include <string.h>

#include "smtp/server/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > PROXY_V2_FIXED + PROXY_V2_MAX + 100)
    return 0;
  struct str in = str_n((const char *)data, size);
  struct proxy_header whole, h;
  const char *why_whole, *why = "";
  size_t n = proxy_parse(in, &whole, &why_whole), have = 0, want;
  for (;;) {
    /* A copy of its own, so that the sanitizer sees what is read behind it. */
    char *copy = malloc(have ? have : 1);
    memcpy(copy, data, have);
    want = proxy_parse(str_n(copy, have), &h, &why);
    free(copy);
    if (want <= have || have == size)
      break;
    have = want < size ? want : size;
  }
  if (want > PROXY_V2_FIXED + PROXY_V2_MAX || (want == 0) != (why[0] != 0))
    abort();
  if (n > 0 && n <= size && (want != n || h.local != whole.local || h.from_port != whole.from_port ||
                              (!h.local && !ip_eq(&h.from, &whole.from))))
    abort();
  if (n > 0 && n <= size && !h.local && h.from.family != h.to.family)
    abort();
  return 0;
}
