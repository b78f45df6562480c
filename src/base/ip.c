#include "base/ip.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/ascii.h"

/* As inet_pton() reads them: four numbers without zeros in front. */
static bool parse_dotted(struct str s, uint8_t *to) {
  size_t i = 0;
  for (int octet = 0; octet < 4; octet++) {
    size_t from = i;
    unsigned n = 0;
    for (; i < s.len && ascii_is_digit(s.p[i]); i++) {
      n = 10 * n + (unsigned)(s.p[i] - '0');
      if (n > 255 || (i > from && s.p[from] == '0'))
        return false;
    }
    if (i == from || (octet < 3 && (i == s.len || s.p[i++] != '.')))
      return false;
    to[octet] = (uint8_t)n;
  }
  return i == s.len;
}

bool ip_parse(struct str s, struct ip_addr *ret) {
  char text[IP_TEXT_MAX + IF_NAMESIZE];
  struct ip_addr ip = {0};
  if (!s.len || s.len >= sizeof text)
    return false;
  if (!memchr(s.p, ':', s.len)) {
    if (!parse_dotted(s, ip.bytes))
      return false;
    ip.family = AF_INET;
    *ret = ip;
    return true;
  }
  if (memchr(s.p, 0, s.len))
    return false;
  memcpy(text, s.p, s.len);
  text[s.len] = 0;
  char *scope = strchr(text, '%');
  if (scope) {
    *scope++ = 0;
    uint64_t n;
    ip.scope = str_to_u64(str_c(scope), &n) && n <= UINT32_MAX ? (uint32_t)n : if_nametoindex(scope);
    if (!*scope)
      return false;
  }
  if (inet_pton(AF_INET6, text, ip.bytes) != 1)
    return false;
  ip.family = AF_INET6;
  *ret = ip;
  return true;
}

bool ip_parse_masked(struct str s, struct ip_addr *ret, int *ret_bits) {
  ptrdiff_t slash = str_find_byte(s, '/');
  struct str addr = slash < 0 ? s : str_slice(s, 0, (size_t)slash);
  uint64_t bits;
  if (!ip_parse(addr, ret))
    return false;
  if (slash < 0) {
    *ret_bits = ip_bits(ret);
    return true;
  }
  if (!str_to_u64(str_from(s, (size_t)slash + 1), &bits) || bits > (uint64_t)ip_bits(ret))
    return false;
  *ret_bits = (int)bits;
  return true;
}

bool ip_parse_port(struct str s, struct ip_addr *ret, int *ret_port) {
  uint64_t port = 0;
  *ret_port = 0;
  if (s.len && s.p[0] == '[') {
    ptrdiff_t end = str_find_byte(s, ']');
    if (end < 0 || !ip_parse(str_slice(s, 1, (size_t)end), ret))
      return false;
    struct str rest = str_from(s, (size_t)end + 1);
    if (rest.len && (rest.p[0] != ':' || !str_to_u64(str_from(rest, 1), &port) || port > 65535))
      return false;
    *ret_port = (int)port;
    return true;
  }
  if (ip_parse(s, ret))
    return true;
  ptrdiff_t dot = str_rfind_byte(s, '.');
  if (dot < 0 || !ip_parse(str_slice(s, 0, (size_t)dot), ret) || !str_to_u64(str_from(s, (size_t)dot + 1), &port) || port > 65535)
    return false;
  *ret_port = (int)port;
  return true;
}

struct str ip_text(struct arena *a, const struct ip_addr *ip) {
  char text[IP_TEXT_MAX];
  if (ip->family == AF_INET) {
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
      unsigned v = ip->bytes[i];
      if (i > 0)
        text[n++] = '.';
      if (v >= 100)
        text[n++] = (char)('0' + v / 100);
      if (v >= 10)
        text[n++] = (char)('0' + v / 10 % 10);
      text[n++] = (char)('0' + v % 10);
    }
    return str_dup(a, str_n(text, n));
  }
  if (!ip->family || !inet_ntop(ip->family, ip->bytes, text, sizeof text))
    return STR_EMPTY;
  return str_dup(a, str_c(text));
}

struct str ip_text_full(struct arena *a, const struct ip_addr *ip) {
  if (ip->family != AF_INET6)
    return ip_text(a, ip);
  char text[IP_TEXT_MAX];
  size_t n = 0;
  for (int i = 0; i < 16; i += 2)
    n += (size_t)snprintf(text + n, sizeof text - n, "%s%02x%02x", i ? ":" : "", ip->bytes[i], ip->bytes[i + 1]);
  return str_dup(a, str_n(text, n));
}

bool ip_eq(const struct ip_addr *a, const struct ip_addr *b) { return a->family == b->family && ip_match(a, b, ip_bits(a)); }

bool ip_match(const struct ip_addr *ip, const struct ip_addr *net, int bits) {
  if (!ip->family || ip->family != net->family)
    return false;
  int whole = bits / 8, rest = bits % 8;
  if (memcmp(ip->bytes, net->bytes, (size_t)whole))
    return false;
  return !rest || ((ip->bytes[whole] ^ net->bytes[whole]) & (0xff << (8 - rest)) & 0xff) == 0;
}

void ip_mask(struct ip_addr *ip, int bits) {
  for (int i = 0; i < 16; i++) {
    int keep = bits - i * 8;
    if (keep <= 0)
      ip->bytes[i] = 0;
    else if (keep < 8)
      ip->bytes[i] &= (unsigned char)(0xff << (8 - keep));
  }
}

bool ip_is_loopback(const struct ip_addr *ip) {
  static const unsigned char one[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return ip->family == AF_INET ? ip->bytes[0] == 127 : ip->family == AF_INET6 && !memcmp(ip->bytes, one, 16);
}

bool ip_is_any(const struct ip_addr *ip) {
  static const unsigned char zero[16];
  return ip->family && !memcmp(ip->bytes, zero, ip->family == AF_INET ? 4 : 16);
}

void ip_unmap(struct ip_addr *ip) {
  static const unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (ip->family != AF_INET6 || memcmp(ip->bytes, prefix, 12))
    return;
  memmove(ip->bytes, ip->bytes + 12, 4);
  memset(ip->bytes + 4, 0, 12);
  ip->family = AF_INET;
}

bool ip_from_sockaddr(const struct sockaddr *sa, struct ip_addr *ret, int *ret_port) {
  *ret = (struct ip_addr){.family = sa->sa_family};
  if (sa->sa_family == AF_INET) {
    const struct sockaddr_in *s = (const struct sockaddr_in *)sa;
    memcpy(ret->bytes, &s->sin_addr, 4);
    *ret_port = ntohs(s->sin_port);
    return true;
  }
  if (sa->sa_family == AF_INET6) {
    const struct sockaddr_in6 *s = (const struct sockaddr_in6 *)sa;
    memcpy(ret->bytes, &s->sin6_addr, 16);
    ret->scope = s->sin6_scope_id;
    *ret_port = ntohs(s->sin6_port);
    ip_unmap(ret);
    return true;
  }
  ret->family = 0;
  return false;
}

socklen_t ip_to_sockaddr(const struct ip_addr *ip, int port, struct sockaddr_storage *ret) {
  memset(ret, 0, sizeof *ret);
  if (ip->family == AF_INET6) {
    struct sockaddr_in6 *s = (struct sockaddr_in6 *)ret;
    s->sin6_family = AF_INET6;
    s->sin6_port = htons((uint16_t)port);
    s->sin6_scope_id = ip->scope;
    memcpy(&s->sin6_addr, ip->bytes, 16);
    return sizeof *s;
  }
  struct sockaddr_in *s = (struct sockaddr_in *)ret;
  s->sin_family = AF_INET;
  s->sin_port = htons((uint16_t)port);
  memcpy(&s->sin_addr, ip->bytes, 4);
  return sizeof *s;
}

struct str ip_reverse_name(struct arena *a, const struct ip_addr *ip, const char *zone) {
  char text[512];
  size_t n = 0;
  if (ip->family == AF_INET) {
    for (int i = 3; i >= 0; i--)
      n += (size_t)snprintf(text + n, sizeof text - n, "%d.", ip->bytes[i]);
    if (!zone)
      zone = "in-addr.arpa";
  } else {
    for (int i = 15; i >= 0; i--)
      n += (size_t)snprintf(text + n, sizeof text - n, "%x.%x.", ip->bytes[i] & 15, ip->bytes[i] >> 4);
    if (!zone)
      zone = "ip6.arpa";
  }
  return str_printf(a, "%.*s%s", (int)n, text, zone);
}
