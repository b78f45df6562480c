#include "transport/module.h"

#include "core/module.h"
#include "transport/options.h"

extern const struct transport_def transport_appendfile, transport_autoreply, transport_lmtp, transport_pipe, transport_queuefile;

static const struct driver_def *const drivers[] = {&transport_appendfile.driver, &transport_autoreply.driver, &transport_lmtp.driver,
    &transport_pipe.driver, &transport_queuefile.driver, NULL};

static const struct driver_class_def class_def = {
    .class = DRIVER_TRANSPORT, .options = transport_generic_options, .options_size = sizeof(struct transport_options)};

const struct module transport_module = {
    .name = "transports",
    .summary = "generic transport options, appendfile, autoreply and pipe",
    .driver_class = &class_def,
    .drivers = drivers,
};
