/* Inside the room: connections to Dovecot's service, kept after an exchange that ended well, for the next one of any session. What
the service told of itself stays with a connection; nothing of a client does. */
#pragma once

#include "loop/fiber.h"
#include "sasl/dovecot_wire.h"

struct ctx;
struct stream;

/* Who asks. */
struct dovecot_asker {
  struct ctx *c;
  bool tls;
  usec_t end;          /* of the attempt */
};

struct dovecot_connection {
  struct arena *arena; /* it lives in this */
  struct stream *stream;
  struct dovecot_hello hello;
  uint32_t number;     /* ours, as the service knows it (CPID): no other connection has it */
  uint32_t request;    /* the number of the last one */
  bool heard, gone;    /* since the last request: a line has come; the service has closed */
  bool answered;       /* the last line that came ended the request */
  usec_t born;
  struct str key;      /* of those that are alike */
  struct str shown;    /* where it goes to, for texts */
};

/* To the first place that answers: a kept one, or with `anew` a new one (then kept ones to the places tried are closed: the service has
been gone). [suspends] 0, or OUTCOME_DEFER with c->error. */
int dovecot_reach(struct dovecot_asker *t, const struct dovecot_place *p, bool anew, struct dovecot_connection **ret);
/* Keeps it when its request was answered, else closes it. */
void dovecot_release(struct dovecot_connection *k);
/* 0, or OUTCOME_DEFER with c->error. The line is valid until the next call. [suspends] */
int dovecot_read_line(struct dovecot_asker *t, struct dovecot_connection *k, struct str *ret);
int dovecot_send(struct dovecot_asker *t, struct dovecot_connection *k, struct str text);
