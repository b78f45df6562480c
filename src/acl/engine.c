/* Runs access control lists. Each statement's clauses are taken in order until
one fails; the verb says what that means (Exim manual, sections "ACL verbs"
and "Condition and modifier processing"). */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acl/internal.h"
#include "base/encode.h"
#include "base/buf.h"
#include "base/fd_io.h"
#include "core/build.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"

#define NESTING_MAX 20
#define FILE_MAX (1u << 20)
#define CACHE_MAX 256 /* parsed ACLs kept that are not in the configuration */

static const char *const where_names[ACL_WHERE_COUNT] = {
    [ACL_RCPT] = "RCPT", [ACL_PREDATA] = "PREDATA", [ACL_MIME] = "MIME", [ACL_DKIM] = "DKIM", [ACL_DATA] = "DATA",
    [ACL_PRDR] = "PRDR", [ACL_NOT_SMTP] = "non-SMTP", [ACL_AUTH] = "AUTH", [ACL_CONNECT] = "connection",
    [ACL_ETRN] = "ETRN", [ACL_EXPN] = "EXPN", [ACL_HELO] = "EHLO or HELO", [ACL_MAIL] = "MAIL",
    [ACL_NOT_SMTP_START] = "non-SMTP-start", [ACL_NOT_SMTP_MIME] = "non-SMTP MIME", [ACL_NOTQUIT] = "NOTQUIT",
    [ACL_QUIT] = "QUIT", [ACL_STARTTLS] = "STARTTLS", [ACL_VRFY] = "VRFY", [ACL_DELIVERY] = "delivery",
    [ACL_WELLKNOWN] = "WELLKNOWN", [ACL_ATRN] = "ATRN", [ACL_UNKNOWN] = "unknown", [ACL_MAILAUTH] = "MAILAUTH",
};

const char *acl_where_name(enum acl_where where) { return where_names[where]; }

int acl_fail(struct ctx *c, int code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  c->log_message = str_vprintf(c->arena, fmt, ap);
  va_end(ap);
  return code;
}

bool acl_is_set(const struct option_expr *text) { return str_is_set(text->text) && text->text.len > 0; }

/* What one statement's clauses came to, and the messages that stand. */
struct evaluation {
  int result;               /* OUTCOME_*, ACL_EVAL_* */
  bool endpass;
  const struct acl_clause *message, *log_message;
};

/* ---- finding an ACL ---- */

/* Parsed ACLs of files and inline texts, for the life of the process. Never emptied: a running ACL may be suspended. */
static struct map *text_cache;
static struct arena *text_arena;

static int parse_cached(struct ctx *c, struct str key, struct str text, struct str source, const struct acl **ret) {
  if (!text_arena) {
    text_arena = arena_new("acl texts");
    text_cache = map_new(text_arena);
  }
  bool keep = map_count(text_cache) < CACHE_MAX;
  struct acl *acl = NULL;
  struct str error = STR_UNSET;
  if (acl_parse(keep ? text_arena : c->arena, text, source, &acl, &error) < 0)
    return acl_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
  if (keep)
    map_set(text_cache, key, acl);
  *ret = acl;
  return 0;
}

static int read_acl_file(struct ctx *c, struct str name, struct str *ret) {
  const char *path = str_dup_c(c->arena, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0)
    return acl_fail(c, OUTCOME_ERROR, "failed to open ACL file \"%s\": %s", path, strerror(errno));
  struct stat st;
  if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
    close(fd);
    return acl_fail(c, OUTCOME_ERROR, "failed to read ACL file \"%s\": not a file of at most %u bytes", path, FILE_MAX);
  }
  char *p = arena_bytes(c->arena, (size_t)st.st_size + 1);
  ssize_t n = fd_read_all(fd, p, (size_t)st.st_size);
  close(fd);
  if (n < 0)
    return acl_fail(c, OUTCOME_ERROR, "failed to read ACL file \"%s\": %s", path, strerror((int)-n));
  *ret = str_n(p, (size_t)n);
  return 0;
}

int acl_find(struct ctx *c, struct str text, const struct acl **ret) {
  text = str_trim(text);
  *ret = NULL;
  if (text.len == 0)
    return 0;
  if (str_is_tainted(text) && !build.tainted_acl_texts)
    return acl_fail(c, OUTCOME_ERROR, "attempt to use tainted ACL text \"%.*s\"", STRF(text));
  bool has_space = str_find_byte(text, ' ') >= 0 || str_find_byte(text, '\t') >= 0 || str_find_byte(text, '\n') >= 0;
  if (text.p[0] != '/' && !has_space) {
    const struct acl *named = config_acl(c->config, text);
    if (named) {
      *ret = named;
      return 0;
    }
  }
  if (text_cache && (*ret = map_get(text_cache, text)) != NULL)
    return 0;
  if (text.p[0] != '/')
    return parse_cached(c, text, text, STR("inline ACL"), ret);
  struct str content;
  if (read_acl_file(c, text, &content) < 0)
    return OUTCOME_ERROR;
  return parse_cached(c, text, content, text, ret);
}

/* ---- clauses ---- */

static bool check_where(struct ctx *c, const char *name, const char *doing, uint32_t forbidden) {
  if (!(forbidden & ACL_BIT(c->acl->where)))
    return true;
  acl_fail(c, 0, "cannot %s %s condition in %s ACL", doing, name, where_names[c->acl->where]);
  return false;
}

/* What the lookup said, out of: lookup of "key" gave DEFER: "text". */
static struct str lookup_said(struct ctx *c, struct str error) {
  struct str before = STR(" gave DEFER: \"");
  ptrdiff_t at = str_find(error, before);
  if (at < 0 || !str_ends(error, STR("\"")))
    return STR_UNSET;
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  b.taint = error.taint;
  for (size_t i = (size_t)at + before.len; i + 1 < error.len; i++) {
    if (error.p[i] == '\\' && i + 2 < error.len)
      i++;
    buf_add_byte(&b, error.p[i]);
  }
  return buf_str(&b);
}

/* 0: *ret set; OUTCOME_FORCED: ignore the clause; else DEFER (a lookup's) or ERROR with the text. */
static int expand_clause(struct ctx *c, const struct acl_clause *clause, struct str *ret) {
  int rc = expand(c, clause->arg.tree, ret);
  if (rc == 0 || rc == OUTCOME_FORCED)
    return rc;
  if (rc == OUTCOME_DEFER && str_is_set(c->log_message = lookup_said(c, c->error)))
    return rc;
  c->log_message = str_printf(c->arena, "failed to expand ACL string \"%.*s\": %.*s", STRF(clause->arg.text), STRF(c->error));
  return rc == OUTCOME_DEFER ? OUTCOME_DEFER : OUTCOME_ERROR;
}

static int run_modifier(struct ctx *c, const struct acl_clause *clause, struct evaluation *e, struct str *ret_value) {
  const struct acl_modifier_def *m = clause->modifier;
  if (m == acl_modifier_endpass) {
    e->endpass = true;
    return OUTCOME_OK;
  }
  if (m == acl_modifier_message || m == acl_modifier_log_message) {
    *(m == acl_modifier_message ? &e->message : &e->log_message) = clause;
    acl_trace_check(c, clause, clause->arg.text);
    return OUTCOME_OK;
  }
  if (!check_where(c, m->name, "use", m->forbidden))
    return OUTCOME_ERROR;
  struct str arg = STR_EMPTY;
  if (m->expand_first) {
    int rc = expand_clause(c, clause, &arg);
    if (rc)
      return rc == OUTCOME_FORCED ? OUTCOME_OK : rc;
  }
  *ret_value = arg;
  acl_trace_check(c, clause, arg);
  return m->apply(c, clause, arg);
}

static int run_condition(struct ctx *c, const struct acl_clause *clause, struct str *ret_value) {
  const struct acl_condition_def *d = clause->condition;
  if (!check_where(c, d->name, "test", d->forbidden))
    return OUTCOME_ERROR;
  struct str arg = STR_EMPTY;
  if (d->expand_first) {
    int rc = expand_clause(c, clause, &arg);
    if (rc)
      return rc == OUTCOME_FORCED ? OUTCOME_OK : rc; /* true whether negated or not */
  }
  *ret_value = d->expand_first ? arg : clause->arg.text;
  acl_trace_check(c, clause, *ret_value);
  c->error = STR_UNSET;
  int rc = d->eval(c, clause, arg);
  if (rc == OUTCOME_FORCED)
    return OUTCOME_OK;
  if ((rc == OUTCOME_DEFER || rc == OUTCOME_ERROR) && !str_is_set(c->log_message))
    c->log_message = c->error;
  if (!clause->negated)
    return rc;
  if (rc == OUTCOME_OK)
    return OUTCOME_FAIL;
  return rc == OUTCOME_FAIL || rc == ACL_EVAL_DROP ? OUTCOME_OK : rc;
}

static void run_clauses(struct ctx *c, const struct acl_statement *s, struct evaluation *e) {
  e->result = OUTCOME_OK;
  for (const struct acl_clause *clause = s->clauses; clause; clause = clause->next) {
    struct str value = clause->arg.text;
    e->result = clause->condition ? run_condition(c, clause, &value) : run_modifier(c, clause, e, &value);
    acl_trace_clause(c, clause, value, e->result);
    if (e->result != OUTCOME_OK)
      return;
  }
}

/* ---- messages ---- */

/* The text of a message modifier, or unset when it fails or is empty. */
static struct str expand_message(struct ctx *c, const struct acl_clause *clause) {
  struct str text;
  int rc = expand(c, clause->arg.tree, &text);
  if (rc == 0)
    return text.len > 0 ? text : STR_UNSET;
  if (rc != OUTCOME_FORCED)
    acl_log(c, LOG_MAIN | LOG_PANIC, "failed to expand ACL message \"%.*s\": %.*s", STRF(clause->arg.text), STRF(c->error));
  return STR_UNSET;
}

/* The statement decides: what its message and log_message make of c->user_message and c->log_message. */
static void set_messages(struct ctx *c, const struct evaluation *e) {
  if (!e->message && !e->log_message)
    return;
  if (str_is_set(c->user_message)) /* else what the verification left there */
    c->vars.acl_verify_message = c->user_message;
  struct str user = c->user_message, log = c->log_message;
  if (e->message) {
    struct str text = expand_message(c, e->message);
    if (str_is_set(text))
      user = text;
  }
  if (e->log_message) {
    c->vars.acl_verify_message = str_is_set(log) ? log : c->vars.acl_verify_message;
    struct str text = expand_message(c, e->log_message);
    if (str_is_set(text)) {
      if (str_is_set(log) && log.len > 0) {
        uint32_t taint = str_taint_join(text.taint, log.taint);
        log = str_printf(c->arena, "%.*s: %.*s", STRF(text), STRF(log));
        log.taint = taint;
      } else {
        log = text;
      }
    }
  }
  c->user_message = user;
  c->log_message = str_is_set(log) ? log : user;
  c->vars.acl_verify_message = STR_UNSET;
}

static bool warned_before(struct ctx *c, struct str text) {
  struct acl_message *m = acl_message(c);
  if (!m)
    return false;
  for (size_t i = 0; i < m->warned.n; i++)
    if (str_eq(m->warned.v[i], text))
      return true;
  vec_push(c->message->arena, &m->warned, str_dup(c->message->arena, text));
  return false;
}

static void do_warn(struct ctx *c, const struct evaluation *e) {
  c->vars.acl_verify_message = str_is_set(c->log_message) ? c->log_message : c->user_message;
  struct str log = e->log_message ? expand_message(c, e->log_message) : STR_UNSET;
  struct str message = e->message ? expand_message(c, e->message) : STR_UNSET;
  if (str_is_set(log)) {
    if (!warned_before(c, log)) {
      struct str who = client_log_text(c->arena, c->client, true);
      acl_log(c, LOG_MAIN, "%.*s%sWarning: %.*s", STRF(who), who.len ? " " : "", STRF(log_printable(c->arena, log)));
    }
  }
  c->vars.acl_verify_message = STR_UNSET;
  if (!str_is_set(message))
    return;
  if (!(ACL_MESSAGE_WHERE & ACL_BIT(c->acl->where))) {
    acl_log(c, LOG_MAIN | LOG_PANIC,
        "ACL \"warn\" with \"message\" setting found in a non-message (%s) ACL: cannot specify header lines here: message"
        " ignored", where_names[c->acl->where]);
    return;
  }
  acl_add_header(c, message);
}

static void warn_skipped(struct ctx *c, const struct acl *acl, const struct acl_statement *s) {
  if (!log_selected(LOGSEL_acl_warn_skipped))
    return;
  struct str who = client_log_text(c->arena, c->client, true);
  struct str place = STR_EMPTY;
  if (acl->name.len)
    place = str_printf(c->arena, " (in ACL %.*s at line %u of %.*s)", STRF(acl->name), s->line, STRF(acl->source));
  else
    place = str_printf(c->arena, " (in %.*s)", STRF(acl->source));
  bool why = str_is_set(c->log_message) && c->log_message.len > 0;
  acl_log(c, LOG_MAIN, "%.*s Warning: ACL 'warn' statement skipped%.*s: condition test deferred%s%.*s", STRF(who), STRF(place),
      why ? ": " : "", STRF(why ? log_printable(c->arena, c->log_message) : STR_EMPTY));
}

/* ---- statements ---- */

/* Has the statement decided? Then *ret is the result. */
static bool apply_verb(struct ctx *c, const struct acl *acl, const struct acl_statement *s, struct evaluation *e,
    enum acl_result *ret) {
  int r = e->result;
  bool failed = r == OUTCOME_FAIL || r == ACL_EVAL_DROP;
  /* A test that cannot be completed now is none to `warn`; what is wrong with the configuration ends any ACL. */
  if (r == OUTCOME_ERROR || (r == OUTCOME_DEFER && s->verb != VERB_WARN)) {
    e->message = e->log_message = NULL; /* they are for a decision, and there is none */
    set_messages(c, e);
    *ret = r == OUTCOME_DEFER ? ACL_DEFER : ACL_ERROR;
    return true;
  }
  if (r == ACL_EVAL_DISCARD && s->verb != VERB_ACCEPT && s->verb != VERB_DISCARD) {
    acl_fail(c, 0, "nested ACL returned \"discard\" for \"%s\" command (only allowed with \"accept\" or \"discard\")",
        acl_verbs[s->verb]);
    *ret = ACL_ERROR;
    return true;
  }
  switch (s->verb) {
    case VERB_ACCEPT:
    case VERB_DISCARD:
      if (failed && !e->endpass) {
        if (!s->next) /* the implicit deny that follows says what this statement would */
          set_messages(c, e);
        return false;
      }
      if (!failed && e->endpass) /* message and log_message are for a failure then */
        e->message = e->log_message = NULL;
      if (!failed) /* what conditions left behind is about failures */
        c->user_message = c->log_message = STR_UNSET;
      set_messages(c, e);
      if (failed)
        *ret = r == ACL_EVAL_DROP ? ACL_FAIL_DROP : ACL_FAIL;
      else
        *ret = s->verb == VERB_DISCARD || r == ACL_EVAL_DISCARD ? ACL_DISCARD : ACL_OK;
      return true;
    case VERB_DEFER:
    case VERB_DENY:
    case VERB_DROP:
      if (r != OUTCOME_OK)
        return false;
      set_messages(c, e);
      *ret = s->verb == VERB_DEFER ? ACL_DEFER : s->verb == VERB_DROP ? ACL_FAIL_DROP : ACL_FAIL;
      return true;
    case VERB_REQUIRE:
      if (!failed)
        return false;
      set_messages(c, e);
      *ret = r == ACL_EVAL_DROP ? ACL_FAIL_DROP : ACL_FAIL;
      return true;
    default: /* warn */
      if (r == OUTCOME_OK)
        do_warn(c, e);
      else if (r == OUTCOME_DEFER)
        warn_skipped(c, acl, s);
      return false;
  }
}

/* QUIT and not-QUIT ACLs may only accept or warn. */
static bool verb_allowed(enum acl_where where, enum acl_verb v) {
  if (where != ACL_QUIT && where != ACL_NOTQUIT)
    return true;
  return v == VERB_ACCEPT || v == VERB_WARN;
}

static enum acl_result run_statements(struct ctx *c, const struct acl *acl) {
  for (const struct acl_statement *s = acl->first; s; s = s->next) {
    struct acl_frame *frame = c->acl;
    struct evaluation e = {0};
    frame->statement = s;
    c->user_message = c->log_message = STR_UNSET;
    c->vars.acl_verify_message = STR_UNSET;
    acl_trace_statement(c, acl, s);
    run_clauses(c, s, &e);
    acl_trace_statement_end(c, acl, s, e.result);
    enum acl_result result;
    if (!apply_verb(c, acl, s, &e, &result))
      continue;
    acl_trace_end(c, acl, s, result);
    if (!verb_allowed(frame->where, s->verb) && !frame->outer) {
      acl_fail(c, 0, "QUIT or not-QUIT toplevel ACL may not fail ('%s' verb used incorrectly)", acl_verbs[s->verb]);
      return ACL_ERROR;
    }
    return result;
  }
  acl_trace_end(c, acl, NULL, ACL_FAIL);
  return ACL_FAIL; /* what the last statement's conditions left says why */
}

enum acl_result acl_run(struct ctx *c, enum acl_where where, struct str text, const struct str *args, int n, int depth) {
  if (depth > NESTING_MAX) {
    acl_fail(c, 0, "ACL nested too deep: possible loop");
    return ACL_ERROR;
  }
  const struct acl *acl;
  if (acl_find(c, text, &acl) < 0)
    return ACL_ERROR;
  if (!acl) {
    acl_trace_begin(c, NULL, text);
    return ACL_FAIL;
  }
  struct acl_frame frame = {.outer = c->acl, .acl = acl, .where = where, .depth = depth, .args = n};
  for (int i = 0; i < n && i < ACL_ARGS_MAX; i++)
    frame.arg[i] = args[i];
  int saved_where = c->acl_where;
  c->acl = &frame;
  c->acl_where = (int)where + 1;
  acl_trace_begin(c, acl, text);
  enum acl_result result = run_statements(c, acl);
  c->acl = frame.outer;
  c->acl_where = saved_where;
  return result;
}

enum acl_result acl_check_text(struct ctx *c, enum acl_where where, struct str text, const struct str *args, int n) {
  return acl_run(c, where, text, args, n, c->acl ? c->acl->depth + 1 : 0);
}

/* What may not come out of some ACLs. */
static enum acl_result check_result(struct ctx *c, enum acl_where where, enum acl_result r) {
  const uint32_t no_discard = ACL_ONLY(ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_MIME) |
                                       ACL_BIT(ACL_DKIM) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_NOT_SMTP) |
                                       ACL_BIT(ACL_NOT_SMTP_MIME));
  if (r == ACL_DISCARD && (no_discard & ACL_BIT(where))) {
    acl_log(c, LOG_MAIN | LOG_PANIC, "\"discard\" verb not allowed in %s ACL", where_names[where]);
    return ACL_ERROR;
  }
  if (r == ACL_FAIL_DROP && where == ACL_MAILAUTH) {
    acl_log(c, LOG_MAIN | LOG_PANIC, "\"drop\" verb not allowed in %s ACL", where_names[where]);
    return ACL_ERROR;
  }
  return r;
}

enum acl_result acl_check(struct ctx *c, enum acl_where where, const struct option_expr *text) {
  c->user_message = c->log_message = STR_UNSET;
  struct acl_session *session = acl_session(c);
  if (session)
    session->reject_logs = LOG_MAIN | LOG_REJECT;
  struct str name;
  int where_outside = c->acl_where;
  c->acl_where = (int)where + 1; /* for $recipients in the option */
  int rc = expand_option(c, text, &name);
  c->acl_where = where_outside;
  enum acl_result result;
  if (rc == OUTCOME_FORCED) {
    result = ACL_OK;
  } else if (rc) {
    c->log_message = str_printf(c->arena, "failed to expand ACL string \"%.*s\": %.*s",
        STRF(printable(c->arena, text->text, false)), STRF(c->error));
    result = rc == OUTCOME_DEFER ? ACL_DEFER : ACL_ERROR;
  } else {
    result = acl_run(c, where, name, NULL, 0, 0);
  }
  c->vars.local_part_verified = STR_UNSET;
  return check_result(c, where, result);
}

void acl_log(struct ctx *c, unsigned logs, const char *fmt, ...) {
  if (!logs)
    return;
  va_list ap;
  va_start(ap, fmt);
  log_vwrite(logs, c->message && c->message->id[0] ? c->message : NULL, fmt, ap);
  va_end(ap);
}

unsigned acl_reject_logs(struct ctx *c) {
  struct acl_session *s = acl_session(c);
  return s ? s->reject_logs : LOG_MAIN | LOG_REJECT;
}
