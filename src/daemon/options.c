#include "daemon/options.h"

#include "core/module.h"

#define OFF(f) offsetof(struct daemon_options, f)
static const struct option_def options[] = {
    {"sandbox", OPTION_BOOL, OFF(sandbox), "true"},
    {"submission_socket", OPTION_STRING, OFF(submission_socket), NULL},
    {"worker_connections", OPTION_INT, OFF(worker_connections), "0"},
    {"worker_deliveries", OPTION_INT, OFF(worker_deliveries), "50"},
    {"worker_processes", OPTION_INT, OFF(worker_processes), "0"},
    OPTIONS_END,
};

const struct module daemon_module = {
    .name = "daemon",
    .summary = "master, workers and agent",
    .main_options = options,
    .main_size = sizeof(struct daemon_options),
};

const struct daemon_options *daemon_options(const struct config *c) { return config_block(c, &daemon_module); }
