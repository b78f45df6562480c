/* TLS reports (RFC 8460): results of connections are counted in the hints (database "tls-reports") by day, for the mail domains
that ask for reports; `martlet tls-report` sends them. On when tls_report_sender is set. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

struct ctx;
struct smtp_connection;

#define TLSRPT_DATABASE "tls-reports"
#define TLSRPT_URIS_MAX 10

/* A TXT record at _smtp._tls.DOMAIN. The number of its rua= URIs (at most TLSRPT_URIS_MAX), which point into the text; -1: it
is no such record. */
int tlsrpt_record_parse(struct str text, struct str uris[TLSRPT_URIS_MAX]);
/* Where reports about a domain go. The number of URIs, which live in c->arena; 0: nowhere. [suspends] */
int tlsrpt_destinations(struct ctx *c, struct str domain, struct str uris[TLSRPT_URIS_MAX]);

/* Counts a connection's fate: a result type of RFC 8460, section 4.3, or NULL for success. Nothing for callouts, nor when
reports are off. [suspends] */
void tlsrpt_note(struct ctx *c, const struct smtp_connection *n, const char *type);
/* The same for a connection that is ready, as far as its policy allows that to be a success. [suspends] */
void tlsrpt_note_ready(struct ctx *c, const struct smtp_connection *n);

/* A record of the database: its key is the first texts with blanks between them, its value the count, LF and the policy. */
struct tlsrpt_result {
  struct str day, domain, policy_type, type, mx, receiver, sender; /* type: "-" for success */
  int64_t count;
  struct str policy; /* lines */
};
bool tlsrpt_decode(struct str key, struct str value, struct tlsrpt_result *ret);
/* tls_report_sender, expanded; unset: reports are off. 0 or an outcome with c->error. */
int tlsrpt_sender(struct ctx *c, struct str *ret);
