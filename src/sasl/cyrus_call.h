/* The Cyrus SASL library behind an interface of our own: its names are those of our enums. */
#pragma once

#include "base/str.h"

struct arena;
struct cyrus_call;

enum cyrus_result { CYRUS_DONE, CYRUS_MORE, CYRUS_REFUSED, CYRUS_TROUBLE };

struct cyrus_client {
  const char *service, *hostname, *realm;  /* realm may be NULL */
  const char *local, *remote;              /* "ADDRESS;PORT", or NULL */
  unsigned tls_bits;                       /* 0: clear */
  const char *tls_name;                    /* verified name of the client, or NULL */
};

/* Is it there and initialised? At the first call it loads its plugins and its configuration. */
bool cyrus_there(void);
/* Next time it does so again. */
void cyrus_forget(void);
/* false: the library does not know the mechanism; *ret_known (in `a`) lists those that it does. */
bool cyrus_knows(struct arena *a, const char *service, const char *mechanism, struct str *ret_known);
/* A conversation for a client; it ends with cyrus_close. NULL: *ret_error. */
struct cyrus_call *cyrus_open(struct arena *a, const struct cyrus_client *client, struct str *ret_error);
/* The first step (mechanism given; `in` unset: no initial response) or the next (NULL). May block for ever; the
result's texts live until the next step. */
enum cyrus_result cyrus_step(struct cyrus_call *call, const char *mechanism, struct str in, struct str *ret_out);
struct str cyrus_user(struct arena *a, struct cyrus_call *call);
/* Why the last step did not succeed. */
struct str cyrus_why(struct arena *a, struct cyrus_call *call);
void cyrus_close(struct cyrus_call *call);
