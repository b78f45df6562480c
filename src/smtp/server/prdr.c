/* PRDR (draft-hall-prdr-00; Exim manual, acl_smtp_data_prdr): after the data each recipient has a reply of its own. */
#include "expand/expand.h"
#include "message/address.h"
#include "smtp/server/internal.h"

int smtp_param_prdr(struct smtp_session *s, struct str value) {
  if (str_is_set(value) || s->prdr_requested) {
    smtp_synprot(s, false, 501, STR_UNSET, str_is_set(value) ? "PRDR has no value" : "PRDR can be specified once only");
    return OUTCOME_FAIL;
  }
  s->prdr_requested = true;
  return OUTCOME_OK;
}

static bool block_wanted(struct smtp_session *s) {
  return s->prdr_requested && s->message->recipients.n > 1 && acl_is_set(&s->o->acl_smtp_data_prdr);
}

static void reply(struct smtp_session *s, struct str address, enum acl_result r, const char *what) {
  struct ctx *c = s->c;
  struct str code = str_c(r == ACL_OK || r == ACL_DISCARD ? "250" : r == ACL_FAIL ? "550" : "450"), extended = STR_EMPTY;
  struct str text = c->user_message, log = str_is_set(c->log_message) ? c->log_message : c->user_message;
  struct str line = str_printf(c->arena, "PRDR R=<%.*s> %s", STRF(address), what);
  if (str_is_set(text) && text.len > 0) {
    bool panicked;
    smtp_message_code(s, &code, &extended, &text, &panicked);
  }
  smtp_respond(s, code, extended, str_is_set(text) && text.len > 0 ? text : line);
  bool why = r != ACL_OK && str_is_set(log) && log.len > 0;
  acl_log(c, LOG_MAIN, "%.*s%s%.*s", STRF(log_printable(c->arena, line)), why ? ": " : "",
      STRF(why ? log_printable(c->arena, log) : STR_EMPTY));
}

/* One recipient's ACL. */
static enum acl_result judge(struct smtp_session *s, struct str address) {
  struct acl_recipient recipient;
  struct mail_address a = {.address = address};
  address_split(address, &a.local_part, &a.domain);
  smtp_set_recipient(s, &recipient, &a);
  enum acl_result r = smtp_acl(s, ACL_PRDR, &s->o->acl_smtp_data_prdr, ACL_OK);
  const char *what = r == ACL_OK ? "acceptance" : r == ACL_DISCARD ? "discard" : r == ACL_FAIL ? "refusal" : "temporary refusal";
  reply(s, address, r, what);
  smtp_clear_recipient(s);
  return r;
}

enum prdr_result smtp_prdr(struct smtp_session *s) {
  struct message *m = s->message;
  if (!block_wanted(s))
    return PRDR_NONE;
  size_t kept = 0, n = m->recipients.n;
  bool deferred = false;
  smtp_say(s, "353 PRDR content analysis beginning");
  for (size_t i = 0; i < n; i++) {
    if (smtp_flush(s) < 0)
      return PRDR_LOST;
    struct recipient r = m->recipients.v[i];
    enum acl_result result = judge(s, r.address);
    if (result == ACL_OK)
      m->recipients.v[kept++] = r;
    else if (result == ACL_DISCARD) {
      s->discarded = true;
      s->discarded_by = "PRDR";
    } else {
      deferred |= result != ACL_FAIL;
    }
  }
  m->recipients.n = kept;
  s->c->user_message = s->c->log_message = STR_UNSET;
  return kept > 0 || s->discarded ? PRDR_SOME : deferred ? PRDR_ALL_DEFERRED : PRDR_ALL_REFUSED;
}
