#include "sasl/ntlm.h"

#include "base/buf.h"
#include "base/cursor.h"

#define SIGNATURE "NTLMSSP" /* with its NUL */

/* --- texts --- */

static void add_unit(struct buf *b, uint32_t unit) {
  buf_add_byte(b, (char)unit);
  buf_add_byte(b, (char)(unit >> 8));
}

/* The next character of UTF-8. */
static uint32_t next_utf8(struct str s, uint32_t *i) {
  static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
  unsigned char c = (unsigned char)s.p[(*i)++];
  int more = c < 0x80 ? 0 : (c & 0xe0) == 0xc0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : (c & 0xf8) == 0xf0 ? 3 : -1;
  if (more < 0 || *i + (uint32_t)more > s.len)
    return 0xfffd;
  uint32_t v = more == 0 ? c : c & (0x3fu >> more);
  for (int k = 0; k < more; k++) {
    unsigned char d = (unsigned char)s.p[*i + (uint32_t)k];
    if ((d & 0xc0) != 0x80)
      return 0xfffd;
    v = v << 6 | (d & 0x3f);
  }
  *i += (uint32_t)more;
  return v < least[more] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000) ? 0xfffd : v;
}

struct str ntlm_utf16(struct arena *a, struct str utf8) {
  struct buf b;
  buf_init(&b, a, 4 * NTLM_MESSAGE_MAX);
  for (uint32_t i = 0; i < utf8.len;) {
    uint32_t v = next_utf8(utf8, &i);
    if (v < 0x10000) {
      add_unit(&b, v);
    } else {
      add_unit(&b, 0xd800 + ((v - 0x10000) >> 10));
      add_unit(&b, 0xdc00 + ((v - 0x10000) & 0x3ff));
    }
  }
  b.taint = utf8.taint;
  return buf_str(&b);
}

static void add_utf8(struct buf *b, uint32_t v) {
  if (v < 0x80) {
    buf_add_byte(b, (char)v);
  } else if (v < 0x800) {
    buf_add_byte(b, (char)(0xc0 | v >> 6));
    buf_add_byte(b, (char)(0x80 | (v & 0x3f)));
  } else if (v < 0x10000) {
    buf_add_byte(b, (char)(0xe0 | v >> 12));
    buf_add_byte(b, (char)(0x80 | (v >> 6 & 0x3f)));
    buf_add_byte(b, (char)(0x80 | (v & 0x3f)));
  } else {
    buf_add_byte(b, (char)(0xf0 | v >> 18));
    buf_add_byte(b, (char)(0x80 | (v >> 12 & 0x3f)));
    buf_add_byte(b, (char)(0x80 | (v >> 6 & 0x3f)));
    buf_add_byte(b, (char)(0x80 | (v & 0x3f)));
  }
}

static uint32_t unit_at(struct str s, uint32_t i) { return (unsigned char)s.p[i] | (uint32_t)(unsigned char)s.p[i + 1] << 8; }

struct str ntlm_utf8(struct arena *a, struct str s) {
  struct buf b;
  buf_init(&b, a, 4 * NTLM_MESSAGE_MAX);
  for (uint32_t i = 0; i + 1 < s.len; i += 2) {
    uint32_t v = unit_at(s, i);
    if (v >= 0xd800 && v < 0xdc00 && i + 3 < s.len && unit_at(s, i + 2) >= 0xdc00 && unit_at(s, i + 2) < 0xe000) {
      v = 0x10000 + ((v - 0xd800) << 10) + (unit_at(s, i + 2) - 0xdc00);
      i += 2;
    } else if (v >= 0xd800 && v < 0xe000) {
      v = 0xfffd;
    }
    add_utf8(&b, v);
  }
  b.taint = s.taint;
  return buf_str(&b);
}

/* --- reading --- */

static uint32_t number(struct cursor *c, int bytes) {
  uint32_t v = 0;
  for (int i = 0; i < bytes; i++)
    v |= (uint32_t)cursor_u8(c) << 8 * i;
  return v;
}

static bool begin(struct str message, uint32_t type, struct cursor *ret) {
  *ret = cursor_of(message);
  struct str signature = cursor_take(ret, 8);
  return str_eq(signature, str_n(SIGNATURE, 8)) && number(ret, 4) == type && !ret->failed;
}

/* A field: its length, the room for it, where it is. */
static bool field(struct cursor *c, struct str *ret) {
  uint32_t len = number(c, 2);
  number(c, 2);
  uint32_t at = number(c, 4);
  if (c->failed)
    return false;
  if (len == 0)
    at = 0; /* some say where nothing is; Exim that it is far away */
  if (at > c->s.len || len > c->s.len - at)
    return false;
  *ret = str_slice(c->s, at, (size_t)at + len);
  return true;
}

bool ntlm_read_negotiate(struct str message, uint32_t *ret_flags) {
  struct cursor c;
  if (!begin(message, 1, &c))
    return false;
  *ret_flags = number(&c, 4);
  return !c.failed;
}

bool ntlm_read_challenge(struct str message, struct ntlm_challenge *ret) {
  struct cursor c;
  *ret = (struct ntlm_challenge){.target_info = STR_EMPTY};
  if (!begin(message, 2, &c) || !field(&c, &ret->target))
    return false;
  ret->flags = number(&c, 4);
  struct str challenge = cursor_take(&c, NTLM_CHALLENGE);
  if (c.failed)
    return false;
  memcpy(ret->challenge, challenge.p, NTLM_CHALLENGE);
  cursor_skip(&c, 8);
  return !(ret->flags & NTLM_TARGET_INFO) || field(&c, &ret->target_info);
}

bool ntlm_read_response(struct arena *a, struct str message, struct ntlm_response *ret) {
  struct cursor c;
  struct str workstation, key;
  if (!begin(message, 3, &c) || !field(&c, &ret->lm) || !field(&c, &ret->nt) || !field(&c, &ret->domain) || !field(&c, &ret->user) ||
      !field(&c, &workstation))
    return false;
  /* The oldest form ends here; where the others have the key and the flags it has data. */
  ret->flags = NTLM_UNICODE;
  if (field(&c, &key)) {
    uint32_t flags = number(&c, 4);
    if (!c.failed)
      ret->flags = flags;
  }
  if (ret->flags & NTLM_UNICODE) {
    ret->domain = ntlm_utf8(a, ret->domain);
    ret->user = ntlm_utf8(a, ret->user);
  }
  return true;
}

/* --- writing --- */

static void add_number(struct buf *b, uint32_t v, int bytes) {
  for (int i = 0; i < bytes; i++)
    buf_add_byte(b, (char)(v >> 8 * i));
}

static void add_field(struct buf *b, struct str s, size_t *at) {
  add_number(b, s.len, 2);
  add_number(b, s.len, 2);
  add_number(b, (uint32_t)*at, 4);
  *at += s.len;
}

static void start(struct buf *b, struct arena *a, uint32_t type) {
  buf_init(b, a, 2 * NTLM_MESSAGE_MAX);
  buf_add_n(b, SIGNATURE, 8);
  add_number(b, type, 4);
}

struct str ntlm_write_negotiate(struct arena *a, uint32_t flags) {
  struct buf b;
  size_t at = 32;
  start(&b, a, 1);
  add_number(&b, flags, 4);
  add_field(&b, STR_EMPTY, &at);
  add_field(&b, STR_EMPTY, &at);
  return buf_str(&b);
}

static void add_pair(struct buf *b, uint32_t kind, struct str value) {
  add_number(b, kind, 2);
  add_number(b, value.len, 2);
  buf_add_n(b, value.p, value.len);
}

struct str ntlm_write_challenge(struct arena *a, uint32_t flags, const unsigned char *challenge, struct str name) {
  struct buf b, info;
  size_t at = 48;
  struct str wide = ntlm_utf16(a, str_slice(name, 0, 255)), target = flags & NTLM_UNICODE ? wide : str_slice(name, 0, 255);
  buf_init(&info, a, NTLM_MESSAGE_MAX);
  add_pair(&info, 1, wide); /* the server's name */
  add_pair(&info, 3, wide); /* in the DNS */
  add_pair(&info, 0, STR_EMPTY);
  start(&b, a, 2);
  add_field(&b, target, &at);
  add_number(&b, flags, 4);
  buf_add_n(&b, (const char *)challenge, NTLM_CHALLENGE);
  add_number(&b, 0, 4);
  add_number(&b, 0, 4);
  add_field(&b, buf_str(&info), &at);
  buf_add(&b, target);
  buf_add(&b, buf_str(&info));
  return buf_str(&b);
}

struct str ntlm_write_response(struct arena *a, const struct ntlm_response *r, bool unicode) {
  struct buf b;
  size_t at = 64;
  struct str domain = unicode ? ntlm_utf16(a, r->domain) : r->domain, user = unicode ? ntlm_utf16(a, r->user) : r->user;
  start(&b, a, 3);
  add_field(&b, r->lm, &at);
  add_field(&b, r->nt, &at);
  add_field(&b, domain, &at);
  add_field(&b, user, &at);
  add_field(&b, STR_EMPTY, &at); /* the workstation */
  add_field(&b, STR_EMPTY, &at); /* the session's key */
  add_number(&b, r->flags, 4);
  buf_add(&b, r->lm);
  buf_add(&b, r->nt);
  buf_add(&b, domain);
  buf_add(&b, user);
  return b.overflow ? STR_EMPTY : buf_str(&b);
}
