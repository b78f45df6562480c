/* The redis protocol (RESP2): commands out, replies in. */
#pragma once

#include "base/buf.h"
#include "loop/stream.h"

#define REDIS_ARGS_MAX 1000
#define REDIS_REPLY_MAX (32u << 20)

/* Splits a command at white space: a backslash takes the special meaning of what follows, an argument may stand in double
quotes. The number of arguments, 0 if there is none, or -1: too many, or a quote that does not end. */
int redis_split(struct arena *a, struct str command, struct str *args);
/* Adds the command to `out` as an array of strings. */
void redis_command(struct buf *out, const struct str *args, int n);

enum redis_reply {
  REDIS_TEXT,
  REDIS_NIL,       /* no such thing, or an empty array */
  REDIS_REFUSED,   /* the server's error text is in *ret */
};
/* Reads one reply. Elements of arrays, also of nested ones, are joined by newlines; those that are nil are empty.
[suspends] An enum redis_reply, or -errno (-EPROTO: not the protocol, -EMSGSIZE: too long). */
int redis_read_reply(struct arena *a, struct stream *s, usec_t deadline, struct str *ret);
