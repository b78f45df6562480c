/* Reading rewriting rules: the section `begin rewrite`, and headers_rewrite of transports. */
#include "message/rewrite_rules.h"

#include "base/map.h"
#include "config/value.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/rewrite.h"

#define RULES_MAX 10000

static const struct {
  char letter;
  unsigned flags;
} letters[] = {
  {'E', REWRITE_ENVELOPE}, {'F', REWRITE_ENV_FROM}, {'T', REWRITE_ENV_TO}, {'Q', REWRITE_QUALIFY},
  {'R', REWRITE_REPEAT}, {'S', REWRITE_SMTP}, {'b', REWRITE_BCC}, {'c', REWRITE_CC}, {'f', REWRITE_FROM},
  {'h', REWRITE_HEADERS}, {'q', REWRITE_QUIT}, {'r', REWRITE_REPLY_TO}, {'s', REWRITE_SENDER}, {'t', REWRITE_TO},
  {'w', REWRITE_WHOLE},
};

/* A word up to white space, or a quoted string. */
static bool cut_word(struct arena *a, struct str *rest, struct str *ret) {
  *rest = str_ltrim(*rest);
  if (!rest->len)
    return false;
  if (rest->p[0] == '"') {
    struct str behind;
    enum value_result r = value_unquote(a, *rest, ret, &behind);
    *rest = r == VALUE_BAD ? str_from(*rest, rest->len) : behind;
    return r != VALUE_BAD;
  }
  uint32_t n = 0;
  while (n < rest->len && rest->p[n] != ' ' && rest->p[n] != '\t')
    n++;
  *ret = str_slice(*rest, 0, n);
  *rest = str_from(*rest, n);
  return true;
}

static int parse_flags(struct arena *a, struct str text, unsigned *ret, struct str *ret_error) {
  for (uint32_t i = 0; i < text.len; i++) {
    if (text.p[i] == ' ' || text.p[i] == '\t')
      continue;
    size_t k = 0, n = sizeof letters / sizeof *letters;
    while (k < n && letters[k].letter != text.p[i])
      k++;
    if (k == n) {
      *ret_error = str_printf(a, "unknown rewrite flag character '%c' (could be missing quotes round replacement item)",
        text.p[i]);
      return OUTCOME_ERROR;
    }
    *ret |= letters[k].flags;
  }
  return 0;
}

static void set_expr(struct arena *a, struct option_expr *e, struct str text) {
  e->text = str_dup(a, text);
  e->tree = expr_compile(a, e->text, NULL);
}

int rewrite_parse_rule(struct arena *a, struct str line, bool transport, struct rewrite_rule *ret,
    struct str *ret_error) {
  struct str pattern, replacement, rest = line;
  unsigned flags = 0;
  if (!cut_word(a, &rest, &pattern) || !cut_word(a, &rest, &replacement)) {
    *ret_error = STR("missing rewrite replacement string");
    return OUTCOME_ERROR;
  }
  if (parse_flags(a, rest, &flags, ret_error))
    return OUTCOME_ERROR;
  if (transport && (flags & (REWRITE_ENVELOPE | REWRITE_SMTP))) {
    *ret_error = STR("rewrite rule specifies a non-header rewrite - not allowed at transport time -");
    return OUTCOME_ERROR;
  }
  if (!(flags & (REWRITE_HEADERS | REWRITE_ENVELOPE | REWRITE_SMTP)))
    flags |= transport ? REWRITE_HEADERS : REWRITE_HEADERS | REWRITE_ENVELOPE;
  if ((flags & REWRITE_SMTP) && !str_starts(pattern, STR("^")) && !str_starts(pattern, STR("\\N^"))) {
    *ret_error = STR("rewrite rule has the S flag but is not a regular expression");
    return OUTCOME_ERROR;
  }
  *ret = (struct rewrite_rule){.flags = flags};
  set_expr(a, &ret->pattern, pattern);
  set_expr(a, &ret->replacement, replacement);
  return 0;
}

struct reading {
  struct rewrite_rules rules; /* first: what rewrite_rules() gives back */
  VEC(struct rewrite_rule) v;
};

static int read_line(struct config_reader *r, struct str line) {
  struct config *c = config_reader_config(r);
  struct arena *a = config_reader_arena(r);
  struct reading *s = config_section_data(c, &rewrite_module);
  if (!s) {
    s = arena_new_of(a, struct reading);
    config_set_section_data(c, &rewrite_module, s);
  }
  struct rewrite_rule rule;
  struct str error;
  if (rewrite_parse_rule(a, line, false, &rule, &error))
    return config_error(r, "%.*s", STRF(error));
  if (s->v.n >= RULES_MAX)
    return config_error(r, "too many rewrite rules");
  vec_push(a, &s->v, rule);
  s->rules = (struct rewrite_rules){s->v.v, s->v.n, s->rules.flags | rule.flags};
  return 0;
}

const struct rewrite_rules *rewrite_rules(const struct config *c) {
  struct reading *s = config_section_data(c, &rewrite_module);
  return s ? &s->rules : NULL;
}

/* --- headers_rewrite --- */

static int parse_list(struct arena *a, struct str text, struct rewrite_rules *ret, struct str *ret_error) {
  VEC(struct rewrite_rule) v = {0};
  struct list_iter iter;
  struct str item;
  list_iter_init(&iter, a, text);
  *ret = (struct rewrite_rules){0};
  while (list_next(&iter, &item)) {
    struct rewrite_rule rule;
    if (!item.len)
      continue;
    if (rewrite_parse_rule(a, item, true, &rule, ret_error))
      return OUTCOME_ERROR;
    vec_push(a, &v, rule);
    *ret = (struct rewrite_rules){v.v, v.n, ret->flags | rule.flags};
  }
  return 0;
}

int rewrite_check_option(struct config_reader *r, struct config_where where, struct str text) {
  struct rewrite_rules rules;
  struct str error;
  if (parse_list(config_reader_arena(r), text, &rules, &error))
    return config_error_at(r, where, "%.*s", STRF(error));
  return 0;
}

const struct rewrite_rules *rewrite_rules_of_option(struct ctx *c, struct str text) {
  /* Texts come from the configuration: they are few. */
  static struct arena *a;
  static struct map *known;
  if (!text.len)
    return NULL;
  if (!a) {
    a = arena_new("headers_rewrite");
    known = map_new(a);
  }
  struct rewrite_rules *rules = map_get(known, text);
  if (!rules) {
    struct str error;
    rules = arena_new_of(a, struct rewrite_rules);
    if (parse_list(a, str_dup(a, text), rules, &error)) {
      log_write(LOG_MAIN | LOG_PANIC, c->message, "headers_rewrite: %.*s", STRF(error));
      *rules = (struct rewrite_rules){0};
    }
    map_set(known, text, rules);
  }
  return rules->n ? rules : NULL;
}

static const struct config_section_def sections[] = {{"rewrite", read_line, NULL}, {0}};

const struct module rewrite_module = {
  .name = "rewrite",
  .summary = "address rewriting",
  .sections = sections,
};
