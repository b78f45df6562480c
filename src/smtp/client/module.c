#include "smtp/client/module.h"

#include <stddef.h>

#include "core/ctx.h"
#include "core/module.h"
#include "expand/expand.h"
#include "smtp/client/tlsrpt.h"
#include "transport/transport.h"

extern const struct transport_def transport_smtp;
static const struct driver_def *const drivers[] = {&transport_smtp.driver, NULL};

static int get_sending_port(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = c->vars.sending_port.len ? c->vars.sending_port : STR("-1");
  return 0;
}

/* Main options of our own. */
struct smtp_client_main {
  struct option_expr tls_report_sender, tls_report_verify_certificates;
};

static const struct option_def main_option_table[] = {
    {"tls_report_sender", OPTION_EXPR, offsetof(struct smtp_client_main, tls_report_sender)},
    {"tls_report_verify_certificates", OPTION_EXPR, offsetof(struct smtp_client_main, tls_report_verify_certificates), "system"},
    OPTIONS_END,
};

int tlsrpt_sender(struct ctx *c, struct str *ret) {
  const struct smtp_client_main *o = config_block(c->config, &smtp_client_module);
  return expand_option(c, &o->tls_report_sender, ret);
}

int tlsrpt_authorities(struct ctx *c, struct str *ret) {
  const struct smtp_client_main *o = config_block(c->config, &smtp_client_module);
  return expand_option(c, &o->tls_report_verify_certificates, ret);
}

static const char *const macros[] = {"_HAVE_DANE", "_HAVE_SOCKS", NULL};

static const struct variable_def variables[] = {
    {"sending_ip_address", variable_get_ctx, offsetof(struct ctx, vars.sending_ip_address), 0},
    {"sending_port", get_sending_port, 0, 0},
    {0},
};

const struct module smtp_client_module = {
    .name = "smtp-client",
    .summary = "the smtp transport",
    .support = "DANE Queue_Ramp SOCKS",
    .macros = macros,
    .main_options = main_option_table,
    .main_size = sizeof(struct smtp_client_main),
    .drivers = drivers,
    .variables = variables,
};
