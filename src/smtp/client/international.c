/* Internationalised addresses and the servers that know SMTPUTF8, or do not
(RFC 6531; Exim manual, chapter "Internationalisation"). */

#include "base/idn.h"
#include "expand/expand.h"
#include "message/message.h"
#include "smtp/client/client.h"
#include "smtp/client/international.h"

/* The transport's word goes before what an ACL has said; empty: it has nothing to say. */
static int how_to_convert(struct ctx *c, const struct smtp_connection *n, enum utf8_downconvert *ret, struct str *ret_error) {
  const struct smtp_client_options *o = smtp_client_options(n->transport);
  struct str text;
  *ret = message_utf8_downconvert(c->message);
  if (expand_option(c, &o->utf8_downconvert, &text)) {
    *ret_error = str_printf(c->arena, "Failed to expand utf8_downconvert in %.*s transport: %.*s", STRF(n->transport->name), STRF(c->error));
    return OUTCOME_DEFER;
  }
  text = str_trim(text);
  if (str_eq_c(text, "1"))
    *ret = UTF8_CONVERT;
  else if (str_eq_c(text, "0"))
    *ret = UTF8_KEEP;
  else if (str_eq_c(text, "-1"))
    *ret = UTF8_CONVERT_IF_NEEDED;
  else if (text.len) {
    *ret_error = str_printf(c->arena, "utf8_downconvert in %.*s transport is \"%.*s\", but should be -1, 0 or 1", STRF(n->transport->name),
        STRF(text));
    return OUTCOME_DEFER;
  }
  return OUTCOME_OK;
}

int smtp_utf8_mode(struct ctx *c, const struct smtp_connection *n, bool international, enum smtp_utf8 *ret, struct str *ret_error) {
  enum utf8_downconvert how;
  *ret = SMTP_UTF8_NONE;
  if (!international || !c->message)
    return OUTCOME_OK;
  int rc = how_to_convert(c, n, &how, ret_error);
  if (rc)
    return rc;
  if (how == UTF8_CONVERT || (how == UTF8_CONVERT_IF_NEEDED && !n->offers.utf8)) {
    *ret = SMTP_UTF8_CONVERT;
    return OUTCOME_OK;
  }
  *ret = SMTP_UTF8_SEND;
  if (n->offers.utf8)
    return OUTCOME_OK;
  *ret_error = STR("utf8 support required but not offered for forwarding");
  return OUTCOME_FAIL;
}

bool smtp_utf8_address(struct ctx *c, enum smtp_utf8 mode, struct str address, struct str *ret, struct str *ret_error) {
  const char *why;
  *ret = address;
  if (mode != SMTP_UTF8_CONVERT || idn_address_to_ascii(c->arena, address, ret, &why))
    return true;
  *ret_error = str_tainted(str_printf(c->arena, "error converting %.*s to a-label: %s", STRF(address), why));
  return false;
}
