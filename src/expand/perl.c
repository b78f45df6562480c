#include "expand/perl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "core/main_options.h"
#include "expand/internal.h"
#include "expand/modules.h"
#include "log/log.h"
#include "loop/child.h"
#include "loop/stream.h"

#define PERL_PATH "/usr/bin/perl"
#define PERL_MAX_TEXT (16u << 20)
#define PERL_SECONDS 60
#define PERL_MAX 4        /* interpreters of one process */
#define PERL_MAX_NESTING 32

/* An interpreter serves one context at a time; what a subroutine has expanded may call Perl again, in the same one. */
struct perl {
  struct child child;
  struct stream *stream; /* NULL: this place is free */
  uint64_t startup;      /* stands for the perl_startup that it has run */
  const struct ctx *user;
  int nesting;
  bool broken;
};

/* Those of this process: a forked one forgets its parent's. */
static struct perl pool[PERL_MAX];
static struct fiber_sem places;
static pid_t owner;

static void pool_init(void) {
  if (owner == getpid())
    return;
  for (size_t i = 0; i < PERL_MAX; i++) {
    if (pool[i].stream != NULL)
      stream_free(pool[i].stream);
    pool[i] = (struct perl){0};
  }
  fiber_sem_init(&places, PERL_MAX);
  owner = getpid();
}

static void perl_end(struct perl *p) {
  if (p->stream == NULL)
    return;
  stream_free(p->stream);
  if (p->child.pid != 0) {
    child_kill(&p->child, SIGKILL);
    child_release(&p->child);
  }
  *p = (struct perl){0};
}

static int put(struct perl *p, char type, const struct str *v, int n) {
  char head[5] = {type};
  size_t len = 0;
  for (int i = 0; i < n; i++)
    len += 4 + (size_t)v[i].len;
  uint32_t net = htonl((uint32_t)len);
  memcpy(head + 1, &net, 4);
  int rc = stream_write(p->stream, str_n(head, sizeof head));
  for (int i = 0; i < n && rc >= 0; i++) {
    net = htonl(v[i].len);
    rc = stream_write(p->stream, str_n((const char *)&net, 4));
    if (rc >= 0)
      rc = stream_write(p->stream, v[i]);
  }
  return rc < 0 ? rc : stream_flush(p->stream);
}

/* A message with at most one string. 0 or -errno. */
static int get(struct ctx *c, struct perl *p, usec_t deadline, char *ret_type, struct str *ret) {
  char head[5];
  uint32_t len, inner;
  int rc = stream_read_exact(p->stream, head, sizeof head, deadline);
  if (rc < 0)
    return rc;
  *ret_type = head[0];
  *ret = STR_EMPTY;
  memcpy(&len, head + 1, 4);
  len = ntohl(len);
  if (len == 0)
    return 0;
  if (len < 4 || len > PERL_MAX_TEXT)
    return -EMSGSIZE;
  char *text = arena_alloc_raw(c->arena, len);
  rc = stream_read_exact(p->stream, text, len, deadline);
  if (rc < 0)
    return rc;
  memcpy(&inner, text, 4);
  if (ntohl(inner) != len - 4)
    return -EPROTO;
  *ret = str_n(text + 4, len - 4);
  return 0;
}

static int fail_broken(struct ctx *c, struct perl *p, int rc) {
  p->broken = true;
  return ctx_fail(c, OUTCOME_ERROR, "Perl interpreter: %s", rc == -ETIMEDOUT ? "timed out" : rc == -EPIPE || rc == -ECONNRESET
          ? "it has ended" : strerror(-rc));
}

/* What a subroutine asked us to expand. */
static int expand_for(struct ctx *c, struct perl *p, struct str text) {
  struct str value;
  int rc = expand_text(c, text, &value);
  if (rc == OUTCOME_FORCED)
    return put(p, 'U', NULL, 0);
  return rc == 0 ? put(p, 'R', &value, 1) : put(p, 'E', &c->error, 1);
}

/* Serves the interpreter until it has an answer for us: its letter. 0 or an outcome. */
static int converse(struct ctx *c, struct perl *p, char *ret_type, struct str *ret) {
  usec_t deadline = deadline_in(PERL_SECONDS);
  for (;;) {
    int rc = get(c, p, deadline, ret_type, ret);
    if (rc < 0)
      return fail_broken(c, p, rc);
    switch (*ret_type) {
    case 'x':
      rc = expand_for(c, p, *ret);
      if (p->broken)
        return OUTCOME_ERROR;
      if (rc < 0)
        return fail_broken(c, p, rc);
      break;
    case 'l':
      log_write(LOG_MAIN, c->message, "%.*s", STRF(*ret));
      break;
    case 'w':
      if (debug_mask != 0)
        dprintf(STDERR_FILENO, "%.*s", STRF(*ret));
      break;
    default:
      return 0;
    }
  }
}

static uint64_t startup_of(const struct ctx *c) {
  const struct main_options *o = main_options(c->config);
  return str_hash(o->perl_startup) * 2 + o->perl_taintmode;
}

static int output_fd = -2;

void perl_show_output(void) { output_fd = STDOUT_FILENO; }

/* The child's end of the socket is its standard input. */
static int spawn(struct ctx *c, struct perl *p) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
    return ctx_fail(c, OUTCOME_ERROR, "socketpair for Perl failed: %s", strerror(errno));
  bool taint = main_options(c->config)->perl_taintmode;
  static char name[] = "perl", taint_option[] = "-T", script_option[] = "-e";
  char *script = str_dup_c(c->arena, str_printf(c->arena, "#line 1 \"martlet\"\n%s", perl_script));
  char *plain[] = {name, script_option, script, NULL}, *tainted[] = {name, taint_option, script_option, script, NULL};
  struct child_spec spec = {.path = PERL_PATH, .argv = taint ? tainted : plain, .envp = environ, .cwd = ".", .stdin_fd = ends[1], .stdout_fd = output_fd,
      .stderr_fd = -2, .umask = -1, .new_group = true, .restrict_memory = true};
  int rc = child_start(&spec, &p->child);
  close(ends[1]);
  if (rc < 0) {
    close(ends[0]);
    return ctx_fail(c, OUTCOME_ERROR, "Perl cannot be started (%s): %s", PERL_PATH, strerror(-rc));
  }
  p->stream = stream_new(ends[0], -1);
  stream_set_write_timeout(p->stream, PERL_SECONDS);
  p->startup = startup_of(c);
  return 0;
}

static int start(struct ctx *c, struct perl *p) {
  char type;
  struct str text;
  DEBUG(expand, "Starting Perl interpreter\n");
  int rc = spawn(c, p);
  if (rc != 0)
    return rc;
  if ((rc = put(p, 'S', &main_options(c->config)->perl_startup, 1)) < 0)
    return fail_broken(c, p, rc);
  rc = converse(c, p, &type, &text);
  if (rc == 0 && type != 's') {
    p->broken = true;
    return ctx_fail(c, OUTCOME_ERROR, "error in perl_startup code: %.*s", STRF(str_rtrim(text)));
  }
  return rc;
}

/* Did the program end while nobody used it, or is it for another configuration? */
static bool is_stale(const struct ctx *c, const struct perl *p) {
  return p->stream != NULL && (p->startup != startup_of(c) || stream_input_pending(p->stream));
}

/* An interpreter for this context alone until perl_leave. */
static int perl_enter(struct ctx *c, struct perl **ret) {
  pool_init();
  for (size_t i = 0; i < PERL_MAX; i++)
    if (pool[i].user == c) {
      if (pool[i].nesting >= PERL_MAX_NESTING)
        return ctx_fail(c, OUTCOME_ERROR, "Perl subroutines are nested too deeply");
      pool[i].nesting++;
      *ret = &pool[i];
      return 0;
    }
  if (fiber_sem_acquire(&places, deadline_in(PERL_SECONDS)) < 0)
    return ctx_fail(c, OUTCOME_ERROR, "all Perl interpreters are busy");
  struct perl *p = NULL;
  for (size_t i = 0; i < PERL_MAX; i++)
    if (pool[i].user == NULL && (p == NULL || (p->stream == NULL && pool[i].stream != NULL)))
      p = &pool[i];
  if (is_stale(c, p))
    perl_end(p);
  p->user = c;
  p->nesting = 1;
  *ret = p;
  return p->stream != NULL ? 0 : start(c, p);
}

static void perl_leave(struct perl *p) {
  if (--p->nesting > 0)
    return;
  p->user = NULL;
  if (p->broken)
    perl_end(p);
  fiber_sem_release(&places);
}

static int call(struct ctx *c, struct perl *p, const struct expand_args *args, struct buf *out) {
  char type = 0;
  struct str text = STR_EMPTY;
  int rc = put(p, 'C', args->value, args->n);
  if (rc < 0)
    return fail_broken(c, p, rc);
  rc = converse(c, p, &type, &text);
  if (rc != 0)
    return rc;
  if (type == 'u')
    return ctx_fail(c, OUTCOME_FORCED, "Perl subroutine \"%.*s\" returned undef to force failure", STRF(args->value[0]));
  if (type != 'r')
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(text));
  buf_add(out, text);
  return 0;
}

static bool configured(const struct ctx *c) {
  return c->config != NULL && main_options(c->config)->perl_startup.len > 0;
}

static int eval_perl(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  if (expand_forbidden(c, EXPAND_FORBID_PERL, "Perl calls are not permitted"))
    return OUTCOME_ERROR;
  struct perl *p = NULL;
  if (!configured(c))
    return ctx_fail(c, OUTCOME_ERROR, "A setting of perl_startup is needed when using the Perl interpreter");
  int rc = perl_enter(c, &p);
  if (rc == 0)
    rc = call(c, p, args, out);
  if (p != NULL)
    perl_leave(p);
  return rc;
}

int perl_start_early(struct ctx *c) {
  struct perl *p = NULL;
  if (!configured(c))
    return 0;
  int rc = perl_enter(c, &p);
  if (p != NULL)
    perl_leave(p);
  return rc;
}

static const struct expand_item_def items[] = {
  {"perl", 1, 9, 0, NULL, eval_perl},
  {0},
};

static const char *const macros[] = {"_HAVE_PERL", NULL};

const struct module expand_perl_module = {
  .name = "expand-perl",
  .summary = "embedded Perl, in a process of its own",
  .support = "Perl",
  .items = items,
  .macros = macros,
};
