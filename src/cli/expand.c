/* -be, -bem and -be -Mset: expansions, with the message and the client that -f, -bem and -oM… give. */

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd_io.h"
#include "cli/process.h"
#include "core/main_options.h"
#include "daemon/daemon.h"
#include "expand/expand_test.h"
#include "log/log.h"
#include "message/message.h"
#include "queue/spool.h"
#include "smtp/receive.h"

/* Header lines up to an empty line; returns where the body begins. */
size_t process_read_header(struct message *m, struct str text) {
  size_t at = 0;
  while (at < text.len && text.p[at] != '\n') {
    size_t end = at;
    do {
      ptrdiff_t newline = str_find_byte(str_from(text, end), '\n');
      end = newline < 0 ? text.len : end + (size_t)newline + 1;
    } while (end < text.len && (text.p[end] == ' ' || text.p[end] == '\t'));
    struct str line = str_slice(text, at, end);
    if (header_name_length(line) == 0)
      return at;
    m->received_count += str_istarts(line, STR("Received")) && header_name_length(line) == 8;
    message_add_header(m, 0, str_tainted(str_dup(m->arena, line)));
    at = end;
  }
  return at < text.len ? at + 1 : at;
}

/* The body in a file of its own, as the spool has it. */
bool process_keep_body(struct message *m, struct str body) {
  struct str first = str_cat(m->arena, str_c(m->id), STR("-D\n"));
  m->data_fd = memfd_create("message", MFD_CLOEXEC);
  if (m->data_fd < 0 || fd_write_all(m->data_fd, first.p, first.len) || fd_write_all(m->data_fd, body.p, body.len))
    return false;
  m->body_size = body.len;
  for (size_t i = 0; i < body.len; i++) {
    m->body_lines += body.p[i] == '\n';
    m->body_zeros += body.p[i] == '\0';
  }
  m->body_lines += body.len > 0 && body.p[body.len - 1] != '\n';
  return true;
}

/* The file as reception would take it, in pieces. */
static bool push_file(struct reception *r, FILE *f) {
  char piece[16384];
  size_t n;
  while ((n = fread(piece, 1, sizeof piece, f)) > 0 && !r->dot.ended)
    receive_push(r, str_n(piece, n));
  return !ferror(f) && receive_end(r) == 0;
}

/* -bem FILE */
static bool read_message(struct process *p, struct message *m) {
  FILE *f = fopen(str_dup_c(p->arena, p->cli.mode_arg), "re");
  if (!f) {
    fprintf(stderr, "martlet: failed to open %.*s: %s\n", STRF(p->cli.mode_arg), strerror(errno));
    return false;
  }
  struct submitter who = {.login = p->login, .name = p->real_name, .uid = p->real_uid, .gid = p->real_gid, .trusted = p->trusted,
      .admin = p->admin};
  struct receive_params rp = {.dot = p->cli.dot_is_data ? DOT_PLAIN : DOT_LOCAL, .local = p->ctx->client->local, .allow_from_line = true,
      .sender_from_line = p->trusted, .sender_forced = p->cli.sender_given, .extract_recipients = p->cli.from_header_recipients,
      .qualify_headers = !p->cli.no_qualify, .full_name = p->cli.full_name, .submitter = &who, .unspooled = true};
  struct reception *r = arena_new_of(p->arena, struct reception);
  struct str own = m->reverse_path;
  m->sender_local = true;
  message_make_id(m, (int)main_options(p->config)->localhost_number_value);
  receive_begin(r, p->ctx, m, &rp);
  m->deliver_first_time = false; /* nor will there be a first time */
  bool good = push_file(r, f);
  fclose(f);
  if (!good) {
    fprintf(stderr, "martlet: %.*s cannot be taken for a message: %.*s\n", STRF(p->cli.mode_arg), STRF(r->error ? r->log : str_c(strerror(errno))));
    return false;
  }
  if (!r->last_given)
    puts("Warning: no message headers read");
  if (!str_eq(own, m->reverse_path))
    puts("Sender taken from \"From \" line");
  for (const struct header *h = m->headers; h; h = h->next)
    if (h->type == HEADER_DELETED && str_istarts(h->text, STR("return-path")))
      puts("Return-path taken from \"Return-path:\" header line");
  if (r->received)
    r->received->type = HEADER_DELETED;
  return true;
}

/* -Mset ID */
static bool load_message(struct process *p, struct str id) {
  struct message *m = NULL;
  if (!process_require_admin(p))
    return false;
  daemon_show_messages(p->config);
  if (spool_read_message(p->ctx, STR_EMPTY, id, false, &m) != SPOOL_OK) {
    fprintf(stderr, "martlet: message %.*s cannot be read%s%.*s\n", STRF(id), p->ctx->error.len ? ": " : "",
        STRF(p->ctx->error));
    return false;
  }
  p->ctx->message = m;
  *p->ctx->client = m->client;
  return true;
}

/* A caller may read no more than he could without us. */
bool process_become_caller(struct process *p) {
  uid_t uid = p->real_uid;
  gid_t gid = p->real_gid;
  bool root = geteuid() == 0 || seteuid(0) == 0;
  if (root ? setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0
           : geteuid() != uid && setresuid(uid, uid, uid) < 0) {
    perror("martlet: cannot become the caller");
    return false;
  }
  return true;
}

int mode_expand(struct process *p) {
  const struct cli *o = &p->cli;
  if (o->session_file)
    return mode_explain_session(p);
  struct expand_test t = {.args = o->args.v, .args_n = o->args.n, .in = stdin, .out = stdout, .explain = o->explain,
      .colour = o->explain && isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL};
  for (size_t i = 0; i < o->args.n; i++)
    o->args.v[i] = str_untainted(o->args.v[i]); /* the caller's own words */
  if (o->explain && o->args.n == 0) {
    fputs("martlet: explain needs an expression\n", stderr);
    return 1;
  }
  if (o->load_message && o->args.n > 0) {
    if (!load_message(p, o->args.v[0]))
      return 1;
    t.args++;
    t.args_n--;
  } else {
    p->ctx->message = message_new("expansion test");
    p->ctx->message->reverse_path = o->sender_given
        ? str_tainted(o->sender)
        : str_printf(p->arena, "%.*s@%.*s", STRF(p->login), STRF(main_options(p->config)->qualify_domain));
  }
  p->ctx->is_test = true;
  log_set_echo(LOG_ECHO_TESTING);
  int status = 1;
  if (process_become_caller(p) && process_start_perl(p) == 0 && (o->load_message || process_set_client(p)) &&
      (!str_is_set(o->mode_arg) || o->mode_arg.len == 0 || read_message(p, p->ctx->message)))
    status = expand_test_run(p->ctx, &t);
  message_free(p->ctx->message);
  p->ctx->message = NULL;
  return status;
}
