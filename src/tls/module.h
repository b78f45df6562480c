/* The TLS room as a module: what -bV and the builtin macros say of it, and the
checks of its main options that need the library. */
#pragma once

#include <stdbool.h>
#include "base/str.h"

struct message;
struct spool_reader;
struct spool_writer;

extern const struct module tls_module;

struct config;

/* Main options of our own. */
struct tls_main_options {
  int64_t tls_ticket_period;
  struct str tls_ticket_servers;
  struct str tls_ocsp_refresh;
};
const struct tls_main_options *tls_main_options(const struct config *config);

/* The lines of a -H file (spool.c). */
void tls_spool_write(struct spool_writer *w, const struct message *m, const void *state);
bool tls_spool_read(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value);
