/* The small verbs: RSET, NOOP, QUIT, HELP, VRFY, EXPN. */
#include <errno.h>

#include "base/idn.h"
#include "deliver/address.h"
#include "expand/expand.h"
#include "message/address.h"
#include "message/rewrite.h"
#include "route/route.h"
#include "route/verify.h"
#include "smtp/server/internal.h"

enum smtp_next smtp_verb_rset(struct smtp_session *s, struct str args) {
  bool rset = s->rset_free, helo = s->helo_free, tls = s->starttls_free;
  if (args.len > 0)
    return smtp_synprot(s, false, 501, STR_UNSET, "unexpected argument data");
  smtp_log_incomplete(s, "RSET");
  smtp_reset(s);
  s->rset_free = rset;
  s->helo_free = helo;
  s->starttls_free = tls;
  smtp_say(s, "250 Reset OK");
  return SMTP_GO_ON;
}

enum smtp_next smtp_verb_noop(struct smtp_session *s, struct str args) {
  smtp_say(s, "250 OK");
  return SMTP_GO_ON;
}

enum smtp_next smtp_verb_help(struct smtp_session *s, struct str args) {
  struct buf b;
  buf_init(&b, s->c->arena, 1024);
  buf_add_c(&b, "Commands supported:\n");
  buf_add_c(&b, " AUTH");
  if (s->ad_tls)
    buf_add_c(&b, " STARTTLS");
  buf_add_c(&b, " HELO EHLO MAIL RCPT DATA BDAT NOOP QUIT RSET HELP");
  if (str_is_set(s->o->acl_smtp_etrn.text))
    buf_add_c(&b, " ETRN");
  if (smtp_acl_offered(s, &s->o->acl_smtp_atrn))
    buf_add_c(&b, " ATRN");
  if (str_is_set(s->o->acl_smtp_expn.text))
    buf_add_c(&b, " EXPN");
  if (str_is_set(s->o->acl_smtp_vrfy.text))
    buf_add_c(&b, " VRFY");
  struct str text = buf_str(&b);
  ptrdiff_t nl = str_find_byte(text, '\n');
  smtp_say(s, "214-%.*s", STRF(str_slice(text, 0, (size_t)nl)));
  smtp_say(s, "214%.*s", STRF(str_from(text, (size_t)nl + 1)));
  return SMTP_GO_ON;
}

enum smtp_next smtp_verb_quit(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  struct str user = STR_UNSET;
  if (args.len > 0)
    return smtp_synprot(s, false, 501, STR_UNSET, "unexpected argument data");
  if (s->reception) /* between chunks */
    smtp_data_lost(s, s->reception);
  smtp_log_incomplete(s, "QUIT");
  if (str_is_set(s->o->acl_smtp_quit.text)) {
    enum acl_result r = acl_check(c, ACL_QUIT, &s->o->acl_smtp_quit);
    if (r == ACL_ERROR)
      acl_log(c, LOG_MAIN | LOG_PANIC, "ACL for QUIT returned ERROR: %.*s", STRF(c->log_message));
    user = c->user_message;
  }
  s->quit_seen = true;
  if (str_is_set(user) && user.len > 0)
    smtp_respond(s, STR("221"), STR_EMPTY, user);
  else
    smtp_say(s, "221 %.*s closing connection", STRF(s->hostname));
  int rc = smtp_flush(s);
  if (rc >= 0 && s->p->kind == SESSION_SMTP && stream_input_pending(s->stream))
    rc = stream_fill(s->stream, loop_now_fresh());
  /* Some clients do not wait for the end they asked for. */
  if ((rc == -ECONNRESET || rc == -EPIPE) && log_selected(LOGSEL_protocol_detail))
    acl_log(c, LOG_MAIN, "TCP RST after QUIT from %.*s", STRF(smtp_sender_who(s)));
  smtp_log_closed(s, "QUIT");
  return SMTP_CLOSE;
}

/* ---- VRFY, EXPN ---- */

enum smtp_next smtp_verb_vrfy(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  struct mail_address address;
  struct str error, text = args;
  smtp_cut_utf8(s, &text);
  if (smtp_parse_query(s, text, &address, &error) < 0) {
    smtp_say(s, "501 %.*s", STRF(error));
    return SMTP_GO_ON;
  }
  if (address.domain.len == 0) {
    if (!s->allow_unqualified_recipient) {
      smtp_say(s, "501 %.*s: recipient address must contain a domain", STRF(args));
      acl_log(c, LOG_REJECT | (log_selected(LOGSEL_smtp_syntax_error) ? LOG_MAIN : 0), "unqualified verify rejected: <%.*s> %.*s%.*s",
          STRF(log_printable(c->arena, address.address)), STRF(smtp_who(s)), STRF(smtp_name_trouble(s)));
      return SMTP_GO_ON;
    }
    address.address = receive_qualify(c, c->arena, address.address, false);
  }
  struct acl_recipient recipient;
  smtp_set_recipient(s, &recipient, &address);
  enum acl_result r = smtp_acl(s, ACL_VRFY, &s->o->acl_smtp_vrfy, ACL_FAIL);
  smtp_clear_recipient(s);
  if (r != ACL_OK)
    return smtp_acl_refused(s, ACL_VRFY, r, str_printf(c->arena, "VRFY %.*s", STRF(args)));
  struct verify_params p = {0};
  struct address *found = NULL;
  c->user_message = c->log_message = STR_UNSET;
  int rc = verify_address(c, address.address, &p, &found);
  text = str_is_set(c->user_message) ? c->user_message : c->log_message;
  if (rc == OUTCOME_OK)
    smtp_say(s, "250 <%.*s> is deliverable", STRF(address.address));
  else if (rc == OUTCOME_DEFER)
    smtp_say(s, "451 <%.*s> %.*s", STRF(address.address), STRF(str_is_set(text) ? text : STR("cannot be resolved at this time")));
  else
    smtp_say(s, "550 <%.*s> %.*s", STRF(address.address), STRF(str_is_set(text) ? text : STR("is not deliverable")));
  if (rc == OUTCOME_FAIL)
    acl_log(c, LOG_MAIN, "VRFY failed for %.*s %.*s", STRF(args), STRF(smtp_who(s)));
  return SMTP_GO_ON;
}

struct expn {
  struct arena *arena;
  VEC(struct str) lines;
};

static void expn_line(void *arg, struct str text) {
  struct expn *e = arg;
  vec_push(e->arena, &e->lines, text);
}

enum smtp_next smtp_verb_expn(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  if (args.len == 0) {
    smtp_say(s, "501 empty address");
    return SMTP_GO_ON;
  }
  enum acl_result r = smtp_acl(s, ACL_EXPN, &s->o->acl_smtp_expn, ACL_FAIL);
  if (r != ACL_OK)
    return smtp_acl_refused(s, ACL_EXPN, r, str_printf(c->arena, "EXPN %.*s", STRF(args)));
  struct mail_address address;
  struct str error, operand = args;
  bool utf8 = smtp_cut_utf8(s, &operand);
  if (smtp_parse_query(s, operand, &address, &error) < 0) {
    smtp_say(s, "501 %.*s", STRF(error));
    return SMTP_GO_ON;
  }
  struct str full = receive_qualify(c, c->arena, address.address, false);
  full.taint = STR_TAINTED;
  rewrite_envelope_recipient(c, &full);
  struct expn e = {.arena = c->arena};
  enum outcome rc = route_expand(c, full, expn_line, &e);
  c->user_message = c->log_message = STR_UNSET;
  for (size_t n = 0; n < e.lines.n && !utf8; n++)
    if (!str_is_ascii(e.lines.v[n])) { /* RFC 6531 3.7.4.2 */
      smtp_say(s, "252 2.6.8 SMTPUTF8 is needed for the answer");
      return SMTP_GO_ON;
    }
  const char *code = rc == OUTCOME_OK ? "250" : rc == OUTCOME_DEFER ? "451" : "553";
  for (size_t n = 0; n < e.lines.n; n++)
    smtp_say(s, "%s%c%.*s", code, n + 1 < e.lines.n ? '-' : ' ', STRF(e.lines.v[n]));
  return SMTP_GO_ON;
}
