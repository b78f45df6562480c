/* Reads ACL text: the lines of `begin acl`, of an ACL file, or of an inline
ACL. A statement starts with a verb; the lines after it, up to the next verb,
are its conditions and modifiers. */
#include "acl/internal.h"
#include "base/buf.h"
#include "core/module.h"
#include "expand/expand.h"

#define STATEMENTS_MAX 10000 /* of a text known only at run time */

const char *const acl_verbs[VERB_COUNT] = {"accept", "defer", "deny", "discard", "drop", "require", "warn"};

struct parser {
  struct arena *arena;
  struct config_reader *reader; /* NULL: text at run time */
  struct acl *acl;
  struct acl_statement *statement, **statement_tail;
  struct acl_clause **clause_tail;
  uint32_t line, statements;
  struct str error;
};

static int parse_error(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int parse_error(struct parser *p, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  p->error = str_vprintf(p->arena, fmt, ap);
  va_end(ap);
  return OUTCOME_ERROR;
}

const struct acl_condition_def *acl_find_condition(struct str name) {
  for (const struct acl_condition_def *d = acl_core_conditions; d->name; d++)
    if (str_ieq_c(name, d->name))
      return d;
  for (size_t i = 0; modules[i]; i++)
    for (const struct acl_condition_def *d = modules[i]->acl_conditions; d && d->name; d++)
      if (str_ieq_c(name, d->name))
        return d;
  return NULL;
}

const struct acl_modifier_def *acl_find_modifier(struct str name) {
  for (const struct acl_modifier_def *d = acl_core_modifiers; d->name; d++)
    if (str_ieq_c(name, d->name))
      return d;
  for (size_t i = 0; modules[i]; i++)
    for (const struct acl_modifier_def *d = modules[i]->acl_modifiers; d && d->name; d++)
      if (str_ieq_c(name, d->name))
        return d;
  return NULL;
}

static bool is_word_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static struct str cut_word(struct str *rest) {
  size_t n = 0;
  while (n < rest->len && is_word_byte(rest->p[n]))
    n++;
  struct str word = str_slice(*rest, 0, n);
  *rest = str_ltrim(str_from(*rest, n));
  return word;
}

/* `whole`: what the errors show. */
static int variable_name(struct arena *a, struct str name, struct str whole, bool *ret_connection, struct str *ret_error) {
  if (name.len < 5 || (!str_starts(name, STR("acl_c")) && !str_starts(name, STR("acl_m")))) {
    *ret_error = str_printf(a, "invalid variable name after \"set\" in ACL modifier \"set %.*s\" (must start \"acl_c\" or \"acl_m\")",
        STRF(whole));
    return OUTCOME_ERROR;
  }
  if (name.len < 6 || !(name.p[5] == '_' || (name.p[5] >= '0' && name.p[5] <= '9'))) {
    *ret_error = str_printf(a, "invalid variable name after \"set\" in ACL modifier \"set %.*s\" (digit or underscore must follow"
                               " acl_c or acl_m)", STRF(whole));
    return OUTCOME_ERROR;
  }
  for (size_t i = 5; i < name.len; i++)
    if (!is_word_byte(name.p[i])) {
      *ret_error = str_printf(a, "invalid character \"%c\" in variable name in ACL modifier \"set %.*s\"", name.p[i], STRF(whole));
      return OUTCOME_ERROR;
    }
  *ret_connection = name.p[4] == 'c';
  return 0;
}

int acl_variable_name(struct arena *a, struct str name, bool *ret_connection, struct str *ret_error) {
  return variable_name(a, name, name, ret_connection, ret_error);
}

/* `set acl_m1 = value`: text is what follows the word `set`. */
static int parse_set(struct parser *p, struct acl_clause *clause, struct str *text) {
  size_t n = 0;
  while (n < text->len && text->p[n] != '=' && text->p[n] != ' ' && text->p[n] != '\t')
    n++;
  struct str name = str_slice(*text, 0, n), whole = *text;
  *text = str_ltrim(str_from(*text, n));
  bool connection;
  if (variable_settable(name) == NULL && variable_name(p->arena, name, whole, &connection, &p->error) < 0)
    return OUTCOME_ERROR;
  clause->variable = str_dup(p->arena, name);
  return 0;
}

/* Texts at run time go to a log line: nothing is suggested there. */
static struct str suggestion(struct parser *p, struct str word, bool conditions, bool verbs) {
  return p->reader ? acl_suggest_word(p->arena, word, conditions, verbs) : STR_EMPTY;
}

/* `whole` is the line; `text` is the clause in it, which begins at its start or behind a verb. */
static int parse_clause(struct parser *p, struct str whole, struct str text, bool negated) {
  bool starts_line = text.p == whole.p;
  struct str rest = text, word = cut_word(&rest);
  struct acl_clause *clause = arena_new_of(p->arena, struct acl_clause);
  clause->negated = negated;
  clause->condition = acl_find_condition(word);
  if (!clause->condition)
    clause->modifier = acl_find_modifier(word);
  if (!clause->condition && !clause->modifier)
    return parse_error(p, "unknown ACL condition/modifier in \"%.*s\"%.*s", STRF(whole),
        STRF(suggestion(p, word, true, !negated && starts_line && (rest.len == 0 || rest.p[0] != '='))));
  const char *name = clause->condition ? clause->condition->name : clause->modifier->name;
  unsigned flags = clause->condition ? clause->condition->flags : clause->modifier->flags;
  if (negated && clause->modifier)
    return parse_error(p, "ACL error: negation is not allowed with \"%s\"", name);
  if (flags & ACL_LATER)
    return parse_error(p, "ACL %s \"%s\" is not supported yet", clause->condition ? "condition" : "modifier", name);
  enum acl_verb verb = p->statement->verb;
  if (clause->modifier == acl_modifier_endpass) {
    if (verb != VERB_ACCEPT && verb != VERB_DISCARD)
      return parse_error(p, "ACL error: \"%s\" is not allowed with \"%s\"", name, acl_verbs[verb]);
  } else {
    if (str_eq_c(word, "set") && parse_set(p, clause, &rest) < 0)
      return OUTCOME_ERROR;
    if (rest.len == 0 || rest.p[0] != '=')
      return parse_error(p, "\"=\" missing after ACL \"%s\" %s", name, clause->condition ? "condition" : "modifier");
    rest = str_ltrim(str_from(rest, 1));
  }
  clause->arg.text = str_dup(p->arena, rest);
  struct str error = STR_UNSET;
  clause->arg.tree = expr_compile(p->arena, clause->arg.text, &error);
  if (p->reader) {
    clause->arg.where = config_reader_where(p->reader);
    if (str_is_set(error))
      config_warning(p->reader, "in ACL %s \"%s\": %.*s", clause->condition ? "condition" : "modifier", name, STRF(error));
    int (*check)(struct config_reader *, struct acl_clause *) = clause->condition ? clause->condition->check
                                                                                  : clause->modifier->check;
    if (check && check(p->reader, clause) < 0)
      return OUTCOME_FAIL; /* already reported */
  }
  *p->clause_tail = clause;
  p->clause_tail = &clause->next;
  return 0;
}

static int parse_line(struct parser *p, struct str line) {
  struct str text = str_trim(line), rest = text;
  bool negated = false;
  if (rest.len > 0 && rest.p[0] == '!') {
    negated = true;
    rest = str_ltrim(str_from(rest, 1));
  }
  struct str after = rest, word = cut_word(&after);
  if (word.len == 0 || (negated && !p->statement))
    return parse_error(p, "malformed ACL line \"%.*s\"", STRF(text));
  if (!negated && (after.len == 0 || after.p[0] != '=')) {
    for (int v = 0; v < VERB_COUNT; v++) {
      if (!str_eq_c(word, acl_verbs[v]))
        continue;
      if (!p->reader && ++p->statements > STATEMENTS_MAX)
        return parse_error(p, "ACL is too long");
      struct acl_statement *s = arena_new_of(p->arena, struct acl_statement);
      s->verb = v;
      s->line = p->line;
      if (p->reader)
        s->where = config_reader_where(p->reader);
      *p->statement_tail = s;
      p->statement_tail = &s->next;
      p->statement = s;
      p->clause_tail = &s->clauses;
      if (after.len == 0)
        return 0;
      bool inner = after.p[0] == '!';
      return parse_clause(p, text, inner ? str_ltrim(str_from(after, 1)) : after, inner);
    }
  }
  if (!p->statement)
    return parse_error(p, "unknown ACL verb \"%.*s\" in \"%.*s\"%.*s", STRF(word), STRF(text),
        STRF(suggestion(p, word, false, true)));
  return parse_clause(p, text, rest, negated);
}

static void parser_init(struct parser *p, struct arena *a, struct config_reader *r, struct str name, struct str source) {
  *p = (struct parser){.arena = a, .reader = r};
  p->acl = arena_new_of(a, struct acl);
  p->acl->name = str_dup(a, name);
  p->acl->source = str_dup(a, source);
  p->statement_tail = &p->acl->first;
}

/* One logical line of text: comments and blank lines skipped, `\` at the end continues. */
static bool next_line(struct arena *a, struct str *rest, struct str *ret, uint32_t *line) {
  struct buf b;
  buf_init(&b, a, BUF_MAX_EXPANSION);
  bool continued = false;
  while (rest->len > 0) {
    struct str one = str_cut(rest, '\n');
    if (!str_is_set(*rest))
      *rest = STR_EMPTY;
    ++*line;
    struct str trimmed = str_trim(one);
    if (trimmed.len > 0 && trimmed.p[0] == '#')
      continue;
    if (trimmed.len == 0 && !continued)
      continue;
    bool more = trimmed.len > 0 && trimmed.p[trimmed.len - 1] == '\\';
    buf_add(&b, more ? str_slice(trimmed, 0, trimmed.len - 1) : trimmed);
    continued = more;
    if (!more)
      break;
  }
  *ret = buf_str(&b);
  return ret->len > 0;
}

int acl_parse(struct arena *a, struct str text, struct str source, struct acl **ret, struct str *ret_error) {
  struct parser p;
  parser_init(&p, a, NULL, STR_EMPTY, source);
  struct str rest = text, line;
  while (next_line(a, &rest, &line, &p.line))
    if (parse_line(&p, line) < 0) {
      *ret_error = p.error;
      return OUTCOME_ERROR;
    }
  *ret = p.acl;
  return 0;
}

/* --- the section `begin acl` --- */

struct section {
  struct parser parser;
  bool named;
};

static struct section *section_state(struct config_reader *r) {
  struct config *c = config_reader_config(r);
  struct section *s = config_section_data(c, &acl_module);
  if (!s) {
    s = arena_new_of(config_reader_arena(r), struct section);
    config_set_section_data(c, &acl_module, s);
  }
  return s;
}

/* "name:" and nothing behind it. */
static bool is_name_line(struct str line) {
  size_t n = 0;
  while (n < line.len && (is_word_byte(line.p[n]) || line.p[n] == '-'))
    n++;
  return n > 0 && n + 1 == line.len && line.p[n] == ':';
}

static int section_line(struct config_reader *r, struct str line) {
  struct section *s = section_state(r);
  struct config *c = config_reader_config(r);
  struct arena *a = config_reader_arena(r);
  line = str_trim(line);
  if (is_name_line(line)) {
    struct str name = str_slice(line, 0, line.len - 1);
    if (!c->acls)
      c->acls = map_new(a);
    if (map_has(c->acls, name))
      return config_error(r, "there are two ACLs called \"%.*s\"", STRF(name));
    struct str file = STR_EMPTY;
    struct config_where w = config_reader_where(r);
    if (w.file < c->files.n)
      file = c->files.v[w.file];
    parser_init(&s->parser, a, r, name, file);
    s->named = true;
    map_set(c->acls, s->parser.acl->name, s->parser.acl);
    return 0;
  }
  if (!s->named)
    return config_error(r, "missing or malformed ACL name");
  s->parser.reader = r;
  s->parser.line = config_reader_where(r).line;
  int rc = parse_line(&s->parser, line);
  if (rc == OUTCOME_ERROR)
    return config_error(r, "error in ACL: %.*s", STRF(s->parser.error));
  return rc < 0 ? OUTCOME_ERROR : 0;
}

extern const struct config_section_def acl_sections[];
const struct config_section_def acl_sections[] = {{.name = "acl", .line = section_line}, {0}};
