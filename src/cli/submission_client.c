/* The user's end: a relay between standard input, output and error and the daemon. No fibers, nothing privileged. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/submission.h"
#include "core/build.h"
#include "core/main_options.h"
#include "daemon/local.h"
#include "daemon/local_wire.h"
#include "daemon/spool_check.h"

#define PIECE 32768

struct relay {
  int socket;
  bool input_ended, cannot_send;
  const char *out;       /* what waits to be sent */
  size_t out_left;
  char piece[LOCAL_HEAD + PIECE];
  unsigned char head[LOCAL_HEAD];
  size_t head_n;
  enum local_frame type; /* of the frame that comes in */
  uint32_t left;
  unsigned char status[4];
  bool done;
};

bool submission_possible(const struct process *p) {
  switch (p->cli.mode) {
  case MODE_RECEIVE:
  case MODE_SMTP:
  case MODE_BATCH_SMTP:
  case MODE_QUEUE_LIST:
  case MODE_MESSAGE:
  case MODE_QUEUE_RUN: return !str_is_set(p->cli.log_line) && !p->cli.load_message;
  default: return false;
  }
}

/* The spool's owner and root work on it themselves. */
bool submission_needed(const struct process *p) {
  if (geteuid() == 0 || !submission_possible(p))
    return false;
  struct str spool = main_options(p->config)->spool_directory;
  const char *input = str_dup_c(p->arena, str_printf(p->arena, "%.*s/input", STRF(spool)));
  if (faccessat(AT_FDCWD, input, R_OK | W_OK | X_OK, AT_EACCESS) == 0)
    return false;
  return errno == EACCES || errno == EROFS || faccessat(AT_FDCWD, str_dup_c(p->arena, spool), W_OK | X_OK, AT_EACCESS) < 0;
}

/* --- to the daemon --- */

static void read_input(struct relay *r) {
  ssize_t n;
  do
    n = read(0, r->piece + LOCAL_HEAD, PIECE);
  while (n < 0 && errno == EINTR);
  r->input_ended = n <= 0;
  local_head_put((unsigned char *)r->piece, n > 0 ? LOCAL_DATA : LOCAL_END, n > 0 ? (uint32_t)n : 0);
  r->out = r->piece;
  r->out_left = LOCAL_HEAD + (n > 0 ? (size_t)n : 0);
}

static void send_some(struct relay *r) {
  ssize_t n = send(r->socket, r->out, r->out_left, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n >= 0) {
    r->out += n;
    r->out_left -= (size_t)n;
  } else if (errno != EAGAIN && errno != EINTR) {
    /* It has heard enough; its answer may still be on the way. */
    r->cannot_send = r->input_ended = true;
    r->out_left = 0;
  }
}

/* --- from the daemon --- */

static void write_all(int fd, const unsigned char *p, size_t n) {
  while (n > 0) {
    ssize_t w = write(fd, p, n);
    if (w < 0 && errno == EAGAIN) {
      struct pollfd wait = {.fd = fd, .events = POLLOUT};
      (void)poll(&wait, 1, -1);
    } else if (w < 0 && errno != EINTR) {
      return;
    } else if (w > 0) {
      p += w;
      n -= (size_t)w;
    }
  }
}

/* Bytes of a frame. False: none of ours. */
static bool take_bytes(struct relay *r, const unsigned char *p, size_t n) {
  switch (r->type) {
  case LOCAL_OUT: write_all(1, p, n); return true;
  case LOCAL_ERR: write_all(2, p, n); return true;
  case LOCAL_STATUS:
    memcpy(r->status + 4 - r->left, p, n);
    r->done = n == r->left;
    return true;
  default: return false;
  }
}

static bool take(struct relay *r, const unsigned char *p, size_t n) {
  while (n > 0 && !r->done) {
    if (r->left == 0) {
      r->head[r->head_n++] = *p++;
      n--;
      if (r->head_n == LOCAL_HEAD) {
        r->head_n = 0;
        if (!local_head_take(r->head, &r->type, &r->left))
          return false;
      }
      continue;
    }
    size_t part = n < r->left ? n : r->left;
    if (!take_bytes(r, p, part))
      return false;
    r->left -= (uint32_t)part;
    p += part;
    n -= part;
  }
  return true;
}

/* False: the connection is at its end. */
static bool read_answer(struct relay *r) {
  unsigned char p[PIECE];
  ssize_t n = recv(r->socket, p, sizeof p, MSG_DONTWAIT);
  if (n < 0)
    return errno == EAGAIN || errno == EINTR;
  return n > 0 && take(r, p, (size_t)n);
}

/* --- */

/* Exit status of the command. */
static int relay(struct process *p, int fd) {
  struct relay r = {.socket = fd};
  struct buf request;
  buf_init(&request, p->arena, LOCAL_REQUEST_MAX + LOCAL_HEAD);
  buf_add_n(&request, (const char *)r.head, LOCAL_HEAD);
  submission_encode(&p->cli, &request);
  struct str text = buf_str(&request);
  if (request.overflow || p->cli.args.n > SUBMISSION_ARGS_MAX) {
    fprintf(stderr, "%s: too many arguments\n", p->cli.program);
    return 1;
  }
  local_head_put((unsigned char *)request.p, LOCAL_REQUEST, text.len - LOCAL_HEAD);
  r.out = text.p;
  r.out_left = text.len;
  bool no_input = p->cli.mode != MODE_RECEIVE && p->cli.mode != MODE_SMTP && p->cli.mode != MODE_BATCH_SMTP;
  while (!r.done) {
    bool read_more = !r.out_left && !r.input_ended;
    if (read_more && no_input) {
      local_head_put((unsigned char *)r.piece, LOCAL_END, 0);
      r.out = r.piece;
      r.out_left = LOCAL_HEAD;
      r.input_ended = true;
      read_more = false;
    }
    struct pollfd w[2] = {{.fd = fd, .events = POLLIN | (r.out_left ? POLLOUT : 0)}, {.fd = read_more ? 0 : -1, .events = POLLIN}};
    if (poll(w, 2, -1) < 0)
      continue;
    if (w[1].revents)
      read_input(&r);
    if (r.out_left && (w[0].revents & POLLOUT))
      send_some(&r);
    if ((w[0].revents & (POLLIN | POLLHUP | POLLERR)) && !read_answer(&r))
      break;
  }
  if (r.done) {
    int32_t status;
    memcpy(&status, r.status, sizeof status);
    return (int)status;
  }
  fprintf(stderr, "%s: the mail daemon broke the connection off before it had answered; try again later\n", p->cli.program);
  return DAEMON_TRY_AGAIN;
}

static int no_daemon(const struct process *p, struct str path, int error) {
  fprintf(stderr, "%s: the mail daemon does not answer on %.*s: %s\nOrdinary users send through the running daemon: start it"
                  " (as root: martlet -bd, or systemctl start martlet), then try again\n", p->cli.program, STRF(path), strerror(-error));
  return DAEMON_TRY_AGAIN;
}

/* May this user not even read the configuration? */
static bool default_is_closed(struct arena *a) {
  struct str rest = str_c(build.config_path);
  while (str_is_set(rest)) {
    const char *name = str_dup_c(a, str_trim(str_cut(&rest, ':')));
    if (faccessat(AT_FDCWD, name, R_OK, AT_EACCESS) == 0)
      return false;
    if (errno != ENOENT)
      return errno == EACCES;
  }
  return false;
}

bool submission_try_default(struct process *p, int *ret_status) {
  struct str path[2];
  if (geteuid() == 0 || !submission_possible(p) || p->cli.config_given || p->cli.macros.n || p->cli.debug)
    return false;
  (void)local_socket_paths(NULL, true, p->arena, path);
  int fd = local_socket_connect(path[0]);
  if (fd < 0 && !default_is_closed(p->arena))
    return false;
  if (fd < 0) {
    *ret_status = no_daemon(p, path[0], fd);
    return true;
  }
  *ret_status = relay(p, fd);
  close(fd);
  return true;
}

static int connect_to_daemon(struct process *p, struct str path[2], int *ret_n) {
  int fd = -ENOENT;
  *ret_n = local_socket_paths(p->config, local_config_is_default(p->cli.config_given, p->cli.config_files), p->arena, path);
  for (int i = 0; i < *ret_n && fd < 0; i++)
    fd = local_socket_connect(path[i]);
  return fd;
}

bool submission_try_count(struct process *p, int *ret_status) {
  struct str path[2];
  int n;
  if (p->cli.mode != MODE_QUEUE_LIST || str_find_byte(p->cli.mode_arg, 'c') < 0 || p->cli.macros.n || p->cli.debug)
    return false;
  int fd = connect_to_daemon(p, path, &n);
  if (fd < 0)
    return false;
  *ret_status = relay(p, fd);
  close(fd);
  return true;
}

int submission_send(struct process *p) {
  struct str path[2];
  int n, fd = connect_to_daemon(p, path, &n);
  if (fd >= 0) {
    int status = relay(p, fd);
    close(fd);
    return status;
  }
  const struct option_user *owner = &main_options(p->config)->exim_user;
  struct str trouble = p->real_uid == 0 || (owner->set && owner->id == p->real_uid) ? spool_check(p->config, p->arena) : STR_UNSET;
  if (str_is_set(trouble)) /* who works on the spool himself */
    fprintf(stderr, "%s: %.*s\n", p->cli.program, STRF(trouble));
  else if (n == 0)
    fprintf(stderr, "%s: this user may not write the mail spool, and the configuration's submission_socket is empty: ask the"
                    " administrator\n", p->cli.program);
  else
    return no_daemon(p, path[0], fd);
  return DAEMON_TRY_AGAIN;
}
