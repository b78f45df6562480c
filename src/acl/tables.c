/* The ACL language's words, with the ACLs in which each may not stand (Exim
manual, sections "ACL modifiers", "Use of the control modifier", "ACL
conditions"). Words flagged ACL_LATER are known and refused. */
#include "acl/internal.h"

#include <stddef.h>

#include "base/buf.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "message/message.h"
#include "tls/tls.h"

#define RCPT_ONLY ACL_ONLY(ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_VRFY) | ACL_BIT(ACL_PRDR))

/* ---- conditions ---- */

/* List conditions match the compiled list when it is constant; else the expanded text. */
static bool is_constant(const struct acl_clause *clause) {
  struct str value;
  return expr_is_constant(clause->arg.tree, &value);
}

static int expand_name(struct ctx *c, const struct acl_clause *clause, struct str *ret) {
  int rc = expand(c, clause->arg.tree, ret);
  if (rc == OUTCOME_FORCED)
    return OUTCOME_FAIL; /* no list: nothing is in it */
  if (rc)
    return acl_fail(c, rc, "failed to expand ACL string \"%.*s\": %.*s", STRF(clause->arg.text), STRF(c->error));
  return 0;
}

/* A list that cannot be had is a test that cannot be completed; what is wrong stands in a line of its own. */
static int expand_list(struct ctx *c, const struct acl_clause *clause, struct str *ret) {
  int rc = expand(c, clause->arg.tree, ret);
  if (rc == OUTCOME_FORCED)
    return OUTCOME_FAIL; /* no list: nothing is in it */
  if (rc == 0)
    return 0;
  acl_log(c, LOG_MAIN | LOG_PANIC, "failed to expand \"%.*s\" while checking a list: %.*s",
      STRF(log_printable(c->arena, clause->arg.text)), STRF(log_printable(c->arena, c->error)));
  c->error = STR_EMPTY;
  return OUTCOME_DEFER;
}

/* A word, or a text in double quotes. */
static struct str argument(struct ctx *c, struct str *rest) {
  if (rest->p[0] != '"')
    return str_cut(rest, ' ');
  struct buf b;
  size_t i = 1;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  for (; i < rest->len && rest->p[i] != '"'; i++) {
    if (rest->p[i] == '\\' && i + 1 < rest->len && (rest->p[i + 1] == '"' || rest->p[i + 1] == '\\'))
      i++;
    buf_add_byte(&b, rest->p[i]);
  }
  *rest = str_from(*rest, i + 1);
  return buf_str(&b);
}

static int eval_acl(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str text = str_trim(clause->arg.text);
  struct str args[ACL_ARGS_MAX], name;
  int n = 0, rc;
  /* A name with arguments: name and values are expanded separately. An inline ACL has "=" or a verb and spaces. */
  ptrdiff_t space = str_find_byte(text, ' ');
  struct str first = space < 0 ? text : str_slice(text, 0, (size_t)space);
  if (space > 0 && first.p[0] != '$' && config_acl(c->config, first)) {
    struct str rest = str_ltrim(str_from(text, (size_t)space));
    name = first;
    while (rest.len > 0 && n < ACL_ARGS_MAX) {
      struct str word = argument(c, &rest);
      rc = expand_text(c, word, &args[n++]);
      if (rc)
        return rc == OUTCOME_FORCED
            ? rc : acl_fail(c, OUTCOME_DEFER, "failed to expand ACL string \"%.*s\": %.*s", STRF(word), STRF(c->error));
      rest = str_is_set(rest) ? str_ltrim(rest) : STR_EMPTY;
    }
  } else {
    rc = expand_name(c, clause, &name);
    if (rc)
      return rc;
    name = str_trim(name);
    space = str_find_byte(name, ' ');
    if (space > 0 && config_acl(c->config, str_slice(name, 0, (size_t)space))) {
      struct str rest = str_ltrim(str_from(name, (size_t)space));
      name = str_slice(name, 0, (size_t)space);
      while (rest.len > 0 && n < ACL_ARGS_MAX) {
        args[n++] = argument(c, &rest);
        rest = str_is_set(rest) ? str_ltrim(rest) : STR_EMPTY;
      }
    }
  }
  switch (acl_run(c, c->acl->where, name, args, n, c->acl->depth + 1)) {
    case ACL_OK: return OUTCOME_OK;
    case ACL_FAIL: return OUTCOME_FAIL;
    case ACL_DROP:
    case ACL_FAIL_DROP: return ACL_EVAL_DROP;
    case ACL_DISCARD: return ACL_EVAL_DISCARD;
    case ACL_DEFER: return OUTCOME_DEFER;
    default: return OUTCOME_ERROR;
  }
}

static int eval_authenticated(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  if (!str_is_set(c->client->host_authenticated) || c->client->host_authenticated.len == 0)
    return OUTCOME_FAIL;
  int rc = expand_list(c, clause, &arg);
  return rc ? rc : match_string(c, arg, c->client->host_authenticated, false, NULL);
}

static int eval_condition(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str t = str_trim(arg);
  if (t.len == 0 || str_ieq_c(t, "no") || str_ieq_c(t, "false"))
    return OUTCOME_FAIL;
  if (str_ieq_c(t, "yes") || str_ieq_c(t, "true"))
    return OUTCOME_OK;
  size_t i = t.p[0] == '-' && t.len > 1 ? 1 : 0;
  bool zero = true;
  for (; i < t.len; i++) {
    if (t.p[i] < '0' || t.p[i] > '9')
      return acl_fail(c, OUTCOME_DEFER, "invalid \"condition\" value \"%.*s\"", STRF(arg));
    zero = zero && t.p[i] == '0';
  }
  return zero ? OUTCOME_FAIL : OUTCOME_OK;
}

/* A connection-wide or message-wide value must outlive the ACL run. */
static struct str keep(struct ctx *c, struct str s) { return str_is_set(s) ? str_dup(c->arena, s) : s; }

static int eval_domains(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str data = STR_UNSET, list;
  int rc;
  if (is_constant(clause)) {
    rc = match_domain(c, &clause->arg, c->vars.domain, &data);
  } else {
    if ((rc = expand_list(c, clause, &list)) != 0)
      return rc;
    rc = match_text(c, LIST_DOMAIN, list, c->vars.domain, false, &data);
  }
  if (rc == OUTCOME_OK)
    c->vars.domain_data = keep(c, data);
  return rc;
}

static int eval_local_parts(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str data = STR_UNSET, list;
  int rc;
  if (is_constant(clause)) {
    rc = match_local_part(c, &clause->arg, c->vars.local_part, true, &data);
  } else {
    if ((rc = expand_list(c, clause, &list)) != 0)
      return rc;
    rc = match_text(c, LIST_LOCAL_PART, list, c->vars.local_part, true, &data);
  }
  if (rc == OUTCOME_OK)
    c->vars.local_part_data = keep(c, data);
  return rc;
}

static int eval_hosts(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str data = STR_UNSET, list;
  int rc;
  if (is_constant(clause)) {
    rc = match_client_host(c, &clause->arg, &data);
  } else {
    if ((rc = expand_list(c, clause, &list)) != 0)
      return rc;
    rc = match_host_text(c, list, c->client->host_name, c->client->host_address, &data);
  }
  if (rc == OUTCOME_OK)
    c->vars.host_data = keep(c, data);
  if (rc == OUTCOME_DEFER && !str_is_set(c->log_message))
    c->log_message = str_is_set(c->error) ? c->error : STR("host lookup did not complete");
  return rc;
}

static int match_sender(struct ctx *c, const struct acl_clause *clause, enum list_kind kind, struct str subject) {
  struct str data = STR_UNSET, list;
  int rc;
  if (is_constant(clause)) {
    rc = kind == LIST_DOMAIN ? match_domain(c, &clause->arg, subject, &data)
                             : match_address(c, &clause->arg, subject, false, &data);
  } else {
    if ((rc = expand_list(c, clause, &list)) != 0)
      return rc;
    rc = match_text(c, kind, list, subject, false, &data);
  }
  if (rc == OUTCOME_OK)
    c->vars.sender_data = keep(c, data);
  return rc;
}

static int eval_recipients(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str address = str_printf(c->arena, "%.*s%s%.*s", STRF(c->vars.local_part), c->vars.domain.len ? "@" : "",
      STRF(c->vars.domain));
  address.taint = STR_TAINTED;
  struct str list;
  if (is_constant(clause))
    return match_address(c, &clause->arg, address, false, NULL);
  int rc = expand_list(c, clause, &list);
  return rc ? rc : match_text(c, LIST_ADDRESS, list, address, false, NULL);
}

static int eval_senders(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  return match_sender(c, clause, LIST_ADDRESS, c->message ? c->message->reverse_path : STR_EMPTY);
}

static int eval_sender_domains(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str sender = c->message ? c->message->reverse_path : STR_EMPTY;
  ptrdiff_t at = str_rfind_byte(sender, '@');
  return match_sender(c, clause, LIST_DOMAIN, at < 0 ? STR_EMPTY : str_from(sender, (size_t)at + 1));
}

static int eval_encrypted(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  const struct tls_info *t = c->client->tls;
  int rc = t ? expand_list(c, clause, &arg) : OUTCOME_FAIL;
  if (rc)
    return rc;
  if (str_eq_c(str_trim(arg), "*"))
    return OUTCOME_OK;
  /* The suite's name is the middle part of "TLS1.3:NAME:BITS". */
  struct str rest = t->cipher, name;
  str_cut(&rest, ':');
  name = str_is_set(rest) ? str_cut(&rest, ':') : t->cipher;
  rc = match_string(c, arg, name, false, NULL);
  return rc == OUTCOME_FAIL ? match_string(c, arg, t->cipher, false, NULL) : rc;
}

const struct acl_condition_def acl_core_conditions[] = {
    {"acl", 0, false, 0, eval_acl, NULL},
    {"authenticated", ACL_NOT_SMTP_WHERE | ACL_BIT(ACL_CONNECT) | ACL_BIT(ACL_HELO), false, 0, eval_authenticated, NULL},
    {"condition", 0, true, 0, eval_condition, NULL},
    {"dnslists", ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START), true, 0, acl_eval_dnslists, NULL},
    {"domains", RCPT_ONLY, false, 0, eval_domains, NULL},
    {"encrypted", ACL_NOT_SMTP_WHERE | ACL_BIT(ACL_CONNECT), false, 0, eval_encrypted, NULL},
    {"hosts", ACL_NOT_SMTP_WHERE, false, 0, eval_hosts, NULL},
    {"local_parts", RCPT_ONLY, false, 0, eval_local_parts, NULL},
    {"ratelimit", 0, true, 0, acl_eval_ratelimit, NULL},
    {"recipients", RCPT_ONLY, false, 0, eval_recipients, NULL},
    {"seen", 0, true, 0, acl_eval_seen, NULL},
    {"sender_domains", ACL_NO_SENDER_WHERE, false, 0, eval_sender_domains, NULL},
    {"senders", ACL_NO_SENDER_WHERE, false, 0, eval_senders, NULL},
    {"verify", 0, true, 0, acl_eval_verify, acl_check_verify},
    {0},
};

/* ---- modifiers ---- */

static int apply_nothing(struct ctx *c, const struct acl_clause *clause, struct str arg) { return OUTCOME_OK; }

static int apply_set(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  const struct variable_def *v = variable_settable(clause->variable);
  if (v != NULL)
    return v->set(c, v, arg);
  acl_variable_set(c, clause->variable, arg);
  return OUTCOME_OK;
}

void acl_variable_set(struct ctx *c, struct str name, struct str value) {
  bool connection = name.len > 4 && name.p[4] == 'c';
  struct arena *a;
  struct map **m;
  if (connection && c->session) {
    a = c->session->arena;
    m = &c->session->acl_c;
  } else if (c->message) {
    a = c->message->arena;
    m = connection ? &c->message->acl_c : &c->message->acl_m;
  } else {
    a = c->arena;
    m = &c->acl_m;
  }
  if (!*m)
    *m = map_new(a);
  if (c->message && !connection)
    c->acl_m = c->message->acl_m;
  /* A connection's variable that keeps its size is overwritten in place, so that counters do not grow the arena. */
  struct str *old = map_get(*m, name);
  if (old && connection && old->len >= value.len && old->len > 0) {
    memmove((char *)(uintptr_t)old->p, value.p, value.len);
    *old = (struct str){old->p, value.len, value.taint};
    return;
  }
  struct str *s = arena_new_of(a, struct str);
  *s = str_dup(a, value);
  s->taint = value.taint;
  map_set(*m, name, s);
}

int64_t acl_time(struct str text) {
  static const struct { char unit; int64_t seconds; } units[] = {{'w', 604800}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
  int64_t total = 0;
  size_t i = 0, last = 0;
  if (text.len == 0)
    return -1;
  while (i < text.len) {
    int64_t n = 0;
    size_t start = i;
    while (i < text.len && text.p[i] >= '0' && text.p[i] <= '9' && n < 1000000000)
      n = n * 10 + (text.p[i++] - '0');
    if (i == start || i >= text.len)
      return -1;
    size_t u = last;
    while (u < sizeof units / sizeof *units && units[u].unit != text.p[i])
      u++;
    if (u == sizeof units / sizeof *units)
      return -1;
    total += n * units[u].seconds;
    last = u + 1;
    i++;
  }
  return total;
}

static int apply_delay(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  int64_t seconds = acl_time(str_trim(arg));
  if (seconds < 0)
    return acl_fail(c, OUTCOME_ERROR, "syntax error in argument for \"delay\" modifier: \"%.*s\" is not a time value", STRF(arg));
  if (c->is_test) {
    DEBUG(acl, "delay skipped in host checking mode\n");
    return OUTCOME_OK;
  }
  struct acl_session *s = acl_session(c);
  if (s && s->flush && !s->no_delay_flush)
    s->flush(c);
  fiber_sleep(seconds * USEC_PER_SEC);
  return OUTCOME_OK;
}

static bool log_bit(struct str name, unsigned *bits) {
  static const struct { const char *name; unsigned bit; } names[] = {{"main", LOG_MAIN}, {"reject", LOG_REJECT}, {"panic", LOG_PANIC}};
  for (size_t i = 0; i < 3; i++)
    if (str_eq_c(name, names[i].name)) {
      *bits |= names[i].bit;
      return true;
    }
  return false;
}

static int apply_log_reject_target(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  unsigned logs = 0;
  struct list_iter i;
  struct str item;
  list_iter_init(&i, c->arena, arg);
  while (list_next(&i, &item))
    if (item.len > 0 && !log_bit(item, &logs))
      return acl_fail(c, OUTCOME_ERROR, "unknown log name \"%.*s\" in \"log_reject_target\" in %s ACL", STRF(item),
          acl_where_name(c->acl->where));
  struct acl_session *s = acl_session(c);
  if (s)
    s->reject_logs = logs;
  return OUTCOME_OK;
}

static int apply_logwrite(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  unsigned logs = 0;
  struct str text = arg;
  if (text.len > 0 && text.p[0] == ':') {
    struct str rest = str_from(text, 1), names = str_cut(&rest, ':');
    if (!str_is_set(rest))
      return acl_fail(c, OUTCOME_ERROR, ":unknown log name in \"%.*s\" in \"logwrite\" in %s ACL", STRF(arg),
          acl_where_name(c->acl->where));
    while (str_is_set(names)) {
      struct str name = str_trim(str_cut(&names, ','));
      if (!log_bit(name, &logs))
        acl_log(c, LOG_MAIN | LOG_PANIC, ":unknown log name in \"%.*s\" in \"logwrite\" in %s ACL", STRF(arg),
            acl_where_name(c->acl->where));
    }
    text = rest;
  }
  text = str_ltrim(text);
  acl_log(c, logs ? logs : LOG_MAIN, "%.*s", STRF(log_printable(c->arena, text)));
  return OUTCOME_OK;
}

static int apply_queue(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  if (str_find_byte(arg, '/') >= 0 || (arg.len > 0 && arg.p[0] == '.'))
    return acl_fail(c, OUTCOME_ERROR, "Directory separator not permitted in queue name: '%.*s'", STRF(arg));
  if (str_is_tainted(arg))
    return acl_fail(c, OUTCOME_ERROR, "attempt to use tainted queue name '%.*s'", STRF(arg));
  struct acl_message *m = acl_message(c);
  if (m)
    m->queue_name = str_dup(c->message->arena, arg);
  else if (c->session && acl_session(c))
    acl_session(c)->queue_name = str_dup(c->session->arena, arg);
  return OUTCOME_OK;
}

enum { MOD_ADD_HEADER, MOD_CONTINUE, MOD_CONTROL, MOD_DELAY, MOD_ENDPASS, MOD_LOG_MESSAGE, MOD_LOG_REJECT_TARGET, MOD_LOGWRITE,
  MOD_MESSAGE, MOD_QUEUE, MOD_REMOVE_HEADER, MOD_SET, MOD_UDPSEND, MOD_END };

const struct acl_modifier_def acl_core_modifiers[] = {
    [MOD_ADD_HEADER] = {"add_header", ACL_ONLY(ACL_MESSAGE_WHERE), true, 0, acl_apply_add_header, NULL},
    [MOD_CONTINUE] = {"continue", 0, true, 0, apply_nothing, NULL},
    [MOD_CONTROL] = {"control", 0, true, 0, acl_apply_control, acl_check_control},
    [MOD_DELAY] = {"delay", ACL_BIT(ACL_NOTQUIT), true, 0, apply_delay, NULL},
    [MOD_ENDPASS] = {"endpass", 0, false, 0, apply_nothing, NULL},
    [MOD_LOG_MESSAGE] = {"log_message", 0, false, 0, apply_nothing, NULL},
    [MOD_LOG_REJECT_TARGET] = {"log_reject_target", 0, true, 0, apply_log_reject_target, NULL},
    [MOD_LOGWRITE] = {"logwrite", 0, true, 0, apply_logwrite, NULL},
    [MOD_MESSAGE] = {"message", 0, false, 0, apply_nothing, NULL},
    [MOD_QUEUE] = {"queue", ACL_NOT_SMTP_WHERE | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_MIME), true, 0, apply_queue,
        NULL},
    [MOD_REMOVE_HEADER] = {"remove_header", ACL_ONLY(ACL_MESSAGE_WHERE), true, 0, acl_apply_remove_header, NULL},
    [MOD_SET] = {"set", 0, true, 0, apply_set, NULL},
    [MOD_UDPSEND] = {"udpsend", 0, true, 0, acl_apply_udpsend, NULL},
    [MOD_END] = {0},
};

const struct acl_modifier_def *const acl_modifier_message = &acl_core_modifiers[MOD_MESSAGE];
const struct acl_modifier_def *const acl_modifier_log_message = &acl_core_modifiers[MOD_LOG_MESSAGE];
const struct acl_modifier_def *const acl_modifier_endpass = &acl_core_modifiers[MOD_ENDPASS];
