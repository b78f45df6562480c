/* Connections to servers that wait to be used again: any number of fibers of a worker take them, each for itself. One
that is idle for long, or whose server has spoken or gone, is closed; a forked child does not touch its parent's. Whoever takes
one must expect that it breaks with the first use: a server may go at any time. */
#pragma once

#include "base/str.h"

struct kept_kind {
  const char *name;
  int max, max_each;  /* that wait: all of the kind, and with one server */
  int seconds;        /* how long */
  void (*close)(void *conn);
  bool (*spoke)(void *conn); /* has the server said something, or gone? NULL: the socket tells */
};

/* A connection of this kind to this server (a key: whatever makes connections differ), or NULL. */
void *kept_take(const struct kept_kind *kind, struct str server);
/* Keeps it for others, or closes it when enough are kept. `fd` is its socket (watched for input that nobody asked for), or -1. */
void kept_give(const struct kept_kind *kind, struct str server, void *conn, int fd);
/* Closes all of a kind; those with one server. */
void kept_close(const struct kept_kind *kind);
void kept_close_server(const struct kept_kind *kind, struct str server);
