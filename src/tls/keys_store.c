#include "tls/keys_store.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/encode.h"
#include "base/fd_io.h"
#include "base/vec.h"

#define KEYS_MAX 1024
#define KEY_FILE_MAX 65536

struct allowed {
  struct str name;
  bool prefix;
};

/* One that was read. When its file has another the old one stays for a while: there are contexts with its certificate. */
struct kept {
  char *file;
  EVP_PKEY *key;
  unsigned char id[KEYS_ID_SIZE];
  struct timespec mtime, ctime;
  off_t size;
  ino_t inode;
  uint64_t used;
};

struct keys_store {
  struct arena *a;
  VEC(struct allowed) allowed;
  pthread_mutex_t mutex; /* of what follows */
  struct kept kept[KEYS_MAX];
  size_t kept_n;
  uint64_t clock;
};

struct keys_store *keys_store_new(void) {
  struct keys_store *s = xcalloc(1, sizeof *s);
  s->a = arena_new("keys");
  pthread_mutex_init(&s->mutex, NULL);
  return s;
}

static void drop(struct kept *k) {
  free(k->file);
  EVP_PKEY_free(k->key);
  *k = (struct kept){0};
}

void keys_store_free(struct keys_store *s) {
  for (size_t i = 0; i < s->kept_n; i++)
    drop(&s->kept[i]);
  pthread_mutex_destroy(&s->mutex);
  arena_free(s->a);
  free(s);
}

/* --- names --- */

/* Absolute, and no way up or around in it. */
static bool plain_name(struct str name, bool prefix) {
  if (name.len < 2 || name.len > KEYS_NAME_MAX || name.p[0] != '/' || memchr(name.p, 0, name.len))
    return false;
  struct str rest = str_from(name, 1);
  while (str_is_set(rest)) {
    struct str part = str_cut(&rest, '/');
    if (str_eq_c(part, ".") || str_eq_c(part, "..") || (part.len == 0 && !(prefix && !str_is_set(rest))))
      return false;
  }
  return true;
}

bool keys_store_allow(struct keys_store *s, struct str name, bool prefix) {
  /* "/" and something expanded would be every file there is. */
  if (!plain_name(name, prefix) || (prefix && str_find_byte(str_from(name, 1), '/') < 0))
    return false;
  struct allowed one = {str_dup(s->a, name), prefix};
  vec_push(s->a, &s->allowed, one);
  return true;
}

bool keys_store_allows(const struct keys_store *s, struct str file) {
  if (!plain_name(file, false))
    return false;
  for (size_t i = 0; i < s->allowed.n; i++) {
    const struct allowed *w = &s->allowed.v[i];
    if (w->prefix ? str_starts(file, w->name) && file.len > w->name.len : str_eq(file, w->name))
      return true;
  }
  return false;
}

static bool in_name(char c) { return c > ' ' && !strchr("$:{}\"'\\,;<>|", c); }

void keys_names_in(struct str text, void (*fn)(void *arg, struct str name, bool prefix), void *arg) {
  for (size_t i = 0; str_is_set(text) && i < text.len; i++) {
    size_t end = i;
    while (end < text.len && in_name(text.p[end]))
      end++;
    if (text.p[i] == '/' && end > i + 1)
      fn(arg, str_slice(text, i, end), end < text.len && text.p[end] == '$');
    if (end > i)
      i = end - 1;
  }
}

/* --- keys --- */

static int no_passphrase(char *buf, int size, int rw, void *arg) { return -1; }

EVP_PKEY *keys_parse(struct arena *a, struct str text) {
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

size_t keys_public(EVP_PKEY *key, unsigned char **ret, unsigned char id[KEYS_ID_SIZE]) {
  *ret = NULL;
  int n = i2d_PUBKEY(key, ret);
  if (n > 0)
    SHA256(*ret, (size_t)n, id);
  return n > 0 ? (size_t)n : 0;
}

struct reading {
  char *file;
  struct stat st;
  const char *why; /* it cannot be read */
};

static bool same_file(const struct kept *k, const struct stat *st) {
  return k->size == st->st_size && k->inode == st->st_ino && k->mtime.tv_sec == st->st_mtim.tv_sec && k->mtime.tv_nsec == st->st_mtim.tv_nsec &&
         k->ctime.tv_sec == st->st_ctim.tv_sec && k->ctime.tv_nsec == st->st_ctim.tv_nsec;
}

static EVP_PKEY *read_key(struct reading *r) {
  int fd = open(r->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    r->why = strerrordesc_np(errno);
    return NULL;
  }
  struct arena *a = arena_new_secret("key file");
  EVP_PKEY *key = NULL;
  r->why = "no file that could hold a private key";
  if (fstat(fd, &r->st) == 0 && S_ISREG(r->st.st_mode) && r->st.st_size <= KEY_FILE_MAX) {
    char *p = arena_bytes(a, (size_t)r->st.st_size + 1);
    ssize_t n = fd_read_all(fd, p, (size_t)r->st.st_size);
    key = n > 0 ? keys_parse(a, str_trim(str_n(p, (size_t)n))) : NULL;
    r->why = "no private key, or one with a passphrase";
  }
  close(fd);
  ERR_clear_error();
  arena_free(a);
  return key;
}

/* The place of a key that is not there yet; the one not used for longest goes. Locked. */
static struct kept *place(struct keys_store *s) {
  if (s->kept_n < KEYS_MAX)
    return &s->kept[s->kept_n++];
  struct kept *oldest = s->kept;
  for (size_t i = 1; i < KEYS_MAX; i++)
    if (s->kept[i].used < oldest->used)
      oldest = &s->kept[i];
  drop(oldest);
  return oldest;
}

static void keep(struct keys_store *s, const struct reading *r, EVP_PKEY *key, const unsigned char *id) {
  pthread_mutex_lock(&s->mutex);
  struct kept *k = NULL;
  for (size_t i = 0; i < s->kept_n && !k; i++)
    if (!strcmp(s->kept[i].file, r->file) && !memcmp(s->kept[i].id, id, KEYS_ID_SIZE))
      k = &s->kept[i];
  if (!k) {
    k = place(s);
    k->file = xstrdup(r->file);
    memcpy(k->id, id, KEYS_ID_SIZE);
    EVP_PKEY_up_ref(key);
    k->key = key;
  }
  k->mtime = r->st.st_mtim;
  k->ctime = r->st.st_ctim;
  k->size = r->st.st_size;
  k->inode = r->st.st_ino;
  k->used = ++s->clock;
  pthread_mutex_unlock(&s->mutex);
}

void keys_store_add(struct keys_store *s, const char *file, EVP_PKEY *key, const unsigned char id[KEYS_ID_SIZE]) {
  struct reading r = {.file = (char *)(uintptr_t)file};
  keep(s, &r, key, id);
}

/* The key of this file: with this id, or as the file is now (id NULL). The caller frees it. */
static EVP_PKEY *find(struct keys_store *s, const char *file, const unsigned char *id, const struct stat *st) {
  EVP_PKEY *key = NULL;
  pthread_mutex_lock(&s->mutex);
  for (size_t i = 0; i < s->kept_n && !key; i++) {
    struct kept *k = &s->kept[i];
    if (!strcmp(k->file, file) && (id ? !memcmp(k->id, id, KEYS_ID_SIZE) : same_file(k, st))) {
      k->used = ++s->clock;
      key = k->key;
      EVP_PKEY_up_ref(key);
    }
  }
  pthread_mutex_unlock(&s->mutex);
  return key;
}

static EVP_PKEY *load(struct keys_store *s, struct reading *r, unsigned char **ret_public, size_t *ret_n) {
  unsigned char id[KEYS_ID_SIZE];
  EVP_PKEY *key = stat(r->file, &r->st) == 0 ? find(s, r->file, NULL, &r->st) : NULL;
  bool fresh = key == NULL;
  if (fresh && (key = read_key(r)) == NULL)
    return NULL;
  *ret_n = keys_public(key, ret_public, id);
  if (*ret_n == 0 || *ret_n > KEYS_ANSWER_MAX) {
    OPENSSL_free(*ret_public);
    EVP_PKEY_free(key);
    r->why = "a key of a kind that cannot be used";
    return NULL;
  }
  if (fresh)
    keep(s, r, key, id);
  return key;
}

/* --- signatures --- */

static size_t sign_digest(EVP_PKEY *key, const struct keys_request *q, unsigned char *to, size_t size) {
  bool rsa = EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS");
  const EVP_MD *md = q->digest ? EVP_get_digestbyname(keys_digest_name(q->digest)) : NULL;
  /* A signature of what is no digest could be something else, or tell of the key. */
  if (!md || (int)q->data.len != EVP_MD_get_size(md) || rsa != (q->padding != KEYS_NO_PADDING))
    return 0;
  EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(key, NULL);
  bool ok = c && EVP_PKEY_sign_init(c) > 0 && EVP_PKEY_CTX_set_signature_md(c, md) > 0;
  if (rsa)
    ok = ok && EVP_PKEY_CTX_set_rsa_padding(c, q->padding == KEYS_PSS ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) > 0;
  if (q->padding == KEYS_PSS)
    ok = ok && EVP_PKEY_CTX_set_rsa_pss_saltlen(c, q->salt) > 0 && EVP_PKEY_CTX_set_rsa_mgf1_md(c, md) > 0;
  ok = ok && EVP_PKEY_sign(c, to, &size, (const unsigned char *)q->data.p, q->data.len) > 0;
  EVP_PKEY_CTX_free(c);
  return ok ? size : 0;
}

static size_t sign_all(EVP_PKEY *key, const struct keys_request *q, unsigned char *to, size_t size) {
  if (q->digest != KEYS_NO_DIGEST || q->padding != KEYS_NO_PADDING)
    return 0;
  EVP_MD_CTX *c = EVP_MD_CTX_new();
  bool ok = c && EVP_DigestSignInit(c, NULL, NULL, NULL, key) > 0 &&
            EVP_DigestSign(c, to, &size, (const unsigned char *)q->data.p, q->data.len) > 0;
  EVP_MD_CTX_free(c);
  return ok ? size : 0;
}

static size_t sign(struct keys_store *s, struct reading *r, const struct keys_request *q, unsigned char to[KEYS_ANSWER_MAX]) {
  unsigned char *public = NULL;
  size_t n = 0;
  EVP_PKEY *key = find(s, r->file, q->id, NULL);
  if (!key) { /* this process is a new one, or has had many others in between */
    key = load(s, r, &public, &n);
    OPENSSL_free(public);
    EVP_PKEY_free(key);
    if (!key)
      return 0;
    key = find(s, r->file, q->id, NULL);
  }
  r->why = "the file has another key now";
  if (!key)
    return 0;
  r->why = "no such signature can be made with this key";
  bool ed = EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448");
  n = ed ? sign_all(key, q, to, KEYS_ANSWER_MAX) : sign_digest(key, q, to, KEYS_ANSWER_MAX);
  ERR_clear_error();
  EVP_PKEY_free(key);
  return n;
}

size_t keys_store_serve(struct keys_store *s, const unsigned char *request, size_t n, unsigned char to[KEYS_REPLY_MAX]) {
  struct keys_request q;
  if (!keys_request_read(request, n, &q))
    return 0;
  struct keys_answer head = {.number = q.number};
  struct reading r = {.why = "not among the files that the configuration names"};
  unsigned char *public = NULL, *body = to + sizeof head;
  size_t size = 0;
  if (keys_store_allows(s, q.file)) {
    r.file = xmalloc(q.file.len + 1u);
    memcpy(r.file, q.file.p, q.file.len);
    r.file[q.file.len] = '\0';
    if (q.op == KEYS_SIGN) {
      size = sign(s, &r, &q, body);
    } else {
      EVP_PKEY *key = load(s, &r, &public, &size);
      if (key)
        memcpy(body, public, size);
      OPENSSL_free(key ? public : NULL);
      EVP_PKEY_free(key);
    }
    free(r.file);
  }
  head.failed = size == 0;
  if (size == 0) {
    size = strlen(r.why);
    memcpy(body, r.why, size);
  }
  memcpy(to, &head, sizeof head);
  return sizeof head + size;
}
