/* Fields of MIME headers, delimiter lines, transfer encodings: foreign input of any form. */
#include <stdlib.h>

#include "base/arena.h"
#include "scan/mime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n > 100000)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str text = str_tainted(str_n((const char *)data, n)), rest = text;
  struct mime_header h = {0};
  struct mime_decoder d[3] = {{.encoding = MIME_IDENTITY}, {.encoding = MIME_BASE64}, {.encoding = MIME_QUOTED}};
  bool end;
  for (int lines = 0; rest.len > 0 && lines < 1000; lines++) {
    ptrdiff_t lf = str_find_byte(rest, '\n');
    struct str line = str_slice(rest, 0, lf < 0 ? rest.len : (size_t)lf + 1);
    rest = str_from(rest, line.len);
    if (mime_header_wanted(line))
      mime_header_field(&h, a, line);
    if (str_is_set(h.boundary) && mime_delimiter(line, h.boundary, &end) && h.boundary.len + 2 > line.len)
      abort();
    for (int i = 0; i < 3; i++) {
      char *out = arena_bytes(a, MIME_DECODED_MAX(line.len));
      if (mime_decode(&d[i], line, out) > MIME_DECODED_MAX(line.len))
        abort();
    }
  }
  mime_header_field(&h, a, text);
  if (str_is_set(h.filename) && h.filename.len > MIME_FIELD_MAX)
    abort();
  arena_free(a);
  return 0;
}
