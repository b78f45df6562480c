/* DomainKeys: the input is a header, an empty line, a body, and behind a NUL a record that is taken as a key and as a policy. */
#include "mailauth/domainkeys.h"
#include "mailauth/sign.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size > 32768)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str record = str_tainted(str_dup(a, str_n((const char *)data, size))), text = str_cut(&record, '\0');
  ptrdiff_t end = str_find(text, STR("\n\n"));
  struct str header = end < 0 ? text : str_slice(text, 0, (size_t)end + 1), body = end < 0 ? STR_EMPTY : str_from(text, (size_t)end + 2);
  struct sign_fields f = sign_fields(a, header);
  struct dk_author author;
  struct dk_signature sig;
  struct dk_key key;
  bool any, signs_all, testing;
  if (!str_is_set(record))
    record = STR_EMPTY;
  dk_find_author(a, f.v, f.n, &author);
  (void)dk_policy_parse(a, record, &signs_all, &testing);
  enum dk_key_state state = dk_key_parse(a, record, author.local_part, &key);
  if (dk_find_signature(a, f.v, f.n, &author, &sig, &any)) {
    struct dk_stream *s = dk_stream_new(a, sig.canon);
    dk_stream_header(s, a, f.v, f.n, sig.field + 1, sig.names);
    for (size_t piece = 1; body.len > 0; piece = piece * 3 % 97) {
      dk_stream_body(s, str_slice(body, 0, piece));
      body = str_from(body, piece);
    }
    dk_stream_end(s);
    if (state == DK_KEY_OK)
      (void)dk_signature_holds(&key, &sig, s);
  }
  arena_free(a);
  return 0;
}
