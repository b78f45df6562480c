/* Logging to syslog (Exim manual, section "Logging to syslog"). */
#pragma once

#include <stdbool.h>
#include "base/str.h"

/* Facility by name ("mail", "local3" …); -1 for another word. */
int log_syslog_facility(struct str name);
void log_syslog_init(int facility, const char *ident, bool pid);
/* One entry, split at newlines and after 870 characters. `priority`: LOG_INFO, LOG_NOTICE, LOG_ALERT, LOG_CRIT. */
void log_syslog_write(int priority, struct str entry);
void log_syslog_done(void);
/* For tests: lines go to fn instead; NULL: to the system's log again. */
void log_syslog_tap(void (*fn)(int priority, struct str line));
