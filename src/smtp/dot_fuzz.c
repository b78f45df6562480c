/* The machine's output does not depend on how the input is cut, and stays within its bound. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "smtp/dot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t run(const uint8_t *data, size_t size, size_t step, enum dot_kind kind, size_t header, char *out) {
  struct dot d;
  size_t n = 0, i = 0;
  dot_init(&d, kind);
  while (i < size && !d.ended) {
    size_t piece = size - i < step ? size - i : step, got;
    size_t took = dot_run(&d, str_n((const char *)data + i, piece), out + n, &got);
    if (got > DOT_OUT_MAX(piece) || took > piece || (took == 0 && got == 0 && !d.line_done))
      abort();
    i += took;
    n += got;
    if (d.header && d.line_done && (size_t)d.lines >= header)
      dot_body(&d);
  }
  return n + dot_finish(&d, out + n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 3 || size > 4096)
    return 0;
  enum dot_kind kind = data[0] % 3;
  size_t header = data[1] % 4, step = (data[2] % 7) + 1;
  char *a = xmalloc(DOT_OUT_MAX(size) * 2 + 64), *b = xmalloc(DOT_OUT_MAX(size) * 2 + 64);
  size_t na = run(data + 3, size - 3, size, kind, header, a), nb = run(data + 3, size - 3, step, kind, header, b);
  if (na != nb || memcmp(a, b, na))
    abort();
  free(a);
  free(b);
  return 0;
}
