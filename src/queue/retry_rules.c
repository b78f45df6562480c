#include "queue/retry_rules.h"

#include <errno.h>
#include "base/ascii.h"
#include "base/time.h"
#include "config/value.h"
#include "core/module.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "queue/retry.h"

static const struct {
  const char *name;
  int basic, more;
  bool shown; /* -brt prints the name, else "*" */
} errors[] = {
  {"auth_failed", ERROR_AUTH_FAIL, 0, true},
  {"lost_connection", ERROR_SMTP_CLOSED, 0, false},
  {"lookup", ERROR_UNKNOWN_HOST, 0, false},
  {"refused_MX", ECONNREFUSED, 'M', true},
  {"refused_A", ECONNREFUSED, 'A', true},
  {"refused", ECONNREFUSED, 0, true},
  {"timeout_connect_MX", ETIMEDOUT, 'M' | RETRY_CONNECT_TIMEOUT, true},
  {"timeout_connect_A", ETIMEDOUT, 'A' | RETRY_CONNECT_TIMEOUT, true},
  {"timeout_connect", ETIMEDOUT, RETRY_CONNECT_TIMEOUT, true},
  {"timeout_MX", ETIMEDOUT, 'M', true},
  {"timeout_A", ETIMEDOUT, 'A', true},
  {"timeout", ETIMEDOUT, 0, true},
  {"timeout_dns", ETIMEDOUT, 0, false},
  {"tls_required", ERROR_TLS_REQUIRED, 0, false},
  {"quota", ERROR_QUOTA, 0, true},
};
#define ERRORS (sizeof errors / sizeof *errors)

/* --- errors --- */

/* mail_4xx, rcpt_45x, data_452. */
static int parse_4xx(struct arena *a, struct str name, int basic, int *ret_basic, int *ret_more,
    struct str *ret_error) {
  char x = ascii_lower(name.p[6]), y = ascii_lower(name.p[7]);
  int digits;
  if (x == 'x' && y == 'x')
    digits = RETRY_ANY_DIGITS;
  else if (ascii_is_digit(x) && y == 'x')
    digits = RETRY_ANY_SECOND + (x - '0') * 10;
  else if (ascii_is_digit(x) && ascii_is_digit(y))
    digits = (x - '0') * 10 + y - '0';
  else {
    *ret_error = str_printf(a, "%.*s must be followed by xx, dx, or dd, where x is literal and d is any digit",
      STRF(str_slice(name, 0, 6)));
    return OUTCOME_ERROR;
  }
  *ret_basic = basic;
  *ret_more = digits << RETRY_CODE_SHIFT;
  return 0;
}

int retry_error_parse(struct arena *a, struct str name, int *ret_basic, int *ret_more, struct str *ret_error) {
  *ret_basic = *ret_more = 0;
  if (str_eq_c(name, "*"))
    return 0;
  for (size_t i = 0; i < ERRORS; i++)
    if (str_ieq_c(name, errors[i].name)) {
      *ret_basic = errors[i].basic;
      *ret_more = errors[i].more;
      return 0;
    }
  if (str_istarts(name, STR("quota_"))) {
    int64_t t = time_parse_interval(str_from(name, 6));
    if (t < 0 || t > INT32_MAX) {
      *ret_error = STR("bad time value");
      return OUTCOME_ERROR;
    }
    *ret_basic = ERROR_QUOTA;
    *ret_more = (int)t;
    return 0;
  }
  static const struct {
    const char *prefix;
    int basic;
  } codes[] = {{"mail_4", ERROR_MAIL_4XX}, {"rcpt_4", ERROR_RCPT_4XX}, {"data_4", ERROR_DATA_4XX}};
  for (size_t i = 0; i < 3 && name.len == 8; i++)
    if (str_istarts(name, str_c(codes[i].prefix)))
      return parse_4xx(a, name, codes[i].basic, ret_basic, ret_more, ret_error);
  *ret_error = str_istarts(name, STR("timeout_"))   ? STR("\"A\", \"MX\", or \"connect\" expected after \"timeout\"")
               : str_istarts(name, STR("refused_")) ? STR("A or MX expected after \"refused\"")
                                                    : str_printf(a, "unknown or malformed retry error \"%.*s\"", STRF(name));
  return OUTCOME_ERROR;
}

static struct str error_text(struct arena *a, const struct retry_rule *r) {
  if (r->basic_errno == ERROR_QUOTA && r->more_errno)
    return str_printf(a, "quota_%.*s", STRF(time_format_interval(a, r->more_errno)));
  for (size_t i = 0; r->basic_errno && i < ERRORS; i++)
    if (errors[i].shown && errors[i].basic == r->basic_errno && errors[i].more == r->more_errno)
      return str_c(errors[i].name);
  return STR("*");
}

static bool digits_match(int rule, int digits) {
  return rule == RETRY_ANY_DIGITS || rule == digits ||
    (rule >= RETRY_ANY_SECOND && (digits % RETRY_ANY_SECOND) / 10 == (rule - RETRY_ANY_SECOND) / 10);
}

static bool error_matches(const struct retry_rule *r, int basic, int more) {
  if (r->basic_errno == 0)
    return true;
  switch (r->basic_errno) {
    case ERROR_QUOTA:
      return (basic == ERROR_QUOTA || basic == EDQUOT || basic == ENOSPC) && more >= r->more_errno;
    case ERROR_TLS_REQUIRED:
      return basic == ERROR_TLS_REQUIRED || basic == ERROR_TLS_FAILURE;
    case ERROR_MAIL_4XX:
    case ERROR_RCPT_4XX:
    case ERROR_DATA_4XX:
      return basic == r->basic_errno && digits_match(r->more_errno >> RETRY_CODE_SHIFT, more >> RETRY_CODE_SHIFT);
    case ETIMEDOUT:
    case ECONNREFUSED:
      if ((r->more_errno & RETRY_CONNECT_TIMEOUT) && !(more & RETRY_CONNECT_TIMEOUT))
        return false;
      return basic == r->basic_errno &&
        (!(r->more_errno & RETRY_HOST_MASK) || (r->more_errno & RETRY_HOST_MASK) == (more & RETRY_HOST_MASK));
    default: return basic == r->basic_errno;
  }
}

/* --- reading --- */

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
  while (n < rest->len && !ascii_is_space(rest->p[n]))
    n++;
  *ret = str_slice(*rest, 0, n);
  *rest = str_from(*rest, n);
  return true;
}

/* The next of the comma-separated arguments: up to a comma, a semicolon or white space. */
static struct str cut_arg(struct str *rest) {
  *rest = str_ltrim(*rest);
  uint32_t n = 0;
  while (n < rest->len && rest->p[n] != ',' && rest->p[n] != ';' && !ascii_is_space(rest->p[n]))
    n++;
  struct str arg = str_slice(*rest, 0, n);
  *rest = str_from(*rest, n);
  return arg;
}

static bool cut_comma(struct str *rest) {
  if (!rest->len || rest->p[0] != ',')
    return false;
  *rest = str_from(*rest, 1);
  return true;
}

static const char *parse_param(struct str *rest, struct retry_param *p) {
  struct str letter = cut_arg(rest);
  if (!cut_comma(rest))
    return "comma expected";
  p->cutoff = time_parse_interval(cut_arg(rest));
  if (!cut_comma(rest))
    return p->cutoff < 0 ? "bad time value" : "comma expected";
  if (letter.len != 1 || !strchr("FGH", ascii_upper(letter.p[0])))
    return "unknown retry rule letter";
  p->letter = ascii_upper(letter.p[0]);
  p->interval = time_parse_interval(cut_arg(rest));
  if (p->letter != 'F') {
    if (!cut_comma(rest))
      return "comma expected";
    if (value_fixed(cut_arg(rest), &p->factor) != VALUE_OK || p->factor < 1000 || p->factor > 1000000)
      return "bad parameters for retry rule";
  }
  if (p->cutoff <= 0 || p->interval <= 0)
    return "bad parameters for retry rule";
  *rest = str_ltrim(*rest);
  if (rest->len && rest->p[0] != ';')
    return "semicolon expected";
  *rest = str_ltrim(str_from(*rest, 1));
  return NULL;
}

static void set_expr(struct arena *a, struct option_expr *e, struct str text) {
  e->text = str_dup(a, text);
  e->tree = expr_compile(a, e->text, NULL);
}

/* senders=LIST, with blanks around the sign allowed. */
static const char *parse_senders(struct arena *a, struct str *rest, struct retry_rule *rule) {
  struct str text = str_ltrim(*rest), list;
  if (!str_istarts(text, STR("senders")))
    return NULL;
  text = str_ltrim(str_from(text, 7));
  if (!text.len || text.p[0] != '=')
    return "\"=\" expected after \"senders\" in retry rule";
  text = str_from(text, 1);
  if (cut_word(a, &text, &list))
    set_expr(a, &rule->senders, list);
  *rest = text;
  return NULL;
}

struct rules {
  struct retry_rule *head, **tail;
};

static int read_line(struct config_reader *r, struct str line) {
  struct arena *a = config_reader_arena(r);
  struct config *c = config_reader_config(r);
  struct retry_rule *rule = arena_new_of(a, struct retry_rule);
  struct str pattern, name, rest = line, error;
  if (!cut_word(a, &rest, &pattern))
    return config_error(r, "missing pattern in retry rule");
  set_expr(a, &rule->pattern, pattern);
  if (!cut_word(a, &rest, &name))
    return config_error(r, "missing error type in retry rule");
  if (retry_error_parse(a, name, &rule->basic_errno, &rule->more_errno, &error))
    return config_error(r, "%.*s", STRF(error));
  if (str_ieq_c(name, "timeout_dns"))
    config_warning(r, "\"timeout_dns\" is no longer available in retry rules (it has never worked) - treated as "
                      "\"timeout\"");
  const char *wrong = parse_senders(a, &rest, rule);
  VEC(struct retry_param) v = {0};
  rest = str_trim(rest);
  while (!wrong && rest.len) {
    struct retry_param p = {0};
    wrong = parse_param(&rest, &p);
    vec_push(a, &v, p);
  }
  if (wrong)
    return config_error(r, "%s", wrong);
  rule->v = v.v;
  rule->n = v.n;
  struct rules *all = config_section_data(c, &retry_module);
  if (!all) {
    all = arena_new_of(a, struct rules);
    all->tail = &all->head;
    config_set_section_data(c, &retry_module, all);
  }
  *all->tail = rule;
  all->tail = &rule->next;
  return 0;
}

/* --- finding --- */

static bool key_matches(struct ctx *c, const struct retry_rule *r, struct str key) {
  if (!key.len)
    return false;
  if (str_find_byte(key, '@') < 0)
    key = str_cat(c->arena, STR("*@"), key);
  return match_address_pattern(c, &r->pattern, key) == OUTCOME_OK;
}

const struct retry_rule *retry_rule_find(struct ctx *c, struct str key, struct str alternate, int basic_errno,
    int more_errno, struct str sender) {
  const struct rules *all = config_section_data(c->config, &retry_module);
  struct expand_vars saved = ctx_save(c);
  const struct retry_rule *r = all ? all->head : NULL;
  for (; r; r = r->next) {
    if (!error_matches(r, basic_errno, more_errno))
      continue;
    if (str_is_set(r->senders.text) &&
        (!str_is_set(sender) || match_address(c, &r->senders, sender, false, NULL) != OUTCOME_OK))
      continue;
    if (key_matches(c, r, key) || (str_is_set(alternate) && key_matches(c, r, alternate)))
      break;
  }
  ctx_restore(c, &saved);
  return r;
}

int64_t retry_rule_cutoff(const struct retry_rule *rule) {
  return rule->n ? rule->v[rule->n - 1].cutoff : 0;
}

/* --- -brt --- */

static void print_rule(struct ctx *c, const struct retry_rule *r, FILE *out) {
  struct arena *a = c->arena;
  fprintf(out, "Retry rule: %.*s  %.*s  ", STRF(r->pattern.text), STRF(error_text(a, r)));
  for (size_t i = 0; i < r->n; i++) {
    const struct retry_param *p = &r->v[i];
    fprintf(out, "%c,%.*s,%.*s", p->letter, STRF(time_format_interval(a, p->cutoff)),
      STRF(time_format_interval(a, p->interval)));
    if (p->letter == 'G')
      fprintf(out, ",%.*s", STRF(value_fixed_text(a, p->factor)));
    fputs("; ", out);
  }
  fputs("\n", out);
}

int retry_test(struct ctx *c, const struct str *words, size_t n, struct str sender, FILE *out) {
  if (n == 0) {
    fprintf(out, "-brt needs a domain or address argument\n");
    return 1;
  }
  struct str key = words[0], alternate = STR_UNSET, error;
  size_t next = 1;
  int basic = 0, more = 0;
  if (str_find_byte(key, '@') < 0 && str_find_byte(key, '.') < 0)
    fprintf(out, "Warning: \"%.*s\" contains no '@' and no '.' characters. It is being \n"
                 "treated as a one-component domain, not as a local part.\n\n", STRF(key));
  if (next < n && str_find_byte(words[next], '.') >= 0)
    alternate = words[next++];
  if (next < n && retry_error_parse(c->arena, words[next], &basic, &more, &error)) {
    fprintf(out, "%.*s\n", STRF(error));
    return 1;
  }
  const struct retry_rule *r = retry_rule_find(c, key, alternate, basic, more, sender);
  if (r)
    print_rule(c, r, out);
  else
    fprintf(out, "No retry information found\n");
  return 0;
}

static const struct config_section_def sections[] = {{"retry", read_line, NULL}, {0}};

const struct module retry_module = {
  .name = "retry",
  .summary = "retry rules",
  .sections = sections,
};
