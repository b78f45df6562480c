#include "daemon/options.h"

#include "core/module.h"
#include "daemon/keys.h"

static int check(struct config_reader *r, void *block) {
  return ((struct daemon_options *)block)->key_isolation ? keys_check_config(r) : 0;
}

#define OFF(f) offsetof(struct daemon_options, f)
static const struct option_def options[] = {
    {"key_isolation", OPTION_BOOL, OFF(key_isolation), "false"},
    {"key_isolation_files", OPTION_STRING, OFF(key_isolation_files), NULL},
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
    .main_check = check,
    .main_size = sizeof(struct daemon_options),
};

const struct daemon_options *daemon_options(const struct config *c) { return config_block(c, &daemon_module); }
