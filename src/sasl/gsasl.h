/* What server and client of the driver gsasl share (gsasl.c). */
#pragma once

#include <gsasl.h>

#include "sasl/drivers.h"

/* A run: the callbacks of the library get it. */
struct gsasl_run {
  struct ctx *c;
  const struct instance *i;
  const struct gsasl_options *o;
  struct str mechanism;      /* upper case */
  const char *digest;        /* of SCRAM: "sha1", "sha256"; NULL: another mechanism */
  bool client;
  enum sasl_result result;   /* what a callback decided; SASL_OK: nothing */
  struct str text;           /* with it */
  bool validated;            /* server_condition has been asked */
};

Gsasl *gsasl_library(void); /* NULL: it could not be initialised */
void gsasl_run_init(struct gsasl_run *r, struct ctx *c, const struct instance *i, bool client);
/* Starts a session for the run. GSASL_OK or an error of the library. */
int gsasl_run_start(struct gsasl_run *r, Gsasl_session **ret);
/* A step: GSASL_OK, GSASL_NEEDS_MORE or an error; *ret_out in c->arena. `in` unset: none. [suspends] */
int gsasl_run_step(struct gsasl_run *r, Gsasl_session *s, struct str in, struct str *ret_out);
/* A property as text, empty when it is not known. */
struct str gsasl_known(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p);
int gsasl_set(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p, struct str value);
/* What binds the run to TLS. */
int gsasl_set_binding(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p);
/* SASLprep of a password. false: it may not be. */
bool gsasl_prepared(struct gsasl_run *r, struct str password, struct str *ret);

int gsasl_server_callback(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p);
int gsasl_client_callback(struct gsasl_run *r, Gsasl_session *s, Gsasl_property p);
enum sasl_result gsasl_serve(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io, struct str *ret_text);
enum sasl_result gsasl_ask(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str *ret_text);
