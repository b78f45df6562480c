/* Retry records. A record's last_try tells its age. */
#include "queue/retry.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include "core/main_options.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "hints/records.h"
#include "log/log.h"
#include "message/message.h"
#include "queue/retry_rules.h"
#include "route/options.h"
#include "smtp/client/options.h"
#include "transport/options.h"

#define DATABASE "retry"
/* How many records were removed since the hints were begun. */
#define CLEARED_DATABASE "state"
#define CLEARED_KEY STR("retry-cleared")

/* --- records --- */

static bool record_get(struct ctx *c, struct str key, struct hint_retry *ret) {
  struct str value;
  if (main_options(c->config)->mua_wrapper)
    return false;
  if (hints_get(c, DATABASE, key, c->arena, &value) != OUTCOME_OK || !hint_retry_decode(value, ret))
    return false;
  return time(NULL) - ret->last_try <= main_options(c->config)->retry_data_expire;
}

static int add_one(struct arena *a, struct str *value, void *arg) {
  *value = str_printf(a, "%llu", str_is_set(*value) ? strtoull(str_dup_c(a, *value), NULL, 10) + 1 : 1);
  return 1;
}

/* Whoever waited for the record's time may be looked at again. */
static void record_forget(struct ctx *c, struct str key) {
  struct str value;
  if (hints_get(c, DATABASE, key, c->arena, &value) != OUTCOME_OK)
    return;
  hints_delete(c, DATABASE, key);
  (void)hints_update(c, CLEARED_DATABASE, CLEARED_KEY, add_one, NULL);
}

uint64_t retry_cleared(struct ctx *c) {
  struct str value;
  return hints_get(c, CLEARED_DATABASE, CLEARED_KEY, c->arena, &value) == OUTCOME_OK ? strtoull(str_dup_c(c->arena, value), NULL, 10) : 0;
}

/* When something of the message that c delivers is due again. */
static void note_next(struct ctx *c, int64_t next_try) {
  struct message *m = c->message;
  if (m && next_try > 0 && (m->next_attempt == 0 || next_try < m->next_attempt))
    m->next_attempt = next_try;
}

static int64_t message_age(const struct ctx *c) {
  return c->message ? time(NULL) - c->message->received_time.tv_sec : 0;
}

static struct str sender_of(const struct ctx *c) {
  return c->message ? c->message->reverse_path : STR_UNSET;
}

/* Has the message waited so long that the address is tried although its time has not come? */
static bool ultimate(struct ctx *c, struct str key, struct str alternate, const struct hint_retry *r) {
  const struct retry_rule *rule = retry_rule_find(c, key, alternate, r->basic_errno, r->more_errno, sender_of(c));
  return !rule || message_age(c) > retry_rule_cutoff(rule);
}

/* --- the next time --- */

/* "Retry intervals are computed from the rule's parameters until one that is greater than the previous is found." */
static int64_t next_interval(const struct retry_param *p, int64_t previous) {
  if (p->letter == 'F')
    return p->interval;
  if (p->letter == 'H') {
    int64_t most = previous > 0 ? previous * p->factor / 1000 : p->interval;
    return most > p->interval ? p->interval + random() % (most - p->interval + 1) : p->interval;
  }
  int64_t interval = p->interval;
  while (interval <= previous && p->factor > 1000 && interval < INT64_MAX / p->factor)
    interval = interval * p->factor / 1000 > interval ? interval * p->factor / 1000 : interval + 1;
  return interval;
}

struct failure {
  struct str key;             /* of the record */
  struct str match, alternate;/* for the rules */
  int basic_errno, more_errno;
  struct str text;
  bool of_message;            /* the message is the reason, not the place: its age counts */
};

struct update {
  struct ctx *c;
  const struct failure *f;
  const struct retry_rule *rule;
  int64_t now, next_try;
  bool given_up;
};

static void compute(struct update *u, struct hint_retry *r, bool known) {
  const struct retry_rule *rule = u->rule;
  int64_t arrived = u->c->message ? u->c->message->received_time.tv_sec : u->now;
  if (!known)
    *r = (struct hint_retry){.first_failed = u->now, .next_try = 0, .last_try = 0};
  if (u->f->of_message && arrived < r->first_failed)
    r->first_failed = arrived;
  int64_t failing = u->now - r->first_failed;
  size_t i = 0;
  while (i < rule->n && rule->v[i].cutoff <= failing)
    i++;
  u->given_up = i == rule->n;
  r->expired = u->given_up;
  if (rule->n == 0) {
    r->next_try = u->now; /* a rule without times: never again */
  } else if (!u->given_up && message_age(u->c) > retry_rule_cutoff(rule)) {
    /* The message waits for longer than the rule allows: it gives up, and others are tried as before. */
    u->given_up = true;
    r->next_try = u->now;
  } else {
    const struct retry_param *p = &rule->v[i < rule->n ? i : rule->n - 1];
    int64_t interval = next_interval(p, r->last_try > 0 ? r->next_try - r->last_try : 0);
    int64_t most = main_options(u->c->config)->retry_interval_max;
    r->next_try = u->now + (interval > most ? most : interval);
  }
  r->last_try = u->now;
  r->basic_errno = u->f->basic_errno;
  r->more_errno = u->f->more_errno;
  r->text = u->f->text;
  u->next_try = r->next_try;
}

static int update_record(struct arena *a, struct str *value, void *arg) {
  struct update *u = arg;
  struct hint_retry r;
  bool known = str_is_set(*value) && hint_retry_decode(*value, &r) &&
    u->now - r.last_try <= main_options(u->c->config)->retry_data_expire;
  compute(u, &r, known);
  *value = hint_retry_encode(a, &r);
  return 1;
}

/* True: no time is left. */
static bool record_failure(struct ctx *c, const struct failure *f) {
  struct update u = {.c = c, .f = f, .now = time(NULL)};
  if (main_options(c->config)->mua_wrapper) /* there is no next time */
    return false;
  u.rule = retry_rule_find(c, f->match, f->alternate, f->basic_errno, f->more_errno, sender_of(c));
  if (!u.rule) {
    DEBUG(retry, "no retry rule for %.*s: the address fails\n", STRF(f->match));
    return true;
  }
  if (hints_update(c, DATABASE, f->key, update_record, &u) != OUTCOME_OK)
    u.next_try = u.now + (u.rule->n ? u.rule->v[0].interval : 0); /* the store is unusable: the first interval, always */
  DEBUG(retry, "retry of %.*s at %lld%s\n", STRF(f->key), (long long)u.next_try, u.given_up ? ", given up" : "");
  if (!u.given_up)
    note_next(c, u.next_try);
  return u.given_up;
}

/* --- addresses --- */

static struct str full_address(struct ctx *c, const struct address *a) {
  struct str local = a->caseful ? a->cc_local_part : a->lc_local_part;
  return str_printf(c->arena, "%.*s@%.*s", STRF(str_is_set(local) ? local : a->local_part), STRF(a->domain));
}

static struct str key_of(struct ctx *c, char kind, struct str what) {
  struct str key = str_printf(c->arena, "%c:%.*s", kind, STRF(what));
  key.taint = what.taint;
  return key;
}

static struct str key_with_sender(struct ctx *c, struct str address) {
  struct str sender = sender_of(c);
  return str_tainted(str_printf(c->arena, "R:%.*s:<%.*s>", STRF(address), STRF(sender)));
}

/* What a local delivery's record is about. */
static struct str local_subject(struct ctx *c, const struct address *a) {
  if (a->kind != ADDRESS_MAIL)
    return a->unique;
  return transport_options(a->transport)->retry_use_local_part ? full_address(c, a) : a->domain;
}

/* `expires`: a record past its cutoff lets the address through (to be tried once and fail). */
static bool ready(struct ctx *c, struct str key, struct str match, bool expires) {
  struct hint_retry r;
  if (!record_get(c, key, &r) || time(NULL) >= r.next_try || (expires && r.expired))
    return true;
  if (ultimate(c, match, STR_UNSET, &r))
    return true;
  DEBUG(retry, "%.*s: retry time not reached\n", STRF(key));
  c->error = r.text;
  note_next(c, r.next_try);
  return false;
}

bool retry_address_ready(struct ctx *c, const struct address *a, bool routing) {
  if (!routing) {
    struct str subject = local_subject(c, a);
    return ready(c, key_of(c, 'T', subject), subject, true);
  }
  struct str full = full_address(c, a);
  return ready(c, key_of(c, 'R', a->domain), a->domain, true) && ready(c, key_of(c, 'R', full), full, false) &&
    ready(c, key_with_sender(c, full), full, false);
}

bool retry_routing_failed(struct ctx *c, const struct address *a) {
  struct hint_retry r;
  return record_get(c, key_of(c, 'R', a->domain), &r);
}

static bool is_of_message(int error) {
  return error == ERROR_MAIL_4XX || error == ERROR_DATA_4XX || error == ERROR_STS_POLICY || error == ERROR_QUOTA || error == EDQUOT;
}

bool retry_address_deferred(struct ctx *c, struct address *a) {
  if (a->refusal)
    a = a->refusal;
  struct failure f = {.basic_errno = a->basic_errno, .more_errno = a->more_errno, .text = a->message};
  if (a->basic_errno <= ERROR_RETRY_BASE)
    return false;
  if (a->transport && !((const struct transport_def *)a->transport->driver)->local) {
    bool prdr = a->basic_errno == 0 && a->used_prdr; /* the same, said after the data */
    if ((a->basic_errno == ERROR_RCPT_4XX || prdr || a->retry_address) && a->host_used)
      return retry_recipient_deferred(c, a->transport, a, a->host_used, a->message);
    return retry_hosts_exhausted(c, a->transport, a);
  }
  f.alternate = STR_UNSET;
  f.of_message = is_of_message(a->basic_errno);
  if (a->transport) {
    f.match = local_subject(c, a);
    f.key = key_of(c, 'T', f.match);
  } else {
    bool local_part = a->router && router_options(a->router)->retry_use_local_part > 0;
    f.match = local_part ? full_address(c, a) : a->domain;
    f.key = key_of(c, 'R', f.match);
  }
  return record_failure(c, &f);
}

void retry_address_succeeded(struct ctx *c, const struct address *a) {
  struct str full = full_address(c, a);
  if (a->time_taken == 0) { /* routed, not yet delivered */
    record_forget(c, key_of(c, 'R', a->domain));
    record_forget(c, key_of(c, 'R', full));
    return;
  }
  if (a->transport && !a->host_used)
    record_forget(c, key_of(c, 'T', local_subject(c, a)));
  else
    record_forget(c, key_with_sender(c, full));
  record_forget(c, key_of(c, 'R', full));
}

/* --- hosts --- */

/* The reply code in "SMTP error from remote mail server after …: 4xx …", as digits behind the 4. */
static int code_digits(struct str text) {
  for (uint32_t i = 0; i + 5 <= text.len; i++) {
    const char *p = text.p + i;
    if (p[0] == ':' && p[1] == ' ' && p[2] == '4' && p[3] >= '0' && p[3] <= '9' && p[4] >= '0' && p[4] <= '9')
      return (p[3] - '0') * 10 + p[4] - '0';
  }
  return 0;
}

static int more_of_host(const struct host *h, int *error, struct str text) {
  int more = h->mx >= 0 ? 'M' : 'A';
  /* A timeout in the dialogue says at what. */
  if (*error == ERROR_CONNECT_TIMEOUT || (*error == ETIMEDOUT && str_find(text, STR(" timeout after ")) < 0)) {
    *error = ETIMEDOUT;
    more |= RETRY_CONNECT_TIMEOUT;
  } else if (*error == ERROR_MAIL_4XX || *error == ERROR_RCPT_4XX || *error == ERROR_DATA_4XX) {
    more |= code_digits(text) << RETRY_CODE_SHIFT;
  }
  return more;
}

/* What a server said is kept with the server's name. */
static struct str text_of_host(struct ctx *c, const struct host *h, struct str text) {
  if (!str_starts(text, STR("SMTP ")) && !str_starts(text, STR("LMTP ")))
    return text;
  return str_tainted(str_printf(c->arena, "H=%.*s [%.*s]: %.*s", STRF(h->name), STRF(h->address), STRF(text)));
}

static struct str bracketed(struct ctx *c, struct str s) {
  struct ip_addr ip;
  return ip_parse(s, &ip) ? str_printf(c->arena, "[%.*s]", STRF(s)) : s;
}

/* T:host:ip[:port][/interface]; the address is left out when retry_include_ip_address says so, a port of 25 always. */
static struct str host_key(struct ctx *c, const struct instance *t, const struct host *h, int port) {
  bool with_ip = true;
  struct str address = h->address;
  if (expand_option_bool(c, &smtp_client_options(t)->retry_include_ip_address, "retry_include_ip_address", &with_ip))
    with_ip = true;
  if (str_find_byte(address, ':') >= 0)
    address = bracketed(c, address);
  struct str key = str_printf(c->arena, "T:%.*s", STRF(bracketed(c, h->name)));
  if (with_ip)
    key = str_printf(c->arena, "%.*s:%.*s", STRF(key), STRF(address));
  if (port != 25 && port > 0)
    key = str_printf(c->arena, "%.*s:%d", STRF(key), port);
  /* From another address of ours the host may answer otherwise. */
  struct str interface;
  if (expand_option(c, &smtp_client_options(t)->interface, &interface) == 0 && str_is_set(interface) && interface.len)
    key = str_printf(c->arena, "%.*s/%.*s", STRF(key), STRF(interface));
  return str_tainted(key);
}

static struct str message_key(struct ctx *c, struct str host) {
  return str_tainted(str_printf(c->arena, "%.*s:%s", STRF(host), c->message ? c->message->id : ""));
}

static struct str domain_of(const struct ctx *c) {
  return c->address ? c->address->domain : STR_UNSET;
}

/* Fresh messages wait for a host too; only the message's own age may overrule. */
static bool host_record_ready(struct ctx *c, const struct instance *t, struct str key, const struct host *h) {
  struct hint_retry r;
  if (!record_get(c, key, &r) || time(NULL) >= r.next_try || ultimate(c, h->name, domain_of(c), &r))
    return true;
  if (r.expired && !smtp_client_options(t)->delay_after_cutoff && c->message &&
      r.last_try < c->message->received_time.tv_sec)
    return true;
  if (!r.expired)
    note_next(c, r.next_try);
  return false;
}

bool retry_host_ready(struct ctx *c, const struct instance *t, const struct host *h, int port) {
  struct str key = host_key(c, t, h, port);
  return host_record_ready(c, t, key, h) && host_record_ready(c, t, message_key(c, key), h);
}

bool retry_host_same(struct ctx *c, const struct instance *t, const struct host *a, int a_port, const struct host *b, int b_port) {
  return str_eq(host_key(c, t, a, a_port), host_key(c, t, b, b_port));
}

void retry_host_failed(struct ctx *c, const struct instance *t, const struct host *h, int port, int error,
    struct str text) {
  struct failure f = {.match = h->name, .alternate = domain_of(c)};
  f.text = text_of_host(c, h, text);
  f.more_errno = more_of_host(h, &error, text);
  f.basic_errno = error;
  f.of_message = is_of_message(error);
  f.key = host_key(c, t, h, port);
  if (f.of_message) {
    record_forget(c, f.key); /* the host itself answers */
    f.key = message_key(c, f.key);
  }
  (void)record_failure(c, &f); /* whether all hosts gave up is asked later: retry_hosts_exhausted */
}

void retry_host_ok(struct ctx *c, const struct instance *t, const struct host *h, int port) {
  struct str key = host_key(c, t, h, port);
  record_forget(c, key);
  record_forget(c, message_key(c, key));
}

bool retry_host_exhausted(struct ctx *c, const struct instance *t, const struct host *h, int port) {
  struct hint_retry r;
  struct str key = host_key(c, t, h, port);
  if (!record_get(c, message_key(c, key), &r) && !record_get(c, key, &r))
    return false;
  if (r.expired)
    return true;
  const struct retry_rule *rule =
    retry_rule_find(c, h->name, domain_of(c), r.basic_errno, r.more_errno, sender_of(c));
  return !rule || !rule->n || message_age(c) > retry_rule_cutoff(rule);
}

/* A host without any record has not failed, but where there is no rule nothing is ever tried again. */
static bool never_again(struct ctx *c, const struct instance *t, const struct host *h) {
  return retry_host_exhausted(c, t, h, h->port) || !retry_rule_find(c, h->name, domain_of(c), 0, 0, sender_of(c));
}

bool retry_hosts_exhausted(struct ctx *c, const struct instance *t, const struct address *chain) {
  bool any = false;
  struct address *saved = c->address;
  c->address = (struct address *)(uintptr_t)chain;
  bool all = true;
  for (const struct host *h = chain->hosts; h && all; h = h->next) {
    if (!h->address.len)
      continue;
    any = true;
    all = never_again(c, t, h);
  }
  c->address = saved;
  return any && all;
}

bool retry_recipient_deferred(struct ctx *c, const struct instance *t, const struct address *a, const struct host *h,
    struct str text) {
  int error = a->retry_address ? a->basic_errno : ERROR_RCPT_4XX;
  struct str full = full_address(c, a);
  struct failure f = {.match = full, .alternate = STR_UNSET};
  f.text = text_of_host(c, h, text);
  f.more_errno = more_of_host(h, &error, text);
  f.basic_errno = error;
  f.key = smtp_client_options(t)->address_retry_include_sender ? key_with_sender(c, full) : key_of(c, 'R', full);
  return record_failure(c, &f);
}
