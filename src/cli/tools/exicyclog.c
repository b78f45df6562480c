/* exicyclog: main and reject log become .01, older ones count up and are compressed (Exim manual, section "Cycling log files"). */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli/tools/tools.h"
#include "loop/child.h"

struct cycle {
  struct tool *t;
  int64_t keep;
  int digits;
};

static const char *numbered(struct cycle *c, struct str base, int64_t n, const char *end) {
  return str_printf(c->t->arena, "%.*s.%0*lld%s", STRF(base), c->digits, (long long)n, end).p;
}

static int complain(struct cycle *c, const char *name) {
  fprintf(stderr, "%s: %s: %s\n", c->t->name, name, strerror(errno));
  return 1;
}

static int compress(struct cycle *c, const char *name) {
  char *argv[] = {arena_strdup(c->t->arena, "gzip"), arena_strdup(c->t->arena, "-f"), arena_strdup(c->t->arena, "--"),
      arena_strdup(c->t->arena, name), NULL};
  struct child_spec spec = {.path = "/bin/gzip", .argv = argv, .cwd = ".", .stdin_fd = -2, .stdout_fd = 1, .stderr_fd = 2, .umask = -1};
  struct str unused;
  int status = 0, e = child_run(&spec, c->t->arena, STR_EMPTY, 1u << 16, deadline_in(3600), &unused, &status);
  if (e)
    fprintf(stderr, "%s: /bin/gzip: %s\n", c->t->name, strerror(-e));
  return e || status;
}

/* One log and its older ones. */
static int cycle(struct cycle *c, struct str base) {
  if (access(base.p, F_OK) < 0)
    return 0;
  for (int z = 0; z < 2; z++) {
    const char *last = numbered(c, base, c->keep, z ? ".gz" : "");
    if (unlink(last) < 0 && errno != ENOENT)
      return complain(c, last);
  }
  for (int64_t n = c->keep - 1; n > 0; n--)
    for (int z = 0; z < 2; z++) {
      const char *from = numbered(c, base, n, z ? ".gz" : "");
      if (rename(from, numbered(c, base, n + 1, z ? ".gz" : "")) < 0 && errno != ENOENT)
        return complain(c, from);
    }
  if (rename(base.p, numbered(c, base, 1, "")) < 0)
    return complain(c, base.p);
  const char *second = numbered(c, base, 2, "");
  return c->keep > 1 && access(second, F_OK) == 0 ? compress(c, second) : 0;
}

/* The first file of log_file_path; syslog and empty items mean no file of ours, or the spool's log directory. */
static bool find_path(struct cycle *c, struct str *path) {
  static const char *const none[] = {NULL};
  struct str list, spool;
  if (!str_is_set(*path) && !tool_main_option(c->t, none, "log_file_path", path))
    return false;
  for (list = *path; str_is_set(list) && list.len;) {
    struct str item = str_trim(str_cut(&list, ':'));
    if (item.len && item.p[0] == '/') {
      *path = item;
      return true;
    }
  }
  if (!tool_main_option(c->t, none, "spool_directory", &spool))
    return false;
  *path = str_cat(c->t->arena, spool, STR("/log/%slog"));
  return true;
}

static struct str with_name(struct arena *a, struct str path, const char *name) {
  ptrdiff_t at = str_find(path, STR("%s"));
  return str_printf(a, "%.*s%s%.*s", STRF(str_slice(path, 0, (size_t)at)), name, STRF(str_from(path, (size_t)at + 2)));
}

int tool_exicyclog(struct tool *t) {
  struct cycle c = {.t = t, .keep = 10};
  struct tool_options o = {0};
  struct str value, path = STR_UNSET;
  for (int letter; (letter = tool_option(t, &o, "k:l:", &value));) {
    if (letter == 'l') {
      path = value;
      continue;
    }
    if (letter != 'k' || !str_to_i64(value, &c.keep) || c.keep < 1 || c.keep > 999) {
      fputs("Usage: exicyclog [-k <count>] [-l <log file path>]\n", stderr);
      return 1;
    }
  }
  c.digits = c.keep > 99 ? 3 : 2;
  if (!find_path(&c, &path))
    return 1;
  if (str_find(path, STR("%s")) < 0 || str_find(path, STR("%D")) >= 0 || str_find(path, STR("%M")) >= 0) {
    fprintf(stderr, "exicyclog: %.*s is not a name with %%s for the log; names with the date need no cycling\n", STRF(path));
    return 1;
  }
  int status = cycle(&c, with_name(t->arena, path, "main"));
  return status | cycle(&c, with_name(t->arena, path, "reject"));
}
