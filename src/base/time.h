/* Times as mail and Exim's configuration write them. */
#pragma once

#include <time.h>
#include "base/str.h"

struct arena;

/* "1w2d3h4m5s", any subset in this order; "0s". -1: malformed or overflow. */
int64_t time_parse_interval(struct str s);
/* The same back, for -bP and logs: 90 is "1m30s", 0 is "0s". */
struct str time_format_interval(struct arena *a, int64_t seconds);
/* "1.234s" as in QT=/DT=: seconds below a minute with milliseconds when `millis`, else 1m30s. */
struct str time_format_duration(struct arena *a, int64_t usec, bool millis);

/* RFC 5322: "Tue, 02 Mar 1999 09:44:33 +0000", in the local zone. */
struct str time_rfc2822(struct arena *a, time_t t);
/* "1999-03-02 09:44:33", with ".123" when millis, and " +0100" when zone; utc: not in the local zone.
Written into `to` (at least 40 bytes); returns the length. Cheap: the last second's text is kept. */
size_t time_log_stamp(char *to, int64_t usec, bool millis, bool zone, bool utc);
/* "Tue Mar 02 09:44:33 1999" of mbox "From " lines. */
struct str time_bsd_inbox(struct arena *a, time_t t);
/* The wall clock in microseconds. */
int64_t time_now_usec(void);
