/* The smtp transport: which hosts are tried in which order, and what it means
for the addresses when one fails (Exim manual, chapter "The smtp transport"). */

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <time.h>

#include "core/main_options.h"
#include "deliver/errors.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "hints/records.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"
#include "queue/retry.h"
#include "route/router.h"
#include "smtp/client/client.h"
#include "smtp/client/patience.h"
#include "transport/command.h"
#include "transport/event.h"
#include "transport/options.h"
#include "transport/transport.h"

#define RANDOM_KEYS 100

extern const struct transport_def transport_smtp;

/* A host has refused the address for now, so that it goes to the next one. */
struct setback {
  struct address *refusal; /* as it was then; NULL: nobody has */
  bool overtaken;          /* another host failed afterwards */
};

struct delivery {
  struct ctx *c;
  const struct instance *t;
  const struct smtp_client_options *o;
  struct address *chain;
  bool alone;       /* mua_wrapper: nothing is kept for later */
  struct transport_message message;
  bool built;
  struct str interface;
  int default_port;
  int tried;        /* hosts that count against hosts_max_try */
  int tried_total;
  int transactions;
  VEC(struct host *) attempted;
  bool fallback;             /* other hosts come behind those that are tried now */
  struct setback *setbacks;  /* by place in the chain; NULL: none yet */
  int unfit;        /* hosts that may not get the message (REQUIRETLS) … */
  int failed;       /* … and those that failed otherwise */
  int skipped;      /* because their retry time has not come */
  int busy;         /* because they keep many others waiting (patience.h) */
  struct host *last;
  int last_error;
  struct str last_text;
  int refused;      /* of those that failed: they said 5xx before MAIL */
  struct smtp_connection *over; /* that alone may be used; taken by the first attempt */
  bool only_over;
  bool reversed;    /* it is one that the other side has made: there is no way to make another */
};

static bool any_pending(const struct address *chain) {
  for (; chain; chain = chain->next)
    if (chain->result == OUTCOME_DEFER && chain->basic_errno == SMTP_PENDING)
      return true;
  return false;
}

/* What all that still wait get: the same outcome. */
static void settle_pending(struct delivery *d, enum outcome o, int error, struct str text, struct host *h) {
  for (struct address *a = d->chain; a; a = a->next)
    if (a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING) {
      a->result = o;
      a->basic_errno = error;
      a->message = text;
      a->panic = o == OUTCOME_DEFER && error == ERROR_UNKNOWN;
      a->host_used = h;
      a->host_used_port = h ? h->port : 0;
    }
}

static bool settle_expand(struct delivery *d, const char *what) {
  settle_pending(d, OUTCOME_DEFER, ERROR_EXPAND_FAIL,
      str_printf(d->c->arena, "failed to expand %s for %.*s transport: %.*s", what, STRF(d->t->name), STRF(d->c->error)), NULL);
  return false;
}

static bool settle_unknown(struct delivery *d, struct str text) {
  settle_pending(d, OUTCOME_DEFER, ERROR_UNKNOWN, text, NULL);
  return false;
}

/* `interface`: a list of addresses; a forced failure is as if there were none. */
static bool choose_interface(struct delivery *d) {
  struct list_iter it;
  struct str item;
  struct ip_addr ip;
  if (!str_is_set(d->o->interface.text))
    return true;
  int e = expand_option(d->c, &d->o->interface, &d->interface);
  if (e == OUTCOME_FORCED) {
    d->interface = STR_EMPTY;
    return true;
  }
  if (e)
    return settle_unknown(d, str_printf(d->c->arena, "failed to expand \"interface\" option for %.*s transport: %.*s", STRF(d->t->name),
        STRF(d->c->error)));
  list_iter_init(&it, d->c->arena, d->interface);
  while (list_next(&it, &item))
    if (item.len && !ip_parse(item, &ip))
      return settle_unknown(d, str_printf(d->c->arena, "\"%.*s\" is not a valid IP address for the \"interface\" option for %.*s transport",
          STRF(item), STRF(d->t->name)));
  return true;
}

static bool choose_port(struct delivery *d) {
  struct str text;
  uint64_t n;
  d->default_port = d->o->lmtp ? 24 : d->o->tls_on_connect ? 465 : 25;
  if (!str_is_set(d->o->port.text))
    return true;
  if (expand_option(d->c, &d->o->port, &text))
    return settle_unknown(d, str_printf(d->c->arena, "failed to expand \"%.*s\" (\"port\" option) for %.*s transport: %.*s",
        STRF(d->o->port.text), STRF(d->t->name), STRF(d->c->error)));
  if (str_to_u64(text, &n) && n > 0 && n < 65536) {
    d->default_port = (int)n;
    return true;
  }
  struct servent *s = text.len < 64 ? getservbyname(str_dup_c(d->c->arena, text), "tcp") : NULL;
  if (s) {
    d->default_port = ntohs((uint16_t)s->s_port);
    return true;
  }
  if (str_eq_c(text, "smtp"))
    return true;
  return settle_unknown(d, str_printf(d->c->arena, "TCP port \"%.*s\" is not defined for %.*s transport", STRF(text), STRF(d->t->name)));
}

/* A copy of the router's list in random order. One from MX records has its order, and one that the router has put in random
order already is as good. */
static struct host *in_random_order(struct ctx *c, const struct host *list) {
  struct host *sorted = NULL;
  for (const struct host *h = list; h; h = h->next)
    if (h->mx != -1)
      return (struct host *)list;
  for (const struct host *h = list; h; h = h->next) {
    struct host *copy = arena_memdup(c->arena, h, sizeof *h), **link = &sorted;
    copy->sort_key = (int)host_random(RANDOM_KEYS);
    while (*link && (*link)->sort_key <= copy->sort_key)
      link = &(*link)->next;
    copy->next = *link;
    *link = copy;
  }
  return sorted;
}

/* The router's hosts, or the transport's own when there are none or it overrides. */
static bool choose_hosts(struct delivery *d, struct host **ret) {
  struct str text;
  bool randomize = false;
  *ret = d->chain->hosts;
  if (*ret && !d->o->hosts_override) {
    if (!(*ret)->next || !str_is_set(d->o->hosts_randomize.text))
      return true;
    if (expand_option_bool(d->c, &d->o->hosts_randomize, "hosts_randomize", &randomize))
      return settle_expand(d, "hosts_randomize");
    if (randomize)
      *ret = in_random_order(d->c, *ret);
    return true;
  }
  if (!str_is_set(d->o->hosts.text)) {
    settle_pending(d, OUTCOME_DEFER, ERROR_UNKNOWN, str_printf(d->c->arena, "%.*s transport called with no hosts set", STRF(d->t->name)), NULL);
    return false;
  }
  if (expand_option(d->c, &d->o->hosts, &text))
    return settle_unknown(d, str_printf(d->c->arena, "failed to expand list of hosts \"%.*s\" in %.*s transport: %.*s", STRF(d->o->hosts.text),
        STRF(d->t->name), STRF(d->c->error)));
  if (expand_option_bool(d->c, &d->o->hosts_randomize, "hosts_randomize", &randomize))
    return settle_expand(d, "hosts_randomize");
  *ret = router_host_list(d->c, text, randomize);
  if (*ret)
    return true;
  return settle_unknown(d, str_printf(d->c->arena, "%.*s transport has empty hosts setting", STRF(d->t->name)));
}

static bool in_domains(struct delivery *d, const struct option_expr *list, struct str name) {
  return str_is_set(list->text) && match_domain(d->c, list, name, NULL) == OUTCOME_OK;
}

/* dnssec_request_domains and dnssec_require_domains, for the addresses of one name. */
static enum host_find check_security(struct delivery *d, struct host *h, struct str name, enum host_find f) {
  bool require = in_domains(d, &d->o->dnssec_require_domains, name);
  if (require && !h->dnssec)
    return HOST_FIND_SECURITY;
  if (!require && !in_domains(d, &d->o->dnssec_request_domains, name))
    for (struct host *i = h; i && str_eq(i->name, h->name); i = i->next)
      i->dnssec = false;
  return f;
}

/* A host that is only a name gets its addresses; each makes a host of its own in the chain. */
static bool find_address(struct delivery *d, struct host *h) {
  struct str full;
  if (str_is_set(h->address) && h->address.len)
    return true;
  if (ip_parse(h->name, &h->ip)) {
    h->address = ip_text(d->c->arena, &h->ip);
    return true;
  }
  unsigned flags = (d->o->gethostbyname ? 0 : HOST_FIND_BY_A | HOST_FIND_BY_AAAA) | (d->o->dns_qualify_single ? HOST_FIND_QUALIFY_SINGLE : 0) |
                   (d->o->dns_search_parents ? HOST_FIND_SEARCH_PARENTS : 0);
  struct str asked = h->name;
  enum host_find f = host_find_addresses(d->c, d->c->arena, h, flags, NULL, &full);
  if (f == HOST_FOUND || f == HOST_FOUND_LOCAL)
    f = check_security(d, h, asked, f);
  if (f == HOST_FOUND || (f == HOST_FOUND_LOCAL && d->o->allow_localhost))
    return true;
  d->last = h;
  d->last_error = ERROR_UNKNOWN_HOST;
  d->last_text = f == HOST_FIND_SECURITY ? str_printf(d->c->arena, "the addresses of %.*s are not DNSSEC-secured", STRF(h->name))
                 : f == HOST_FOUND_LOCAL
                     ? str_printf(d->c->arena, "%.*s transport found host %.*s to be local", STRF(d->t->name), STRF(h->name))
                     : str_printf(d->c->arena, "failed to lookup IP address for %.*s", STRF(h->name));
  return false;
}

bool smtp_choose_hosts(struct ctx *c, const struct instance *t, const struct address *a, struct host **ret, int *ret_port,
    struct str *ret_error) {
  struct address one = *a;
  struct delivery d = {.c = c, .t = t, .o = smtp_client_options(t), .chain = &one};
  one.next = NULL;
  one.result = OUTCOME_DEFER;
  one.basic_errno = SMTP_PENDING;
  bool ok = choose_hosts(&d, ret) && choose_port(&d);
  *ret_port = d.default_port;
  *ret_error = one.message;
  return ok;
}

/* Was it made under conditions that are good enough for c->message, too? */
static bool strict_enough(struct ctx *c, const struct smtp_connection *n, struct str domain) {
  const struct smtp_client_options *o = smtp_client_options(n->transport);
  return (n->requiretls == REQUIRETLS_NEEDED || n->requiretls == smtp_requiretls_mode(c, o)) && n->dane.mode == smtp_dane_mode(c, o) &&
         (!n->sts.watched || str_ieq(n->sts.domain, domain));
}

/* Whose name and certificate nobody has looked at is not fit for messages that need that. */
static bool fits_reversed(struct ctx *c, const struct smtp_client_options *o) {
  return smtp_requiretls_mode(c, o) != REQUIRETLS_NEEDED && smtp_dane_mode(c, o) < DANE_REQUIRE;
}

bool smtp_goes_over(struct ctx *c, const struct smtp_connection *n, struct address *a) {
  struct host *hosts, *saved = c->host;
  struct str error;
  int port;
  bool found = false;
  bool same = n->reversed ? a->transport->driver == &transport_smtp.driver && !smtp_client_options(a->transport)->lmtp
                          : a->transport == n->transport;
  if (!same || n->ended || !smtp_choose_hosts(c, a->transport, a, &hosts, &port, &error))
    return false;
  for (struct host *h = hosts; h && !found; h = h->next) {
    c->host = h;
    found = str_ieq(h->name, n->host_name) && (h->port > 0 ? h->port : port) == n->port &&
            (n->reversed ? fits_reversed(c, smtp_client_options(a->transport)) : strict_enough(c, n, a->domain));
  }
  c->host = saved;
  return found;
}

static void smtp_waits(struct ctx *c, const struct instance *t, struct address *a) {
  struct host *hosts;
  struct str error;
  int port;
  if (smtp_choose_hosts(c, t, a, &hosts, &port, &error))
    smtp_wait_note(c, t, hosts, port);
}

static int host_port(struct delivery *d, const struct host *h) { return h->port > 0 ? h->port : d->default_port; }

/* One of our own addresses is not sent to, unless the options say so (a loop). */
static bool is_forbidden_local(struct delivery *d, struct host *h) {
  if (d->o->allow_localhost || !h->is_local)
    return false;
  return host_port(d, h) == 25;
}

bool smtp_find_address(struct ctx *c, const struct instance *t, struct host *h, int port, struct str *ret_error) {
  struct delivery d = {.c = c, .t = t, .o = smtp_client_options(t), .default_port = port};
  bool routed = str_is_set(h->address);
  if (!find_address(&d, h)) {
    *ret_error = d.last_text;
    return false;
  }
  if (routed || !is_forbidden_local(&d, h))
    return true;
  *ret_error = str_printf(c->arena, "%.*s transport found host %.*s to be local", STRF(t->name), STRF(h->name));
  return false;
}

/* The host to be tried behind h. When h is the last that hosts_max_try allows and there are others of a worse MX value, h
is not counted and the first of those is next, so that each MX value has its chance (Exim manual, "How the limits for the
number of hosts to try are used"). */
static struct host *count_host(struct delivery *d, struct host *h) {
  d->tried_total++;
  if (retry_host_exhausted(d->c, d->t, h, host_port(d, h)))
    return h->next; /* tried, so that it can be given up, but not counted */
  d->tried++;
  if (d->tried < d->o->hosts_max_try)
    return h->next;
  for (struct host *n = h->next; n; n = n->next)
    if (n->mx > h->mx) {
      d->tried--;
      return n;
    }
  return h->next;
}

static bool may_try(const struct delivery *d) {
  return d->tried < d->o->hosts_max_try && d->tried_total < d->o->hosts_max_try_hardlimit;
}

/* Nothing that the host has done: it is not named. */
static bool is_our_own(int error) { return error == ERROR_AUTH_FAIL || error == ERROR_AUTH_PROBLEM || error == ERROR_EXPAND_FAIL; }

/* The name to greet with, and what an event says to the greeting, may be made of what the connection is: that counts as the
host's. */
static bool is_option(int error, struct str text) {
  return error == ERROR_EXPAND_FAIL && !str_starts(text, STR("failed to expand helo_data")) && !str_starts(text, STR("deferred by "));
}

static void log_host_error(struct delivery *d, struct host *h, int error, struct str text) {
  if (error == ERROR_TLS_FAILURE || (is_our_own(error) && (error != ERROR_EXPAND_FAIL || is_option(error, text)))) /* the address says it, or the next attempt without TLS did */
    return;
  /* A refused connection is the host's; what it said in a session is shown after a colon. */
  bool plain = error > 0 && error != ETIMEDOUT && !str_starts(text, STR("SMTP"));
  struct str port = log_selected(LOGSEL_outgoing_port) ? str_printf(d->c->arena, ":%d", host_port(d, h)) : STR_EMPTY;
  if (error == ERROR_EVENT)
    plain = true;
  if (error == ETIMEDOUT && !str_starts(text, STR("SMTP")) && !str_starts(text, STR("LMTP")))
    plain = true;
  bool timeout = error == ETIMEDOUT && !plain;
  if (error == EACCES && str_starts(text, STR("smtp send to"))) { /* it may not go unsigned: nothing that the host did */
    plain = false;
    timeout = true;
  }
  struct str line = str_printf(d->c->arena, "H=%.*s [%.*s]%.*s%s %.*s%s%s", STRF(h->name), STRF(h->address), STRF(port), plain ? "" : ":",
      STRF(log_printable(d->c->arena, text)), timeout ? ": " : "", timeout ? strerror(error) : "");
  log_write(LOG_MAIN, d->c->message, "%.*s", STRF(line));
  d->chain->host_errors = str_printf(d->c->arena, "%.*s%.*s\n", STRF(d->chain->host_errors), STRF(line));
}

/* Messages that one connection may carry, by our option and by what the server says; 0: any number. */
static int64_t messages_max(const struct delivery *d, const struct smtp_connection *n) {
  int64_t max = d->o->connection_max_messages, limit = n->offers.limit_mails;
  return limit > 0 && (max <= 0 || limit < max) ? limit : max;
}

static bool used_up(const struct delivery *d, const struct smtp_connection *n) {
  int64_t max = messages_max(d, n);
  return max > 0 && n->messages >= max;
}

static struct str first_pending_domain(const struct delivery *d) {
  const struct address *a = d->chain;
  while (a && !(a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING))
    a = a->next;
  return a ? a->domain : STR_UNSET;
}

/* A connection that DANE verified carries one domain's recipients of a message (manual, multi_domain). */
static bool other_domain(const struct delivery *d, const struct smtp_connection *n, struct str domain) {
  return n->dane.in_effect && any_pending(d->chain) && !str_ieq(first_pending_domain(d), domain);
}

/* Sends as often as max_rcpt makes it necessary over one connection. */
static enum smtp_stage_result send_all(struct delivery *d, struct smtp_connection *n, bool *ret_other) {
  enum smtp_stage_result r = SMTP_OK;
  struct str domain = first_pending_domain(d);
  *ret_other = false;
  while (any_pending(d->chain)) {
    if ((*ret_other = other_domain(d, n, domain)))
      break;
    r = smtp_send_message(d->c, n, d->chain, &d->message);
    d->transactions++;
    for (struct address *a = d->chain; a; a = a->next)
      if (a->result == OUTCOME_OK && !a->transaction)
        a->transaction = d->transactions;
    if (r || n->gone)
      return r;
    if (used_up(d, n))
      break;
  }
  return r;
}

static void host_failed(struct delivery *d, struct host *h, int error, struct str text) {
  if (d->reversed) { /* the next time it comes from another port: nothing is to be learnt of this one */
    log_host_error(d, h, error, text);
    return;
  }
  d->last = h;
  d->last_error = error;
  d->last_text = text;
  bool unfit = smtp_requiretls_unfit(error) || error == ERROR_DANE_REQUIRED;
  if (error != ERROR_DANE_REQUIRED || h->next) /* else the address says it */
    log_host_error(d, h, error, text);
  d->unfit += unfit;
  d->failed += !unfit;
  if (unfit)
    return;
  struct str unused;
  if (error != ERROR_EVENT)
    (void)event_raise(d->c, d->t, "msg:host:defer", text, error, &unused);
  if (!is_option(error, text))
    retry_host_failed(d->c, d->t, h, host_port(d, h), error, text);
}

/* The host takes messages, but not this one now: a line of its own, as for errors of hosts. */
static bool log_refused_message(struct delivery *d, struct host *h) {
  for (const struct address *a = d->o->lmtp ? NULL : d->chain; a; a = a->next)
    if (a->result == OUTCOME_DEFER && a->host_used == h &&
        (a->basic_errno == ERROR_MAIL_4XX || a->basic_errno == ERROR_DATA_4XX)) {
      log_host_error(d, h, a->basic_errno, a->message);
      return true;
    }
  return false;
}

/* serialize_hosts: one connection at a time to the host, from the whole site. False: there is one. */
static bool enter_host(struct delivery *d, const struct host *h, struct str *ret_key) {
  *ret_key = STR_UNSET;
  if (!str_is_set(d->o->serialize_hosts.text) ||
      match_host(d->c, &d->o->serialize_hosts, h->name, h->address, NULL) != OUTCOME_OK)
    return true;
  struct str key = str_printf(d->c->arena, "host-serialize-%.*s", STRF(h->name));
  if (!hint_count_enter(d->c, key, 1))
    return false;
  *ret_key = key;
  return true;
}

/* What cannot be sent to a server like this: it does not know SMTPUTF8, or an address has no ASCII form. */
static void settle_unsendable(struct delivery *d, struct smtp_connection *n, struct host *h) {
  enum smtp_utf8 mode;
  struct str why = STR_EMPTY, unused;
  int rc = smtp_utf8_mode(d->c, n, d->chain->prop.utf8_msg, &mode, &why);
  if (!rc && !smtp_utf8_address(d->c, mode, d->message.return_path, &unused, &why))
    rc = OUTCOME_FAIL;
  if (rc) {
    settle_pending(d, rc == OUTCOME_FAIL ? OUTCOME_FAIL : OUTCOME_DEFER, ERROR_UTF8, why, h);
    log_host_error(d, h, ERROR_UTF8, why);
    return;
  }
  for (struct address *a = d->chain; a; a = a->next)
    if (a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING &&
        !smtp_utf8_address(d->c, mode, smtp_rcpt_address(d->c, d->t, a), &unused, &why)) {
      a->result = OUTCOME_FAIL;
      a->basic_errno = ERROR_UTF8;
      a->message = why;
    }
}

static bool any_sent(const struct delivery *d, const struct host *h) {
  for (const struct address *a = d->chain; a; a = a->next)
    if (a->result == OUTCOME_OK && a->host_used == h)
      return true;
  return false;
}

static bool listed(const struct delivery *d, const struct option_expr *hosts, const struct smtp_connection *n) {
  return str_is_set(hosts->text) && match_host(d->c, hosts, n->host_name, n->host_address, NULL) == OUTCOME_OK;
}

/* The connection is good for more: another message that waits for the host gets it, or the pool. */
static void keep(struct delivery *d, struct smtp_connection *n, const struct host *h) {
  if (n->reversed)
    return;
  if (d->alone || (n->tls && listed(d, &d->o->hosts_nopass_tls, n))) {
    smtp_disconnect(n, true);
    return;
  }
  if (d->c->message->follows && any_sent(d, h) && smtp_wait_next(d->c, n, &n->waiting)) {
    n->waiting.queue_name = str_dup(n->arena, n->waiting.queue_name);
    n->user = NULL;
    n->next = d->c->message->held;
    d->c->message->held = n;
    return;
  }
  smtp_pool_keep(n);
}

/* The connection that an earlier message has left for this one, or one of the pool. */
static struct smtp_connection *take_connection(struct delivery *d, int port) {
  struct smtp_connection *n = d->over;
  d->over = NULL;
  if (d->reversed && n) { /* it may have had another transport */
    n->mail_answered = n->address_error = false;
    n->error = 0;
    return n;
  }
  if (n && !strict_enough(d->c, n, d->chain->domain)) {
    smtp_pool_keep(n);
    n = NULL;
  }
  if (!n)
    n = smtp_pool_take(smtp_pool_key(d->c, d->t, port, d->interface));
  if (!n)
    return NULL;
  n->transport = d->t; /* a callout that made it had its own time limits */
  n->mail_answered = n->address_error = false;
  /* What went wrong with the message before is in the memory of its delivery. */
  n->error = 0;
  n->error_text = n->command = STR_EMPTY;
  n->reply = (struct smtp_reply){.text = STR_EMPTY};
  return n;
}

/* 5xx before MAIL: other hosts may take it. It is for good when all say so. */
static void host_refused(struct delivery *d, struct host *h, int error, struct str text) {
  host_failed(d, h, error, text);
  d->refused++;
}

/* Not this message: who has made the connection may have others for it. */
static void leave(struct smtp_connection *n) {
  if (!n->reversed)
    smtp_disconnect(n, true);
}

/* Everything over one host: connect or take a kept connection, send. */
static void use_host(struct delivery *d, struct host *h) {
  struct ctx *c = d->c;
  int port = host_port(d, h), error = 0;
  enum smtp_stage_result why = SMTP_OK;
  struct str text = STR_EMPTY, command = STR_EMPTY, reply = STR_EMPTY;
  c->host = h;
  h->port = port;
  if (d->reversed && (!d->over || d->over->ended))
    return; /* in this message's own turn */
  struct smtp_connection *n = take_connection(d, port);
  if (n && d->reversed && smtp_reversed_ready(c, n, d->t) != SMTP_OK) {
    log_host_error(d, h, n->error ? n->error : ERROR_UNKNOWN, n->error_text);
    return;
  }
  bool reused = n != NULL, again = false;
  if (!n)
    n = smtp_connect(c, d->t, port, &why, &error, &text, &command, &reply);
  if (!n) {
    (why == SMTP_REFUSED ? host_refused : host_failed)(d, h, error, text);
    return;
  }
  n->user = c;
  if (reused)
    smtp_use(c, n);
  if (!d->built) {
    d->built = transport_message_build(c, d->t, d->chain, &d->message);
    if (!d->built) {
      leave(n);
      return;
    }
  }
  if (n->offers.size && n->offers.size_limit > 0 && d->message.size > n->offers.size_limit) {
    settle_pending(d, OUTCOME_FAIL, 0, STR("message exceeds the size limit of the remote host"), h);
    smtp_pool_keep(n);
    return;
  }
  settle_unsendable(d, n, h);
  if (!any_pending(d->chain)) {
    leave(n);
    return;
  }
  struct command filter;
  if (!command_filter(c, d->t, d->chain, &filter)) {
    leave(n);
    return;
  }
  d->message.filter = filter.argv;
  d->message.filter_n = filter.n;
  d->message.filter_timeout = transport_options(d->t)->transport_filter_timeout;
  bool other;
  enum smtp_stage_result r = send_all(d, n, &other);
  error = n->error;
  text = n->error_text;
  bool busy_early = n->unusable;
  if (n->stale) { /* nothing was said to the message yet */
    smtp_disconnect(n, true);
    use_host(d, h);
    return;
  }
  bool blameless = error == ERROR_FILTER_FAIL || n->address_error; /* nothing that the host did */
  bool host_answered = !blameless && (r == SMTP_OK || (r == SMTP_TEMPORARY && !busy_early && !any_pending(d->chain)));
  bool for_now = host_answered && log_refused_message(d, h);
  if (r == SMTP_BROKEN) {
    bool answered = n->mail_answered;
    smtp_disconnect(n, false);
    if (reused && !answered && any_pending(d->chain)) { /* a kept connection may have been closed by the other side: not the host's fault */
      use_host(d, h);
      return;
    }
  } else if (n->gone || other || used_up(d, n)) {
    smtp_disconnect(n, !n->gone);
    again = r == SMTP_OK && any_pending(d->chain);
  } else {
    keep(d, n, h);
  }
  if (r == SMTP_TEMPORARY && busy_early)
    log_host_error(d, h, error, text); /* at its banner, when we were early: the next time we are not */
  else if ((r == SMTP_BROKEN && !blameless) || (r == SMTP_TEMPORARY && any_pending(d->chain)))
    host_failed(d, h, error, text);
  else if (!blameless) {
    if (!d->reversed && (error == ERROR_MAIL_4XX || error == ERROR_DATA_4XX))
      retry_host_failed(c, d->t, h, port, error, text); /* of this message with this host */
    else if (!d->reversed)
      retry_host_ok(c, d->t, h, port);
  }
  struct str unused;
  if (for_now && !h->next)
    (void)event_raise(c, d->t, "msg:defer", text, error, &unused);
  if (again) { /* some recipients are left for another connection */
    use_host(d, h);
    return;
  }
  if (r == SMTP_TEMPORARY && !d->reversed) {
    d->last = h;
    d->last_error = error;
    d->last_text = text;
  }
}

static void try_host(struct delivery *d, struct host *h) {
  struct patience p;
  patience_begin(&p, d->c->message, h->address, host_port(d, h));
  p.host_name = h->name;
  p.recipient = d->chain->address;
  use_host(d, h);
  patience_end(&p);
}

/* A record that this very delivery has written keeps no further address of the same host waiting. */
static bool attempted_before(struct delivery *d, const struct host *h) {
  for (size_t i = 0; i < d->attempted.n; i++) {
    const struct host *o = d->attempted.v[i];
    if (str_ieq(o->name, h->name) && retry_host_same(d->c, d->t, o, host_port(d, o), h, host_port(d, h)))
      return true;
  }
  return false;
}

/* -N: the first host that would have been tried takes all. */
static void pretend(struct delivery *d, struct host *h) {
  settle_pending(d, OUTCOME_OK, 0, STR_UNSET, h);
  for (struct address *a = d->chain; a; a = a->next)
    if (a->result == OUTCOME_OK)
      a->confirmation = STR("delivery bypassed by -N option");
}

static bool is_at(const struct smtp_connection *n, const struct host *h, int port) {
  return str_ieq(n->host_name, h->name) && str_eq(n->host_address, h->address) && n->port == port;
}

static size_t chain_length(const struct address *a) {
  size_t n = 0;
  for (; a; a = a->next)
    n++;
  return n;
}

/* What the host has refused for now is for the next one. */
static void pass_on_refused(struct delivery *d, struct host *h) {
  size_t i = 0;
  if (d->alone || (!h->next && !d->fallback))
    return;
  for (struct address *a = d->chain; a; a = a->next, i++) {
    bool for_now = a->basic_errno == ERROR_RCPT_4XX || a->basic_errno == ERROR_MAIL_4XX || a->basic_errno == ERROR_DATA_4XX ||
                   (d->o->lmtp && a->basic_errno == 0); /* each recipient's own answer to the data */
    if (a->result != OUTCOME_DEFER || a->host_used != h || !for_now)
      continue;
    if (!d->setbacks)
      d->setbacks = arena_array(d->c->arena, struct setback, chain_length(d->chain));
    struct setback *setback = &d->setbacks[i];
    if (!setback->refusal)
      setback->refusal = arena_new_of(d->c->arena, struct address);
    *setback->refusal = *a;
    setback->overtaken = false;
    if (a->basic_errno == ERROR_RCPT_4XX && h->next && !d->only_over)
      log_host_error(d, h, a->basic_errno, a->message);
    a->basic_errno = SMTP_PENDING;
  }
}

/* A host failed, which those that still wait have come to after a refusal: that is the last that happened to them. */
static void overtake_refusals(struct delivery *d) {
  size_t i = 0;
  for (const struct address *a = d->setbacks ? d->chain : NULL; a; a = a->next, i++)
    if (d->setbacks[i].refusal && a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING)
      d->setbacks[i].overtaken = true;
}

/* No other host has taken them. The last error is what is told of an address, but retry records are made of a refusal. */
static void settle_refused(struct delivery *d) {
  size_t i = 0;
  for (struct address *a = d->setbacks ? d->chain : NULL; a; a = a->next, i++) {
    struct address *before = d->setbacks[i].refusal;
    if (!before || a->result != OUTCOME_DEFER || a->basic_errno != SMTP_PENDING)
      continue;
    if (d->setbacks[i].overtaken) {
      a->refusal = before;
      continue;
    }
    before->next = a->next;
    before->host_errors = a->host_errors;
    *a = *before;
  }
}

static void try_hosts(struct delivery *d, struct host *hosts) {
  struct host *next;
  for (struct host *h = hosts; h && any_pending(d->chain); h = next) {
    bool routed = str_is_set(h->address); /* the router's `self` has decided about it */
    next = h->next;
    if (!find_address(d, h)) {
      d->failed++;
      continue;
    }
    next = h->next; /* other addresses of it may have come in between */
    h->port = host_port(d, h); /* a part of the record's key, also when it is not tried */
    if (!routed && is_forbidden_local(d, h)) {
      d->last = h;
      d->last_error = ERROR_HOST_IS_LOCAL;
      d->last_text = str_printf(d->c->arena, "%.*s transport found host %.*s to be local", STRF(d->t->name), STRF(h->name));
      continue;
    }
    if (d->only_over && (!d->over || d->over->ended || !is_at(d->over, h, host_port(d, h))))
      continue;
    bool forced = d->only_over || (d->c->message && d->c->message->deliver_forced);
    if (!forced && !attempted_before(d, h) && !retry_host_ready(d->c, d->t, h, host_port(d, h))) {
      d->skipped++;
      continue;
    }
    if (!may_try(d))
      continue;
    if (d->c->message && d->c->message->deliver_bypassed) {
      pretend(d, h);
      return;
    }
    if (!forced && !d->alone && patience_full(h->address, h->port)) {
      d->busy++;
      int64_t again = time(NULL) + patience_again(h->address, h->port), *next_attempt = &d->c->message->next_attempt;
      if (*next_attempt <= 0 || again < *next_attempt)
        *next_attempt = again;
      continue;
    }
    struct str slot;
    if (!enter_host(d, h, &slot)) {
      d->skipped++;
      continue;
    }
    int counted = d->tried;
    vec_push(d->c->arena, &d->attempted, h);
    next = count_host(d, h);
    counted = d->tried - counted;
    int failed = d->failed - d->refused;
    try_host(d, h);
    if (d->failed - d->refused > failed)
      overtake_refusals(d);
    if (str_is_set(slot))
      hint_count_leave(d->c, slot);
    if (counted > 0 && any_pending(d->chain) && retry_host_exhausted(d->c, d->t, h, host_port(d, h)))
      d->tried--;
    pass_on_refused(d, h);
  }
}

static void finish(struct delivery *d) {
  if (!any_pending(d->chain))
    return;
  if (d->unfit && !d->failed && !d->skipped) { /* none of the hosts may get it, now or later */
    settle_pending(d, OUTCOME_FAIL, d->last_error, d->last_text, d->last_error == ERROR_DANE_REQUIRED ? NULL : d->last);
    return;
  }
  if (d->only_over && !d->last) { /* another host would have to be tried: in this message's own turn */
    for (struct address *a = d->chain; a; a = a->next)
      if (a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING) {
        a->basic_errno = 0;
        a->waits = a->put_off = true;
      }
    return;
  }
  if (d->last) {
    bool gone = retry_hosts_exhausted(d->c, d->t, d->chain), vetoed = d->last_error == ERROR_EVENT;
    struct str unused;
    if (!vetoed)
      (void)event_raise(d->c, d->t, "msg:defer", d->last_text, d->last_error, &unused);
    if (vetoed)
      d->last_text = STR_UNSET;
    bool unreached = d->last_error > 0 && str_eq_c(d->last_text, strerror(d->last_error)); /* nobody has said anything */
    if (vetoed || unreached || is_our_own(d->last_error) || d->last_error == ERROR_DNS_DEFER ||
        d->last_error == ERROR_UNKNOWN_HOST || d->last_error == ERROR_HOST_IS_LOCAL) /* it was not even tried */
      d->last = NULL;
    bool refused = d->refused > 0 && d->refused == d->failed && !d->skipped; /* by all there are */
    settle_pending(d, refused || (gone && d->tried_total == 0) ? OUTCOME_FAIL : OUTCOME_DEFER, d->last_error, d->last_text, d->last);
    return;
  }
  if (d->busy) /* whatever the others say: this one has not been asked */
    settle_pending(d, OUTCOME_DEFER, ERROR_HOST_BUSY,
        str_printf(d->c->arena, "other deliveries wait for the hosts of '%.*s'", STRF(d->chain->domain)), NULL);
  else if (d->skipped && retry_hosts_exhausted(d->c, d->t, d->chain))
    settle_pending(d, OUTCOME_FAIL, ERROR_HOST_RETRY,
        str_printf(d->c->arena, "all hosts for '%.*s' have been failing for a long time %s", STRF(d->chain->domain),
            d->o->delay_after_cutoff ? "(and retry time not reached)" : "and were last tried after this message arrived"),
        NULL);
  else if (d->skipped)
    settle_pending(d, OUTCOME_DEFER, ERROR_HOST_RETRY,
        str_printf(d->c->arena, "retry time not reached for any host for '%.*s'", STRF(d->chain->domain)), NULL);
  else
    settle_pending(d, OUTCOME_DEFER, ERROR_UNKNOWN, STR("no host found for the delivery"), NULL);
}

/* Others may find the host before this message's time has come: they take it along, unless it is the message that the host
does not like. */
static void note_waiting(struct delivery *d, const struct host *hosts) {
  bool waits = false;
  struct message *m = d->c->message;
  if (m->deliver_bypassed || d->alone)
    return;
  for (const struct address *a = d->chain; a; a = a->next) {
    waits |= a->result == OUTCOME_DEFER;
    int error = a->refusal ? a->refusal->basic_errno : a->basic_errno;
    if (a->result == OUTCOME_DEFER && (error == ERROR_MAIL_4XX || error == ERROR_DATA_4XX))
      return;
  }
  if (d->reversed)
    return;
  if (waits)
    smtp_wait_note(d->c, d->t, hosts, d->default_port);
  else if (!m->deliver_first_time)
    smtp_wait_forget(d->c, d->t, hosts, d->default_port);
}

/* Options that others have asked for already, who took their defaults when they could not be told. */
static bool flags_known(struct delivery *d) {
  const struct {
    const char *name;
    const struct option_expr *option;
  } flags[] = {{"multi_domain", &d->o->multi_domain}, {"retry_include_ip_address", &d->o->retry_include_ip_address}};
  struct str unused;
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (expand_option(d->c, flags[i].option, &unused) == OUTCOME_ERROR)
      return settle_unknown(d, str_printf(d->c->arena, "failed to expand \"%s\" in %.*s transport: %.*s", flags[i].name, STRF(d->t->name),
          STRF(d->c->error)));
  return true;
}

static void smtp_deliver(struct ctx *c, const struct instance *t, struct address *chain) {
  struct delivery d = {.c = c, .t = t, .o = smtp_client_options(t), .chain = chain, .interface = STR_EMPTY,
      .alone = main_options(c->config)->mua_wrapper};
  struct host *hosts, *saved = c->host;
  d.over = c->message->over;
  d.only_over = c->message->over != NULL;
  d.reversed = d.over && d.over->reversed;
  if (!d.reversed)
    c->message->over = NULL;
  for (struct address *a = chain; a; a = a->next) {
    a->result = OUTCOME_DEFER;
    a->basic_errno = SMTP_PENDING;
  }
  if (d.o->message_linelength_limit > 0 && c->message->max_received_line_length > d.o->message_linelength_limit)
    settle_pending(&d, OUTCOME_FAIL, 0,
        str_printf(c->arena, "message has lines too long for transport (received %lld, limit %lld)",
            (long long)c->message->max_received_line_length, (long long)d.o->message_linelength_limit), NULL);
  else if (transport_size_allowed(c, t, chain) && flags_known(&d) && choose_hosts(&d, &hosts) && choose_port(&d)) {
    for (struct address *a = chain; a; a = a->next)
      a->hosts = hosts; /* for the retry rules: those that are tried now, with their ports */
    c->host = hosts;
    if (choose_interface(&d)) {
      d.fallback = !d.alone && (chain->fallback_hosts || str_is_set(d.o->fallback_hosts.text));
      try_hosts(&d, hosts);
      d.fallback = false;
      struct host *fallback = d.alone ? NULL : chain->fallback_hosts;
      if (any_pending(chain) && !fallback && !d.alone && str_is_set(d.o->fallback_hosts.text)) {
        struct str text;
        if (expand_option(c, &d.o->fallback_hosts, &text) == 0)
          fallback = router_host_list(c, text, false);
      }
      if (any_pending(chain) && fallback)
        try_hosts(&d, fallback);
      settle_refused(&d);
      finish(&d);
      note_waiting(&d, hosts);
    }
  }
  if (d.over && !d.reversed)
    smtp_disconnect(d.over, true);
  c->host = saved;
  smtp_use(c, NULL);
}

/* An option that fails to expand limits to one: deferring is for the delivery itself to do. */
static int64_t smtp_max_addresses(struct ctx *c, const struct instance *t) {
  int64_t max = 0;
  return expand_option_int(c, &smtp_client_options(t)->max_rcpt, "max_rcpt", &max) ? 1 : max;
}

static bool smtp_single_domain(struct ctx *c, const struct instance *t) {
  bool multi = true;
  if (str_trim(smtp_client_options(t)->hosts_try_mta_sts.text).len) /* policies are of domains */
    return true;
  return expand_option_bool(c, &smtp_client_options(t)->multi_domain, "multi_domain", &multi) || !multi;
}

static bool smtp_overrides_hosts(const struct instance *t) {
  return str_is_set(smtp_client_options(t)->hosts.text) && smtp_client_options(t)->hosts_override;
}

const struct transport_def transport_smtp = {
    .driver = {.name = "smtp", .class = DRIVER_TRANSPORT, .options = smtp_client_option_table,
        .options_size = sizeof(struct smtp_client_options), .summary = "send over SMTP or LMTP", .init = smtp_client_init},
    .max_addresses = smtp_max_addresses,
    .single_domain = smtp_single_domain,
    .overrides_hosts = smtp_overrides_hosts,
    .waits = smtp_waits,
    .deliver = smtp_deliver,
};
