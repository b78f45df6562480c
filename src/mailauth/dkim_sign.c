/* DKIM signatures for messages that go out (Exim manual, section "Signing
outgoing messages"; RFC 6376, section 5; RFC 8463). */
#include <time.h>

#include "base/encode.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/sign.h"
#include "match/match.h"

#define SIGNATURES_MAX 20

struct dkim_sign {
  struct str domain, selector, identity, names;
  struct sign_key key;
  const char *hash_name;
  const EVP_MD *md;
  enum canon canon;
  struct body_hash *hash;
  int64_t created, expires; /* DKIM_NO_TIME: no such tag */
  struct dkim_sign *next;
};

static int failed(struct ctx *c, const char *option) {
  c->error = str_printf(c->arena, "failed to expand %s: %.*s", option, STRF(c->error));
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
  return OUTCOME_ERROR;
}

static int cannot(struct ctx *c) {
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
  return OUTCOME_ERROR;
}

/* Unset and empty are the same here, and so is a forced failure. */
static int value_of(struct ctx *c, const struct option_expr *o, const char *name, struct str *ret) {
  struct str value = STR_UNSET;
  *ret = STR_EMPTY;
  int rc = expand_option(c, o, &value);
  if (rc != 0 && rc != OUTCOME_FORCED)
    return failed(c, name);
  if (rc == 0 && str_is_set(value))
    *ret = value;
  return 0;
}

static bool is_true(struct str s) { return str_eq_c(s, "1") || str_ieq_c(s, "true"); }

bool dkim_sign_is_strict(struct ctx *c, const struct dkim_sign_options *o) {
  struct str value, error = c->error;
  int rc = expand_option(c, &o->strict, &value);
  c->error = error;
  return rc == 0 && str_is_set(value) && is_true(value);
}

static int take_canon(struct ctx *c, const struct dkim_sign_options *o, struct dkim_sign *d) {
  struct str value;
  int rc = value_of(c, &o->canon, "dkim_canon", &value);
  d->canon = str_eq_c(value, "simple") ? CANON_SIMPLE : CANON_RELAXED;
  if (rc == 0 && value.len > 0 && d->canon == CANON_RELAXED && !str_eq_c(value, "relaxed"))
    log_write(LOG_MAIN, c->message, "DKIM: unknown canonicalization method '%.*s', defaulting to 'relaxed'.", STRF(value));
  return rc;
}

static int take_hash(struct ctx *c, const struct dkim_sign_options *o, struct dkim_sign *d) {
  static const char *const names[] = {"sha256", "sha512", "sha1"};
  struct str value;
  int rc = value_of(c, &o->hash, "dkim_hash", &value);
  if (rc != 0)
    return rc;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (value.len == 0 ? i == 0 : str_eq_c(value, names[i]))
      d->hash_name = names[i];
  if (d->hash_name == NULL) {
    c->error = str_printf(c->arena, "DKIM: unrecognised hashname '%.*s'", STRF(value));
    return cannot(c);
  }
  if (d->key.type == DKIM_ED25519 && strcmp(d->hash_name, "sha1") == 0) {
    c->error = STR("DKIM: Ed25519 keys do not go with sha1");
    return cannot(c);
  }
  d->md = EVP_get_digestbyname(d->hash_name);
  return 0;
}

static int take_times(struct ctx *c, const struct dkim_sign_options *o, struct dkim_sign *d) {
  struct str value;
  uint64_t n;
  int rc = value_of(c, &o->timestamps, "dkim_timestamps", &value);
  d->created = d->expires = DKIM_NO_TIME;
  value = str_trim(value);
  if (rc != 0 || value.len == 0)
    return rc;
  if (!str_to_u64(value, &n) || n > 1000000000) {
    c->error = str_printf(c->arena, "DKIM: \"%.*s\" is no number of seconds for dkim_timestamps", STRF(value));
    return cannot(c);
  }
  d->created = time(NULL);
  if (n > 0)
    d->expires = d->created + (int64_t)n;
  return 0;
}

/* One domain with one selector. *ret is NULL when there is no key for them. */
static int prepare_one(struct sign_job *j, const struct dkim_sign_options *o, struct dkim_sign **ret) {
  struct ctx *c = j->c;
  struct dkim_sign *d = arena_new_of(c->arena, struct dkim_sign);
  struct str key;
  d->domain = c->vars.signing_domain;
  d->selector = c->vars.signing_selector;
  *ret = NULL;
  int rc = take_canon(c, o, d);
  if (rc != 0 || (rc = value_of(c, &o->private_key, "dkim_private_key", &key)) != 0)
    return rc;
  rc = sign_key_load(c, key, &d->key);
  if (rc != 0)
    return rc == OUTCOME_FAIL ? 0 : cannot(c);
  if ((rc = value_of(c, &o->sign_headers, "dkim_sign_headers", &d->names)) != 0 || (rc = take_hash(c, o, d)) != 0 ||
      (rc = value_of(c, &o->identity, "dkim_identity", &d->identity)) != 0 || (rc = take_times(c, o, d)) != 0)
    return rc;
  d->hash = body_hash_want(&j->hashes, d->md, d->canon, DKIM_BODY_ALL);
  if (d->hash == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "DKIM: too many different hashes");
  *ret = d;
  return 0;
}

static int prepare_domain(struct sign_job *j, const struct dkim_sign_options *o, struct dkim_sign ***end, int *n) {
  struct ctx *c = j->c;
  struct str selectors;
  struct list_iter iter;
  int rc = value_of(c, &o->selector, "dkim_selector", &selectors);
  if (rc != 0)
    return rc;
  list_iter_init(&iter, c->arena, selectors);
  while (list_next(&iter, &c->vars.signing_selector)) {
    if (c->vars.signing_selector.len == 0)
      continue;
    if (++*n > SIGNATURES_MAX) {
      c->error = STR("DKIM: too many signatures for one message");
      return cannot(c);
    }
    if ((rc = prepare_one(j, o, *end)) != 0)
      return rc;
    if (**end != NULL) {
      struct dkim_sign *d = **end;
      j->label = str_printf(c->arena, "%.*s%s%.*s:%.*s", STRF(j->label), j->label.len ? ":" : "", STRF(d->domain), STRF(d->selector));
      *end = &d->next;
    }
  }
  return 0;
}

int dkim_sign_prepare(struct sign_job *j, const struct dkim_sign_options *o, struct dkim_sign **ret) {
  struct ctx *c = j->c;
  struct str domains, item;
  struct list_iter iter;
  int n = 0;
  *ret = NULL;
  if (!str_is_set(o->domain.text))
    return 0;
  int rc = value_of(c, &o->domain, "dkim_domain", &domains);
  if (rc != 0)
    return rc;
  list_iter_init(&iter, c->arena, domains);
  while (rc == 0 && list_next(&iter, &item)) {
    if (item.len == 0)
      continue;
    c->vars.signing_domain = str_lower(c->arena, item);
    rc = prepare_domain(j, o, &ret, &n);
  }
  c->vars.signing_domain = c->vars.signing_selector = STR_UNSET;
  return rc;
}

static void add_time(struct sign_text *t, struct arena *a, const char *tag, int64_t when) {
  if (when != DKIM_NO_TIME)
    sign_text_tag(t, tag, str_printf(a, "%lld", (long long)when), NULL);
}

static void add_tags(struct arena *a, const struct dkim_sign *d, struct str names, struct sign_text *t) {
  struct str name = STR("DKIM-Signature:");
  buf_add(t->out, name);
  t->column = name.len;
  sign_text_tag(t, "v=", STR("1"), NULL);
  sign_text_tag(t, "a=", str_printf(a, "%s-%s", d->key.type == DKIM_RSA ? "rsa" : "ed25519", d->hash_name), NULL);
  sign_text_tag(t, "q=", STR("dns/txt"), NULL);
  sign_text_tag(t, "c=", d->canon == CANON_RELAXED ? STR("relaxed/relaxed") : STR("simple/simple"), NULL);
  sign_text_tag(t, "d=", d->domain, NULL);
  sign_text_tag(t, "s=", d->selector, NULL);
  sign_text_tag(t, "h=", names, ":");
  sign_text_tag(t, "bh=", base64_encode(a, str_n((const char *)d->hash->digest, d->hash->digest_n)), "");
  if (d->identity.len > 0)
    sign_text_tag(t, "i=", d->identity, NULL);
  add_time(t, a, "t=", d->created);
  add_time(t, a, "x=", d->expires);
  sign_text_open(t, "b=", 0);
}

static bool add_field(struct sign_job *j, const struct dkim_sign *d, const struct sign_fields *f, struct header_index *index,
    struct buf *out) {
  struct arena *a = j->c->arena;
  struct str names = sign_header_names(a, f, d->names.len > 0 ? d->names : STR(SIGN_DEFAULT_HEADERS), true);
  struct sign_text t = {out, 0};
  struct buf data;
  size_t from = out->len;
  add_tags(a, d, names, &t);
  buf_init(&data, a, BUF_MAX_EXPANSION);
  header_index_select(index, names, d->canon, &data);
  /* The field itself, with nothing between "b=" and ";". */
  canon_header(d->canon, str_cat(a, str_from(buf_str(out), from), STR(";")), false, &data);
  struct str value = data.overflow || out->overflow ? STR_UNSET : sign_make(a, &d->key, d->md, buf_str(&data));
  if (!str_is_set(value))
    return false;
  sign_text_fill(&t, value, "");
  sign_text_end(&t);
  buf_add_byte(out, '\n');
  return true;
}

struct str dkim_sign_fields(struct sign_job *j, const struct dkim_sign *first, const struct sign_fields *f) {
  struct ctx *c = j->c;
  struct header_index *index = header_index_new(c->arena, f->v, f->n);
  struct buf out;
  buf_init(&out, c->arena, BUF_MAX_EXPANSION);
  for (const struct dkim_sign *d = first; d; d = d->next)
    if (!add_field(j, d, f, index, &out)) {
      c->error = STR("DKIM: the signature cannot be made");
      (void)cannot(c);
      return STR_UNSET;
    }
  return buf_str(&out);
}
