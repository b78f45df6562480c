/* Tag lists, canonical forms and signatures of DKIM. */
#include "mailauth/dkim.h"

#include <stdlib.h>

#include "base/encode.h"
#include "base/test.h"
#include "mailauth/sign.h"

static void test_tags(void **state) {
  static const struct {
    const char *text;
    int n;   /* -1: refused */
  } cases[] = {
    {"a=b", 1}, {" a = b ; c=d;", 2}, {"a=b;\r\n c = d e ; ", 2}, {"a=", 1}, {"a=b=c", 1}, {"", -1}, {";", -1}, {"a=b;;c=d", -1},
    {"a=b; a=c", -1}, {"a", -1}, {"a=b; c", -1}, {"1a=b", -1}, {"a-b=c", -1}, {"=b", -1}, {"a_1=b", 1}, {"a=\x01", -1}, {"a=\xc3\xa9", 1},
  };
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct tag_list l;
    bool good = tags_parse(a, str_c(cases[i].text), &l);
    if (good != (cases[i].n >= 0) || (good && (int)l.n != cases[i].n))
      fail_msg("\"%s\": %d, %d tags", cases[i].text, good, (int)l.n);
  }
  struct tag_list l;
  assert_true(tags_parse(a, STR("b= x y\n z ;c=1"), &l));
  assert_str(tags_value(&l, "b"), "x y\n z");
  assert_str(tags_squeeze(a, tags_value(&l, "b")), "xyz");
  assert_str(tags_find(&l, "b")->raw, " x y\n z ");
  assert_false(str_is_set(tags_value(&l, "B")));
  arena_free(a);
}

/* RFC 6376, section 3.4.5, and what its text leads to. */
static void test_headers(void **state) {
  static const struct {
    const char *field, *simple, *relaxed;
  } cases[] = {
    {"A: X\n", "A: X\r\n", "a:X\r\n"}, {"B : Y\t\n\tZ  \n", "B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"},
    {"Empty:\n", "Empty:\r\n", "empty:\r\n"}, {"Blank:  \n", "Blank:  \r\n", "blank:\r\n"}, {"N:a:b\n", "N:a:b\r\n", "n:a:b\r\n"},
    {"F: a\n b\n\tc\n", "F: a\r\n b\r\n\tc\r\n", "f:a b c\r\n"},
  };
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int relaxed = 0; relaxed < 2; relaxed++) {
      struct buf b;
      buf_init(&b, a, 1000);
      canon_header(relaxed ? CANON_RELAXED : CANON_SIMPLE, str_c(cases[i].field), true, &b);
      assert_str(buf_str(&b), relaxed ? cases[i].relaxed : cases[i].simple);
    }
  }
  arena_free(a);
}

static void collect(void *arg, const char *p, size_t n) { buf_add_n(arg, p, n); }

static void test_bodies(void **state) {
  static const struct {
    const char *body, *simple, *relaxed;
  } cases[] = {
    {" C \nD \t E\n\n\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"}, {"", "\r\n", ""}, {"\n\n", "\r\n", ""}, {" \n\t\n", " \r\n\t\r\n", ""},
    {"a", "a\r\n", "a\r\n"}, {"a \n\n  b\n \n", "a \r\n\r\n  b\r\n \r\n", "a\r\n\r\n b\r\n"}, {"\n\na\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"},
    {"a \t", "a \t\r\n", "a\r\n"},
  };
  struct arena *a = arena_new("test");
  struct canon_body *canon = arena_new_of(a, struct canon_body);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int relaxed = 0; relaxed < 2; relaxed++) {
      const char *want = relaxed ? cases[i].relaxed : cases[i].simple;
      /* Wherever the pieces end, and whatever the limit. */
      for (size_t piece = 1; piece < 5; piece++) {
        for (size_t limit = 0; limit <= strlen(want) + 1; limit++) {
          struct buf b;
          buf_init(&b, a, 1000);
          canon_body_begin(canon, relaxed ? CANON_RELAXED : CANON_SIMPLE, limit, collect, &b);
          for (struct str rest = str_c(cases[i].body); rest.len > 0; rest = str_from(rest, piece))
            canon_body_add(canon, str_slice(rest, 0, piece));
          canon_body_end(canon);
          assert_int_equal(canon->total, strlen(want));
          assert_true(str_eq(buf_str(&b), str_slice(str_c(want), 0, limit)));
        }
      }
    }
  }
  arena_free(a);
}

/* Section 3.4.4 to the letter, a line after the other. */
static void plain_form(struct str body, bool relaxed, struct buf *out) {
  size_t held = 0;
  bool any = false;
  while (body.len > 0) {
    ptrdiff_t nl = str_find_byte(body, '\n');
    struct str line = str_slice(body, 0, nl < 0 ? body.len : (size_t)nl);
    body = str_from(body, nl < 0 ? body.len : (size_t)nl + 1);
    while (relaxed && line.len > 0 && (line.p[line.len - 1] == ' ' || line.p[line.len - 1] == '\t'))
      line.len--;
    held += 1;
    if (line.len == 0)
      continue;
    for (; held > 1; held--)
      buf_add_c(out, "\r\n");
    held = 0;
    for (size_t i = 0; i < line.len; i++) {
      bool blank = relaxed && (line.p[i] == ' ' || line.p[i] == '\t');
      if (!blank || i == 0 || (line.p[i - 1] != ' ' && line.p[i - 1] != '\t'))
        buf_add_byte(out, blank ? ' ' : line.p[i]);
    }
    buf_add_c(out, "\r\n");
    any = true;
  }
  if (!any && !relaxed)
    buf_add_c(out, "\r\n");
}

/* Bodies of all sizes with more or less to change, in pieces of all sizes. */
static void test_bodies_against_plain_form(void **state) {
  static const char letters[] = "\n\n \t \rabcdefghijklmnopqrstuvwxyz\xe9";
  unsigned seed = 1;
  for (int round = 0; round < 400; round++) {
    struct arena *a = arena_new("test");
    size_t size = (size_t)round * (size_t)round / 5, piece = (size_t)round % 37 ? (size_t)round * 7 : 65536;
    unsigned most = round % 3 == 0 ? 4 : round % 3 == 1 ? 10 : sizeof letters - 1;
    char *text = arena_bytes(a, size + 1);
    for (size_t i = 0; i < size; i++) {
      seed = seed * 1103515245 + 12345;
      text[i] = round % 2 && i % 80 ? letters[6 + (seed >> 16) % 20] : letters[(seed >> 16) % most];
    }
    for (int relaxed = 0; relaxed < 2; relaxed++) {
      struct canon_body *canon = arena_new_of(a, struct canon_body);
      struct buf want, got;
      buf_init(&want, a, BUF_MAX_EXPANSION);
      buf_init(&got, a, BUF_MAX_EXPANSION);
      plain_form(str_n(text, size), relaxed, &want);
      canon_body_begin(canon, relaxed ? CANON_RELAXED : CANON_SIMPLE, DKIM_BODY_ALL, collect, &got);
      for (struct str rest = str_n(text, size); rest.len > 0; rest = str_from(rest, piece))
        canon_body_add(canon, str_slice(rest, 0, piece));
      canon_body_end(canon);
      if (!str_eq(buf_str(&got), buf_str(&want)))
        fail_msg("round %d, %s: %zu bytes, not %zu", round, relaxed ? "relaxed" : "simple", got.len, want.len);
    }
    arena_free(a);
  }
}

static void test_long_lines(void **state) {
  struct arena *a = arena_new("test");
  char *text = arena_bytes(a, 3 * BODY_LINE_MAX);
  memset(text, 'x', 3 * BODY_LINE_MAX);
  for (size_t longest = BODY_LINE_MAX - 3; longest <= BODY_LINE_MAX; longest++) {
    memset(text, 'x', 2 * BODY_LINE_MAX);
    text[10] = text[11 + longest] = '\n';
    for (size_t piece = 1000; piece < 3 * BODY_LINE_MAX; piece *= 3) {
      struct line_watch w = {0};
      for (struct str rest = str_n(text, longest + 100); rest.len > 0; rest = str_from(rest, piece))
        line_watch_add(&w, str_slice(rest, 0, piece));
      assert_int_equal(w.too_long, longest > BODY_LINE_MAX - 2);
    }
  }
  arena_free(a);
}

/* RFC 6376, section 3.4.4: hashes of the empty body. */
static void test_body_hashes(void **state) {
  struct arena *a = arena_new("test");
  struct body_hashes all = {.arena = a};
  struct body_hash *simple = body_hash_want(&all, EVP_sha256(), CANON_SIMPLE, DKIM_BODY_ALL);
  struct body_hash *relaxed = body_hash_want(&all, EVP_sha256(), CANON_RELAXED, DKIM_BODY_ALL);
  assert_ptr_equal(body_hash_want(&all, EVP_sha256(), CANON_RELAXED, DKIM_BODY_ALL), relaxed);
  for (int i = 0; i < BODY_HASHES_MAX - 2; i++)
    assert_non_null(body_hash_want(&all, EVP_sha1(), CANON_SIMPLE, (uint64_t)i));
  assert_null(body_hash_want(&all, EVP_sha512(), CANON_SIMPLE, DKIM_BODY_ALL));
  body_hashes_end(&all);
  assert_str(base64_encode(a, str_n((char *)simple->digest, simple->digest_n)), "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=");
  assert_str(base64_encode(a, str_n((char *)relaxed->digest, relaxed->digest_n)), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
  arena_free(a);
}

#define GOOD "v=1; a=rsa-sha256; d=a.ex; s=sel; h=From : To; b=AAAA; bh=BBBB"

static void test_signatures(void **state) {
  static const struct {
    const char *value;
    int status;      /* -1: not even tags */
    int reason;
  } cases[] = {
    {GOOD, DKIM_NONE, DKIM_OK}, {GOOD "; c=relaxed/simple; l=0; t=1; x=2; i=x@sub.a.ex; q=dns/txt", DKIM_NONE, DKIM_OK},
    {GOOD "; c=nofws", DKIM_INVALID, DKIM_MALFORMED}, {GOOD "; l=-1", DKIM_INVALID, DKIM_MALFORMED},
    {GOOD "; l=99999999999999999999", DKIM_INVALID, DKIM_MALFORMED}, {GOOD "; i=x@b.ex", DKIM_INVALID, DKIM_MALFORMED},
    {GOOD "; i=x@nota.ex", DKIM_INVALID, DKIM_MALFORMED}, {GOOD "; i=a.ex", DKIM_INVALID, DKIM_MALFORMED}, {GOOD "; t=2; x=1", DKIM_INVALID, DKIM_MALFORMED},
    {GOOD "; q=http", DKIM_INVALID, DKIM_MALFORMED}, {"v=2; a=rsa-sha256; d=a.ex; s=s; h=From; b=AAAA; bh=BBBB", DKIM_INVALID, DKIM_VERSION},
    {"a=rsa-sha256; d=a.ex; s=s; h=From; b=AAAA; bh=BBBB", DKIM_INVALID, DKIM_MALFORMED},
    {"v=1; a=dsa-sha256; d=a.ex; s=s; h=From; b=AAAA; bh=BBBB", DKIM_INVALID, DKIM_ALGORITHM},
    {"v=1; a=rsa-sha256; d=a..ex; s=s; h=From; b=AAAA; bh=BBBB", DKIM_INVALID, DKIM_MALFORMED},
    {"v=1; a=rsa-sha256; d=a.ex; s=s s; h=; b=AAAA; bh=BBBB", DKIM_INVALID, DKIM_MALFORMED},
    {"v=1; a=rsa-sha256; d=a.ex; s=s; h=From; b=!; bh=BBBB", DKIM_INVALID, DKIM_MALFORMED},
    {"v=1; a=rsa-sha256; d=a.ex; s=s; h=to : FROM; b=AAAA; bh=BBBB", DKIM_NONE, DKIM_OK},
    {"v=1; a=rsa-sha256; d=a.ex; h=From; b=AAAA; bh=BBBB", DKIM_INVALID, DKIM_MALFORMED},
    {"v=1; a=RSA-SHA256; d=a.ex; s=s; h=From; b=AAAA; bh=BBBB", DKIM_INVALID, DKIM_ALGORITHM},
    {GOOD "; q=dns/foo", DKIM_INVALID, DKIM_MALFORMED}, {GOOD "; q=x : dns/txt", DKIM_NONE, DKIM_OK}, {GOOD "; l=", DKIM_INVALID, DKIM_MALFORMED},
    {GOOD "; t=", DKIM_INVALID, DKIM_MALFORMED}, {GOOD "; x=1x", DKIM_INVALID, DKIM_MALFORMED}, {GOOD "; c=", DKIM_INVALID, DKIM_MALFORMED},
    {GOOD "; zz=", DKIM_NONE, DKIM_OK}, {GOOD "; i=@a.ex", DKIM_NONE, DKIM_OK}, {GOOD ";;", -1, 0},
    {GOOD "; b=AAAA", -1, 0}, {"nothing", -1, 0},
  };
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct dkim_signature *s = dkim_signature_parse(a, str_printf(a, "DKIM-Signature: %s\n", cases[i].value));
    if ((s == NULL) != (cases[i].status < 0) || (s && ((int)s->status != cases[i].status || (int)s->reason != cases[i].reason)))
      fail_msg("%s", cases[i].value);
  }
  struct dkim_signature *s = dkim_signature_parse(a, STR("DKIM-Signature: v=1; a=rsa-sha256; d=A.ex; s=sel;\n h=From : To; b= AA\n AA ; bh=BBBB; z=From:a=20b|To:c\n"));
  struct buf b;
  buf_init(&b, a, 1000);
  dkim_add_own_field(s, &b);
  assert_str(buf_str(&b), "DKIM-Signature: v=1; a=rsa-sha256; d=A.ex; s=sel;\r\n h=From : To; b=; bh=BBBB; z=From:a=20b|To:c");
  assert_str(dkim_key_name(a, s), "sel._domainkey.a.ex");
  assert_str(s->header_names, "From:To");
  assert_true(s->covers_author);
  assert_false(dkim_signature_parse(a, STR("DKIM-Signature: v=1; a=rsa-sha256; d=a.ex; s=s; h=To:Subject; b=AAAA; bh=BBBB"))->covers_author);
  assert_str(s->copied_headers, "From:a b\nTo:c");
  arena_free(a);
}

static void test_selection(void **state) {
  struct arena *a = arena_new("test");
  const struct str fields[] = {STR("From: 1\n"), STR("X: 2\n"), STR("from : 3\n"), STR("x: 4\n")};
  struct header_index *x = header_index_new(a, fields, 4);
  static const char *const cases[][2] = {
    {"from", "from:3\r\n"}, {"From:FROM:from", "from:3\r\nfrom:1\r\n"}, {"x: from :none:x:x", "x:4\r\nfrom:3\r\nx:2\r\n"}, {"", ""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct buf b;
    buf_init(&b, a, 1000);
    header_index_select(x, str_c(cases[i][0]), CANON_RELAXED, &b);
    assert_str(buf_str(&b), cases[i][1]);
  }
  arena_free(a);
}

static void test_keys(void **state) {
  static const char ed[] = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
  struct arena *a = arena_new("test");
  struct dkim_signature s = {.key_type = DKIM_ED25519, .hash_name = "sha256", .domain = STR("a.ex"), .identity = STR("@sub.a.ex")};
  struct dkim_key *k = dkim_key_parse(a, str_printf(a, "v=DKIM1; k=ed25519; n=x; p=%s", ed));
  assert_non_null(k);
  assert_int_equal(k->bits, 256);
  assert_true(dkim_key_fits(k, &s));
  static const struct {
    const char *tags;
    bool fits;
  } cases[] = {{"h=sha256:sha1", true}, {"h=sha1", false}, {"s=*", true}, {"s=x:email", true}, {"s=x", false}, {"t=y", true}, {"t=y:s", false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    k = dkim_key_parse(a, str_printf(a, "k=ed25519; %s; p=%s", cases[i].tags, ed));
    assert_non_null(k);
    assert_int_equal(dkim_key_fits(k, &s), cases[i].fits);
  }
  static const char *const bad[] = {"", "p=", "k=ed25519; p=AAAA", "k=rsa; p=AAAA", "k=dsa; p=AAAA", "v=DKIM2; p=AAAA", "k=rsa; p=!", "n=x",
    "v=spf1 -all"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_null(dkim_key_parse(a, str_c(bad[i])));
  assert_null(dkim_key_parse(a, str_printf(a, "k=ed25519; v=DKIM1; p=%s", ed)));
  arena_free(a);
}

/* The examples of RFC 6376, appendix A, and RFC 8463, appendix A: one message, signed with RSA and Ed25519. */
static void test_examples(void **state) {
  static const char rest[] = "Received: from client1.football.example.com  [192.0.2.1]\n      by submitserver.example.com with SUBMISSION;\n"
                             "      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\nFrom: Joe SixPack <joe@football.example.com>\nTo: Suzie Q <suzie@shopping.example.net>\nSubject: Is dinner ready?\n"
                             "Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\nMessage-ID: <20030712040037.46341.5F8J@football.example.com>\n";
  static const struct {
    const char *field, *record;
  } cases[] = {
    {"DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\n      c=simple/simple; q=dns/txt; i=joe@football.example.com;\n"
     "      h=Received : From : To : Subject : Date : Message-ID;\n      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n"
     "      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\n      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\n"
     "      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\n      4bmp/YzhwvcubU4=;\n",
     "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v"
     "/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"},
    {"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\n d=football.example.com; i=@football.example.com;\n"
     " q=dns/txt; s=brisbane; t=1528637909; h=from : to :\n subject : date : message-id : from : subject : date;\n"
     " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\n"
     " Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\n", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
    {"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\n d=football.example.com; i=@football.example.com;\n"
     " q=dns/txt; s=test; t=1528637909; h=from : to : subject :\n date : message-id : from : subject : date;\n"
     " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\n"
     " DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\n dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\n",
     "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACD"
     "fzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct arena *a = arena_new("test");
    struct str fields[6];
    struct sign_fields f = sign_fields(a, str_c(rest));
    size_t n = f.n;
    assert_int_equal(n, 6);
    memcpy(fields, f.v, sizeof fields);
    struct dkim_signature *s = dkim_signature_parse(a, str_c(cases[i].field));
    struct body_hashes hashes = {.arena = a};
    assert_non_null(s);
    s->hash = body_hash_want(&hashes, s->md, s->body_canon, s->body_length);
    body_hashes_add(&hashes, STR("Hi.\n\nWe lost the game. Are you hungry yet?\n\nJoe.\n"));
    body_hashes_end(&hashes);
    assert_true(dkim_body_holds(s));
    assert_non_null(s->key = dkim_key_parse(a, str_c(cases[i].record)));
    dkim_verify(header_index_new(a, fields, n), s, 0);
    assert_int_equal(s->status, DKIM_PASS);
    fields[3] = STR("Subject: Is lunch ready?\n");
    dkim_verify(header_index_new(a, fields, n), s, 0);
    assert_int_equal(s->status, DKIM_FAIL);
    arena_free(a);
  }
}

/* The body's form does not depend on where its pieces end, nor on how long its lines are. */
static void test_relaxed_pieces(void **state) {
  struct arena *a = arena_new("test");
  static const char body[] = "a line of more than sixteen bytes, with a word or two\n with a blank in front of it\nshort\n\tx\n two  blanks in the middle of this one\n"
                             "and here a tab\tthat counts as one\nwhat is at the end goes      \t \n                \n123456789012345 \n1234567890123456\n\n\n";
  unsigned char wanted[EVP_MAX_MD_SIZE];
  for (size_t piece = 1; piece < sizeof body; piece++) {
    struct body_hashes hashes = {.arena = a};
    struct body_hash *h = body_hash_want(&hashes, EVP_sha256(), CANON_RELAXED, DKIM_BODY_ALL);
    struct str rest = str_c(body);
    for (; rest.len > 0; rest = str_from(rest, piece))
      body_hashes_add(&hashes, str_slice(rest, 0, piece));
    body_hashes_end(&hashes);
    if (piece == 1)
      memcpy(wanted, h->digest, h->digest_n);
    assert_memory_equal(wanted, h->digest, h->digest_n);
  }
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_tags), cmocka_unit_test(test_headers), cmocka_unit_test(test_bodies), cmocka_unit_test(test_bodies_against_plain_form), cmocka_unit_test(test_long_lines),
    cmocka_unit_test(test_body_hashes),
    cmocka_unit_test(test_signatures), cmocka_unit_test(test_selection), cmocka_unit_test(test_keys),
    cmocka_unit_test(test_examples), cmocka_unit_test(test_relaxed_pieces),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
