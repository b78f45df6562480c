#include "smtp/local.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "base/idn.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "message/address.h"
#include "smtp/space.h"

struct local {
  const struct local_params *p;
  const struct main_options *o;
  struct arena *arena;
  struct session session;
  struct ctx *c;
  struct message *m;
  struct reception *r;
  VEC(struct bad_recipient) bad;
  VEC(struct str) arguments;     /* with -t: qualified, to be left out */
};

static void set_client(struct local *l) {
  const struct local_params *p = l->p;
  struct client *cl = l->c->client;
  l->session.caller_known = true;
  l->session.caller_uid = p->submitter->uid;
  l->session.caller_gid = p->submitter->gid;
  cl->local = p->peer.family == 0;
  cl->connection_id = str_printf(l->arena, "%d", (int)getpid());
  cl->ident = str_is_set(p->ident) ? p->ident : p->submitter->login;
  cl->host_authenticated = p->host_authenticated;
  /* A trusted caller who gives a sender speaks for somebody else. */
  bool own = !(p->submitter->trusted && str_is_set(p->sender));
  cl->authenticated_id = str_is_set(p->authenticated_id) ? p->authenticated_id : own ? p->submitter->login : STR_UNSET;
  cl->authenticated_sender = p->authenticated_sender;
  if (!str_is_set(cl->authenticated_sender) && own)
    cl->authenticated_sender = receive_login_address(l->c, l->arena, p->submitter->login);
  cl->protocol = str_is_set(p->protocol) ? p->protocol : STR("local");
  if (p->local.family) {
    cl->interface_address = ip_text(l->arena, &p->local);
    cl->interface_port = p->local_port;
  }
  if (p->peer.family) {
    cl->ip = p->peer;
    cl->host_address = ip_text(l->arena, &p->peer);
    cl->host_port = p->peer_port;
    cl->host_name = p->host_name;
    cl->host_name_looked_up = str_is_set(p->host_name);
  }
  client_set_fullhost(l->arena, cl);
}

/* The caller's own address, or what -f says if the caller may say it. */
static void set_sender(struct local *l) {
  const struct local_params *p = l->p;
  struct message *m = l->m;
  struct str own = receive_login_address(l->c, m->arena, p->submitter->login);
  m->sender_local = true;
  if (!str_is_set(p->sender)) {
    m->reverse_path = own;
    m->reverse_path_local = true;
    return;
  }
  /* The command line's reader has checked it. */
  struct mail_address given;
  struct str error, sender = p->sender;
  if (address_parse(l->c->arena, sender,
      address_flags(l->c, ADDRESS_ALLOW_EMPTY | ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8), &given, &error) == 0)
    sender = given.address;
  sender = receive_qualify(l->c, m->arena, sender, true);
  if (!p->submitter->trusted && !receive_may_set_sender(l->c, sender)) {
    m->reverse_path = own;
    m->reverse_path_local = true;
    return;
  }
  m->reverse_path = sender;
  m->reverse_path.taint = STR_TAINTED;
  m->smtputf8 |= !str_is_ascii(sender);
  m->reverse_path_set_untrusted = !p->submitter->trusted;
  if (p->submitter->trusted) { /* for somebody else, of whom nothing is known but what -oMai and -oMas say */
    m->sender_local = false;
    l->c->client->authenticated_id = p->authenticated_id;
    l->c->client->authenticated_sender = p->authenticated_sender;
  }
}

/* One argument may hold several addresses. */
static void take_argument(struct local *l, struct str arg) {
  struct address_walk w = {.text = arg};
  while (address_walk_next(&w)) {
    bool group = w.shown_from != w.from; /* is for header lines only */
    struct str item = group ? str_slice(arg, w.shown_from, w.shown_to) : str_slice(arg, w.from, w.to), error = STR_UNSET;
    struct mail_address address;
    if (address_parse(l->c->arena, item, address_flags(l->c, ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8), &address, &error) == 0 &&
        address.domain.len == 0 && l->p->no_qualify) {
      error = STR("unqualified recipient address not allowed");
    } else if (!str_is_set(error)) {
      struct str full = receive_qualify(l->c, l->m->arena, address.address, false);
      full.taint = STR_TAINTED;
      if (l->p->extract_recipients && l->o->extract_addresses_remove_arguments)
        vec_push(l->arena, &l->arguments, full);
      else
        message_add_recipient(l->m, full)->given = address.domain.len ? STR_UNSET : str_dup(l->m->arena, address.address);
      l->m->smtputf8 |= !str_is_ascii(full); /* from here on UTF-8 is let in */
      continue;
    }
    struct bad_recipient bad = {item, error};
    vec_push(l->arena, &l->bad, bad);
  }
}

static int read_input(struct local *l, struct reception *r) {
  int64_t timeout = l->p->timeout >= 0 ? l->p->timeout : l->o->receive_timeout;
  usec_t deadline = deadline_in(timeout);
  while (!r->dot.ended) {
    struct str in = stream_peek(l->p->in);
    if (in.len == 0) {
      int rc = stream_fill(l->p->in, deadline);
      if (rc == 0)
        return 0;
      if (rc < 0)
        return rc;
      in = stream_peek(l->p->in);
    }
    stream_consume(l->p->in, receive_push(r, in));
  }
  return 0;
}

static int receive_failed(struct local *l, struct reception *r) {
  char number[32];
  snprintf(number, sizeof number, "%lld", (long long)r->p.size_limit);
  struct str limit = str_c(number);
  switch (r->error) {
    case RECEIVE_TOO_BIG: return local_report(l->p, r, LOCAL_TOO_BIG, limit, STR_EMPTY);
    case RECEIVE_HEADER_TOO_BIG: return local_report(l->p, r, LOCAL_HEADER_TOO_BIG, STR_EMPTY, STR_EMPTY);
    case RECEIVE_HEADER_LINE_TOO_BIG: return local_report(l->p, r, LOCAL_HEADER_LINE_TOO_BIG, STR_EMPTY, STR_EMPTY);
    default: return local_report(l->p, r, LOCAL_IO, r->log.len ? r->log : r->reply, STR_EMPTY);
  }
}

static int hand_over(struct local *l) {
  const struct acl_message *am = acl_message(l->c);
  const struct smtp_hooks *h = l->p->hooks;
  struct message *m = l->m;
  struct str why = STR_EMPTY;
  bool queue = l->p->queue_only || am->queue_only || m->frozen;
  if (!queue && h && h->must_queue && h->must_queue(h->arg, l->c, 0, &why)) {
    queue = true;
    if (log_selected(LOGSEL_delay_delivery) && why.len > 0)
      acl_log(l->c, LOG_MAIN, "no immediate delivery: %.*s", STRF(why));
  }
  if (am->queue_only && !m->frozen && log_selected(LOGSEL_delay_delivery))
    acl_log(l->c, LOG_MAIN, "no immediate delivery: queued by ACL");
  l->m = l->c->message = NULL;
  if (h && h->accepted)
    h->accepted(h->arg, l->c, m, queue);
  else
    message_free(m);
  return 0;
}

/* One line each: "address: error". */
static struct str bad_list(struct local *l, struct reception *r) {
  struct buf b;
  buf_init(&b, l->arena, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < r->bad.n; i++)
    buf_printf(&b, "%s%.*s: %.*s", i ? "\n" : "", STRF(r->bad.v[i].address), STRF(r->bad.v[i].error));
  return buf_str(&b);
}

static int finish(struct local *l, struct reception *r) {
  struct message *m = l->m;
  if (receive_end(r) < 0)
    return receive_failed(l, r);
  if (l->bad.n > 0)
    return local_report(l->p, r, LOCAL_BAD_ADDRESS, l->bad.v[0].address, l->bad.v[0].error);
  int64_t max = 0;
  if (expand_option_int(l->c, &l->o->recipients_max, "recipients_max", &max) == 0 && max > 0 && (int64_t)m->recipients.n > max)
    return local_report(l->p, r, LOCAL_TOO_MANY, str_printf(l->arena, "%lld", (long long)max), STR_EMPTY);
  if (r->bad.n > 0) {
    acl_log(l->c, LOG_MAIN | LOG_PANIC, "%s bad addresses found in headers", m->id);
    int status = local_report(l->p, r, LOCAL_BAD_IN_HEADER, bad_list(l, r), m->recipients.n > 0 ? STR("others") : STR_EMPTY);
    if (m->recipients.n == 0 || l->p->errors_to_stderr)
      return status;
  } else if (m->recipients.n == 0) {
    if (l->p->extract_recipients)
      acl_log(l->c, LOG_MAIN | LOG_PANIC, "%s no recipients found in headers", m->id);
    return local_report(l->p, r, r->extracted && l->arguments.n ? LOCAL_ARGS_SUPPRESSED : LOCAL_NO_RECIPIENTS, STR_EMPTY, STR_EMPTY);
  }
  struct str why;
  bool discarded;
  if (!receive_not_smtp_acl(r, &why, &discarded))
    return local_report(l->p, r, LOCAL_REJECTED, why, STR_EMPTY);
  if (discarded)
    return 1; /* nothing was accepted */
  receive_apply_controls(l->c, m);
  receive_keep_client(l->c, m, l->p->submitter);
  if (receive_commit(r) < 0)
    return local_report(l->p, r, LOCAL_IO, r->reply, STR_EMPTY);
  r->spool_open = false;
  return hand_over(l);
}

static int run(struct local *l) {
  const struct local_params *p = l->p;
  struct reception *r = l->r = arena_new_of(l->arena, struct reception);
  set_client(l);
  l->m = l->c->message = message_new("message");
  l->m->allow_unqualified_sender = l->m->allow_unqualified_recipient = !p->no_qualify;
  set_sender(l);
  for (size_t i = 0; i < p->recipients_n; i++)
    take_argument(l, p->recipients[i]);
  if (p->suppress_fixups)
    acl_message(l->c)->suppress_local_fixups = true;
  if (!spool_space_ok(l->c, 0)) {
    fprintf(p->err ? p->err : stderr, "%s: spool or log directory space is low: message not accepted\n", p->program);
    return 1;
  }
  receive_not_smtp_start(l->c);
  struct receive_params rp = {
      .dot = p->dot_is_data ? DOT_PLAIN : DOT_LOCAL,
      .local = p->peer.family == 0,
      .allow_from_line = true,
      .sender_from_line = p->submitter->trusted,
      .sender_forced = str_is_set(p->sender),
      .extract_recipients = p->extract_recipients,
      .qualify_headers = !p->no_qualify,
      .full_name = p->full_name,
      .submitter = p->submitter,
      .bounced_id = p->bounced_id,
      .argument_recipients = l->arguments.v,
      .argument_recipients_n = l->arguments.n,
  };
  if (receive_size_limit(l->c, &rp.size_limit) != 0) {
    acl_log(l->c, LOG_MAIN | LOG_PANIC, "invalid value for message_size_limit: %.*s", STRF(l->c->error));
    return 1;
  }
  receive_begin(r, l->c, l->m, &rp);
  int rc = read_input(l, r);
  if (rc == -ETIMEDOUT) {
    fprintf(p->err ? p->err : stderr, "%s: timed out while reading - message abandoned\n", p->program);
    acl_log(l->c, LOG_MAIN, "timed out while reading local message");
    return 1;
  }
  if (rc < 0) {
    fprintf(p->err ? p->err : stderr, "%s: error while reading - message abandoned\n", p->program);
    return 1;
  }
  return finish(l, r);
}

int receive_local(const struct local_params *p) {
  struct local l = {.p = p, .o = main_options(p->config)};
  l.arena = arena_new("local submission");
  l.session.arena = l.arena;
  l.session.kind = SESSION_STDIN;
  l.c = ctx_new(l.arena, p->config);
  l.c->client = &l.session.client;
  l.c->session = &l.session;
  void *saved = fiber_local();
  fiber_set_local(l.c);
  int status = run(&l);
  if (l.m) {
    if (l.r)
      receive_abandon(l.r);
    message_free(l.m);
  }
  fiber_set_local(saved);
  arena_free(l.arena);
  return status;
}
