/* DKIM: the input is a header, an empty line, a body, and behind a NUL the key record for every signature. */
#include <string.h>

#include "mailauth/dkim.h"

#define FIELDS_MAX 200

static size_t split(struct str header, struct str *fields) {
  size_t n = 0, from = 0;
  for (size_t i = 0; i < header.len && n < FIELDS_MAX; i++) {
    if (header.p[i] != '\n' || (i + 1 < header.len && (header.p[i + 1] == ' ' || header.p[i + 1] == '\t')))
      continue;
    fields[n++] = str_slice(header, from, i + 1);
    from = i + 1;
  }
  return n;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size > 32768)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str record = str_tainted(str_dup(a, str_n((const char *)data, size))), text = str_cut(&record, '\0');
  ptrdiff_t end = str_find(text, STR("\n\n"));
  struct str header = end < 0 ? text : str_slice(text, 0, (size_t)end + 1), body = end < 0 ? STR_EMPTY : str_from(text, (size_t)end + 2);
  struct str fields[FIELDS_MAX];
  size_t n = split(header, fields);
  struct header_index *index = header_index_new(a, fields, n);
  struct body_hashes hashes = {.arena = a};
  struct dkim_signature *first = NULL;
  for (size_t i = 0, used = 0; i < n && used < 20; i++) {
    if (!str_istarts(fields[i], STR("DKIM-Signature:")))
      continue;
    struct dkim_signature *s = dkim_signature_parse(a, fields[i]);
    used++;
    if (s == NULL)
      continue;
    s->next = first;
    first = s;
    if (s->status != DKIM_INVALID)
      s->hash = body_hash_want(&hashes, s->md, s->body_canon, s->body_length);
  }
  for (size_t piece = 1; body.len > 0; piece = piece * 3 % 97) {
    body_hashes_add(&hashes, str_slice(body, 0, piece));
    body = str_from(body, piece);
  }
  body_hashes_end(&hashes);
  for (struct dkim_signature *s = first; s; s = s->next) {
    if (s->status == DKIM_INVALID)
      continue;
    s->key = dkim_key_parse(a, str_is_set(record) ? record : STR_EMPTY);
    dkim_body_holds(s);
    if (s->key != NULL)
      dkim_verify(index, s, 1024);
  }
  arena_free(a);
  return 0;
}
