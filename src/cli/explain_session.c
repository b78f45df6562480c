/* `martlet explain --session FILE`: a recorded SMTP session against the
configuration, as -bh would play it, with the ACL statement that decided each
reply and the values of its conditions. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "cli/process.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "smtp/server/server.h"

#define RECORDING_MAX (16u << 20)
#define REPLY_TIME 600

enum colour { PLAIN, BOLD, DIM, GREEN, RED, YELLOW };

struct line {
  bool server;
  struct str text;
};

struct explain {
  struct process *p;
  bool colour;
  VEC(struct line) lines;
  size_t next;
  bool marked;               /* the recording says whose line each is */
  struct stream *stream;     /* to the session */
  struct smtp_params params;
  struct str decision, log;  /* since the last command; unset: no ACL ran */
  enum acl_result result;
  int differences;
  bool over;
};

static void put(struct explain *e, enum colour colour, int indent, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void put(struct explain *e, enum colour colour, int indent, const char *fmt, ...) {
  static const char *const codes[] = {"", "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[33m"};
  va_list ap;
  va_start(ap, fmt);
  struct str text = log_printable(e->p->arena, str_vprintf(e->p->arena, fmt, ap));
  va_end(ap);
  bool coloured = e->colour && colour != PLAIN;
  printf("%*s%s%.*s%s\n", indent, "", coloured ? codes[colour] : "", STRF(text), coloured ? "\033[0m" : "");
  fflush(stdout);
}

/* ---- what the ACLs do ---- */

static struct str acl_title(struct explain *e, const struct acl *acl) {
  return acl->name.len ? str_printf(e->p->arena, "ACL %.*s", STRF(acl->name)) : acl->source;
}

/* What a condition about the session is compared with. */
static struct str subject(struct explain *e, struct ctx *c, const char *name) {
  struct str sender = c->message ? c->message->reverse_path : STR_EMPTY;
  if (!strcmp(name, "hosts"))
    return str_is_set(c->client->fullhost) ? c->client->fullhost : STR("a local caller");
  if (!strcmp(name, "domains"))
    return c->vars.domain;
  if (!strcmp(name, "local_parts"))
    return c->vars.local_part;
  if (!strcmp(name, "recipients"))
    return str_printf(e->p->arena, "%.*s@%.*s", STRF(c->vars.local_part), STRF(c->vars.domain));
  if (!strcmp(name, "senders") || !strcmp(name, "sender_domains"))
    return str_printf(e->p->arena, "<%.*s>", STRF(sender));
  if (!strcmp(name, "authenticated"))
    return str_is_set(c->client->host_authenticated) ? c->client->host_authenticated : STR("not authenticated");
  return STR_UNSET;
}

static void show_clause(struct explain *e, struct ctx *c, const struct acl_event *v, int indent) {
  const struct acl_clause *k = v->clause;
  bool yes = v->result == OUTCOME_OK;
  if (!k->condition && yes) { /* a modifier that did what it should */
    put(e, DIM, indent + 6, "%s%s%.*s%s%.*s", k->modifier->name, str_is_set(k->variable) ? " " : "",
        STRF(str_is_set(k->variable) ? k->variable : STR_EMPTY), str_is_set(v->value) && v->value.len ? " = " : "",
        STRF(str_is_set(v->value) ? v->value : STR_EMPTY));
    return;
  }
  const char *name = k->condition ? k->condition->name : k->modifier->name;
  const char *word = yes ? "yes" : v->result == OUTCOME_FAIL || v->result == ACL_EVAL_DROP ? "no" : v->result == OUTCOME_DEFER ? "defer" : "error";
  struct str about = subject(e, c, name);
  bool raw = k->condition && !k->condition->expand_first && !str_eq(k->arg.text, v->value);
  put(e, yes ? GREEN : v->result == OUTCOME_DEFER ? YELLOW : RED, indent, "%-5s %s%s = %.*s%s%.*s%s", word, k->negated ? "!" : "", name,
      STRF(v->value), str_is_set(about) ? "    [" : "", STRF(str_is_set(about) ? about : STR_EMPTY), str_is_set(about) ? "]" : "");
  if (!raw && !str_eq(k->arg.text, v->value))
    put(e, DIM, indent + 6, "from: %.*s", STRF(k->arg.text));
  if (!yes && str_is_set(c->log_message) && c->log_message.len)
    put(e, DIM, indent + 6, "because: %.*s", STRF(c->log_message));
}

static void on_event(void *arg, struct ctx *c, const struct acl_event *v) {
  struct explain *e = arg;
  int depth = c->acl ? c->acl->depth : 0, indent = 4 + depth * 6;
  switch (v->kind) {
    case ACL_EVENT_BEGIN:
      if (v->acl)
        put(e, BOLD, indent, "%.*s (%s)", STRF(acl_title(e, v->acl)), acl_where_name(c->acl->where));
      else
        put(e, BOLD, indent, "an empty ACL: it denies");
      if (!v->acl)
        e->decision = STR("an empty ACL");
      return;
    case ACL_EVENT_STATEMENT:
      put(e, PLAIN, indent + 2, "%s    (line %u of %.*s)", acl_verb_name(v->statement->verb), v->statement->line, STRF(v->acl->source));
      return;
    case ACL_EVENT_CLAUSE: show_clause(e, c, v, indent + 4); return;
    case ACL_EVENT_STATEMENT_END: return;
    case ACL_EVENT_END: break;
  }
  enum acl_result r = (enum acl_result)v->result;
  put(e, r == ACL_OK || r == ACL_DISCARD ? GREEN : r == ACL_DEFER ? YELLOW : RED, indent, "=> %s%s", acl_result_word(r),
      v->statement ? "" : " (its end was reached)");
  if (depth > 0)
    return;
  e->result = r;
  e->decision = v->statement ? str_printf(e->p->arena, "%s, line %u of %.*s (%.*s)", acl_verb_name(v->statement->verb), v->statement->line,
      STRF(v->acl->source), STRF(acl_title(e, v->acl))) : str_printf(e->p->arena, "the end of %.*s", STRF(acl_title(e, v->acl)));
  bool why = r != ACL_OK && str_is_set(c->log_message) && c->log_message.len;
  e->log = why ? str_dup(e->p->arena, c->log_message) : STR_UNSET;
}

/* ---- the recording ---- */

/* " -> " and so on of swaks, "C: ", ">>> "; *ret_text is what is behind it. 0: no mark, else 'C', 'S', or '#' (to be passed over). */
static int mark(struct str line, struct str *ret_text) {
  static const struct {
    const char *text;
    char who;
  } marks[] = {{"C: ", 'C'}, {"S: ", 'S'}, {" -> ", 'C'}, {" ~> ", 'C'}, {"<-  ", 'S'}, {"<** ", 'S'}, {"<~  ", 'S'}, {"<~* ", 'S'},
    {">>> ", 'C'}, {"<<< ", 'S'}, {"=== ", '#'}, {"*** ", '#'}, {"??? ", '#'}, {"C:", 'C'}, {">>>", 'C'}, {" ->", 'C'}, {" ~>", 'C'}};
  for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
    if (str_starts(line, str_c(marks[i].text))) {
      *ret_text = str_from(line, strlen(marks[i].text));
      return marks[i].who;
    }
  *ret_text = line;
  return 0;
}

static bool read_recording(struct explain *e, const char *path) {
  int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
  struct buf b;
  char piece[65536];
  ssize_t n = fd < 0 ? -1 : 0;
  buf_init(&b, e->p->arena, RECORDING_MAX);
  while (n >= 0 && (n = read(fd, piece, sizeof piece)) > 0 && !b.overflow)
    buf_add_n(&b, piece, (size_t)n);
  int error = errno;
  if (fd > 0)
    close(fd);
  if (n < 0 || b.overflow) {
    fprintf(stderr, "martlet: %s: %s\n", path, n < 0 ? strerror(error) : "the recording is too long");
    return false;
  }
  struct str text, all = str_tainted(buf_str(&b));
  for (struct str rest = all; str_is_set(rest) && rest.len && !e->marked;)
    e->marked = mark(str_cut(&rest, '\n'), &text) != 0;
  for (struct str rest = all; str_is_set(rest) && rest.len;) {
    struct str line = str_cut(&rest, '\n');
    if (line.len && line.p[line.len - 1] == '\r')
      line.len--;
    int who = mark(line, &text);
    if (!e->marked)
      vec_push(e->p->arena, &e->lines, ((struct line){false, line}));
    else if (who == 'C' || who == 'S')
      vec_push(e->p->arena, &e->lines, ((struct line){who == 'S', text}));
  }
  return true;
}

static bool next_client_line(struct explain *e, struct str *ret) {
  for (; e->next < e->lines.n; e->next++)
    if (!e->lines.v[e->next].server) {
      *ret = e->lines.v[e->next++].text;
      return true;
    }
  return false;
}

static int reply_code(struct str line) {
  if (line.len < 3)
    return 0;
  for (int i = 0; i < 3; i++)
    if (line.p[i] < '0' || line.p[i] > '9')
      return 0;
  return (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0');
}

/* The code that the server gave then, or 0. */
static int recorded_code(const struct explain *e) {
  int code = 0;
  for (size_t i = e->next; i < e->lines.n && e->lines.v[i].server; i++)
    if (e->lines.v[i].text.len >= 3)
      code = reply_code(e->lines.v[i].text);
  return code;
}

/* ---- the replay ---- */

static void session(void *arg) {
  struct explain *e = arg;
  (void)smtp_server_run(&e->params);
  stream_free(e->params.stream);
}

static void judge(struct explain *e, int code, struct str reply) {
  int then = e->marked ? recorded_code(e) : 0;
  enum colour colour = code >= 500 ? RED : code >= 400 ? YELLOW : GREEN;
  for (struct str rest = reply; str_is_set(rest) && rest.len;) {
    struct str line = str_cut(&rest, '\n');
    put(e, colour, 0, "S: %.*s", STRF(line));
  }
  if (str_is_set(e->decision))
    put(e, colour, 3, "decided by: %.*s", STRF(e->decision));
  else if (code >= 400)
    put(e, colour, 3, "decided by: the server itself; no ACL was asked");
  if (str_is_set(e->log))
    put(e, DIM, 3, "for the log: %.*s", STRF(e->log));
  if (then && then / 100 != code / 100) {
    put(e, YELLOW, 3, "the recording has %d here", then);
    e->differences++;
  }
  e->decision = e->log = STR_UNSET;
}

static void session_ended(struct explain *e) {
  if (!e->over)
    put(e, YELLOW, 0, "S: (the session has ended)");
  e->over = true;
}

/* The whole reply; its code, or 0 when the session has ended. */
static int read_reply(struct explain *e, struct str command) {
  struct buf b;
  buf_init(&b, e->p->arena, 1u << 20);
  for (;;) {
    struct str line;
    int eol, rc = stream_read_line(e->stream, 65536, deadline_in(REPLY_TIME), &line, &eol);
    if (rc <= 0) {
      session_ended(e);
      return 0;
    }
    int code = reply_code(line);
    if (code == 0 || line.len < 4 || (line.p[3] != ' ' && line.p[3] != '-'))
      continue; /* what a test says besides */
    buf_add(&b, line);
    buf_add_byte(&b, '\n');
    if (line.p[3] == '-')
      continue;
    judge(e, code, buf_str(&b));
    return code;
  }
}

static void send_line(struct explain *e, struct str line) {
  if (stream_write(e->stream, line) < 0 || stream_write(e->stream, STR("\r\n")) < 0)
    session_ended(e);
}

static bool is_verb(struct str command, const char *verb) {
  size_t n = strlen(verb);
  return str_istarts(command, str_n(verb, n)) && (command.len == n || command.p[n] == ' ');
}

/* Lines up to the dot; sent, or passed over when the server does not want them now. */
static void replay_data(struct explain *e, bool send) {
  struct str line;
  size_t n = 0;
  while (!e->over && next_client_line(e, &line)) {
    if (send)
      send_line(e, line);
    if (str_eq_c(line, "."))
      break;
    n++;
  }
  put(e, BOLD, 0, "C: (%zu lines of the message%s)", n, send ? "" : ", not sent");
  if (send && stream_flush(e->stream) == 0)
    (void)read_reply(e, STR("."));
}

static void replay_chunk(struct explain *e, struct str command) {
  struct str rest = command, line;
  uint64_t size = 0, n = 0;
  str_cut(&rest, ' ');
  struct str number = str_is_set(rest) ? str_cut(&rest, ' ') : STR_EMPTY;
  if (!str_to_u64(number, &size))
    size = 0;
  while (n < size && next_client_line(e, &line)) {
    struct str piece = str_slice(line, 0, size - n);
    n += piece.len;
    if (stream_write(e->stream, piece) < 0)
      e->over = true;
    struct str end = str_slice(STR("\r\n"), 0, size - n > 2 ? 2 : size - n);
    n += end.len;
    if (end.len && stream_write(e->stream, end) < 0)
      e->over = true;
  }
  put(e, BOLD, 0, "C: (%llu bytes of the message)", (unsigned long long)n);
}

static void replay_command(struct explain *e, struct str command) {
  if (is_verb(command, "STARTTLS")) {
    put(e, BOLD, 0, "C: STARTTLS");
    put(e, YELLOW, 3, "not replayed: what follows is played in clear");
    return;
  }
  bool auth = is_verb(command, "AUTH");
  struct str shown = command;
  if (auth) { /* what stands behind the mechanism may be a password */
    struct str rest = str_from(command, 4), mechanism = str_trim(rest);
    ptrdiff_t blank = str_find_byte(mechanism, ' ');
    shown = blank < 0 ? command : str_printf(e->p->arena, "AUTH %.*s ***", STRF(str_slice(mechanism, 0, (size_t)blank)));
  }
  put(e, BOLD, 0, "C: %.*s", STRF(shown));
  int then = e->marked ? recorded_code(e) : 0;
  send_line(e, command);
  if (is_verb(command, "BDAT"))
    replay_chunk(e, command);
  if (e->over || stream_flush(e->stream) < 0) {
    session_ended(e);
    return;
  }
  int code = read_reply(e, command);
  struct str line;
  while (auth && code == 334 && next_client_line(e, &line)) {
    put(e, BOLD, 0, "C: ***");
    send_line(e, line);
    if (stream_flush(e->stream) < 0)
      return;
    code = read_reply(e, line);
  }
  if (is_verb(command, "DATA") && (code == 354 || then == 354))
    replay_data(e, code == 354);
}

static bool prepare(struct explain *e) {
  struct cli *o = &e->p->cli;
  int fds[2];
  struct str host = str_is_set(o->session_host) ? o->session_host : STR("127.0.0.1");
  e->params = (struct smtp_params){.config = e->p->config, .kind = SESSION_TEST, .host_name = o->oMs, .timeout = -1,
      .observer = arena_new_of(e->p->arena, struct acl_observer)};
  *(struct acl_observer *)e->params.observer = (struct acl_observer){.arg = e, .event = on_event};
  if (!ip_parse(host, &e->params.peer) && !ip_parse_port(host, &e->params.peer, &e->params.peer_port)) {
    fprintf(stderr, "martlet: \"%.*s\" is not an IP address\n", STRF(host));
    return false;
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
    perror("martlet: socketpair");
    return false;
  }
  e->params.stream = stream_new(fds[0], -1);
  e->stream = stream_new(fds[1], -1);
  put(e, DIM, 0, "A client at %.*s%s. Nothing is delivered; delays are skipped.", STRF(host),
      str_is_set(o->session_host) ? "" : " (--host ADDRESS for another)");
  return true;
}

int mode_explain_session(struct process *p) {
  struct explain e = {.p = p, .colour = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL, .decision = STR_UNSET, .log = STR_UNSET};
  /* Values of conditions may be secrets of the configuration. */
  if (p->set_uid && !process_require_admin(p))
    return 1;
  p->ctx->is_test = true;
  if (!read_recording(&e, p->cli.session_file) || !process_become_caller(p) || !prepare(&e))
    return 1;
  struct fiber *f = fiber_spawn_joinable("explained session", session, &e);
  struct str line;
  (void)read_reply(&e, STR_EMPTY);
  while (!e.over && next_client_line(&e, &line))
    if (line.len)
      replay_command(&e, line);
  size_t left = 0;
  while (next_client_line(&e, &line))
    left += line.len > 0;
  if (left)
    put(&e, YELLOW, 0, "%zu lines of the recording were not replayed.", left);
  stream_free(e.stream);
  fiber_join(f);
  if (e.differences)
    put(&e, YELLOW, 0, "answers that differ from the recording: %d", e.differences);
  return e.differences ? 2 : 0;
}
