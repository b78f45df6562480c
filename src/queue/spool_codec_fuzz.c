/* Any bytes as a -H file; what is accepted must come back the same from its own encoding. */
#include <stdlib.h>
#include "queue/spool_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct message *m = message_new("fuzz"), *again = message_new("fuzz");
  int line;
  struct buf first, second;
  if (spool_decode(str_n((const char *)data, size), m, &line) == 0) {
    buf_init(&first, m->arena, SPOOL_HEADER_MAX);
    buf_init(&second, m->arena, SPOOL_HEADER_MAX);
    if (spool_encode(m, &first) == 0) {
      if (spool_decode(buf_str(&first), again, &line) || spool_encode(again, &second) ||
          !str_eq(buf_str(&first), buf_str(&second)))
        abort();
    }
  }
  message_free(m);
  message_free(again);
  return 0;
}
