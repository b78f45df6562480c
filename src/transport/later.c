/* Transports that are known but not there yet: a configuration that uses one
is refused with its name (Exim manual, chapter "The lmtp transport"; queuefile
copies spool files to a directory). */
#include "transport/transport.h"

struct later {
  struct option_expr text[2];
  struct str string[2];
  int64_t number[2];
  bool flag;
};

#define TEXT(n) offsetof(struct later, text) + (n) * sizeof(struct option_expr)
#define STRING(n) offsetof(struct later, string) + (n) * sizeof(struct str)
#define NUMBER(n) offsetof(struct later, number) + (n) * sizeof(int64_t)

static const struct option_def lmtp_options[] = {
    {"batch_id", OPTION_EXPR, TEXT(0)},
    {"batch_max", OPTION_INT, NUMBER(0), "1"},
    {"command", OPTION_EXPR, TEXT(1)},
    {"ignore_quota", OPTION_BOOL, offsetof(struct later, flag)},
    {"socket", OPTION_STRING, STRING(0)},
    {"timeout", OPTION_TIME, NUMBER(1), "5m"},
    OPTIONS_END};

static const struct option_def queuefile_options[] = {{"directory", OPTION_EXPR, TEXT(0)}, OPTIONS_END};

static int refuse(struct config_reader *r, struct instance *i) {
  return config_error_at(r, i->where, "%.*s transport:\n  the driver \"%s\" is not supported yet", STRF(i->name), i->driver->name);
}

extern const struct transport_def transport_lmtp, transport_queuefile;
const struct transport_def transport_lmtp = {
    .driver = {.name = "lmtp", .class = DRIVER_TRANSPORT, .options = lmtp_options, .options_size = sizeof(struct later),
        .later = true, .summary = "LMTP to a command or a socket", .init = refuse},
    .local = true,
};
const struct transport_def transport_queuefile = {
    .driver = {.name = "queuefile", .class = DRIVER_TRANSPORT, .options = queuefile_options, .options_size = sizeof(struct later),
        .later = true, .summary = "copies spool files to a directory", .init = refuse},
    .local = true,
};
