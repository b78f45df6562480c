/* HELO and EHLO (RFC 5321 section 4.1.1.1): syntax, verification, what is offered. */
#include "smtp/helo.h"

#include <ctype.h>

#include "core/module.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "match/match.h"
#include "sasl/authenticator.h"
#include "smtp/server/internal.h"
#include "tls/tls.h"

bool smtp_client_certificate_verified(struct ctx *c) { return c->client->tls && c->client->tls->peer_verified; }

/* ---- verification ---- */

/* "[1.2.3.4]" or "[IPv6:…]" in the command, as an address. */
static bool literal_address(struct str name, struct ip_addr *ret) {
  if (name.len < 2 || name.p[0] != '[' || name.p[name.len - 1] != ']')
    return false;
  struct str inner = str_slice(name, 1, name.len - 1);
  if (str_istarts(inner, STR("IPv6:")) || str_istarts(inner, STR("IPv4:")))
    inner = str_from(inner, 5);
  return ip_parse(inner, ret);
}

/* Does a forward look-up of the name give the client's address? *ret_secure: authenticated by DNSSEC. */
static int verify_forward(struct ctx *c, struct str name, bool *ret_secure) {
  struct host h = {.name = name, .mx = -1};
  switch (host_find_addresses(c, c->arena, &h, HOST_FIND_BY_A | HOST_FIND_BY_AAAA, NULL, NULL)) {
    case HOST_FOUND:
    case HOST_FOUND_LOCAL:
      for (const struct host *p = &h; p; p = p->next)
        if (ip_eq(&p->ip, &c->client->ip)) {
          *ret_secure = h.dnssec;
          return OUTCOME_OK;
        }
      return OUTCOME_FAIL;
    case HOST_FIND_AGAIN: return OUTCOME_DEFER;
    default: return OUTCOME_FAIL;
  }
}

static int verify_now(struct ctx *c) {
  struct client *cl = c->client;
  struct ip_addr ip;
  if (literal_address(cl->helo_name, &ip))
    return ip_eq(&ip, &cl->ip) ? OUTCOME_OK : OUTCOME_FAIL;
  bool deferred = cl->host_lookup_deferred;
  if (!cl->host_name_looked_up && !cl->host_lookup_failed) /* what logs call the client stays as it is */
    deferred = host_name_lookup(c) == OUTCOME_DEFER;
  cl->helo_dnssec = cl->host_dnssec;
  if (str_is_set(cl->host_name) && str_ieq(cl->host_name, cl->helo_name))
    return OUTCOME_OK;
  struct str rest = cl->host_aliases;
  while (str_is_set(rest))
    if (str_ieq(str_trim(str_cut(&rest, ':')), cl->helo_name))
      return OUTCOME_OK;
  cl->helo_dnssec = false;
  int rc = verify_forward(c, cl->helo_name, &cl->helo_dnssec);
  return rc == OUTCOME_FAIL && deferred ? OUTCOME_DEFER : rc;
}

int smtp_helo_verify(struct ctx *c) {
  struct client *cl = c->client;
  if (!str_is_set(cl->helo_name) || cl->helo_name.len == 0)
    return OUTCOME_FAIL; /* no HELO or EHLO was issued */
  if (!str_is_set(cl->host_address) || cl->host_address.len == 0)
    return OUTCOME_OK; /* no client address: assume success */
  if (cl->helo_verified)
    return OUTCOME_OK;
  if (cl->helo_verify_failed)
    return OUTCOME_FAIL;
  struct str saved = c->error;
  int rc = verify_now(c);
  c->error = saved;
  if (rc == OUTCOME_OK)
    cl->helo_verified = true;
  else if (rc == OUTCOME_FAIL)
    cl->helo_verify_failed = true;
  return rc;
}

/* ---- syntax ---- */

static bool valid_name(struct smtp_session *s, struct str name) {
  if (name.len == 0)
    return false;
  struct ip_addr ip;
  if (name.p[0] == '[') {
    /* An address literal; brackets may hold only an address. */
    return literal_address(name, &ip);
  }
  if (ip_parse(name, &ip))
    return true; /* a bare address: wrong, but common, and harmless */
  for (uint32_t i = 0; i < name.len; i++) {
    unsigned char ch = (unsigned char)name.p[i];
    if (!isalnum(ch) && ch != '.' && ch != '-' && (!str_is_set(s->o->helo_allow_chars) || str_find_byte(s->o->helo_allow_chars, (char)ch) < 0))
      return false;
  }
  return true;
}

static bool take_name(struct smtp_session *s, struct str args) {
  struct str name = str_trim(args);
  return s->helo_accept_junk || valid_name(s, name);
}

static void keep_name(struct smtp_session *s, struct str args) {
  struct client *cl = s->c->client;
  struct str name = str_trim(args);
  if (!str_is_set(cl->helo_name) || !str_eq(cl->helo_name, name)) {
    cl->helo_name = str_dup(s->arena, name);
    cl->helo_name.taint = STR_TAINTED;
  }
  cl->helo_verified = cl->helo_verify_failed = cl->helo_dnssec = false;
  /* Names that say nothing make us look for the real one. */
  if (str_is_set(cl->host_address) && !cl->host_name_looked_up && !cl->host_lookup_failed && cl->helo_name.len > 0 &&
      match_domain(s->c, &s->o->helo_lookup_domains, cl->helo_name, NULL) == OUTCOME_OK)
    host_name_lookup(s->c);
  client_set_fullhost(s->arena, cl);
}

/* ---- the reply ---- */

struct lines {
  struct str v[64];
  size_t n;
};

static void add_line(void *arg, struct str line) {
  struct lines *l = arg;
  if (l->n < sizeof l->v / sizeof *l->v)
    l->v[l->n++] = line;
}

static void add_limits(struct smtp_session *s, struct lines *l) {
  struct arena *a = s->c->arena;
  if ((s->max_messages <= 0 && s->recipients_max <= 0) || !smtp_match_host(s, &s->o->limits_advertise_hosts))
    return;
  struct str mail = s->max_messages > 0 ? str_printf(a, " MAILMAX=%lld", (long long)s->max_messages) : STR_EMPTY;
  struct str rcpt = s->recipients_max > 0 ? str_printf(a, " RCPTMAX=%lld", (long long)s->recipients_max) : STR_EMPTY;
  add_line(l, str_printf(a, "LIMITS%.*s%.*s", STRF(mail), STRF(rcpt)));
}

static void add_size(struct smtp_session *s, struct lines *l) {
  int64_t limit = 0;
  if (receive_size_limit(s->c, &limit) != 0)
    acl_log(s->c, LOG_MAIN | LOG_PANIC, "unable to expand message_size_limit: %.*s", STRF(s->c->error));
  add_line(l, limit > 0 ? str_printf(s->c->arena, "SIZE %lld", (long long)limit) : STR("SIZE"));
  s->ad_size = true;
}

bool smtp_acl_offered(struct smtp_session *s, const struct option_expr *o) {
  struct str text;
  return str_is_set(o->text) && expand_option(s->c, o, &text) == 0 && text.len > 0;
}

static void collect_ehlo(struct smtp_session *s, struct lines *l) {
  const struct main_options *o = s->o;
  const struct acl_session *as = acl_session(s->c);
  add_size(s, l);
  add_limits(s, l);
  if (o->accept_8bitmime)
    add_line(l, STR("8BITMIME"));
  s->ad_dsn = smtp_match_host(s, &o->dsn_advertise_hosts);
  if (s->ad_dsn)
    add_line(l, STR("DSN"));
  if (smtp_acl_offered(s, &o->acl_smtp_etrn))
    add_line(l, STR("ETRN"));
  if (smtp_acl_offered(s, &o->acl_smtp_atrn))
    add_line(l, STR("ATRN"));
  if (smtp_acl_offered(s, &o->acl_smtp_vrfy))
    add_line(l, STR("VRFY"));
  if (smtp_acl_offered(s, &o->acl_smtp_expn))
    add_line(l, STR("EXPN"));
  s->ad_pipelining = !as->no_pipelining && smtp_match_host(s, &o->pipelining_advertise_hosts);
  if (s->ad_pipelining)
    add_line(l, STR("PIPELINING"));
  s->ad_early = s->ad_pipelining && s->may_be_early;
  if (s->ad_early)
    add_line(l, STR("PIPECONNECT"));
  if (s->ad_early && smtp_match_host(s, &o->pipelining_connect_legacy_hosts)) {
    add_line(l, STR("PIPE_CONNECT"));
    add_line(l, STR("X_PIPE_CONNECT"));
  }
  /* Who has authenticated, by TLS or by AUTH, would be refused. */
  bool authenticated = str_is_set(s->c->client->host_authenticated) && s->c->client->host_authenticated.len > 0;
  s->auth_advertised = authenticated ? STR_EMPTY : sasl_server_advertise(s->c, s->arena);
  s->ad_auth = s->auth_advertised.len > 0;
  if (s->ad_auth)
    add_line(l, str_printf(s->c->arena, "AUTH%.*s", STRF(s->auth_advertised)));
  s->ad_chunking = smtp_match_host(s, &o->chunking_advertise_hosts);
  if (s->ad_chunking)
    add_line(l, STR("CHUNKING"));
  s->ad_tls = smtp_tls_offered(s);
  if (s->ad_tls)
    add_line(l, STR("STARTTLS"));
  s->ad_prdr = o->prdr_enable;
  if (s->ad_prdr)
    add_line(l, STR("PRDR"));
  s->ad_utf8 = o->accept_8bitmime && smtp_match_host(s, &o->smtputf8_advertise_hosts);
  if (s->ad_utf8)
    add_line(l, STR("SMTPUTF8"));
  s->ad_requiretls = s->c->client->tls && smtp_match_host(s, &o->tls_advertise_requiretls);
  if (s->ad_requiretls)
    add_line(l, STR("REQUIRETLS"));
  s->ad_xclient = s->xclient_done || (smtp_is_tcp(s) && smtp_match_host(s, &o->hosts_xclient));
  if (s->ad_xclient)
    add_line(l, STR("XCLIENT ADDR PORT NAME DESTADDR DESTPORT LOGIN"));
  if (smtp_match_host(s, &o->wellknown_advertise_hosts))
    add_line(l, STR("WELLKNOWN"));
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.ehlo_keywords)
      modules[i]->hooks.ehlo_keywords(s->c, add_line, l);
  add_line(l, STR("HELP"));
}

static struct str greeting(struct smtp_session *s) {
  const struct client *cl = s->c->client;
  struct arena *a = s->c->arena;
  bool name = str_is_set(cl->host_name) && cl->host_name.len > 0;
  bool ident = str_is_set(cl->ident) && cl->ident.len > 0;
  struct str host = STR_EMPTY;
  if (str_is_set(cl->host_address))
    host = str_printf(a, " [%.*s]", STRF(cl->host_address));
  struct str who = name ? cl->host_name : cl->helo_name;
  return str_printf(a, "%.*s Hello %.*s%s%.*s%.*s", STRF(s->hostname), STRF(ident ? cl->ident : STR_EMPTY), ident ? " at " : "",
      STRF(who), STRF(host));
}

void smtp_clear_offers(struct smtp_session *s) {
  /* BDAT stays as it was offered before: clients that fall back to HELO go on with it. */
  s->ad_pipelining = s->ad_auth = s->ad_tls = s->ad_size = s->ad_dsn = s->ad_prdr = s->ad_early = s->ad_xclient = s->ad_utf8 = s->ad_requiretls = false;
  s->auth_advertised = STR_EMPTY;
}

static enum smtp_next hello(struct smtp_session *s, struct str args, bool extended) {
  struct ctx *c = s->c;
  const char *verb = extended ? "EHLO" : "HELO";
  if (!take_name(s, args)) {
    bool none = args.len == 0;
    smtp_say(s, "501 Syntactically invalid %s argument(s)", verb);
    acl_log(c, LOG_MAIN | LOG_REJECT, "rejected %s from %.*s: syntactically invalid argument(s): %.*s", verb, STRF(smtp_sender_who(s)),
        STRF(none ? STR("(no argument given)") : log_printable(c->arena, args)));
    if (++s->synprot > s->o->smtp_max_synprot_errors && s->o->smtp_max_synprot_errors > 0) {
      acl_log(c, LOG_MAIN | LOG_REJECT, "SMTP call from %.*s dropped: too many syntax or protocol errors (last command was \"%.*s\", %.*s)",
          STRF(smtp_sender_who(s)), STRF(log_printable(c->arena, s->command)), STRF(smtp_history(s)));
      return smtp_notquit(s, "bad-commands", "421", "Too many syntax or protocol errors");
    }
    return SMTP_GO_ON;
  }
  keep_name(s, args);
  if (s->helo_verify_must || s->helo_verify_try) {
    int rc = smtp_helo_verify(c);
    if (rc != OUTCOME_OK && s->helo_verify_must) {
      bool defer = rc == OUTCOME_DEFER;
      smtp_say(s, "%d %s argument does not match calling host", defer ? 451 : 550, verb);
      acl_log(c, LOG_MAIN | LOG_REJECT, "%srejected \"%s %.*s\" from %.*s", defer ? "temporarily " : "", verb,
          STRF(c->client->helo_name), STRF(smtp_sender_who(s)));
      c->client->helo_name = STR_UNSET; /* logs go on showing it */
      return SMTP_GO_ON;
    }
  }
  s->esmtp = extended;
  enum acl_result r = smtp_acl(s, ACL_HELO, &s->o->acl_smtp_helo, ACL_OK);
  if (r != ACL_OK) {
    struct str what = str_printf(c->arena, "EHLO or HELO %.*s", STRF(args));
    enum smtp_next next = smtp_acl_refused(s, ACL_HELO, r, what);
    c->client->helo_name = STR_UNSET;
    client_set_fullhost(s->arena, c->client);
    s->helo_seen = false;
    return next;
  }
  s->helo_seen = true;
  smtp_clear_offers(s);
  struct str user = c->user_message, code = STR("250"), ext = STR_EMPTY, text = STR_EMPTY;
  bool panicked;
  if (str_is_set(user) && user.len > 0) {
    text = user;
    smtp_message_code(s, &code, &ext, &text, &panicked);
    ptrdiff_t nl = str_find_byte(text, '\n');
    if (nl >= 0) {
      acl_log(c, LOG_MAIN | LOG_PANIC, "EHLO/HELO response must not contain newlines: message truncated: %.*s %.*s%.*s", STRF(code),
          STRF(ext), STRF(log_printable(c->arena, text)));
      text = str_slice(text, 0, (size_t)nl);
    }
  } else {
    text = greeting(s);
  }
  struct lines lines = {.n = 0};
  if (extended)
    collect_ehlo(s, &lines);
  smtp_say(s, "%.*s%c%.*s%.*s", STRF(code), lines.n ? '-' : ' ', STRF(ext), STRF(text));
  for (size_t i = 0; i < lines.n; i++)
    smtp_say(s, "%.*s%c%.*s", STRF(code), i + 1 < lines.n ? '-' : ' ', STRF(lines.v[i]));
  smtp_set_protocol(s);
  bool helo_free = s->helo_free, rset_free = s->rset_free, tls_free = s->starttls_free;
  smtp_reset(s);
  s->helo_free = helo_free;
  s->rset_free = rset_free;
  s->starttls_free = tls_free;
  return SMTP_GO_ON;
}

enum smtp_next smtp_verb_helo(struct smtp_session *s, struct str args) { return hello(s, args, false); }
enum smtp_next smtp_verb_ehlo(struct smtp_session *s, struct str args) {
  /* Commands came with it, before our answer: from a client that knows the answer. */
  s->was_early |= s->may_be_early && stream_peek(s->stream).len > 0;
  return hello(s, args, true);
}
