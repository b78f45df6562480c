/* Any bytes as a message's header, through reception, the ACL's checks of headers and the variables that read them. What is
kept does not depend on the pieces in which the bytes came (the first of the input is their size). */
#include "smtp/server/fuzz_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ENVELOPE "EHLO headers\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@dom.test>\r\nDATA\r\n"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > 1 << 14)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct buf b;
  buf_init(&b, a, 1 << 18);
  buf_add_c(&b, ENVELOPE);
  buf_add(&b, str_n((const char *)data + 1, size - 1));
  buf_add_c(&b, "\r\n.\r\nQUIT\r\n");
  struct str script = buf_str(&b);
  struct fuzz_session whole = {.arena = a, .piece = 1 << 16, .keep = true, .script = script},
                      parts = {.arena = a, .piece = data[0] ? data[0] : 300u, .keep = true, .script = script},
                      local = {.arena = a, .piece = 4096, .keep = true, .script = script};
  fuzz_session_run(&whole, SESSION_SMTP, FUZZ_PEER);
  fuzz_session_run(&parts, SESSION_SMTP, FUZZ_PEER);
  fuzz_check(whole.accepted == parts.accepted && str_eq(buf_str(&whole.kept), buf_str(&parts.kept)));
  fuzz_session_run(&local, SESSION_LOCAL_SMTP, NULL);
  arena_free(a);
  return 0;
}
