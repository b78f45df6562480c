/* DSN (RFC 3461): RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT. They are kept as they came: the spool holds xtext. */
#include <ctype.h>

#include "base/encode.h"
#include "base/idn.h"
#include "smtp/server/internal.h"

#define ENVID_MAX 100
#define ORCPT_MAX 500

static int bad(struct smtp_session *s, const char *text) {
  smtp_synprot(s, false, 501, STR_UNSET, "%s", text);
  return OUTCOME_FAIL;
}

/* Is it xtext of printable characters alone, so that the text can stand in a header field? With the type utf-8 it may be
UTF-8, but only in a transaction with SMTPUTF8 (RFC 6533, section 3). */
static bool good_xtext(struct smtp_session *s, struct str x, bool utf8) {
  struct str text = x;
  if (!str_is_ascii(x) && !(utf8 && s->utf8 && utf8_valid(x)))
    return false;
  if (!utf8 && !xtext_decode(s->c->arena, x, &text))
    return false;
  for (uint32_t i = 0; i < text.len; i++)
    if ((unsigned char)text.p[i] < ' ' || text.p[i] == 0x7f || ((unsigned char)text.p[i] >= 0x80 && !utf8))
      return false;
  return true;
}

int smtp_param_ret(struct smtp_session *s, struct str value) {
  if (s->dsn_ret)
    return bad(s, "RET can be specified once only");
  if (str_is_set(value) && str_ieq_c(value, "FULL"))
    s->dsn_ret = DSN_RET_FULL;
  else if (str_is_set(value) && str_ieq_c(value, "HDRS"))
    s->dsn_ret = DSN_RET_HDRS;
  else
    return bad(s, "Value for RET is invalid");
  return OUTCOME_OK;
}

int smtp_param_envid(struct smtp_session *s, struct str value) {
  if (str_is_set(s->dsn_envid))
    return bad(s, "ENVID can be specified once only");
  if (!str_is_set(value) || value.len == 0 || value.len > ENVID_MAX || !good_xtext(s, value, false))
    return bad(s, "Value for ENVID is invalid");
  s->dsn_envid = value;
  return OUTCOME_OK;
}

int smtp_param_notify(struct smtp_session *s, struct str value) {
  static const char text[] = "Invalid value for NOTIFY parameter";
  if (s->rcpt_dsn_flags)
    return bad(s, "NOTIFY can be specified once only");
  if (!str_is_set(value))
    return bad(s, text);
  if (value.len == 0)
    s->rcpt_dsn_flags = DSN_NOTIFY_EMPTY;
  for (struct str rest = value.len ? value : STR_UNSET; str_is_set(rest);) {
    struct str word = str_cut(&rest, ',');
    if (str_ieq_c(word, "NEVER") && !s->rcpt_dsn_flags && !str_is_set(rest))
      s->rcpt_dsn_flags = DSN_NOTIFY_NEVER;
    else if (str_ieq_c(word, "SUCCESS"))
      s->rcpt_dsn_flags |= DSN_NOTIFY_SUCCESS;
    else if (str_ieq_c(word, "FAILURE"))
      s->rcpt_dsn_flags |= DSN_NOTIFY_FAILURE;
    else if (str_ieq_c(word, "DELAY"))
      s->rcpt_dsn_flags |= DSN_NOTIFY_DELAY;
    else
      return bad(s, text);
  }
  return OUTCOME_OK;
}

int smtp_param_orcpt(struct smtp_session *s, struct str value) {
  static const char text[] = "Invalid value for ORCPT parameter";
  if (str_is_set(s->rcpt_orcpt))
    return bad(s, "ORCPT can be specified once only");
  ptrdiff_t semicolon = str_is_set(value) ? str_find_byte(value, ';') : -1;
  if (semicolon <= 0 || value.len > ORCPT_MAX || (uint32_t)semicolon + 1 == value.len)
    return bad(s, text);
  for (ptrdiff_t i = 0; i < semicolon; i++)
    if (!isalnum((unsigned char)value.p[i]) && value.p[i] != '-')
      return bad(s, text);
  bool utf8 = str_ieq_c(str_slice(value, 0, (size_t)semicolon), "utf-8");
  if (!good_xtext(s, str_from(value, (size_t)semicolon + 1), utf8))
    return bad(s, text);
  s->rcpt_orcpt = value;
  return OUTCOME_OK;
}

void smtp_dsn_message(struct smtp_session *s) {
  struct message *m = s->message;
  m->dsn_ret = s->dsn_ret;
  if (str_is_set(s->dsn_envid))
    m->dsn_envid = str_dup(m->arena, s->dsn_envid);
}

void smtp_dsn_recipient(struct smtp_session *s, struct recipient *r) {
  r->dsn_flags = s->rcpt_dsn_flags;
  if (str_is_set(s->rcpt_orcpt))
    r->orcpt = str_dup(s->message->arena, s->rcpt_orcpt);
}

void smtp_dsn_forget(struct smtp_session *s) {
  for (size_t i = 0; i < s->message->recipients.n; i++)
    s->message->recipients.v[i].dsn_flags = DSN_NOTIFY_NEVER;
}
