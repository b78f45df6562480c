#include "smtp/client/module.h"

#include "core/module.h"
#include "transport/transport.h"

extern const struct transport_def transport_smtp;
static const struct driver_def *const drivers[] = {&transport_smtp.driver, NULL};

const struct module smtp_client_module = {
    .name = "smtp-client",
    .summary = "the smtp transport",
    .drivers = drivers,
};
