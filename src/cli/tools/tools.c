/* The table of the tools, and what they share. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ascii.h"
#include "base/vec.h"
#include "cli/tools/tools.h"
#include "loop/child.h"
#include "message/message.h"

#define ANSWER_MAX (1u << 30)
#define ANSWER_SECONDS 3600
#define WORDS_MAX 256
#define LINE_MAX_BYTES (16u << 20)

extern char **environ;

int (*tool_find(const char *name))(struct tool *t) {
  static const struct {
    const char *name;
    int (*run)(struct tool *t);
  } tools[] = {{"exicyclog", tool_exicyclog}, {"exigrep", tool_exigrep}, {"exim_checkaccess", tool_checkaccess}, {"exim_lock", tool_lock}, {"exim_msgdate", tool_msgdate}, {"--msgdate", tool_msgdate}, {"exinext", tool_exinext},
      {"exiqgrep", tool_exiqgrep}, {"exiqsumm", tool_exiqsumm}, {"exiwhat", tool_exiwhat}, {"queue", tool_queue}};
  for (size_t i = 0; i < sizeof tools / sizeof *tools; i++)
    if (!strcmp(name, tools[i].name))
      return tools[i].run;
  return NULL;
}

struct start {
  int (*run)(struct tool *t);
  struct tool tool;
};

static int run_tool(void *arg) {
  struct start *s = arg;
  return s->run(&s->tool);
}

int tool_run(int (*run)(struct tool *t), const char *name, int argc, char **argv) {
  struct start s = {.run = run, .tool = {.arena = arena_new("tool"), .name = name, .argv = argv, .argc = argc}};
  loop_init();
  int status = loop_run(run_tool, &s);
  loop_done();
  fflush(stdout);
  arena_free(s.tool.arena);
  return status;
}

/* --- options --- */

int tool_option(struct tool *t, struct tool_options *o, const char *letters, struct str *ret_value) {
  const char *word = o->at < t->argc ? t->argv[o->at] : NULL;
  *ret_value = STR_UNSET;
  if (!word || (!o->place && (word[0] != '-' || !word[1])))
    return 0;
  if (!o->place && !strcmp(word, "--")) {
    o->at++;
    return 0;
  }
  if (!o->place && !strcmp(word, "--help"))
    return '?';
  int letter = (unsigned char)word[++o->place];
  const char *known = letter != ':' ? strchr(letters, letter) : NULL;
  bool last = !word[o->place + 1];
  if (known && known[1] == ':') {
    o->at++;
    *ret_value = last ? o->at < t->argc ? str_c(t->argv[o->at++]) : STR_UNSET : str_c(word + o->place + 1);
    o->place = 0;
    if (str_is_set(*ret_value))
      return letter;
    fprintf(stderr, "%s: option -%c requires a value\n", t->name, letter);
    return '?';
  }
  if (last) {
    o->at++;
    o->place = 0;
  }
  if (known)
    return letter;
  fprintf(stderr, "%s: unknown option -%c\n", t->name, letter);
  return '?';
}

/* --- asking the program --- */

int tool_ask(struct tool *t, const char *const *words, struct str input, struct str *ret) {
  char *argv[WORDS_MAX + 2] = {arena_strdup(t->arena, "exim")};
  int n = 1, status = 0;
  for (; *words && n <= WORDS_MAX; words++)
    argv[n++] = arena_strdup(t->arena, *words);
  struct child_spec spec = {.path = t->exim ? t->exim : "/proc/self/exe", .argv = argv, .envp = environ, .cwd = ".", .stdin_fd = -1,
      .stdout_fd = -1, .stderr_fd = t->quiet ? -2 : 2, .umask = -1};
  int e = child_run(&spec, t->arena, input, ANSWER_MAX, deadline_in(ANSWER_SECONDS), ret, &status);
  if (e) {
    fprintf(stderr, "%s: %s: %s\n", t->name, t->exim ? t->exim : "exim", strerror(-e));
    return -1;
  }
  return status >> 8 & 0xff;
}

bool tool_main_option(struct tool *t, const char *const *words, const char *option, struct str *ret) {
  const char *all[WORDS_MAX] = {NULL};
  int n = 0;
  for (; *words && n < WORDS_MAX - 3; words++)
    all[n++] = *words;
  all[n++] = "-bP";
  all[n++] = option;
  if (tool_ask(t, all, STR_EMPTY, ret) != 0)
    return false;
  ptrdiff_t equals = str_find(*ret, STR("="));
  *ret = equals < 0 ? STR_EMPTY : str_trim(str_from(*ret, (size_t)equals + 1));
  return true;
}

/* --- text --- */

bool tool_read_line(FILE *f, struct arena *a, struct str *ret) {
  struct buf b;
  char piece[4096];
  bool any = false;
  buf_init(&b, a, LINE_MAX_BYTES);
  while (fgets(piece, sizeof piece, f)) {
    size_t n = strlen(piece);
    any = true;
    buf_add_n(&b, piece, n);
    if (n && piece[n - 1] == '\n') {
      buf_truncate(&b, b.len - 1);
      break;
    }
  }
  *ret = buf_str(&b);
  return any;
}

static int64_t with_unit(struct str s, const char *units, const int64_t *factors) {
  int64_t whole = 0, part = 0, scale = 1;
  uint32_t i = 0;
  for (; i < s.len && ascii_is_digit(s.p[i]) && whole < INT32_MAX; i++)
    whole = whole * 10 + (s.p[i] - '0');
  if (i == 0)
    return -1;
  if (i < s.len && s.p[i] == '.')
    for (i++; i < s.len && ascii_is_digit(s.p[i]) && scale < 1000; i++, scale *= 10)
      part = part * 10 + (s.p[i] - '0');
  if (i == s.len)
    return scale == 1 ? whole : -1;
  const char *unit = strchr(units, s.p[i]);
  if (!unit || i + 1 != s.len)
    return -1;
  int64_t factor = factors[unit - units];
  return whole * factor + part * factor / scale;
}

int64_t tool_age(struct str s) { return with_unit(s, "mhdw", (const int64_t[]){60, 3600, 86400, 604800}); }
int64_t tool_size(struct str s) { return with_unit(s, "KMG", (const int64_t[]){1 << 10, 1 << 20, 1 << 30}); }

static struct str next_word(struct str *rest) {
  struct str s = str_ltrim(*rest);
  uint32_t n = 0;
  while (n < s.len && s.p[n] != ' ' && s.p[n] != '\t')
    n++;
  *rest = str_from(s, n);
  return str_slice(s, 0, n);
}

/* "25m  2.9K 0t5C6f-0000c8-00 <alice@wonderland.example> (user) *** frozen ***". The size is missing when the message
could not be read. */
static bool first_line(struct str line, struct tool_message *m) {
  m->age = next_word(&line);
  m->size = next_word(&line);
  struct str rest = line;
  m->id = next_word(&rest);
  if (!message_id_valid(m->id) && message_id_valid(m->size)) {
    m->id = m->size;
    m->size = STR("0");
    rest = line;
  }
  rest = str_ltrim(rest);
  m->frozen = str_find(rest, STR("*** frozen ***")) >= 0;
  ptrdiff_t end = str_find_byte(rest, '>');
  m->sender = rest.len && rest.p[0] == '<' && end > 0 ? str_slice(rest, 0, (size_t)end + 1) : STR_EMPTY;
  return tool_age(m->age) >= 0 && message_id_valid(m->id);
}

int tool_take_message(struct tool *t, struct str *listing, struct tool_message *m) {
  VEC(struct str) recipients = {0};
  struct str line = STR_EMPTY;
  while (str_is_set(*listing) && !str_trim(line).len)
    line = str_cut(listing, '\n');
  if (!str_trim(line).len)
    return 0;
  if (!first_line(line, m)) {
    fprintf(stderr, "Line mismatch: %.*s\n", STRF(line));
    return -1;
  }
  while (str_is_set(*listing)) {
    line = str_trim(str_cut(listing, '\n'));
    if (!line.len)
      break;
    vec_push(t->arena, &recipients, line);
  }
  m->recipients = recipients.v;
  m->n = recipients.n;
  return 1;
}
