/* Replies: multi-line texts, codes in message modifiers, errors and refusals
with their log lines. */
#include "smtp/server/internal.h"

#include <ctype.h>
#include <stdio.h>

#include "core/module.h"
#include "tls/tls.h"
#include "transport/event.h"

#define WRAP_AT 75  /* longer reply texts are split where they can be … */
#define WRAP_MIN 40 /* … but not into very short lines: rather one that is too long */

void smtp_note_rcpt(struct smtp_session *s, struct str text) {
  if (!s->rcpt_in_progress)
    return;
  s->rcpt_in_progress = false;
  if (!str_is_set(s->rcpt_smtp_response)) {
    s->rcpt_smtp_response = str_dup(s->c->arena, text);
    s->rcpt_smtp_response_same = true;
  } else if (!str_eq(s->rcpt_smtp_response, text)) {
    s->rcpt_smtp_response_same = false;
  }
}

void smtp_say(struct smtp_session *s, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(s->c->arena, fmt, ap);
  va_end(ap);
  if (s->p->kind == SESSION_BATCH || s->mute)
    return;
  smtp_note_rcpt(s, text);
  stream_write(s->stream, text);
  stream_write(s->stream, STR("\r\n"));
}

int smtp_flush(struct smtp_session *s) {
  return s->p->kind == SESSION_BATCH ? 0 : stream_flush(s->stream);
}

/* Where to cut a line that is too long: behind a colon that a blank follows, else at the last blank. */
static size_t wrap_point(struct str line) {
  if (line.len <= WRAP_AT)
    return line.len;
  for (size_t i = WRAP_AT; i > 35; i--)
    if (line.p[i - 1] == ':' && line.p[i] == ' ')
      return i;
  for (size_t i = WRAP_AT; i > WRAP_MIN; i--)
    if (line.p[i] == ' ')
      return i;
  for (size_t i = WRAP_AT; i < line.len; i++)
    if (line.p[i] == ' ')
      return i;
  return line.len;
}

void smtp_respond(struct smtp_session *s, struct str code, struct str extended, struct str text) {
  const struct acl_session *as = acl_session(s->c);
  text = str_trim(text);
  if (as && as->no_multiline) {
    ptrdiff_t nl = str_find_byte(text, '\n');
    if (nl >= 0)
      text = str_slice(text, 0, (size_t)nl);
  }
  for (bool more = true; more;) {
    struct str rest = text, line = str_cut(&rest, '\n');
    if (!as || !as->no_multiline) {
      size_t cut = wrap_point(line);
      if (cut < line.len) {
        rest = str_ltrim(str_from(text, cut));
        line = str_slice(line, 0, cut);
      }
    }
    more = str_is_set(rest) && rest.len > 0;
    smtp_say(s, "%.*s%c%.*s%.*s", STRF(code), more ? '-' : ' ', STRF(extended), STRF(str_trim(line)));
    text = rest;
  }
}

/* Length of "n.n.n " at the start, or 0. */
static size_t extended_length(struct str t) {
  if (t.len < 6 || !isdigit((unsigned char)t.p[0]) || t.p[1] != '.')
    return 0;
  size_t i = 2;
  for (int part = 0; part < 2; part++) {
    size_t start = i;
    while (i < t.len && isdigit((unsigned char)t.p[i]))
      i++;
    if (i == start || i - start > 3 || i >= t.len || t.p[i] != (part ? ' ' : '.'))
      return 0;
    i++;
  }
  return i;
}

void smtp_message_code(struct smtp_session *s, struct str *code, struct str *extended, struct str *text, bool *panicked) {
  *extended = STR_EMPTY;
  *panicked = false;
  struct str t = *text;
  if (t.len < 4 || !isdigit((unsigned char)t.p[0]) || !isdigit((unsigned char)t.p[1]) || !isdigit((unsigned char)t.p[2]) ||
      t.p[3] != ' ')
    return;
  struct str given = str_slice(t, 0, 3), rest = str_from(t, 4);
  size_t n = extended_length(rest);
  if (given.p[0] != code->p[0]) {
    acl_log(s->c, LOG_MAIN | LOG_PANIC, "configured error code starts with incorrect digit (expected %c) in \"%.*s\"", code->p[0],
        STRF(t));
    *panicked = true;
  } else {
    *code = given;
    *extended = str_slice(rest, 0, n);
  }
  *text = str_from(rest, n);
}

struct str smtp_command_shown(struct smtp_session *s) {
  struct str rest = str_ltrim(s->command), verb = str_cut(&rest, ' ');
  if (!str_ieq_c(verb, "AUTH") || !str_is_set(rest))
    return s->command;
  struct str mechanism = str_cut(&rest, ' ');
  return str_is_set(rest) ? str_printf(s->c->arena, "AUTH %.*s ****", STRF(mechanism)) : s->command;
}

void smtp_log_error(struct smtp_session *s, bool protocol, struct str text) {
  struct arena *a = s->c->arena;
  if (log_selected(protocol ? LOGSEL_smtp_protocol_error : LOGSEL_smtp_syntax_error))
    acl_log(s->c, LOG_MAIN, "SMTP %s error in \"%.*s\" %.*s %.*s", protocol ? "protocol" : "syntax",
        STRF(log_printable(a, smtp_command_shown(s))), STRF(smtp_who(s)), STRF(log_printable(a, text)));
}

enum smtp_next smtp_synprot(struct smtp_session *s, bool protocol, int code, struct str data, const char *fmt, ...) {
  struct arena *a = s->c->arena;
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(a, fmt, ap);
  va_end(ap);
  smtp_log_error(s, protocol, text);
  struct str unused;
  (void)event_raise(s->c, NULL, protocol ? "smtp:fail:protocol" : "smtp:fail:syntax", text, 0, &unused);
  bool end = ++s->synprot > s->o->smtp_max_synprot_errors && s->o->smtp_max_synprot_errors > 0;
  bool has_data = str_is_set(data) && data.len > 0;
  smtp_say(s, "%d%c%.*s%s%.*s", code, end ? '-' : ' ', STRF(has_data ? data : STR_EMPTY), has_data ? ": " : "", STRF(text));
  if (!end)
    return SMTP_GO_ON;
  acl_log(s->c, LOG_MAIN | LOG_REJECT, "SMTP call from %.*s dropped: too many syntax or protocol errors (last command was \"%.*s\", %.*s)",
      STRF(smtp_sender_who(s)), STRF(log_printable(a, smtp_command_shown(s))), STRF(smtp_history(s)));
  char final[4];
  snprintf(final, sizeof final, "%d", code);
  return smtp_notquit(s, "bad-commands", final, "Too many syntax or protocol errors");
}

/* " X=cipher … " and "F=<sender> A=… " before the verb of a rejection line. */
static struct str rejection_info(struct smtp_session *s, enum acl_where where) {
  struct buf b;
  const struct client *cl = s->c->client;
  buf_init(&b, s->c->arena, BUF_MAX_LINE);
  if (cl->tls && log_selected(LOGSEL_tls_cipher) && str_is_set(cl->tls->cipher))
    buf_printf(&b, "X=%.*s ", STRF(cl->tls->cipher));
  bool with_sender = where == ACL_RCPT || where == ACL_DATA || where == ACL_PRDR || where == ACL_MIME ||
                     where == ACL_PREDATA;
  if (with_sender && s->message && where != ACL_PREDATA) {
    buf_printf(&b, "F=<%.*s>", STRF(s->message->reverse_path));
    if (str_is_set(cl->host_authenticated) && cl->host_authenticated.len) {
      buf_printf(&b, " A=%.*s", STRF(cl->host_authenticated));
      if (str_is_set(cl->authenticated_id) && cl->authenticated_id.len)
        buf_printf(&b, ":%.*s", STRF(cl->authenticated_id));
    }
    buf_add_byte(&b, ' ');
  }
  return buf_str(&b);
}

static const char *default_code(enum acl_where where, bool defer) {
  if (defer)
    return "451";
  switch (where) {
    case ACL_AUTH: return "503";
    case ACL_ETRN: return "458";
    default: return "550";
  }
}

static void say_lines(struct smtp_session *s, struct str code, struct str text) {
  while (str_is_set(text) && text.len > 0) {
    struct str line = str_cut(&text, '\n');
    smtp_say(s, "%.*s-%.*s", STRF(code), STRF(line));
  }
}

/* Details of a failed sender verification come first, once, and are logged once. */
static void report_sender_verify(struct smtp_session *s, struct str code, bool failed) {
  struct acl_session *as = acl_session(s->c);
  struct acl_sender_verify *v = as ? &as->sender_verify : NULL;
  if (!v || !v->failed_now)
    return;
  v->failed_now = false;
  if (v->reported || v->no_details)
    return;
  v->reported = true;
  struct str why = v->log;
  bool has = str_is_set(why);
  acl_log(s->c, smtp_reject_logs(LOGSEL_sender_verify_fail), "%.*s sender verify %s for <%.*s>%s%.*s", STRF(smtp_who(s)),
      failed ? "fail" : "defer", STRF(v->address), has ? ": " : "", STRF(has ? log_printable(s->c->arena, why) : STR_EMPTY));
  if (!failed || as->no_multiline || !str_is_set(v->user))
    return;
  smtp_say(s, "%.*s-%s <%.*s>", STRF(code),
      v->setup_failed        ? "Callback setup failed while verifying"
      : v->postmaster_failed ? "Postmaster verification failed while checking"
                             : "Verification failed for",
      STRF(v->address));
  say_lines(s, code, v->user);
  if (v->setup_failed)
    say_lines(s, code, STR("The initial connection, or a HELO or MAIL FROM:<> command was\n"
                           "rejected. Refusing MAIL FROM:<> does not help fight spam, disregards\n"
                           "RFC requirements, and stops you from receiving standard bounce\n"
                           "messages. This host does not accept mail from domains whose servers\n"
                           "refuse bounces."));
  if (v->postmaster_failed)
    say_lines(s, code, STR("Several RFCs state that you are required to have a postmaster\n"
                           "mailbox for each mail domain. This host does not accept mail\n"
                           "from domains whose servers reject the postmaster address."));
}

static void add_item(void *arg, struct str item) {
  buf_add_byte(arg, ' ');
  buf_add(arg, item);
}

/* The line for the logs; `why` may be unset. */
static void log_refusal(struct smtp_session *s, enum acl_where where, unsigned logs, bool for_good, struct str what, struct str why) {
  struct buf line;
  buf_init(&line, s->c->arena, BUF_MAX_EXPANSION);
  line.taint = STR_TAINTED;
  buf_add(&line, smtp_who(s));
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.rejected_log)
      modules[i]->hooks.rejected_log(s->c, add_item, &line);
  buf_printf(&line, " %.*s%srejected %.*s", STRF(rejection_info(s, where)), for_good ? "" : "temporarily ", STRF(what));
  if (str_is_set(why))
    buf_printf(&line, ": %.*s", STRF(why));
  receive_log_rejection(s->c, logs, buf_str(&line));
}

enum smtp_next smtp_acl_refused(struct smtp_session *s, enum acl_where where, enum acl_result r, struct str what) {
  struct ctx *c = s->c;
  bool fail = r == ACL_FAIL || r == ACL_FAIL_DROP || r == ACL_DROP;
  bool drop = r == ACL_FAIL_DROP || r == ACL_DROP;
  struct str code = str_c(default_code(where, !fail)), extended = STR_EMPTY;
  struct str user = c->user_message, log = c->log_message;
  bool panicked = false;
  if (!str_is_set(log))
    log = user;
  if (where == ACL_RCPT)
    ++*(fail ? &s->rcpt_failed : &s->rcpt_deferred);
  if (str_is_set(user)) {
    struct str whole = user;
    smtp_message_code(s, &code, &extended, &user, &panicked);
    if (panicked && str_is_set(log) && str_eq(log, whole))
      log = str_printf(c->arena, "%.*s %.*s", STRF(code), STRF(user));
  }
  struct str text = str_is_set(user) && user.len > 0 ? user
                    : fail                           ? STR("Administrative prohibition")
                                                     : STR("Temporary local problem - please try later");
  if (r == ACL_ERROR)
    text = STR("Temporary local problem - please try later");
  smtp_note_rcpt(s, text);
  struct acl_sender_verify *v = acl_session(c) ? &acl_session(c)->sender_verify : NULL;
  if (where == ACL_RCPT || where == ACL_MAIL || where == ACL_PREDATA || where == ACL_DATA)
    report_sender_verify(s, code, fail);
  else if (v)
    v->failed_now = false;
  if (where == ACL_VRFY && fail && str_eq_c(code, "550") && (!str_is_set(c->user_message) || str_eq(user, c->user_message)))
    code = STR("252"); /* not told: some clients ask before each RCPT */
  smtp_respond(s, code, extended, text);

  unsigned logs = acl_reject_logs(c);
  if (str_is_set(log)) {
    ptrdiff_t nl = str_find_byte(log, '\n');
    bool same = str_is_set(c->user_message) && str_eq(log, c->user_message);
    if (nl >= 0 && where != ACL_DATA && same) /* of what was written for the client the first line is enough */
      log = str_slice(log, 0, (size_t)nl);
    log = log_printable(c->arena, log);
  }
  if (where == ACL_CONNECT && !log_selected(LOGSEL_connection_reject))
    logs &= ~LOG_MAIN;
  if (logs)
    log_refusal(s, where, logs, fail, what, str_is_set(log) && log.len > 0 ? log : STR_UNSET);
  if (!drop)
    return SMTP_GO_ON;
  s->orderly_end = true;
  smtp_log_closed(s, "DROP in ACL");
  smtp_notquit(s, "acl-drop", NULL, " ");
  return SMTP_CLOSE;
}

void smtp_pass_reply(struct smtp_session *s, struct str reply) {
  while (str_is_set(reply)) {
    struct str line = str_cut(&reply, '\n');
    smtp_say(s, "%.*s", STRF(line));
  }
}

void smtp_accept_reply(struct smtp_session *s, const char *code, const char *text) {
  struct ctx *c = s->c;
  struct str user = c->user_message, extended = STR_EMPTY, with = str_c(code);
  bool panicked;
  if (!str_is_set(user) || user.len == 0) {
    smtp_say(s, "%s %s", code, text);
    return;
  }
  smtp_message_code(s, &with, &extended, &user, &panicked);
  smtp_respond(s, with, extended, user);
  c->user_message = STR_UNSET;
}

enum acl_result smtp_acl(struct smtp_session *s, enum acl_where where, const struct option_expr *option, enum acl_result unset) {
  s->c->user_message = s->c->log_message = STR_UNSET;
  acl_session(s->c)->reject_logs = LOG_MAIN | LOG_REJECT;
  if (!str_is_set(option->text))
    return unset;
  struct smtp_names before = smtp_names_now(s);
  enum acl_result r = acl_check(s->c, where, option);
  smtp_names_renew(s, &before);
  return r;
}
