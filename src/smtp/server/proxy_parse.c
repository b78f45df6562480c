#include "smtp/server/proxy.h"

#include <string.h>

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n"; /* of version 2: 12 bytes */
#define SIGNATURE_LEN 12
#define V1_MIN 15 /* "PROXY UNKNOWN\r\n" */

enum { TLV_CRC32C = 3, TLV_UNIQUE_ID = 5, UNIQUE_ID_MAX = 128 };

static size_t bad(const char **ret_why, const char *why) {
  *ret_why = why;
  return 0;
}

/* ---- version 1: a line ---- */

static bool port_number(struct str s, int *ret) {
  uint64_t n;
  if (s.len == 0 || s.len > 5 || (s.len > 1 && s.p[0] == '0') || !str_to_u64(s, &n) || n > 65535)
    return false;
  *ret = (int)n;
  return true;
}

static bool address(struct str s, int family, struct ip_addr *ret) {
  return str_find_byte(s, '%') < 0 && ip_parse(s, ret) && ret->family == family;
}

static size_t parse_line(struct str line, struct proxy_header *ret, const char **ret_why) {
  struct str rest = str_from(str_slice(line, 0, line.len - 2), 6), word[5];
  int n = 0;
  if (str_starts(rest, STR("UNKNOWN")) && (rest.len == 7 || rest.p[7] == ' ')) {
    ret->local = true;
    return line.len;
  }
  while (str_is_set(rest) && n < 5)
    word[n++] = str_cut(&rest, ' ');
  int family = n == 5 && !str_is_set(rest) ? str_eq_c(word[0], "TCP4") ? AF_INET : str_eq_c(word[0], "TCP6") ? AF_INET6 : 0 : 0;
  if (!family)
    return bad(ret_why, "malformed line");
  if (!address(word[1], family, &ret->from) || !address(word[2], family, &ret->to))
    return bad(ret_why, "bad address");
  if (!port_number(word[3], &ret->from_port) || !port_number(word[4], &ret->to_port))
    return bad(ret_why, "bad port");
  return line.len;
}

static size_t parse_v1(struct str in, struct proxy_header *ret, const char **ret_why) {
  ptrdiff_t nl = str_find_byte(in, '\n');
  if (nl < 0)
    return in.len >= PROXY_V1_MAX ? bad(ret_why, "line without end") : in.len < V1_MIN ? V1_MIN : in.len + 1;
  if (nl + 1 > PROXY_V1_MAX || nl < 1 || in.p[nl - 1] != '\r')
    return bad(ret_why, "line end is not CRLF");
  if (memchr(in.p, 0, (size_t)nl) != NULL || nl < 8)
    return bad(ret_why, "malformed line");
  return parse_line(str_slice(in, 0, (size_t)nl + 1), ret, ret_why);
}

/* ---- version 2: binary ---- */

static unsigned byte(struct str s, size_t i) { return (unsigned char)s.p[i]; }
static unsigned two(struct str s, size_t i) { return byte(s, i) << 8 | byte(s, i + 1); }

/* CRC-32C of the whole header, the bytes of the checksum itself taken as 0. */
static uint32_t crc32c(struct str in, size_t hole) {
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < in.len; i++) {
    crc ^= i >= hole && i < hole + 4 ? 0 : byte(in, i);
    for (int bit = 0; bit < 8; bit++)
      crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
  }
  return ~crc;
}

static const char *parse_tlvs(struct str in, size_t at, struct proxy_header *ret) {
  while (at < in.len) {
    if (in.len - at < 3 || in.len - at - 3 < two(in, at + 1))
      return "bad length of a field";
    unsigned type = byte(in, at), len = two(in, at + 1);
    at += 3;
    if (type == TLV_CRC32C && (len != 4 || crc32c(in, at) != ((uint32_t)two(in, at) << 16 | two(in, at + 2))))
      return "bad checksum";
    if (type == TLV_UNIQUE_ID) {
      if (len > UNIQUE_ID_MAX)
        return "unique id too long";
      ret->unique_id = str_slice(in, at, at + len);
      ret->unique_id.taint = STR_TAINTED;
    }
    at += len;
  }
  return NULL;
}

static struct ip_addr take_address(struct str in, size_t at, int family) {
  struct ip_addr ip = {.family = family};
  memcpy(ip.bytes, in.p + at, family == AF_INET ? 4 : 16);
  return ip;
}

static size_t parse_v2(struct str in, struct proxy_header *ret, const char **ret_why) {
  if (in.len < PROXY_V2_FIXED)
    return PROXY_V2_FIXED;
  unsigned command = byte(in, 12) & 15, family = byte(in, 13), len = two(in, 14);
  if (byte(in, 12) >> 4 != 2)
    return bad(ret_why, "bad version");
  if (command > 1)
    return bad(ret_why, "unknown command");
  if (len > PROXY_V2_MAX)
    return bad(ret_why, "header too long");
  size_t size = PROXY_V2_FIXED + len, addresses = family == 0x11 ? 12 : family == 0x21 ? 36 : 0;
  if (in.len < size)
    return size;
  in = str_slice(in, 0, size);
  ret->local = command == 0 || family == 0;
  if (ret->local)
    return size; /* what follows is of no interest */
  if (!addresses)
    return bad(ret_why, "unknown address family or protocol");
  if (len < addresses)
    return bad(ret_why, "header too short");
  int af = family == 0x11 ? AF_INET : AF_INET6;
  size_t one = af == AF_INET ? 4 : 16, at = PROXY_V2_FIXED;
  ret->from = take_address(in, at, af);
  ret->to = take_address(in, at + one, af);
  ret->from_port = (int)two(in, at + 2 * one);
  ret->to_port = (int)two(in, at + 2 * one + 2);
  const char *why = parse_tlvs(in, at + addresses, ret);
  return why ? bad(ret_why, why) : size;
}

size_t proxy_parse(struct str in, struct proxy_header *ret, const char **ret_why) {
  *ret = (struct proxy_header){.unique_id = STR_UNSET};
  *ret_why = "";
  size_t n = in.len < SIGNATURE_LEN ? in.len : SIGNATURE_LEN;
  if (memcmp(in.p ? in.p : "", signature, n) == 0)
    return n < SIGNATURE_LEN ? SIGNATURE_LEN : parse_v2(in, ret, ret_why);
  n = in.len < 6 ? in.len : 6;
  if (memcmp(in.p, "PROXY ", n) == 0)
    return parse_v1(in, ret, ret_why);
  return bad(ret_why, "no header");
}
