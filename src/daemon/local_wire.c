#include "daemon/local_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/arena.h"
#include "loop/stream.h"

#define SEND_SECONDS 300

/* --- heads --- */

void local_head_put(unsigned char head[LOCAL_HEAD], enum local_frame type, uint32_t length) {
  uint32_t t = type;
  memcpy(head, &t, sizeof t);
  memcpy(head + 4, &length, sizeof length);
}

static uint32_t longest(uint32_t type) {
  switch (type) {
  case LOCAL_REQUEST: return LOCAL_REQUEST_MAX;
  case LOCAL_DATA:
  case LOCAL_OUT:
  case LOCAL_ERR: return LOCAL_PIECE_MAX;
  case LOCAL_STATUS: return 4;
  default: return 0;
  }
}

bool local_head_take(const unsigned char head[LOCAL_HEAD], enum local_frame *ret_type, uint32_t *ret_length) {
  uint32_t type, length;
  memcpy(&type, head, sizeof type);
  memcpy(&length, head + 4, sizeof length);
  if (type < LOCAL_REQUEST || type > LOCAL_STATUS || length > longest(type) || (type == LOCAL_STATUS && length != 4))
    return false;
  *ret_type = (enum local_frame)type;
  *ret_length = length;
  return true;
}

/* --- the request --- */

static int read_exact(int fd, void *p, size_t n, usec_t deadline) {
  size_t have = 0;
  while (have < n) {
    ssize_t r = recv(fd, (char *)p + have, n - have, MSG_DONTWAIT);
    if (r == 0)
      return -ECONNRESET;
    if (r > 0) {
      have += (size_t)r;
      continue;
    }
    if (errno == EINTR)
      continue;
    if (errno != EAGAIN)
      return -errno;
    int w = fiber_wait_fd(fd, FIBER_READ, deadline);
    if (w < 0)
      return w;
  }
  return 0;
}

int local_read_request(int fd, struct arena *a, usec_t deadline, struct str *ret) {
  unsigned char head[LOCAL_HEAD];
  enum local_frame type;
  uint32_t length;
  int e = read_exact(fd, head, sizeof head, deadline);
  if (e)
    return e;
  if (!local_head_take(head, &type, &length) || type != LOCAL_REQUEST)
    return -EPROTO;
  char *p = arena_bytes(a, (size_t)length + 1);
  e = read_exact(fd, p, length, deadline);
  if (e)
    return e;
  *ret = str_tainted(str_n(p, length));
  return 0;
}

/* --- the stream's layer --- */

struct channel {
  int fd;
  unsigned char in_head[LOCAL_HEAD], out_head[LOCAL_HEAD];
  size_t in_head_n;     /* bytes of the head that have come */
  uint32_t in_left;     /* bytes of the frame that are still to come */
  bool ended;
  size_t out_head_left; /* bytes of the head that are still to go */
  uint32_t out_left;    /* bytes of the frame that are still to go */
};

static int receive(struct channel *ch, void *p, size_t n) {
  ssize_t r;
  do
    r = recv(ch->fd, p, n, MSG_DONTWAIT);
  while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : r == 0 ? -ECONNRESET : (int)r;
}

/* 0: a frame of data has begun, or the input has ended. */
static int next_frame(struct channel *ch) {
  enum local_frame type;
  while (ch->in_head_n < LOCAL_HEAD) {
    int r = receive(ch, ch->in_head + ch->in_head_n, LOCAL_HEAD - ch->in_head_n);
    if (r < 0)
      return r;
    ch->in_head_n += (size_t)r;
  }
  ch->in_head_n = 0;
  if (!local_head_take(ch->in_head, &type, &ch->in_left) || (type != LOCAL_DATA && type != LOCAL_END))
    return -EPROTO;
  ch->ended = type == LOCAL_END;
  return 0;
}

static int channel_read(void *state, char *p, size_t n, int *want) {
  struct channel *ch = state;
  *want = FIBER_READ;
  while (ch->in_left == 0) {
    if (ch->ended)
      return 0;
    int e = next_frame(ch);
    if (e)
      return e;
  }
  int r = receive(ch, p, n < ch->in_left ? n : ch->in_left);
  if (r > 0)
    ch->in_left -= (uint32_t)r;
  return r;
}

/* A frame that was begun holds all that the stream had to write then, so the stream brings its bytes in further calls. */
static int channel_write(void *state, const char *p, size_t n, int *want) {
  struct channel *ch = state;
  *want = FIBER_WRITE;
  if (n == 0)
    return 0;
  if (ch->out_left == 0) {
    ch->out_left = n > LOCAL_PIECE_MAX ? LOCAL_PIECE_MAX : (uint32_t)n;
    ch->out_head_left = LOCAL_HEAD;
    local_head_put(ch->out_head, LOCAL_OUT, ch->out_left);
  }
  if (n > ch->out_left)
    n = ch->out_left;
  struct iovec iov[2] = {{ch->out_head + LOCAL_HEAD - ch->out_head_left, ch->out_head_left}, {(void *)p, n}};
  struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
  ssize_t r;
  do
    r = sendmsg(ch->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (r < 0 && errno == EINTR);
  if (r < 0)
    return -errno;
  size_t of_head = (size_t)r < ch->out_head_left ? (size_t)r : ch->out_head_left;
  ch->out_head_left -= of_head;
  if ((size_t)r == of_head)
    return -EAGAIN;
  ch->out_left -= (uint32_t)((size_t)r - of_head);
  return (int)((size_t)r - of_head);
}

static void channel_free(void *state) { free(state); }

static const struct stream_layer layer = {.read = channel_read, .write = channel_write, .free = channel_free};

struct stream *local_stream_new(int fd) {
  struct channel *ch = xcalloc(1, sizeof *ch);
  ch->fd = fd;
  struct stream *s = stream_new(fd, fd);
  stream_push_layer(s, &layer, ch);
  return s;
}

/* --- what goes beside the stream --- */

static int send_frame(struct stream *s, enum local_frame type, struct str text) {
  struct channel *ch = stream_layer_state(s);
  unsigned char head[LOCAL_HEAD];
  int e = stream_flush(s);
  if (e < 0)
    return e;
  local_head_put(head, type, text.len);
  size_t done = 0, all = LOCAL_HEAD + (size_t)text.len;
  usec_t deadline = deadline_in(SEND_SECONDS);
  while (done < all) {
    bool in_head = done < LOCAL_HEAD;
    ssize_t r = in_head ? send(ch->fd, head + done, LOCAL_HEAD - done, MSG_NOSIGNAL | MSG_DONTWAIT | (text.len ? MSG_MORE : 0))
                        : send(ch->fd, text.p + (done - LOCAL_HEAD), all - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r >= 0)
      done += (size_t)r;
    else if (errno == EAGAIN)
      e = stream_wait(s, FIBER_WRITE, deadline);
    else if (errno != EINTR)
      e = -errno;
    if (e < 0)
      return e;
  }
  return 0;
}

int local_send_error(struct stream *s, struct str text) {
  for (size_t i = 0; i < text.len; i += LOCAL_PIECE_MAX) {
    int e = send_frame(s, LOCAL_ERR, str_slice(text, i, i + LOCAL_PIECE_MAX));
    if (e)
      return e;
  }
  return 0;
}

int local_send_status(struct stream *s, int status) {
  int32_t n = status;
  return send_frame(s, LOCAL_STATUS, str_n((const char *)&n, sizeof n));
}

void local_refuse(int fd, const char *text, int status) {
  char frames[2 * LOCAL_HEAD + 512 + 4];
  size_t len = strnlen(text, 512);
  int32_t n = status;
  local_head_put((unsigned char *)frames, LOCAL_ERR, (uint32_t)len);
  memcpy(frames + LOCAL_HEAD, text, len);
  local_head_put((unsigned char *)frames + LOCAL_HEAD + len, LOCAL_STATUS, 4);
  memcpy(frames + 2 * LOCAL_HEAD + len, &n, 4);
  (void)!send(fd, frames, 2 * LOCAL_HEAD + len + 4, MSG_NOSIGNAL | MSG_DONTWAIT);
}
