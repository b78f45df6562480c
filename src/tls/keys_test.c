/* Which files may be asked for, requests, and what is signed for whom. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "tls/keys_store.h"

static void note(void *arg, struct str name, bool prefix) { buf_printf(arg, "%.*s%s ", STRF(name), prefix ? "*" : ""); }

static void test_names(void **state) {
  static const struct {
    const char *text, *names;
  } cases[] = {{"/etc/a.key", "/etc/a.key "}, {"/etc/a.key : /etc/b.key", "/etc/a.key /etc/b.key "}, {"/etc/a.key:/etc/b", "/etc/a.key /etc/b "},
      {"/etc/keys/$tls_in_sni.key", "/etc/keys/* "}, {"/etc/keys/k-${lc:$x}/key", "/etc/keys/k-* /key "}, {"$x", ""}, {"", ""}, {"/", ""},
      {"${if eq{$x}{a}{/k/a}{/k/$y}}", "/k/a /k/* "}, {"${lookup{$x}lsearch{/etc/t}{$value}fail}", "/etc/t "}, {"ex.test : s : /k/arc : expire=1", "/k/arc "},
      {"no/slash/first", ""}};
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct buf b;
    buf_init(&b, a, 1000);
    keys_names_in(str_c(cases[i].text), note, &b);
    assert_string_equal(buf_str(&b).p, cases[i].names);
  }
  arena_free(a);
}

static void test_allowed(void **state) {
  struct keys_store *s = keys_store_new();
  assert_false(keys_store_allow(s, STR("/"), true));
  assert_false(keys_store_allow(s, STR("/ke"), true)); /* "/ke$x" could be anything */
  assert_false(keys_store_allow(s, STR("keys/"), true));
  assert_false(keys_store_allow(s, STR("/keys/../"), true));
  assert_true(keys_store_allow(s, STR("/keys/"), true));
  assert_true(keys_store_allow(s, STR("/other/a-"), true));
  assert_true(keys_store_allow(s, STR("/one/key"), false));
  static const char *const yes[] = {"/keys/a", "/keys/a/b", "/keys/..a", "/other/a-b", "/one/key"};
  static const char *const no[] = {"/keys", "/keys/", "/keys/../etc/shadow", "/keys/./a", "/keys//a", "/keys/a/..", "/other/b", "/other/a-", "/one/key2",
      "/one/key/", "/one", "", "keys/a", "/etc/shadow", "/one/../one/key"};
  for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
    assert_true(keys_store_allows(s, str_c(yes[i])));
  for (size_t i = 0; i < sizeof no / sizeof *no; i++)
    assert_false(keys_store_allows(s, str_c(no[i])));
  assert_false(keys_store_allows(s, STR("/one/key\0x")));
  keys_store_free(s);
}

static void test_requests(void **state) {
  unsigned char bytes[KEYS_REQUEST_MAX];
  char big[KEYS_DATA_MAX + 1] = {0};
  struct keys_request q = {.number = 7, .op = KEYS_SIGN, .digest = KEYS_SHA256, .padding = KEYS_PSS, .salt = -1, .file = STR("/k"), .data = STR("data")}, r;
  size_t n = keys_request_write(&q, bytes);
  assert_true(n > 0 && keys_request_read(bytes, n, &r));
  assert_true(r.number == 7 && r.op == KEYS_SIGN && r.digest == KEYS_SHA256 && r.padding == KEYS_PSS && r.salt == -1 && str_is_tainted(r.file));
  assert_true(str_eq(r.file, q.file) && str_eq(r.data, q.data));
  for (size_t i = 0; i < n; i++)
    assert_false(keys_request_read(bytes, i, &r));
  assert_false(keys_request_read(bytes, n + 1, &r));
  const struct keys_request bad[] = {{.op = KEYS_SIGN, .file = STR("/k")}, {.op = KEYS_LOAD, .file = STR("/k"), .data = STR("x")}, {.op = KEYS_LOAD},
      {.op = 3, .file = STR("/k"), .data = STR("x")}, {.op = KEYS_LOAD, .file = STR("/k\0k")}, {.op = KEYS_LOAD, .file = STR("/k"), .salt = -2},
      {.op = KEYS_LOAD, .file = STR("/k"), .digest = KEYS_DIGESTS}, {.op = KEYS_LOAD, .file = STR("/k"), .padding = KEYS_PADDINGS}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    n = keys_request_write(&bad[i], bytes);
    assert_true(n > 0);
    assert_false(keys_request_read(bytes, n, &r));
  }
  q.data = str_n(big, sizeof big);
  assert_int_equal(keys_request_write(&q, bytes), 0);
}

/* --- with files --- */

static char directory[] = "/tmp/keys_test-XXXXXX";
static struct keys_store *store;

static void path_of(char to[64], const char *name) { snprintf(to, 64, "%s/%s", directory, name); }

static void write_key(const char *name, EVP_PKEY *key) {
  char path[64];
  path_of(path, name);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  if (key)
    assert_true(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
  else
    fputs("something else\n", f);
  fclose(f);
  EVP_PKEY_free(key);
}

static struct str ask(struct keys_request *q, bool *ret_failed) {
  static unsigned char bytes[KEYS_REQUEST_MAX], reply[KEYS_REPLY_MAX];
  struct keys_answer head;
  size_t n = keys_request_write(q, bytes);
  assert_true(n > 0);
  n = keys_store_serve(store, bytes, n, reply);
  assert_true(n >= sizeof head);
  memcpy(&head, reply, sizeof head);
  assert_int_equal(head.number, q->number);
  *ret_failed = head.failed;
  return str_n((char *)reply + sizeof head, n - sizeof head);
}

/* The public key, and its id in *q. */
static EVP_PKEY *load(const char *path, struct keys_request *q) {
  struct keys_request l = {.number = 1, .op = KEYS_LOAD, .file = str_c(path)};
  bool failed;
  struct str der = ask(&l, &failed);
  assert_false(failed);
  const unsigned char *p = (const unsigned char *)der.p;
  EVP_PKEY *key = d2i_PUBKEY(NULL, &p, der.len);
  unsigned char *again;
  assert_true(keys_public(key, &again, q->id) > 0);
  OPENSSL_free(again);
  q->file = str_c(path);
  q->op = KEYS_SIGN;
  return key;
}

static bool verifies(EVP_PKEY *key, const EVP_MD *md, bool pss, struct str text, struct str signature) {
  EVP_MD_CTX *c = EVP_MD_CTX_new();
  EVP_PKEY_CTX *k;
  bool ok = EVP_DigestVerifyInit(c, &k, md, NULL, key) > 0 && (!pss || EVP_PKEY_CTX_set_rsa_padding(k, 6) > 0) &&
            EVP_DigestVerify(c, (const unsigned char *)signature.p, signature.len, (const unsigned char *)text.p, text.len) > 0;
  EVP_MD_CTX_free(c);
  return ok;
}

static void test_signatures(void **state) {
  static const struct str text = STR("what is signed");
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_n;
  char path[64];
  bool failed;
  EVP_Digest(text.p, text.len, digest, &digest_n, EVP_sha256(), NULL);
  struct str hash = str_n((char *)digest, digest_n);
  write_key("rsa", EVP_RSA_gen(2048));
  write_key("ec", EVP_EC_gen("P-256"));
  write_key("ed", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
  static const struct {
    const char *file;
    enum keys_digest digest;
    enum keys_padding padding;
    bool good;
  } cases[] = {{"rsa", KEYS_SHA256, KEYS_PKCS1, true}, {"rsa", KEYS_SHA256, KEYS_PSS, true}, {"rsa", KEYS_SHA256, KEYS_NO_PADDING, false},
      {"rsa", KEYS_NO_DIGEST, KEYS_PKCS1, false}, {"rsa", KEYS_SHA512, KEYS_PKCS1, false}, {"ec", KEYS_SHA256, KEYS_NO_PADDING, true},
      {"ec", KEYS_SHA256, KEYS_PSS, false}, {"ec", KEYS_NO_DIGEST, KEYS_NO_PADDING, false}, {"ec", KEYS_SHA384, KEYS_NO_PADDING, false},
      {"ed", KEYS_NO_DIGEST, KEYS_NO_PADDING, true}, {"ed", KEYS_SHA256, KEYS_NO_PADDING, false}, {"ed", KEYS_NO_DIGEST, KEYS_PKCS1, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bool ed = !strcmp(cases[i].file, "ed");
    struct keys_request q = {.number = 9, .digest = cases[i].digest, .padding = cases[i].padding, .salt = -1, .data = ed ? text : hash};
    path_of(path, cases[i].file);
    EVP_PKEY *key = load(path, &q);
    struct str signature = ask(&q, &failed);
    assert_int_equal(failed, !cases[i].good);
    if (!failed)
      assert_true(verifies(key, ed ? NULL : EVP_sha256(), cases[i].padding == KEYS_PSS, text, signature));
    else
      assert_true(str_eq_c(signature, "no such signature can be made with this key"));
    EVP_PKEY_free(key);
  }
}

static void refused(const char *file, const char *why) {
  struct keys_request q = {.op = KEYS_LOAD, .file = str_c(file)};
  bool failed;
  struct str got = ask(&q, &failed);
  assert_true(failed);
  assert_true(str_eq_c(got, why));
}

static void test_refused(void **state) {
  char path[64];
  write_key("none", NULL);
  path_of(path, "none");
  refused(path, "no private key, or one with a passphrase");
  path_of(path, "missing");
  refused(path, "No such file or directory");
  refused("/etc/shadow", "not among the files that the configuration names");
  refused("/etc/passwd", "not among the files that the configuration names");
}

/* A file that has another key: the old one still signs for who has it, the new one is there at once; another process knows only that. */
static void test_changed(void **state) {
  char path[64];
  bool failed;
  unsigned char zero[32] = {0};
  struct keys_request old = {.digest = KEYS_SHA256, .data = str_n((char *)zero, sizeof zero)}, new = old;
  write_key("changing", EVP_EC_gen("P-256"));
  path_of(path, "changing");
  EVP_PKEY_free(load(path, &old));
  unlink(path);
  write_key("changing", EVP_EC_gen("P-384"));
  EVP_PKEY_free(load(path, &new));
  assert_memory_not_equal(old.id, new.id, KEYS_ID_SIZE);
  (void)ask(&old, &failed);
  assert_false(failed);
  (void)ask(&new, &failed);
  assert_false(failed);
  keys_store_free(store);
  store = keys_store_new();
  assert_true(keys_store_allow(store, str_c(path), false));
  (void)ask(&new, &failed);
  assert_false(failed);
  assert_true(str_eq_c(ask(&old, &failed), "the file has another key now"));
  assert_true(failed);
}

static int begin(void **state) {
  char path[64];
  if (!mkdtemp(directory))
    return 1;
  store = keys_store_new();
  path_of(path, "");
  return !keys_store_allow(store, str_c(path), true);
}

static int end(void **state) {
  static const char *const names[] = {"rsa", "ec", "ed", "none", "changing"};
  char path[64];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    path_of(path, names[i]);
    unlink(path);
  }
  keys_store_free(store);
  return rmdir(directory);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_allowed), cmocka_unit_test(test_requests),
      cmocka_unit_test(test_signatures), cmocka_unit_test(test_refused), cmocka_unit_test(test_changed)};
  return cmocka_run_group_tests(tests, begin, end);
}
