/* Reports about internationalised messages (RFC 6533): addresses in UTF-8, in
message/global-delivery-status. */
#include "base/ascii.h"
#include "base/idn.h"
#include "deliver/report.h"
#include "message/message.h"

static bool shows_utf8(const struct report *r) {
  if (!str_is_ascii(r->recipient) || !str_is_ascii(r->m->reverse_path))
    return true;
  for (size_t i = 0; i < r->addresses.n; i++) {
    const struct address *a = r->addresses.v[i];
    struct str orcpt = str_is_set(a->dsn_orcpt) ? a->dsn_orcpt : STR_EMPTY;
    if (!str_is_ascii(a->address) || !str_is_ascii(address_top(a)->address) || str_istarts(orcpt, STR("utf-8;")))
      return true;
  }
  return false;
}

/* Only who said SMTPUTF8 can read such a report. */
void report_choose_form(struct report *r) {
  r->global = r->m->smtputf8 && shows_utf8(r);
  for (const struct header *h = r->m->headers; h && r->m->smtputf8 && !r->global_header; h = h->next)
    r->global_header = h->type != '*' && !str_is_ascii(h->text);
  r->submit.smtputf8 = r->global || r->global_header;
}

void report_text_part(struct report *r) {
  buf_printf(&r->submit.body, "--%.*s\nContent-type: text/plain; charset=%s\n", STRF(r->boundary), r->global ? "utf-8" : "us-ascii");
  if (r->global)
    buf_add_c(&r->submit.body, "Content-Transfer-Encoding: 8bit\n");
  buf_add_byte(&r->submit.body, '\n');
}

static void add_utf8(struct buf *out, uint32_t v) {
  if (v < 0x80) {
    buf_add_byte(out, (char)v);
  } else if (v < 0x800) {
    buf_add_byte(out, (char)(0xc0 | v >> 6));
    buf_add_byte(out, (char)(0x80 | (v & 0x3f)));
  } else if (v < 0x10000) {
    buf_add_byte(out, (char)(0xe0 | v >> 12));
    buf_add_byte(out, (char)(0x80 | (v >> 6 & 0x3f)));
    buf_add_byte(out, (char)(0x80 | (v & 0x3f)));
  } else {
    buf_add_byte(out, (char)(0xf0 | v >> 18));
    buf_add_byte(out, (char)(0x80 | (v >> 12 & 0x3f)));
    buf_add_byte(out, (char)(0x80 | (v >> 6 & 0x3f)));
    buf_add_byte(out, (char)(0x80 | (v & 0x3f)));
  }
}

/* "x{E9}" behind a backslash: its length, 0: it is none (RFC 6533, section 3). */
static size_t embedded(struct str s, uint32_t *ret) {
  uint32_t v = 0;
  size_t i = 2;
  if (s.len < 4 || (s.p[0] | 32) != 'x' || s.p[1] != '{')
    return 0;
  for (; i < s.len && i < 8 && ascii_hex_value(s.p[i]) >= 0; i++)
    v = v * 16 + (uint32_t)ascii_hex_value(s.p[i]);
  if (i == 2 || i >= s.len || s.p[i] != '}' || v < 0x20 || (v >= 0x7f && v < 0xa0) || (v >= 0xd800 && v < 0xe000) || v > 0x10ffff)
    return 0;
  *ret = v;
  return i + 1;
}

struct str report_unitext(struct arena *a, struct str address) {
  struct buf b;
  buf_init(&b, a, BUF_MAX_LINE);
  for (size_t i = 0; i < address.len; i++) {
    uint32_t v = 0;
    size_t n = address.p[i] == '\\' ? embedded(str_from(address, i + 1), &v) : 0;
    if (n)
      add_utf8(&b, v);
    else
      buf_add_byte(&b, address.p[i]);
    i += n;
  }
  return buf_str(&b);
}
