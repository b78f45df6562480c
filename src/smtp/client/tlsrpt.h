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

/* Counts a connection's fate: a result type of RFC 8460, section 4.3, or NULL for success. "validation-failure" becomes a finer
type when n->tls_fault tells one. `reason`: in words, or NULL. Nothing for callouts, nor when reports are off. [suspends] */
void tlsrpt_note(struct ctx *c, const struct smtp_connection *n, const char *type, const char *reason);
/* The same for a connection that is ready, as far as its policy allows that to be a success. [suspends] */
void tlsrpt_note_ready(struct ctx *c, const struct smtp_connection *n);

/* What the store may hold: strangers decide how much there is to be told of their domains. */
#define TLSRPT_DAY_BYTES (16u << 20) /* of one day; what comes then is not counted */
#define TLSRPT_DAYS 3                /* older days are forgotten, reported or not */

/* A record of the database: its key is the first texts with blanks between them (in `reason` they are _), its value the
count, LF and the policy. */
struct tlsrpt_result {
  struct str day, domain, policy_type, type, mx, receiver, sender, reason; /* type: "-" for success; reason: "-" for none */
  int64_t count;
  struct str policy; /* lines */
};
bool tlsrpt_decode(struct str key, struct str value, struct tlsrpt_result *ret);
/* Counts one more for a key, given without its day; what is older than TLSRPT_DAYS is forgotten on the way. */
void tlsrpt_keep(struct ctx *c, int64_t now, struct str words, struct str policy);
/* The record beside those of a key's day that has the number of their bytes; it goes when they do. */
struct str tlsrpt_size_key(struct arena *a, struct str key);
struct tlsrpt_day {
  char text[16]; /* YYYY-MM-DD, UTC */
};
struct tlsrpt_day tlsrpt_day(int64_t when);
/* An https: URI as it may be posted to: the host without brackets, the port (443). false: another form. All point into `uri`. */
struct tlsrpt_uri {
  struct str host;
  int port;
};
bool tlsrpt_https_parse(struct str uri, struct tlsrpt_uri *ret);
/* tls_report_verify_certificates, expanded. 0 or an outcome with c->error. */
int tlsrpt_authorities(struct ctx *c, struct str *ret);
/* tls_report_sender, expanded; unset: reports are off. 0 or an outcome with c->error. */
int tlsrpt_sender(struct ctx *c, struct str *ret);
