/* A damaged LMDB file. The first byte says what is looked up, the rest is the file. */
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "lookup/lmdb_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool read_at(void *arg, void *to, size_t n, uint64_t at) {
  const struct str *s = arg;
  if (at > s->len || n > s->len - at)
    return false;
  memcpy(to, s->p + at, n);
  return true;
}

static uint64_t size_of(void *arg) { return ((const struct str *)arg)->len; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct str names[] = {STR("sub"), STR("many"), STR("trees")}, keys[] = {STR("k"), STR("big"), STR("key5"), STR("x")};
  if (size == 0)
    return 0;
  /* A copy of its own length, so that reading past its end is seen. */
  char *file = xmalloc(size);
  memcpy(file, data + 1, size - 1);
  struct str text = str_n(file, size - 1);
  struct lmdb_source s = {read_at, size_of, &text};
  struct arena *a = arena_new("fuzz");
  struct str value;
  unsigned what = data[0];
  struct str name = (what & 3) < 3 ? names[what & 3] : STR_UNSET;
  if (lmdb_file_get(a, &s, name, keys[what >> 2 & 3], 1u << 20, &value) == LMDB_FOUND && value.len > (1u << 20))
    abort();
  arena_free(a);
  free(file);
  return 0;
}
