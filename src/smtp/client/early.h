/* Early pipelining as a client (PIPECONNECT; draft-harris-early-pipe): what a server said to EHLO is remembered in the hints,
so that the next time EHLO and what follows can be sent before its banner. */
#pragma once

#include "base/str.h"

struct ctx;
struct smtp_connection;

/* Of a connection; the texts are in its arena. */
struct smtp_early {
  bool watched;              /* hosts_pipe_connect: answers are remembered */
  bool used;
  bool owes_banner, owes_ehlo; /* replies that are still to be read before any other */
  struct str interface;      /* of the transport; empty: none */
  struct str clear, crypted; /* remembered answers to EHLO; unset: none */
};

/* Before a connection is made: is the host watched, and what is known of it? [suspends] */
void smtp_early_prepare(struct ctx *c, struct smtp_connection *n, struct str interface);
/* Is there an answer for what comes next, in clear or under TLS, that allows to go on without waiting? Then the connection's
offers are taken from it. [suspends] */
bool smtp_early_offers(struct ctx *c, struct smtp_connection *n);
/* An answer to EHLO has come: it is remembered if it allows early pipelining, else forgotten. */
void smtp_early_learn(struct ctx *c, struct smtp_connection *n);
void smtp_early_forget(struct ctx *c, struct smtp_connection *n);
static inline bool smtp_early_owed(const struct smtp_early *e) { return e->owes_banner || e->owes_ehlo; }
/* Sends what was gathered and reads the banner and the answer to EHLO, if they are owed. An enum smtp_stage_result; SMTP_BROKEN with conn->stale: the server
is not what was remembered; that is forgotten, and a new connection will find out. [suspends] */
int smtp_early_settle(struct ctx *c, struct smtp_connection *n);
