/* The local socket: commands of users who may not write the spool themselves hand their message (or question) to the
daemon through it. The kernel says who they are (SO_PEERCRED). What is asked is the command line's business: see
cli/submission.h. */
#pragma once

#include <sys/types.h>
#include "daemon/daemon.h"

struct worker;

/* Where the socket is: the option submission_socket, else /run/martlet and, for a daemon without root, the spool directory.
`c`: NULL before the configuration is read, with `by_default`: it is the one of the built-in path. Number of paths. */
int local_socket_paths(const struct config *c, bool by_default, struct arena *a, struct str ret[2]);
/* Is this the configuration that programs read when they are not told another? */
bool local_config_is_default(bool given, struct str paths);

/* In the master. The listening socket or -1 (logged); *ret_path is in `a`. */
int local_socket_open(const struct daemon_params *p, struct arena *a, struct str *ret_path);
/* Would the configuration of `p` have the socket at `path` too? */
bool local_socket_stays(const struct daemon_params *p, struct arena *a, struct str path);
/* Connects to a daemon. Descriptor or -errno. */
int local_socket_connect(struct str path);

/* In a worker: the fiber that accepts. */
void local_accept_fiber(void *arg);
