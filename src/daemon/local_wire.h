/* The local socket's wire: what passes between a command of an ordinary user and the daemon (docs/internals/submission.md).

A stream of frames, each a head of eight bytes (type, length; the machine's byte order: both ends are on one machine) and
its bytes. The daemon believes nothing: a frame that is too long, of a wrong type or incomplete ends the connection. */
#pragma once

#include <stdint.h>
#include "base/str.h"
#include "loop/fiber.h"

struct arena;
struct stream;

enum local_frame {
  LOCAL_REQUEST = 1,  /* first, once: what is wanted */
  LOCAL_DATA,         /* standard input */
  LOCAL_END,          /* its end; empty. A connection that ends without it was broken off */
  LOCAL_OUT,          /* to the client: standard output */
  LOCAL_ERR,          /* standard error */
  LOCAL_STATUS,       /* exit status, four bytes: the last */
};

#define LOCAL_HEAD 8
#define LOCAL_REQUEST_MAX (4u << 20)
#define LOCAL_PIECE_MAX (64u << 10)

void local_head_put(unsigned char head[LOCAL_HEAD], enum local_frame type, uint32_t length);
/* False: no frame of ours, or longer than its type may be. */
bool local_head_take(const unsigned char head[LOCAL_HEAD], enum local_frame *ret_type, uint32_t *ret_length);

/* --- the daemon's end; fd is a non-blocking socket --- */

/* Reads the first frame, which must be a request. [suspends] 0, -EPROTO, -ECONNRESET, -ETIMEDOUT …; *ret is in `a`, tainted. */
int local_read_request(int fd, struct arena *a, usec_t deadline, struct str *ret);
/* A stream whose input is what comes in LOCAL_DATA and whose output goes out as LOCAL_OUT. It takes fd over. Input that ends
without LOCAL_END is an error (-ECONNRESET), so that half a message is never taken for one. */
struct stream *local_stream_new(int fd);
/* What was written to the stream goes first. [suspends] 0 or -errno. */
int local_send_error(struct stream *s, struct str text);
int local_send_status(struct stream *s, int status);
/* Text and status for somebody who is sent away at once; fd stays open. Does not suspend. */
void local_refuse(int fd, const char *text, int status);
