/* Contexts: made from the options in an offload thread, because files are read,
and kept until an option or a file is another one. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/buf.h"
#include "tls/keys.h"
#include "tls/ocsp.h"
#include "tls/resume.h"
#include "tls/tls_internal.h"

#define CACHE_MAX 64
#define FILES_MAX 32
#define KEYS_MAX 8 /* in a process of their own */
/* Files are looked at again after this time at the earliest. */
#define CHECK_EVERY USEC_PER_SEC
/* A certificate and its key are two files, which nobody can replace at once: what does not load any more is used as it was for so
long. Then it is an error. */
#define RENEWAL_GRACE (30 * USEC_PER_SEC)

struct watched {
  char *name;
  struct timespec mtime;
  off_t size;
  ino_t inode;
  bool exists;
};

struct entry {
  struct str key; /* all options, in our own memory */
  struct tls_context context;
  struct watched files[FILES_MAX];
  size_t files_n;
  usec_t checked, used;
  usec_t outdated; /* since when its files are others, which do not load; 0: they are as they were */
  char note[TLS_ERROR_MAX]; /* what was found out while it was made, not said yet */
  usec_t until; /* DEADLINE_NEVER, or when the made certificate must be made again */
};

static struct entry *cache[CACHE_MAX];

/* --- files --- */

static void watch_state(struct watched *w) {
  struct stat st;
  w->exists = stat(w->name, &st) == 0;
  if (!w->exists)
    return;
  w->mtime = st.st_mtim;
  w->size = st.st_size;
  w->inode = st.st_ino;
}

static bool watch_changed(const struct watched *w) {
  struct watched now = *w;
  watch_state(&now);
  return now.exists != w->exists || (now.exists && (now.mtime.tv_sec != w->mtime.tv_sec ||
      now.mtime.tv_nsec != w->mtime.tv_nsec || now.size != w->size || now.inode != w->inode));
}

/* --- making one, in an offload thread --- */

struct job {
  bool server;
  const struct tls_params *p;
  struct entry *entry;
  char *error;
  struct arena *a;
  EVP_PKEY *keys[KEYS_MAX]; /* with key_isolation: of p->private_key, in its order */
  size_t keys_n;
};

/* The file's name as a C string, noted for changes. NULL and an error: too many or
not usable. */
static const char *use_file(struct job *j, struct str name) {
  struct entry *e = j->entry;
  if (str_is_tainted(name)) {
    snprintf(j->error, TLS_ERROR_MAX, "tainted file name '%.*s' for TLS", STRF(name));
    return NULL;
  }
  if (name.len == 0 || name.p[0] != '/' || memchr(name.p, 0, name.len)) {
    snprintf(j->error, TLS_ERROR_MAX, "file name \"%.*s\" for TLS is not absolute", STRF(name));
    return NULL;
  }
  if (e->files_n == FILES_MAX) {
    snprintf(j->error, TLS_ERROR_MAX, "more than %d files for TLS", FILES_MAX);
    return NULL;
  }
  struct watched *w = &e->files[e->files_n++];
  w->name = xmalloc((size_t)name.len + 1);
  memcpy(w->name, name.p, name.len);
  w->name[name.len] = '\0';
  watch_state(w);
  return w->name;
}

static int file_error(struct job *j, const char *where, const char *name) {
  char place[400];
  snprintf(place, sizeof place, "%s file=%.300s", where, name);
  tls_error_text(j->error, place);
  return access(name, R_OK) < 0 ? -ENOENT : -EINVAL;
}

/* Cuts the next item of a colon list, without blanks around it. */
static struct str next_item(struct str *rest) { return str_trim(str_cut(rest, ':')); }

/* With key_isolation: a key that the keys process has. */
static bool use_isolated(struct job *j, SSL_CTX *ctx, size_t i) {
  return i < j->keys_n && SSL_CTX_use_PrivateKey(ctx, j->keys[i]);
}

static int load_certificates(struct job *j, SSL_CTX *ctx) {
  struct str certificates = j->p->certificate, keys = str_trim(j->p->private_key);
  bool have_keys = keys.len > 0;
  for (size_t i = 0; str_is_set(certificates) && certificates.len; i++) {
    struct str item = next_item(&certificates);
    struct str key_item = have_keys && str_is_set(keys) ? next_item(&keys) : item;
    const char *file = use_file(j, item);
    const char *key = file ? use_file(j, key_item) : NULL;
    if (!key)
      return -EINVAL;
    if (!SSL_CTX_use_certificate_chain_file(ctx, file))
      return file_error(j, "SSL_CTX_use_certificate_chain_file", file);
    /* A key of another kind than the certificate is only found by the check. */
    bool used = keys_isolated() ? use_isolated(j, ctx, i) : SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1;
    if (!used || !SSL_CTX_check_private_key(ctx))
      return file_error(j, "SSL_CTX_use_PrivateKey_file", key);
  }
  return 0;
}

/* A key that lies open protects nobody, wherever it is read. */
static void note_open_key(struct job *j, struct str file) {
  if (faccessat(AT_FDCWD, str_dup_c(j->a, file), R_OK, AT_EACCESS) == 0 && !j->entry->note[0])
    snprintf(j->entry->note, sizeof j->entry->note, "key_isolation: the private key %.*s can be read by workers, too", STRF(file));
}

/* Asks the keys process for the keys, one for each certificate. On the fiber. [suspends] */
static int load_isolated(struct job *j) {
  struct str certificates = j->p->certificate, keys = str_trim(j->p->private_key);
  char why[KEYS_ERROR_MAX];
  if (!keys_isolated() || !str_trim(certificates).len)
    return 0;
  if (!keys.len) {
    snprintf(j->error, TLS_ERROR_MAX, "key_isolation needs tls_privatekey: the file of a certificate is read here");
    return -EINVAL;
  }
  while (str_is_set(keys) && str_is_set(certificates)) {
    struct str item = next_item(&keys);
    (void)next_item(&certificates);
    if (j->keys_n == KEYS_MAX || str_is_tainted(item)) {
      snprintf(j->error, TLS_ERROR_MAX, "%s '%.*s' for TLS with key_isolation", j->keys_n == KEYS_MAX ? "too many private keys:" : "tainted file name",
          STRF(item));
      return -EINVAL;
    }
    int r = keys_load(item, &j->keys[j->keys_n], why);
    if (r < 0) {
      snprintf(j->error, TLS_ERROR_MAX, "(private key file=%.*s): %s", STRF(item), why);
      return r == -EINVAL ? r : -ENOENT;
    }
    j->keys_n++;
    note_open_key(j, item);
  }
  if (str_is_set(certificates) && str_trim(certificates).len) {
    snprintf(j->error, TLS_ERROR_MAX, "key_isolation needs a private key for each certificate");
    return -EINVAL;
  }
  return 0;
}

static void free_isolated(struct job *j) {
  for (size_t i = 0; i < j->keys_n; i++)
    EVP_PKEY_free(j->keys[i]);
}

/* "system" or a name; with ",cache" behind it, which we do for all. */
static struct str trust_name(const struct tls_params *p) {
  struct str name = str_trim(p->verify_certificates), end = STR(",cache");
  bool has = name.len > end.len && str_eq(str_from(name, name.len - end.len), end);
  return has ? str_trim(str_slice(name, 0, name.len - end.len)) : name;
}

/* Adds a file or a hashed directory to the trust store. */
static int load_trust(struct job *j, SSL_CTX *ctx, X509_STORE *store) {
  struct stat st;
  const char *name = use_file(j, trust_name(j->p));
  if (!name)
    return -EINVAL;
  if (stat(name, &st) < 0) {
    snprintf(j->error, TLS_ERROR_MAX, "failed to stat %s for certificates", name);
    return -ENOENT;
  }
  if (S_ISDIR(st.st_mode))
    return X509_STORE_load_path(store, name) ? 0 : file_error(j, "X509_STORE_load_path", name);
  if (!X509_STORE_load_file(store, name))
    return file_error(j, "X509_STORE_load_file", name);
  if (j->server) /* tells the clients which authorities are accepted */
    SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(name));
  return 0;
}

static int load_crl(struct job *j, X509_STORE *store) {
  struct stat st;
  const char *name = use_file(j, str_trim(j->p->crl));
  if (!name)
    return -EINVAL;
  if (stat(name, &st) < 0) {
    snprintf(j->error, TLS_ERROR_MAX, "failed to stat %s for certificates revocation lists", name);
    return -ENOENT;
  }
  if (S_ISDIR(st.st_mode)) {
    if (!X509_STORE_load_path(store, name))
      return file_error(j, "X509_STORE_load_path", name);
  } else if (X509_load_crl_file(X509_STORE_add_lookup(store, X509_LOOKUP_file()), name, X509_FILETYPE_PEM) <= 0) {
    return file_error(j, "X509_load_crl_file", name);
  }
  return X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) ? 0 : -EINVAL;
}

static int make_store(struct job *j, SSL_CTX *ctx) {
  const struct tls_params *p = j->p;
  X509_STORE *store = X509_STORE_new();
  j->entry->context.store = store;
  if (!store || !X509_STORE_set_default_paths(store))
    return -EINVAL;
  ERR_clear_error(); /* the system may have no certificates: no error */
  if (!str_eq_c(trust_name(p), "system")) {
    int r = load_trust(j, ctx, store);
    if (r < 0)
      return r;
  }
  if (str_trim(p->crl).len) {
    int r = load_crl(j, store);
    if (r < 0)
      return r;
  }
  SSL_CTX_set1_verify_cert_store(ctx, store);
  SSL_CTX_set1_chain_cert_store(ctx, store); /* what we present is completed from it, as Exim does */
  return 0;
}

/* What is sent with our certificates is found once, here: OpenSSL would search the trust store (the system's is a directory of
hundreds of files) in each handshake. */
static void build_chains(SSL_CTX *ctx) {
  const int flags = SSL_BUILD_CHAIN_FLAG_UNTRUSTED | SSL_BUILD_CHAIN_FLAG_IGNORE_ERROR | SSL_BUILD_CHAIN_FLAG_CLEAR_ERROR;
  for (int ok = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST); ok > 0; ok = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT)) {
    STACK_OF(X509) *given = NULL;
    if (!SSL_CTX_get0_chain_certs(ctx, &given) || sk_X509_num(given) <= 0)
      (void)SSL_CTX_build_cert_chain(ctx, flags);
  }
  SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
  ERR_clear_error();
}

/* tls_eccurve: a list of groups, or "auto" for the library's own. */
static int set_groups(struct job *j, SSL_CTX *ctx) {
  struct str groups = str_trim(j->p->groups);
  if (groups.len == 0)
    return 0;
  struct buf list;
  buf_init(&list, j->a, 1024);
  struct str rest = groups;
  while (str_is_set(rest)) {
    struct str item = next_item(&rest);
    if (str_ieq_c(item, "auto"))
      return 0;
    if (list.len && item.len)
      buf_add_byte(&list, ':');
    buf_add(&list, item);
  }
  if (!list.overflow && SSL_CTX_set1_groups_list(ctx, buf_str(&list).p))
    return 0;
  ERR_clear_error();
  snprintf(j->error, TLS_ERROR_MAX, "Unknown curve name in tls_eccurve '%.*s'", STRF(groups));
  return -EINVAL;
}

static int set_common(struct job *j, SSL_CTX *ctx) {
  uint64_t options;
  struct str bad;
  if (!tls_options_parse(j->p->openssl_options, &options, &bad)) {
    snprintf(j->error, TLS_ERROR_MAX, "openssl_options: unknown item '%.*s'", STRF(bad));
    return -EINVAL;
  }
  SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  /* A peer that closes without ceremony is at its end of file; SMTP and BDAT know whether that is too early. */
  SSL_CTX_set_options(ctx, options | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  if (options & SSL_OP_NO_TICKET)
    SSL_CTX_set_num_tickets(ctx, 0);
  /* Mail goes in clear where TLS fails: old keys are better than none. @SECLEVEL in the cipher list can change it. */
  SSL_CTX_set_security_level(ctx, 1);
  bool own_ciphers = str_trim(j->p->ciphers).len > 0, no_decryption = j->server && j->keys_n;
  const char *ciphers = own_ciphers ? tls_cipher_list(j->a, j->p->ciphers) : "DEFAULT";
  if (no_decryption) /* TLS 1.2 without a key exchange: such a key only signs */
    ciphers = str_printf(j->a, "%s:!kRSA", ciphers).p;
  if ((own_ciphers || no_decryption) && !SSL_CTX_set_cipher_list(ctx, ciphers)) {
    tls_error_text(j->error, "SSL_CTX_set_cipher_list");
    return -EINVAL;
  }
  return 0;
}

/* A proof that is not good, or not there, is not shown; the server works without. */
static int load_proofs(struct job *j, SSL_CTX *ctx) {
  struct str rest = j->p->ocsp_file;
  struct tls_proof *list = NULL;
  bool pem = false;
  while (str_is_set(rest) && rest.len) {
    struct str item = next_item(&rest);
    char why[TLS_ERROR_MAX];
    if (str_starts(item, STR("PEM ")) || str_starts(item, STR("DER "))) {
      pem = item.p[0] == 'P';
      item = str_trim(str_from(item, 4));
    }
    if (item.len == 0)
      continue;
    const char *file = use_file(j, item);
    struct tls_proof *one;
    if (!file) {
      tls_proofs_free(list);
      return -EINVAL;
    }
    tls_proof_load(ctx, j->entry->context.store, file, pem, &one, why, sizeof why);
    if (why[0] && !j->entry->note[0])
      memcpy(j->entry->note, why, sizeof why);
    if (one) {
      one->next = list;
      list = one;
    }
  }
  tls_proofs_use(ctx, list);
  return 0;
}

static int fill_context(struct job *j) {
  const struct tls_params *p = j->p;
  SSL_CTX *ctx = j->entry->context.ctx = SSL_CTX_new(j->server ? TLS_server_method() : TLS_client_method());
  if (!ctx)
    return -ENOMEM;
  int r = set_common(j, ctx);
  if (r == 0 && str_trim(p->certificate).len)
    r = load_certificates(j, ctx);
  else if (r == 0 && j->server && !tls_self_signed_use(ctx, p->self_signed_name, p->self_signed_lifetime, &j->entry->until))
    r = -EINVAL;
  if (r == 0 && str_trim(p->verify_certificates).len)
    r = make_store(j, ctx);
  if (r == 0)
    build_chains(ctx);
  if (r == 0)
    r = set_groups(j, ctx);
  if (r == 0 && j->server) {
    if (!tls_dh_use(ctx, p->dhparam, p->dh_max_bits, j->error))
      r = -EINVAL;
    tls_session_callbacks(ctx);
    tls_tickets_use(ctx);
    if (r == 0 && !tls_tickets_digest_certificates(&j->entry->context))
      r = -ENOMEM;
    if (r == 0)
      r = load_proofs(j, ctx);
  }
  if (r == 0 && !j->server && SSL_CTX_dane_enable(ctx) <= 0) /* it costs nothing where no records are given */
    r = -ENOMEM;
  if (r == 0 && !j->server)
    tls_proofs_watch(ctx);
  if (r == 0 && !j->server)
    tls_tickets_collect(ctx);
  return r;
}

static int make_context(void *arg) {
  struct job *j = arg;
  ERR_clear_error();
  j->error[0] = '\0';
  j->entry->until = DEADLINE_NEVER;
  j->a = arena_new("tls context");
  int r = fill_context(j);
  if (r < 0 && !j->error[0])
    tls_error_text(j->error, "tls context");
  arena_free(j->a);
  return r;
}

/* --- the cache --- */

static void entry_free(struct entry *e) {
  tls_context_release(&e->context);
  for (size_t i = 0; i < e->files_n; i++)
    free(e->files[i].name);
  free((char *)(uintptr_t)e->key.p);
  free(e);
}

static void add_part(struct buf *b, struct str s) {
  buf_printf(b, "%u.%u:", s.len, str_is_tainted(s));
  buf_add_n(b, s.p, s.len);
}

/* All that a context is made of, in one string. */
static struct str key_of(struct arena *a, bool server, const struct tls_params *p) {
  struct buf b;
  buf_init(&b, a, 1u << 20);
  const struct str common[] = {p->certificate, p->private_key, p->ciphers, p->verify_certificates, p->crl,
      p->openssl_options, p->groups};
  buf_printf(&b, "%d", server);
  for (size_t i = 0; i < sizeof common / sizeof *common; i++)
    add_part(&b, common[i]);
  if (server) {
    add_part(&b, p->dhparam);
    add_part(&b, p->ocsp_file);
    add_part(&b, p->self_signed_name);
    buf_printf(&b, "%lld %d", (long long)p->dh_max_bits, p->self_signed_lifetime);
  }
  return buf_str(&b);
}

static bool entry_fresh(struct entry *e) {
  usec_t now = loop_now_fresh();
  if (now >= e->until)
    return false;
  if (now - e->checked < CHECK_EVERY)
    return true;
  for (size_t i = 0; i < e->files_n; i++)
    if (watch_changed(&e->files[i]))
      return false;
  e->checked = now;
  return true;
}

/* The place of the entry with this key, or CACHE_MAX. */
static size_t cache_place(struct str key) {
  size_t i = 0;
  while (i < CACHE_MAX && !(cache[i] && str_eq(cache[i]->key, key)))
    i++;
  return i;
}

static struct entry *cache_find(struct str key) {
  size_t i = cache_place(key);
  return i < CACHE_MAX && entry_fresh(cache[i]) ? cache[i] : NULL;
}

/* Its files have changed and cannot be used: the entry goes on for a while. NULL: no more. */
static struct entry *cache_outdated(struct str key) {
  size_t i = cache_place(key);
  if (i == CACHE_MAX)
    return NULL;
  struct entry *e = cache[i];
  usec_t now = loop_now_fresh();
  if (e->outdated == 0)
    e->outdated = now;
  if (now < e->until && now - e->outdated < RENEWAL_GRACE) {
    e->checked = now;
    return e;
  }
  entry_free(e);
  cache[i] = NULL;
  return NULL;
}

/* Takes the place of the one it replaces, a free one, or that of the one not used for longest. */
static void cache_add(struct entry *e) {
  size_t place = cache_place(e->key), from = place == CACHE_MAX ? 0 : CACHE_MAX;
  place = place == CACHE_MAX ? 0 : place;
  for (size_t i = from; i < CACHE_MAX && cache[place]; i++)
    if (!cache[i] || cache[i]->used < cache[place]->used)
      place = i;
  if (cache[place])
    entry_free(cache[place]);
  cache[place] = e;
}

static void hand_out(struct entry *e, struct tls_context *ret) {
  e->used = loop_now_fresh();
  *ret = e->context;
  SSL_CTX_up_ref(ret->ctx);
  if (ret->store)
    X509_STORE_up_ref(ret->store);
}

/* Makes the context and keeps it. */
static int cache_fill(bool server, const struct tls_params *p, struct str key, struct entry **ret, char error[TLS_ERROR_MAX]) {
  struct entry *e = xcalloc(1, sizeof *e);
  char *copy = xmalloc((size_t)key.len + 1);
  memcpy(copy, key.p, key.len);
  e->key = str_n(copy, key.len);
  e->checked = loop_now_fresh(); /* before the files are read */
  struct job job = {.server = server, .p = p, .entry = e, .error = error};
  error[0] = '\0';
  job.a = arena_new("tls keys");
  int r = load_isolated(&job);
  arena_free(job.a);
  if (r == 0)
    r = fiber_offload(make_context, &job);
  free_isolated(&job);
  if (r < 0) {
    entry_free(e);
    *ret = cache_outdated(key);
    if (*ret)
      error[0] = '\0';
    return *ret ? 0 : r;
  }
  cache_add(e);
  *ret = e;
  return 0;
}

/* Only one fiber makes a context, however many sessions begin together: the others wait and find it in the cache. */
static struct fiber_sem *maker(struct str key) {
  static struct fiber_sem makers[16];
  static bool ready;
  for (size_t i = 0; !ready && i < sizeof makers / sizeof *makers; i++)
    fiber_sem_init(&makers[i], 1);
  ready = true;
  return &makers[str_hash(key) % (sizeof makers / sizeof *makers)];
}

int tls_context_get(bool server, const struct tls_params *p, struct tls_context *ret, char error[TLS_ERROR_MAX]) {
  struct arena *a = arena_new("tls key");
  struct str key = key_of(a, server, p);
  struct entry *e = cache_find(key);
  int r = 0;
  if (!e) {
    struct fiber_sem *mine = maker(key);
    r = fiber_sem_acquire(mine, DEADLINE_NEVER);
    if (r == 0) {
      e = cache_find(key);
      r = e ? 0 : cache_fill(server, p, key, &e, error);
      fiber_sem_release(mine);
    } else {
      snprintf(error, TLS_ERROR_MAX, "given up while waiting for the certificates");
    }
  }
  if (r == 0)
    hand_out(e, ret);
  if (r == 0 && e->note[0] && p->on_config_note) {
    char note[TLS_ERROR_MAX];
    memcpy(note, e->note, sizeof note);
    e->note[0] = '\0';
    p->on_config_note(p->arg, str_c(note));
  }
  arena_free(a);
  return r;
}

void tls_context_release(struct tls_context *c) {
  SSL_CTX_free(c->ctx);
  X509_STORE_free(c->store);
  *c = (struct tls_context){0};
}

void tls_cache_clear(void) {
  for (size_t i = 0; i < CACHE_MAX; i++) {
    if (cache[i])
      entry_free(cache[i]);
    cache[i] = NULL;
  }
  tls_self_signed_clear();
}

int tls_server_check(const struct tls_params *p, struct arena *a, struct str *ret_error) {
  char error[TLS_ERROR_MAX];
  struct tls_context c;
  int r = tls_context_get(true, p, &c, error);
  if (r < 0)
    *ret_error = str_dup(a, str_c(error));
  else
    tls_context_release(&c);
  return r;
}
