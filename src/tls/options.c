/* openssl_options, tls_dhparam, tls_require_ciphers: texts of the configuration. */
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include "base/arena.h"
#include "base/ascii.h"
#include "tls/tls_internal.h"

/* The names lose "SSL_OP_". Those that OpenSSL 3 has no more are accepted and do nothing, as in its headers. */
static const struct {
  const char *name;
  uint64_t bits;
} option_names[] = {
    {"all", SSL_OP_ALL},
    {"allow_no_dhe_kex", SSL_OP_ALLOW_NO_DHE_KEX},
    {"allow_unsafe_legacy_renegotiation", SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION},
    {"cipher_server_preference", SSL_OP_CIPHER_SERVER_PREFERENCE},
    {"cleanse_plaintext", SSL_OP_CLEANSE_PLAINTEXT},
    {"cookie_exchange", SSL_OP_COOKIE_EXCHANGE},
    {"cryptopro_tlsext_bug", SSL_OP_CRYPTOPRO_TLSEXT_BUG},
    {"disable_tlsext_ca_names", SSL_OP_DISABLE_TLSEXT_CA_NAMES},
    {"dont_insert_empty_fragments", SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS},
    {"enable_ktls", SSL_OP_ENABLE_KTLS},
    {"enable_middlebox_compat", SSL_OP_ENABLE_MIDDLEBOX_COMPAT},
    {"ephemeral_rsa", 0},
    {"ignore_unexpected_eof", SSL_OP_IGNORE_UNEXPECTED_EOF},
    {"legacy_server_connect", SSL_OP_LEGACY_SERVER_CONNECT},
    {"microsoft_big_sslv3_buffer", 0},
    {"microsoft_sess_id_bug", 0},
    {"msie_sslv2_rsa_padding", 0},
    {"netscape_challenge_bug", 0},
    {"netscape_reuse_cipher_change_bug", 0},
    {"no_anti_replay", SSL_OP_NO_ANTI_REPLAY},
    {"no_compression", SSL_OP_NO_COMPRESSION},
    {"no_encrypt_then_mac", SSL_OP_NO_ENCRYPT_THEN_MAC},
    {"no_extended_master_secret", SSL_OP_NO_EXTENDED_MASTER_SECRET},
    {"no_renegotiation", SSL_OP_NO_RENEGOTIATION},
    {"no_session_resumption_on_renegotiation", SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION},
    {"no_sslv2", 0},
    {"no_sslv3", SSL_OP_NO_SSLv3},
    {"no_ticket", SSL_OP_NO_TICKET},
    {"no_tlsv1", SSL_OP_NO_TLSv1},
    {"no_tlsv1_1", SSL_OP_NO_TLSv1_1},
    {"no_tlsv1_2", SSL_OP_NO_TLSv1_2},
    {"no_tlsv1_3", SSL_OP_NO_TLSv1_3},
    {"prioritize_chacha", SSL_OP_PRIORITIZE_CHACHA},
    {"safari_ecdhe_ecdsa_bug", SSL_OP_SAFARI_ECDHE_ECDSA_BUG},
    {"single_dh_use", 0},
    {"single_ecdh_use", 0},
    {"ssleay_080_client_dh_bug", 0},
    {"sslref2_reuse_cert_type_bug", 0},
    {"tls_block_padding_bug", 0},
    {"tls_d5_bug", 0},
    {"tls_rollback_bug", SSL_OP_TLS_ROLLBACK_BUG},
    {"tlsext_padding", SSL_OP_TLSEXT_PADDING},
};

const char *tls_option_macro_name(size_t i, char to[64]) {
  if (i >= sizeof option_names / sizeof *option_names)
    return NULL;
  size_t n = 0;
  for (const char *p = option_names[i].name; *p; p++)
    to[n++] = ascii_upper(*p);
  to[n] = '\0';
  return to;
}

#define OPTIONS_DEFAULT (SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION)

static bool option_bits(struct str name, uint64_t *ret) {
  for (size_t i = 0; i < sizeof option_names / sizeof *option_names; i++) {
    if (!str_ieq_c(name, option_names[i].name))
      continue;
    *ret = option_names[i].bits;
    return true;
  }
  return false;
}

bool tls_options_parse(struct str text, uint64_t *ret_options, struct str *ret_bad) {
  uint64_t options = OPTIONS_DEFAULT, bits;
  for (text = str_ltrim(text); text.len; text = str_ltrim(text)) {
    size_t n = 0;
    while (n < text.len && !ascii_is_space(text.p[n]))
      n++;
    struct str item = str_slice(text, 0, n);
    text = str_from(text, n);
    if ((item.p[0] != '+' && item.p[0] != '-') || !option_bits(str_from(item, 1), &bits)) {
      *ret_bad = item;
      return false;
    }
    options = item.p[0] == '+' ? options | bits : options & ~bits;
  }
  *ret_options = options;
  return true;
}

/* The primes of RFC 3526, 5114 and 7919; the two of RFC 2409 are too small to be used. */
static const struct {
  const char *name, *group;
} primes[] = {
    {"ffdhe2048", "ffdhe2048"}, {"ffdhe3072", "ffdhe3072"}, {"ffdhe4096", "ffdhe4096"}, {"ffdhe6144", "ffdhe6144"},
    {"ffdhe8192", "ffdhe8192"}, {"ike5", "modp_1536"}, {"ike14", "modp_2048"}, {"ike15", "modp_3072"},
    {"ike16", "modp_4096"}, {"ike17", "modp_6144"}, {"ike18", "modp_8192"}, {"ike22", "dh_1024_160"},
    {"ike23", "dh_2048_224"}, {"ike24", "dh_2048_256"},
};

static EVP_PKEY *prime_by_name(struct str name) {
  EVP_PKEY *key = NULL;
  for (size_t i = 0; i < sizeof primes / sizeof *primes; i++) {
    if (!str_ieq_c(name, primes[i].name))
      continue;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "DH", NULL);
    OSSL_PARAM params[2] = {
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)primes[i].group, 0), OSSL_PARAM_END};
    params[0].data_size = strlen(primes[i].group);
    if (!ctx || EVP_PKEY_paramgen_init(ctx) <= 0 || EVP_PKEY_CTX_set_params(ctx, params) <= 0 ||
        EVP_PKEY_paramgen(ctx, &key) <= 0)
      key = NULL;
    EVP_PKEY_CTX_free(ctx);
    break;
  }
  return key;
}

static EVP_PKEY *prime_from_file(const char *name) {
  BIO *bio = BIO_new_file(name, "r");
  EVP_PKEY *key = bio ? PEM_read_bio_Parameters(bio, NULL) : NULL;
  BIO_free(bio);
  return key;
}

bool tls_dh_use(SSL_CTX *ctx, struct str source, int64_t max_bits, char error[TLS_ERROR_MAX]) {
  source = str_trim(source);
  if (str_ieq_c(source, "none"))
    return true;
  if (source.len == 0 || str_ieq_c(source, "default"))
    return SSL_CTX_set_dh_auto(ctx, 1);
  if (source.len >= 4096) {
    snprintf(error, TLS_ERROR_MAX, "tls_dhparam is too long");
    return false;
  }
  char name[4096];
  memcpy(name, source.p, source.len);
  name[source.len] = '\0';
  EVP_PKEY *key = name[0] == '/' ? prime_from_file(name) : prime_by_name(source);
  if (!key) {
    if (name[0] == '/')
      snprintf(error, TLS_ERROR_MAX, "could not read dhparams file %.400s", name);
    else
      snprintf(error, TLS_ERROR_MAX, "unknown or unsupported name in tls_dhparam: %.200s", name);
    return false;
  }
  /* More bits than some clients take: as if it were "none". */
  if (EVP_PKEY_get_bits(key) <= (max_bits ? max_bits : 2236) && SSL_CTX_set0_tmp_dh_pkey(ctx, key))
    return true;
  EVP_PKEY_free(key);
  return true;
}

const char *tls_cipher_list(struct arena *a, struct str ciphers) {
  char *list = str_dup_c(a, str_trim(ciphers));
  for (char *p = list; *p; p++)
    if (*p == '_')
      *p = '-';
  return list;
}

bool tls_ciphers_valid(struct arena *a, struct str ciphers, struct str *ret_error) {
  char error[TLS_ERROR_MAX];
  ERR_clear_error();
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());
  bool ok = ctx && SSL_CTX_set_cipher_list(ctx, tls_cipher_list(a, ciphers));
  if (!ok) {
    tls_error_text(error, "SSL_CTX_set_cipher_list");
    *ret_error = str_dup(a, str_c(error));
  }
  SSL_CTX_free(ctx);
  return ok;
}

void tls_error_text(char to[TLS_ERROR_MAX], const char *where) {
  char text[256];
  const char *own;
  int flags;
  unsigned long code = ERR_get_error_all(NULL, NULL, NULL, &own, &flags);
  if (ERR_GET_LIB(code) == ERR_LIB_USER && flags & ERR_TXT_STRING) /* ours (keys_provider.c) */
    snprintf(text, sizeof text, "%s", own);
  else
    ERR_error_string_n(code, text, sizeof text);
  snprintf(to, TLS_ERROR_MAX, "(%s): %s", where, text);
  ERR_clear_error();
}
