#include "base/test.h"
#include "base/arena.h"
#include "base/encode.h"
#include "base/hash.h"
#include "base/random.h"

static struct arena *a;
static int setup(void **state) {
  a = arena_new("test");
  return 0;
}
static int teardown(void **state) {
  arena_free(a);
  return 0;
}

static void base64(void **state) {
  static const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="},
      {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}, {"\xff\xfe\xfb", "//77"}};
  struct str out;
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    assert_str(base64_encode(a, str_c(pairs[i][0])), pairs[i][1]);
    assert_true(base64_decode(a, str_c(pairs[i][1]), false, &out));
    assert_str(out, pairs[i][0]);
  }
  assert_true(str_is_tainted(base64_encode(a, str_tainted(STR("x")))));
  assert_true(base64_decode(a, STR(" Zm\r\n9v "), false, &out));
  assert_str(out, "foo");
  assert_true(base64_decode(a, STR("Zm8"), true, &out));
  assert_str(out, "fo");
  static const char *const bad[] = {"Z", "Zm8", "Zg=", "Zg===", "=", "Zm9v=", "Z!==", "Zg==Zg==", "Zm9v===="};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(base64_decode(a, str_c(bad[i]), false, &out));
}

static void hex(void **state) {
  struct str out;
  assert_str(hex_encode(a, STR("\x00\xffz")), "00ff7a");
  assert_str(hex_encode_upper(a, STR("\xff")), "FF");
  assert_true(hex_decode(a, STR("fF7a"), &out));
  assert_str(out, "\xffz");
  assert_false(hex_decode(a, STR("abc"), &out) || hex_decode(a, STR("0g"), &out));
}

static void numbers(void **state) {
  char text[80];
  uint64_t v;
  assert_int_equal(base62_write(text, 0, 6), 6);
  assert_string_equal(text, "000000");
  base62_write(text, 61 * 62 + 10, 6);
  assert_string_equal(text, "0000zA");
  assert_int_equal(base62_write(text, UINT64_MAX, 0), 11);
  assert_true(base62_read(str_c(text), &v) && v == UINT64_MAX);
  assert_false(base62_read(STR("zzzzzzzzzzzz"), &v) || base62_read(STR("-"), &v));
  assert_int_equal(base32_write(text, 0), 0);
  base32_write(text, 32 * 31 + 26);
  assert_string_equal(text, "72");
  assert_true(base32_read(STR("72"), &v) && v == 1018);
  assert_false(base32_read(STR("A"), &v));
}

static void escapes(void **state) {
  struct str out;
  assert_str(xtext_encode(a, STR("a+b=c d\xe4")), "a+2Bb+3Dc+20d+E4");
  assert_true(xtext_decode(a, STR("a+2Bb+3dc"), &out));
  assert_str(out, "a+b=c");
  assert_false(xtext_decode(a, STR("a+2"), &out) || xtext_decode(a, STR("a=b"), &out) || xtext_decode(a, STR("+"), &out));
  assert_str(url_encode(a, STR("a/b c~")), "a%2Fb%20c~");
  assert_true(url_decode(a, STR("a%2fb+c"), &out));
  assert_str(out, "a/b+c");
  assert_str(printable(a, STR("a\n\t\\\x01\xe4"), false), "a\\n\\t\\\\\\001\\344");
  assert_str(printable(a, STR("\xe4"), true), "\xe4");
}

static void digests(void **state) {
  assert_str(hash_hex(a, "md5", STR("abc")), "900150983cd24fb0d6963f7d28e17f72");
  assert_str(hash_hex(a, "SHA1", STR("abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
  assert_str(hash_hex(a, "sha3-256", STR("")), "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a");
  assert_false(str_is_set(hash_hex(a, "sha77", STR("abc"))));
  assert_int_equal(hash_length("sha256"), 32);
  assert_str(hmac_hex(a, "md5", STR("key"), STR("The quick brown fox jumps over the lazy dog")),
      "80070713463e7749b90c2dc24911e275");
  unsigned char one[HASH_MAX], two[HASH_MAX];
  struct hash *h = hash_new(a, "sha256");
  hash_add(h, STR("ab"));
  hash_add(h, STR_UNSET);
  hash_add(h, STR("c"));
  assert_int_equal(hash_end(h, one), 32);
  hash_bytes("sha256", STR("abc"), two);
  assert_memory_equal(one, two, 32);
}

static void randoms(void **state) {
  assert_int_equal(random_below(0), 0);
  assert_int_equal(random_below(1), 0);
  bool seen[5] = {0};
  for (int i = 0; i < 1000; i++)
    seen[random_below(5)] = true;
  assert_true(seen[0] && seen[1] && seen[2] && seen[3] && seen[4]);
  assert_int_not_equal(random_u64(), random_u64());
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(base64), cmocka_unit_test(hex), cmocka_unit_test(numbers),
      cmocka_unit_test(escapes), cmocka_unit_test(digests), cmocka_unit_test(randoms)};
  return cmocka_run_group_tests(all, setup, teardown);
}
