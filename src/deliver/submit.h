/* Messages that Martlet itself writes - bounces, warnings, reports - go into
the spool without a process or a connection, and are queued like any other. */
#pragma once

#include "base/buf.h"
#include "base/vec.h"
#include "core/ctx.h"

struct submit {
  struct arena *arena;
  struct str sender;               /* reverse-path; "" for bounces */
  VEC(struct str) recipients;
  struct buf header;               /* header lines with LF; Received:, Message-Id: and Date: are added */
  struct buf body;                 /* text before the file */
  int body_fd;                     /* -1, or a file whose bytes from body_offset on follow the body … */
  int64_t body_offset, body_length;
  struct buf tail;                 /* … and what comes behind that */
  const struct message *parent;    /* the message it is about: R=id of the <= line; NULL: none */
  bool as_user;                    /* from this user of the machine, with all that is done to what such users submit */
  uint32_t uid, gid;
  bool from_router;                /* written while addresses are routed: by root, where root does that in Exim */
  bool smtputf8;                   /* its text needs SMTPUTF8; addresses in UTF-8 are seen without that */
  char id[24];                     /* out: the new message's id */
};

/* The text of From: for such messages: dsn_from, expanded. */
struct str submit_from(struct ctx *c);
void submit_init(struct submit *s, struct arena *a, const struct message *parent);
/* Spools it durably, logs the <= line, and gives it to the queue for delivery. 0 or -errno. [suspends] */
int submit_message(struct ctx *c, struct submit *s);
