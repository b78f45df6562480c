/* What the clients of all mechanisms do alike. */
#include "base/encode.h"
#include "expand/expand.h"
#include "sasl/authenticator.h"

struct str sasl_client_expansion_failed(struct ctx *c, struct str text) {
  return str_printf(c->arena, "expansion of \"%.*s\" failed in %.*s authenticator: %.*s", STRF(text),
      STRF(c->authenticator ? c->authenticator->name : STR_EMPTY), STRF(c->error));
}

enum sasl_result sasl_client_value(struct ctx *c, const struct option_expr *o, struct str *ret, struct str *ret_text) {
  int rc = expand_option(c, o, ret);
  if (rc == 0) {
    if (!str_is_set(*ret))
      *ret = STR_EMPTY;
    return SASL_OK;
  }
  *ret_text = rc == OUTCOME_FORCED ? STR_UNSET : sasl_client_expansion_failed(c, o->text);
  return rc == OUTCOME_FORCED ? SASL_CANCELLED : SASL_ERROR;
}

enum sasl_result sasl_client_cancel(struct ctx *c, const struct sasl_io *io, struct str why, struct str *ret_text) {
  struct str reply;
  int code;
  if (io->converse(io->arg, STR("*"), &code, &reply) != 0)
    return SASL_GONE;
  *ret_text = why;
  return SASL_CANCELLED;
}

static enum sasl_result say(struct ctx *c, const struct sasl_io *io, struct str line, int *ret_code, struct str *ret_challenge,
    struct str *ret_text) {
  struct str reply;
  if (io->converse(io->arg, line, ret_code, &reply) != 0)
    return SASL_GONE;
  *ret_text = *ret_challenge = reply;
  if (*ret_code / 100 == 2)
    return SASL_OK;
  if (*ret_code != 334)
    return *ret_code / 100 == 4 ? SASL_DEFER : SASL_FAIL;
  if (!base64_decode(c->arena, reply, false, ret_challenge))
    return sasl_client_cancel(c, io, str_printf(c->arena, "bad challenge: %.*s", STRF(reply)), ret_text);
  *ret_challenge = str_tainted(*ret_challenge);
  return SASL_OK;
}

enum sasl_result sasl_client_start(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str initial, int *ret_code,
    struct str *ret_challenge, struct str *ret_text) {
  struct str data = !str_is_set(initial) ? STR_EMPTY : initial.len == 0 ? STR("=") : base64_encode(c->arena, initial);
  struct str line = str_printf(c->arena, "AUTH %.*s%s%.*s", STRF(sasl_public_name(i)), data.len > 0 ? " " : "", STRF(data));
  return say(c, io, line, ret_code, ret_challenge, ret_text);
}

enum sasl_result sasl_client_answer(struct ctx *c, const struct sasl_io *io, struct str answer, int *ret_code, struct str *ret_challenge,
    struct str *ret_text) {
  return say(c, io, base64_encode(c->arena, answer), ret_code, ret_challenge, ret_text);
}
