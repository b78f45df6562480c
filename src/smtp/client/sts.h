/* MTA-STS for a connection (RFC 8461): a policy that the mail domain's web server holds says which hosts take its mail, and
that they must have certificates that verify. */
#pragma once

#include "smtp/client/sts_policy.h"

struct buf;
struct ctx;
struct smtp_client_options;
struct smtp_connection;
struct tls_params;

/* Of a connection; everything is in its arena. */
struct smtp_sts {
  bool watched;        /* hosts_try_mta_sts */
  struct str domain;   /* whose policy */
  enum sts_mode mode;  /* STS_NONE: none is in force */
  bool allowed;        /* the host is one of those that the policy names */
  struct str text;     /* the policy's */
  const char *trouble; /* why there is none, as a result type of RFC 8460; NULL: nothing */
};

bool smtp_sts_watches(struct ctx *c, const struct smtp_client_options *o);
/* Finds the policy of $domain for a host that its MX records name: remembered in the hints, or fetched. [suspends] An enum
smtp_stage_result: SMTP_OK, or SMTP_BROKEN with n->error and error_text: the policy rules the host out. */
int smtp_sts_look_up(struct ctx *c, struct smtp_connection *n, const struct smtp_client_options *o);
/* What it means for the handshake. */
void smtp_sts_params(const struct ctx *c, const struct smtp_connection *n, struct tls_params *p);
