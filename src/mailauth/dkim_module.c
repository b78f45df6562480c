/* DKIM's words (Exim manual, section "Verifying DKIM signatures in incoming
mail"): verification while a message comes in, its ACL, conditions and
variables. */
#include <time.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/dkim.h"
#include "mailauth/module.h"
#include "mailauth/results.h"
#include "mailauth/words.h"
#include "match/match.h"
#include "message/message.h"

#define SIGNATURES_MAX 20  /* of one message; with more none is looked at */
#define SECONDS_MAX 30     /* for all keys of a message */
#define SIGNERS_MAX 200    /* runs of the ACL for a message */
#define PLACE_NONE 10000

static const struct result_word status_words[] = {
  {"none", DKIM_NONE, NULL}, {"invalid", DKIM_INVALID, NULL}, {"fail", DKIM_FAIL, NULL}, {"pass", DKIM_PASS, NULL}, {0},
};

struct dkim_options {
  struct option_expr acl, signers;
  struct str hashes, key_types, min_key_sizes;
  bool minimal;
};

/* What an ACL may say of a signature. */
struct verdict {
  struct str status, reason; /* unset: as found */
};

struct dkim_state {
  bool on;
  bool watched;                        /* verification was not turned off */
  struct line_watch lines;
  struct body_hashes hashes;
  struct header_index *index;
  struct dkim_signature *first;
  struct verdict *verdicts;            /* of the signatures, by their place */
  struct str signers;
  /* while the ACL runs */
  bool in_acl;
  struct str cur_signer;
  struct dkim_signature *current;      /* NULL: the signer has none */
  struct verdict cur;
  int key_bits;                        /* of the signature that was looked at last */
  struct str statuses;                 /* colon list of what the ACL runs came to; unset: none ran */
  struct str passed;                   /* domain of the first signature that passed */
};

static const struct dkim_options *options_of(const struct ctx *c) { return config_block(c->config, &dkim_module); }

static struct dkim_state *state_of(struct ctx *c) { return c->message ? message_module_state(c->message, &dkim_module) : NULL; }

/* ---- while the message comes in ---- */

/* Where is the word in the list? A large number: it is not. */
static int place_in(struct ctx *c, struct str list, const char *word) {
  struct list_iter iter;
  struct str item;
  list_iter_init(&iter, c->arena, list);
  for (int n = 0; list_next(&iter, &item); n++)
    if (str_ieq_c(item, word))
      return n;
  return PLACE_NONE;
}

static const char *type_name(const struct dkim_signature *sig) { return sig->key_type == DKIM_RSA ? "rsa" : "ed25519"; }

static int rank(struct ctx *c, const struct dkim_signature *sig) {
  const struct dkim_options *o = options_of(c);
  if (sig->md == NULL)
    return PLACE_NONE * PLACE_NONE;
  return place_in(c, o->hashes, sig->hash_name) * PLACE_NONE + place_in(c, o->key_types, type_name(sig));
}

/* They are judged in the order of the lists of hashes and types of keys, those of one kind from the top of the header. */
static void insert(struct ctx *c, struct dkim_state *s, struct dkim_signature *sig) {
  struct dkim_signature **p = &s->first;
  while (*p && rank(c, *p) <= rank(c, sig))
    p = &(*p)->next;
  sig->next = *p;
  *p = sig;
}

/* Signatures of other kinds are as good as not there. */
static bool is_wanted(struct ctx *c, const struct dkim_signature *sig) {
  const struct dkim_options *o = options_of(c);
  return place_in(c, o->hashes, sig->hash_name) < PLACE_NONE && place_in(c, o->key_types, type_name(sig)) < PLACE_NONE;
}

static int start(struct ctx *c) {
  struct dkim_state *s = state_of(c);
  const struct acl_message *am = acl_message(c);
  struct arena *a = c->message->arena;
  VEC(struct str) fields = {0};
  int n = 0;
  if (c->session == NULL || c->session->kind == SESSION_STDIN || c->session->kind == SESSION_BATCH || (am && am->dkim_disable_verify))
    return OUTCOME_OK;
  *s = (struct dkim_state){.hashes.arena = a, .signers = STR_EMPTY, .cur_signer = STR_EMPTY, .statuses = STR_UNSET,
    .passed = STR_UNSET, .watched = true};
  for (const struct header *h = c->message->headers; h; h = h->next) {
    if (h->type == HEADER_DELETED)
      continue;
    vec_push(a, &fields, h->text);
    if (!str_ieq_c(str_slice(h->text, 0, h->name_len), "DKIM-Signature"))
      continue;
    if (++n > SIGNATURES_MAX) {
      s->first = NULL;
      log_write(LOG_MAIN, NULL, "DKIM: validation error: EXCESS_SIGS");
      log_write(LOG_MAIN, c->message, "DKIM: Error during validation, disabling signature verification: EXCESS_SIGS");
      return OUTCOME_OK;
    }
    struct dkim_signature *sig = dkim_signature_parse(a, h->text);
    if (sig == NULL)
      continue;
    if (sig->md != NULL && !is_wanted(c, sig))
      continue;
    insert(c, s, sig);
    if (sig->status != DKIM_INVALID)
      sig->hash = body_hash_want(&s->hashes, sig->md, sig->body_canon, sig->body_length);
  }
  s->on = s->first != NULL;
  if (s->on)
    s->index = header_index_new(a, fields.v, fields.n);
  s->verdicts = arena_array(a, struct verdict, SIGNATURES_MAX); /* unset, all of them */
  return OUTCOME_OK;
}

static void add_body(struct ctx *c, struct str data) {
  struct dkim_state *s = state_of(c);
  if (s->watched)
    line_watch_add(&s->lines, data);
  if (s->on)
    body_hashes_add(&s->hashes, data);
}

/* ---- verifying ---- */

/* "rsa=1024 ed25519=250" */
static int min_bits(struct str list, enum dkim_key_type type) {
  struct str rest = list;
  while (str_is_set(rest)) {
    struct str value = str_trim(str_cut(&rest, ' ')), name = str_cut(&value, '=');
    uint64_t n;
    if (str_ieq_c(name, type == DKIM_RSA ? "rsa" : "ed25519") && str_is_set(value) && str_to_u64(value, &n) && n < 100000)
      return (int)n;
  }
  return 0;
}

static void set_invalid(struct dkim_signature *sig, enum dkim_reason why) {
  sig->status = DKIM_INVALID;
  sig->reason = why;
}

void dkim_fetch_key(struct ctx *c, struct arena *a, struct dkim_signature *sig) {
  struct dns_answer answer;
  enum dns_result r = dns_query(c, a, dkim_key_name(a, sig), DNS_TXT, &answer);
  if (r != DNS_OK || answer.n == 0) {
    sig->timed_out = r == DNS_AGAIN || r == DNS_FAIL;
    set_invalid(sig, DKIM_KEY_UNAVAILABLE);
    return;
  }
  for (size_t i = 0; i < answer.n && sig->key == NULL; i++)
    sig->key = dkim_key_parse(a, answer.v[i].text);
  if (sig->key == NULL)
    set_invalid(sig, DKIM_KEY_SYNTAX);
}

static void fetch_key(struct ctx *c, struct dkim_signature *sig) {
  dkim_fetch_key(c, c->message->arena, sig);
  if (sig->reason == DKIM_KEY_SYNTAX)
    log_write(LOG_MAIN, c->message, "DKIM: d=%.*s s=%.*s [failed key import]", STRF(sig->domain), STRF(sig->selector));
}

static void verify(struct ctx *c, struct dkim_state *s, struct dkim_signature *sig, int64_t deadline) {
  if (sig->status == DKIM_INVALID)
    return;
  /* A body that was changed needs no key. */
  if (!dkim_body_holds(sig)) {
    sig->status = DKIM_FAIL;
    sig->reason = DKIM_BODYHASH;
    return;
  }
  if (time(NULL) > deadline) {
    sig->timed_out = true;
    set_invalid(sig, DKIM_KEY_UNAVAILABLE);
    return;
  }
  fetch_key(c, sig);
  if (sig->key != NULL)
    dkim_verify(s->index, sig, min_bits(options_of(c)->min_key_sizes, sig->key_type));
}

static void add_signer(struct buf *b, struct str who) {
  if (b->len > 0)
    buf_add_byte(b, ':');
  buf_add(b, who);
}

static int finish(struct ctx *c) {
  struct dkim_state *s = state_of(c);
  struct buf signers;
  if (s->lines.too_long) {
    log_write(LOG_MAIN, c->message, "DKIM: validation error: LONG_LINE");
    log_write(LOG_MAIN, c->message, "DKIM: Error during validation, disabling signature verification: LONG_LINE");
    s->on = false;
    s->first = NULL;
  }
  if (!s->on)
    return OUTCOME_OK;
  body_hashes_end(&s->hashes);
  int64_t deadline = time(NULL) + SECONDS_MAX;
  buf_init(&signers, c->message->arena, BUF_MAX_LINE);
  for (struct dkim_signature **p = &s->first, *sig; (sig = *p) != NULL; p = &sig->next) {
    verify(c, s, sig, deadline);
    add_signer(&signers, sig->domain);
    if (str_is_set(sig->identity) && sig->identity.len > 0)
      add_signer(&signers, sig->identity);
    if (sig->status == DKIM_PASS && options_of(c)->minimal)
      sig->next = NULL;
  }
  s->signers = str_untainted(buf_str(&signers));
  return OUTCOME_OK;
}

/* ---- results ---- */

static const struct verdict *verdict_of(const struct dkim_state *s, const struct dkim_signature *sig) {
  size_t i = 0;
  for (const struct dkim_signature *p = s->first; p != sig; p = p->next)
    i++;
  return &s->verdicts[i];
}

static const char *reason_word(const struct dkim_signature *sig) {
  switch (sig->reason) {
    case DKIM_KEY_UNAVAILABLE: return "pubkey_unavailable";
    case DKIM_KEY_SYNTAX: return "pubkey_syntax";
    case DKIM_KEY_SIZE: return "pubkey_too_short";
    case DKIM_BODYHASH: return "bodyhash_mismatch";
    case DKIM_SIGNATURE: return "signature_incorrect";
    default: return "";
  }
}

void dkim_message_results(struct ctx *c, void (*each)(void *arg, struct str domain, struct str selector, struct str status), void *arg) {
  const struct dkim_state *s = state_of(c);
  for (const struct dkim_signature *sig = s ? s->first : NULL; sig; sig = sig->next) {
    const struct verdict *v = verdict_of(s, sig);
    struct str status = str_is_set(v->status) ? v->status : str_c(dkim_status_name(sig->status));
    if (!sig->covers_author && str_eq_c(status, "pass"))
      status = STR("neutral");
    each(arg, sig->domain, sig->selector, status);
  }
}

/* For the log. */
static struct str describe(struct ctx *c, const struct dkim_signature *sig, const struct verdict *v) {
  if (str_is_set(v->status))
    return str_printf(c->arena, "%.*s - %.*s", STRF(v->status), STRF(str_is_set(v->reason) ? v->reason : str_c(reason_word(sig))));
  switch (sig->reason) {
    case DKIM_OK: return STR("verification succeeded");
    case DKIM_MALFORMED: return STR("invalid - signature tag missing or invalid");
    case DKIM_VERSION: return STR("invalid - unsupported DKIM version");
    case DKIM_ALGORITHM: return STR("invalid - algorithm not supported or not wanted");
    case DKIM_KEY_UNAVAILABLE: return STR("invalid - public key record (currently?) unavailable");
    case DKIM_KEY_SYNTAX: return STR("invalid - syntax error in public key record");
    case DKIM_KEY_SIZE: return STR("verification failed - signature invalid (key too short)");
    case DKIM_BODYHASH: return STR("verification failed - body hash mismatch (body probably modified in transit)");
    case DKIM_SIGNATURE: return STR("verification failed - signature did not verify (headers probably modified in transit)");
    default: return STR("verification failed - unspecified reason");
  }
}

static void log_signature(struct ctx *c, const struct dkim_state *s, const struct dkim_signature *sig) {
  struct buf b;
  if (!log_selected(LOGSEL_dkim_verbose))
    return;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_printf(&b, "d=%.*s s=%.*s c=%s/%s a=%.*s b=%d", STRF(sig->domain), STRF(sig->selector),
      sig->header_canon == CANON_RELAXED ? "relaxed" : "simple", sig->body_canon == CANON_RELAXED ? "relaxed" : "simple",
      STRF(str_is_set(sig->algorithm) ? sig->algorithm : STR_EMPTY), (int)sig->signature.len * 8);
  if (str_is_set(sig->identity) && sig->identity.len > 0)
    buf_printf(&b, " i=%.*s", STRF(sig->identity));
  if (sig->created != DKIM_NO_TIME)
    buf_printf(&b, " t=%lld", (long long)sig->created);
  if (sig->expires != DKIM_NO_TIME)
    buf_printf(&b, " x=%lld", (long long)sig->expires);
  if (sig->body_length != DKIM_BODY_ALL)
    buf_printf(&b, " l=%llu", (unsigned long long)sig->body_length);
  buf_printf(&b, " [%.*s]", STRF(describe(c, sig, verdict_of(s, sig))));
  log_write(LOG_MAIN, c->message, "DKIM: %.*s", STRF(log_printable(c->arena, buf_str(&b))));
}

static bool passed(const struct dkim_signature *sig, const struct verdict *v) {
  return str_is_set(v->status) ? str_eq_c(v->status, "pass") : sig->status == DKIM_PASS;
}

static void note(struct ctx *c, struct dkim_state *s, struct dkim_signature *sig) {
  log_signature(c, s, sig);
  if (!str_is_set(s->passed) && passed(sig, verdict_of(s, sig)))
    s->passed = sig->domain;
}

/* ---- the ACL ---- */

static enum acl_result run_acl(struct ctx *c, struct dkim_state *s, struct dkim_signature *sig) {
  s->current = sig;
  s->cur = sig ? *verdict_of(s, sig) : (struct verdict){STR_UNSET, STR_UNSET};
  s->in_acl = true;
  if (sig != NULL)
    s->key_bits = sig->key != NULL ? sig->key->bits : 0;
  enum acl_result r = acl_check(c, ACL_DKIM, &options_of(c)->acl);
  s->in_acl = false;
  struct str status = str_is_set(s->cur.status) ? s->cur.status : str_c(dkim_status_name(sig ? sig->status : DKIM_NONE));
  s->statuses = str_is_set(s->statuses) ? str_cat(c->message->arena, str_cat(c->message->arena, s->statuses, STR(":")), status) : status;
  if (sig != NULL) {
    s->verdicts[verdict_of(s, sig) - s->verdicts] = s->cur;
    note(c, s, sig);
  }
  return r;
}

static bool signed_by(const struct dkim_signature *sig, struct str who) {
  if (str_find_byte(who, '@') < 0)
    return str_ieq(sig->domain, who);
  return str_is_set(sig->identity) && str_ieq(sig->identity, who);
}

static enum acl_result run_signer(struct ctx *c, struct dkim_state *s, struct str who) {
  bool any = false;
  s->cur_signer = who;
  for (struct dkim_signature *sig = s->first; sig; sig = sig->next) {
    if (!signed_by(sig, who))
      continue;
    any = true;
    enum acl_result r = run_acl(c, s, sig);
    if (r != ACL_OK)
      return r;
  }
  return any ? ACL_OK : run_acl(c, s, NULL);
}

static enum acl_result run_signers(struct ctx *c, struct dkim_state *s, struct str list) {
  struct list_iter iter;
  struct str item, seen[SIGNERS_MAX];
  int n = 0;
  list_iter_init(&iter, c->message->arena, list);
  while (list_next(&iter, &item) && n < SIGNERS_MAX) {
    bool again = item.len == 0;
    for (int i = 0; i < n && !again; i++)
      again = str_ieq(seen[i], item);
    if (again)
      continue;
    seen[n++] = item;
    enum acl_result r = run_signer(c, s, item);
    if (r != ACL_OK)
      return r;
  }
  s->cur_signer = STR_EMPTY;
  s->current = NULL;
  return ACL_OK;
}

static int check_message(struct ctx *c, int *ret_where, const char **ret_what) {
  struct dkim_state *s = state_of(c);
  const struct dkim_options *o = options_of(c);
  struct str list = STR_EMPTY;
  *ret_where = ACL_DKIM;
  *ret_what = "DKIM ";
  if (acl_is_set(&o->acl) && c->session && c->session->kind != SESSION_STDIN && c->session->kind != SESSION_BATCH) {
    int rc = expand_option(c, &o->signers, &list);
    if (rc != 0 && rc != OUTCOME_FORCED) {
      c->log_message = str_printf(c->arena, "failed to expand dkim_verify_signers: %.*s", STRF(c->error));
      return ACL_DEFER;
    }
    list = rc != 0 ? STR_EMPTY : str_dup(c->message->arena, list);
  }
  if (list.len > 0)
    return run_signers(c, s, list);
  for (struct dkim_signature *sig = s->first; sig; sig = sig->next)
    note(c, s, sig);
  return ACL_OK;
}

static int eval_status(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct dkim_state *s = state_of(c);
  if (s == NULL || s->in_acl) {
    struct str status = s && str_is_set(s->cur.status) ? s->cur.status
        : str_c(dkim_status_name(s && s->current ? s->current->status : DKIM_NONE));
    return match_string(c, arg, status, true, NULL);
  }
  struct str rest = str_is_set(s->statuses) ? s->statuses : STR("none");
  while (str_is_set(rest)) {
    int r = match_string(c, arg, str_cut(&rest, ':'), true, NULL);
    if (r != OUTCOME_FAIL)
      return r;
  }
  return OUTCOME_FAIL;
}

static int eval_signers(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct dkim_state *s = state_of(c);
  return s == NULL || s->cur_signer.len == 0 ? OUTCOME_FAIL : match_string(c, arg, s->cur_signer, true, NULL);
}

static int check_status_words(struct config_reader *r, struct acl_clause *clause) {
  return result_words_check(r, "dkim_status", clause->arg.text, status_words);
}

/* ---- variables ---- */

enum { V_STATUS, V_REASON, V_CUR_SIGNER, V_BITS, V_SIGNERS, V_DOMAIN, V_IDENTITY, V_SELECTOR, V_ALGO, V_CANON_BODY, V_CANON_HEADERS,
  V_COPIED, V_LENGTH, V_CREATED, V_EXPIRES, V_NAMES, V_TESTING, V_NOSUBDOMAINS, V_SERVICE, V_GRANULARITY, V_NOTES };

static struct str number(struct ctx *c, int64_t n) { return str_printf(c->arena, "%lld", (long long)n); }

static struct str state_value(struct ctx *c, const struct dkim_state *s, unsigned what) {
  const struct dkim_signature *sig = s->current;
  switch (what) {
    case V_STATUS:
      if (!s->in_acl)
        return str_is_set(s->statuses) ? s->statuses : STR_EMPTY;
      return str_is_set(s->cur.status) ? s->cur.status : str_c(dkim_status_name(sig ? sig->status : DKIM_NONE));
    case V_REASON: return str_is_set(s->cur.reason) ? s->cur.reason : sig ? str_c(reason_word(sig)) : STR_EMPTY;
    case V_CUR_SIGNER: return s->cur_signer;
    case V_BITS: return number(c, s->key_bits);
    default: return s->signers;
  }
}

static struct str key_value(struct ctx *c, const struct dkim_key *k, unsigned what) {
  switch (what) {
    case V_TESTING: return k && k->testing ? STR("1") : STR("0");
    case V_NOSUBDOMAINS: return k && k->no_subdomains ? STR("1") : STR("0");
    case V_SERVICE: return k ? k->service : STR("*");
    case V_GRANULARITY: return k ? k->granularity : STR("*");
    default: return k && str_is_set(k->notes) ? k->notes : STR_EMPTY;
  }
}

static struct str canon_name(const struct dkim_signature *sig, enum canon how) {
  return sig == NULL ? STR_EMPTY : how == CANON_RELAXED ? STR("relaxed") : STR("simple");
}

static struct str signature_value(struct ctx *c, const struct dkim_signature *sig, unsigned what) {
  switch (what) {
    case V_DOMAIN: return sig ? sig->domain : STR_EMPTY;
    case V_IDENTITY: return sig ? sig->identity : STR_EMPTY;
    case V_SELECTOR: return sig ? sig->selector : STR_EMPTY;
    case V_ALGO: return sig ? sig->algorithm : STR_EMPTY;
    case V_CANON_BODY: return canon_name(sig, sig ? sig->body_canon : CANON_SIMPLE);
    case V_CANON_HEADERS: return canon_name(sig, sig ? sig->header_canon : CANON_SIMPLE);
    case V_COPIED: return sig ? sig->copied_headers : STR_EMPTY;
    case V_LENGTH:
      return sig && sig->body_length != DKIM_BODY_ALL ? str_printf(c->arena, "%llu", (unsigned long long)sig->body_length)
                                                      : STR("9999999999999");
    case V_CREATED: return number(c, sig && sig->created != DKIM_NO_TIME ? sig->created : 0);
    case V_EXPIRES: return sig && sig->expires != DKIM_NO_TIME ? number(c, sig->expires) : STR("9999999999999");
    case V_NAMES: return sig ? sig->header_names : STR_EMPTY;
    default: return key_value(c, sig ? sig->key : NULL, what);
  }
}

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  static const struct dkim_state none = {.signers = {"", 0, 0}, .cur_signer = {"", 0, 0}, .statuses = {NULL, 0, 0},
    .cur = {{NULL, 0, 0}, {NULL, 0, 0}}};
  const struct dkim_state *s = state_of(c);
  if (s == NULL || s->verdicts == NULL)
    s = &none;
  if (str_is_set(c->vars.signing_domain) && (def->flags == V_DOMAIN || def->flags == V_SELECTOR)) {
    *ret = def->flags == V_DOMAIN ? c->vars.signing_domain : str_is_set(c->vars.signing_selector) ? c->vars.signing_selector : STR_EMPTY;
    return 0;
  }
  struct str v = def->flags <= V_SIGNERS ? state_value(c, s, def->flags) : signature_value(c, s->current, def->flags);
  *ret = str_is_set(v) ? v : STR_EMPTY;
  return 0;
}

/* The option of that name, as it is written. */
static int get_verify_signers(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct str text = options_of(c)->signers.text;
  *ret = str_is_set(text) ? text : STR_EMPTY;
  return 0;
}

/* `set dkim_verify_status = …` in the DKIM ACL. */
static int set(struct ctx *c, const struct variable_def *def, struct str value) {
  struct dkim_state *s = state_of(c);
  if (s == NULL || !s->in_acl)
    return ctx_fail(c, OUTCOME_ERROR, "$%s can only be set in the DKIM ACL", def->name);
  *(def->flags == V_STATUS ? &s->cur.status : &s->cur.reason) = str_dup(c->message->arena, value);
  return 0;
}

#define V(name, what) {name, get, 0, what}
static const struct variable_def variables[] = {
  {"dkim_verify_status", get, 0, V_STATUS, set}, {"dkim_verify_reason", get, 0, V_REASON, set},
  {"dkim_verify_signers", get_verify_signers}, V("dkim_cur_signer", V_CUR_SIGNER), V("dkim_signers", V_SIGNERS), V("dkim_domain", V_DOMAIN), V("dkim_identity", V_IDENTITY),
  V("dkim_selector", V_SELECTOR), V("dkim_algo", V_ALGO), V("dkim_canon_body", V_CANON_BODY), V("dkim_canon_headers", V_CANON_HEADERS),
  V("dkim_copiedheaders", V_COPIED), V("dkim_bodylength", V_LENGTH), V("dkim_created", V_CREATED), V("dkim_expires", V_EXPIRES),
  V("dkim_headernames", V_NAMES), V("dkim_key_testing", V_TESTING), V("dkim_key_nosubdomains", V_NOSUBDOMAINS),
  V("dkim_key_srvtype", V_SERVICE), V("dkim_key_granularity", V_GRANULARITY), V("dkim_key_notes", V_NOTES),
  V("dkim_key_length", V_BITS), {0},
};

/* ---- log and header ---- */

static void log_item(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct dkim_state *s = state_of(c);
  if (s != NULL && s->verdicts != NULL && str_is_set(s->passed) && log_selected(LOGSEL_dkim))
    add(arg, str_printf(c->arena, "DKIM=%.*s", STRF(s->passed)));
}

/* What the ACL said may hold the signer's words. */
static struct str policy_text(struct ctx *c, const struct verdict *v) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_add_c(&b, "policy (");
  header_add_comment(&b, v->status);
  buf_add_c(&b, " - ");
  header_add_comment(&b, str_is_set(v->reason) ? v->reason : STR_EMPTY);
  buf_add_c(&b, ")");
  return buf_str(&b);
}

/* The word of RFC 8601, section 2.7.1, and why. */
static struct str result_text(struct ctx *c, const struct dkim_signature *sig, const struct verdict *v) {
  if (str_is_set(v->status) && !str_eq_c(v->status, dkim_status_name(sig->status)))
    return policy_text(c, v);
  switch (sig->reason) {
    case DKIM_OK: return STR("pass");
    case DKIM_MALFORMED: return STR("neutral (signature tag missing or invalid)\n\t\t");
    case DKIM_VERSION: return STR("neutral (unsupported DKIM version)\n\t\t");
    case DKIM_ALGORITHM: return STR("neutral (algorithm not supported or not wanted)\n\t\t");
    case DKIM_KEY_UNAVAILABLE:
      return sig->timed_out ? STR("temperror (public key record not reached)\n\t\t") : STR("permerror (no public key record)\n\t\t");
    case DKIM_KEY_SYNTAX: return STR("neutral (public key record import problem)\n\t\t");
    case DKIM_KEY_SIZE: return str_printf(c->arena, "fail (public key too short: %d bits)\n\t\t", sig->key->bits);
    case DKIM_BODYHASH: return STR("fail (body hash mismatch; body probably modified in transit)\n\t\t");
    case DKIM_SIGNATURE: return STR("fail (signature did not verify; headers probably modified in transit)\n\t\t");
    default: return STR("fail (unspecified reason)\n\t\t");
  }
}

static void add_authresults(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct dkim_state *s = state_of(c);
  for (const struct dkim_signature *sig = s ? s->first : NULL; sig; sig = sig->next) {
    struct buf b;
    buf_init(&b, c->arena, BUF_MAX_LINE);
    b.taint = STR_TAINTED;
    buf_printf(&b, "dkim=%.*s header.d=", STRF(result_text(c, sig, verdict_of(s, sig))));
    header_add_value(&b, sig->domain);
    if (str_is_set(sig->identity) && sig->identity.len > 0) {
      buf_add_c(&b, " header.i=");
      header_add_value(&b, sig->identity);
    }
    buf_add_c(&b, " header.s=");
    header_add_value(&b, sig->selector);
    buf_add_c(&b, " header.a=");
    header_add_value(&b, str_is_set(sig->algorithm) ? sig->algorithm : STR_EMPTY);
    add(arg, buf_str(&b));
  }
}

#define AFTER_DATA (ACL_BIT(ACL_MIME) | ACL_BIT(ACL_DKIM) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_DATA))
static const struct acl_condition_def conditions[] = {
  {"dkim_signers", ~ACL_BIT(ACL_DKIM), true, 0, eval_signers, NULL},
  {"dkim_status", ~AFTER_DATA, true, 0, eval_status, check_status_words},
  {0},
};

#define AT(field) offsetof(struct dkim_options, field)
static const struct option_def options[] = {
  {"acl_smtp_dkim", OPTION_EXPR, AT(acl)},
  {"dkim_verify_hashes", OPTION_STRING, AT(hashes), "sha256 : sha512"},
  {"dkim_verify_keytypes", OPTION_STRING, AT(key_types), "ed25519 : rsa"},
  {"dkim_verify_min_keysizes", OPTION_STRING, AT(min_key_sizes), "rsa=1024 ed25519=250"},
  {"dkim_verify_minimal", OPTION_BOOL, AT(minimal)},
  {"dkim_verify_signers", OPTION_EXPR, AT(signers), "$dkim_signers"},
  OPTIONS_END,
};

const struct module dkim_module = {
  .name = "dkim",
  .summary = "DomainKeys Identified Mail: verification",
  .support = "DKIM",
  .main_options = options,
  .main_size = sizeof(struct dkim_options),
  .acl_conditions = conditions,
  .variables = variables,
  .macros = (const char *const[]){"_HAVE_DKIM", NULL},
  .message_state = {.size = sizeof(struct dkim_state)},
  .hooks = {.header_end = start, .body_chunk = add_body, .message_end = finish, .message_check = check_message,
    .received_log = log_item, .authresults = add_authresults},
};
