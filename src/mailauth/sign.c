#include "mailauth/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ascii.h"
#include "base/encode.h"
#include "base/vec.h"

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
  ssize_t n = read(fd, p, (size_t)st.st_size);
  close(fd);
  if (n < 0)
    return ctx_fail(c, OUTCOME_ERROR, "unable to read file: %.*s", STRF(name));
  *ret = str_n(p, (size_t)n);
  return 0;
}

static int no_passphrase(char *buf, int size, int rw, void *arg) { return -1; }

static EVP_PKEY *parse_key(struct arena *a, struct str text) {
  if (str_find(text, STR("-----BEGIN")) >= 0) {
    BIO *bio = BIO_new_mem_buf(text.p, (int)text.len);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    return key;
  }
  struct str der;
  if (!base64_decode(a, text, false, &der))
    return NULL;
  if (der.len == 32)
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)der.p, der.len);
  const unsigned char *p = (const unsigned char *)der.p;
  return d2i_AutoPrivateKey(NULL, &p, (long)der.len);
}

int sign_key_load(struct ctx *c, struct str text, struct sign_key *ret) {
  struct str s = str_trim(text);
  if (s.len == 0 || str_eq_c(s, "0") || str_eq_c(s, "false"))
    return OUTCOME_FAIL;
  if (s.p[0] == '/') {
    int rc = read_file(c, s, &s);
    if (rc != 0)
      return rc;
  }
  EVP_PKEY *key = parse_key(c->arena, s);
  if (key == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "the private key cannot be read");
  arena_cleanup(c->arena, free_key, key);
  int type = EVP_PKEY_base_id(key);
  if (type != EVP_PKEY_RSA && type != EVP_PKEY_ED25519)
    return ctx_fail(c, OUTCOME_ERROR, "the private key is of a type that is not used in mail");
  *ret = (struct sign_key){key, type == EVP_PKEY_RSA ? DKIM_RSA : DKIM_ED25519};
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
