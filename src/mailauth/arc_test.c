/* ARC chains that are signed as they are written down, so that only what a row is about can make them fail (RFC 8617). */
#include "mailauth/arc.h"

#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/encode.h"
#include "base/test.h"
#include "mailauth/sign.h"

#define HEAD "From: a@s.ex\nTo: b@r.ex\nSubject: of  the\n chain\nDate: Sat, 21 Nov 2026 10:00:00 +0000\nSubject: the second\n"
#define BODY "Hello,\n\nworld \n\n"

static struct {
  EVP_PKEY *pkey;
  struct str record;
} rsa, ed, small;

static struct str public_text(struct arena *a, EVP_PKEY *key, const char *type) {
  unsigned char *der = NULL, raw[32];
  size_t n = sizeof raw;
  bool is_ed = strcmp(type, "ed25519") == 0;
  int len = is_ed ? (EVP_PKEY_get_raw_public_key(key, raw, &n), 32) : i2d_PUBKEY(key, &der);
  struct str text = base64_encode(a, str_n(is_ed ? (char *)raw : (char *)der, (size_t)len));
  OPENSSL_free(der);
  return str_printf(a, "v=DKIM1; k=%s; p=%.*s", type, STRF(text));
}

/* By selector: "r" and "e" are good. */
static void fetch(void *arg, struct dkim_signature *s) {
  struct arena *a = arg;
  struct str r = str_eq_c(s->selector, "r") ? rsa.record : str_eq_c(s->selector, "e") ? ed.record
      : str_eq_c(s->selector, "small") ? small.record : str_eq_c(s->selector, "revoked") ? STR("v=DKIM1; k=rsa; p=")
      : str_eq_c(s->selector, "plain") ? str_from(rsa.record, 16) : STR("v=DKIM1; k=rsa; p=AAAA");
  s->key = str_eq_c(s->selector, "none") ? NULL : dkim_key_parse(a, r);
  if (s->key == NULL) {
    s->status = DKIM_INVALID;
    s->reason = str_eq_c(s->selector, "none") ? DKIM_KEY_UNAVAILABLE : DKIM_KEY_SYNTAX;
  }
}

/* `with` in place of the first `what`. */
static struct str put(struct arena *a, struct str text, const char *what, struct str with) {
  ptrdiff_t at = str_find(text, str_c(what));
  if (at < 0)
    return text;
  return str_cat(a, str_slice(text, 0, (size_t)at), str_cat(a, with, str_from(text, (size_t)at + strlen(what))));
}

/* BH, BSIG and BWSIG (with white space) in a field become what they should be. */
static struct str sign_field(struct arena *a, struct str field, const struct str *fields, size_t n, enum dkim_field kind, struct buf *data) {
  struct body_hashes hashes = {.arena = a};
  bool simple_body = str_find(field, STR("/simple")) >= 0 || (kind == DKIM_ARC_MESSAGE && str_find(field, STR("c=")) < 0);
  struct body_hash *h = body_hash_want(&hashes, EVP_sha256(), simple_body ? CANON_SIMPLE : CANON_RELAXED, DKIM_BODY_ALL);
  body_hashes_add(&hashes, STR(BODY));
  body_hashes_end(&hashes);
  field = put(a, field, "BH", base64_encode(a, str_n((char *)h->digest, h->digest_n)));
  struct str bare = put(a, put(a, field, "BWSIG", STR("AAAA")), "BSIG", STR("AAAA"));
  struct dkim_signature *s = dkim_signature_parse_as(a, bare, kind);
  if (s == NULL)
    return bare;
  if (kind == DKIM_ARC_SEAL)
    s->header_canon = CANON_RELAXED;
  else
    header_index_select(header_index_new(a, fields, n), s->header_names, s->header_canon, data);
  if (tags_find(&s->tags, "b") == NULL)
    return bare;
  dkim_add_own_field(s, data);
  struct sign_key key = str_eq_c(s->selector, "e") ? (struct sign_key){ed.pkey, DKIM_ED25519}
      : (struct sign_key){str_eq_c(s->selector, "small") ? small.pkey : rsa.pkey, DKIM_RSA};
  struct str value = sign_make(a, &key, EVP_sha256(), buf_str(data)), wide = STR_EMPTY;
  for (size_t i = 0; i < value.len; i += 20)
    wide = str_printf(a, "%.*s\n\t %.*s \t", STRF(wide), STRF(str_slice(value, i, i + 20)));
  return put(a, put(a, field, "BWSIG", wide), "BSIG", value);
}

struct chain {
  struct arena *arena;
  struct str set[10][3]; /* results, message signature, seal */
  int n;
};

static size_t split(struct arena *a, struct str text, struct str *fields) {
  struct sign_fields f = sign_fields(a, text);
  memcpy(fields, f.v, f.n * sizeof *f.v);
  return f.n;
}

static void add_set(struct chain *c, const char *results, const char *message, const char *seal) {
  struct arena *a = c->arena;
  struct str fields[40], *set = c->set[c->n];
  size_t n = split(a, STR(HEAD), fields);
  struct buf data;
  buf_init(&data, a, 100000);
  set[0] = str_c(results);
  set[1] = sign_field(a, str_c(message), fields, n, DKIM_ARC_MESSAGE, &data);
  buf_truncate(&data, 0);
  for (int i = 0; i <= c->n; i++)
    for (int k = 0; k < (i < c->n ? 3 : 2); k++)
      canon_header(CANON_RELAXED, c->set[i][k], true, &data);
  set[2] = sign_field(a, str_c(seal), NULL, 0, DKIM_ARC_SEAL, &data);
  c->n++;
}

static struct arc_chain *judge_text(struct arena *a, struct str text, const char *body) {
  struct str fields[80];
  size_t n = split(a, text, fields);
  struct arc_chain *chain = arc_collect(a, fields, n);
  body_hashes_add(&chain->hashes, str_c(body));
  body_hashes_end(&chain->hashes);
  arc_validate(chain, header_index_new(a, fields, n), 1800000000, fetch, a);
  return chain;
}

/* Newest on top. */
static struct str text_of(const struct chain *c) {
  struct str text = STR(HEAD);
  for (int i = 0; i < c->n; i++)
    for (int k = 0; k < 3; k++)
      text = str_cat(c->arena, c->set[i][k], text);
  return text;
}

#define AAR1 "ARC-Authentication-Results: i=1; r.ex; spf=pass\n"
#define AMS1 "ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; h=from:to:subject:date; bh=BH; b=BSIG\n"
#define AS1 "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=s.ex; s=r; t=12345; b=BSIG\n"
#define AAR2 "ARC-Authentication-Results: i=2; r.ex; arc=pass\n"
#define AMS2 "ARC-Message-Signature: i=2; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; h=from:to:subject:date; bh=BH; b=BSIG\n"
#define AS2 "ARC-Seal: i=2; a=rsa-sha256; cv=pass; d=s.ex; s=r; b=BSIG\n"

/* One set; NULL: the usual field. */
static const struct {
  const char *results, *message, *seal, *state;
} ones[] = {
  {NULL, NULL, NULL, "pass"},
  /* AAR */
  {"ARC-Authentication-Results: i = 1 ; r.ex; none\n", NULL, NULL, "pass"},
  {"ARC-Authentication-Results:i=1;r.ex;none\n", NULL, NULL, "pass"},
  {"arc-authentication-results : (c;) i (i=3;) =(\\)) 01 (d) ; r.ex; none\n", NULL, NULL, "pass"},
  {"ARC-Authentication-Results:\n\ti=1;\n  r.ex;\n\tspf=pass  (a  b)\n", NULL, NULL, "pass"},
  {"ARC-Authentication-Results: r.ex; i=1; none\n", NULL, NULL, "fail"}, {"ARC-Authentication-Results: I=1; r.ex\n", NULL, NULL, "fail"},
  {"ARC-Authentication-Results: r.ex; none\n", NULL, NULL, "fail"}, {"ARC-Authentication-Results: i=; r.ex\n", NULL, NULL, "fail"},
  {"ARC-Authentication-Results: i=0; r.ex\n", NULL, NULL, "fail"}, {"ARC-Authentication-Results: i=2; r.ex\n", NULL, NULL, "fail"},
  {"ARC-Authentication-Results: i=1x; r.ex\n", NULL, NULL, "fail"}, {"ARC-Authentication-Results: i=1\n", NULL, NULL, "fail"},
  {"ARC-Authentication-Results: i=+1; r.ex\n", NULL, NULL, "fail"}, {"ARC-Authentication-Results: i=001; r.ex\n", NULL, NULL, "fail"},
  {"X-None: 1\n", NULL, NULL, "fail"}, {AAR1 AAR1, NULL, NULL, "fail"},
  /* AMS: the tag list */
#define AMS(text) NULL, "ARC-Message-Signature: " text "\n", NULL
#define REST " a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; h=from:to:subject:date; bh=BH; b=BSIG"
  {AMS("b=BSIG; bh=BH; h=from:to:subject:date; s=r; d=s.ex; c=relaxed/relaxed; a=rsa-sha256; i=1"), "pass"},
  {AMS("i=1;" REST ";"), "pass"}, {AMS("i=1;" REST " ; "), "pass"}, {AMS("i=1;" REST ";;"), "fail"}, {AMS("i=1; ;" REST), "fail"},
  {AMS("i=1" REST), "fail"}, {AMS(" i \t=  1 ;" REST), "pass"}, {AMS("\n i\n =\n 1\n ;" REST), "pass"},
  {AMS("i=1; i=1;" REST), "fail"}, {AMS("i=1; a=rsa-sha256;" REST), "fail"}, {AMS("I=1;" REST), "fail"}, {AMS("i=1; zz=abc;" REST), "pass"},
  {AMS("i=1; zz=;" REST), "pass"}, {AMS("i=1; z_9=a=b;" REST), "pass"}, {AMS("i=1; 9z=a;" REST), "fail"}, {AMS("i=1; _z=a;" REST), "fail"},
  {AMS("i=1; z-z=a;" REST), "fail"}, {AMS("i=1; =a;" REST), "fail"}, {AMS("i=1; z;" REST), "fail"}, {AMS("v=1; i=1;" REST), "pass"},
  {AMS("i=;" REST), "fail"}, {AMS("i=0;" REST), "fail"}, {AMS("i=2;" REST), "fail"}, {AMS("i=51;" REST), "fail"}, {AMS("i=a;" REST), "fail"},
  {AMS("i=-1;" REST), "fail"}, {AMS("i=1.0;" REST), "fail"}, {AMS("i=u@s.ex;" REST), "fail"}, {AMS(REST), "fail"},
  /* AMS: the tags */
#define A "i=1; c=relaxed/relaxed; d=s.ex; s=r; h=from:to; bh=BH; b=BSIG;"
  {AMS(A " a=rsa-sha256"), "pass"}, {AMS(A), "fail"}, {AMS(A " a="), "fail"}, {AMS(A " a=rsa-sha1"), "fail"}, {AMS(A " a=RSA-SHA256"), "fail"},
  {AMS(A " a=rsa"), "fail"}, {AMS(A " a=ed25519-sha256"), "fail"}, {AMS(A " a=rsa-md5"), "fail"},
  {AMS("i=1; a=ed25519-sha256; c=relaxed/relaxed; d=s.ex; s=e; h=from; bh=BH; b=BSIG"), "pass"},
#define B "i=1; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; h=from:to; bh=BH;"
  {AMS(B " b=BWSIG"), "pass"}, {AMS(B "\n\tb \n =\n BWSIG ; zz=1"), "pass"}, {AMS(B "b=BSIG"), "pass"}, {AMS(B), "fail"}, {AMS(B " b="), "fail"},
  {AMS(B " b=AAAA"), "fail"}, {AMS(B " b=!!"), "fail"}, {AMS(B " B=BSIG"), "fail"}, {AMS(B " b=BSIG=="), "fail"},
#define BH_ "i=1; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; h=from:to; b=BSIG;"
  {AMS(BH_ " bh = BH "), "pass"}, {AMS(BH_), "fail"}, {AMS(BH_ " bh="), "fail"}, {AMS(BH_ " bh=AAAA"), "fail"}, {AMS(BH_ " bh=?"), "fail"},
#define C "i=1; a=rsa-sha256; d=s.ex; s=r; h=from:to:subject; bh=BH; b=BSIG;"
  {AMS(C), "pass"}, {AMS(C " c=simple/simple"), "pass"}, {AMS(C " c=relaxed/simple"), "pass"}, {AMS(C " c=simple/relaxed"), "pass"},
  {AMS(C " c="), "fail"}, {AMS(C " c=nowsp/relaxed"), "fail"}, {AMS(C " c=relaxed/"), "fail"}, {AMS(C " c=Relaxed/relaxed"), "fail"},
  {AMS(C " c=relaxed/relaxed/relaxed"), "fail"},
#define D "i=1; a=rsa-sha256; c=relaxed/relaxed; s=r; h=from:to; bh=BH; b=BSIG;"
  {AMS(D " d=S.EX"), "pass"}, {AMS(D), "fail"}, {AMS(D " d="), "fail"}, {AMS(D " d=s..ex"), "fail"}, {AMS(D " d=.s.ex"), "fail"}, {AMS(D " d=s@ex"), "fail"},
#define H "i=1; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; bh=BH; b=BSIG;"
  {AMS(H " h=From : To\n : SUBJECT:subject:subject:x-none"), "pass"}, {AMS(H), "fail"}, {AMS(H " h="), "fail"},
  {AMS(H " h=from:from"), "pass"}, {AMS(H " h=from:arc-seal"), "fail"}, {AMS(H " h=from : ARC-Seal"), "fail"}, {AMS(H " h=x-none:from"), "pass"},
#define S "i=1; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; h=from:to; bh=BH; b=BSIG;"
  {AMS(S), "fail"}, {AMS(S " s="), "fail"}, {AMS(S " s=none"), "fail"}, {AMS(S " s=bad"), "fail"}, {AMS(S " s=small"), "fail"},
  {AMS(S " s=revoked"), "fail"}, {AMS(S " s=plain"), "pass"},
#define T "i=1; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; h=from:to; bh=BH; b=BSIG;"
  {AMS(T " t=1"), "pass"}, {AMS(T " t="), "fail"}, {AMS(T " t=now"), "fail"}, {AMS(T " t=-1"), "fail"}, {AMS(T " t=1; x=1900000000"), "pass"},
  {AMS(T " t=1; x=1700000000"), "fail"}, {AMS(T " t=5; x=4"), "fail"}, {AMS(T " q=dns/txt"), "pass"}, {AMS(T " q=other"), "fail"},
  {AMS(T " x="), "fail"}, {AMS(T " l=999"), "fail"}, {AMS(T " l=-1"), "fail"},
  {NULL, "ArC-MESSAGE-signature :i=1;" REST "\n", NULL, "pass"}, {NULL, "X-None: 1\n", NULL, "fail"}, {NULL, AMS1 AMS1, NULL, "fail"},
  /* AS */
#define AS(text) NULL, NULL, "ARC-Seal: " text "\n"
#define SREST " a=rsa-sha256; d=s.ex; s=r; b=BSIG;"
  {AS("i=1; cv=none;" SREST), "pass"}, {AS("b=BWSIG; s=r; d=s.ex; a=rsa-sha256; cv=none; i=1"), "pass"}, {AS("\n i = 1 ;\n cv = none ;" SREST), "pass"},
  {AS("i=1; cv=none; zz=1;" SREST), "pass"}, {AS("i=1; cv=none; cv=none;" SREST), "fail"}, {AS("i=1; cv=none;;" SREST), "fail"},
  {AS("i=1; cv=pass;" SREST), "fail"}, {AS("i=1; cv=fail;" SREST), "fail"}, {AS("i=1; cv=;" SREST), "fail"}, {AS("i=1; cv=maybe;" SREST), "fail"},
  {AS("i=1;" SREST), "fail"}, {AS("i=1; CV=none;" SREST), "fail"}, {AS("cv=none;" SREST), "fail"}, {AS("i=; cv=none;" SREST), "fail"},
  {AS("i=0; cv=none;" SREST), "fail"}, {AS("i=2; cv=none;" SREST), "fail"}, {AS("i=x; cv=none;" SREST), "fail"},
  {AS("i=1; cv=none; h=from;" SREST), "fail"}, {AS("i=1; cv=none; h=;" SREST), "fail"}, {AS("i=1; cv=none; t=1;" SREST), "pass"},
  {AS("i=1; cv=none; t=;" SREST), "fail"}, {AS("i=1; cv=none; t=wrong;" SREST), "fail"}, {AS("i=1; cv=none; c=simple/simple;" SREST), "pass"},
  {AS("i=1; cv=none; a=rsa-sha1; d=s.ex; s=r; b=BSIG"), "fail"}, {AS("i=1; cv=none; d=s.ex; s=r; b=BSIG"), "fail"},
  {AS("i=1; cv=none; a=ed25519-sha256; d=s.ex; s=e; b=BSIG"), "pass"}, {AS("i=1; cv=none; a=rsa-sha256; s=r; b=BSIG"), "fail"},
  {AS("i=1; cv=none; a=rsa-sha256; d=s.ex; b=BSIG"), "fail"}, {AS("i=1; cv=none; a=rsa-sha256; d=s.ex; s=r"), "fail"},
  {AS("i=1; cv=none; a=rsa-sha256; d=s.ex; s=r; b="), "fail"}, {AS("i=1; cv=none; a=rsa-sha256; d=s.ex; s=none; b=BSIG"), "fail"},
  {AS("i=1; cv=none; a=rsa-sha256; d=s.ex; s=small; b=BSIG"), "fail"}, {AS("i=1; cv=none; a=rsa-sha256; d=; s=r; b=BSIG"), "fail"},
  {NULL, NULL, "X-None: 1\n", "fail"}, {NULL, NULL, AS1 AS1, "fail"},
};

static void test_one_set(void **state) {
  int wrong = 0;
  for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) {
    struct arena *a = arena_new("test");
    struct chain c = {.arena = a};
    add_set(&c, ones[i].results ? ones[i].results : AAR1, ones[i].message ? ones[i].message : AMS1, ones[i].seal ? ones[i].seal : AS1);
    struct arc_chain *got = judge_text(a, text_of(&c), BODY);
    if (strcmp(arc_state_name(got->state), ones[i].state) != 0)
      wrong += printf("row %zu: %s (%.*s), not %s\n%.*s", i, arc_state_name(got->state), STRF(got->reason), ones[i].state, STRF(text_of(&c)));
    assert_int_equal(got->oldest_pass, got->state == ARC_PASS);
    arena_free(a);
  }
  assert_int_equal(wrong, 0);
}

static void expect(struct arena *a, struct str text, const char *body, const char *state, int oldest) {
  struct arc_chain *got = judge_text(a, text, body);
  if (strcmp(arc_state_name(got->state), state) != 0 || got->oldest_pass != oldest)
    fail_msg("%s (%.*s) from %d, not %s from %d\n%.*s", arc_state_name(got->state), STRF(got->reason), got->oldest_pass, state, oldest, STRF(text));
}

/* Several sets: section 5.2, step by step. */
static void test_chains(void **state) {
  struct arena *a = arena_new("test");
  struct chain c = {.arena = a};
  expect(a, STR(HEAD), BODY, "none", 0);
  expect(a, STR("ARC-Other: i=1\n" HEAD), BODY, "none", 0);
  add_set(&c, AAR1, AMS1, AS1);
  add_set(&c, AAR2, AMS2, AS2);
  struct str good = text_of(&c);
  expect(a, good, BODY, "pass", 1);
  /* fields in any order; what trailing white space there is does not count */
  expect(a, str_cat(a, STR(HEAD), str_cat(a, c.set[1][0], str_cat(a, c.set[0][2], str_cat(a, c.set[1][2], str_cat(a, c.set[0][1],
      str_cat(a, c.set[0][0], c.set[1][1])))))), BODY, "pass", 1);
  expect(a, put(a, good, "i=2; r.ex", STR("i=2;  \n\t r.ex")), BODY, "pass", 1);
  expect(a, put(a, good, "Subject: of  the\n chain", STR("SUBJECT:  of the chain  ")), BODY, "pass", 1);
  expect(a, good, "Hello,\n\nworld\n\n\n\n", "pass", 1);
  expect(a, good, "Hello,\n\nWorld \n", "fail", 0);
  expect(a, put(a, good, "the second", STR("the third")), BODY, "fail", 0);
  expect(a, str_cat(a, STR("Subject: one more, which is not covered, on top\n"), good), BODY, "pass", 1);
  expect(a, str_cat(a, good, STR("Subject: one more at the end\n")), BODY, "fail", 0);
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 3; k++) /* a field is missing, is there twice */
      for (int twice = 0; twice < 2; twice++)
        expect(a, put(a, good, str_dup_c(a, c.set[i][k]), twice ? str_cat(a, c.set[i][k], c.set[i][k]) : STR_EMPTY), BODY, "fail", 0);
  expect(a, put(a, good, "spf=pass", STR("spf=fail")), BODY, "fail", 0);
  expect(a, put(a, good, "arc=pass", STR("arc=fail")), BODY, "fail", 0);
  /* the second changed the message: the first message signature does not hold, its seal does */
  struct chain d = {.arena = a};
  add_set(&d, AAR1, "ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=s.ex; s=r; h=from; bh=AAAA; b=BSIG\n", AS1);
  add_set(&d, AAR2, AMS2, AS2);
  expect(a, text_of(&d), BODY, "pass", 2);
  /* what seals may say of the chain */
  static const char *const second[] = {"none", "fail", "pass", "Pass", ""};
  for (size_t i = 0; i < sizeof second / sizeof *second; i++) {
    struct chain e = {.arena = a};
    add_set(&e, AAR1, AMS1, AS1);
    add_set(&e, AAR2, AMS2, str_dup_c(a, put(a, STR(AS2), "cv=pass", str_printf(a, "cv=%s", second[i]))));
    expect(a, text_of(&e), BODY, i == 2 ? "pass" : "fail", i == 2);
  }
  /* a gap; a set that is not the newest cannot be replaced */
  struct chain g = {.arena = a};
  add_set(&g, AAR1, AMS1, AS1);
  add_set(&g, "ARC-Authentication-Results: i=3; r.ex\n", str_dup_c(a, put(a, STR(AMS2), "i=2", STR("i=3"))),
      str_dup_c(a, put(a, STR(AS2), "i=2", STR("i=3"))));
  expect(a, text_of(&g), BODY, "fail", 0);
  arena_free(a);
}

int main(void) {
  struct arena *a = arena_new("keys");
  rsa.pkey = EVP_RSA_gen(1024);
  small.pkey = EVP_RSA_gen(768);
  ed.pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
  rsa.record = public_text(a, rsa.pkey, "rsa");
  small.record = public_text(a, small.pkey, "rsa");
  ed.record = public_text(a, ed.pkey, "ed25519");
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_set), cmocka_unit_test(test_chains)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  EVP_PKEY_free(rsa.pkey);
  EVP_PKEY_free(small.pkey);
  EVP_PKEY_free(ed.pkey);
  arena_free(a);
  return failed;
}
