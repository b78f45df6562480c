/* The one owner of a connection's bytes, from socket through TLS to lines
(STYLE 8). All waiting is on fibers; one fiber at a time uses a stream.

Errors: functions return 0 or a count, or -errno: -ETIMEDOUT at the deadline,
-ECANCELED, -EPIPE/-ECONNRESET for a broken peer, -EPROTO for a TLS failure
(text in stream_error). After an error in a direction that direction only fails,
but reading may go on after -ETIMEDOUT and -ECANCELED. */
#pragma once

#include "base/str.h"
#include "loop/fiber.h"

struct stream;
struct tls_session; /* tls/tls.h */

/* Takes over fd (made non-blocking unless it is a file or terminal, or an
inherited pipe; plain files and pipes work too, for -bs). For different input
and output give fd_out, else the same or -1. */
struct stream *stream_new(int fd_in, int fd_out);
/* Closes the fds (unless stream_keep_fds) and frees; what was not flushed is
lost. NULL is allowed. No suspension. */
void stream_free(struct stream *s);
void stream_keep_fds(struct stream *s);
int stream_fd(const struct stream *s);
int stream_fd_out(const struct stream *s);

/* Input buffer: bounded; a few KiB, allocated while there is input and given
back when it is empty, so that an idle session costs nothing. */
/* Waits for at least one byte, if none is buffered. [suspends] Returns the number
buffered, 0 at end of file, or -errno. */
int stream_fill(struct stream *s, usec_t deadline);
/* Waits for more than is buffered. [suspends] Returns the number buffered; 0 at
end of file (something may still be buffered); -ENOBUFS when the buffer (16 KiB)
is full; or -errno. */
int stream_fill_more(struct stream *s, usec_t deadline);
/* What is buffered now; valid until the next call on this stream. */
struct str stream_peek(const struct stream *s);
void stream_consume(struct stream *s, size_t n);
/* Is input waiting, in the buffer or in the kernel (or TLS)? Does not suspend.
True at end of file too. For the synchronisation check. */
bool stream_input_pending(struct stream *s);
bool stream_at_eof(const struct stream *s);

/* Reads one line up to and including LF into *ret (a view into the buffer,
without its CRLF or LF; valid until the next call). [suspends]
*ret_eol: 2 for CRLF, 1 for bare LF, 0 at end of file without line end.
Returns 1; 0 at end of file with nothing read; -EMSGSIZE when the line is longer
than max, its end not counted (then the rest of that line is discarded); -errno.
The text is tainted. */
int stream_read_line(struct stream *s, size_t max, usec_t deadline, struct str *ret, int *ret_eol);
/* Reads exactly n bytes or fails (-EPIPE at end of file). [suspends] */
int stream_read_exact(struct stream *s, char *p, size_t n, usec_t deadline);

/* Output is gathered; stream_flush sends. A write flushes by itself when the
buffer passes 16 KiB. Each flush may take the time of stream_set_write_timeout
(300 seconds if never set). 0 or -errno. */
void stream_set_write_timeout(struct stream *s, int seconds);
int stream_write(struct stream *s, struct str data); /* [suspends] */
int stream_printf(struct stream *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int stream_flush(struct stream *s); /* [suspends] */
size_t stream_output_pending(const struct stream *s);

/* A connection to `path` (AF_UNIX) or address. [suspends] 0 or -errno. */
struct sockaddr;
int stream_connect(const struct sockaddr *to, unsigned to_len, const struct sockaddr *from, unsigned from_len,
    usec_t deadline, struct stream **ret);

/* TLS is put under the stream by tls/ (tls_server_start, tls_client_start):
buffered clear-text input must have been dropped before (no command injection
across STARTTLS): these functions are for it alone. */
void stream_discard_input(struct stream *s);
struct stream_layer {
  /* Return a count, 0 at end, or -errno; -EAGAIN with *want = FIBER_READ/WRITE.
  A write that returned -EAGAIN is repeated with the same bytes. */
  int (*read)(void *state, char *p, size_t n, int *want);
  int (*write)(void *state, const char *p, size_t n, int *want);
  void (*shutdown)(void *state); /* best effort, does not suspend */
  void (*free)(void *state);
};
/* Once for each stream. The layer uses stream_fd and stream_fd_out itself. */
void stream_push_layer(struct stream *s, const struct stream_layer *layer, void *state);
void *stream_layer_state(const struct stream *s); /* NULL: no layer */
/* Waits as the layer asked with *want. [suspends] 0 or -errno. */
int stream_wait(struct stream *s, int want, usec_t deadline);
void stream_set_error(struct stream *s, struct str text);
struct str stream_error(const struct stream *s);
uint64_t stream_bytes_in(const struct stream *s);
uint64_t stream_bytes_out(const struct stream *s);
