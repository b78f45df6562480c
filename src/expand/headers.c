/* $h_name: and its kin (manual, "Expansion items", $header_). */
#include "core/main_options.h"
#include "expand/internal.h"
#include "expand/rfc2047.h"
#include "message/message.h"

#define HEADER_MAX_TEXT (64u << 10)

bool header_exists(struct ctx *c, struct str name) {
  return c->message != NULL && message_find_header(c->message, name, NULL) != NULL;
}

/* The value as it stands behind the colon, without the final newline. */
static struct str raw_value(const struct header *h) {
  struct str s = h->text;
  ptrdiff_t colon = str_find_byte(s, ':');
  s = str_from(s, colon < 0 ? s.len : (size_t)colon + 1);
  return s.len > 0 && s.p[s.len - 1] == '\n' ? str_slice(s, 0, s.len - 1) : s;
}

static bool holds_addresses(const struct header *h) {
  return h->type != '\0' && strchr("BCFRST", h->type) != NULL;
}

static void add_list(struct ctx *c, struct str name, struct buf *b) {
  bool first = true;
  for (const struct header *h = message_find_header(c->message, name, NULL); h != NULL;
       h = message_find_header(c->message, name, h)) {
    struct str value = raw_value(h);
    if (!first)
      buf_add_byte(b, ':');
    first = false;
    for (size_t i = 0; i < value.len; i++) {
      if (value.p[i] == ':')
        buf_add_byte(b, ':');
      buf_add_byte(b, value.p[i]);
    }
    b->taint = str_taint_join(b->taint, value.taint);
  }
}

/* Several header lines: newlines between them, commas too where they are address lists; raw ones simply follow each other,
each with its newline (the manual speaks of none, Exim has it). */
static void add_joined(struct ctx *c, struct str name, bool raw, struct buf *b) {
  for (const struct header *h = message_find_header(c->message, name, NULL); h != NULL;
       h = message_find_header(c->message, name, h)) {
    struct str value = raw ? raw_value(h) : str_trim(raw_value(h));
    if (!raw && value.len == 0)
      continue;
    if (b->len > 0 && !raw)
      buf_add_c(b, holds_addresses(h) ? ",\n" : "\n");
    if (b->len + value.len > HEADER_MAX_TEXT)
      value = str_slice(value, 0, HEADER_MAX_TEXT > b->len ? HEADER_MAX_TEXT - b->len : 0);
    buf_add(b, value);
    if (b->len >= HEADER_MAX_TEXT)
      return;
    if (raw)
      buf_add_byte(b, '\n');
  }
}

int header_expand(struct ctx *c, enum header_form form, struct str name, struct buf *out) {
  if (c->message == NULL)
    return 0;
  struct buf b;
  buf_init(&b, c->arena, 4 * HEADER_MAX_TEXT);
  if (form == HEADER_LIST)
    add_list(c, name, &b);
  else
    add_joined(c, name, form == HEADER_RAW, &b);
  struct str value = buf_str(&b);
  if (form == HEADER_DECODED || form == HEADER_BASIC) {
    struct str charset = form == HEADER_BASIC || c->config == NULL ? STR_UNSET : main_options(c->config)->headers_charset;
    if (form != HEADER_BASIC && c->filter != NULL && str_is_set(c->filter->charset))
      charset = c->filter->charset;
    struct str before = c->error;
    value = rfc2047_decode(c, value, charset);
    c->error = before;
  }
  buf_add(out, value);
  return 0;
}
