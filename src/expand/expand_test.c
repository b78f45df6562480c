#include "expand/expand_test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ascii.h"
#include "base/map.h"
#include "config/config.h"
#include "expand/expand.h"
#include "expand/trace.h"
#include "log/log.h"
#include "lookup/file.h"
#include "message/message.h"

#define LINE_MAX_BYTES (1u << 20)
/* What the lines before left behind is thrown away when it has become this much. */
#define LEFT_BEHIND_MAX (32u << 10) /* stays in the processor's cache */

struct reader {
  FILE *in, *out;
  bool hold_output; /* until more input is waited for: nothing else is written where it goes */
  size_t at, n;
  char data[1 << 16];
};

/* Reads what there is, so that the answer to a line is out before the next one is waited for. */
static bool reader_fill(struct reader *r) {
  fflush(r->out);
  int fd = fileno(r->in);
  ssize_t n;
  do
    n = fd < 0 ? (ssize_t)fread(r->data, 1, sizeof r->data, r->in) : read(fd, r->data, sizeof r->data);
  while (n < 0 && errno == EINTR);
  r->at = 0;
  r->n = n > 0 ? (size_t)n : 0;
  lookup_stamps_expire();
  return r->n > 0;
}

/* One input line without its newline. False at the end of the input. */
static bool read_raw(struct reader *r, struct buf *line) {
  bool any = false;
  while (r->at < r->n || reader_fill(r)) {
    any = true;
    const char *from = r->data + r->at, *newline = memchr(from, '\n', r->n - r->at);
    size_t n = newline != NULL ? (size_t)(newline - from) : r->n - r->at;
    buf_add_n(line, from, n);
    r->at += n + (newline != NULL);
    if (newline != NULL)
      break;
  }
  return any;
}

/* A logical line, in `line`: a backslash at the end joins the next one, without its leading white space. */
static bool read_line(struct ctx *c, struct reader *r, struct buf *line, struct str *ret) {
  buf_truncate(line, 0);
  line->overflow = false;
  if (!read_raw(r, line))
    return false;
  for (;;) {
    struct str s = str_rtrim(buf_str(line));
    buf_truncate(line, s.len);
    if (s.len == 0 || s.p[s.len - 1] != '\\')
      break;
    buf_truncate(line, s.len - 1);
    struct buf next;
    buf_init(&next, c->arena, LINE_MAX_BYTES);
    if (!read_raw(r, &next))
      break;
    buf_add(line, str_ltrim(buf_str(&next)));
  }
  *ret = buf_str(line);
  return true;
}

static bool is_word_byte(char ch) { return ascii_is_alnum(ch) || ch == '_'; }

/* Replaces one macro; what was put in is not looked at again. Builtin ones are found as whole words only. */
static bool replace_macro(struct ctx *c, const struct config_macro *m, struct str *line) {
  struct buf b;
  bool changed = false;
  size_t at = 0;
  /* There are hundreds, and a line has hardly one. */
  if (m->name.len == 0 || str_find(*line, m->name) < 0)
    return false;
  buf_init(&b, c->arena, LINE_MAX_BYTES);
  while (at < line->len) {
    struct str rest = str_from(*line, at);
    bool here = str_starts(rest, m->name);
    if (here && m->builtin)
      here = (at == 0 || !is_word_byte(line->p[at - 1])) && (rest.len == m->name.len || !is_word_byte(rest.p[m->name.len]));
    if (here) {
      buf_add(&b, m->value);
      at += m->name.len;
      changed = true;
    } else {
      buf_add_byte(&b, line->p[at++]);
    }
  }
  if (changed)
    *line = str_untainted(buf_str(&b));
  return changed;
}

/* Can a builtin macro's name stand there? All begin with an underscore and a capital. */
static bool holds_builtin(struct str line) {
  for (ptrdiff_t at; (at = str_find_byte(line, '_')) >= 0; line = str_from(line, (size_t)at + 1))
    if ((size_t)at + 1 < line.len && ascii_is_upper(line.p[at + 1]))
      return true;
  return false;
}

/* The builtin ones, hundreds, stand first. */
static bool replace_macros(struct ctx *c, size_t builtin_n, struct str *line) {
  bool changed = false;
  for (size_t i = holds_builtin(*line) ? 0 : builtin_n; i < c->config->macros.n; i++)
    changed |= replace_macro(c, &c->config->macros.v[i], line);
  return changed;
}

/* NAME = text, NAME beginning with a capital. */
static bool define_macro(struct ctx *c, struct str line, struct str *ret_name) {
  size_t n = 0;
  if (line.len == 0 || !ascii_is_upper(line.p[0]))
    return false;
  while (n < line.len && is_word_byte(line.p[n]))
    n++;
  struct str rest = str_ltrim(str_from(line, n));
  if (rest.len == 0 || rest.p[0] != '=')
    return false;
  rest = str_from(rest, 1);
  if (rest.len > 0 && rest.p[0] == '=')
    rest = str_from(rest, 1);
  struct config_macro m = {.name = str_dup(c->config->arena, str_slice(line, 0, n)),
      .value = str_dup(c->config->arena, str_trim(rest))};
  *ret_name = m.name;
  for (size_t i = 0; i < c->config->macros.n; i++)
    if (!c->config->macros.v[i].builtin && str_eq(c->config->macros.v[i].name, m.name)) {
      c->config->macros.v[i].value = m.value;
      return true;
    }
  vec_push(c->config->arena, &c->config->macros, m);
  return true;
}

static void set_in(struct arena *a, struct map **m, struct str name, struct str value) {
  if (*m == NULL)
    *m = map_new(a);
  struct str *s = arena_new_of(a, struct str);
  *s = str_dup(a, value);
  s->taint = value.taint;
  map_set(*m, name, s);
}

/* Behind `set `: false when it is no assignment of a variable that may be set. */
static bool set_variable(struct ctx *c, struct arena *lasting, struct str rest, bool taint, FILE *out) {
  size_t n = 0;
  while (n < rest.len && is_word_byte(rest.p[n]))
    n++;
  struct str name = str_slice(rest, 0, n), value;
  rest = str_ltrim(str_from(rest, n));
  bool router = str_starts(name, STR("r_")) && name.len > 2;
  bool acl = (str_starts(name, STR("acl_c")) || str_starts(name, STR("acl_m"))) && name.len > 5 &&
             (ascii_is_digit(name.p[5]) || name.p[5] == '_');
  if ((!router && !acl) || rest.len == 0 || rest.p[0] != '=')
    return false;
  int rc = expand_text(c, str_ltrim(str_from(rest, 1)), &value);
  if (rc != 0) {
    fprintf(out, "Failed: %.*s\n", STRF(c->error));
    return true;
  }
  if (taint)
    value = str_tainted(value);
  struct map **m = router ? &c->router_vars : &c->acl_m;
  if (acl && c->message != NULL)
    m = name.p[4] == 'c' ? &c->message->acl_c : &c->message->acl_m;
  set_in(lasting, m, name, value);
  struct str shown = acl ? str_from(name, 4) : name;
  fprintf(out, "variable %.*s set\n", STRF(shown));
  return true;
}

static void show(struct ctx *c, struct str text, FILE *out) {
  struct str value;
  int rc = expand_text(c, text, &value);
  if (rc == 0)
    fwrite(value.p, 1, value.len, out);
  else
    fprintf(out, "Failed: %.*s", STRF(c->error));
  putc('\n', out);
}

/* Those of the command line, then those of the file, the last first. */
static void show_macros(struct ctx *c, FILE *out) {
  for (size_t i = 0; i < 2 * c->config->macros.n; i++) {
    bool first_round = i < c->config->macros.n;
    size_t at = first_round ? i : 2 * c->config->macros.n - 1 - i;
    const struct config_macro *m = &c->config->macros.v[at];
    if (!m->builtin && m->from_command_line == first_round)
      fprintf(out, "macro '%.*s' -> '%.*s'\n", STRF(m->name), STRF(m->value));
  }
}

/* martlet explain: the tree, then what comes of it. */
static int explain(struct ctx *c, const struct expand_test *t) {
  const struct trace_view view = {t->out, t->colour};
  const char *good = t->colour ? "\033[1;32m" : "", *bad = t->colour ? "\033[1;31m" : "", *end = t->colour ? "\033[0m" : "";
  int status = 0;
  trace_view = &view;
  for (size_t i = 0; i < t->args_n; i++) {
    struct str value;
    int rc = expand_text(c, str_untainted(t->args[i]), &value);
    status |= rc != 0;
    if (rc == 0)
      fprintf(t->out, "%s%.*s%s%s\n", good, STRF(value), end, str_is_tainted(value) ? "  (tainted)" : "");
    else
      fprintf(t->out, "%sFailed: %.*s%s%s\n", bad, STRF(c->error), end, rc == OUTCOME_FORCED ? "  (forced)" : "");
  }
  trace_view = NULL;
  return status;
}

/* Evaluation leaves its garbage in the arena: a long input would pile it up. What a line can leave to the next ones goes
with us to another arena. */
static void change_arena(struct ctx *c, struct arena *to) {
  struct str *vars = (struct str *)(void *)&c->vars;
  _Static_assert(sizeof c->vars % sizeof *vars == 0, "policy_vars holds nothing but strings");
  for (size_t i = 0; i < sizeof c->vars / sizeof *vars; i++)
    vars[i] = str_dup(to, vars[i]);
  for (size_t i = 0; i < CAPTURES_MAX; i++)
    c->expand.capture[i] = str_dup(to, c->expand.capture[i]);
  struct str *others[] = {&c->expand.item, &c->expand.value, &c->host_lookup_key, &c->smtp_active_hostname, &c->auth[0],
      &c->auth[1], &c->auth[2], &c->auth[3], &c->user_message, &c->log_message, &c->error};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    *others[i] = str_dup(to, *others[i]);
  c->arena = to;
}

static bool same_file(FILE *a, int b) {
  struct stat of_a, of_b;
  return fileno(a) < 0 || fstat(fileno(a), &of_a) != 0 || fstat(b, &of_b) != 0 ||
         (of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino);
}

static void run_lines(struct ctx *c, struct arena *lasting, const struct expand_test *t) {
  struct arena *spare = arena_new("expansion test, spare");
  struct reader *r = arena_alloc_raw(lasting, sizeof *r);
  struct buf text;
  struct str line;
  size_t builtin_n = 0;
  while (builtin_n < c->config->macros.n && c->config->macros.v[builtin_n].builtin)
    builtin_n++;
  r->in = t->in;
  r->out = t->out;
  r->hold_output = debug_mask == 0 && !same_file(t->out, STDERR_FILENO);
  r->at = r->n = 0;
  buf_init(&text, lasting, LINE_MAX_BYTES);
  c->arena = arena_new("expansion test");
  for (;;) {
    if (arena_used(c->arena) > LEFT_BEHIND_MAX) {
      struct arena *full = c->arena;
      change_arena(c, spare);
      arena_reset(full);
      spare = full;
    }
    fputs("> ", t->out);
    if (!r->hold_output)
      fflush(t->out);
    if (!read_line(c, r, &text, &line))
      break;
    bool macro_first = replace_macros(c, builtin_n, &line);
    struct str name;
    if (!macro_first && define_macro(c, line, &name)) {
      fprintf(t->out, "Defined macro '%.*s'\n", STRF(name));
      continue;
    }
    bool taint = str_starts(line, STR("set,t "));
    if ((taint || str_starts(line, STR("set "))) &&
        set_variable(c, lasting, str_from(line, taint ? 6 : 4), taint, t->out))
      continue;
    show(c, line, t->out);
  }
  struct arena *mine = c->arena;
  change_arena(c, lasting);
  arena_free(mine);
  arena_free(spare);
}

int expand_test_run(struct ctx *c, const struct expand_test *t) {
  if (t->explain)
    return explain(c, t);
  for (size_t i = 0; i < t->args_n; i++)
    show(c, str_untainted(t->args[i]), t->out);
  if (t->args_n > 0)
    return 0;
  if (debug_mask != 0)
    show_macros(c, t->out);
  run_lines(c, c->arena, t);
  putc('\n', t->out);
  fflush(t->out);
  return 0;
}

int expand_config_text(struct config *config, struct arena *a, struct str text, struct str *ret, struct str *ret_error) {
  struct ctx *c = ctx_new(a, config);
  int rc = expand(c, expr_compile(a, text, NULL), ret);
  if (rc != 0)
    *ret_error = c->error;
  return rc != 0 ? OUTCOME_ERROR : 0;
}
