#include "smtp/client/requiretls.h"

#include "acl/acl.h"
#include "core/module.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "message/message.h"
#include "queue/spool.h"
#include "smtp/client/options.h"

struct requiretls_state {
  bool required, not_required;
};

static struct requiretls_state *state_of(const struct message *m) {
  return m ? message_module_state((struct message *)m, &requiretls_module) : NULL;
}

bool message_requires_tls(const struct message *m) {
  const struct requiretls_state *s = state_of(m);
  return s && s->required;
}

void message_set_requiretls(struct message *m) {
  struct requiretls_state *s = state_of(m);
  if (s)
    *s = (struct requiretls_state){.required = true};
}

enum smtp_requiretls smtp_requiretls_mode(const struct ctx *c, const struct smtp_client_options *o) {
  const struct requiretls_state *s = o->callout ? NULL : state_of(c->message);
  if (!s)
    return REQUIRETLS_NONE;
  if (s->required)
    return c->message->reverse_path.len ? REQUIRETLS_NEEDED : REQUIRETLS_NONE;
  return s->not_required ? REQUIRETLS_RELAXED : REQUIRETLS_NONE;
}

bool smtp_requiretls_unfit(int error) { return error == ERROR_REQUIRETLS || error == ERROR_ENCRYPTION_NEEDED; }

/* RFC 8689, section 3: the only value is "No", and only one line of the kind counts. RequireTLS: was the draft's name. */
static int read_header(struct ctx *c) {
  struct requiretls_state *s = state_of(c->message);
  int lines = 0;
  bool no = true;
  if (!s || s->required)
    return OUTCOME_OK;
  for (const struct header *h = c->message->headers; h; h = h->next) {
    struct str name = str_slice(h->text, 0, h->name_len);
    if (h->type == HEADER_DELETED || (!str_ieq_c(name, "TLS-Required") && !str_ieq_c(name, "RequireTLS")))
      continue;
    lines++;
    no = no && str_ieq_c(str_trim(header_value(h)), "No");
  }
  s->not_required = lines == 1 && no;
  if (lines > 0 && !s->not_required)
    log_write(LOG_MAIN, c->message, "TLS-Required: ignored, %s", lines > 1 ? "there are several" : "its value is not \"No\"");
  return OUTCOME_OK;
}

static int control_requiretls(struct ctx *c, struct str option) {
  if (!c->message)
    return ctx_fail(c, OUTCOME_ERROR, "control is not possible here");
  message_set_requiretls(c->message);
  return OUTCOME_OK;
}

static int get_requiretls(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = message_requires_tls(c->message) ? STR("yes") : STR("no");
  return 0;
}

static void write_spool(struct spool_writer *w, const struct message *m, const void *state) {
  const struct requiretls_state *s = state;
  if (s->required)
    spool_write_item(w, "requiretls", STR_EMPTY);
  else if (s->not_required)
    spool_write_item(w, "tls_required_no", STR_EMPTY);
}

static bool read_spool(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value) {
  struct requiretls_state *s = state;
  if (str_eq_c(name, "requiretls"))
    s->required = true;
  else if (str_eq_c(name, "tls_required_no"))
    s->not_required = true;
  else
    return false;
  return true;
}

static const struct acl_control_def controls[] = {
    {"requiretls", false, ACL_BIT(ACL_CONNECT) | ACL_BIT(ACL_HELO) | ACL_BIT(ACL_NOT_SMTP_START) | ACL_BIT(ACL_STARTTLS), 0,
        control_requiretls},
    {0},
};

static const struct variable_def variables[] = {
    {"requiretls", get_requiretls, 0, 0},
    {0},
};

static const char *const macros[] = {"_HAVE_REQUIRETLS", NULL};

const struct module requiretls_module = {
    .name = "requiretls",
    .summary = "REQUIRETLS",
    .support = "REQUIRETLS",
    .acl_controls = controls,
    .variables = variables,
    .macros = macros,
    .message_state = {.size = sizeof(struct requiretls_state), .write_spool = write_spool, .read_spool = read_spool},
    .hooks = {.header_end = read_header},
};
