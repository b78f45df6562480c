/* Requests by HTTPS, with libcurl in a process of its own: what a web server says is read where it can do no harm, and nobody
waits for a library that blocks. Certificates must verify, and nobody is followed anywhere else. */
#pragma once

#include "base/str.h"

struct ctx;

#define HTTPS_ANSWER_MAX (64u << 10)
#define HTTPS_SECONDS 60 /* for all of it */

struct https_request {
  struct str host;      /* its name in ASCII */
  int port;
  struct str url;
  struct str addresses; /* of the host, as we have found them: "[::1],192.0.2.1" */
  struct str ca;        /* "system", or a file with authorities */
  struct str type;      /* of what is posted; empty: a GET, whose answer is text/plain */
  struct str body;
};

bool https_available(void); /* was it built in? */
/* The addresses of a host for a request, in c->arena; empty: none are found. [suspends] */
struct str https_addresses(struct ctx *c, struct str host);
/* [suspends] 0 and the text of an answer with status 200 (after a POST: 2xx); or -errno and *ret_error, tainted;
-EKEYREJECTED: the certificate does not verify. */
int https_ask(struct ctx *c, const struct https_request *r, struct str *ret, struct str *ret_error);

/* In that process: behind HTTPS_ARGUMENT stand URL, libcurl's resolve entry, CA file or "", type or ""; what is to be posted
comes in. Its exit status. */
#define HTTPS_ARGUMENT "--https"
int https_run(const char *url, const char *resolve, const char *ca, const char *type);
