#include "expand/radius_wire.h"

#include <errno.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/test.h"

/* RFC 2865, section 7.1. */
static const unsigned char authenticator[16] = "\x0f\x40\x3f\x94\x73\x97\x80\x57\xbd\x83\xd5\xcb\x98\xf4\x22\x7a";
static const unsigned char hidden[16] = "\x0d\xbe\x70\x8d\x93\xd4\x13\xce\x31\x96\xe4\x3f\x78\x2a\x0a\xee";
static const char accept[] = "\x02\x00\x00\x26\x86\xfe\x22\x0e\x76\x24\xba\x2a\x10\x05\xf6\xbf\x9b\x55\xe0\xb2"
                             "\x06\x06\x00\x00\x00\x01\x0f\x06\x00\x00\x00\x00\x0e\x06\xc0\xa8\x01\x03";
#define ACCEPT_LENGTH 38

static struct radius_request request(void) {
  struct radius_request q = {.secret = STR("xyzzy5461"), .user = STR("nemo"), .password = STR("arctangent"), .nas = STR("mx")};
  memcpy(q.authenticator, authenticator, sizeof authenticator);
  return q;
}

static void test_request(void **state) {
  struct arena *a = arena_new("test");
  struct radius_request q = request();
  struct buf b;
  buf_init(&b, a, RADIUS_PACKET_MAX);
  radius_build(&q, &b);
  assert_int_equal(b.len, 20 + 18 + 6 + 18 + 6 + 4);
  assert_memory_equal(b.p, "\x01\x00\x00\x48", 4);
  assert_memory_equal(b.p + 4, authenticator, 16);
  assert_memory_equal(b.p + 38, "\x01\x06nemo\x02\x12", 8);
  assert_memory_equal(b.p + 46, hidden, 16);
  assert_memory_equal(b.p + 62, "\x06\x06\x00\x00\x00\x08\x20\x04mx", 10);
  unsigned char sum[16], want[HASH_MAX];
  memcpy(sum, b.p + 22, 16);
  memset(b.p + 22, 0, 16);
  hmac_bytes("md5", q.secret, buf_str(&b), want);
  assert_memory_equal(sum, want, 16);
  /* The longest ones. */
  char text[RADIUS_USER_MAX];
  memset(text, 'x', sizeof text);
  q.user = q.nas = str_n(text, sizeof text);
  q.password = str_n(text, RADIUS_PASSWORD_MAX);
  buf_truncate(&b, 0);
  radius_build(&q, &b);
  assert_int_equal(b.len, 20 + 18 + 255 + 130 + 6 + 255);
  arena_free(a);
}

static void test_answer(void **state) {
  struct radius_request q = request();
  char p[100];
  memcpy(p, accept, ACCEPT_LENGTH);
  assert_int_equal(radius_check(&q, str_n(p, ACCEPT_LENGTH), false), RADIUS_ACCEPT);
  assert_int_equal(radius_check(&q, str_n(p, ACCEPT_LENGTH), true), -EBADMSG);
  p[ACCEPT_LENGTH] = 1; /* padding */
  assert_int_equal(radius_check(&q, str_n(p, ACCEPT_LENGTH + 1), false), RADIUS_ACCEPT);
  for (int i = 0; i < ACCEPT_LENGTH; i++) {
    memcpy(p, accept, ACCEPT_LENGTH);
    p[i] ^= 1;
    assert_true(radius_check(&q, str_n(p, ACCEPT_LENGTH), false) < 0);
    assert_int_equal(radius_check(&q, str_n(accept, (size_t)i), false), -EPROTO);
  }
  q.secret = STR("other");
  assert_int_equal(radius_check(&q, str_n(accept, ACCEPT_LENGTH), false), -EBADMSG);
}

/* With a Message-Authenticator, which must be right, too. */
static void test_authenticated(void **state) {
  struct radius_request q = request();
  unsigned char sum[HASH_MAX];
  char p[38 + 32] = "\x03\x00\x00\x26";
  memcpy(p + 4, authenticator, 16);
  memcpy(p + 20, "\x50\x12", 2);
  for (int wrong = 0; wrong < 2; wrong++) {
    memcpy(p + 4, authenticator, 16);
    memset(p + 22, 0, 16);
    hmac_bytes("md5", q.secret, str_n(p, 38), sum);
    memcpy(p + 22, sum, 16);
    p[22] ^= (char)wrong;
    memcpy(p + 38, q.secret.p, q.secret.len);
    hash_bytes("md5", str_n(p, 38 + q.secret.len), sum);
    memcpy(p + 4, sum, 16);
    assert_int_equal(radius_check(&q, str_n(p, 38), true), wrong ? -EBADMSG : RADIUS_REJECT);
    assert_int_equal(radius_check(&q, str_n(p, 38), false), wrong ? -EBADMSG : RADIUS_REJECT);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_request), cmocka_unit_test(test_answer), cmocka_unit_test(test_authenticated)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
