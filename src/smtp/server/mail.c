/* MAIL (RFC 5321 section 4.1.1.2) and its parameters. */
#include <ctype.h>
#include <stdlib.h>

#include "base/encode.h"
#include "core/module.h"
#include "expand/expand.h"
#include "match/match.h"
#include "message/address.h"
#include "message/rewrite.h"
#include "sasl/authenticator.h"
#include "smtp/client/requiretls.h"
#include "smtp/server/internal.h"
#include "smtp/space.h"

/* ---- parameters ---- */

/* " NAME=value" or " NAME" at the end of `text`: cut off. */
static bool cut_parameter(struct str *text, struct str *name, struct str *value) {
  struct str t = str_rtrim(*text);
  size_t start = t.len;
  while (start > 0 && !isspace((unsigned char)t.p[start - 1]))
    start--;
  if (start == 0)
    return false;
  struct str word = str_from(t, start);
  size_t n = 0;
  while (n < word.len && (isalnum((unsigned char)word.p[n]) || word.p[n] == '-'))
    n++;
  if (n == 0 || (n < word.len && word.p[n] != '='))
    return false;
  *name = str_slice(word, 0, n);
  *value = n < word.len ? str_from(word, n + 1) : STR_UNSET;
  *text = str_rtrim(str_slice(t, 0, start));
  return true;
}

static int param_size(struct smtp_session *s, struct str value) {
  uint64_t n;
  if (!str_is_set(value) || value.len == 0)
    return OUTCOME_ERROR;
  for (uint32_t i = 0; i < value.len; i++)
    if (!isdigit((unsigned char)value.p[i]))
      return OUTCOME_ERROR;
  /* What is too large for any number is too large for any limit. */
  s->size_given = !str_to_u64(value, &n) || n > INT64_MAX ? INT64_MAX : (int64_t)n;
  return OUTCOME_OK;
}

static int param_body(struct smtp_session *s, struct str value) {
  if (str_is_set(value) && str_ieq_c(value, "8BITMIME"))
    s->body_8bit = 8;
  else if (str_is_set(value) && str_ieq_c(value, "7BIT"))
    s->body_8bit = 7;
  else {
    smtp_synprot(s, false, 501, STR_UNSET, "invalid data for BODY");
    return OUTCOME_FAIL;
  }
  return OUTCOME_OK;
}

static void ignore_auth(struct smtp_session *s, struct str value, const char *why) {
  acl_log(s->c, LOG_MAIN, "ignoring AUTH=%.*s from %.*s (%s)", STRF(log_printable(s->c->arena, value)),
      STRF(client_log_text(s->c->arena, s->c->client, true)), why);
  s->c->client->authenticated_sender = STR_UNSET;
}

/* The client's word for who submitted the message: believed only as the configuration says. */
static int param_auth(struct smtp_session *s, struct str value) {
  struct ctx *c = s->c;
  struct client *cl = c->client;
  /* Nothing behind "=" is nobody, as "<>" is. */
  if (!str_is_set(value))
    return OUTCOME_ERROR;
  if (value.len == 0 || str_eq_c(value, "<>"))
    return OUTCOME_OK;
  struct str sender;
  if (!xtext_decode(s->arena, value, &sender)) {
    smtp_synprot(s, false, 501, STR_UNSET, "invalid data for AUTH");
    return OUTCOME_FAIL;
  }
  cl->authenticated_sender = sender;
  bool authenticated = str_is_set(cl->host_authenticated) && cl->host_authenticated.len > 0;
  if (!str_is_set(s->o->acl_smtp_mailauth.text)) {
    if (!authenticated) {
      ignore_auth(s, value, "client not authenticated");
      return OUTCOME_OK;
    }
  } else {
    switch (smtp_acl(s, ACL_MAILAUTH, &s->o->acl_smtp_mailauth, ACL_OK)) {
      case ACL_OK: break;
      case ACL_FAIL: ignore_auth(s, value, "rejected by ACL"); return OUTCOME_OK;
      default:
        smtp_acl_refused(s, ACL_MAILAUTH, ACL_DEFER, str_printf(c->arena, "MAILAUTH %.*s", STRF(s->mail_data)));
        return OUTCOME_FAIL;
    }
  }
  const struct instance *i = authenticated ? config_driver(c->config, DRIVER_AUTHENTICATOR, cl->host_authenticated) : NULL;
  const struct authenticator_options *g = i ? i->generic : NULL;
  struct str text;
  if (g && str_is_set(g->server_mail_auth_condition.text)) {
    int rc = expand_option(c, &g->server_mail_auth_condition, &text);
    if (rc == OUTCOME_ERROR)
      log_write(LOG_MAIN | LOG_PANIC, NULL, "failed to expand condition \"%.*s\" for %.*s authenticator: %.*s",
          STRF(g->server_mail_auth_condition.text), STRF(i->name), STRF(c->error));
    text = rc || !str_is_set(text) ? STR_EMPTY : str_trim(text);
    if (text.len == 0 || str_eq_c(text, "0") || str_ieq_c(text, "no") || str_ieq_c(text, "false")) {
      struct str id = log_printable(c->arena, str_is_set(cl->authenticated_id) ? cl->authenticated_id : STR_EMPTY);
      struct str why = str_printf(c->arena, "server_mail_auth_condition failed%s%.*s%s", id.len ? ": authenticated ID=\"" : "", STRF(id),
          id.len ? "\"" : "");
      ignore_auth(s, value, str_dup_c(c->arena, why));
    }
  }
  return OUTCOME_OK;
}

/* Parameters that belong to a keyword are known only to whom it was offered. */
static bool offered_size(const struct smtp_session *s) { return s->ad_size; }
static bool offered_body(const struct smtp_session *s) { return s->o->accept_8bitmime; }
static bool offered_dsn(const struct smtp_session *s) { return s->ad_dsn; }

static bool offered_prdr(const struct smtp_session *s) { return s->ad_prdr; }

struct parameter {
  struct smtp_param_def def;
  bool (*offered)(const struct smtp_session *s);
};

static const struct parameter mail_parameters[] = {
    {{"SIZE", param_size}, offered_size}, {{"BODY", param_body}, offered_body}, {{"AUTH", param_auth}, NULL},
    {{"RET", smtp_param_ret}, offered_dsn}, {{"ENVID", smtp_param_envid}, offered_dsn}, {{"PRDR", smtp_param_prdr}, offered_prdr},
    {{"SMTPUTF8", smtp_param_utf8}, NULL}, {{"REQUIRETLS", smtp_param_requiretls}, NULL}, {{0}, NULL}};

static const struct parameter rcpt_parameters[] = {
    {{"NOTIFY", smtp_param_notify}, offered_dsn}, {{"ORCPT", smtp_param_orcpt}, offered_dsn}, {{0}, NULL}};

static const struct smtp_param_def *find_param(const struct smtp_param_def *p, struct str name) {
  for (; p && p->name; p++)
    if (str_ieq_c(name, p->name))
      return p;
  return NULL;
}

static const struct smtp_param_def *find_own(const struct smtp_session *s, const struct parameter *p, struct str name) {
  for (; p->def.name; p++)
    if (str_ieq_c(name, p->def.name))
      return !p->offered || p->offered(s) ? &p->def : NULL;
  return NULL;
}

/* Takes the parameters off the end of *text. What is none stays, and makes the address malformed. */
static int take_parameters(struct smtp_session *s, struct str *text, bool rcpt) {
  struct str rest = *text, name, value;
  while (s->esmtp && cut_parameter(&rest, &name, &value)) {
    const struct smtp_param_def *p = find_own(s, rcpt ? rcpt_parameters : mail_parameters, name);
    for (size_t i = 0; modules[i] && !p; i++)
      p = find_param(rcpt ? modules[i]->rcpt_params : modules[i]->mail_params, name);
    if (!p)
      return OUTCOME_OK;
    int rc = p->take(s, value);
    if (rc == OUTCOME_FAIL)
      return rc;
    if (rc != OUTCOME_OK)
      return OUTCOME_OK;
    *text = rest;
  }
  return OUTCOME_OK;
}

/* ---- MAIL ---- */

/* "4/5s" style settings: after `first` commands each waits `delay` seconds, which grows by `factor`, up to `limit`. */
void smtp_ratelimit(struct smtp_session *s, struct str setting, int count, const char *what) {
  if (!str_is_set(setting) || setting.len == 0 || !smtp_match_host(s, &s->o->smtp_ratelimit_hosts))
    return;
  struct str part[4] = {STR_EMPTY, STR_EMPTY, STR_EMPTY, STR_EMPTY}, rest = setting;
  for (int i = 0; i < 4 && str_is_set(rest); i++)
    part[i] = str_trim(str_cut(&rest, ','));
  int64_t first = 0;
  str_to_i64(part[0], &first);
  if (count <= first)
    return;
  double delay = 0, factor = 1, limit = 0;
  char *text = str_dup_c(s->c->arena, part[1]);
  delay = strtod(text, NULL);
  text = str_dup_c(s->c->arena, part[2]);
  if (*text)
    factor = strtod(text, NULL);
  text = str_dup_c(s->c->arena, part[3]);
  limit = *text ? strtod(text, NULL) : 0;
  for (int64_t i = first + 1; i < count && (limit <= 0 || delay < limit); i++)
    delay *= factor;
  if (limit > 0 && delay > limit)
    delay = limit;
  DEBUG(receive, "rate limit %s: delay %.3g sec\n", what, delay);
  if (delay > 0) {
    smtp_flush(s);
    fiber_sleep((usec_t)(delay * 1e6));
  }
}

static bool refused_by_size(struct smtp_session *s, struct str sender) {
  int64_t limit = 0;
  if (s->size_given < 0)
    return false;
  if (receive_size_limit(s->c, &limit) == 0 && limit > 0 && s->size_given > limit) {
    smtp_say(s, "552 Message size exceeds maximum permitted");
    bool huge = s->size_given == INT64_MAX || s->size_given >= INT32_MAX;
    acl_log(s->c, smtp_reject_logs(LOGSEL_size_reject), "rejected MAIL FROM:<%.*s> %.*s: message too big: size%s=%lld max=%lld",
          STRF(sender), STRF(smtp_who(s)), huge ? ">" : "", (long long)(huge ? INT32_MAX : s->size_given), (long long)limit);
    return true;
  }
  return false;
}

/* Unqualified: completed when that is allowed, else refused. */
static bool qualify_sender(struct smtp_session *s, struct mail_address *a) {
  if (a->domain.len > 0 || a->address.len == 0)
    return true;
  if (s->allow_unqualified_sender) {
    a->address = receive_qualify(s->c, s->c->arena, a->address, true);
    return true;
  }
  smtp_say(s, "501 %.*s: sender address must contain a domain", STRF(s->mail_data));
  unsigned logs = LOG_REJECT | (log_selected(LOGSEL_smtp_syntax_error) ? LOG_MAIN : 0);
  acl_log(s->c, logs, "unqualified sender rejected: <%.*s> %.*s%.*s", STRF(log_printable(s->c->arena, a->address)),
      STRF(smtp_who(s)), STRF(smtp_name_trouble(s)));
  return false;
}

static enum smtp_next too_many_messages(struct smtp_session *s) {
  smtp_say(s, "421 too many messages in this connection");
  acl_log(s->c, LOG_MAIN | LOG_REJECT, "rejected MAIL command %.*s: too many messages in one connection", STRF(smtp_who(s)));
  return SMTP_GO_ON;
}

enum smtp_next smtp_verb_mail(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  s->mail_seen = true;
  if (s->helo_required && !s->helo_seen) {
    acl_log(c, LOG_MAIN | LOG_REJECT, "rejected MAIL from %.*s: no HELO/EHLO given", STRF(smtp_sender_who(s)));
    smtp_say(s, "503 HELO or EHLO required"); /* no protocol error: it is not counted */
    return SMTP_GO_ON;
  }
  if (s->txn_state != TXN_NONE)
    return smtp_synprot(s, true, 503, STR_UNSET, "sender already given");
  if (args.len == 0)
    return smtp_synprot(s, true, 501, STR_UNSET, "MAIL must have an address operand");
  /* A new transaction begins in a clean arena: the command line is copied over. */
  struct arena_mark none = arena_mark(s->arena);
  struct str command = str_dup(s->arena, s->command), data = str_dup(s->arena, args);
  smtp_reset(s);
  s->command = str_dup(c->arena, command);
  s->mail_data = str_dup(c->arena, data);
  s->command.taint = s->mail_data.taint = STR_TAINTED;
  c->vars.smtp_command = s->command;
  c->vars.smtp_command_argument = s->mail_data;
  arena_rewind(s->arena, none);
  if (s->max_messages > 0 && s->messages >= s->max_messages)
    return too_many_messages(s);
  s->messages++;
  smtp_ratelimit(s, s->o->smtp_ratelimit_mail, s->messages, "MAIL");

  struct str text = s->mail_data, error;
  if (take_parameters(s, &text, false) != OUTCOME_OK)
    return SMTP_GO_ON;
  rewrite_smtp(c, true, &text);
  struct mail_address address;
  if (smtp_parse_path(s, text, ADDRESS_ALLOW_EMPTY, &address, &error) < 0)
    return smtp_synprot(s, false, 501, s->mail_data, "%.*s", STRF(error));
  if (refused_by_size(s, address.address))
    return SMTP_GO_ON;
  if (!spool_space_ok(c, s->o->smtp_check_spool_space && s->size_given > 0 ? s->size_given : 0)) {
    smtp_say(s, "452 Space shortage, please try later");
    return SMTP_GO_ON;
  }
  if (!qualify_sender(s, &address))
    return SMTP_GO_ON;

  struct message *m = smtp_begin_message(s);
  m->reverse_path = str_dup(m->arena, address.address);
  m->reverse_path.taint = STR_TAINTED;
  m->smtputf8 = s->utf8;
  if (s->requiretls)
    message_set_requiretls(m);
  smtp_dsn_message(s);
  m->size = s->size_given > 0 ? (uint64_t)s->size_given : 0;
  enum acl_result r = smtp_acl(s, ACL_MAIL, &s->o->acl_smtp_mail, ACL_OK);
  if (r == ACL_OK || r == ACL_DISCARD) {
    s->discard_all = r == ACL_DISCARD;
    s->discarded_by = "MAIL";
    s->discard_why = c->log_message;
    s->txn_state = TXN_MAIL;
    smtp_accept_reply(s, "250", s->prdr_requested ? "OK, PRDR Requested" : "OK");
    return SMTP_GO_ON;
  }
  enum smtp_next next = smtp_acl_refused(s, ACL_MAIL, r, str_printf(c->arena, "MAIL %.*s", STRF(s->mail_data)));
  message_free(s->message);
  s->message = c->message = NULL;
  return next;
}

int smtp_take_rcpt_parameters(struct smtp_session *s, struct str *text) { return take_parameters(s, text, true); }
