/* Open descriptors that travel with a datagram of a local socket (SCM_RIGHTS, unix(7)). */
#pragma once

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#define FD_PASS_MAX 2

/* Sends the parts as one datagram, never with SIGPIPE; fds stay the caller's own. 0 or -errno (-EAGAIN: see MSG_DONTWAIT). */
int fd_pass_send(int socket, const struct iovec *parts, size_t parts_n, const int *fds, size_t fds_n, int flags);
/* Bytes received, 0 at the end, or -errno. fds: up to `max` descriptors, close-on-exec and the caller's to close; *ret_n: how many,
0 unless there were bytes. -EBADMSG: more descriptors came than that, or the datagram was longer than the parts; all are closed. */
ssize_t fd_pass_receive(int socket, const struct iovec *parts, size_t parts_n, int *fds, size_t max, size_t *ret_n, int flags);
