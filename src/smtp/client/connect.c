/* Making a connection ready for mail: TCP, banner, EHLO or HELO or LHLO,
STARTTLS, AUTH. */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/idn.h"
#include "core/build.h"
#include "core/main_options.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "smtp/client/client.h"
#include "smtp/client/socks.h"
#include "smtp/client/tlsrpt.h"
#include "tls/tls.h"
#include "transport/event.h"

#define PROXIES_MAX 32

struct attempt {
  struct ctx *c;
  struct smtp_connection *n;
  const struct smtp_client_options *o;
  struct str interface;
  enum smtp_requiretls requiretls;
  bool on_connect; /* TLS without STARTTLS */
};

static bool host_in(struct attempt *t, const struct option_expr *list) {
  return str_is_set(list->text) && match_host(t->c, list, t->n->host_name, t->n->host_address, NULL) == OUTCOME_OK;
}

/* A list that asks for protection. When it cannot be told whether the host is in it, n->list_fault says so, and nothing is sent. */
static bool protected_by(struct attempt *t, const struct option_expr *list, const char *option) {
  if (!str_is_set(list->text))
    return false;
  int rc = match_host(t->c, list, t->n->host_name, t->n->host_address, NULL);
  if (rc != OUTCOME_OK && rc != OUTCOME_FAIL && !str_is_set(t->n->list_fault))
    t->n->list_fault = str_printf(t->c->arena, "failed to check %s: %.*s", strrchr(option, '>') + 1, STRF(t->c->error));
  return rc == OUTCOME_OK;
}
#define host_needs(t, list) protected_by((t), (list), #list)

static enum smtp_stage_result fail(struct attempt *t, int error, const char *fmt, const char *detail) {
  t->n->error = error;
  t->n->error_text = str_printf(t->c->arena, "%s%s", fmt, detail);
  return SMTP_BROKEN;
}

static enum smtp_stage_result lists_known(struct attempt *t) {
  return str_is_set(t->n->list_fault) ? fail(t, ERROR_EXPAND_FAIL, "", str_dup_c(t->c->arena, t->n->list_fault)) : SMTP_OK;
}

/* The first address of `interface` that is of the family. */
static socklen_t source_address(struct attempt *t, int family, struct sockaddr_storage *from) {
  struct list_iter i;
  struct str item;
  struct ip_addr ip;
  if (!str_is_set(t->interface) || !t->interface.len)
    return 0;
  list_iter_init(&i, t->c->arena, t->interface);
  while (list_next(&i, &item))
    if (ip_parse(item, &ip) && ip.family == family)
      return ip_to_sockaddr(&ip, 0, from);
  return 0;
}

/* An event whose non-empty result keeps us from going on. */
static enum smtp_stage_result vetoed(struct attempt *t, const char *event, struct str data) {
  struct str text;
  if (!event_raise(t->c, t->n->transport, event, data, 0, &text) && !text.len)
    return SMTP_OK;
  return fail(t, ERROR_EVENT, "Event requests alternate response", "");
}

enum smtp_stage_result smtp_greeted(struct ctx *c, struct smtp_connection *n) {
  struct str text;
  int e = event_raise(c, n->transport, "smtp:connect", n->greeting, 0, &text);
  if (!e && !text.len)
    return SMTP_OK;
  n->error = ERROR_EXPAND_FAIL;
  n->error_text = str_printf(c->arena, "deferred by smtp:connect event expansion: %.*s", STRF(e ? c->error : text));
  return SMTP_BROKEN;
}

/* As stream_connect, but the SYN carries or asks for a cookie (RFC 7413), so that a server that knows us may send its banner with
its first segment. No data go along. -EOPNOTSUPP: not here. */
static int connect_fast(const struct sockaddr *to, socklen_t to_len, const struct sockaddr *from, socklen_t from_len, usec_t deadline,
    struct stream **ret) {
  int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0, r = 0;
  socklen_t len = sizeof error;
  if (fd < 0)
    return -errno;
  if (from_len && bind(fd, from, from_len) < 0)
    r = -errno;
  else if (sendto(fd, NULL, 0, MSG_FASTOPEN | MSG_NOSIGNAL, to, to_len) < 0)
    r = errno == EINPROGRESS ? 0 : errno == EPIPE || errno == ENOTCONN || errno == EINVAL ? -EOPNOTSUPP : -errno;
  if (!r && (r = fiber_wait_fd(fd, FIBER_WRITE, deadline)) >= 0)
    r = getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? -errno : -error;
  if (r) {
    close(fd);
    return r;
  }
  *ret = stream_new(fd, fd);
  return 0;
}

static int open_stream(struct attempt *t, const struct ip_addr *ip, int port, usec_t deadline) {
  struct sockaddr_storage to, from;
  socklen_t to_len = ip_to_sockaddr(ip, port, &to), from_len = source_address(t, ip->family, &from);
  int e = -EOPNOTSUPP;
  if (host_in(t, &t->o->hosts_try_fastopen))
    e = connect_fast((struct sockaddr *)&to, to_len, (struct sockaddr *)&from, from_len, deadline, &t->n->stream);
  if (e == -EOPNOTSUPP)
    e = stream_connect((struct sockaddr *)&to, to_len, from_len ? (struct sockaddr *)&from : NULL, from_len, deadline, &t->n->stream);
  if (e == -ECONNREFUSED && build.refused_is_timeout_at && t->o->connect_timeout == build.refused_is_timeout_at)
    e = -ETIMEDOUT;
  if (e == -EADDRNOTAVAIL && from_len) {
    struct ip_addr own;
    int own_port;
    ip_from_sockaddr((struct sockaddr *)&from, &own, &own_port);
    log_write(LOG_MAIN, t->c->message, "bind of [%.*s]:%d failed", STRF(ip_text(t->c->arena, &own)), own_port);
  }
  return e;
}

/* Through one proxy. *ret_answered: it did answer, so that no other is asked. */
static int connect_over(struct attempt *t, const struct socks_proxy *p, usec_t deadline, struct str *ret_error, bool *ret_answered) {
  struct smtp_connection *n = t->n;
  struct host over = *t->c->host, *saved = t->c->host;
  usec_t own = deadline_in(p->timeout);
  struct ip_addr bound;
  int port;
  over.name = over.address = p->address; /* what the event is about */
  over.ip = p->ip;
  over.port = p->port;
  t->c->host = &over;
  bool stop = vetoed(t, "tcp:connect", STR_EMPTY) != SMTP_OK;
  t->c->host = saved;
  *ret_error = STR_UNSET;
  *ret_answered = stop;
  if (stop)
    return -EPERM;
  deadline = own < deadline ? own : deadline;
  int e = open_stream(t, &p->ip, p->port, deadline);
  if (e)
    return e;
  e = socks_greet(t->c, n->stream, p, &n->ip, n->port, deadline, &bound, &port, ret_error);
  if (!e) {
    n->proxy = arena_new_of(n->arena, struct client_proxy);
    *n->proxy = (struct client_proxy){.local_address = str_dup(n->arena, p->address), .local_port = p->port,
        .external_address = bound.family ? ip_text(n->arena, &bound) : STR_EMPTY, .external_port = port};
    return 0;
  }
  *ret_answered = e == -EACCES || e == -ECONNREFUSED;
  stream_free(n->stream);
  n->stream = NULL;
  return e;
}

/* The next proxy: of those with the highest priority one by chance, as their weights have it (manual, "Outbound proxies"). */
static struct socks_proxy *choose_proxy(struct socks_proxy *v, size_t count) {
  int pri = 0;
  uint32_t sum = 0;
  for (size_t i = 0; i < count; i++)
    pri = v[i].pri > pri ? v[i].pri : pri;
  for (size_t i = 0; i < count; i++)
    sum += v[i].pri == pri ? (uint32_t)v[i].weight : 0;
  if (!pri)
    return NULL;
  uint32_t at = host_random(sum);
  for (size_t i = 0; i < count; i++) {
    if (v[i].pri != pri)
      continue;
    if (at < (uint32_t)v[i].weight)
      return &v[i];
    at -= (uint32_t)v[i].weight;
  }
  return NULL;
}

static enum smtp_stage_result through_proxies(struct attempt *t, struct str list, usec_t deadline) {
  struct socks_proxy v[PROXIES_MAX], *p;
  struct list_iter i;
  struct str item, error = STR_EMPTY;
  size_t count = 0;
  int e = -ECONNREFUSED;
  bool answered = false;
  list_iter_init(&i, t->c->arena, list);
  while (count < PROXIES_MAX && list_next(&i, &item))
    if (item.len && !socks_proxy_parse(t->c, item, &v[count++], &error))
      return fail(t, ERROR_PROXY_FAIL, str_dup_c(t->c->arena, error), "");
  while (!answered && (p = choose_proxy(v, count))) {
    e = connect_over(t, p, deadline, &error, &answered);
    if (!e)
      return SMTP_OK;
    if (t->n->error == ERROR_EVENT)
      return SMTP_BROKEN;
    struct str why = str_is_set(error) ? error : str_c(strerror(-e));
    error = str_printf(t->c->arena, "SOCKS proxy [%.*s]:%d: %.*s", STRF(p->address), p->port, STRF(why));
    DEBUG(transport, "%.*s\n", STRF(error));
    p->pri = 0; /* it had its turn */
  }
  return fail(t, ERROR_PROXY_FAIL, str_dup_c(t->c->arena, error), "");
}

static enum smtp_stage_result tcp_connect(struct attempt *t) {
  usec_t deadline = t->o->connect_timeout > 0 ? deadline_in(t->o->connect_timeout) : DEADLINE_NEVER;
  struct str proxies;
  if (expand_option(t->c, &t->o->socks_proxy, &proxies))
    return fail(t, ERROR_EXPAND_FAIL, "failed to expand socks_proxy: ", str_dup_c(t->c->arena, t->c->error));
  enum smtp_stage_result r;
  if (str_is_set(proxies) && str_trim(proxies).len) {
    r = through_proxies(t, proxies, deadline);
  } else if (!(r = vetoed(t, "tcp:connect", STR_EMPTY))) {
    int e = open_stream(t, &t->n->ip, t->n->port, deadline);
    r = e ? fail(t, -e, strerror(-e), "") : SMTP_OK;
  }
  if (r)
    return r;
  int on = 1, fd = stream_fd(t->n->stream);
  if (t->o->keepalive)
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  smtp_set_dscp(t->c, t->n, fd);
  stream_set_write_timeout(t->n->stream, (int)t->o->data_timeout);
  smtp_use(t->c, t->n);
  return SMTP_OK;
}

static bool keyword(struct str line, const char *word, struct str *ret_args) {
  struct str w = str_c(word);
  if (!str_istarts(line, w) || (line.len > w.len && line.p[w.len] != ' ' && line.p[w.len] != '='))
    return false;
  *ret_args = line.len > w.len ? str_trim(str_from(line, w.len + 1)) : STR_EMPTY;
  return true;
}

/* "LIMITS RCPTMAX=50 MAILMAX=5" (RFC 9422, section 4); what is not a number there limits nothing. */
static void note_limits(struct smtp_offers *f, struct str args) {
  while (str_is_set(args)) {
    struct str word = str_cut(&args, ' '), value = word, name = str_cut(&value, '=');
    uint64_t n;
    if (!str_is_set(value) || !str_to_u64(value, &n) || n == 0 || n > INT32_MAX)
      continue;
    if (str_ieq_c(name, "MAILMAX"))
      f->limit_mails = (int64_t)n;
    else if (str_ieq_c(name, "RCPTMAX"))
      f->limit_rcpts = (int64_t)n;
    else if (str_ieq_c(name, "RCPTDOMAINMAX"))
      f->limit_domains = (int64_t)n;
  }
}

/* Reads the keywords of an EHLO answer (RFC 5321 4.1.1.1). The text is the server's: bounded, tainted. */
void smtp_note_offers(struct ctx *c, struct smtp_connection *n, struct str reply) {
  struct attempt at = {.c = c, .n = n, .o = smtp_client_options(n->transport)}, *t = &at;
  struct smtp_offers *f = &n->offers;
  struct str rest = reply, args;
  uint64_t number;
  struct str limits = STR_UNSET;
  *f = (struct smtp_offers){.auth_mechanisms = STR_EMPTY};
  (void)str_cut(&rest, '\n'); /* the greeting line */
  while (str_is_set(rest)) {
    struct str line = str_cut(&rest, '\n');
    line = line.len > 4 ? str_from(line, 4) : STR_EMPTY;
    if (keyword(line, "SIZE", &args)) {
      f->size = true;
      f->size_limit = str_to_u64(args, &number) && number <= INT64_MAX ? (int64_t)number : 0;
    } else if (keyword(line, "AUTH", &args)) {
      f->auth = true;
      f->auth_mechanisms = f->auth_mechanisms.len ? str_printf(n->arena, "%.*s %.*s", STRF(f->auth_mechanisms), STRF(args))
                                                  : str_dup(n->arena, args);
    } else if (keyword(line, "LIMITS", &args)) {
      limits = args;
    } else {
      f->pipelining |= keyword(line, "PIPELINING", &args);
      f->starttls |= keyword(line, "STARTTLS", &args);
      f->chunking |= keyword(line, "CHUNKING", &args);
      f->eightbit |= keyword(line, "8BITMIME", &args);
      f->dsn |= keyword(line, "DSN", &args);
      f->prdr |= keyword(line, "PRDR", &args);
      f->utf8 |= keyword(line, "SMTPUTF8", &args);
      f->requiretls |= n->tls && keyword(line, "REQUIRETLS", &args);
      f->early |= keyword(line, "PIPECONNECT", &args) || keyword(line, "PIPE_CONNECT", &args) || keyword(line, "X_PIPE_CONNECT", &args);
    }
  }
  if (n->tls || !f->starttls) /* else anybody may have put it in */
    note_limits(f, limits);
  f->prdr = f->prdr && host_in(t, &t->o->hosts_try_prdr);
  f->pipelining = f->pipelining && !host_in(t, &t->o->hosts_avoid_pipelining);
  f->chunking = f->chunking && host_in(t, &t->o->hosts_try_chunking);
}

void smtp_note_step(struct smtp_connection *n, char step) {
  size_t k = strlen(n->steps);
  if (k + 1 < sizeof n->steps)
    n->steps[k] = step;
}

static enum smtp_stage_result say_hello(struct attempt *t) {
  struct smtp_connection *n = t->n;
  struct str name = n->helo_name, ehlo_text = STR_EMPTY;
  enum smtp_stage_result r;
  n->esmtp = t->o->lmtp || !host_in(t, &t->o->hosts_avoid_esmtp);
  if (n->esmtp && smtp_early_offers(t->c, n)) {
    n->early.used = n->early.owes_ehlo = true;
    smtp_note_step(n, 'e');
    return smtp_command(t->c, n, false, "EHLO %.*s", STRF(name));
  }
  n->offers = (struct smtp_offers){.auth_mechanisms = STR_EMPTY};
  if (n->esmtp) {
    smtp_note_step(n, t->o->lmtp ? 'l' : 'e');
    r = smtp_command(t->c, n, true, "%s %.*s", t->o->lmtp ? "LHLO" : "EHLO", STRF(name));
    if (!r)
      r = smtp_expect(t->c, n, t->o->command_timeout, '2');
    if (!r) {
      n->ehlo_reply = str_dup(n->arena, n->reply.text);
      smtp_note_offers(t->c, n, n->ehlo_reply);
      smtp_early_learn(t->c, n);
    }
    struct str unused;
    if (r != SMTP_BROKEN)
      (void)event_raise(t->c, t->n->transport, "smtp:ehlo", n->reply.text, 0, &unused);
    if (!r)
      return SMTP_OK;
    /* Whatever it says to EHLO, it may still take HELO; after 421 it may be gone, which the next reply tells. */
    if (r == SMTP_BROKEN || t->o->lmtp)
      return r;
    ehlo_text = n->reply.text;
  }
  n->esmtp = false;
  smtp_note_step(n, 'h');
  r = smtp_command(t->c, n, true, "HELO %.*s", STRF(name));
  if (!r)
    r = smtp_expect(t->c, n, t->o->command_timeout, '2');
  if (!r)
    n->ehlo_reply = str_dup(n->arena, n->reply.text);
  else if (r == SMTP_BROKEN && ehlo_text.len)
    n->error_text = str_tainted(str_printf(t->c->arena, "%.*s (EHLO response was: %.*s)", STRF(n->error_text), STRF(ehlo_text)));
  return r;
}

static void on_verify_error(void *arg, struct str text) {
  struct attempt *t = arg;
  log_write(LOG_MAIN, t->c->message, "[%.*s] %.*s", STRF(t->n->host_address), STRF(log_printable(t->c->arena, text)));
}

/* The event tls:cert: something said in answer refuses the certificate. One that does not verify is what later events see. */
static int on_certificate(void *arg, struct x509_st *cert, int depth, bool good) {
  struct attempt *t = arg;
  struct ctx *c = t->c;
  struct tls_info seen = {.peer_cert = cert}, *saved = c->tls_out;
  struct str text = STR_EMPTY;
  if (!event_wanted(c, t->n->transport))
    return 0;
  if (!good) {
    c->tls_out = tls_info_copy(c->arena, &seen);
    return 0;
  }
  c->tls_out = &seen;
  int rc = event_raise(c, t->n->transport, "tls:cert", str_printf(c->arena, "%d", depth), 0, &text);
  c->tls_out = saved;
  return rc || text.len ? -1 : 0;
}

/* Manual, tls_verify_hosts: when neither option selects any host on purpose, certificates must verify. */
static enum tls_verify verify_wanted(struct attempt *t) {
  const struct smtp_client_options *o = t->o;
  if (!str_is_set(o->tls_verify_hosts.text) && str_trim(o->tls_try_verify_hosts.text).len == 0)
    return TLS_VERIFY_REQUIRED;
  if (host_needs(t, &t->o->tls_verify_hosts))
    return TLS_VERIFY_REQUIRED;
  return host_in(t, &o->tls_try_verify_hosts) ? TLS_VERIFY_OPTIONAL : TLS_VERIFY_NONE;
}

/* Manual, "DANE": a key that a TLSA record names needs no proof, unless the option was set on purpose. */
static enum tls_ocsp_wish ocsp_wish(struct attempt *t) {
  const struct smtp_client_options *o = t->o;
  bool key_is_known = t->n->dane.in_effect && t->n->dane.usage != 0 && t->n->dane.usage != 4;
  if (host_needs(t, &t->o->hosts_require_ocsp))
    return TLS_OCSP_REQUIRE;
  if (key_is_known && str_eq_c(o->hosts_request_ocsp.text, "*"))
    return TLS_OCSP_IGNORE;
  return host_in(t, &o->hosts_request_ocsp) ? TLS_OCSP_REQUEST : TLS_OCSP_IGNORE;
}

/* Forced failure is as if it were unset. */
static bool tls_option(struct attempt *t, const struct option_expr *o, const char *name, struct str *ret, struct str *ret_error) {
  struct ctx *c = t->c;
  int rc = expand_option(c, o, ret);
  if (rc == OUTCOME_FORCED)
    *ret = STR_UNSET;
  if (!rc || rc == OUTCOME_FORCED)
    return true;
  log_write(LOG_MAIN | LOG_PANIC, c->message, "expansion of %s failed: %.*s", name, STRF(c->error));
  *ret_error = STR("Internal error");
  return false;
}

/* Brings TLS up on the stream with the transport's certificate and verification options. */
static int start_tls_layer(struct attempt *t, struct str *ret_error) {
  struct ctx *c = t->c;
  const struct smtp_client_options *o = t->o;
  struct tls_params p = {.arg = t, .on_verify_error = on_verify_error, .on_certificate = on_certificate};
  if (!tls_option(t, &main_options(c->config)->openssl_options, "openssl_options", &p.openssl_options, ret_error) ||
      !tls_option(t, &o->tls_certificate, "tls_certificate", &p.certificate, ret_error) ||
      !tls_option(t, &o->tls_privatekey, "tls_privatekey", &p.private_key, ret_error) ||
      !tls_option(t, &o->tls_require_ciphers, "tls_require_ciphers", &p.ciphers, ret_error) ||
      !tls_option(t, &o->tls_sni, "tls_out_sni", &p.sni, ret_error) ||
      !tls_option(t, &o->tls_verify_certificates, "tls_verify_certificates", &p.verify_certificates, ret_error) ||
      !tls_option(t, &o->tls_crl, "tls_crl", &p.crl, ret_error) || !tls_option(t, &o->tls_alpn, "tls_alpn", &p.alpn, ret_error))
    return -EINVAL;
  p.require_alpn = host_needs(t, &t->o->hosts_require_alpn);
  if (str_trim(p.verify_certificates).len)
    p.verify = verify_wanted(t);
  if (p.verify && host_needs(t, &t->o->tls_verify_cert_hostnames))
    p.verify_host = str_is_set(c->host->certname) ? c->host->certname : t->n->host_name; /* as it was asked for, not where a CNAME led to */
  if (t->requiretls == REQUIRETLS_NEEDED) {
    if (!str_trim(p.verify_certificates).len)
      p.verify_certificates = STR("system");
    p.verify = TLS_VERIFY_REQUIRED;
    /* The name before any CNAME: the one that was validated. */
    p.verify_host = str_is_set(c->host->certname) && c->host->certname.len ? c->host->certname : t->n->host_name;
  } else if (t->requiretls == REQUIRETLS_RELAXED && p.verify == TLS_VERIFY_REQUIRED) {
    p.verify = TLS_VERIFY_OPTIONAL;
  }
  smtp_sts_params(c, t->n, &p);
  if (!p.verify)
    p.on_verify_error = NULL; /* nobody has asked */
  if (smtp_dane_params(c, t->n, o, &p)) {
    *ret_error = str_printf(c->arena, "(TLS options): %.*s", STRF(c->error));
    return -EINVAL;
  }
  p.ocsp = ocsp_wish(t);
  if (str_is_set(t->n->list_fault)) {
    *ret_error = t->n->list_fault;
    return -EINVAL;
  }
  const char *why; /* certificates and SNI have names in ASCII (RFC 6066 3, RFC 6125 6.4.2) */
  (void)idn_domain_to_ascii(c->arena, p.verify_host, &p.verify_host, &why);
  (void)idn_domain_to_ascii(c->arena, p.sni, &p.sni, &why);
  smtp_resume_prepare(c, t->n, o, &p);
  struct tls_info *info = NULL;
  p.ocsp_status = &t->n->ocsp_status;
  t->n->tls_fault = (struct tls_fault){0};
  p.fault = &t->n->tls_fault;
  int e = tls_client_start(t->n->stream, &p, deadline_in(o->command_timeout), t->n->arena, &info, ret_error);
  if (e) {
    struct tls_info seen = c->tls_out ? *c->tls_out : (struct tls_info){0};
    seen.ocsp = t->n->ocsp_status; /* what is left of it for the events that follow */
    c->tls_out = tls_info_copy(c->arena, &seen);
    if (p.verify != TLS_VERIFY_REQUIRED) /* the certificate was not what it failed for */
      t->n->tls_fault = (struct tls_fault){0};
    return e;
  }
  t->n->tls = true;
  info->tlsa_usage = t->n->dane.usage;
  t->n->tls_info = info;
  /* A certificate for the mail domain is none for other domains of the host. */
  t->n->unusable |= info->dane && str_is_set(info->verified_name) && !str_ieq(info->verified_name, t->n->dane.base) &&
                    str_ieq(info->verified_name, c->vars.domain);
  c->tls_out = tls_info_copy(c->arena, info);
  return 0;
}

static enum smtp_stage_result tls_failed(struct attempt *t, struct str text) {
  if (str_is_set(t->n->list_fault))
    return lists_known(t);
  if (t->n->dane.in_effect) {
    log_write(LOG_MAIN, t->c->message, "DANE attempt failed; TLS connection to %.*s [%.*s]: %.*s", STRF(t->n->host_name),
        STRF(t->n->host_address), STRF(log_printable(t->c->arena, text)));
    smtp_dane_failed(t->c, t->n, "validation-failure", "validation-failure", NULL);
  } else {
    tlsrpt_note(t->c, t->n, "validation-failure", NULL);
  }
  t->n->error = ERROR_TLS_FAILURE;
  t->n->error_text = str_printf(t->c->arena, "TLS session: %.*s", STRF(text));
  return SMTP_BROKEN;
}

static enum smtp_stage_result require_tls(struct attempt *t, const char *why) {
  const char *type = t->n->offers.starttls ? "validation-failure" : "starttls-not-supported";
  if (t->n->dane.tls_required)
    smtp_dane_failed(t->c, t->n, type, type, why);
  else
    tlsrpt_note(t->c, t->n, type, why);
  return fail(t, ERROR_TLS_REQUIRED, "a TLS session is required, but ", why);
}

/* STARTTLS when it is offered and not avoided; what is demanded must come (RFC 3207). *ret_clear_again: the handshake failed
and the options allow another connection without TLS. */
static enum smtp_stage_result starttls(struct attempt *t, bool avoid, bool *ret_clear_again) {
  bool required = t->requiretls == REQUIRETLS_NEEDED || t->n->dane.tls_required || t->n->sts.mode == STS_ENFORCE || t->c->host->tls_service ||
                  host_needs(t, &t->o->hosts_require_tls);
  bool lenient = t->o->tls_tempfail_tryclear || t->requiretls == REQUIRETLS_RELAXED;
  *ret_clear_again = false;
  avoid = avoid || host_in(t, &t->o->hosts_avoid_tls) || (t->o->callout && host_in(t, &t->o->hosts_verify_avoid_tls));
  if (lists_known(t))
    return SMTP_BROKEN;
  if (!t->n->offers.starttls || avoid)
    return required ? require_tls(t, "the server did not offer TLS support") : SMTP_OK;
  smtp_note_step(t->n, 's');
  enum smtp_stage_result r = smtp_command(t->c, t->n, true, "STARTTLS");
  if (!r && (r = smtp_early_settle(t->c, t->n)))
    return r; /* of the banner or EHLO: no answer to STARTTLS */
  if (!r)
    r = smtp_expect(t->c, t->n, t->o->command_timeout, '2');
  if (r == SMTP_REFUSED || (r == SMTP_TEMPORARY && lenient))
    return required ? require_tls(t, "an attempt to start TLS failed") : SMTP_OK;
  if (r)
    return r;
  struct str error = STR_EMPTY;
  stream_discard_input(t->n->stream); /* nothing said in clear after STARTTLS counts */
  if (start_tls_layer(t, &error)) {
    *ret_clear_again = !required && lenient && !str_is_set(t->n->list_fault);
    struct str text = str_printf(t->c->arena, "TLS session: %.*s", STRF(error)), unused;
    if (*ret_clear_again && !t->o->callout)
      (void)event_raise(t->c, t->n->transport, "msg:host:defer", text, ERROR_TLS_FAILURE, &unused);
    if (*ret_clear_again)
      log_write(LOG_MAIN, t->c->message, "TLS session: %.*s: %s unencrypted to %s%.*s [%.*s] (not in hosts_require_tls)",
          STRF(error), t->o->callout ? "callout" : "delivering", t->o->callout ? "" : "H=", STRF(t->n->host_name),
          STRF(t->n->host_address));
    return tls_failed(t, error);
  }
  return say_hello(t);
}

static enum smtp_stage_result authenticate(struct attempt *t) {
  bool required = host_needs(t, &t->o->hosts_require_auth), wanted = required || host_needs(t, &t->o->hosts_try_auth);
  if (!wanted || str_is_set(t->n->list_fault))
    return lists_known(t);
  enum smtp_auth_result r = t->n->offers.auth ? smtp_authenticate(t->c, t->n) : SMTP_AUTH_NONE;
  if (r == SMTP_AUTH_OK) {
    t->n->authenticated = true;
    return SMTP_OK;
  }
  if (r == SMTP_AUTH_BROKEN)
    return SMTP_BROKEN;
  if (r == SMTP_AUTH_TEMPORARY) { /* whatever the reply's class: also a question too many */
    smtp_note_refusal(t->c, t->n, 0);
    return SMTP_TEMPORARY;
  }
  if (r == SMTP_AUTH_ERROR)
    return fail(t, ERROR_AUTH_PROBLEM, "", str_dup_c(t->c->arena, t->n->error_text));
  if (!required)
    return SMTP_OK;
  return fail(t, ERROR_AUTH_FAIL, "authentication required but ",
      !t->n->offers.auth          ? "server did not advertise AUTH support"
      : r == SMTP_AUTH_NONE       ? "no common mechanisms were found"
                                  : "authentication attempt(s) failed");
}

/* An authenticated_sender that does not expand: nothing is sent. */
static enum smtp_stage_result authenticated_sender(struct attempt *t) {
  struct str sender;
  if (expand_option(t->c, &t->o->authenticated_sender, &sender) != OUTCOME_ERROR)
    return SMTP_OK;
  return fail(t, ERROR_EXPAND_FAIL, "failed to expand authenticated_sender: ", str_dup_c(t->c->arena, t->c->error));
}

static enum smtp_stage_result read_banner(struct attempt *t) {
  t->n->command = STR("initial connection");
  t->n->command_pipelined = false;
  enum smtp_stage_result r = smtp_expect(t->c, t->n, t->o->command_timeout, '2');
  if (!r)
    t->n->greeting = str_dup(t->n->arena, t->n->reply.text);
  return r;
}

/* Without a transport, which a callout may lack, the name that we have told our client. */
static struct str default_helo(struct ctx *c) {
  return str_is_set(c->smtp_active_hostname) && c->smtp_active_hostname.len ? c->smtp_active_hostname
                                                                            : main_options(c->config)->primary_hostname;
}

/* RFC 8689, section 4.2.1: who tells us where to go must be trusted before anybody is asked. */
static enum smtp_stage_result trusted_host(struct attempt *t) {
  const struct host *h = t->c->host;
  bool by_policy = t->n->sts.mode == STS_ENFORCE && t->n->sts.allowed;
  if (t->requiretls == REQUIRETLS_NEEDED && h->mx >= 0 && !h->dnssec && !by_policy)
    return fail(t, ERROR_ENCRYPTION_NEEDED, "", "the name of the host is not validated: its MX record is not secure");
  return SMTP_OK;
}

static enum smtp_stage_result promised(struct attempt *t) {
  if (t->requiretls != REQUIRETLS_NEEDED || (t->n->tls && t->n->offers.requiretls))
    return SMTP_OK;
  return fail(t, ERROR_REQUIRETLS, "", "REQUIRETLS support required");
}

/* What keeps a host from getting such a message, as an answer to the sender: no later attempt would do better. */
static void note_unfit(struct attempt *t) {
  struct smtp_connection *n = t->n;
  bool of_tls = n->error == ERROR_TLS_REQUIRED || n->error == ERROR_TLS_FAILURE || n->error == ERROR_STS_POLICY;
  if (t->requiretls == REQUIRETLS_NONE) {
    if (of_tls && n->sts.mode == STS_ENFORCE) /* the host may be good enough for other domains */
      n->error = ERROR_STS_POLICY;
    return;
  }
  if (n->error == ERROR_TLS_REQUIRED || (of_tls && t->requiretls == REQUIRETLS_NEEDED))
    n->error = ERROR_ENCRYPTION_NEEDED;
  if (n->error == ERROR_ENCRYPTION_NEEDED)
    n->error_text = str_printf(t->c->arena, "550 5.7.10 Encryption needed: %.*s", STRF(n->error_text));
  else if (n->error == ERROR_REQUIRETLS)
    n->error_text = str_printf(t->c->arena, "550 5.7.30 %.*s", STRF(n->error_text));
}

static enum smtp_stage_result set_up(struct attempt *t, bool avoid_tls, bool *ret_clear_again) {
  struct ctx *c = t->c;
  struct str helo;
  *ret_clear_again = false;
  enum smtp_stage_result r = smtp_dane_look_up(c, t->n, t->o);
  if (!r)
    r = smtp_sts_look_up(c, t->n, t->o);
  if (!r)
    r = trusted_host(t);
  if (!r)
    r = tcp_connect(t);
  if (r)
    return r;
  if (expand_option(c, &t->o->helo_data, &helo))
    return fail(t, ERROR_EXPAND_FAIL, t->o->callout ? "failed to expand transport's helo_data value for callout: " : "failed to expand helo_data: ",
        str_dup_c(c->arena, c->error));
  struct str ascii;
  const char *why;
  helo = helo.len ? helo : default_helo(c);
  t->n->helo_name = str_dup(t->n->arena, idn_domain_to_ascii(c->arena, helo, &ascii, &why) ? ascii : helo);
  smtp_early_prepare(c, t->n, t->interface);
  if (t->on_connect) {
    struct str error = STR_EMPTY;
    if (start_tls_layer(t, &error))
      return tls_failed(t, error);
  }
  if (smtp_early_offers(c, t->n)) {
    t->n->early.owes_banner = true;
  } else {
    r = read_banner(t);
    if (!r)
      r = smtp_greeted(t->c, t->n);
  }
  if (!r)
    r = say_hello(t);
  if (!r && !t->n->tls)
    r = starttls(t, avoid_tls, ret_clear_again);
  if (!r)
    r = promised(t);
  if (!r)
    tlsrpt_note_ready(c, t->n);
  if (!r)
    r = authenticate(t);
  if (!r)
    r = authenticated_sender(t);
  return r;
}

static struct smtp_connection *connection_new(struct ctx *c, const struct instance *t, int port) {
  struct arena *a = arena_new("smtp connection");
  struct smtp_connection *n = arena_new_of(a, struct smtp_connection);
  n->arena = a;
  n->transport = t;
  n->host_name = str_dup(a, c->host->name);
  n->host_address = str_dup(a, c->host->address);
  n->ip = c->host->ip;
  n->port = port;
  n->host_secure = c->host->dnssec;
  n->error_text = STR_EMPTY;
  n->user = c;
  return n;
}

/* Where STARTTLS is tried when TLS on connect to a host of the service smtp-tls does not work: the transport's port, or 25. */
static int port_for_starttls(struct ctx *c, const struct smtp_client_options *o) {
  struct str text;
  uint64_t port;
  bool given = str_is_set(o->port.text) && !expand_option(c, &o->port, &text) && str_to_u64(text, &port) && port > 0 && port < 65536;
  return given ? (int)port : 25;
}

struct smtp_connection *smtp_connect(struct ctx *c, const struct instance *t, int port, enum smtp_stage_result *ret_why,
    int *ret_errno, struct str *ret_text, struct str *ret_command, struct str *ret_reply) {
  struct attempt at = {.c = c, .o = smtp_client_options(t), .interface = STR_UNSET};
  bool avoid_tls = false;
  bool by_service = c->host->tls_service && !at.o->lmtp && port != 25;
  at.on_connect = at.o->tls_on_connect || by_service;
  if (c->host->tls_service && !by_service)
    at.on_connect = false;
  at.requiretls = smtp_requiretls_mode(c, at.o);
  int unset = expand_option(c, &at.o->interface, &at.interface);
  if (unset == OUTCOME_FORCED)
    at.interface = STR_UNSET;
  if (unset && unset != OUTCOME_FORCED) {
    *ret_why = SMTP_BROKEN;
    *ret_errno = ERROR_EXPAND_FAIL;
    *ret_text = str_printf(c->arena, "failed to expand \"interface\" option for %.*s transport: %.*s", STRF(t->name), STRF(c->error));
    return NULL;
  }
  for (;;) {
    bool clear_again;
    at.n = connection_new(c, t, port);
    smtp_use(c, NULL);
    at.n->requiretls = at.requiretls;
    at.n->key = str_dup(at.n->arena, smtp_pool_key(c, t, port, at.interface));
    DEBUG(transport, "Connecting to %.*s [%.*s]:%d\n", STRF(at.n->host_name), STRF(at.n->host_address), port);
    *ret_why = set_up(&at, avoid_tls, &clear_again);
    if (*ret_why == SMTP_OK)
      return at.n;
    note_unfit(&at);
    *ret_errno = at.n->error;
    *ret_text = at.n->error_text;
    *ret_command = str_dup(c->arena, at.n->command);
    *ret_reply = str_dup(c->arena, at.n->reply.text);
    bool ours = at.n->error == ERROR_AUTH_PROBLEM || (at.n->error == ERROR_EXPAND_FAIL && str_is_set(at.n->greeting));
    bool talking = ours || at.n->error == ERROR_AUTH_FAIL || at.n->error == ERROR_TLS_REQUIRED || (at.n->error == ERROR_STS_POLICY && !at.n->tls) || at.n->error == ERROR_EVENT || at.n->error == ERROR_REQUIRETLS;
    bool said_no = *ret_why != SMTP_BROKEN || talking, stale = at.n->stale;
    smtp_disconnect(at.n, said_no);
    bool starttls_instead = by_service && *ret_why == SMTP_BROKEN && *ret_errno != ERROR_EVENT && !stale;
    if (starttls_instead) {
      by_service = at.on_connect = false;
      port = port_for_starttls(c, at.o);
    }
    if (!clear_again && !stale && !starttls_instead)
      return NULL;
    avoid_tls |= clear_again;
  }
}

void smtp_use(struct ctx *c, const struct smtp_connection *n) {
  struct sockaddr_storage own;
  socklen_t len = sizeof own;
  struct ip_addr ip;
  int port;
  c->proxy_out = n && n->proxy ? arena_memdup(c->arena, n->proxy, sizeof *n->proxy) : NULL;
  if (c->proxy_out) {
    c->proxy_out->local_address = str_dup(c->arena, n->proxy->local_address);
    c->proxy_out->external_address = str_dup(c->arena, n->proxy->external_address);
  }
  c->tls_out = n && n->tls_info ? tls_info_copy(c->arena, n->tls_info) : NULL;
  c->vars.sending_ip_address = STR_EMPTY;
  c->vars.sending_port = STR_EMPTY;
  if (!n || getsockname(stream_fd(n->stream), (struct sockaddr *)&own, &len) || !ip_from_sockaddr((struct sockaddr *)&own, &ip, &port))
    return;
  c->vars.sending_port = str_printf(c->arena, "%d", port);
  c->vars.sending_ip_address = ip_text(c->arena, &ip);
}

void smtp_disconnect(struct smtp_connection *n, bool quit) {
  if (n->reversed) {
    n->ended = true;
    n->gone |= !quit;
    return;
  }
  if (n->stream) {
    if (quit && !stream_write(n->stream, STR("QUIT\r\n")))
      (void)!stream_flush(n->stream);
    stream_free(n->stream);
    struct str unused;
    if (n->user)
      (void)event_raise(n->user, n->transport, "tcp:close", STR_EMPTY, 0, &unused);
  }
  arena_free(n->arena);
}

/* --- connections that the other side has turned round (RFC 2645) --- */

#define REVERSED_QUIT_SECONDS 10

struct smtp_connection *smtp_reversed_new(struct stream *s, const struct ip_addr *ip, int port, const struct tls_info *tls) {
  struct arena *a = arena_new("smtp connection");
  struct smtp_connection *n = arena_new_of(a, struct smtp_connection);
  *n = (struct smtp_connection){.arena = a, .stream = s, .host_name = ip_text(a, ip), .ip = *ip, .port = port, .reversed = true,
      .key = STR_EMPTY, .command = STR_EMPTY, .error_text = STR_EMPTY, .reply = {.text = STR_EMPTY}};
  n->host_address = n->host_name;
  n->tls_info = tls_info_copy(a, tls);
  n->tls = n->tls_info != NULL;
  return n;
}

enum smtp_stage_result smtp_reversed_ready(struct ctx *c, struct smtp_connection *n, const struct instance *t) {
  struct attempt at = {.c = c, .n = n, .o = smtp_client_options(t), .interface = STR_UNSET};
  struct str helo, ascii;
  const char *unused;
  n->transport = t;
  n->user = c;
  n->ended |= !n->tls && host_in(&at, &at.o->hosts_require_tls);
  if (n->ended)
    return fail(&at, ERROR_TLS_REQUIRED, "a TLS session is required, but ", "the client has not started one before ATRN");
  if (n->greeted)
    return SMTP_OK;
  n->ended = expand_option(c, &at.o->helo_data, &helo) != 0;
  if (n->ended)
    return fail(&at, ERROR_EXPAND_FAIL, "failed to expand transport's helo_data value: ", str_dup_c(c->arena, c->error));
  helo = helo.len ? helo : default_helo(c);
  n->helo_name = str_dup(n->arena, idn_domain_to_ascii(c->arena, helo, &ascii, &unused) ? ascii : helo);
  stream_set_write_timeout(n->stream, (int)at.o->data_timeout);
  enum smtp_stage_result r = read_banner(&at);
  if (!r)
    r = smtp_greeted(c, n);
  if (!r)
    r = say_hello(&at);
  n->greeted = r == SMTP_OK;
  n->ended |= r != SMTP_OK;
  n->gone |= r == SMTP_BROKEN;
  return r;
}

void smtp_reversed_free(struct ctx *c, struct smtp_connection *n) {
  /* Who has not been spoken to yet still has to greet us. */
  bool good = !n->gone && (n->greeted || n->ended || smtp_read_reply(c, n, REVERSED_QUIT_SECONDS) == SMTP_OK);
  if (good && smtp_command(c, n, true, "QUIT") == SMTP_OK)
    (void)smtp_read_reply(c, n, REVERSED_QUIT_SECONDS);
  arena_free(n->arena);
}
