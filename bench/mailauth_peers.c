/* The same work done by libopendkim and libspf2: KEY(rsa) BYTES SECONDS, or `spf SECONDS`. Built by bench/mailauth.py. */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <opendkim/dkim.h>
#include <spf2/spf.h>
#include <spf2/spf_dns_zone.h>

static const char *const header[] = {"From: Ann <ann@a.example>", "To: bob@b.example", "Subject: how much it costs",
  "Date: Fri, 20 Nov 2026 10:00:00 +0000", "Message-ID: <1@a.example>", "MIME-Version: 1.0", "Content-Type: text/plain"};
#define HEADERS (sizeof header / sizeof *header)

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static DKIM_LIB *lib;
static char pem[8192], body[2 << 20], record[4096];
static unsigned char signature[8192];
static size_t size;

static DKIM_STAT lookup(DKIM *d, DKIM_SIGINFO *sig, unsigned char *buf, size_t n) {
  snprintf((char *)buf, n, "%s", record);
  return DKIM_STAT_OK;
}

static bool feed(DKIM *d, bool verifying) {
  bool ok = true;
  if (verifying)
    ok = dkim_header(d, signature, strlen((char *)signature)) == DKIM_STAT_OK;
  for (size_t i = 0; i < HEADERS; i++)
    ok = ok && dkim_header(d, (unsigned char *)(uintptr_t)header[i], strlen(header[i])) == DKIM_STAT_OK;
  ok = ok && dkim_eoh(d) == DKIM_STAT_OK;
  for (size_t i = 0; i < size && ok; i += 65536)
    ok = dkim_body(d, (unsigned char *)body + i, size - i < 65536 ? size - i : 65536) == DKIM_STAT_OK;
  return ok && dkim_eom(d, NULL) == DKIM_STAT_OK;
}

static void check(bool good, const char *what) {
  if (good)
    return;
  fprintf(stderr, "%s failed\n", what);
  exit(1);
}

static void sign(void) {
  DKIM_STAT st;
  size_t n;
  unsigned char *text;
  DKIM *d = dkim_sign(lib, (unsigned char *)"x", NULL, (unsigned char *)pem, (unsigned char *)"k", (unsigned char *)"a.example",
      DKIM_CANON_RELAXED, DKIM_CANON_RELAXED, DKIM_SIGN_RSASHA256, -1, &st);
  check(d != NULL && feed(d, false) && dkim_getsighdr_d(d, 16, &text, &n) == DKIM_STAT_OK, "signing");
  snprintf((char *)signature, sizeof signature, "DKIM-Signature: %s", text);
  dkim_free(d);
}

static void verify(void) {
  DKIM_STAT st;
  DKIM *d = dkim_verify(lib, (unsigned char *)"x", NULL, &st);
  check(d != NULL && feed(d, true), "verifying");
  dkim_free(d);
}

static SPF_server_t *spf_server;

static void spf(void) {
  SPF_response_t *response = NULL;
  SPF_request_t *q = SPF_request_new(spf_server);
  SPF_request_set_ipv4_str(q, "192.0.2.1");
  SPF_request_set_helo_dom(q, "h.example");
  SPF_request_set_env_from(q, "u@a.example");
  SPF_request_query_mailfrom(q, &response);
  check(SPF_response_result(response) == SPF_RESULT_PASS, "SPF");
  SPF_response_free(response);
  SPF_request_free(q);
}

/* The best of short turns. */
static void rate(const char *what, double seconds, void (*work)(void)) {
  double first = now(), start, best = 0;
  while ((start = now()) - first < seconds) {
    double spent;
    long n = 0;
    do
      work(), n++;
    while ((spent = now() - start) < 0.02);
    best = (double)n / spent > best ? (double)n / spent : best;
  }
  printf("%s %.1f\n", what, best);
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "spf")) {
    SPF_dns_server_t *zone = SPF_dns_zone_new(NULL, "bench", 0);
    SPF_dns_zone_add_str(zone, "a.example", ns_t_txt, NETDB_SUCCESS, "v=spf1 ip4:10.0.0.0/8 include:b.example a:c.example mx -all");
    SPF_dns_zone_add_str(zone, "b.example", ns_t_txt, NETDB_SUCCESS, "v=spf1 ip4:10.1.0.0/16 ip6:2001:db8::/32 ?all");
    SPF_dns_zone_add_str(zone, "c.example", ns_t_a, NETDB_SUCCESS, "192.0.2.9");
    SPF_dns_zone_add_str(zone, "a.example", ns_t_mx, NETDB_SUCCESS, "d.example");
    SPF_dns_zone_add_str(zone, "d.example", ns_t_a, NETDB_SUCCESS, "192.0.2.1");
    spf_server = SPF_server_new_dns(zone, 0);
    rate("spf", strtod(argv[2], NULL), spf);
    return 0;
  }
  if (argc != 4)
    return 2;
  size = strtoul(argv[2], NULL, 10);
  check(size > 2 && size <= sizeof body, "that size");
  for (size_t i = 0, k = 0; i < size; i++, k++)
    body[i] = k % 72 == 71 ? '\n' : k % 72 == 70 ? '\r' : k % 7 == 6 ? ' ' : (char)('a' + k % 26);
  memcpy(body + size - 2, "\r\n", 2);
  EVP_PKEY *key = EVP_RSA_gen(2048);
  BIO *b = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey_traditional(b, key, NULL, NULL, 0, NULL, NULL);
  BIO_read(b, pem, sizeof pem - 1);
  unsigned char *der = NULL, text[2048];
  int n = i2d_PUBKEY(key, &der);
  EVP_EncodeBlock(text, der, n);
  snprintf(record, sizeof record, "v=DKIM1; k=rsa; p=%s", text);
  BIO_free(b);
  lib = dkim_init(NULL, NULL);
  dkim_set_key_lookup(lib, lookup);
  sign();
  rate("verify", strtod(argv[3], NULL), verify);
  rate("sign", strtod(argv[3], NULL), sign);
  return 0;
}
