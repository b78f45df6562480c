/* RCPT (RFC 5321 section 4.1.1.3). */
#include "expand/expand.h"
#include "message/address.h"
#include "message/rewrite.h"
#include "route/route.h"
#include "smtp/server/internal.h"

static enum smtp_next too_many(struct smtp_session *s) {
  if (s->o->recipients_max_reject) {
    s->rcpt_failed++;
    smtp_say(s, "552 too many recipients");
    if (!s->too_many_logged)
      acl_log(s->c, LOG_MAIN | LOG_REJECT, "too many recipients: message rejected: sender=<%.*s> %.*s",
          STRF(s->message->reverse_path), STRF(smtp_who(s)));
  } else {
    s->rcpt_deferred++;
    smtp_say(s, "452 too many recipients");
    if (!s->too_many_logged)
      acl_log(s->c, LOG_MAIN | LOG_REJECT, "too many recipients: excess temporarily rejected: sender=<%.*s> %.*s",
          STRF(s->message->reverse_path), STRF(smtp_who(s)));
  }
  s->too_many_logged = true;
  return SMTP_GO_ON;
}

/* a%b@c is a@b for the ACL when c is in percent_hack_domains; the recipient stays as it came. */
static enum route_result percent_hack(struct smtp_session *s, struct mail_address *a) {
  struct str local = a->local_part, domain = a->domain;
  bool changed = false;
  if (domain.len == 0)
    return ROUTE_OK;
  if (local.len > 0 && local.p[0] == '"')
    local = address_unquote_local_part(s->c->arena, local);
  enum route_result rc = route_percent_hack_text(s->c, &local, &domain, &changed);
  if (!changed)
    return rc;
  a->address = str_printf(s->c->arena, "%.*s@%.*s", STRF(address_quote_local_part(s->c->arena, local)), STRF(domain));
  a->address.taint = STR_TAINTED;
  address_split(a->address, &a->local_part, &a->domain);
  return rc;
}

static bool qualify(struct smtp_session *s, struct mail_address *a) {
  if (a->domain.len > 0)
    return true;
  if (s->allow_unqualified_recipient || str_ieq_c(a->address, "postmaster")) {
    a->address = receive_qualify(s->c, s->c->arena, a->address, false);
    address_split(a->address, &a->local_part, &a->domain);
    return true;
  }
  smtp_say(s, "501 %.*s: recipient address must contain a domain", STRF(s->rcpt_data));
  unsigned logs = LOG_REJECT | (log_selected(LOGSEL_smtp_syntax_error) ? LOG_MAIN : 0);
  acl_log(s->c, logs, "unqualified recipient rejected: <%.*s> %.*s%.*s", STRF(log_printable(s->c->arena, a->address)),
      STRF(smtp_who(s)), STRF(smtp_name_trouble(s)));
  s->rcpt_failed++;
  return false;
}

/* What the ACL's conditions and $local_part, $domain see. */
void smtp_set_recipient(struct smtp_session *s, struct acl_recipient *r, const struct mail_address *a) {
  struct ctx *c = s->c;
  struct str local, domain;
  address_split(a->address, &local, &domain);
  *r = (struct acl_recipient){.address = str_dup(c->arena, a->address)};
  r->local_part = address_unquote_local_part(c->arena, local);
  r->local_part_lower = str_lower(c->arena, r->local_part);
  r->domain = str_lower(c->arena, domain);
  r->address.taint = r->local_part.taint = r->local_part_lower.taint = r->domain.taint = STR_TAINTED;
  c->vars.local_part = r->local_part_lower;
  c->vars.domain = r->domain;
  c->vars.local_part_data = c->vars.domain_data = STR_UNSET;
  c->vars.address_data = STR_UNSET;
  acl_session(c)->recipient = r;
}

void smtp_clear_recipient(struct smtp_session *s) {
  struct ctx *c = s->c;
  acl_session(c)->recipient = NULL;
  c->vars.local_part = c->vars.domain = STR_UNSET;
  c->vars.local_part_data = c->vars.domain_data = STR_UNSET;
}

static void log_discarded(struct smtp_session *s, const char *acl) {
  struct ctx *c = s->c;
  bool why = str_is_set(c->log_message) && c->log_message.len > 0;
  acl_log(c, LOG_MAIN | LOG_REJECT, "%.*s F=<%.*s> RCPT %.*s: discarded by %s ACL%s%.*s", STRF(smtp_who(s)), STRF(s->message->reverse_path),
      STRF(s->rcpt_data), acl, why ? ": " : "", STRF(why ? log_printable(c->arena, c->log_message) : STR_EMPTY));
}

enum smtp_next smtp_verb_rcpt(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  struct mail_address address;
  struct str text, error;
  s->rcpt_data = args;
  s->rcpt_in_progress = true;
  if (s->txn_state == TXN_NONE) {
    s->rcpt_failed++;
    /* A client that pipelines could not know that its MAIL would be refused. */
    s->rcpt_after_refused_mail = s->last_was_mail || (s->last_was_rcpt && s->rcpt_after_refused_mail);
    if (s->ad_pipelining && s->rcpt_after_refused_mail) {
      smtp_say(s, "503 sender not yet given");
      return SMTP_GO_ON;
    }
    return smtp_synprot(s, true, 503, STR_UNSET, "sender not yet given");
  }
  if (args.len == 0) {
    s->rcpt_failed++;
    return smtp_synprot(s, false, 501, STR_UNSET, "RCPT must have an address operand");
  }
  s->rcpt_count++;
  c->vars.rcpt_count_text = str_printf(c->arena, "%d", s->rcpt_count);
  s->used_pipelining |= s->ad_pipelining && smtp_is_tcp(s) && stream_peek(s->stream).len > 0;
  text = args;
  s->rcpt_dsn_flags = 0;
  s->rcpt_orcpt = STR_UNSET;
  if (smtp_take_rcpt_parameters(s, &text) != OUTCOME_OK) {
    s->rcpt_failed++;
    return SMTP_GO_ON;
  }
  struct str operand = text;
  rewrite_smtp(c, false, &text);
  if (smtp_parse_path(s, text, 0, &address, &error) < 0) {
    s->rcpt_failed++;
    return smtp_synprot(s, false, 501, args, "%.*s", STRF(error));
  }
  if (s->recipients_max > 0 && s->rcpt_count > s->recipients_max)
    return too_many(s);
  smtp_ratelimit(s, s->o->smtp_ratelimit_rcpt, s->rcpt_count, "RCPT");
  if (!qualify(s, &address))
    return SMTP_GO_ON;

  enum acl_result r = ACL_DISCARD;
  struct acl_recipient recipient;
  struct mail_address shown = address;
  enum route_result known = percent_hack(s, &shown);
  smtp_set_recipient(s, &recipient, &shown);
  if (known == ROUTE_DEFER) { /* accepted as a local address it might be relayed when the list can be told again */
    c->user_message = STR_UNSET;
    c->log_message = c->error;
    r = ACL_DEFER;
  } else if (known == ROUTE_FAIL) {
    c->user_message = c->log_message = c->error;
    r = ACL_FAIL;
  } else if (!s->discard_all) {
    r = smtp_acl(s, ACL_RCPT, &s->o->acl_smtp_rcpt, smtp_is_tcp(s) || s->p->kind == SESSION_LOCAL_SMTP ? ACL_FAIL : ACL_OK);
  } else {
    c->user_message = STR_UNSET;
    c->log_message = s->discard_why;
  }
  if (r == ACL_OK)
    r = smtp_cutthrough_rcpt(s, shown.address);
  else if (acl_message(c) && acl_message(c)->cutthrough) /* one connection for all, or none */
    smtp_cutthrough_cancel(s);
  enum smtp_next next = SMTP_GO_ON;
  if (r == ACL_OK || r == ACL_DISCARD) {
    smtp_accept_reply(s, "250", "Accepted");
    if (r == ACL_OK) {
      struct recipient *rcpt = message_add_recipient(s->message, str_dup(s->message->arena, address.address));
      rcpt->address.taint = STR_TAINTED;
      smtp_dsn_recipient(s, rcpt);
    } else {
      s->discarded = true;
      if (!s->discard_all)
        s->discarded_by = "RCPT";
      log_discarded(s, s->discard_all ? "MAIL" : "RCPT");
    }
    s->txn_state = TXN_RCPT;
  } else {
    next = smtp_acl_refused(s, ACL_RCPT, r, str_printf(c->arena, "RCPT %.*s", STRF(operand)));
  }
  smtp_clear_recipient(s);
  return next;
}
