/* With the examples of RFC 5802, section 5, and RFC 7677, section 3. */
#include <errno.h>

#include "base/arena.h"
#include "base/encode.h"
#include "base/test.h"
#include "sasl/scram_keys.h"

static void check(const char *digest, const char *salt64, const char *stored, const char *server) {
  struct arena *a = arena_new("test");
  struct scram_keys k;
  struct str salt;
  assert_true(base64_decode(a, str_c(salt64), false, &salt));
  assert_int_equal(scram_keys_make(digest, STR("pencil"), salt, 4096, &k), 0);
  assert_str(base64_encode(a, str_n((const char *)k.stored, k.len)), stored);
  assert_str(base64_encode(a, str_n((const char *)k.server, k.len)), server);
  arena_free(a);
}

static void examples(void **state) {
  check("sha1", "QSXCR+Q6sek8bf92", "6dlGYMOdZcOPutkcNY8U2g7vK9Y=", "D+CSWLOshSulAsxiupA+qs2/fTE=");
  check("sha256", "W22ZaJ0SNY7soEsUEjb6gQ==", "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
      "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
}

static void limits(void **state) {
  struct scram_keys k;
  assert_int_equal(scram_keys_make("sha1", STR("x"), STR("salt"), 0, &k), -EINVAL);
  assert_int_equal(scram_keys_make("sha1", STR("x"), STR("salt"), SCRAM_ITERATIONS_MAX + 1, &k), -EINVAL);
  assert_int_equal(scram_keys_make("md5", STR("x"), STR("salt"), 1, &k), -EINVAL);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(examples), cmocka_unit_test(limits)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
