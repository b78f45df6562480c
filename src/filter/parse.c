/* The text of an Exim filter to commands (filter specification, "Format of
Exim filter files" and the sections about the commands). */

#include <stdarg.h>
#include <string.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "filter/internal.h"

const char *const filter_mail_words[MAIL_ARGS] = {"to", "cc", "bcc", "from", "reply_to", "subject", "extra_headers", "text", "file",
    "log", "once", "once_repeat"};

static const struct command_word {
  const char *word;
  enum filter_command_kind kind;
} command_words[] = {
    {"add", COMMAND_ADD},           {"defer", COMMAND_DEFER},       {"deliver", COMMAND_DELIVER},     {"fail", COMMAND_FAIL},
    {"finish", COMMAND_FINISH},     {"freeze", COMMAND_FREEZE},     {"headers", COMMAND_HEADERS},     {"if", COMMAND_IF},
    {"logfile", COMMAND_LOGFILE},   {"logwrite", COMMAND_LOGWRITE}, {"mail", COMMAND_MAIL},           {"pipe", COMMAND_PIPE},
    {"save", COMMAND_SAVE},         {"testprint", COMMAND_TESTPRINT}, {"vacation", COMMAND_VACATION},
};

bool filter_parse_error(struct filter_parser *p, const char *fmt, ...) {
  va_list ap;
  if (str_is_set(p->error))
    return false;
  va_start(ap, fmt);
  p->error = str_vprintf(p->arena, fmt, ap);
  va_end(ap);
  return false;
}

/* --- words --- */

static bool at_end(const struct filter_parser *p) { return p->at >= p->text.len; }

static void skip_space(struct filter_parser *p) {
  while (!at_end(p)) {
    char c = p->text.p[p->at];
    if (c == '#') {
      while (!at_end(p) && p->text.p[p->at] != '\n')
        p->at++;
      continue;
    }
    if (!ascii_is_space(c) && c != 0)
      return;
    p->line += c == '\n';
    p->at++;
  }
}

static bool is_bracket(char c) { return c == '(' || c == ')'; }

bool filter_parse_word(struct filter_parser *p, bool bracket, struct str *ret) {
  skip_space(p);
  size_t from = p->at;
  while (!at_end(p) && !ascii_is_space(p->text.p[p->at]) && !(bracket && is_bracket(p->text.p[p->at])))
    p->at++;
  if (bracket && p->at == from && !at_end(p))
    p->at++;
  *ret = str_slice(p->text, from, p->at);
  if (ret->len >= FILTER_WORD_MAX)
    return filter_parse_error(p, "word is too long in line %d of filter file (max = %d chars)", p->line, FILTER_WORD_MAX);
  skip_space(p);
  return true;
}

struct str filter_peek_word(struct filter_parser *p, bool bracket) {
  struct filter_parser saved = *p;
  struct str word;
  if (!filter_parse_word(p, bracket, &word))
    word = STR_EMPTY;
  *p = saved;
  return word;
}

static int digit_of(char c, int base) {
  int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
  return v < base ? v : -1;
}

static char number_escape(struct filter_parser *p, int base, int digits) {
  int v = 0, d;
  for (; digits > 0 && !at_end(p) && (d = digit_of(p->text.p[p->at], base)) >= 0; digits--, p->at++)
    v = v * base + d;
  return (char)v;
}

/* Behind a backslash. False: it continued the line, there is no byte. */
static bool escape(struct filter_parser *p, char *ret) {
  size_t i = p->at;
  while (i < p->text.len && p->text.p[i] != '\n' && ascii_is_space(p->text.p[i]))
    i++;
  if (i < p->text.len && p->text.p[i] == '\n') {
    for (; i < p->text.len && ascii_is_space(p->text.p[i]); i++)
      p->line += p->text.p[i] == '\n';
    p->at = i;
    return false;
  }
  char c = p->text.p[p->at];
  if (digit_of(c, 8) >= 0) {
    *ret = number_escape(p, 8, 3);
    return true;
  }
  p->at++;
  if (c == 'x')
    *ret = number_escape(p, 16, 2);
  else
    *ret = c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
  return true;
}

static bool quoted(struct filter_parser *p, struct str *ret) {
  struct buf b;
  int line = p->line;
  buf_init(&b, p->arena, FILTER_WORD_MAX);
  for (p->at++; !at_end(p) && p->text.p[p->at] != '"' && p->text.p[p->at] != '\n';) {
    char c = p->text.p[p->at++];
    if (c == '\\' && !at_end(p) && !escape(p, &c))
      continue;
    buf_add_byte(&b, c);
  }
  if (at_end(p) || p->text.p[p->at] != '"')
    return filter_parse_error(p, "quote missing at end of string in line %d", line);
  p->at++;
  if (b.overflow)
    return filter_parse_error(p, "string is too long in line %d of filter file (max = %d chars)", p->line, FILTER_WORD_MAX);
  *ret = buf_str(&b);
  skip_space(p);
  return true;
}

bool filter_parse_value(struct filter_parser *p, bool bracket, struct filter_value *ret) {
  skip_space(p);
  bool in_quotes = !at_end(p) && p->text.p[p->at] == '"';
  ret->text = STR_EMPTY;
  if (in_quotes ? !quoted(p, &ret->text) : !filter_parse_word(p, bracket, &ret->text))
    return false;
  ret->tree = expr_compile(p->arena, ret->text, NULL);
  return true;
}

/* --- commands --- */

static bool take_word(struct filter_parser *p, const char *word) {
  struct str w;
  if (!str_eq_c(filter_peek_word(p, false), word))
    return false;
  return filter_parse_word(p, false, &w);
}

static bool argument(struct filter_parser *p, struct filter_command *cmd, const char *name) {
  if (!filter_parse_value(p, false, &cmd->value[0]))
    return false;
  return cmd->value[0].text.len || filter_parse_error(p, "\"%s\" requires an argument near line %d of filter file", name, p->line);
}

/* An octal number may follow a file's name. */
static bool mode(struct filter_parser *p, struct filter_command *cmd) {
  struct str w = filter_peek_word(p, false);
  cmd->mode = -1;
  if (!w.len || !ascii_is_digit(w.p[0]))
    return true;
  if (!filter_parse_word(p, false, &w))
    return false;
  cmd->mode = 0;
  for (uint32_t i = 0; i < w.len && i < 6 && w.p[i] >= '0' && w.p[i] <= '7'; i++)
    cmd->mode = cmd->mode * 8 + (w.p[i] - '0');
  return true;
}

static bool parse_add(struct filter_parser *p, struct filter_command *cmd) {
  if (!argument(p, cmd, "add"))
    return false;
  if (!take_word(p, "to"))
    return filter_parse_error(p, "\"to\" expected in \"add\" command near line %d of filter file", p->line);
  if (!filter_parse_value(p, false, &cmd->value[1]))
    return false;
  return cmd->value[1].text.len || filter_parse_error(p, "value missing after \"to\" near line %d of filter file", p->line);
}

static bool parse_headers(struct filter_parser *p, struct filter_command *cmd) {
  struct str w;
  if (!filter_parse_word(p, false, &w))
    return false;
  if (!w.len)
    return filter_parse_error(p, "\"headers\" requires an argument near line %d of filter file", p->line);
  cmd->headers = str_eq_c(w, "charset") ? 'c' : str_eq_c(w, "add") ? 'a' : str_eq_c(w, "remove") ? 'r' : 0;
  if (cmd->headers != 'c' && !p->rules->system)
    return filter_parse_error(p, "header addition and removal is available only in system filters: near line %d of filter file", p->line);
  if (!cmd->headers)
    return filter_parse_error(p, "\"add\", \"remove\", or \"charset\" expected after \"headers\" near line %d of filter file", p->line);
  if (!filter_parse_value(p, false, &cmd->value[0]))
    return false;
  return cmd->value[0].text.len ||
         filter_parse_error(p, "value missing after \"add\", \"remove\", or \"charset\" near line %d of filter file", p->line);
}

/* defer, fail, freeze: [text] value; without the word the value has to be in quotes. */
static bool parse_end(struct filter_parser *p, struct filter_command *cmd, const char *name) {
  bool allowed = cmd->kind == COMMAND_DEFER ? p->rules->allow_defer : cmd->kind == COMMAND_FAIL ? p->rules->allow_fail : p->rules->allow_freeze;
  if (!allowed && !p->rules->system)
    return filter_parse_error(p, "filtering command \"%s\" is disabled: near line %d of filter file", name, p->line);
  cmd->value[0].text = STR_EMPTY;
  cmd->value[0].tree = expr_compile(p->arena, STR_EMPTY, NULL);
  skip_space(p);
  if (take_word(p, "text") || (!at_end(p) && p->text.p[p->at] == '"'))
    return filter_parse_value(p, false, &cmd->value[0]);
  return true;
}

static void set_default(struct filter_parser *p, struct filter_command *cmd, int which, const char *text) {
  if (str_is_set(cmd->mail[which].text))
    return;
  cmd->mail[which].text = str_c(text);
  cmd->mail[which].tree = expr_compile(p->arena, str_c(text), NULL);
}

static bool parse_mail(struct filter_parser *p, struct filter_command *cmd) {
  cmd->mail = arena_array(p->arena, struct filter_value, MAIL_ARGS);
  for (;;) {
    struct str w = filter_peek_word(p, false), skipped;
    int which = 0;
    if (str_eq_c(w, "return")) {
      if (!filter_parse_word(p, false, &skipped) || !take_word(p, "message"))
        return filter_parse_error(p, "\"return\" not followed by \"message\"  near line %d of filter file", p->line);
      cmd->return_message = true;
      continue;
    }
    if (str_eq_c(w, "expand")) {
      if (!filter_parse_word(p, false, &skipped) || !str_eq_c(filter_peek_word(p, false), "file"))
        return filter_parse_error(p, "\"expand\" not followed by \"file\"  near line %d of filter file", p->line);
      cmd->expand_file = true;
      continue;
    }
    while (which < MAIL_ARGS && !str_eq_c(w, filter_mail_words[which]))
      which++;
    if (which == MAIL_ARGS)
      break;
    if (!filter_parse_word(p, false, &skipped) || !filter_parse_value(p, false, &cmd->mail[which]))
      return false;
  }
  if (cmd->kind != COMMAND_VACATION)
    return true;
  cmd->expand_file |= !str_is_set(cmd->mail[MAIL_FILE].text);
  set_default(p, cmd, MAIL_FILE, ".vacation.msg");
  set_default(p, cmd, MAIL_LOG, ".vacation.log");
  set_default(p, cmd, MAIL_ONCE, ".vacation");
  set_default(p, cmd, MAIL_ONCE_REPEAT, "7d");
  set_default(p, cmd, MAIL_SUBJECT, "On vacation");
  return true;
}

static bool commands(struct filter_parser *p, bool nested, struct filter_command **ret);

/* if and elif, behind the word. An elif is an if inside of the else, which the same endif closes. */
static bool parse_if(struct filter_parser *p, struct filter_command *cmd) {
  struct str w;
  if (++p->depth > FILTER_DEPTH_MAX)
    return filter_parse_error(p, "commands are nested too deeply near line %d of filter file", p->line);
  if (!filter_parse_condition(p, &cmd->test) || !commands(p, true, &cmd->then) || !filter_parse_word(p, false, &w))
    return false;
  struct filter_command **link = &cmd->otherwise;
  while (str_eq_c(w, "elif")) {
    struct filter_command *inner = arena_new_of(p->arena, struct filter_command);
    inner->kind = COMMAND_IF;
    *link = inner;
    link = &inner->otherwise;
    if (!filter_parse_condition(p, &inner->test) || !commands(p, true, &inner->then) || !filter_parse_word(p, false, &w))
      return false;
  }
  if (str_eq_c(w, "else") && (!commands(p, true, link) || !filter_parse_word(p, false, &w)))
    return false;
  p->depth--;
  if (str_eq_c(w, "endif"))
    return true;
  return w.len ? filter_parse_error(p, "\"endif\" missing near line %d of filter file", p->line)
               : filter_parse_error(p, "\"endif\" missing at end of filter file");
}

/* A line of a log ends. */
static bool add_newline(struct filter_parser *p, struct filter_value *v) {
  if (str_ends(v->text, STR("\n")))
    return true;
  v->text = str_cat(p->arena, v->text, STR("\n"));
  v->tree = expr_compile(p->arena, v->text, NULL);
  return true;
}

static bool parse_arguments(struct filter_parser *p, struct filter_command *cmd, const char *name) {
  switch (cmd->kind) {
  case COMMAND_ADD:
    return parse_add(p, cmd);
  case COMMAND_DEFER:
  case COMMAND_FAIL:
  case COMMAND_FREEZE:
    return parse_end(p, cmd, name);
  case COMMAND_DELIVER:
    if (!argument(p, cmd, name))
      return false;
    return !take_word(p, "errors_to") || filter_parse_value(p, false, &cmd->value[1]);
  case COMMAND_FINISH:
    return true;
  case COMMAND_HEADERS:
    return parse_headers(p, cmd);
  case COMMAND_IF:
    return parse_if(p, cmd);
  case COMMAND_SAVE:
    return argument(p, cmd, name) && mode(p, cmd);
  case COMMAND_LOGFILE:
    return argument(p, cmd, name) && mode(p, cmd);
  case COMMAND_LOGWRITE:
    return argument(p, cmd, name) && add_newline(p, &cmd->value[0]);
  case COMMAND_MAIL:
  case COMMAND_VACATION:
    return parse_mail(p, cmd);
  case COMMAND_PIPE:
  case COMMAND_TESTPRINT:
    break;
  }
  return argument(p, cmd, name);
}

static const struct command_word *find_command(struct str w) {
  for (size_t i = 0; i < sizeof command_words / sizeof *command_words; i++)
    if (str_eq_c(w, command_words[i].word))
      return &command_words[i];
  return NULL;
}

/* seen, unseen and noerror in front of a command. */
static bool prefixes(struct filter_parser *p, struct filter_command *cmd, struct str *w) {
  while (str_eq_c(*w, "seen") || str_eq_c(*w, "unseen") || str_eq_c(*w, "noerror")) {
    if (w->p[0] == 'n') {
      cmd->noerror = true;
    } else {
      if (cmd->seen_given)
        return filter_parse_error(p, "\"seen\" or \"unseen\" repeated near line %d", p->line);
      cmd->seen_given = true;
      cmd->seen = w->p[0] == 's';
    }
    if (!filter_parse_word(p, false, w))
      return false;
  }
  return true;
}

static bool one_command(struct filter_parser *p, struct filter_command *cmd) {
  struct str w;
  if (!filter_parse_word(p, false, &w) || !prefixes(p, cmd, &w))
    return false;
  bool prefixed = cmd->seen_given || cmd->noerror;
  const struct command_word *known = find_command(w);
  if (!known && prefixed && (!w.len || str_eq_c(w, "elif") || str_eq_c(w, "else") || str_eq_c(w, "endif")))
    return filter_parse_error(p, "%s near line %d is not followed by a command",
        w.len || (cmd->noerror && cmd->seen_given) ? "\"seen\", \"unseen\", or \"noerror\"" : cmd->noerror ? "\"noerror\"" : "\"seen\" or \"unseen\"",
        p->line);
  if (!known)
    return filter_parse_error(p, "unknown filtering command \"%.*s\" near line %d of filter file", STRF(w), p->line);
  cmd->kind = known->kind;
  cmd->mode = -1;
  if (cmd->kind == COMMAND_IF && prefixed)
    return filter_parse_error(p, "\"seen\", \"unseen\", or \"noerror\" found before an \"if\" command near line %d", p->line);
  if (!cmd->seen_given)
    cmd->seen = cmd->kind == COMMAND_DELIVER || cmd->kind == COMMAND_SAVE || cmd->kind == COMMAND_PIPE;
  return parse_arguments(p, cmd, known->word);
}

/* Up to the end of the text, or, nested, to an elif, else or endif, which stays. */
static bool commands(struct filter_parser *p, bool nested, struct filter_command **ret) {
  for (;;) {
    struct str w = filter_peek_word(p, false);
    if (!w.len)
      return true;
    if (str_eq_c(w, "elif") || str_eq_c(w, "else") || str_eq_c(w, "endif"))
      return nested || (filter_parse_word(p, false, &w) &&
                           filter_parse_error(p, "unexpected \"%.*s\" command near line %d of filter file", STRF(w), p->line));
    struct filter_command *cmd = arena_new_of(p->arena, struct filter_command);
    if (!one_command(p, cmd))
      return false;
    *ret = cmd;
    ret = &cmd->next;
  }
}

struct filter_program *filter_compile(struct arena *a, struct str text, const struct filter_rules *rules) {
  struct filter_program *program = arena_new_of(a, struct filter_program);
  struct filter_parser p = {.arena = a, .text = str_untainted(str_dup(a, text)), .line = 1, .rules = rules, .error = STR_UNSET};
  if (!commands(&p, false, &program->commands) && !str_is_set(p.error))
    filter_parse_error(&p, "malformed filter file near line %d", p.line);
  program->error = p.error;
  return program;
}
