/* What comes in the place of a RADIUS server's answer. */
#include <stdlib.h>
#include "expand/radius_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct radius_request q = {.secret = STR("secret"), .id = size > 1 ? data[1] : 0};
  /* Nobody guesses the digest of a secret. */
  if (radius_check(&q, str_n((const char *)data, size), size & 1) >= 0)
    abort();
  return 0;
}
