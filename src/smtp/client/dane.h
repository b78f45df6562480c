/* DANE for a connection (RFC 7672; Exim manual, section "DANE"): TLSA records of a host whose name the DNS vouches for say
which certificate it has, and that there is TLS at all. */
#pragma once

#include "base/str.h"

struct ctx;
struct smtp_connection;
struct smtp_client_options;
struct tls_info;
struct tls_params;
struct tls_tlsa;

/* What the options ask for c->host. */
enum smtp_dane_mode {
  DANE_OFF,
  DANE_TRY,     /* hosts_try_dane, and the host's addresses are secure */
  DANE_REQUIRE, /* hosts_require_dane */
  DANE_UNKNOWN, /* that option cannot be told, c->error says why: no connection has it */
};
enum smtp_dane_mode smtp_dane_mode(struct ctx *c, const struct smtp_client_options *o);

/* Of a connection; everything is in its arena. */
struct smtp_dane {
  enum smtp_dane_mode mode;
  bool in_effect;        /* the peer has to match one of the records */
  bool tls_required;     /* …, or there are only records that nobody can use: TLS, but anybody's (RFC 7672, 2.2) */
  int usage;             /* $tls_out_tlsa_usage */
  struct str base;       /* TLSA base domain */
  struct str names[3];   /* others that a certificate may be for */
  size_t names_n, records_n;
  struct tls_tlsa *records;
};

/* Looks for the records of n's host, before it is connected to. [suspends] An enum smtp_stage_result: SMTP_OK, or SMTP_BROKEN
with n->error and error_text, ERROR_DNS_DEFER (the lookup failed, or was tampered with) or ERROR_DANE_REQUIRED. */
int smtp_dane_look_up(struct ctx *c, struct smtp_connection *n, const struct smtp_client_options *o);
/* What it means for the handshake. 0, or an outcome with c->error. [suspends] */
int smtp_dane_params(struct ctx *c, const struct smtp_connection *n, const struct smtp_client_options *o, struct tls_params *p);
/* Raises dane:fail with an RFC 8460 result type, but in callouts, and counts `reported` for the reports (tlsrpt_note). [suspends] */
void smtp_dane_failed(struct ctx *c, const struct smtp_connection *n, const char *type, const char *reported, const char *reason);
