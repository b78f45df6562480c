/* Any bytes as a -H file; what is accepted can be written and read again, and from then on stays the same. (Not from
the start: items may come in an order that nobody writes.) */
#include <stdlib.h>
#include "queue/spool_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads and writes. */
static bool pass(struct str text, struct arena *a, struct str *ret) {
  struct message *m = message_new("fuzz");
  struct buf out;
  int line;
  buf_init(&out, a, SPOOL_HEADER_MAX);
  bool done = spool_decode(text, m, &line) == 0 && spool_encode(m, &out) == 0;
  message_free(m);
  *ret = buf_str(&out);
  return done;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct arena *a = arena_new("fuzz");
  struct str first, second, third;
  if (pass(str_n((const char *)data, size), a, &first))
    if (!pass(first, a, &second) || !pass(second, a, &third) || !str_eq(second, third))
      abort();
  arena_free(a);
  return 0;
}
