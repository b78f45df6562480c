/* How much signatures and SPF cost, without a network: rates per second of CPU, one line each. What it measures is named by the
arguments: KEY(rsa|ed) BYTES SECONDS. The records that `mailauth_peers` needs for the same work are printed first. */
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/encode.h"
#include "mailauth/sign.h"
#include "mailauth/spf.h"

#define HEADER                                                                                                        \
  "From: Ann <ann@a.example>\nTo: bob@b.example\nSubject: how much it costs\nDate: Fri, 20 Nov 2026 10:00:00 +0000\n" \
  "Message-ID: <1@a.example>\nMIME-Version: 1.0\nContent-Type: text/plain\n"
#define NAMES "from:to:subject:date:message-id:mime-version:content-type"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct bench {
  EVP_PKEY *pkey;
  struct sign_key key;
  struct str body, canonical, record, signature, fields[32];
  size_t n;
};

static struct str hash_of(struct arena *a, struct str body) {
  struct body_hashes all = {.arena = a};
  struct body_hash *h = body_hash_want(&all, EVP_sha256(), CANON_RELAXED, DKIM_BODY_ALL);
  for (size_t i = 0; i < body.len; i += 65536)
    body_hashes_add(&all, str_slice(body, i, i + 65536));
  body_hashes_end(&all);
  return str_n((const char *)h->digest, h->digest_n);
}

/* The field of a signature, made as dkim_sign.c makes it. */
static struct str sign(struct arena *a, const struct bench *b) {
  struct sign_fields f = sign_fields(a, STR(HEADER));
  struct header_index *index = header_index_new(a, f.v, f.n);
  struct buf out, data;
  buf_init(&out, a, BUF_MAX_LINE);
  buf_init(&data, a, BUF_MAX_EXPANSION);
  struct str names = sign_header_names(a, &f, STR(NAMES), true), digest = hash_of(a, b->body);
  struct sign_text t = {&out, 15};
  buf_add_c(&out, "DKIM-Signature:");
  sign_text_tag(&t, "v=", STR("1"), NULL);
  sign_text_tag(&t, "a=", b->key.type == DKIM_RSA ? STR("rsa-sha256") : STR("ed25519-sha256"), NULL);
  sign_text_tag(&t, "c=", STR("relaxed/relaxed"), NULL);
  sign_text_tag(&t, "d=", STR("a.example"), NULL);
  sign_text_tag(&t, "s=", STR("k"), NULL);
  sign_text_tag(&t, "h=", names, ":");
  sign_text_tag(&t, "bh=", base64_encode(a, digest), "");
  sign_text_open(&t, "b=", 0);
  header_index_select(index, names, CANON_RELAXED, &data);
  canon_header(CANON_RELAXED, str_cat(a, buf_str(&out), STR(";")), false, &data);
  sign_text_fill(&t, sign_make(a, &b->key, EVP_sha256(), buf_str(&data)), "");
  sign_text_end(&t);
  buf_add_byte(&out, '\n');
  return buf_str(&out);
}

static void verify(struct arena *a, const struct bench *b) {
  struct dkim_signature *s = dkim_signature_parse(a, b->fields[0]);
  struct header_index *index = header_index_new(a, b->fields, b->n);
  struct body_hashes all = {.arena = a};
  s->hash = body_hash_want(&all, s->md, s->body_canon, s->body_length);
  for (size_t i = 0; i < b->body.len; i += 65536)
    body_hashes_add(&all, str_slice(b->body, i, i + 65536));
  body_hashes_end(&all);
  s->key = dkim_key_parse(a, b->record);
  if (dkim_body_holds(s))
    dkim_verify(index, s, 0);
  if (s->status != DKIM_PASS) {
    fprintf(stderr, "the signature does not hold\n");
    exit(1);
  }
}

/* The library's part: the hash of the bytes that are to be hashed (each line end is two), and one operation with the key. */
static void primitive_sign(struct arena *a, const struct bench *b) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n;
  EVP_Digest(b->canonical.p, b->canonical.len, digest, &n, EVP_sha256(), NULL);
  (void)sign_make_digest(a, &b->key, EVP_sha256(), digest, n);
}

static void primitive_verify(struct arena *a, const struct bench *b) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n;
  struct dkim_signature *s = dkim_signature_parse(a, b->fields[0]);
  EVP_Digest(b->canonical.p, b->canonical.len, digest, &n, EVP_sha256(), NULL);
  struct buf data;
  buf_init(&data, a, 1000);
  buf_add_c(&data, "x");
  s->key = dkim_key_parse(a, b->record);
  dkim_verify_data(s, &data, 0);
}

struct work {
  const char *what;
  void (*run)(struct arena *a, const struct bench *b);
  double best;
};

static double slice(const struct work *w, const struct bench *b, double seconds) {
  double start = now(), spent;
  long n = 0;
  do {
    struct arena *a = arena_new("bench");
    w->run(a, b);
    arena_free(a);
    n++;
  } while ((spent = now() - start) < seconds);
  return (double)n / spent;
}

/* Each gets short turns, and its best one counts: what else goes on in the machine disturbs all of them alike, or not at all. */
static void rates(struct work *works, size_t n, const struct bench *b, double seconds) {
  for (double start = now(); now() - start < seconds * (double)n;)
    for (size_t i = 0; i < n; i++) {
      double got = slice(&works[i], b, 0.02);
      works[i].best = got > works[i].best ? got : works[i].best;
    }
  for (size_t i = 0; i < n; i++)
    printf("%s %.1f\n", works[i].what, works[i].best);
}

static void work_sign(struct arena *a, const struct bench *b) { (void)sign(a, b); }

/* ---- SPF ---- */

static enum dns_result query(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  static const struct {
    const char *name;
    enum dns_type type;
    const char *text;
  } zone[] = {{"a.example", DNS_TXT, "v=spf1 ip4:10.0.0.0/8 include:b.example a:c.example mx -all"}, {"b.example", DNS_TXT, "v=spf1 ip4:10.1.0.0/16 ip6:2001:db8::/32 ?all"},
    {"c.example", DNS_A, "192.0.2.9"}, {"a.example", DNS_MX, "d.example"}, {"d.example", DNS_A, "192.0.2.1"}};
  *ret = (struct dns_answer){.v = arena_new_of(a, struct dns_record)};
  for (size_t i = 0; i < sizeof zone / sizeof *zone; i++)
    if (zone[i].type == type && str_ieq_c(name, zone[i].name)) {
      ret->v[0] = (struct dns_record){.type = type, .text = str_c(zone[i].text)};
      ip_parse(ret->v[0].text, &ret->v[0].ip);
      ret->n = 1;
      return DNS_OK;
    }
  return DNS_NOMATCH;
}

static int64_t seconds_now(void *arg) { return time(NULL); }

static void work_spf(struct arena *a, const struct bench *b) {
  struct spf_dns dns = {query, seconds_now, NULL};
  struct spf_identity who = {.sender = STR("u@a.example"), .helo = STR("h.example"), .receiver = STR("mx.example")};
  struct spf_answer answer;
  ip_parse(STR("192.0.2.1"), &who.ip);
  spf_check(a, &dns, &who, &answer);
  if (answer.result != SPF_PASS)
    exit(1);
}

int main(int argc, char **argv) {
  struct arena *a = arena_new("bench");
  struct bench b = {0};
  if (argc == 3 && strcmp(argv[1], "spf") == 0) {
    rates(&(struct work){"spf", work_spf, 0}, 1, &b, strtod(argv[2], NULL));
    return 0;
  }
  if (argc != 4)
    return 2;
  bool rsa = strcmp(argv[1], "rsa") == 0;
  size_t size = strtoul(argv[2], NULL, 10);
  b.pkey = rsa ? EVP_RSA_gen(2048) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
  b.key = (struct sign_key){b.pkey, rsa ? DKIM_RSA : DKIM_ED25519};
  char *body = arena_bytes(a, size);
  for (size_t i = 0; i < size; i++)
    body[i] = i % 72 == 71 ? '\n' : i % 7 == 6 ? ' ' : (char)('a' + i % 26);
  b.body = str_n(body, size);
  b.canonical = str_n(memset(arena_bytes(a, size + size / 72), 'x', size + size / 72), size + size / 72);
  unsigned char *der = NULL, raw[32];
  size_t n = sizeof raw;
  struct str key = rsa ? str_n((const char *)der, 0) : STR_EMPTY;
  int len = rsa ? i2d_PUBKEY(b.pkey, &der) : (EVP_PKEY_get_raw_public_key(b.pkey, raw, &n), 32);
  key = base64_encode(a, str_n(rsa ? (const char *)der : (const char *)raw, (size_t)len));
  b.record = str_printf(a, "v=DKIM1; k=%s; p=%.*s", rsa ? "rsa" : "ed25519", STRF(key));
  b.signature = sign(a, &b);
  struct sign_fields f = sign_fields(a, str_cat(a, b.signature, STR(HEADER)));
  b.n = f.n;
  memcpy(b.fields, f.v, f.n * sizeof *f.v);
  struct work works[] = {{"verify", verify, 0}, {"sign", work_sign, 0}, {"primitive-verify", primitive_verify, 0},
    {"primitive-sign", primitive_sign, 0}};
  rates(works, sizeof works / sizeof *works, &b, strtod(argv[3], NULL));
  return 0;
}
