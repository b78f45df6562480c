/* Authenticators (Exim manual, chapter "SMTP authentication"): the class's
generic options, the server's exchange, the client's. A driver is a file here
with a struct authenticator_def. */
#pragma once

#include "config/config.h"
#include "core/ctx.h"

struct authenticator_options {
  struct str public_name;               /* unset: the instance's name */
  struct option_expr client_condition, client_set_id;
  struct option_expr server_advertise_condition, server_condition, server_debug_print, server_set_id;
  struct option_expr server_mail_auth_condition;
};

/* How one side of the exchange talks to the other. Both [suspend]. */
struct sasl_io {
  void *arg;
  /* Server: sends a challenge ("334 …", base64 of `challenge`), gets the decoded response. 0; OUTCOME_FAIL with *ret_reply
  set ("501 …"): cancelled or not base64; OUTCOME_ERROR: the connection is gone. */
  int (*challenge)(void *arg, struct str challenge, struct str *ret_response, struct str *ret_reply);
  /* The same with a text that is no base64, as mechanisms from outside of SASL have it. */
  int (*prompt)(void *arg, struct str text, struct str *ret_response, struct str *ret_reply);
  /* Client: sends "AUTH NAME [initial]" (first call: `line` is the whole command) or a response line; gets the server's
  reply code and decoded text. */
  int (*converse)(void *arg, struct str line, int *ret_code, struct str *ret_text);
};

enum sasl_result {
  SASL_OK,
  SASL_FAIL,        /* wrong credentials */
  SASL_DEFER,       /* cannot tell now: *ret_text */
  SASL_UNAVAILABLE, /* what we ask ourselves is out of order: *ret_text says why, for the log */
  SASL_CANCELLED,   /* "*", no base64, or not to be had: *ret_text is the whole reply */
  SASL_UNEXPECTED,  /* unexpected initial data */
  SASL_ERROR,
  SASL_GONE,        /* the connection is lost */
};

struct authenticator_def {
  struct driver_def driver;             /* must be first */
  bool not_smtp;                        /* no mechanism of AUTH: never offered */
  /* Is the instance configured to serve, to be a client? */
  bool (*is_server)(const struct instance *i);
  bool (*is_client)(const struct instance *i);
  /* Sets $auth1 … with sasl_set_auth. `initial` is the decoded initial response, unset if none was given. */
  enum sasl_result (*server)(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io, struct str *ret_text);
  enum sasl_result (*client)(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str *ret_text);
};

/* Names for EHLO, each with a blank before it (" PLAIN LOGIN"), of those that may be offered to this client now. Lives in `a`. */
struct str sasl_server_advertise(struct ctx *c, struct arena *a);
/* The server authenticator with that public name (caseless), or NULL. */
const struct instance *sasl_server_find(struct ctx *c, struct str name);
struct str sasl_public_name(const struct instance *i);
/* Runs one; then server_condition for drivers that leave it to this; sets authenticated_id or authenticated_fail_id and
host_authenticated of the client (in the session's arena). */
enum sasl_result sasl_server_run(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io, struct str *ret_text);

/* For drivers: $auth<n> and $<n>, n from 1. Values live in c->arena; they are tainted. */
void sasl_set_auth(struct ctx *c, int n, struct str value);
void sasl_clear_auth(struct ctx *c);
/* The last step of a server whose own check succeeded: server_condition, if there is one. OK, FAIL, DEFER with *ret_text. */
enum sasl_result sasl_server_accept(struct ctx *c, const struct instance *i, struct str *ret_text);
/* An option of the server: SASL_OK and *ret (empty when it is not set); a forced failure is SASL_FAIL, another SASL_DEFER with
*ret_text. */
enum sasl_result sasl_server_value(struct ctx *c, const struct option_expr *o, struct str *ret, struct str *ret_text);
/* The text for SASL_ERROR when an option of the client, or a part of one, did not expand. */
struct str sasl_client_expansion_failed(struct ctx *c, struct str text);
/* An option of the client: SASL_OK, SASL_CANCELLED (forced failure; *ret_text unset), SASL_ERROR with *ret_text. */
enum sasl_result sasl_client_value(struct ctx *c, const struct option_expr *o, struct str *ret, struct str *ret_text);
/* A client's first step, "AUTH NAME" with the initial response (unset: none; empty: "="), and the others. *ret_code is 334 or
2xx with SASL_OK; the text (*ret_challenge) is decoded after 334. Otherwise what the run ends with. [suspends] */
enum sasl_result sasl_client_start(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str initial, int *ret_code,
    struct str *ret_challenge, struct str *ret_text);
enum sasl_result sasl_client_answer(struct ctx *c, const struct sasl_io *io, struct str answer, int *ret_code, struct str *ret_challenge,
    struct str *ret_text);
/* "*": gives up an exchange; returns SASL_CANCELLED with *ret_text, the reason. [suspends] */
enum sasl_result sasl_client_cancel(struct ctx *c, const struct sasl_io *io, struct str why, struct str *ret_text);
/* Did the client speak over TLS, from this host, or over no network at all? Then nobody could listen. */
bool sasl_client_secured(const struct ctx *c);
/* The instance of the driver "tls", or NULL: it runs when TLS has started. */
const struct instance *sasl_server_tls(const struct ctx *c);
/* server_condition: OK, FAIL, DEFER with *ret_text. */
enum sasl_result sasl_condition(struct ctx *c, const struct option_expr *condition, const char *what, struct str *ret_text);

extern const struct module sasl_module;
