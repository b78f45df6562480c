#include "smtp/server/server.h"

#include "core/module.h"

static const char *const macros[] = {"_HAVE_ESMTP_LIMITS", NULL};

/* The server's verbs and parameters are in its own tables: modules add to them. */
const struct module smtp_server_module = {
    .name = "smtp-server",
    .summary = "SMTP server, local submission",
    .macros = macros,
};
