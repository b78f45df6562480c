/* exigrep: all log lines of the messages in whose lines a pattern is found (Exim manual, section "Extracting specific
information from the log"). */

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/ascii.h"
#include "base/map.h"
#include "base/pcre.h"
#include "base/vec.h"
#include "cli/tools/tools.h"
#include "loop/child.h"
#include "message/message.h"

struct entry {
  struct str id;
  VEC(struct str) lines;
  bool matched, done, shown;
  int64_t first; /* its first line's time */
  VEC(struct entry *) related;
};

struct search {
  struct tool *t;
  struct str pattern;
  unsigned flags;
  bool literal, invert, related;
  int64_t seconds; /* -1: not given */
  struct map *by_id;
  VEC(struct entry *) entries;
};

static bool matches(struct search *s, struct str line) {
  struct str error;
  bool yes;
  if (s->literal) {
    yes = (s->flags & PCRE_CASELESS ? str_ifind(line, s->pattern) : str_find(line, s->pattern)) >= 0;
  } else {
    const struct pcre *p = pcre_get(s->t->arena, s->pattern, s->flags, &error);
    yes = p && pcre_match(p, line, NULL, 0) > 0;
  }
  return yes;
}

/* "2026-11-21 11:00:13.123 +0100 [123] ": its length, and the time; 0: no line of a log. Syslog's own beginning is passed over. */
static size_t stamp_length(struct str line, int64_t *ret_time) {
  static const char form[] = "dddd-dd-dd dd:dd:dd";
  size_t n = sizeof form - 1, start = 0;
  for (size_t i = 0; i + n <= line.len && i < 100; i++) {
    size_t k = 0;
    while (k < n && (form[k] == 'd' ? ascii_is_digit(line.p[i + k]) : line.p[i + k] == form[k]))
      k++;
    if (k == n) {
      start = i;
      break;
    }
    if (i + n == line.len || i == 99)
      return 0;
  }
  if (line.len < n)
    return 0;
  struct tm tm = {.tm_isdst = -1};
  const char *p = line.p + start;
#define TWO(at) ((p[at] - '0') * 10 + (p[(at) + 1] - '0'))
  tm.tm_year = TWO(0) * 100 + TWO(2) - 1900;
  tm.tm_mon = TWO(5) - 1;
  tm.tm_mday = TWO(8);
  tm.tm_hour = TWO(11);
  tm.tm_min = TWO(14);
  tm.tm_sec = TWO(17);
#undef TWO
  *ret_time = (int64_t)mktime(&tm);
  size_t at = start + n;
  while (at < line.len && (line.p[at] == '.' || ascii_is_digit(line.p[at])))
    at++;
  if (at + 6 < line.len && line.p[at] == ' ' && (line.p[at + 1] == '+' || line.p[at + 1] == '-') && ascii_is_digit(line.p[at + 2]))
    at += 6;
  if (at + 2 < line.len && line.p[at] == ' ' && line.p[at + 1] == '[' && ascii_is_digit(line.p[at + 2])) {
    ptrdiff_t end = str_find_byte(str_from(line, at), ']');
    at = end > 0 ? at + (size_t)end + 1 : at;
  }
  return at < line.len && line.p[at] == ' ' ? at + 1 : at;
}

/* The id behind the time, with what follows it. */
static bool message_of(struct str line, size_t at, struct str *ret_id, struct str *ret_rest) {
  struct str rest = str_from(line, at);
  *ret_id = str_cut(&rest, ' ');
  *ret_rest = str_is_set(rest) ? rest : STR_EMPTY;
  return message_id_valid(*ret_id);
}

static void show(struct search *s, struct entry *e) {
  if (e->shown)
    return;
  e->shown = true;
  if (!e->done)
    printf("+++ %.*s has not completed +++\n", STRF(e->id));
  for (size_t i = 0; i < e->lines.n; i++)
    printf("%.*s\n", STRF(e->lines.v[i]));
  putchar('\n');
}

static struct entry *entry_of(struct search *s, struct str id) {
  struct entry *e = map_get(s->by_id, id);
  if (e)
    return e;
  e = arena_new_of(s->t->arena, struct entry);
  e->id = id;
  map_set(s->by_id, id, e);
  vec_push(s->t->arena, &s->entries, e);
  return e;
}

/* "<= … R=id": made because of that one. */
static void relate(struct search *s, struct entry *e, struct str rest) {
  ptrdiff_t at = str_find(rest, STR(" R="));
  if (!s->related || !str_starts(rest, STR("<= ")) || at < 0)
    return;
  struct str tail = str_from(rest, (size_t)at + 3), id = str_cut(&tail, ' ');
  struct entry *of = message_id_valid(id) ? entry_of(s, id) : NULL;
  if (!of)
    return;
  vec_push(s->t->arena, &of->related, e);
  e->matched |= of->matched;
}

static void set_matched(struct entry *e, int depth) {
  e->matched = true;
  for (size_t i = 0; depth < 20 && i < e->related.n; i++)
    set_matched(e->related.v[i], depth + 1);
}

static void take(struct search *s, struct str line) {
  struct str id, rest;
  int64_t now = 0;
  size_t at = stamp_length(line, &now);
  if (!at)
    return;
  if (!message_of(line, at, &id, &rest)) {
    if (matches(s, line) != s->invert)
      printf("%.*s\n\n", STRF(line));
    return;
  }
  struct entry *e = entry_of(s, id);
  if (e->done) { /* a second life, of -M… on what was there: begins anew */
    e->lines.n = 0;
    e->done = e->shown = false;
  }
  if (!e->lines.n)
    e->first = now;
  vec_push(s->t->arena, &e->lines, line);
  relate(s, e, rest);
  if (!e->matched && matches(s, line))
    set_matched(e, 0);
  if (!str_starts(rest, STR("Completed")))
    return;
  e->done = true;
  bool quick = s->seconds >= 0 && now - e->first <= s->seconds;
  e->shown = quick;
  if (!quick && e->matched != s->invert) /* -v: messages of which no line fits */
    show(s, e);
  if (!s->related || e->shown)
    e->lines = (typeof(e->lines)){0};
}

static void search_file(struct search *s, FILE *f) {
  struct str line;
  while (tool_read_line(f, s->t->arena, &line))
    take(s, line);
}

/* Through zcat when the name says so. */
static int search_name(struct search *s, const char *name) {
  struct str n = str_c(name), text;
  if (!str_ends(n, STR(".gz")) && !str_ends(n, STR(".Z"))) {
    FILE *f = fopen(name, "re");
    if (!f) {
      fprintf(stderr, "exigrep: %s: %s\n", name, strerror(errno));
      return 1;
    }
    search_file(s, f);
    fclose(f);
    return 0;
  }
  char *argv[] = {arena_strdup(s->t->arena, "gzip"), arena_strdup(s->t->arena, "-dc"), arena_strdup(s->t->arena, "--"),
      arena_strdup(s->t->arena, name), NULL};
  struct child_spec spec = {.path = "/bin/gzip", .argv = argv, .cwd = ".", .stdin_fd = -2, .stdout_fd = -1, .stderr_fd = 2, .umask = -1};
  int status, e = child_run(&spec, s->t->arena, STR_EMPTY, 1u << 30, deadline_in(3600), &text, &status);
  if (e || status) {
    fprintf(stderr, "exigrep: %s cannot be read\n", name);
    return 1;
  }
  while (str_is_set(text) && text.len)
    take(s, str_cut(&text, '\n'));
  return 0;
}

int tool_exigrep(struct tool *t) {
  struct search s = {.t = t, .flags = PCRE_CASELESS, .seconds = -1, .by_id = map_new(t->arena)};
  struct tool_options o = {0};
  struct str value, error;
  int status = 0;
  for (int letter; (letter = tool_option(t, &o, "t:IlMv", &value));)
    switch (letter) {
    case 'I': s.flags = 0; break;
    case 'l': s.literal = true; break;
    case 'M': s.related = true; break;
    case 'v': s.invert = true; break;
    case 't':
      if (str_to_i64(value, &s.seconds) && s.seconds >= 0)
        break;
      __attribute__((fallthrough));
    default: fputs("Usage: exigrep [-t<n>] [-I] [-l] [-M] [-v] <pattern> [<log file>] ...\n", stderr); return 2;
    }
  if (o.at >= t->argc) {
    fputs("Usage: exigrep [-t<n>] [-I] [-l] [-M] [-v] <pattern> [<log file>] ...\n", stderr);
    return 2;
  }
  s.pattern = str_c(t->argv[o.at++]);
  if (!s.literal && !pcre_get(t->arena, s.pattern, s.flags, &error)) {
    fprintf(stderr, "exigrep: %.*s\n", STRF(error));
    return 2;
  }
  if (o.at >= t->argc)
    search_file(&s, stdin);
  for (; o.at < t->argc; o.at++)
    status |= search_name(&s, t->argv[o.at]);
  for (size_t i = 0; i < s.entries.n; i++) {
    struct entry *e = s.entries.v[i];
    if (e->matched != s.invert && e->lines.n)
      show(&s, e);
  }
  return status;
}
