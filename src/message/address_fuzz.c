/* Any bytes as an address, as a header's list of addresses, and as a local part. */
#include <stdlib.h>
#include "message/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct arena *a;
  if (!a)
    a = arena_new("fuzz");
  struct arena_mark mark = arena_mark(a);
  /* An exact copy, so that reads behind the end are seen. */
  char *copy = malloc(size ? size : 1);
  memcpy(copy, data, size);
  struct str text = str_n(copy, size);
  struct mail_address m;
  struct str error;
  for (unsigned flags = 0; flags < 32; flags += 5) {
    if (address_parse(a, text, flags, &m, &error) == 0) {
      if (m.start > m.end || m.end > size || memchr(m.address.p, '\n', m.address.len))
        abort();
    } else if (!str_is_set(error)) {
      abort();
    }
  }
  struct address_walk w = {.text = text};
  while (address_walk_next(&w))
    if (w.from > w.to || w.to > size || w.shown_from > w.from || w.shown_to < w.to || w.shown_to > size)
      abort();
  if (address_find_end(text, true) > size || address_find_end(text, false) > size)
    abort();
  struct str quoted = address_quote_local_part(a, text);
  if (!str_eq(address_unquote_local_part(a, quoted), text) && quoted.len && quoted.p[0] == '"')
    abort();
  free(copy);
  arena_rewind(a, mark);
  return 0;
}
