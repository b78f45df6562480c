/* `verify = …` (Exim manual, sections "ACL conditions" and "Address
verification"). Addresses are verified by the routers (route/route.h). */
#include "acl/internal.h"
#include "base/ascii.h"
#include "base/buf.h"
#include "base/time.h"
#include "core/module.h"
#include "core/main_options.h"
#include "deliver/address.h"
#include "deliver/errors.h"
#include "deliver/room.h"
#include "dns/dns.h"
#include "hints/hints.h"
#include "log/log.h"
#include "match/match.h"
#include "message/address.h"
#include "message/message.h"
#include "message/rewrite.h"
#include "route/route.h"
#include "smtp/helo.h"

enum verify_what {
  VERIFY_CERTIFICATE, VERIFY_CSA, VERIFY_HEADER_NAMES_ASCII, VERIFY_HEADER_SENDER, VERIFY_HEADER_SYNTAX, VERIFY_HELO,
  VERIFY_NOT_BLIND, VERIFY_RECIPIENT, VERIFY_REVERSE, VERIFY_SENDER, VERIFY_MODULE
};

#define AFTER_DATA                                                                                                     \
  ACL_ONLY(ACL_BIT(ACL_DATA) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_MIME) | ACL_BIT(ACL_NOT_SMTP_MIME))

static const struct verify_word {
  const char *name;
  enum verify_what what;
  uint32_t forbidden;
  bool options;
  unsigned flags;
} words[] = {
    {"certificate", VERIFY_CERTIFICATE, ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START), false, 0},
    {"csa", VERIFY_CSA, ACL_NOT_SMTP_WHERE, true, 0},
    {"header_names_ascii", VERIFY_HEADER_NAMES_ASCII, AFTER_DATA, false, 0},
    {"header_sender", VERIFY_HEADER_SENDER, AFTER_DATA, true, 0},
    {"header_syntax", VERIFY_HEADER_SYNTAX, AFTER_DATA, false, 0},
    {"helo", VERIFY_HELO, ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START), false, 0},
    {"not_blind", VERIFY_NOT_BLIND, AFTER_DATA, true, 0},
    {"recipient", VERIFY_RECIPIENT, ACL_ONLY(ACL_BIT(ACL_RCPT)), true, 0},
    {"reverse_host_lookup", VERIFY_REVERSE, 0, true, 0},
    {"sender", VERIFY_SENDER, ACL_NO_SENDER_WHERE, true, 0},
};

/* A module's word: its definition is in the options. */
static const struct verify_word module_word = {"", VERIFY_MODULE, 0, true, 0};

static const struct acl_verify_def *module_verify(struct str name) {
  for (size_t i = 0; modules[i]; i++)
    for (const struct acl_verify_def *d = modules[i]->acl_verifies; d && d->name; d++)
      if (str_ieq_c(name, d->name))
        return d;
  return NULL;
}

struct options {
  const struct acl_verify_def *def; /* of a module's word */
  struct str words;                 /* and what follows its "/" */
  bool defer_ok, no_details, success_on_redirect, case_insensitive;
  struct str text;     /* as written, after expansion */
  bool callout;
  struct callout_params call;
  bool quota;
  int64_t quota_good, quota_bad; /* how long results are kept, seconds */
  struct str address; /* sender=… */
  struct str domain;  /* csa/… */
};

static bool cut_eq(struct str *item, const char *name) {
  size_t n = strlen(name);
  if (item->len <= n || !str_istarts(*item, str_n(name, n)))
    return false;
  struct str rest = str_ltrim(str_from(*item, n));
  if (rest.len == 0 || rest.p[0] != '=')
    return false;
  *item = str_ltrim(str_from(rest, 1));
  return true;
}

/* One parameter of callout=…: *item is it, name of the word when a value is wrong. */
static bool callout_parameter(struct arena *a, const struct verify_word *w, struct str item, struct callout_params *p, struct str *error) {
  static const struct {
    const char *name;
    size_t offset;
    bool recipient;
  } flags[] = {
      {"defer_ok", offsetof(struct callout_params, defer_ok), false}, {"no_cache", offsetof(struct callout_params, no_cache), false},
      {"random", offsetof(struct callout_params, random), false}, {"use_sender", offsetof(struct callout_params, use_sender), true},
      {"use_postmaster", offsetof(struct callout_params, use_postmaster), true}, {"hold", offsetof(struct callout_params, hold), true},
      {"use_tptsender", offsetof(struct callout_params, use_transport_sender), true},
  };
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (str_ieq_c(item, flags[i].name)) {
      *(bool *)((char *)p + flags[i].offset) = true;
      if (!flags[i].recipient || w->what == VERIFY_RECIPIENT)
        return true;
      *error = str_printf(a, "\"%s\" is for recipients: it cannot be used with \"verify = %s\"", flags[i].name, w->name);
      return false;
    }
  if (str_ieq_c(item, "postmaster") || str_ieq_c(item, "fullpostmaster")) {
    p->postmaster_mailfrom = STR_EMPTY;
    p->full_postmaster = str_ieq_c(item, "fullpostmaster");
    return true;
  }
  if (cut_eq(&item, "postmaster_mailfrom")) {
    p->postmaster_mailfrom = item;
    return true;
  }
  if (cut_eq(&item, "mailfrom")) {
    p->mailfrom = item;
    if (w->what == VERIFY_HEADER_SENDER)
      return true;
    *error = str_printf(a, "\"mailfrom\" is allowed as a callout option only for verify=header_sender (detected in ACL condition"
                           " \"verify = %s\")", w->name);
    return false;
  }
  int64_t *time = &p->timeout;
  if (cut_eq(&item, "connect"))
    time = &p->connect;
  else if (cut_eq(&item, "maxwait"))
    time = &p->maxwait;
  *time = time_parse_interval(item);
  if (*time >= 0 && (time != &p->timeout || *time > 0))
    return true;
  *error = str_printf(a, "'callout' requires a time, or one of its words, not \"%.*s\", in ACL condition \"verify = %s\"", STRF(item),
      w->name);
  return false;
}

/* callout, callout=…; and the old callout_defer_ok, check_postmaster. */
static bool callout_option(struct arena *a, const struct verify_word *w, struct str item, struct options *o, struct str *error) {
  if (!o->callout) {
    o->callout = true;
    o->call.timeout = 30;
    o->call.connect = o->call.maxwait = -1;
  }
  struct str parameters = item;
  if (cut_eq(&parameters, "callout")) {
    while (str_is_set(parameters)) {
      struct str one = str_trim(str_cut(&parameters, ','));
      if (one.len && !callout_parameter(a, w, one, &o->call, error))
        return false;
    }
    return true;
  }
  if (str_ieq_c(item, "callout_defer_ok"))
    o->call.defer_ok = true;
  else if (str_ieq_c(item, "check_postmaster"))
    o->call.postmaster_mailfrom = STR_EMPTY;
  else if (!str_ieq_c(item, "callout"))
    *error = str_printf(a, "unknown option \"%.*s\" in ACL condition \"verify = %s\"", STRF(item), w->name);
  return !str_is_set(*error);
}

/* quota, quota=cachepos=TIME,cacheneg=TIME,no_cache */
static bool quota_option(struct arena *a, const struct verify_word *w, struct str item, struct options *o, struct str *error) {
  o->quota = true;
  o->quota_good = 5 * 60;
  o->quota_bad = 60 * 60;
  bool ok = w->what == VERIFY_RECIPIENT;
  struct str parameters = item;
  if (ok && !str_ieq_c(item, "quota"))
    ok = cut_eq(&parameters, "quota");
  else
    parameters = STR_UNSET;
  while (ok && str_is_set(parameters)) {
    struct str one = str_trim(str_cut(&parameters, ','));
    if (str_ieq_c(one, "no_cache"))
      o->quota_good = o->quota_bad = 0;
    else if (cut_eq(&one, "cachepos"))
      ok = (o->quota_good = time_parse_interval(one)) >= 0;
    else if (cut_eq(&one, "cacheneg"))
      ok = (o->quota_bad = time_parse_interval(one)) >= 0;
    else
      ok = one.len == 0;
  }
  if (!ok)
    *error = str_printf(a, "unknown or misplaced option \"%.*s\" in ACL condition \"verify = %s\"", STRF(item), w->name);
  return ok;
}

/* The word before the first slash, then options. NULL and *error when the text is wrong. */
static const struct verify_word *parse(struct arena *a, struct str arg, struct options *o, struct str *error) {
  *o = (struct options){.text = arg};
  *error = STR_UNSET;
  struct str rest = arg, first = str_trim(str_cut(&rest, '/'));
  const struct verify_word *w = NULL;
  struct str sender = first;
  if (cut_eq(&sender, "sender")) {
    o->address = sender;
    first = STR("sender");
  }
  for (size_t i = 0; i < sizeof words / sizeof *words && !w; i++)
    if (str_ieq_c(first, words[i].name))
      w = &words[i];
  if (!w && (o->def = module_verify(first)) != NULL) {
    o->words = rest;
    return &module_word;
  }
  if (!w) {
    *error = str_printf(a, "expected \"sender[=address]\", \"recipient\", \"helo\", \"header_syntax\", \"header_sender\","
                           " \"header_names_ascii\" or \"reverse_host_lookup\" at start of ACL condition \"verify %.*s\"", STRF(arg));
    return NULL;
  }
  if (w->flags & ACL_LATER) {
    *error = str_printf(a, "ACL condition \"verify = %s\" is not supported yet", w->name);
    return NULL;
  }
  if (str_is_set(rest) && !w->options) {
    *error = str_printf(a, "unexpected '/' found in \"%.*s\" (this verify item has no options)", STRF(arg));
    return NULL;
  }
  if (w->what == VERIFY_CSA) {
    o->domain = str_is_set(rest) ? str_trim(rest) : STR_UNSET;
    return w;
  }
  while (str_is_set(rest)) {
    struct str item = str_trim(str_cut(&rest, '/'));
    if (str_ieq_c(item, "defer_ok"))
      o->defer_ok = true;
    else if (str_ieq_c(item, "no_details"))
      o->no_details = true;
    else if (str_ieq_c(item, "success_on_redirect"))
      o->success_on_redirect = true;
    else if (w->what == VERIFY_NOT_BLIND && str_ieq_c(item, "case_insensitive"))
      o->case_insensitive = true;
    else if (str_istarts(item, STR("callout")) || str_ieq_c(item, "check_postmaster")) {
      if (!callout_option(a, w, item, o, error))
        return NULL;
    } else if (str_istarts(item, STR("quota"))) {
      if (!quota_option(a, w, item, o, error))
        return NULL;
    } else {
      *error = str_printf(a, "unknown option \"%.*s\" in ACL condition \"verify %.*s\"", STRF(item), STRF(arg));
      return NULL;
    }
  }
  return w;
}

static const char *nearest_word(struct str arg) {
  size_t n = 0;
  while (n < arg.len && arg.p[n] != '/' && arg.p[n] != '=' && arg.p[n] != ' ')
    n++;
  return config_nearest(str_slice(arg, 0, n), &words->name, sizeof *words, sizeof words / sizeof *words);
}

int acl_check_verify(struct config_reader *r, struct acl_clause *clause) {
  if (str_find_byte(clause->arg.text, '$') >= 0)
    return 0;
  struct options o;
  struct str error;
  if (!parse(config_reader_arena(r), clause->arg.text, &o, &error)) {
    const char *near = str_starts(error, STR("expected ")) ? nearest_word(clause->arg.text) : NULL;
    return near == NULL ? config_error(r, "error in ACL: %.*s", STRF(error))
                        : config_error(r, "error in ACL: %.*s\n  (did you mean \"%s\"?)", STRF(error), near);
  }
  return 0;
}

/* The failure's text for the log; for the client only if the site wants that. */
static int after_data_failure(struct ctx *c, struct str text) {
  c->log_message = text;
  c->vars.acl_verify_message = text;
  if (main_options(c->config)->smtp_return_error_details) {
    c->user_message = str_printf(c->arena, "Rejected after DATA: %.*s", STRF(text));
    c->user_message.taint = text.taint;
  }
  return OUTCOME_FAIL;
}

/* ---- headers ---- */

static bool is_address_header(const struct header *h) { return h->type && strchr("TCBFSR", h->type); }

/* One address of a header line; `shown` has a group's name and semicolon too. */
typedef int item_fn(struct ctx *c, const struct header *h, struct str item, struct str shown, void *arg);

/* Calls fn for each address of a header line's list; stops when it returns non-zero. */
static int each_address(struct ctx *c, const struct header *h, item_fn *fn, void *arg) {
  struct address_walk w = {.text = header_value(h)};
  while (address_walk_next(&w)) {
    struct str shown = str_trim(str_slice(w.text, w.shown_from, w.shown_to));
    int rc = fn(c, h, str_slice(w.text, w.from, w.to), shown, arg);
    if (rc)
      return rc;
  }
  return 0;
}

static int syntax_one(struct ctx *c, const struct header *h, struct str item, struct str shown, void *arg) {
  struct mail_address address;
  struct str error;
  int rc = address_parse(c->arena, item,
      address_flags(c, ADDRESS_ALLOW_EMPTY | ADDRESS_ALLOW_DOMAIN_LITERAL), &address, &error);
  if (rc == 0) {
    if (address.domain.len > 0 || address.address.len == 0)
      return 0;
    bool sender = h->type == 'F' || h->type == 'R' || h->type == 'S';
    if (sender ? c->message->allow_unqualified_sender : c->message->allow_unqualified_recipient)
      return 0;
    error = STR("unqualified address not permitted");
  }
  struct str text = str_printf(c->arena, "%.*s: failing address in \"%.*s:\" header %s: %.*s", STRF(error), (int)h->name_len, h->text.p,
      shown.len > 1024 ? "begins" : "is", STRF(str_slice(shown, 0, 1024)));
  text.taint = STR_TAINTED;
  return after_data_failure(c, text);
}

static int verify_header_syntax(struct ctx *c) {
  for (const struct header *h = c->message->headers; h; h = h->next)
    if (is_address_header(h)) {
      int rc = each_address(c, h, syntax_one, NULL);
      if (rc)
        return rc;
    }
  return OUTCOME_OK;
}

static int verify_names_ascii(struct ctx *c) {
  for (const struct header *h = c->message->headers; h; h = h->next)
    for (uint32_t i = 0; h->type != '*' && i < h->name_len; i++)
      if ((unsigned char)h->text.p[i] < 33 || (unsigned char)h->text.p[i] > 126) {
        struct str text = str_printf(c->arena, "Invalid character in header \"%.*s\" found", (int)h->name_len, h->text.p);
        text.taint = STR_TAINTED;
        return after_data_failure(c, text);
      }
  return OUTCOME_OK;
}

struct blind {
  struct str recipient;
  bool caseless;
};

static int blind_one(struct ctx *c, const struct header *h, struct str item, struct str shown, void *arg) {
  const struct blind *b = arg;
  struct mail_address address;
  struct str error, local, domain, want_local, want_domain;
  if (address_parse(c->arena, item, address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL), &address, &error) < 0)
    return 0;
  address_split(address.address, &local, &domain);
  address_split(b->recipient, &want_local, &want_domain);
  if (str_ieq(domain, want_domain) && (b->caseless ? str_ieq(local, want_local) : str_eq(local, want_local)))
    return 1;
  return 0;
}

static int verify_not_blind(struct ctx *c, const struct options *o) {
  for (size_t i = 0; i < c->message->recipients.n; i++) {
    struct blind b = {c->message->recipients.v[i].address, o->case_insensitive};
    bool found = false;
    for (const struct header *h = c->message->headers; h && !found; h = h->next)
      if (h->type == 'T' || h->type == 'C')
        found = each_address(c, h, blind_one, &b) == 1;
    if (!found)
      return after_data_failure(c, STR("bcc recipient detected"));
  }
  return OUTCOME_OK;
}

/* ---- addresses ---- */

/* The answer to one verification. */
struct answer {
  struct address *found;
  struct str failure; /* word */
};

static void flush_output(struct ctx *c) {
  struct acl_session *s = acl_session(c);
  if (s && s->flush && !s->no_callout_flush)
    s->flush(c);
}

/* The address leads to other hosts: what do they say? */
static int call_out(struct ctx *c, struct address *found, bool sender, const struct options *o, struct answer *ret) {
  struct callout_params p = o->call;
  struct callout_outcome out;
  struct acl_session *s = acl_session(c);
  p.recipient = !sender;
  p.kept = s ? &s->callout : NULL;
  const struct acl_message *m = acl_message(c);
  /* What cut-through delivery would ask is asked now, and kept for it. */
  if (p.recipient && m && m->cutthrough && (m->cutthrough_transport_sender ? p.use_transport_sender : p.use_sender))
    p.hold = p.no_cache = true;
  flush_output(c);
  int rc = callout_verify(c, found, &p, &out);
  ret->failure = out.failure;
  if (rc == OUTCOME_OK) {
    c->user_message = c->log_message = STR_UNSET;
    return rc;
  }
  c->user_message = out.user;
  c->log_message = out.log;
  return rc;
}

/* ---- quotas ---- */

/* Kept with the callouts' results: "1 TIME" there was room, "0 TIME" there was none. Long keys come from strangers. */
static struct str quota_key(struct ctx *c, struct str address) {
  return address.len > 400 ? STR_UNSET : str_cat(c->arena, STR("quota:"), address);
}

static bool quota_known(struct ctx *c, struct str address, const struct options *o, int *ret) {
  struct str key = quota_key(c, address), value;
  int64_t when;
  if (!str_is_set(key) || hints_get(c, "callout", key, c->arena, &value) != OUTCOME_OK || value.len < 3 ||
      !str_to_i64(str_from(value, 2), &when))
    return false;
  bool good = value.p[0] == '1';
  int64_t age = time(NULL) - when;
  if (age < 0 || age >= (good ? o->quota_good : o->quota_bad))
    return false;
  DEBUG(verify, "quota cache: %s record found for %.*s\n", good ? "positive" : "negative", STRF(address));
  *ret = good ? OUTCOME_OK : OUTCOME_FAIL;
  return true;
}

/* The address is routed to `found`: does its transport have room? */
static int check_quota(struct ctx *c, struct str address, struct address *found, const struct options *o, int64_t size) {
  struct policy_vars saved = c->vars;
  struct address *outer = c->address;
  c->address = found;
  address_set_vars(c, found);
  bool asked = address_check_room(c, found, size);
  c->address = outer;
  c->vars = saved;
  if (!asked)
    return OUTCOME_OK;
  bool full = found->result != OUTCOME_OK && found->basic_errno == ERROR_QUOTA;
  if (found->result != OUTCOME_OK && !full)
    return acl_fail(c, OUTCOME_DEFER, "%.*s", STRF(str_is_set(found->message) ? found->message : STR("quota cannot be checked")));
  int64_t keep = full ? o->quota_bad : o->quota_good;
  struct str key = quota_key(c, address);
  if (keep > 0 && str_is_set(key))
    (void)hints_put(c, "callout", key, str_printf(c->arena, "%d %lld", !full, (long long)time(NULL)));
  return full ? acl_fail(c, OUTCOME_FAIL, "Over quota") : OUTCOME_OK;
}

static int verify_one(struct ctx *c, struct str address, bool sender, const struct options *o, struct answer *ret) {
  struct verify_params p = {.sender = sender, .success_on_redirect = o->success_on_redirect};
  struct policy_vars saved = c->vars;
  struct address *saved_address = c->address;
  *ret = (struct answer){0};
  int cached;
  if (o->quota && quota_known(c, address, o, &cached)) {
    c->vars.recipient_verify_failure = cached == OUTCOME_OK ? STR_UNSET : STR("quota");
    return cached == OUTCOME_OK ? OUTCOME_OK : acl_fail(c, OUTCOME_FAIL, "Previous (cached) quota verification failure");
  }
  int rc = verify_address(c, address, &p, &ret->found);
  c->address = saved_address;
  ret->failure = rc == OUTCOME_OK ? STR_UNSET : STR("route");
  struct str data = ret->found ? ret->found->prop.address_data : STR_UNSET;
  struct str domain_data = c->vars.domain_data, local_part_data = c->vars.local_part_data;
  c->vars = saved;
  if (rc == OUTCOME_OK && o->callout) {
    rc = call_out(c, ret->found, sender, o, ret);
    if (rc == OUTCOME_OK && !sender && (ret->found->transport || ret->found->hosts)) {
      /* The host that takes the mail knows the address: it is safe to be used. */
      domain_data = str_printf(c->arena, "%.*s", STRF(c->vars.domain));
      local_part_data = str_printf(c->arena, "%.*s", STRF(c->vars.local_part));
      domain_data.taint = local_part_data.taint = 0;
    }
  }
  if (rc == OUTCOME_OK && o->quota) {
    rc = check_quota(c, address, ret->found, o, c->message ? (int64_t)c->message->size : 0); /* what SIZE said */
    ret->failure = rc == OUTCOME_OK ? STR_UNSET : STR("quota");
  }
  if (sender) {
    c->vars.sender_verify_failure = ret->failure;
    c->vars.sender_address_data = data;
  } else {
    c->vars.recipient_verify_failure = ret->failure;
    c->vars.address_data = data;
    c->vars.domain_data = str_is_set(domain_data) ? domain_data : c->vars.domain_data;
    c->vars.local_part_data = str_is_set(local_part_data) ? local_part_data : c->vars.local_part_data;
  }
  return rc;
}

static int verify_recipient(struct ctx *c, const struct options *o) {
  struct acl_session *s = acl_session(c);
  if (!s || !s->recipient)
    return acl_fail(c, OUTCOME_ERROR, "no recipient to verify");
  struct answer found;
  c->user_message = c->log_message = STR_UNSET;
  int rc = verify_one(c, s->recipient->address, false, o, &found);
  if (rc == OUTCOME_DEFER && o->defer_ok) {
    c->user_message = c->log_message = STR_UNSET;
    return OUTCOME_OK;
  }
  if (rc != OUTCOME_OK)
    c->vars.acl_verify_message = str_is_set(c->user_message) ? c->user_message : c->log_message;
  if (rc != OUTCOME_OK && o->quota)
    c->user_message = STR_UNSET; /* how full mailboxes are is not for everybody, nor is anything else then: as in Exim */
  return rc;
}

static const char *sender_deferred(const struct acl_sender_verify *v, const struct options *o) {
  return o->callout && !str_eq_c(v->failure, "route") ? "Could not complete sender verify callout" : "Could not complete sender verify";
}

/* The answer for one sender is kept for the message, so that each RCPT does not route it again. */
static int verify_sender(struct ctx *c, const struct options *o) {
  struct acl_session *s = acl_session(c);
  if (c->message && !str_is_set(o->address))
    rewrite_message_sender(c, c->message); /* it stays rewritten */
  struct str address = str_is_set(o->address) ? o->address : c->message ? c->message->reverse_path : STR_EMPTY;
  if (address.len == 0)
    return OUTCOME_OK; /* nothing to verify in a bounce */
  struct acl_sender_verify once = {0}, *v = s ? &s->sender_verify : &once;
  if (!v->done || !str_eq(v->address, address) || !str_eq(v->how, o->text)) {
    struct answer found;
    bool reported = v->done && v->reported && str_eq(v->address, address);
    c->user_message = c->log_message = STR_UNSET;
    int rc = verify_one(c, address, true, o, &found);
    *v = (struct acl_sender_verify){.done = true, .address = str_dup(c->arena, address), .how = str_dup(c->arena, o->text),
        .result = rc, .reported = reported, .user = c->user_message, .log = c->log_message,
        .failure = c->vars.sender_verify_failure, .address_data = c->vars.sender_address_data};
    v->setup_failed = rc == OUTCOME_FAIL && str_eq_c(v->failure, "mail");
    v->postmaster_failed = rc == OUTCOME_FAIL && str_eq_c(v->failure, "postmaster");
  }
  c->vars.sender_verify_failure = v->failure;
  c->vars.sender_address_data = v->address_data;
  c->user_message = c->log_message = STR_UNSET;
  if (v->result == OUTCOME_OK)
    return OUTCOME_OK;
  if (v->result == OUTCOME_DEFER && o->defer_ok)
    return OUTCOME_OK;
  v->no_details = o->no_details;
  v->failed_now = true;
  c->log_message = v->result == OUTCOME_DEFER ? str_c(sender_deferred(v, o)) : STR("Sender verify failed");
  c->user_message = v->result == OUTCOME_DEFER && str_starts(v->user, c->log_message) ? v->user : c->log_message;
  c->vars.acl_verify_message = c->log_message;
  return v->result;
}

struct header_sender {
  const struct options *o;
  int result;
  bool any;
};

static int header_sender_one(struct ctx *c, const struct header *h, struct str item, struct str shown, void *arg) {
  struct header_sender *s = arg;
  struct mail_address address;
  struct str error;
  if (address_parse(c->arena, item, address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL), &address, &error) < 0 ||
      address.domain.len == 0)
    return 0;
  struct answer found;
  int rc = verify_one(c, address.address, true, s->o, &found);
  if (rc == OUTCOME_DEFER)
    s->result = OUTCOME_DEFER;
  return rc == OUTCOME_OK;
}

static int verify_header_sender(struct ctx *c, const struct options *o) {
  struct header_sender s = {o, OUTCOME_FAIL, false};
  static const char types[] = "SRF";
  for (int i = 0; i < 3; i++)
    for (const struct header *h = c->message->headers; h; h = h->next)
      if (h->type == types[i] && each_address(c, h, header_sender_one, &s) == 1) {
        c->user_message = c->log_message = STR_UNSET;
        return OUTCOME_OK;
      }
  c->user_message = c->log_message = STR_UNSET;
  if (s.result == OUTCOME_DEFER) {
    if (o->defer_ok)
      return OUTCOME_OK;
    c->user_message = c->log_message = STR("all attempts to verify a sender in a header line deferred");
    return OUTCOME_DEFER;
  }
  return after_data_failure(c, STR("there is no valid sender in any header line"));
}

/* ---- the client ---- */

static int verify_reverse(struct ctx *c, const struct options *o) {
  struct client *cl = c->client;
  if (!str_is_set(cl->host_address) || cl->host_address.len == 0)
    return OUTCOME_OK; /* not a host */
  if (str_is_set(cl->host_name) && cl->host_name.len > 0)
    return OUTCOME_OK;
  enum outcome rc = OUTCOME_FAIL;
  if (!cl->host_lookup_failed && !cl->host_lookup_deferred) {
    rc = host_name_lookup(c);
    if (c->session)
      client_set_fullhost(c->session->arena, cl);
  } else if (cl->host_lookup_deferred) {
    rc = OUTCOME_DEFER;
  }
  if (rc == OUTCOME_OK)
    return OUTCOME_OK;
  const char *state = rc == OUTCOME_DEFER ? "deferred" : "failed";
  c->log_message = str_printf(c->arena, "host lookup %s for reverse lookup check%s", state,
      rc == OUTCOME_DEFER ? "" : " (failed to find host name from IP address)");
  c->vars.acl_verify_message = c->log_message;
  if (main_options(c->config)->smtp_return_error_details)
    c->user_message = str_printf(c->arena, "host lookup %s", state);
  if (rc == OUTCOME_DEFER)
    return o->defer_ok ? OUTCOME_OK : OUTCOME_DEFER;
  return OUTCOME_FAIL;
}

int acl_eval_verify(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct options o;
  struct str error = STR_UNSET;
  const struct verify_word *w = parse(c->arena, arg, &o, &error);
  if (!w) {
    c->log_message = error;
    return OUTCOME_ERROR;
  }
  const char *name = o.def ? o.def->name : w->name;
  if ((o.def ? o.def->forbidden : w->forbidden) & ACL_BIT(c->acl->where))
    return acl_fail(c, OUTCOME_ERROR, "cannot verify %s in ACL for %s", name, acl_where_name(c->acl->where));
  switch (w->what) {
    case VERIFY_CERTIFICATE:
      if (smtp_client_certificate_verified(c))
        return OUTCOME_OK;
      c->user_message = STR("no verified certificate");
      return acl_fail(c, OUTCOME_FAIL, "no verified certificate");
    case VERIFY_CSA: return acl_verify_csa(c, o.domain);
    case VERIFY_HEADER_NAMES_ASCII: return verify_names_ascii(c);
    case VERIFY_HEADER_SENDER: return verify_header_sender(c, &o);
    case VERIFY_HEADER_SYNTAX: return verify_header_syntax(c);
    case VERIFY_HELO: return smtp_helo_verify(c) == OUTCOME_OK ? OUTCOME_OK : OUTCOME_FAIL;
    case VERIFY_NOT_BLIND: return verify_not_blind(c, &o);
    case VERIFY_RECIPIENT: return verify_recipient(c, &o);
    case VERIFY_REVERSE: return verify_reverse(c, &o);
    case VERIFY_SENDER: return verify_sender(c, &o);
    case VERIFY_MODULE: return o.def->eval(c, o.words);
    default: return acl_fail(c, OUTCOME_ERROR, "\"verify = %s\" is not supported yet", w->name);
  }
}
