#include "base/test.h"
#include "base/arena.h"
#include "base/ip.h"

static struct arena *a;
static int setup(void **state) {
  a = arena_new("test");
  return 0;
}
static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void parses(void **state) {
  struct ip_addr ip;
  assert_true(ip_parse(STR("10.1.2.255"), &ip));
  assert_int_equal(ip.family, AF_INET);
  assert_memory_equal(ip.bytes, "\x0a\x01\x02\xff", 4);
  assert_true(ip_parse(STR("0.0.0.0"), &ip) && ip_parse(STR("255.10.100.0"), &ip));
  assert_true(ip_parse(STR("2001:DB8::1"), &ip));
  assert_str(ip_text(a, &ip), "2001:db8::1");
  assert_str(ip_text_full(a, &ip), "2001:0db8:0000:0000:0000:0000:0000:0001");
  assert_true(ip_parse(STR("fe80::1%7"), &ip) && ip.scope == 7);
  static const char *const bad[] = {"", "10.1.2", "10.1.2.256", "10.1.2.3.4", "010.1.2.3x", "::1::", "1:2:3:4:5:6:7:8:9",
      "[::1]", "10.1.2.3 ", "fe80::1%",
      "10.1.2.03", "10.1.2.00", "10..2.3", ".1.2.3", "1.2.3.", "1.2.3.+4", "1.2.3.0x4", "1.2.3.4294967300",
      "12345::", "::ffff:1.2.3.400"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (ip_parse(str_c(bad[i]), &ip))
      fail_msg("'%s' was taken for an address", bad[i]);
  assert_false(ip_parse(str_n("10.1.2.3\0x", 10), &ip));
}

static void masks(void **state) {
  struct ip_addr net, ip;
  int bits;
  assert_true(ip_parse_masked(STR("10.2.0.0/15"), &net, &bits));
  assert_int_equal(bits, 15);
  ip_parse(STR("10.3.255.1"), &ip);
  assert_true(ip_match(&ip, &net, bits));
  ip_parse(STR("10.4.0.1"), &ip);
  assert_false(ip_match(&ip, &net, bits));
  ip_parse(STR("a02::"), &ip); /* the same bytes, another family */
  assert_false(ip_match(&ip, &net, bits));
  assert_true(ip_match(&net, &net, 0) && ip_match(&net, &net, 32));
  ip_parse(STR("2001:db8:ffff::1"), &ip);
  ip_mask(&ip, 33);
  assert_str(ip_text(a, &ip), "2001:db8:8000::");
  assert_true(ip_parse_masked(STR("::/0"), &net, &bits) && bits == 0);
  assert_false(ip_parse_masked(STR("10.0.0.0/33"), &net, &bits) || ip_parse_masked(STR("10.0.0.0/"), &net, &bits));
}

static void ports(void **state) {
  static const struct {
    const char *text, *ip;
    int port;
  } good[] = {{"[10.0.0.1]:25", "10.0.0.1", 25}, {"10.0.0.1.1234", "10.0.0.1", 1234}, {"10.0.0.1", "10.0.0.1", 0},
      {"[::1]:587", "::1", 587}, {"::1.25", "::1", 25}, {"[::1]", "::1", 0}};
  struct ip_addr ip;
  int port;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_true(ip_parse_port(str_c(good[i].text), &ip, &port));
    assert_str(ip_text(a, &ip), good[i].ip);
    assert_int_equal(port, good[i].port);
  }
  assert_false(ip_parse_port(STR("[::1]:65536"), &ip, &port) || ip_parse_port(STR("[::1"), &ip, &port) ||
               ip_parse_port(STR("[::1]25"), &ip, &port) || ip_parse_port(STR("10.0.0.1.99999"), &ip, &port));
}

static void converts(void **state) {
  struct ip_addr ip, back;
  struct sockaddr_storage sa;
  int port;
  ip_parse(STR("::ffff:10.0.0.9"), &ip);
  assert_int_equal(ip_to_sockaddr(&ip, 25, &sa), sizeof(struct sockaddr_in6));
  assert_true(ip_from_sockaddr((struct sockaddr *)&sa, &back, &port));
  assert_int_equal(port, 25);
  assert_str(ip_text(a, &back), "10.0.0.9"); /* a mapped address is the IPv4 one */
  assert_true(ip_parse(STR("127.9.9.9"), &ip) && ip_is_loopback(&ip) && !ip_is_any(&ip));
  assert_true(ip_parse(STR("::1"), &ip) && ip_is_loopback(&ip));
  assert_true(ip_parse(STR("0.0.0.0"), &ip) && ip_is_any(&ip));
  ip_parse(STR("1.2.3.4"), &ip);
  assert_str(ip_reverse_name(a, &ip, NULL), "4.3.2.1.in-addr.arpa");
  assert_str(ip_reverse_name(a, &ip, "bl.example"), "4.3.2.1.bl.example");
  ip_parse(STR("2001:db8::567:89ab"), &ip);
  assert_str(ip_reverse_name(a, &ip, NULL), "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(parses), cmocka_unit_test(masks), cmocka_unit_test(ports),
      cmocka_unit_test(converts)};
  return cmocka_run_group_tests(all, setup, teardown);
}
