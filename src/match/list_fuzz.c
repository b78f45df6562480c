/* A list's text and a subject: splitting, compiling and matching never read
past their ends. Input: subject, NUL, list. No look-ups of files or names. */
#include <stdlib.h>
#include "match/list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool harmless(const struct item *i) {
  switch (i->type) {
  case ITEM_LOOKUP: case ITEM_NET_LOOKUP: case ITEM_ATAT: case ITEM_FILE: case ITEM_HOSTNAME: case ITEM_PRIMARY: case ITEM_MX_ANY:
  case ITEM_MX_PRIMARY: case ITEM_MX_SECONDARY: case ITEM_ERROR: case ITEM_NAMED:
    return false;
  case ITEM_SPLIT:
    return harmless(i->domain);
  default:
    return true;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *nul = memchr(data, 0, size);
  size_t n = nul ? (size_t)(nul - data) : 0;
  struct arena *a = arena_new("fuzz");
  /* Copies of the exact size, so that a byte too far is seen. */
  char *subject = xmalloc(n + 1), *text = xmalloc(size - n + 1);
  memcpy(subject, data, n);
  size_t text_n = nul ? size - n - 1 : size;
  if (text_n)
    memcpy(text, nul ? nul + 1 : data, text_n);
  struct ctx *c = ctx_new(a, NULL);
  for (int kind = LIST_STRING; kind <= LIST_LOCAL_PART; kind++) {
    const struct list *l = list_compile(a, (enum list_kind)kind, str_n(text, text_n), 0);
    list_compile_lines(a, (enum list_kind)kind, str_n(text, text_n), STR("file"));
    bool good = true;
    for (size_t i = 0; i < l->n; i++)
      good &= harmless(&l->v[i]);
    if (good)
      match_text(c, (enum list_kind)kind, str_n(text, text_n), str_n(subject, n), 0, NULL);
  }
  match_done();
  arena_free(a);
  free(subject);
  free(text);
  return 0;
}
