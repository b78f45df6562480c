/* Keys whose private part is in the keys process, as a provider of OpenSSL that lives in the program. Only signing is offered:
what a key cannot do (decryption, agreement) it is not asked for. */
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "tls/keys_internal.h"

#define NAME "martlet-keys"
#define PROPERTY "provider=" NAME
#define PARAM_KEY "martlet-key"

typedef void (*function)(void);
#define ENTRY(id, fn) {id, (function)(fn)}

/* What a new key is made of. */
struct parts {
  EVP_PKEY *public;
  struct str file;
  const unsigned char *id;
};

/* --- keys --- */

static struct keys_key *key_new(const char *type) {
  struct keys_key *k = xcalloc(1, sizeof *k);
  k->type = type;
  return k;
}

static void *new_rsa(void *provider) { return key_new("RSA"); }
static void *new_rsa_pss(void *provider) { return key_new("RSA-PSS"); }
static void *new_ec(void *provider) { return key_new("EC"); }
static void *new_ed25519(void *provider) { return key_new("ED25519"); }
static void *new_ed448(void *provider) { return key_new("ED448"); }

static void key_free(void *data) {
  struct keys_key *k = data;
  if (!k)
    return;
  EVP_PKEY_free(k->public);
  free(k->file);
  free(k);
}

static int key_has(const void *data, int selection) {
  const struct keys_key *k = data;
  if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY && !k->private)
    return 0;
  return k->public != NULL;
}

static int key_match(const void *one, const void *other, int selection) {
  const struct keys_key *a = one, *b = other;
  return a->public && b->public && EVP_PKEY_eq(a->public, b->public) == 1;
}

static int key_get_params(void *data, OSSL_PARAM params[]) {
  const struct keys_key *k = data;
  return k->public && EVP_PKEY_get_params(k->public, params);
}

static const OSSL_PARAM *key_gettable(void *provider) {
  static const OSSL_PARAM list[] = {OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL), OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
      OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL), OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0), OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, NULL, 0),
      OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0), OSSL_PARAM_END};
  return list;
}

/* Of keys_provider_key; or the public part of another key, which OpenSSL wants to compare with one of ours. */
static int key_import(void *data, int selection, const OSSL_PARAM params[]) {
  struct keys_key *k = data;
  const OSSL_PARAM *own = OSSL_PARAM_locate_const(params, PARAM_KEY);
  const struct parts *p;
  if (own && own->data_size == sizeof p) {
    memcpy(&p, own->data, sizeof p);
    EVP_PKEY_up_ref(p->public);
    k->public = p->public;
    k->file = xmalloc(p->file.len + 1u);
    memcpy(k->file, p->file.p, p->file.len);
    k->file[p->file.len] = '\0';
    memcpy(k->id, p->id, sizeof k->id);
    k->private = true;
    return 1;
  }
  EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, k->type, NULL);
  /* It only reads them. */
  bool ok = c && EVP_PKEY_fromdata_init(c) > 0 && EVP_PKEY_fromdata(c, &k->public, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)(uintptr_t)params) > 0;
  EVP_PKEY_CTX_free(c);
  return ok;
}

static const OSSL_PARAM *key_import_types(int selection) {
  static const OSSL_PARAM list[] = {OSSL_PARAM_octet_string(PARAM_KEY, NULL, 0), OSSL_PARAM_END};
  return list;
}

static const char *operation_rsa(int operation) { return "RSA"; }
static const char *operation_ec(int operation) { return operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC"; }

#define KEY_FUNCTIONS(new) \
  ENTRY(OSSL_FUNC_KEYMGMT_NEW, new), ENTRY(OSSL_FUNC_KEYMGMT_FREE, key_free), ENTRY(OSSL_FUNC_KEYMGMT_HAS, key_has), \
      ENTRY(OSSL_FUNC_KEYMGMT_MATCH, key_match), ENTRY(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params), \
      ENTRY(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable), ENTRY(OSSL_FUNC_KEYMGMT_IMPORT, key_import), \
      ENTRY(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, key_import_types)

static const OSSL_DISPATCH functions_rsa[] = {KEY_FUNCTIONS(new_rsa), {0, NULL}};
static const OSSL_DISPATCH functions_rsa_pss[] = {KEY_FUNCTIONS(new_rsa_pss), ENTRY(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, operation_rsa), {0, NULL}};
static const OSSL_DISPATCH functions_ec[] = {KEY_FUNCTIONS(new_ec), ENTRY(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, operation_ec), {0, NULL}};
static const OSSL_DISPATCH functions_ed25519[] = {KEY_FUNCTIONS(new_ed25519), {0, NULL}};
static const OSSL_DISPATCH functions_ed448[] = {KEY_FUNCTIONS(new_ed448), {0, NULL}};

static const OSSL_ALGORITHM keys[] = {{"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTY, functions_rsa, NULL},
    {"RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10", PROPERTY, functions_rsa_pss, NULL},
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTY, functions_ec, NULL}, {"ED25519:1.3.101.112", PROPERTY, functions_ed25519, NULL},
    {"ED448:1.3.101.113", PROPERTY, functions_ed448, NULL}, {NULL, NULL, NULL, NULL}};

/* --- signatures --- */

struct signing {
  struct keys_key *key; /* OpenSSL holds it as long */
  enum keys_digest digest;
  enum keys_padding padding;
  int salt;
};

static bool is_rsa(const struct keys_key *k) { return !strcmp(k->type, "RSA") || !strcmp(k->type, "RSA-PSS"); }
static bool is_ed(const struct keys_key *k) { return !strcmp(k->type, "ED25519") || !strcmp(k->type, "ED448"); }

static void *signing_new(void *provider, const char *properties) { return xcalloc(1, sizeof(struct signing)); }
static void signing_free(void *data) { free(data); }

static void *signing_dup(void *data) {
  struct signing *copy = xmalloc(sizeof *copy);
  memcpy(copy, data, sizeof *copy);
  return copy;
}

static int get_number(const OSSL_PARAM *p, int *ret, const char *const names[], const int *values, size_t n) {
  const char *text;
  if (p->data_type != OSSL_PARAM_UTF8_STRING)
    return OSSL_PARAM_get_int(p, ret);
  for (size_t i = 0; i < n && OSSL_PARAM_get_utf8_string_ptr(p, &text); i++)
    if (!strcasecmp(text, names[i])) {
      *ret = values[i];
      return 1;
    }
  return 0;
}

static int set_padding(struct signing *s, const OSSL_PARAM *p) {
  static const char *const names[] = {OSSL_PKEY_RSA_PAD_MODE_PKCSV15, OSSL_PKEY_RSA_PAD_MODE_PSS};
  static const int values[] = {RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING};
  int mode;
  if (!p)
    return 1;
  if (!is_rsa(s->key) || !get_number(p, &mode, names, values, 2) || (mode != values[0] && mode != values[1]))
    return 0;
  s->padding = mode == RSA_PKCS1_PSS_PADDING ? KEYS_PSS : KEYS_PKCS1;
  return 1;
}

static int set_salt(struct signing *s, const OSSL_PARAM *p) {
  static const char *const names[] = {OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST};
  static const int values[] = {RSA_PSS_SALTLEN_DIGEST};
  if (!p)
    return 1;
  if (p->data_type == OSSL_PARAM_UTF8_STRING) {
    const char *text;
    if (OSSL_PARAM_get_utf8_string_ptr(p, &text) && text[0] >= '0' && text[0] <= '9') {
      s->salt = (int)strtol(text, NULL, 10);
      return 1;
    }
  }
  return get_number(p, &s->salt, names, values, 1) && s->salt >= -1;
}

static int set_digest(struct signing *s, const OSSL_PARAM *p, bool mask) {
  const char *text;
  if (!p)
    return 1;
  enum keys_digest d = OSSL_PARAM_get_utf8_string_ptr(p, &text) ? keys_digest_of(text) : KEYS_NO_DIGEST;
  if (d == KEYS_NO_DIGEST || (mask && d != s->digest))
    return 0;
  s->digest = d;
  return 1;
}

static int signing_set_params(void *data, const OSSL_PARAM params[]) {
  struct signing *s = data;
  return !params || (set_digest(s, OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_DIGEST), false) &&
                        set_padding(s, OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE)) &&
                        set_salt(s, OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN)) &&
                        set_digest(s, OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_MGF1_DIGEST), true));
}

static const OSSL_PARAM *signing_settable(void *data, void *provider) {
  static const OSSL_PARAM list[] = {OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
      OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0), OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
      OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0), OSSL_PARAM_END};
  return list;
}

static int signing_begin(void *data, void *key, const OSSL_PARAM params[]) {
  struct signing *s = data;
  if (key)
    s->key = key;
  if (!s->key || !s->key->private)
    return 0;
  s->salt = RSA_PSS_SALTLEN_DIGEST;
  s->padding = !is_rsa(s->key) ? KEYS_NO_PADDING : strcmp(s->key->type, "RSA") ? KEYS_PSS : KEYS_PKCS1;
  return signing_set_params(s, params);
}

static int signing_begin_all(void *data, const char *digest, void *key, const OSSL_PARAM params[]) {
  struct signing *s = data;
  s->digest = keys_digest_of(digest);
  return signing_begin(data, key, params);
}

/* What OpenSSL's errors are to say. The queue is the thread's: what others left there meanwhile is not about this. */
static void raise_error(const char *text) {
  ERR_clear_error();
  ERR_raise_data(ERR_LIB_USER, ERR_R_OPERATION_FAIL, "%s", text);
}

static int ask(struct signing *s, unsigned char *to, size_t *ret_n, size_t size, const unsigned char *data, size_t n) {
  unsigned char answer[KEYS_ANSWER_MAX];
  char error[KEYS_ERROR_MAX];
  if (!to) {
    *ret_n = (size_t)EVP_PKEY_get_size(s->key->public);
    return 1;
  }
  struct keys_request r = {.op = KEYS_SIGN, .digest = s->digest, .padding = s->padding, .salt = s->salt, .file = str_c(s->key->file),
      .data = str_n((const char *)data, n)};
  memcpy(r.id, s->key->id, sizeof r.id);
  int got = n > KEYS_DATA_MAX ? -1 : keys_ask(&r, answer, error);
  if (n > KEYS_DATA_MAX)
    snprintf(error, sizeof error, "too long to be signed");
  if (got < 0 || (size_t)got > size) {
    raise_error(got < 0 ? error : "a signature that is too long");
    return 0;
  }
  ERR_clear_error();
  memcpy(to, answer, (size_t)got);
  *ret_n = (size_t)got;
  return 1;
}

static int signing_sign(void *data, unsigned char *to, size_t *ret_n, size_t size, const unsigned char *digest, size_t n) {
  struct signing *s = data;
  return !is_ed(s->key) && s->digest != KEYS_NO_DIGEST && ask(s, to, ret_n, size, digest, n);
}

static int signing_sign_all(void *data, unsigned char *to, size_t *ret_n, size_t size, const unsigned char *text, size_t n) {
  struct signing *s = data;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_n;
  if (!to || is_ed(s->key))
    return ask(s, to, ret_n, size, text, n);
  return s->digest != KEYS_NO_DIGEST &&
         EVP_Digest(text, n, digest, &digest_n, EVP_get_digestbyname(keys_digest_name(s->digest)), NULL) == 1 &&
         ask(s, to, ret_n, size, digest, digest_n);
}

#define SIGNING_FUNCTIONS \
  ENTRY(OSSL_FUNC_SIGNATURE_NEWCTX, signing_new), ENTRY(OSSL_FUNC_SIGNATURE_FREECTX, signing_free), \
      ENTRY(OSSL_FUNC_SIGNATURE_DUPCTX, signing_dup), ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, signing_begin_all), \
      ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, signing_sign_all)

static const OSSL_DISPATCH functions_digest[] = {SIGNING_FUNCTIONS, ENTRY(OSSL_FUNC_SIGNATURE_SIGN_INIT, signing_begin),
    ENTRY(OSSL_FUNC_SIGNATURE_SIGN, signing_sign), ENTRY(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, signing_set_params),
    ENTRY(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, signing_settable), {0, NULL}};
static const OSSL_DISPATCH functions_all[] = {SIGNING_FUNCTIONS, {0, NULL}};

static const OSSL_ALGORITHM signatures[] = {{"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTY, functions_digest, NULL},
    {"ECDSA", PROPERTY, functions_digest, NULL}, {"ED25519:1.3.101.112", PROPERTY, functions_all, NULL},
    {"ED448:1.3.101.113", PROPERTY, functions_all, NULL}, {NULL, NULL, NULL, NULL}};

/* --- the provider --- */

static const OSSL_ALGORITHM *query(void *provider, int operation, int *no_cache) {
  *no_cache = 0;
  return operation == OSSL_OP_KEYMGMT ? keys : operation == OSSL_OP_SIGNATURE ? signatures : NULL;
}

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provider) {
  static const OSSL_DISPATCH functions[] = {ENTRY(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query), {0, NULL}};
  static char context;
  *out = functions;
  *provider = &context;
  return 1;
}

/* Whoever asks for "RSA" without saying more gets the first that was looked up: it must be OpenSSL's own. */
static void look_up_ordinary(void) {
  for (const OSSL_ALGORITHM *k = keys; k->algorithm_names; k++) {
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(k->algorithm_names, ":"), k->algorithm_names);
    EVP_KEYMGMT_free(EVP_KEYMGMT_fetch(NULL, name, NULL));
  }
  static const char *const names[] = {"RSA", "ECDSA", "ED25519", "ED448"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    EVP_SIGNATURE_free(EVP_SIGNATURE_fetch(NULL, names[i], NULL));
}

bool keys_provider_load(void) {
  static bool loaded;
  if (loaded)
    return true;
  look_up_ordinary();
  loaded = OSSL_PROVIDER_add_builtin(NULL, NAME, provider_init) == 1 && OSSL_PROVIDER_try_load(NULL, NAME, 1) != NULL;
  return loaded;
}

EVP_PKEY *keys_provider_key(EVP_PKEY *public, struct str file, const unsigned char id[KEYS_ID_SIZE]) {
  struct parts parts = {public, file, id}, *p = &parts;
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(PARAM_KEY, &p, sizeof p), OSSL_PARAM_construct_end()};
  const char *type = EVP_PKEY_get0_type_name(public);
  EVP_PKEY *key = NULL;
  EVP_PKEY_CTX *c = type ? EVP_PKEY_CTX_new_from_name(NULL, type, PROPERTY) : NULL;
  if (c && EVP_PKEY_fromdata_init(c) > 0)
    (void)EVP_PKEY_fromdata(c, &key, EVP_PKEY_KEYPAIR, (OSSL_PARAM *)(uintptr_t)params);
  EVP_PKEY_CTX_free(c);
  return key;
}
