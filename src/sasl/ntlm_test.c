/* With the examples of MS-NLMP, section 4.2. */
#include "base/arena.h"
#include "base/encode.h"
#include "base/test.h"
#include "sasl/ntlm.h"

static struct arena *a;

static int setup(void **state) {
  a = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static struct str bytes(const char *hex) {
  struct str s;
  assert_true(hex_decode(a, str_c(hex), &s));
  return s;
}

static const unsigned char challenge[] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};

static void version1(void **state) {
  struct ntlm_response r = {.nt = bytes("67c43011f30298a2ad35ece64f16331c44bdbed927841f94"), .user = STR("User"), .domain = STR("Domain")};
  assert_true(ntlm_crypt_there());
  assert_true(ntlm_verify(a, &r, challenge, STR("Password")));
  assert_false(ntlm_verify(a, &r, challenge, STR("password")));
}

static void version2(void **state) {
  struct str blob = bytes("01010000000000000000000000000000aaaaaaaaaaaaaaaa0000000002000c0044006f006d00610069006e00"
                          "01000c005300650072007600650072000000000000000000");
  struct ntlm_response r = {.user = STR("User"), .domain = STR("Domain"), .nt = str_cat(a, bytes("68cd0ab851e51c96aabc927bebef6a1c"), blob)};
  assert_true(ntlm_verify(a, &r, challenge, STR("Password")));
  assert_false(ntlm_verify(a, &r, challenge, STR("Passwort")));
  r.user = STR("USER"); /* no matter */
  assert_true(ntlm_verify(a, &r, challenge, STR("Password")));
  r.domain = STR("DOMAIN"); /* matters */
  assert_false(ntlm_verify(a, &r, challenge, STR("Password")));
}

/* What we write we read, and what we answer we accept. */
static void exchange(bool unicode, bool info, const char *user, const char *password) {
  uint32_t flags = 0;
  assert_true(ntlm_read_negotiate(ntlm_write_negotiate(a, NTLM_UNICODE | NTLM_NTLM), &flags));
  assert_int_equal(flags, NTLM_UNICODE | NTLM_NTLM);
  struct ntlm_challenge c;
  uint32_t ours = (unicode ? NTLM_UNICODE : NTLM_OEM) | NTLM_NTLM | (info ? NTLM_TARGET_INFO : 0);
  assert_true(ntlm_read_challenge(ntlm_write_challenge(a, ours, challenge, STR("host.example")), &c));
  assert_int_equal(c.flags, ours);
  assert_memory_equal(c.challenge, challenge, 8);
  assert_int_equal(c.target_info.len > 0, info);
  struct ntlm_response sent, got;
  assert_true(ntlm_answer(a, &c, str_c(user), STR("Domain"), str_c(password), &sent));
  assert_true(ntlm_read_response(a, ntlm_write_response(a, &sent, unicode), &got));
  assert_str(got.user, user);
  assert_str(got.domain, "Domain");
  assert_true(ntlm_verify(a, &got, challenge, str_c(password)));
  assert_false(ntlm_verify(a, &got, challenge, STR("another")));
  assert_int_equal(got.nt.len == NTLM_RESPONSE, !info);
}

static void exchanges(void **state) {
  for (int i = 0; i < 4; i++)
    exchange(i & 1, i & 2, "fred", "secret");
  exchange(true, true, "fr\303\251d\360\237\230\200", "\303\274\342\202\254");
}

static void texts(void **state) {
  assert_str(ntlm_utf8(a, ntlm_utf16(a, STR("a\303\251\342\202\254\360\237\230\200"))), "a\303\251\342\202\254\360\237\230\200");
  assert_str(ntlm_utf8(a, ntlm_utf16(a, STR("\377"))), "\357\277\275");
  assert_str(ntlm_utf8(a, ntlm_utf16(a, STR("\300\200"))), "\357\277\275");
  assert_str(ntlm_utf8(a, str_n("\0\330", 2)), "\357\277\275");
  assert_str(ntlm_utf8(a, str_n("a", 1)), "");
}

/* All that is cut short, and fields that point outside. */
static void damaged(void **state) {
  struct ntlm_challenge c;
  struct ntlm_response r = {.nt = STR("0123456789abcdef01234567"), .lm = STR_EMPTY, .user = STR("fred"), .domain = STR("d")}, got;
  struct str two = ntlm_write_challenge(a, NTLM_UNICODE | NTLM_TARGET_INFO, challenge, STR("h")), three = ntlm_write_response(a, &r, true);
  for (uint32_t n = 0; n < two.len; n++)
    assert_false(ntlm_read_challenge(str_dup(a, str_slice(two, 0, n)), &c));
  for (uint32_t n = 0; n < 64; n++)
    assert_false(ntlm_read_response(a, str_dup(a, str_slice(three, 0, n)), &got));
  for (uint32_t at = 12; at < 44; at++) {
    char *copy = str_dup_c(a, three);
    copy[at] = (char)0xff;
    (void)ntlm_read_response(a, str_n(copy, three.len), &got);
  }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
  const struct CMUnitTest all[] = {TEST(version1), TEST(version2), TEST(exchanges), TEST(texts), TEST(damaged)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
