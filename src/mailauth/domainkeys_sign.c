/* DomainKeys signatures for messages that go out (RFC 4870, section 3.5). */
#include "base/encode.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/domainkeys.h"
#include "mailauth/sign.h"

struct dk_sign {
  struct str domain, selector, names;
  enum dk_canon canon;
  struct sign_key key;
  struct dk_stream *stream;
};

static int cannot(struct ctx *c) {
  log_write(LOG_MAIN | LOG_PANIC, c->message, "DomainKeys: message could not be signed: %.*s", STRF(c->error));
  return OUTCOME_ERROR;
}

/* Unset after a forced failure. */
static int value_of(struct ctx *c, const struct option_expr *o, const char *name, struct str *ret) {
  struct str value = STR_UNSET;
  *ret = STR_UNSET;
  int rc = expand_option(c, o, &value);
  if (rc != 0 && rc != OUTCOME_FORCED)
    return ctx_fail(c, OUTCOME_ERROR, "failed to expand %s: %.*s", name, STRF(c->error));
  if (rc == 0 && str_is_set(value))
    *ret = str_trim(value);
  return 0;
}

bool dk_sign_is_strict(struct ctx *c, const struct dk_sign_options *o) {
  struct str value, error = c->error;
  int rc = value_of(c, &o->strict, "dk_strict", &value);
  c->error = error;
  return rc == 0 && str_is_set(value) && (str_eq_c(value, "1") || str_ieq_c(value, "true"));
}

/* A message that is signed already only gets another signature for a Sender: field above that one. */
static bool is_signed(struct arena *a, const struct sign_fields *f, const struct dk_author *author) {
  for (size_t i = 0; i < f->n; i++)
    if (str_istarts(f->v[i], STR("DomainKey-Signature:"))) {
      struct dk_signature sig;
      bool all = !dk_signature_parse(a, str_from(f->v[i], sizeof "DomainKey-Signature:" - 1), &sig) || !str_is_set(sig.names);
      struct str names = all ? STR_UNSET : sig.names;
      bool covered = all;
      while (!covered && str_is_set(names))
        covered = str_ieq_c(str_cut(&names, ':'), "Sender");
      if (author->source != DK_SOURCE_SENDER || (author->field > i && covered))
        return true;
    }
  return false;
}

static struct str all_names(struct arena *a, const struct sign_fields *f) {
  struct buf b;
  buf_init(&b, a, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < f->n; i++) {
    ptrdiff_t colon = str_find_byte(f->v[i], ':');
    if (colon <= 0)
      continue;
    if (b.len > 0)
      buf_add_byte(&b, ':');
    buf_add(&b, str_rtrim(str_slice(f->v[i], 0, (size_t)colon)));
  }
  return buf_str(&b);
}

static int take_canon(struct ctx *c, const struct dk_sign_options *o, struct dk_sign *d) {
  struct str value;
  int rc = value_of(c, &o->canon, "dk_canon", &value);
  if (rc != 0)
    return rc;
  d->canon = str_is_set(value) && str_eq_c(value, "nofws") ? DK_NOFWS : DK_SIMPLE;
  if (d->canon == DK_SIMPLE && str_is_set(value) && value.len > 0 && !str_eq_c(value, "simple"))
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" is no canonical form for dk_canon", STRF(value));
  return 0;
}

/* The options, in the order in which each sees those before it. OUTCOME_FAIL: nothing is to be signed. */
static int read_options(struct ctx *c, const struct dk_sign_options *o, const struct dk_author *author, struct dk_sign *d) {
  struct str domain, key;
  c->vars.signing_domain = author->domain;
  int rc = value_of(c, &o->domain, "dk_domain", &domain);
  if (rc != 0)
    return rc;
  d->domain = str_is_set(domain) && domain.len > 0 ? str_lower(c->arena, domain) : author->domain;
  c->vars.signing_domain = d->domain;
  if ((rc = value_of(c, &o->selector, "dk_selector", &d->selector)) != 0)
    return rc;
  c->vars.signing_selector = d->selector;
  if ((rc = value_of(c, &o->private_key, "dk_private_key", &key)) != 0)
    return rc;
  if (str_is_set(key) && (key.len == 0 || str_eq_c(key, "0") || str_ieq_c(key, "false")))
    return OUTCOME_FAIL;
  if (!str_is_set(key) || !str_is_set(d->selector) || d->selector.len == 0)
    return ctx_fail(c, OUTCOME_ERROR, "%s has no value", str_is_set(key) ? "dk_selector" : "dk_private_key");
  if (d->domain.len == 0)
    return ctx_fail(c, OUTCOME_ERROR, "there is no address to sign for");
  if ((rc = sign_key_load(c, key, &d->key)) != 0 || (rc = take_canon(c, o, d)) != 0)
    return rc;
  if (d->key.type != DKIM_RSA)
    return ctx_fail(c, OUTCOME_ERROR, "the private key is not an RSA key");
  return 0;
}

int dk_sign_prepare(struct sign_job *j, const struct dk_sign_options *o, struct dk_sign **ret) {
  struct ctx *c = j->c;
  struct arena *a = c->arena;
  struct dk_sign *d = arena_new_of(a, struct dk_sign);
  struct sign_fields f = sign_fields(a, j->s->head);
  struct dk_author author;
  *ret = NULL;
  dk_find_author(a, f.v, f.n, &author);
  if (is_signed(a, &f, &author))
    return 0;
  int rc = read_options(c, o, &author, d);
  c->vars.signing_domain = c->vars.signing_selector = STR_UNSET;
  if (rc != 0)
    return rc == OUTCOME_FAIL ? 0 : cannot(c);
  if ((d->stream = dk_stream_new(a, d->canon)) == NULL) {
    c->error = STR("the library fails");
    return cannot(c);
  }
  d->names = all_names(a, &f);
  dk_stream_header(d->stream, a, f.v, f.n, 0, STR_UNSET);
  *ret = d;
  return 0;
}

void dk_sign_body(struct dk_sign *d, struct str piece) { dk_stream_body(d->stream, piece); }

struct str dk_sign_field(struct sign_job *j, struct dk_sign *d) {
  struct ctx *c = j->c;
  struct str name = STR("DomainKey-Signature:");
  struct buf out;
  dk_stream_end(d->stream);
  struct str value = sign_make_digest(c->arena, &d->key, EVP_sha1(), d->stream->digest, d->stream->digest_n);
  if (!str_is_set(value)) {
    c->error = STR("the library fails");
    (void)cannot(c);
    return STR_UNSET;
  }
  buf_init(&out, c->arena, BUF_MAX_EXPANSION);
  struct sign_text t = {&out, name.len};
  buf_add(&out, name);
  sign_text_tag(&t, "a=", STR("rsa-sha1"), NULL);
  sign_text_tag(&t, "q=", STR("dns"), NULL);
  sign_text_tag(&t, "c=", d->canon == DK_NOFWS ? STR("nofws") : STR("simple"), NULL);
  sign_text_tag(&t, "s=", d->selector, NULL);
  sign_text_tag(&t, "d=", d->domain, NULL);
  sign_text_tag(&t, "h=", d->names, ":");
  sign_text_tag(&t, "b=", value, "");
  buf_add_byte(&out, '\n');
  return buf_str(&out);
}
