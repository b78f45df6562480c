/* REQUIRETLS (RFC 8689; features F18): a message that may only travel over
verified TLS to servers that promise the same, and its reverse, a header line
"TLS-Required: No". */
#pragma once

#include <stdbool.h>

struct ctx;
struct message;
struct module;
struct smtp_client_options;

bool message_requires_tls(const struct message *m);
/* The requirement overrides what the header says. */
void message_set_requiretls(struct message *m);

/* What it means for a connection that is to carry c->message. */
enum smtp_requiretls {
  REQUIRETLS_NONE,
  REQUIRETLS_NEEDED,  /* TLS, a certificate for the host's validated name, and REQUIRETLS behind EHLO */
  REQUIRETLS_RELAXED, /* "TLS-Required: No": TLS is tried, but no failure of it counts unless hosts_require_tls names the host */
};
/* Callouts carry no message. A bounce goes on without the promise when it must (RFC 8689, section 5). */
enum smtp_requiretls smtp_requiretls_mode(const struct ctx *c, const struct smtp_client_options *o);
/* Is it one of the errors that make a host unfit for such a message? */
bool smtp_requiretls_unfit(int error);

/* The control, $requiretls, the header line, the lines of the -H file. */
extern const struct module requiretls_module;
