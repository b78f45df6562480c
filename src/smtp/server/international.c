/* SMTPUTF8 of MAIL (RFC 6531), and what it allows in the addresses of the
transaction; REQUIRETLS (RFC 8689). */
#include "base/idn.h"
#include "message/address.h"
#include "smtp/server/internal.h"

struct str smtp_protocol_of_message(struct smtp_session *s, struct str protocol) {
  ptrdiff_t at = s->requiretls ? str_find(protocol, STR("smtps")) : -1;
  struct str before = at < 0 ? protocol : str_slice(protocol, 0, (size_t)at + 4), behind = at < 0 ? STR_EMPTY : str_from(protocol, (size_t)at + 5);
  return str_printf(s->txn, "%s%.*s%s%.*s", s->utf8 ? "utf8" : "", STRF(before), at < 0 ? "" : "S", STRF(behind));
}

int smtp_param_requiretls(struct smtp_session *s, struct str value) {
  if (str_is_set(value)) {
    smtp_synprot(s, false, 501, STR_UNSET, "REQUIRETLS takes no value");
    return OUTCOME_FAIL;
  }
  if (!s->ad_requiretls) {
    smtp_synprot(s, false, 555, STR_UNSET, "REQUIRETLS used when not advertised");
    return OUTCOME_FAIL;
  }
  s->requiretls = true;
  smtp_set_protocol(s);
  return OUTCOME_OK;
}

int smtp_param_utf8(struct smtp_session *s, struct str value) {
  if (str_is_set(value))
    return OUTCOME_ERROR;
  if (!s->ad_utf8) {
    smtp_synprot(s, false, 501, STR_UNSET, "SMTPUTF8 used when not advertised");
    return OUTCOME_FAIL;
  }
  s->utf8 = true;
  smtp_set_protocol(s);
  return OUTCOME_OK;
}

static int parse(struct smtp_session *s, struct str text, unsigned flags, bool utf8, struct mail_address *ret, struct str *ret_error) {
  struct ctx *c = s->c;
  flags = address_flags(c, flags) | (utf8 ? ADDRESS_ALLOW_UTF8 : 0);
  int rc = address_parse(c->arena, text, flags, ret, ret_error);
  if (rc < 0)
    return rc;
  /* Without SMTPUTF8 a local part may hold any bytes, as it always could; with it they must be what they claim to be. */
  if (utf8 && !utf8_valid(ret->address)) {
    *ret_error = STR("invalid UTF-8 byte sequence");
    return OUTCOME_FAIL;
  }
  return OUTCOME_OK;
}

int smtp_parse_path(struct smtp_session *s, struct str text, unsigned flags, struct mail_address *ret, struct str *ret_error) {
  return parse(s, text, flags, s->utf8, ret, ret_error);
}

/* ---- VRFY and EXPN (RFC 6531 3.7.4) ---- */

bool smtp_cut_utf8(struct smtp_session *s, struct str *text) {
  struct str t = str_rtrim(*text);
  size_t before = t.len - sizeof " SMTPUTF8" + 1;
  if (!s->ad_utf8 || t.len < sizeof " SMTPUTF8" || !str_ieq_c(str_from(t, before), " SMTPUTF8"))
    return false;
  *text = str_rtrim(str_slice(t, 0, before));
  return true;
}

/* UTF-8 that comes in a question is answered in kind, whoever asks. */
int smtp_parse_query(struct smtp_session *s, struct str text, struct mail_address *ret, struct str *ret_error) {
  return parse(s, text, 0, s->ad_utf8, ret, ret_error);
}
