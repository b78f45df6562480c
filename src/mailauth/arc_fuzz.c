/* ARC: the input is a header, an empty line, a body, and behind a NUL the key record for every signature. The header is judged as
a chain, its Authentication-Results are read, and what a signature of ours would cover is chosen. */
#include <string.h>

#include "mailauth/arc.h"
#include "mailauth/sign.h"

struct keys {
  struct arena *arena;
  struct str record;
};

static void fetch(void *arg, struct dkim_signature *s) {
  const struct keys *k = arg;
  s->key = str_is_set(k->record) ? dkim_key_parse(k->arena, k->record) : NULL;
  if (s->key == NULL) {
    s->status = DKIM_INVALID;
    s->reason = DKIM_KEY_SYNTAX;
  }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size > 32768)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str record = str_tainted(str_dup(a, str_n((const char *)data, size))), text = str_cut(&record, '\0'), results;
  struct sign_fields f = sign_fields(a, text);
  ptrdiff_t end = str_find(text, STR("\n\n"));
  struct arc_chain *chain = arc_collect(a, f.v, f.n);
  if (end >= 0)
    body_hashes_add(&chain->hashes, str_from(text, (size_t)end + 2));
  body_hashes_end(&chain->hashes);
  struct keys k = {a, record};
  arc_validate(chain, header_index_new(a, f.v, f.n), 1000000000, fetch, &k);
  if (chain->state == ARC_UNCHECKED || (chain->state == ARC_PASS) != (chain->oldest_pass > 0) || chain->oldest_pass > chain->sets)
    __builtin_trap();
  for (size_t i = 0; i < f.n; i++)
    if (arc_results_of(a, f.v[i], STR("a.ex"), &results))
      (void)arc_results_state(results);
  struct str names = sign_header_names(a, &f, STR("From:=To:+Subject:X"), true);
  struct buf out;
  buf_init(&out, a, BUF_MAX_EXPANSION);
  header_index_select(header_index_new(a, f.v, f.n), names, CANON_RELAXED, &out);
  struct sign_text t = {&out, 0};
  sign_text_tag(&t, "h=", names, ":");
  arena_free(a);
  return 0;
}
