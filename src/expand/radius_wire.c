#include "expand/radius_wire.h"

#include <errno.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"

#define HEADER 20u
#define MD5_LENGTH 16u

enum attribute { USER_NAME = 1, USER_PASSWORD = 2, SERVICE_TYPE = 6, NAS_IDENTIFIER = 32, MESSAGE_AUTHENTICATOR = 80 };
#define AUTHENTICATE_ONLY 8

static void add_attribute(struct buf *b, enum attribute type, struct str value) {
  buf_add_byte(b, (char)type);
  buf_add_byte(b, (char)(value.len + 2));
  buf_add_n(b, value.p, value.len);
}

/* Blocks of 16, each XORed with the digest of the secret and the block before (RFC 2865 section 5.2). */
static struct str hide(const struct radius_request *q, char *to) {
  unsigned char key[RADIUS_PACKET_MAX + MD5_LENGTH], digest[HASH_MAX];
  size_t n = q->password.len ? (q->password.len + 15) / 16 * 16 : 16, secret = q->secret.len < RADIUS_PACKET_MAX ? q->secret.len : RADIUS_PACKET_MAX;
  memset(to, 0, n);
  memcpy(to, q->password.p, q->password.len);
  memcpy(key, q->secret.p, secret);
  memcpy(key + secret, q->authenticator, MD5_LENGTH);
  for (size_t i = 0; i < n; i += MD5_LENGTH) {
    hash_bytes("md5", str_n((char *)key, secret + MD5_LENGTH), digest);
    for (size_t j = 0; j < MD5_LENGTH; j++)
      to[i + j] ^= (char)digest[j];
    memcpy(key + secret, to + i, MD5_LENGTH);
  }
  return str_n(to, n);
}

void radius_build(const struct radius_request *q, struct buf *out) {
  static const char service[4] = {0, 0, 0, AUTHENTICATE_ONLY}, none[MD5_LENGTH];
  char hidden[RADIUS_PASSWORD_MAX];
  unsigned char digest[HASH_MAX];
  buf_add_byte(out, RADIUS_REQUEST);
  buf_add_byte(out, (char)q->id);
  buf_add_n(out, none, 2);
  buf_add_n(out, (const char *)q->authenticator, RADIUS_AUTHENTICATOR);
  size_t at = out->len + 2;
  add_attribute(out, MESSAGE_AUTHENTICATOR, str_n(none, sizeof none));
  add_attribute(out, USER_NAME, q->user);
  add_attribute(out, USER_PASSWORD, hide(q, hidden));
  add_attribute(out, SERVICE_TYPE, str_n(service, sizeof service));
  if (q->nas.len > 0)
    add_attribute(out, NAS_IDENTIFIER, q->nas);
  out->p[2] = (char)(out->len >> 8);
  out->p[3] = (char)out->len;
  hmac_bytes("md5", q->secret, buf_str(out), digest);
  memcpy(out->p + at, digest, MD5_LENGTH);
}

/* In full, so that the time taken tells nothing. */
static bool same(const void *a, const void *b) {
  unsigned diff = 0;
  for (size_t i = 0; i < MD5_LENGTH; i++)
    diff |= (unsigned)(((const unsigned char *)a)[i] ^ ((const unsigned char *)b)[i]);
  return diff == 0;
}

/* Where the value of the Message-Authenticator is; 0: there is none; -1: malformed attributes. */
static int find_authenticator(struct str packet) {
  struct cursor c = cursor_of(packet);
  int found = 0;
  cursor_skip(&c, HEADER);
  while (!cursor_at_end(&c) && !c.failed) {
    unsigned type = cursor_u8(&c), length = cursor_u8(&c);
    if (length < 2)
      return -1;
    if (type == MESSAGE_AUTHENTICATOR) {
      if (found || length != MD5_LENGTH + 2)
        return -1;
      found = (int)c.at;
    }
    cursor_skip(&c, length - 2);
  }
  return c.failed ? -1 : found;
}

int radius_check(const struct radius_request *q, struct str packet, bool strict) {
  struct cursor c = cursor_of(packet);
  unsigned code = cursor_u8(&c), id = cursor_u8(&c), length = cursor_u16(&c);
  if (c.failed || id != q->id || length < HEADER || length > packet.len || length > RADIUS_PACKET_MAX ||
      (code != RADIUS_ACCEPT && code != RADIUS_REJECT && code != RADIUS_CHALLENGE))
    return -EPROTO;
  packet = str_slice(packet, 0, length); /* what follows is padding */
  int at = find_authenticator(packet);
  if (at < 0)
    return -EPROTO;
  /* Both digests are over the packet with the request's authenticator in the place of its own. */
  unsigned char digest[HASH_MAX];
  char copy[RADIUS_PACKET_MAX * 2];
  size_t secret = q->secret.len < RADIUS_PACKET_MAX ? q->secret.len : RADIUS_PACKET_MAX;
  memcpy(copy, packet.p, length);
  memcpy(copy + 4, q->authenticator, RADIUS_AUTHENTICATOR);
  memcpy(copy + length, q->secret.p, secret);
  hash_bytes("md5", str_n(copy, length + secret), digest);
  if (!same(digest, packet.p + 4))
    return -EBADMSG;
  if (at == 0)
    return strict ? -EBADMSG : (int)code;
  memset(copy + at, 0, MD5_LENGTH);
  hmac_bytes("md5", q->secret, str_n(copy, length), digest);
  return same(digest, packet.p + at) ? (int)code : -EBADMSG;
}
