#include "core/module.h"
#include "expand/expand.h"
#include "smtp/server/atrn.h"
#include "smtp/server/internal.h"
#include "smtp/server/wellknown.h"

/* The SMTP session of a context, or NULL. */
static struct smtp_session *session_of(struct ctx *c) {
  return c->session && c->session->kind != SESSION_STDIN ? (struct smtp_session *)c->session : NULL;
}

enum { FAILED, DEFERRED };

static int get_count(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct smtp_session *s = session_of(c);
  int n = !s ? 0 : def->flags == FAILED ? s->rcpt_failed : s->rcpt_deferred;
  *ret = str_printf(c->arena, "%d", n);
  return 0;
}

/* The verbs so far, newest last. */
static int get_history(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct smtp_session *s = session_of(c);
  *ret = STR_EMPTY;
  if (s) {
    struct str text = smtp_history(s);
    *ret = str_starts(text, STR(" C=")) ? str_from(text, 3) : text;
  }
  return 0;
}

static int get_auth_failed(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct smtp_session *s = session_of(c);
  *ret = s && s->auth_failed ? STR("1") : STR("0");
  return 0;
}

static int get_prdr(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct smtp_session *s = session_of(c);
  *ret = s && s->prdr_requested ? STR("yes") : STR("no");
  return 0;
}

static int get_helo_verified(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = c->client->helo_verified ? STR("yes") : c->client->helo_verify_failed ? STR("no") : STR_EMPTY;
  return 0;
}

static const struct variable_def variables[] = {
    {"atrn_host", smtp_atrn_host, 0, 0},
    {"atrn_mode", smtp_atrn_mode, 0, 0},
    {"authentication_failed", get_auth_failed, 0, 0},
    {"prdr_requested", get_prdr, 0, 0},
    {"proxy_external_address", smtp_proxy_variable, 0, PROXY_EXTERNAL_ADDRESS},
    {"proxy_external_port", smtp_proxy_variable, 0, PROXY_EXTERNAL_PORT},
    {"proxy_host_address", smtp_proxy_variable, 0, PROXY_LOCAL_ADDRESS}, /* older names */
    {"proxy_host_port", smtp_proxy_variable, 0, PROXY_LOCAL_PORT},
    {"proxy_local_address", smtp_proxy_variable, 0, PROXY_LOCAL_ADDRESS},
    {"proxy_local_port", smtp_proxy_variable, 0, PROXY_LOCAL_PORT},
    {"proxy_session", smtp_proxy_variable, 0, PROXY_SESSION},
    {"proxy_target_address", smtp_proxy_variable, 0, PROXY_EXTERNAL_ADDRESS},
    {"proxy_target_port", smtp_proxy_variable, 0, PROXY_EXTERNAL_PORT},
    {"proxy_unique_id", smtp_proxy_variable, 0, PROXY_UNIQUE_ID},
    {"rcpt_defer_count", get_count, 0, DEFERRED},
    {"rcpt_fail_count", get_count, 0, FAILED},
    {"sender_helo_verified", get_helo_verified, 0, 0},
    {"smtp_command_history", get_history, 0, 0},
    {0},
};

static const struct acl_control_def controls[] = {
    {"wellknown", true, ACL_ONLY(ACL_BIT(ACL_WELLKNOWN)), 0, smtp_control_wellknown},
    {0},
};

static const struct acl_condition_def conditions[] = {
    {"atrn_domains", ACL_ONLY(ACL_BIT(ACL_ATRN)), true, 0, smtp_acl_atrn_domains, NULL},
    {0},
};

static const char *const macros[] = {"_HAVE_DSN", "_HAVE_ESMTP_LIMITS", "_HAVE_PIPE_CONNECT", "_HAVE_PRDR", "_HAVE_PROXY", "_HAVE_XCLIENT", NULL};

#define OFF(f) offsetof(struct smtp_server_options, f)
static const struct option_def options[] = {
    {"xclient_without_port", OPTION_BOOL, OFF(xclient_without_port)},
    OPTIONS_END,
};

const struct smtp_server_options *smtp_server_options(const struct config *c) { return config_block(c, &smtp_server_module); }

/* The server's verbs and parameters are in its own tables: modules add to them. */
const struct module smtp_server_module = {
    .name = "smtp-server",
    .support = "DSN ESMTP_Limits PIPECONNECT PRDR PROXY Experimental_XCLIENT",
    .summary = "SMTP server, local submission",
    .main_options = options,
    .main_size = sizeof(struct smtp_server_options),
    .acl_conditions = conditions,
    .acl_controls = controls,
    .variables = variables,
    .macros = macros,
};
