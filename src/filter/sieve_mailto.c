/* mailto: URIs of `notify` (RFC 6068; RFC 5436 says what a notification may not take from them). */

#include "base/ascii.h"
#include "base/buf.h"
#include "filter/sieve.h"
#include "message/address.h"

/* %41 and the like decoded. What is no such thing stays. */
static struct str decode(struct arena *a, struct str s) {
  struct buf b;
  buf_init(&b, a, s.len + 1);
  for (uint32_t i = 0; i < s.len; i++) {
    int high = s.p[i] == '%' && i + 2 < s.len ? ascii_hex_value(s.p[i + 1]) : -1, low = high >= 0 ? ascii_hex_value(s.p[i + 2]) : -1;
    if (low >= 0) {
      buf_add_byte(&b, (char)(high * 16 + low));
      i += 2;
    } else {
      buf_add_byte(&b, s.p[i]);
    }
  }
  return buf_str(&b);
}

static bool one_of(struct str name, const char *const *names) {
  for (; *names; names++)
    if (str_ieq_c(name, *names))
      return true;
  return false;
}

static bool plain(struct str s) {
  for (uint32_t i = 0; i < s.len; i++)
    if (ascii_is_cntrl(s.p[i]))
      return false;
  return true;
}

static bool header_name(struct str s) {
  for (uint32_t i = 0; i < s.len; i++)
    if (!ascii_is_alnum(s.p[i]) && s.p[i] != '-')
      return false;
  return s.len > 0;
}

/* What the notification itself sets; asking for it does nothing. */
static bool ours(struct str name) {
  static const char *const names[] = {"auto-submitted", "received", "date", "message-id", "return-path", "sender", "mime-version",
      "content-type", "content-transfer-encoding", "reply-to", NULL};
  return one_of(name, names) || str_istarts(name, STR("resent-"));
}

static const char *field(struct arena *a, struct str text, struct sieve_notify *n) {
  static const char *const addresses[] = {"from", "to", "cc", "bcc", NULL};
  struct str value = text, name = decode(a, str_cut(&value, '='));
  if (!str_is_set(value))
    return "Missing equal after hname";
  value = decode(a, value);
  if (!header_name(name) || one_of(name, addresses))
    return "Syntactically invalid URI";
  if (str_ieq_c(name, "body")) {
    n->body = value;
    return NULL;
  }
  if (!plain(value))
    return "Syntactically invalid URI";
  if (str_ieq_c(name, "subject")) {
    n->subject = value;
  } else if (!ours(name)) {
    vec_push(a, &n->names, name);
    vec_push(a, &n->values, value);
  }
  return NULL;
}

const char *sieve_mailto(struct arena *a, struct str uri, struct sieve_notify *n) {
  if (!str_istarts(uri, STR("mailto:")))
    return "Unknown URI scheme";
  struct str fields = str_from(uri, 7), to = str_cut(&fields, '?');
  struct address_walk w = {.text = decode(a, to)};
  struct mail_address m;
  struct str error;
  size_t count = 0;
  n->to = w.text;
  n->subject = n->body = STR_UNSET;
  for (; address_walk_next(&w); count++)
    if (address_parse(a, str_slice(w.text, w.from, w.to), 0, &m, &error) || !m.domain.len)
      return "Syntactically invalid URI";
  if (!count || !plain(n->to))
    return "Syntactically invalid URI";
  while (str_is_set(fields)) {
    const char *why = field(a, str_cut(&fields, '&'), n);
    if (why)
      return why;
  }
  return NULL;
}
