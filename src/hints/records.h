/* Records that several rooms and the tools understand. All are text, so that
a damaged or foreign one is simply not understood: decoding returns false and
the record counts as absent. */
#pragma once

#include "hints/hints.h"

/* Database "retry". Keys: "R:address", "R:domain", "T:host:ip[:port]", "T:…:message-id" (manual, "exim_dumpdb"). */
struct hint_retry {
  int basic_errno, more_errno;
  int64_t first_failed, last_try, next_try;
  bool expired;     /* past the last rule's cutoff */
  struct str text;  /* of the error */
};
struct str hint_retry_encode(struct arena *a, const struct hint_retry *r);
bool hint_retry_decode(struct str value, struct hint_retry *ret);

/* Database "wait-TRANSPORT". Keys: "host id", a message that waits for the host; the value: its named queue, or empty. */

/* Database "callout". Keys: domain, address, "address/<sender>". */
enum hint_answer { HINT_UNKNOWN, HINT_ACCEPT, HINT_REJECT, HINT_REJECT_MAIL /* MAIL FROM:<> refused */, HINT_NOT_TESTED };
struct hint_callout {
  bool is_domain;                /* with the two tests below */
  enum hint_answer result;
  enum hint_answer postmaster, random;
  int64_t postmaster_stamp, random_stamp;
  int64_t stamp;                 /* when the result was obtained */
};
struct str hint_callout_encode(struct arena *a, const struct hint_callout *r);
bool hint_callout_decode(struct str value, struct hint_callout *ret);

/* Database "misc": serialize_hosts, max_parallel: how many run now, on all of the site's processes. False: `limit` (> 0) of
them run already. If the hints are unusable there is no limit. Each success needs its leave. */
bool hint_count_enter(struct ctx *c, struct str key, int64_t limit);
void hint_count_leave(struct ctx *c, struct str key);

/* --- tools: exim_dumpdb and exim_tidydb (manual, chapter "Exim utilities") --- */

struct hints_dump_options {
  bool utc, keys_only;
};
/* Gives the lines for one database ("retry", "wait-smtp", "callout", "misc", "ratelimit", "seen", others) to `write`. */
int hints_dump(struct ctx *c, const char *db, const struct hints_dump_options *o,
    void (*write)(struct str line, void *arg), void *arg);
/* Removes records older than max_age seconds, and what names messages that are no longer there: exists(id). Reports as
exim_tidydb does. */
int hints_tidy(struct ctx *c, const char *db, int64_t max_age, bool (*exists)(struct str id, void *arg),
    void (*write)(struct str line, void *arg), void *arg);
/* "23-Nov-2002 12:00:00" */
struct str hints_time(struct arena *a, int64_t t, bool utc);
