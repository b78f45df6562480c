/* Messages of NTLM, from either side. */
#include <stdlib.h>

#include "base/arena.h"
#include "sasl/ntlm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const unsigned char nonce[NTLM_CHALLENGE];
  struct arena *a = arena_new("fuzz");
  struct str message = str_tainted(str_dup(a, str_n((const char *)data, size <= NTLM_MESSAGE_MAX ? size : NTLM_MESSAGE_MAX)));
  uint32_t flags;
  struct ntlm_challenge c;
  struct ntlm_response r;
  (void)ntlm_read_negotiate(message, &flags);
  if (ntlm_read_challenge(message, &c) && ntlm_answer(a, &c, STR("u"), STR("d"), STR("p"), &r)) {
    struct ntlm_response again;
    struct str answer = ntlm_write_response(a, &r, true);
    if (answer.len > 0)
      check(ntlm_read_response(a, answer, &again) && (again.flags & NTLM_UNICODE ? str_eq_c(again.user, "u") : true) && again.nt.len == r.nt.len);
  }
  if (ntlm_read_response(a, message, &r)) {
    check(str_is_tainted(r.user) || r.user.len == 0);
    (void)ntlm_verify(a, &r, nonce, STR("p"));
  }
  (void)ntlm_utf16(a, message);
  arena_free(a);
  return 0;
}
