#include "loop/dscp.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/test.h"

static void names_and_numbers(void **state) {
  static const struct {
    const char *text;
    int value; /* -1: none */
  } rows[] = {
    {"ef", 0xb8}, {"EF", 0xb8}, {"af41", 0x88}, {"throughput", 0x08}, {"mincost", 0x02}, {"0", 0}, {"46", 0xb8}, {"0x2e", 0xb8},
    {"0x3f", 0xfc}, {"63", 0xfc}, {"64", -1}, {"0x40", -1}, {"0x", -1}, {"0xzz", -1}, {"", -1}, {"af99", -1}, {"-1", -1}, {"4x", -1},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int value = -1;
    bool ok = dscp_parse(str_c(rows[i].text), &value);
    assert_int_equal(ok, rows[i].value >= 0);
    if (ok)
      assert_int_equal(value, rows[i].value);
  }
  assert_non_null(dscp_name(0));
  for (size_t i = 0; dscp_name(i); i++)
    assert_true(dscp_parse(str_c(dscp_name(i)), &(int){0}));
}

static void sockets(void **state) {
  int value, fd = socket(AF_INET, SOCK_STREAM, 0), pair[2];
  socklen_t size = sizeof value;
  assert_int_equal(dscp_set(fd, 0xb8), 0);
  assert_int_equal(getsockopt(fd, IPPROTO_IP, IP_TOS, &value, &size), 0);
  assert_int_equal(value, 0xb8);
  close(fd);
  fd = socket(AF_INET6, SOCK_STREAM, 0);
  if (fd >= 0) {
    assert_int_equal(dscp_set(fd, 0x88), 0);
    assert_int_equal(getsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &value, &size), 0);
    assert_int_equal(value, 0x88);
    close(fd);
  }
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  assert_int_equal(dscp_set(pair[0], 0), -EAFNOSUPPORT);
  close(pair[0]);
  close(pair[1]);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(names_and_numbers), cmocka_unit_test(sockets)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
