/* A message in chunks is the same message as with DATA. The first byte is the size of the pieces in which the bytes come, the
second says how long the chunks are, the rest becomes a text of CRLF lines. Then the same bytes once more as a raw stream of
chunks whose sizes lie. */
#include "smtp/server/fuzz_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ENVELOPE "EHLO headers\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@dom.test>\r\n"

static struct str lines_of(struct arena *a, const uint8_t *p, size_t n) {
  struct buf b;
  buf_init(&b, a, 1 << 18);
  buf_add_c(&b, "Subject: x\r\n\r\n");
  for (size_t i = 0; i < n; i++) {
    if (p[i] == '\n')
      buf_add_byte(&b, '\r');
    if (p[i] != '\r')
      buf_add_byte(&b, (char)p[i]);
  }
  buf_add_c(&b, "\r\n");
  return buf_str(&b);
}

static struct str with_data(struct arena *a, struct str text) {
  struct buf b;
  buf_init(&b, a, 1 << 18);
  buf_add_c(&b, ENVELOPE "DATA\r\n");
  for (size_t i = 0; i < text.len; i++) {
    if (text.p[i] == '.' && (i == 0 || text.p[i - 1] == '\n'))
      buf_add_byte(&b, '.');
    buf_add_byte(&b, text.p[i]);
  }
  buf_add_c(&b, ".\r\nQUIT\r\n");
  return buf_str(&b);
}

/* `lie`: added to each size that is announced. */
static struct str in_chunks(struct arena *a, struct str text, size_t chunk, int lie) {
  struct buf b;
  buf_init(&b, a, 1 << 18);
  buf_add_c(&b, ENVELOPE);
  for (size_t i = 0; i < text.len; i += chunk) {
    size_t n = text.len - i < chunk ? text.len - i : chunk;
    buf_printf(&b, "BDAT %lld%s\r\n", (long long)n + lie, i + n == text.len ? " LAST" : "");
    buf_add(&b, str_slice(text, i, i + n));
  }
  buf_add_c(&b, "QUIT\r\n");
  return buf_str(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 3 || size > 1 << 13)
    return 0;
  struct arena *a = arena_new("fuzz");
  size_t piece = data[0] ? data[0] : 4096u, chunk = data[1] % 64 ? (size_t)(data[1] % 64) * (data[1] / 64 + 1) * 3 : 1 << 16;
  struct str text = lines_of(a, data + 2, size - 2);
  struct fuzz_session whole = {.arena = a, .piece = 4096, .keep = true, .script = with_data(a, text)},
                      parts = {.arena = a, .piece = piece, .keep = true, .script = in_chunks(a, text, chunk, 0)},
                      lies = {.arena = a, .piece = piece, .script = in_chunks(a, text, chunk, data[0] % 3 ? 1 : -1)};
  fuzz_session_run(&whole, SESSION_SMTP, FUZZ_PEER);
  fuzz_session_run(&parts, SESSION_SMTP, FUZZ_PEER);
  fuzz_check(whole.accepted == 1 && parts.accepted == 1);
  fuzz_check(str_eq(buf_str(&whole.kept), buf_str(&parts.kept)));
  fuzz_session_run(&lies, SESSION_SMTP, FUZZ_PEER);
  arena_free(a);
  return 0;
}
