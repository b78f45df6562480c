#include "cli/gzip.h"

#include <stdint.h>
#include <zlib.h>

bool gzip_text(struct arena *a, struct str text, struct str *ret) {
  z_stream z = {.next_in = (Bytef *)(uintptr_t)text.p, .avail_in = text.len};
  if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) != Z_OK)
    return false;
  size_t room = deflateBound(&z, text.len) + 32;
  char *out = arena_bytes(a, room);
  z.next_out = (Bytef *)out;
  z.avail_out = (uInt)room;
  int rc = deflate(&z, Z_FINISH);
  *ret = str_n(out, room - z.avail_out);
  deflateEnd(&z);
  return rc == Z_STREAM_END;
}
