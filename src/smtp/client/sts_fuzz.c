/* Policies and TXT records of MTA-STS. */
#include "smtp/client/sts_policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct str text = str_n((const char *)data, size), id;
  struct sts_policy p;
  if (sts_record_parse(text, &id) == 0 && (id.len == 0 || id.len > STS_ID_MAX))
    __builtin_trap();
  if (sts_policy_parse(text, &p) == 0) {
    if (p.max_age < 0 || p.max_age > STS_MAX_AGE || p.mx_n > STS_MX_MAX || (p.mode != STS_NONE && !p.mx_n))
      __builtin_trap();
    if (p.mx_n && p.mx[0].p[0] != '*' && !sts_policy_allows(&p, p.mx[0]))
      __builtin_trap();
  }
  return 0;
}
