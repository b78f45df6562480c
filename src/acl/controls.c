/* `control = …` (Exim manual, section "Use of the control modifier"). */
#include "acl/internal.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/dscp.h"
#include "loop/stream.h"

#define MESSAGE_BITS                                                                                                   \
  (ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA) | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_MIME) |                \
      ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_DKIM) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_MIME))
#define SMTP_ONLY (ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START))

struct acl_session *acl_session(struct ctx *c) {
  return c->session ? session_module_state(c->session, &acl_module) : NULL;
}

struct acl_message *acl_message(struct ctx *c) {
  return c->message ? message_module_state(c->message, &acl_module) : NULL;
}

/* Message controls stand only where there is a message; session controls where there is a session: the tables say so,
but a broken caller must not crash a worker. */
#define NEED(p)                                                                                                        \
  if (!(p))                                                                                                            \
  return acl_fail(c, OUTCOME_ERROR, "control is not possible here")

static int control_allow_auth(struct ctx *c, struct str option) {
  struct acl_session *s = acl_session(c);
  NEED(s);
  s->allow_auth_unadvertised = true;
  return OUTCOME_OK;
}

/* The RCPT ACL's caller keeps both forms in vars; local_part_verified's neighbour fields hold the caseful one. */
static int control_caseful(struct ctx *c, struct str option) {
  struct acl_session *s = acl_session(c);
  if (s && s->recipient)
    c->vars.local_part = s->recipient->local_part;
  return OUTCOME_OK;
}

static int control_caselower(struct ctx *c, struct str option) {
  struct acl_session *s = acl_session(c);
  if (s && s->recipient)
    c->vars.local_part = s->recipient->local_part_lower;
  return OUTCOME_OK;
}

static int control_sync(struct ctx *c, bool on) {
  struct acl_session *s = acl_session(c);
  NEED(s);
  s->enforce_sync_set = true;
  s->enforce_sync = on;
  return OUTCOME_OK;
}
static int control_enforce_sync(struct ctx *c, struct str option) { return control_sync(c, true); }
static int control_no_enforce_sync(struct ctx *c, struct str option) { return control_sync(c, false); }

static int fake(struct ctx *c, bool defer, struct str option) {
  struct acl_message *m = acl_message(c);
  NEED(m);
  m->fakedefer = defer;
  m->fakereject = !defer;
  m->fake_response = option.len > 0 ? str_dup(c->message->arena, option) : STR_UNSET;
  return OUTCOME_OK;
}
static int control_fakedefer(struct ctx *c, struct str option) { return fake(c, true, option); }
static int control_fakereject(struct ctx *c, struct str option) { return fake(c, false, option); }

/* For any recipient but the first it is ignored. */
static int control_cutthrough(struct ctx *c, struct str option) {
  struct acl_message *m = acl_message(c);
  NEED(m);
  bool pass = false, transport_sender = false;
  struct str rest = option;
  while (str_is_set(rest) && rest.len > 0) {
    struct str item = str_cut(&rest, '/');
    if (str_eq_c(item, "defer=pass") || str_eq_c(item, "defer=spool"))
      pass = str_eq_c(item, "defer=pass");
    else if (str_eq_c(item, "sender=transport") || str_eq_c(item, "sender=orig"))
      transport_sender = str_eq_c(item, "sender=transport");
    else
      return acl_fail(c, OUTCOME_ERROR, "syntax error in \"control=cutthrough_delivery/%.*s\"", STRF(option));
  }
  if (!str_eq_c(c->vars.rcpt_count_text, "1"))
    return OUTCOME_OK;
  m->cutthrough = !m->cutthrough_never;
  m->cutthrough_pass = pass;
  m->cutthrough_transport_sender = transport_sender;
  return OUTCOME_OK;
}

static int control_freeze(struct ctx *c, struct str option) {
  struct acl_message *m = acl_message(c);
  NEED(m);
  bool tell = true;
  if (str_eq_c(option, "no_tell"))
    tell = false;
  else if (option.len > 0)
    return acl_fail(c, OUTCOME_ERROR, "syntax error in \"control=freeze/%.*s\"", STRF(option));
  m->freeze_tell = (m->freeze && m->freeze_tell) || tell;
  m->freeze = true;
  return OUTCOME_OK;
}

static int control_no_delay_flush(struct ctx *c, struct str option) {
  struct acl_session *s = acl_session(c);
  NEED(s);
  s->no_delay_flush = true;
  return OUTCOME_OK;
}
static int control_no_callout_flush(struct ctx *c, struct str option) {
  struct acl_session *s = acl_session(c);
  NEED(s);
  s->no_callout_flush = true;
  return OUTCOME_OK;
}
static int control_no_multiline(struct ctx *c, struct str option) {
  struct acl_session *s = acl_session(c);
  NEED(s);
  s->no_multiline = true;
  return OUTCOME_OK;
}
static int control_no_pipelining(struct ctx *c, struct str option) {
  struct acl_session *s = acl_session(c);
  NEED(s);
  s->no_pipelining = true;
  return OUTCOME_OK;
}

static int control_queue(struct ctx *c, struct str option) {
  struct acl_message *m = acl_message(c);
  NEED(m);
  if (str_eq_c(option, "first_pass_route"))
    m->queue_first_pass = true;
  else if (option.len > 0)
    return acl_fail(c, OUTCOME_ERROR, "syntax error in \"control=queue/%.*s\"", STRF(option));
  m->queue_only = true;
  return OUTCOME_OK;
}

static int control_submission(struct ctx *c, struct str option) {
  struct acl_message *m = acl_message(c);
  NEED(m);
  m->submission = true;
  m->sender_retain = false;
  m->submission_domain = m->submission_name = STR_UNSET;
  struct str rest = option;
  while (rest.len > 0) {
    struct str whole = rest, item = str_cut(&rest, '/');
    if (str_eq_c(item, "sender_retain")) {
      m->sender_retain = true;
    } else if (str_starts(item, STR("domain="))) {
      m->submission_domain = str_dup(c->message->arena, str_from(item, 7));
    } else if (str_starts(whole, STR("name="))) { /* the last: it may hold slashes */
      m->submission_name = str_dup(c->message->arena, str_from(whole, 5));
      break;
    } else {
      return acl_fail(c, OUTCOME_ERROR, "syntax error in \"control=submission/%.*s\"", STRF(option));
    }
    if (!str_is_set(rest))
      break;
  }
  return OUTCOME_OK;
}

static int control_suppress_fixups(struct ctx *c, struct str option) {
  struct acl_message *m = acl_message(c);
  NEED(m);
  m->suppress_local_fixups = true;
  return OUTCOME_OK;
}

static int control_dkim_disable(struct ctx *c, struct str option) {
  struct acl_message *m = acl_message(c);
  if (m)
    m->dkim_disable_verify = true;
  return OUTCOME_OK;
}

static int control_dscp(struct ctx *c, struct str option) {
  int value;
  if (!dscp_parse(str_trim(option), &value))
    return acl_fail(c, OUTCOME_ERROR, "unrecognised DSCP value in \"control=dscp/%.*s\"", STRF(option));
  int fd = c->session && c->session->stream ? stream_fd_out(c->session->stream) : -1;
  if (fd < 0 || c->is_test || c->client->ip.family == 0)
    return OUTCOME_OK;
  int rc = dscp_set(fd, value);
  if (rc < 0)
    DEBUG(acl, "DSCP value not set: %s\n", strerror(-rc));
  return OUTCOME_OK;
}

const struct acl_control_def acl_core_controls[] = {
    {"allow_auth_unadvertised", false, ACL_ONLY(ACL_BIT(ACL_CONNECT) | ACL_BIT(ACL_HELO)), 0, control_allow_auth},
    {"caseful_local_part", false, ACL_ONLY(ACL_BIT(ACL_RCPT)), 0, control_caseful},
    {"caselower_local_part", false, ACL_ONLY(ACL_BIT(ACL_RCPT)), 0, control_caselower},
    {"cutthrough_delivery", true, ACL_ONLY(ACL_BIT(ACL_RCPT)), 0, control_cutthrough},
    {"debug", true, 0, 0, acl_control_debug},
    {"dkim_disable_verify", false, ACL_BIT(ACL_DATA) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_DKIM) | ACL_BIT(ACL_NOT_SMTP_START) |
            ACL_BIT(ACL_PRDR), 0, control_dkim_disable},
    {"dscp", true, SMTP_ONLY | ACL_BIT(ACL_NOTQUIT), 0, control_dscp},
    {"enforce_sync", false, SMTP_ONLY, 0, control_enforce_sync},
    {"fakedefer", true, ACL_ONLY(MESSAGE_BITS & ~ACL_BIT(ACL_NOT_SMTP)), 0, control_fakedefer},
    {"fakereject", true, ACL_ONLY(MESSAGE_BITS & ~ACL_BIT(ACL_NOT_SMTP)), 0, control_fakereject},
    {"freeze", true, ACL_ONLY(MESSAGE_BITS), 0, control_freeze},
    {"no_callout_flush", false, SMTP_ONLY, 0, control_no_callout_flush},
    {"no_delay_flush", false, SMTP_ONLY, 0, control_no_delay_flush},
    {"no_enforce_sync", false, SMTP_ONLY, 0, control_no_enforce_sync},
    {"no_multiline_responses", false, SMTP_ONLY, 0, control_no_multiline},
    {"no_pipelining", false, SMTP_ONLY, 0, control_no_pipelining},
    {"queue", true, ACL_ONLY(MESSAGE_BITS), 0, control_queue},
    {"queue_only", true, ACL_ONLY(MESSAGE_BITS), 0, control_queue},
    {"submission", true, ACL_ONLY(ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA)), 0, control_submission},
    {"suppress_local_fixups", false, ACL_ONLY(ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA) |
            ACL_BIT(ACL_NOT_SMTP_START)), 0, control_suppress_fixups},
    {0},
};

static const struct acl_control_def *find_control(struct str name) {
  for (size_t i = 0; modules[i]; i++)
    for (const struct acl_control_def *d = modules[i]->acl_controls; d && d->name; d++)
      if (str_eq_c(name, d->name))
        return d;
  for (const struct acl_control_def *d = acl_core_controls; d->name; d++)
    if (str_eq_c(name, d->name))
      return d;
  return NULL;
}

/* Constant arguments are checked when the configuration is read. */
int acl_check_control(struct config_reader *r, struct acl_clause *clause) {
  struct str value;
  if (!expr_is_constant(clause->arg.tree, &value)) {
    ptrdiff_t dollar = str_find_byte(clause->arg.text, '$'), slash = str_find_byte(clause->arg.text, '/');
    if (slash < 0 || (dollar >= 0 && dollar < slash))
      return 0; /* the name itself is expanded */
    value = clause->arg.text;
  }
  struct str rest = str_trim(value), name = str_trim(str_cut(&rest, '/'));
  const struct acl_control_def *d = find_control(name);
  if (!d)
    return config_error(r, "error in ACL: unknown control \"%.*s\"%.*s", STRF(name),
        STRF(acl_suggest_control(config_reader_arena(r), name)));
  if (d->flags & ACL_LATER)
    return config_error(r, "error in ACL: \"control = %.*s\" is not supported yet", STRF(name));
  if (d->flags & ACL_ALIAS)
    config_warning(r, "\"control = %s\" is a deprecated name for \"control = %s\"", d->name, d[-1].name);
  clause->custom = (void *)(uintptr_t)d;
  return 0;
}

int acl_apply_control(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str rest = str_trim(arg), name = str_trim(str_cut(&rest, '/'));
  const struct acl_control_def *d = clause->custom ? clause->custom : find_control(name);
  if (!d || (!d->has_option && str_is_set(rest)))
    return acl_fail(c, OUTCOME_ERROR, "syntax error in \"control=%.*s\"", STRF(arg));
  if (d->flags & ACL_LATER)
    return acl_fail(c, OUTCOME_ERROR, "\"control=%.*s\" is not supported yet", STRF(arg));
  if (d->forbidden & ACL_BIT(c->acl->where))
    return acl_fail(c, OUTCOME_ERROR, "cannot use \"control=%s\" in %s ACL", str_eq_c(name, "queue_only") ? "queue" : d->name,
        acl_where_name(c->acl->where));
  return d->apply(c, str_is_set(rest) ? rest : STR_EMPTY);
}
