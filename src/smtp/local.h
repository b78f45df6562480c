/* Local submission: a message on standard input for the recipients of the
command line or of its header (Exim manual, chapter "The Exim command line":
-t, -f, -F, -i, -oe…). */
#pragma once

#include <stdio.h>
#include "config/config.h"
#include "smtp/receive.h"
#include "smtp/server/server.h"

struct local_params {
  struct config *config;
  struct stream *in;
  FILE *err;                       /* for what the submitter is told; NULL: stderr */
  const char *program;             /* name for messages on stderr */
  const struct submitter *submitter;
  const struct str *recipients;    /* arguments; each may hold several addresses, separated by commas */
  size_t recipients_n;
  bool extract_recipients;         /* -t */
  bool dot_is_data;                /* -i: a line with a dot does not end the message */
  bool no_qualify;                 /* -bnq */
  bool suppress_fixups;            /* -G */
  struct str sender;               /* -f; unset: not given */
  struct str full_name;            /* -F */
  struct str bounced_id;           /* -E, -oMm */
  struct ip_addr peer, local;      /* -oMa, -oMi */
  int peer_port, local_port;
  struct str host_name, ident, protocol, host_authenticated, authenticated_id, authenticated_sender; /* -oMs -oMt -oMr -oMaa … */
  int64_t timeout;                 /* -or; 0: none; -1: receive_timeout */
  bool errors_to_stderr;           /* -oep; else they are mailed to the sender */
  int error_status;                /* exit status after an error was mailed: 1, or 0 with -oee */
  bool queue_only;
  const struct smtp_hooks *hooks;
};

/* [suspends] The exit status of the program. */
int receive_local(const struct local_params *p);

enum local_error {
  LOCAL_BAD_ADDRESS, LOCAL_BAD_IN_HEADER /* -t: what detail lists is left out */, LOCAL_NO_RECIPIENTS, LOCAL_ARGS_SUPPRESSED, LOCAL_TOO_BIG, LOCAL_HEADER_TOO_BIG, LOCAL_HEADER_LINE_TOO_BIG,
  LOCAL_TOO_MANY, LOCAL_REJECTED, LOCAL_IO,
};
/* Tells the submitter: by mail (a message with an empty sender, handed to the hooks) or on stderr. Exit status. [suspends] */
int local_report(const struct local_params *p, struct reception *r, enum local_error e, struct str detail, struct str extra);
