/* Whole sessions of a hostile client: bytes in pieces of any size. The first byte chooses the kind of session (among them those
of a proxy's PROXY header and of XCLIENT), the second the size of the pieces. */
#include "smtp/server/fuzz_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct {
    enum session_kind kind;
    const char *peer;
  } kinds[] = {{SESSION_SMTP, FUZZ_PEER}, {SESSION_SMTP, FUZZ_PEER}, {SESSION_LOCAL_SMTP, NULL}, {SESSION_BATCH, NULL},
      {SESSION_SMTP, FUZZ_PEER_PROXY}, {SESSION_SMTP, FUZZ_PEER_XCLIENT}};
  if (size < 2 || size > 1 << 16)
    return 0;
  struct fuzz_session f = {.arena = arena_new("fuzz"), .piece = data[1] ? data[1] : 4096u,
      .script = str_n((const char *)data + 2, size - 2)};
  fuzz_session_run(&f, kinds[data[0] % 6].kind, kinds[data[0] % 6].peer);
  arena_free(f.arena);
  return 0;
}
