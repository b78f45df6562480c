#include "smtp/client/international.h"

#include "acl/acl.h"
#include "core/ctx.h"
#include "core/module.h"
#include "expand/expand.h"
#include "message/message.h"
#include "queue/spool.h"

struct utf8_state {
  enum utf8_downconvert downconvert;
};

enum utf8_downconvert message_utf8_downconvert(const struct message *m) {
  const struct utf8_state *s = message_module_state((struct message *)m, &smtp_utf8_module);
  return s ? s->downconvert : UTF8_KEEP;
}

void message_set_utf8_downconvert(struct message *m, enum utf8_downconvert how) {
  struct utf8_state *s = message_module_state(m, &smtp_utf8_module);
  if (s)
    s->downconvert = how;
}

static int control_downconvert(struct ctx *c, struct str option) {
  if (!c->message)
    return ctx_fail(c, OUTCOME_ERROR, "control is not possible here");
  if (option.len == 0 || str_eq_c(option, "1"))
    message_set_utf8_downconvert(c->message, UTF8_CONVERT);
  else if (str_eq_c(option, "0"))
    message_set_utf8_downconvert(c->message, UTF8_KEEP);
  else if (str_eq_c(option, "-1"))
    message_set_utf8_downconvert(c->message, UTF8_CONVERT_IF_NEEDED);
  else
    return ctx_fail(c, OUTCOME_ERROR, "bad option value for control=utf8_downconvert");
  return OUTCOME_OK;
}

static int get_smtputf8(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = c->message && c->message->smtputf8 ? STR("yes") : STR("no");
  return 0;
}

static void write_spool(struct spool_writer *w, const struct message *m, const void *state) {
  const struct utf8_state *s = state;
  if (s->downconvert == UTF8_CONVERT)
    spool_write_item(w, "utf8_downcvt", STR_EMPTY);
  else if (s->downconvert == UTF8_CONVERT_IF_NEEDED)
    spool_write_item(w, "utf8_optdowncvt", STR_EMPTY);
}

static bool read_spool(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value) {
  struct utf8_state *s = state;
  bool always = str_eq_c(name, "utf8_downcvt");
  if (!always && !str_eq_c(name, "utf8_optdowncvt"))
    return false;
  s->downconvert = always ? UTF8_CONVERT : UTF8_CONVERT_IF_NEEDED;
  return true;
}

static const struct acl_control_def controls[] = {
    {"utf8_downconvert", true, ACL_BIT(ACL_CONNECT) | ACL_BIT(ACL_HELO) | ACL_BIT(ACL_NOT_SMTP_START) | ACL_BIT(ACL_STARTTLS), 0,
        control_downconvert},
    {0},
};

static const struct variable_def variables[] = {
    {"message_smtputf8", get_smtputf8, 0, 0},
    {0},
};

static const char *const macros[] = {"_HAVE_I18N", NULL};

const struct module smtp_utf8_module = {
    .name = "smtputf8",
    .summary = "Internationalised mail",
    .support = "I18N",
    .acl_controls = controls,
    .variables = variables,
    .macros = macros,
    .message_state = {.size = sizeof(struct utf8_state), .write_spool = write_spool, .read_spool = read_spool},
};
