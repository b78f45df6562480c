#include "base/test.h"

#include "base/arena.h"

#include <string.h>

#include "smtp/server/proxy.h"

#define B(literal) {literal, sizeof literal - 1, 0}
#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define V4 "\1\2\3\4\5\6\7\10\0\31\377\377" /* 1.2.3.4:25 to 5.6.7.8:65535 */

static void check_all(struct str in, size_t expected, const char *why, struct proxy_header *h) {
  const char *got;
  /* However it is cut, it is read in steps that never pass its end. */
  size_t have = 0, want;
  for (;;) {
    want = proxy_parse(str_slice(in, 0, have), h, &got);
    if (want <= have || have == in.len)
      break;
    have = want < in.len ? want : in.len;
  }
  if (why) {
    assert_int_equal(want, 0);
    assert_string_equal(got, why);
  } else {
    assert_int_equal(want, expected);
  }
}

static void good_headers(void **state) {
  static const struct {
    struct str in;
    bool local;
    const char *from;
    int from_port, to_port;
  } table[] = {
      {B("PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n"), false, "192.0.2.7", 0, 65535},
      {B("PROXY TCP6 2001:db8::1 ::1 1025 25\r\n"), false, "2001:db8::1", 1025, 25},
      {B("PROXY UNKNOWN\r\n"), true, NULL, 0, 0},
      {B("PROXY UNKNOWN ffff::1 what ever 99999\r\n"), true, NULL, 0, 0},
      {B(V2 "\x20\x00\0\0"), true, NULL, 0, 0},
      {B(V2 "\x20\x11\0\3abc"), true, NULL, 0, 0},
      {B(V2 "\x21\x00\0\3abc"), true, NULL, 0, 0},
      {B(V2 "\x21\x11\0\x0c" V4), false, "1.2.3.4", 25, 65535},
      {B(V2 "\x21\x11\0\x13" V4 "\4\0\1x\5\0\0"), false, "1.2.3.4", 25, 65535},
      {B(V2 "\x21\x21\0\x24\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\1\0\31"), false, "2001:db8::1", 1, 25},
  };
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    struct proxy_header h;
    check_all(table[i].in, table[i].in.len, NULL, &h);
    assert_int_equal(h.local, table[i].local);
    if (table[i].local)
      continue;
    assert_str(ip_text(a, &h.from), table[i].from);
    assert_int_equal(h.from_port, table[i].from_port);
    assert_int_equal(h.to_port, table[i].to_port);
  }
  arena_free(a);
}

static void bad_headers(void **state) {
  static const struct {
    struct str in;
    const char *why;
  } table[] = {
      {B("EHLO client.example\r\n"), "no header"},
      {B("PROXX"), "no header"},
      {B("\r\n\r\n\0\r\nQUIT\r\n\x21\x11"), "no header"},
      {B("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n"), "line end is not CRLF"},
      {B("PROXY TCP4 1.2.3.4\r\n"), "malformed line"},
      {B("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"), "malformed line"},
      {B("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"), "malformed line"},
      {B("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n"), "malformed line"},
      {B("PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n"), "malformed line"},
      {B("PROXY \r\n"), "malformed line"},
      {B("PROXY UNKNOWNS are here\r\n"), "malformed line"},
      {B("PROXY TCP4 ::1 1.2.3.4 1 2\r\n"), "bad address"},
      {B("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n"), "bad address"},
      {B("PROXY TCP6 fe80::1%1 ::1 1 2\r\n"), "bad address"},
      {B("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n"), "bad port"},
      {B("PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n"), "bad port"},
      {B("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n"), "bad port"},
      {B("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n"), "bad port"},
      {B(V2 "\x11\x11\0\x0c" V4), "bad version"},
      {B(V2 "\x25\x11\0\x0c" V4), "unknown command"},
      {B(V2 "\x21\x11\0\x08" V4), "header too short"},
      {B(V2 "\x21\x21\0\x0c" V4), "header too short"},
      {B(V2 "\x21\x11\xff\xff" V4), "header too long"},
      {B(V2 "\x21\x12\0\x0c" V4), "unknown address family or protocol"},
      {B(V2 "\x21\x31\0\x0c" V4), "unknown address family or protocol"},
      {B(V2 "\x21\x41\0\x0c" V4), "unknown address family or protocol"},
      {B(V2 "\x21\x11\0\x0e" V4 "\4\0"), "bad length of a field"},
      {B(V2 "\x21\x11\0\x10" V4 "\4\0\2x"), "bad length of a field"},
      {B(V2 "\x21\x11\0\x13" V4 "\3\0\4\1\2\3\4"), "bad checksum"},
      {B(V2 "\x21\x11\0\x10" V4 "\3\0\1\1"), "bad checksum"},
  };
  struct proxy_header h;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    check_all(table[i].in, 0, table[i].why, &h);
  char line[PROXY_V1_MAX + 10] = "PROXY UNKNOWN ";
  memset(line + 14, 'x', sizeof line - 14);
  check_all(str_n(line, sizeof line), 0, "line without end", &h);
  memcpy(line + PROXY_V1_MAX - 2, "\r\n", 2);
  check_all(str_n(line, PROXY_V1_MAX), PROXY_V1_MAX, NULL, &h);
}

static void checksum_and_id(void **state) {
  /* CRC-32C of these bytes, found with another program. */
  static const struct str in = B(V2 "\x21\x11\0\x18" V4 "\3\0\4CRC!\5\0\2id");
  struct proxy_header h;
  char copy[64];
  memcpy(copy, in.p, in.len);
  memcpy(copy + 16 + 12 + 3, "\xe6\x21\x40\xc8", 4);
  check_all(str_n(copy, in.len), in.len, NULL, &h);
  assert_str(h.unique_id, "id");
  assert_true(h.unique_id.taint & STR_TAINTED);
  copy[in.len - 1] ^= 1;
  check_all(str_n(copy, in.len), 0, "bad checksum", &h);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(good_headers), cmocka_unit_test(bad_headers),
      cmocka_unit_test(checksum_and_id)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
