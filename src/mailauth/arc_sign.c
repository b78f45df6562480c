#include "mailauth/arc_sign.h"

#include <time.h>

#include "base/encode.h"
#include "base/vec.h"
#include "core/session.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"

#define MONTH (30 * 24 * 3600)

struct arc_sign {
  struct str admd, selector;
  struct sign_key key;
  bool timestamps, strict;
  int64_t now, expires;    /* expires: DKIM_NO_TIME, no x= */
  struct body_hash *hash;
};

static void complain(struct ctx *c, struct str text) { log_write(LOG_MAIN | LOG_PANIC, c->message, "ARC: %.*s", STRF(text)); }

/* ---- the option ---- */

static bool take_expire(struct arc_sign *s, struct str value) {
  uint64_t n;
  bool relative = str_is_set(value) && value.len > 0 && value.p[0] == '+';
  if (!str_is_set(value)) {
    s->expires = s->now + MONTH;
    return true;
  }
  if (!str_to_u64(relative ? str_from(value, 1) : value, &n) || n > INT32_MAX * 100LL)
    return false;
  s->expires = (int64_t)n + (relative ? s->now : 0);
  return true;
}

static bool take_options(struct ctx *c, struct arc_sign *s, struct str list) {
  while (str_is_set(list)) {
    struct str item = str_trim(str_cut(&list, ',')), value = item;
    struct str name = str_trim(str_cut(&value, '='));
    if (item.len == 0)
      continue;
    if (str_eq_c(name, "timestamps") && !str_is_set(value))
      s->timestamps = true;
    else if (str_eq_c(name, "strict") && !str_is_set(value))
      s->strict = true;
    else if (!str_eq_c(name, "expire") || !take_expire(s, str_is_set(value) ? str_trim(value) : STR_UNSET)) {
      complain(c, str_printf(c->arena, "unknown option \"%.*s\" for arc_sign", STRF(item)));
      return false;
    }
  }
  return true;
}

/* Without `strict` a message that cannot be sealed goes as it is. */
static int give_up(struct ctx *c, const struct arc_sign *s) {
  if (!s->strict)
    return OUTCOME_OK;
  complain(c, STR("message could not be sealed, and \"strict\" is set. Deferring message delivery."));
  c->error = STR("ARC: the message cannot be sealed");
  return OUTCOME_DEFER;
}

int arc_sign_prepare(struct sign_job *j, const struct option_expr *option, struct arc_sign **ret) {
  static const char *const what[] = {"identity", "selector", "privkey"};
  struct ctx *c = j->c;
  struct str text = STR_UNSET, part[4] = {STR_EMPTY, STR_EMPTY, STR_EMPTY, STR_EMPTY};
  struct list_iter iter;
  *ret = NULL;
  int rc = expand_option(c, option, &text);
  if (rc == OUTCOME_FORCED || (rc == 0 && (!str_is_set(text) || str_trim(text).len == 0)))
    return OUTCOME_OK;
  if (rc != 0) {
    complain(c, str_printf(c->arena, "failed to expand arc_sign: %.*s", STRF(c->error)));
    return OUTCOME_OK;
  }
  list_iter_init(&iter, c->arena, text);
  for (int i = 0; i < 4 && list_next(&iter, &part[i]); i++)
    ;
  for (int i = 0; i < 3; i++)
    if (part[i].len == 0) {
      complain(c, str_printf(c->arena, "no %s in arc_sign", what[i]));
      return OUTCOME_OK;
    }
  struct arc_sign *s = arena_new_of(c->arena, struct arc_sign);
  *s = (struct arc_sign){.admd = part[0], .selector = part[1], .now = time(NULL), .expires = DKIM_NO_TIME};
  if (!take_options(c, s, part[3]))
    return OUTCOME_OK;
  if ((rc = sign_key_load(c, part[2], &s->key)) != 0) {
    complain(c, rc == OUTCOME_FAIL ? STR("no private key") : str_printf(c->arena, "AMS signing: %.*s", STRF(c->error)));
    return give_up(c, s);
  }
  s->hash = body_hash_want(&j->hashes, EVP_sha256(), CANON_SIMPLE, DKIM_BODY_ALL);
  *ret = s->hash ? s : NULL;
  return s->hash ? OUTCOME_OK : give_up(c, s);
}

/* ---- evidence ---- */

struct evidence {
  bool any;
  struct buf text;       /* all results, each with ";" and a line end before it */
  enum arc_state state;
};

/* `newest`: only fields above the last seal. Those below may be of an earlier passage, and are in its set. */
static void gather(struct ctx *c, const struct arc_sign *s, const struct sign_fields *f, bool newest, struct evidence *e) {
  *e = (struct evidence){.state = ARC_UNCHECKED};
  buf_init(&e->text, c->arena, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < f->n && !(newest && str_istarts(f->v[i], STR("ARC-"))); i++) {
    struct str results;
    if (!arc_results_of(c->arena, f->v[i], s->admd, &results))
      continue;
    e->any = true;
    if (e->state == ARC_UNCHECKED)
      e->state = arc_results_state(results);
    if (str_trim(results).len == 0 || (str_ieq_c(str_trim(results), "none") && e->text.len > 0))
      continue;
    buf_add_byte(&e->text, ';');
    if (results.p[0] != ' ' && results.p[0] != '\t' && results.p[0] != '\n')
      buf_add_c(&e->text, "\n\t");
    buf_add(&e->text, results);
  }
}

/* ---- the set ---- */

static void fill_base64(struct buf *out, struct str value) {
  for (size_t n = 75; value.len > 0; n = 74) {
    struct str part = str_slice(value, 0, n);
    buf_add(out, part);
    value = str_from(value, part.len);
    if (value.len > 0)
      buf_add_c(out, "\n\t  ");
  }
}

static const char *algorithm(const struct arc_sign *s) { return s->key.type == DKIM_RSA ? "rsa-sha256" : "ed25519-sha256"; }

/* All fields of the names that signatures cover by default, and signatures: never those of ARC, results or traces. */
static struct str covered(struct arena *a, const struct sign_fields *f) {
  struct buf b;
  struct str names = STR(SIGN_DEFAULT_HEADERS ":DKIM-Signature");
  buf_init(&b, a, BUF_MAX_LINE);
  while (str_is_set(names)) {
    buf_add_c(&b, b.len ? ":=" : "=");
    buf_add(&b, str_cut(&names, ':'));
  }
  return sign_header_names(a, f, buf_str(&b), false);
}

static void add_names(struct buf *out, struct str names) {
  size_t column = 3;
  for (bool first = true; str_is_set(names); first = false) {
    struct str name = str_cut(&names, ':');
    if (!first && column + name.len + 2 > 78) {
      buf_add_c(out, ":\n\t  ");
      column = 3;
    } else if (!first) {
      buf_add_byte(out, ':');
      column++;
    }
    buf_add(out, name);
    column += name.len;
  }
}

static struct str message_signature(struct sign_job *j, const struct arc_sign *s, const struct sign_fields *f, int n) {
  struct arena *a = j->c->arena;
  struct buf out, data;
  struct str names = covered(a, f);
  if (names.len == 0) /* h= cannot be empty; an absent From: is covered, too */
    names = STR("From");
  buf_init(&out, a, BUF_MAX_EXPANSION);
  buf_printf(&out, "ARC-Message-Signature: i=%d; a=%s; c=relaxed; d=%.*s; s=%.*s;", n, algorithm(s), STRF(s->admd), STRF(s->selector));
  if (s->timestamps)
    buf_printf(&out, " t=%lld;", (long long)s->now);
  if (s->expires != DKIM_NO_TIME)
    buf_printf(&out, " x=%lld;", (long long)s->expires);
  buf_add_c(&out, "\n\tbh=");
  buf_add(&out, base64_encode(a, str_n((const char *)s->hash->digest, s->hash->digest_n)));
  buf_add_c(&out, ";\n\th=");
  add_names(&out, names);
  buf_add_c(&out, ";\n\tb=");
  buf_init(&data, a, BUF_MAX_EXPANSION);
  header_index_select(header_index_new(a, f->v, f->n), names, CANON_RELAXED, &data);
  canon_header(CANON_RELAXED, str_cat(a, buf_str(&out), STR(";")), false, &data);
  struct str value = sign_make(a, &s->key, EVP_sha256(), buf_str(&data));
  if (!str_is_set(value) || data.overflow)
    return STR_UNSET;
  fill_base64(&out, value);
  buf_add_c(&out, ";\n");
  return buf_str(&out);
}

static struct str seal(struct sign_job *j, const struct arc_sign *s, const struct arc_chain *chain, int n, enum arc_state cv,
    struct str results, struct str message) {
  struct arena *a = j->c->arena;
  struct buf out, data;
  buf_init(&out, a, BUF_MAX_EXPANSION);
  buf_printf(&out, "ARC-Seal: i=%d; cv=%s; a=%s; d=%.*s; s=%.*s;", n, arc_state_name(cv), algorithm(s), STRF(s->admd),
      STRF(s->selector));
  if (s->timestamps)
    buf_printf(&out, " t=%lld;", (long long)s->now);
  buf_add_c(&out, "\n\t b=");
  buf_init(&data, a, BUF_MAX_EXPANSION);
  arc_seal_data(chain, n, cv == ARC_FAIL, results, message, &data);
  canon_header(CANON_RELAXED, str_cat(a, buf_str(&out), STR(";")), false, &data);
  struct str value = sign_make(a, &s->key, EVP_sha256(), buf_str(&data));
  if (!str_is_set(value) || data.overflow)
    return STR_UNSET;
  fill_base64(&out, value);
  buf_add_c(&out, ";\n");
  return buf_str(&out);
}

/* What the new seal says of the chain before it (section 5.1.1.3). */
static enum arc_state verdict(struct ctx *c, const struct arc_chain *chain, const struct evidence *e) {
  const struct arc_verdict *v = arc_verdict_of(c);
  if (chain->sets == 0 && !str_is_set(chain->broken))
    return ARC_NONE;
  if (str_is_set(chain->broken))
    return ARC_FAIL;
  /* Sets that came after reception were not judged. */
  if (v && v->state != ARC_UNCHECKED)
    return v->state == ARC_PASS && v->sets == chain->sets ? ARC_PASS : ARC_FAIL;
  return e->state == ARC_PASS ? ARC_PASS : ARC_FAIL;
}

struct str arc_sign_fields(struct sign_job *j, const struct arc_sign *s, const struct sign_fields *f) {
  struct ctx *c = j->c;
  struct arc_chain *chain = arc_collect(c->arena, f->v, f->n);
  struct evidence e;
  int n = chain->sets + 1;
  if (chain->sets > 0 && str_is_set(chain->set[chain->sets].cv) && str_eq_c(chain->set[chain->sets].cv, "fail"))
    return STR_EMPTY; /* section 5.1: a chain that has failed is not continued */
  if (n > ARC_SETS_MAX) {
    log_write(LOG_MAIN, c->message, "ARC: the chain is too long for another set");
    return STR_EMPTY;
  }
  gather(c, s, f, true, &e);
  if (!e.any)
    gather(c, s, f, false, &e);
  if (!e.any) {
    log_write(LOG_MAIN, c->message, "ARC: no usable Authentication-Results header for signing");
    return STR_EMPTY;
  }
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  buf_printf(&b, "ARC-Authentication-Results: i=%d; %.*s", n, STRF(s->admd));
  if (str_is_set(c->client->host_address) && c->client->host_address.len > 0)
    buf_printf(&b, "; smtp.remote-ip=%.*s", STRF(c->client->host_address));
  buf_add(&b, e.text.len > 0 ? buf_str(&e.text) : STR(";\n\tnone"));
  buf_add_byte(&b, '\n');
  struct str results = buf_str(&b), message = message_signature(j, s, f, n);
  struct str top = str_is_set(message) && !b.overflow ? seal(j, s, chain, n, verdict(c, chain, &e), results, message) : STR_UNSET;
  if (!str_is_set(top)) {
    complain(c, STR("the signature cannot be made"));
    return give_up(c, s) == OUTCOME_OK ? STR_EMPTY : STR_UNSET;
  }
  return str_cat(c->arena, top, str_cat(c->arena, results, message));
}
