/* Connections to databases that wait to be used again: any number of fibers of a worker take them, each for itself.
One that is idle for long, or whose server has spoken or gone, is closed; a forked child does not touch its parent's. */
#pragma once

#include "base/str.h"

/* A connection of this type (a literal) to this server, or NULL. */
void *db_pool_take(const char *type, struct str server);
/* Keeps it for others. `fd` is its socket (watched for input that nobody asked for), or -1. */
void db_pool_give(const char *type, struct str server, void *conn, int fd, void (*close)(void *conn));
/* Closes all of a type. */
void db_pool_close(const char *type);
