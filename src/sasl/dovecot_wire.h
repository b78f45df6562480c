/* Dovecot's authentication protocol (1.x), client's side: lines of words with tabs between, and where the service is. No I/O. */
#pragma once

#include "base/str.h"

struct arena;

#define DOVECOT_LINE_MAX 16384
#define DOVECOT_MECHANISMS_MAX 64
#define DOVECOT_MECHANISM_MAX 40  /* a name; 20 are allowed (RFC 4422, section 3.1) */

/* What the service says of itself before DONE; no more of it is kept. */
struct dovecot_hello {
  bool version_seen, done;
  uint64_t major, minor;
  size_t n;
  struct dovecot_mechanism {
    char name[DOVECOT_MECHANISM_MAX + 1];
    bool plaintext; /* it gives the password away */
  } v[DOVECOT_MECHANISMS_MAX]; /* more, and longer names, are passed over */
};
/* One line of it. false: *ret_error (a literal) says what is wrong with it. */
bool dovecot_hello_line(struct dovecot_hello *h, struct str line, struct str *ret_error);
/* NULL: it has not named it. */
const struct dovecot_mechanism *dovecot_mechanism(const struct dovecot_hello *h, struct str name);

enum dovecot_answer_kind { DOVECOT_IGNORED, DOVECOT_CONTINUE, DOVECOT_OK, DOVECOT_FAIL, DOVECOT_FAIL_TEMPORARY, DOVECOT_BROKEN };
struct dovecot_answer {
  enum dovecot_answer_kind kind;
  struct str data;   /* of DOVECOT_CONTINUE, decoded */
  struct str user;   /* of OK and FAIL; unset: not told */
  struct str error;  /* of BROKEN, a literal */
};
/* An answer to the request with this number; one to another is BROKEN. Texts are tainted and live in `a`. */
struct dovecot_answer dovecot_answer_line(struct arena *a, uint32_t request, struct str line);

/* A value of our own for a line: tab, line ends, NUL and \001 are escaped. */
struct str dovecot_escape(struct arena *a, struct str s);

/* One place of server_socket. */
struct dovecot_place {
  struct str path;   /* unset: host and port */
  struct str host;
  int port;
  struct dovecot_place *next;
};
/* The option's value: one place, or a list of them. false: *ret_error says what is wrong. */
bool dovecot_places(struct arena *a, struct str text, struct dovecot_place **ret, struct str *ret_error);
/* Is the place on this machine? */
bool dovecot_is_near(const struct dovecot_place *p);
