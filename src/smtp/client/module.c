#include "smtp/client/module.h"

#include <stddef.h>

#include "core/ctx.h"
#include "core/module.h"
#include "expand/expand.h"
#include "transport/transport.h"

extern const struct transport_def transport_smtp;
static const struct driver_def *const drivers[] = {&transport_smtp.driver, NULL};

static int get_sending_port(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = c->vars.sending_port.len ? c->vars.sending_port : STR("-1");
  return 0;
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
    .support = "DANE SOCKS",
    .macros = macros,
    .drivers = drivers,
    .variables = variables,
};
