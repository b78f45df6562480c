/* A file of keys and data, and the type of a lookup. Input: key, NUL, file. */
#include <stdlib.h>
#include "lookup/lookup.h"
#include "lookup/lsearch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *nul = memchr(data, 0, size);
  if (nul == NULL)
    return 0;
  size_t key_n = (size_t)(nul - data), text_n = size - key_n - 1;
  struct arena *a = arena_new("fuzz");
  char *text = xmalloc(text_n + 1);
  memcpy(text, nul + 1, text_n);
  struct str key = str_n((const char *)data, key_n);
  struct lsearch_file *f = lsearch_parse(a, str_n(text, text_n));
  for (size_t i = 0; i < f->n; i++) {
    const struct lsearch_item *item = lsearch_find(f, f->v[i].key);
    if (item == NULL || item > &f->v[i])
      abort(); /* each key is found, and its first item */
    lsearch_data(f, item, a, i & 1);
  }
  /* Without an index the same is found; the empty key never is. */
  const struct lsearch_item *indexed = lsearch_find(f, key), *scanned = lsearch_find(lsearch_new(a, f->text), key);
  if (key.len > 0 && (indexed == NULL) != (scanned == NULL))
    abort();
  if (scanned != NULL && (scanned->line != indexed->line || scanned->rest != indexed->rest || scanned->end != indexed->end))
    abort();
  struct lookup_spec spec;
  struct str error;
  if (lookup_parse(a, key, &spec, &error) == OUTCOME_OK && spec.def == NULL)
    abort();
  arena_free(a);
  free(text);
  return 0;
}
