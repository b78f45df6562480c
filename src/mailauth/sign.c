#include "mailauth/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ascii.h"
#include "base/encode.h"
#include "base/fd_io.h"
#include "base/vec.h"
#include "tls/keys.h"
#include "tls/keys_store.h"

#define KEY_FILE_MAX 65536
#define COLUMN_MAX 78

/* ---- keys ---- */

static void free_key(void *arg) { EVP_PKEY_free(arg); }

static int read_file(struct ctx *c, struct str name, struct str *ret) {
  if (str_is_tainted(name))
    return ctx_fail(c, OUTCOME_ERROR, "Tainted filename '%.*s'", STRF(name));
  int fd = open(str_dup_c(c->arena, name), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat st;
  if (fd < 0)
    return ctx_fail(c, OUTCOME_ERROR, "unable to open file for reading: %.*s", STRF(name));
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > KEY_FILE_MAX) {
    close(fd);
    return ctx_fail(c, OUTCOME_ERROR, "no file that could hold a private key: %.*s", STRF(name));
  }
  char *p = arena_bytes(c->arena, (size_t)st.st_size + 1);
  ssize_t n = fd_read_all(fd, p, (size_t)st.st_size);
  close(fd);
  if (n < 0)
    return ctx_fail(c, OUTCOME_ERROR, "unable to read file: %.*s", STRF(name));
  *ret = str_n(p, (size_t)n);
  return 0;
}

/* With key_isolation: the key is in another process, which reads the file. */
static int load_isolated(struct ctx *c, struct str name, EVP_PKEY **ret) {
  char why[KEYS_ERROR_MAX];
  if (name.p[0] != '/')
    return ctx_fail(c, OUTCOME_ERROR, "with key_isolation a private key must be in a file");
  if (str_is_tainted(name))
    return ctx_fail(c, OUTCOME_ERROR, "Tainted filename '%.*s'", STRF(name));
  return keys_load(name, ret, why) < 0 ? ctx_fail(c, OUTCOME_ERROR, "private key %.*s: %s", STRF(name), why) : 0;
}

static int load(struct ctx *c, struct str s, EVP_PKEY **ret) {
  if (keys_isolated())
    return load_isolated(c, s, ret);
  int rc = s.p[0] == '/' ? read_file(c, s, &s) : 0;
  if (rc != 0)
    return rc;
  *ret = keys_parse(c->arena, s);
  return *ret ? 0 : ctx_fail(c, OUTCOME_ERROR, "the private key cannot be read");
}

int sign_key_load(struct ctx *c, struct str text, struct sign_key *ret) {
  struct str s = str_trim(text);
  if (s.len == 0 || str_eq_c(s, "0") || str_eq_c(s, "false"))
    return OUTCOME_FAIL;
  EVP_PKEY *key = NULL;
  int rc = load(c, s, &key);
  if (rc != 0)
    return rc;
  arena_cleanup(c->arena, free_key, key);
  bool rsa = EVP_PKEY_is_a(key, "RSA");
  if (!rsa && !EVP_PKEY_is_a(key, "ED25519"))
    return ctx_fail(c, OUTCOME_ERROR, "the private key is of a type that is not used in mail");
  *ret = (struct sign_key){key, rsa ? DKIM_RSA : DKIM_ED25519};
  return 0;
}

static size_t make(const struct sign_key *key, const EVP_MD *md, const unsigned char *digest, unsigned n, unsigned char *out, size_t size) {
  bool ok = false;
  if (key->type == DKIM_ED25519) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key->pkey) == 1 && EVP_DigestSign(ctx, out, &size, digest, n) == 1;
    EVP_MD_CTX_free(ctx);
  } else {
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key->pkey, NULL);
    ok = ctx && EVP_PKEY_sign_init(ctx) == 1 && EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1 &&
         EVP_PKEY_CTX_set_signature_md(ctx, md) == 1 && EVP_PKEY_sign(ctx, out, &size, digest, n) == 1;
    EVP_PKEY_CTX_free(ctx);
  }
  return ok ? size : 0;
}

struct str sign_make(struct arena *a, const struct sign_key *key, const EVP_MD *md, struct str data) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n;
  return EVP_Digest(data.p, data.len, digest, &n, md, NULL) == 1 ? sign_make_digest(a, key, md, digest, n) : STR_UNSET;
}

struct str sign_make_digest(struct arena *a, const struct sign_key *key, const EVP_MD *md, const unsigned char *digest, unsigned n) {
  size_t size = (size_t)EVP_PKEY_size(key->pkey);
  unsigned char *out = (unsigned char *)arena_bytes(a, size);
  size = make(key, md, digest, n, out, size);
  return size == 0 ? STR_UNSET : base64_encode(a, str_n((const char *)out, size));
}

/* ---- header fields ---- */

struct sign_fields sign_fields(struct arena *a, struct str head) {
  VEC(struct str) v = {0};
  size_t from = 0;
  while (from < head.len && head.p[from] != '\n') {
    size_t end = from;
    do {
      const char *nl = memchr(head.p + end, '\n', head.len - end);
      end = nl ? (size_t)(nl - head.p) + 1 : head.len;
    } while (end < head.len && (head.p[end] == ' ' || head.p[end] == '\t'));
    vec_push(a, &v, str_slice(head, from, end));
    from = end;
  }
  return (struct sign_fields){v.v, v.n};
}

static struct str name_of(struct str field) {
  ptrdiff_t colon = str_find_byte(field, ':');
  return str_rtrim(str_slice(field, 0, colon < 0 ? 0 : (size_t)colon));
}

static void add_name(struct buf *b, struct str name) {
  if (b->len > 0)
    buf_add_byte(b, ':');
  buf_add(b, name);
}

struct wanted {
  struct str name;
  char mark;    /* '=', '+' or 0 */
  bool used;
};

struct str sign_header_names(struct arena *a, const struct sign_fields *f, struct str list, bool missing) {
  VEC(struct wanted) v = {0};
  struct buf b;
  buf_init(&b, a, BUF_MAX_EXPANSION);
  while (str_is_set(list)) {
    struct str item = str_trim(str_cut(&list, ':'));
    char mark = item.len > 0 && (item.p[0] == '=' || item.p[0] == '+') ? item.p[0] : 0;
    if (mark)
      item = str_ltrim(str_from(item, 1));
    if (item.len > 0) {
      struct wanted w = {item, mark, false};
      vec_push(a, &v, w);
    }
  }
  for (size_t i = f->n; i-- > 0;) {
    struct str name = name_of(f->v[i]);
    for (size_t k = 0; k < v.n; k++)
      if ((v.v[k].mark || !v.v[k].used) && str_ieq(v.v[k].name, name)) {
        v.v[k].used = true;
        add_name(&b, name);
        break;
      }
  }
  for (size_t k = 0; k < v.n && missing; k++)
    if (v.v[k].mark == '+' || (!v.v[k].mark && !v.v[k].used))
      add_name(&b, v.v[k].name);
  return buf_str(&b);
}

/* ---- folding ---- */

static void put(struct sign_text *t, struct str s) {
  buf_add(t->out, s);
  t->column += s.len;
}

/* Text that stays together, on a new line if it must. */
static void put_whole(struct sign_text *t, struct str s) {
  if (t->column + s.len > COLUMN_MAX && t->column > 1) {
    buf_add_c(t->out, "\n\t");
    t->column = 1;
  }
  put(t, s);
}

void sign_text_open(struct sign_text *t, const char *tag, size_t with) {
  size_t n = strlen(tag);
  if (t->column + 1 + n + with > COLUMN_MAX && t->column > 1) {
    buf_add_c(t->out, "\n\t");
    t->column = 1;
  }
  if (t->column > 1)
    put(t, STR(" "));
  put(t, str_c(tag));
}

void sign_text_fill(struct sign_text *t, struct str value, const char *between) {
  while (value.len > 0) {
    size_t n = between == NULL ? value.len : 1;
    if (between != NULL && between[0] != 0)
      while (n < value.len && strchr(between, value.p[n - 1]) == NULL)
        n++;
    put_whole(t, str_slice(value, 0, n));
    value = str_from(value, n);
  }
}

void sign_text_end(struct sign_text *t) { put_whole(t, STR(";")); }

void sign_text_tag(struct sign_text *t, const char *tag, struct str value, const char *between) {
  /* A value that no line can hold begins where it is. */
  bool whole = (between == NULL || between[0] == 0) && strlen(tag) + value.len + 1 <= COLUMN_MAX;
  sign_text_open(t, tag, whole ? value.len : 0);
  if (whole)
    put(t, value);
  else
    sign_text_fill(t, value, between);
  sign_text_end(t);
}
