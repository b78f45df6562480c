/* Dovecot's authentication protocol (1.x), client's side: lines of words with tabs between, and where the service is. No I/O. */
#pragma once

#include "base/str.h"

struct arena;

#define DOVECOT_LINE_MAX 16384

/* What the service says of itself before DONE. */
struct dovecot_hello {
  bool version_seen, done;
  uint64_t major, minor;
  struct str mechanism;  /* which one is looked for */
  bool found, plaintext; /* it is there; it gives the password away */
};
/* One line of it. false: *ret_error (a literal) says what is wrong with it. */
bool dovecot_hello_line(struct dovecot_hello *h, struct str line, struct str *ret_error);

enum dovecot_answer_kind { DOVECOT_IGNORED, DOVECOT_CONTINUE, DOVECOT_OK, DOVECOT_FAIL, DOVECOT_FAIL_TEMPORARY, DOVECOT_BROKEN };
struct dovecot_answer {
  enum dovecot_answer_kind kind;
  struct str data;   /* of DOVECOT_CONTINUE, decoded */
  struct str user;   /* of OK and FAIL; unset: not told */
  struct str error;  /* of BROKEN, a literal */
};
/* An answer to request 1. Texts are tainted and live in `a`. */
struct dovecot_answer dovecot_answer_line(struct arena *a, struct str line);

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
