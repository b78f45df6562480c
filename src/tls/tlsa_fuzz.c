/* The data of TLSA records: whatever is taken for usable must be what mail can use. */
#include <stdlib.h>
#include "tls/dane.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct tls_tlsa r;
  if (!tls_tlsa_read(str_n((const char *)data, size), &r))
    return 0;
  if ((r.usage != TLSA_DANE_TA && r.usage != TLSA_DANE_EE) || r.selector > 1 || r.matching > 2 || r.data.p != (const char *)data + 3 ||
      r.data.len != size - 3 || (r.matching && r.data.len != 32u * r.matching))
    abort();
  return 0;
}
