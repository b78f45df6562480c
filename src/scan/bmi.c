#include "scan/bmi.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/encode.h"
#include "expand/json.h"

#define TEXT_MAX (16u << 20)
#define RULES_MAX 4096
#define LOCATION_MAX 4096
#define SYMBOLS_MAX 1000

static const char *const actions[] = {"deliver", "alternate", "drop"};

const char *bmi_action_name(enum bmi_action action) { return actions[action]; }

static bool read_action(struct str word, enum bmi_action *ret) {
  for (int i = BMI_DELIVER; i <= BMI_DROP; i++)
    if (str_eq_c(word, actions[i])) {
      *ret = (enum bmi_action)i;
      return true;
    }
  return false;
}

bool bmi_rules_valid(struct str list, struct str *ret_bad) {
  while (str_is_set(list)) {
    uint64_t n;
    struct str item = str_trim(str_cut(&list, ':'));
    if (item.len > 0 && !str_to_u64(item, &n)) {
      *ret_bad = item;
      return false;
    }
  }
  return true;
}

/* "5,8" to "5:8". */
static bool read_rules(struct arena *a, struct str text, struct str *ret) {
  struct buf b;
  buf_init(&b, a, RULES_MAX);
  while (str_is_set(text) && text.len > 0) {
    uint64_t n;
    if (!str_to_u64(str_cut(&text, ','), &n))
      return false;
    buf_printf(&b, "%s%llu", b.len ? ":" : "", (unsigned long long)n);
  }
  *ret = buf_str(&b);
  return !b.overflow;
}

static bool is_base64(struct arena *a, struct str text) {
  struct str bytes;
  return text.len == 0 || base64_decode(a, text, false, &bytes);
}

/* A location may become header lines: it is text without zeros and CR. */
static bool read_location(struct arena *a, struct str text, struct str *ret) {
  *ret = STR_EMPTY;
  if (text.len == 0)
    return true;
  return base64_decode(a, text, false, ret) && ret->len <= LOCATION_MAX && !memchr(ret->p, '\0', ret->len) && !memchr(ret->p, '\r', ret->len);
}

/* name=value after the action. */
static bool read_property(struct arena *a, struct str word, struct bmi_verdict *v) {
  struct str value = word, name = str_cut(&value, '=');
  if (!str_is_set(value))
    return false;
  if (str_eq_c(name, "rules"))
    return read_rules(a, value, &v->rules);
  if (str_eq_c(name, "loc"))
    return read_location(a, value, &v->location);
  if (str_eq_c(name, "verdict"))
    return v->verdict = value, is_base64(a, value);
  if (str_eq_c(name, "tracker"))
    return v->tracker = value, is_base64(a, value);
  return false;
}

static bool read_verdict(struct arena *a, struct str line, const struct str *recipients, size_t n, struct bmi_set *ret) {
  struct bmi_verdict v = {.rules = STR_EMPTY, .location = STR_EMPTY, .verdict = STR_EMPTY, .tracker = STR_EMPTY};
  struct str rest = line, indices = str_cut(&rest, ' ');
  if (!str_is_set(rest) || ret->v.n == BMI_VERDICTS_MAX || !read_action(str_cut(&rest, ' '), &v.action))
    return false;
  while (str_is_set(rest)) {
    struct str word = str_cut(&rest, ' ');
    if (word.len > 0 && !read_property(a, word, &v))
      return false;
  }
  while (str_is_set(indices)) {
    uint64_t i;
    if (!str_to_u64(str_cut(&indices, ','), &i) || i == 0 || i > n || ret->recipients.n == n)
      return false;
    vec_push(a, &ret->recipients, ((struct bmi_recipient){recipients[i - 1], ret->v.n}));
  }
  vec_push(a, &ret->v, v);
  return true;
}

bool bmi_read_answer(struct arena *a, struct str text, const struct str *recipients, size_t n, struct bmi_set *ret) {
  struct str rest = text;
  *ret = (struct bmi_set){0};
  while (str_is_set(rest)) {
    struct str line = str_rtrim(str_cut(&rest, '\n'));
    if (str_eq_c(line, "DONE"))
      return !str_is_set(rest) || str_trim(rest).len == 0;
    if (!str_starts(line, STR("VERDICT ")) || !read_verdict(a, str_from(line, 8), recipients, n, ret))
      return false;
  }
  return false;
}

/* ---- Rspamd ---- */

static bool rspamd_action(struct str action, enum bmi_action *ret) {
  static const struct {
    const char *name;
    enum bmi_action action;
  } table[] = {{"no action", BMI_DELIVER}, {"greylist", BMI_DELIVER}, {"soft reject", BMI_DELIVER}, {"add header", BMI_ALTERNATE},
    {"rewrite subject", BMI_ALTERNATE}, {"quarantine", BMI_ALTERNATE}, {"reject", BMI_DROP}, {"discard", BMI_DROP}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (str_eq_c(action, table[i].name)) {
      *ret = table[i].action;
      return true;
    }
  return false;
}

/* Names of symbols, "A,B". */
static bool rspamd_symbols(struct str object, struct buf *out) {
  struct str inside, element, name, value, text;
  if (json_unwrap(object, '{', &inside) != 0)
    return false;
  for (int i = 0; i < SYMBOLS_MAX && json_next(&inside, &element); i++) {
    if (json_member(element, &name, &value) != NULL)
      return false;
    if (!json_unquote(name, &text))
      text = name;
    buf_printf(out, "%s%.*s", out->len ? "," : "", STRF(text));
  }
  return true;
}

bool bmi_read_rspamd(struct arena *a, struct str json, const struct str *recipients, size_t n, struct bmi_set *ret) {
  struct bmi_verdict v = {.rules = STR_EMPTY, .location = STR_EMPTY};
  struct str inside, element, name, value, text, action = STR_UNSET;
  struct buf verdict, symbols;
  buf_init(&verdict, a, TEXT_MAX);
  buf_init(&symbols, a, TEXT_MAX);
  if (json_unwrap(json, '{', &inside) != 0 || ret->v.n == BMI_VERDICTS_MAX)
    return false;
  while (json_next(&inside, &element)) {
    if (json_member(element, &name, &value) != NULL)
      return false;
    if (json_unquote(name, &text))
      name = text;
    value = str_trim(value);
    if (str_eq_c(name, "action") && !json_unquote(value, &action))
      return false;
    if (str_eq_c(name, "symbols") && !rspamd_symbols(value, &symbols))
      return false;
    if (str_eq_c(name, "score") || str_eq_c(name, "required_score"))
      buf_printf(&verdict, " %.*s=%.*s", STRF(name), STRF(value));
  }
  if (!str_is_set(action) || !rspamd_action(action, &v.action) || verdict.overflow || symbols.overflow)
    return false;
  if (v.action == BMI_ALTERNATE)
    v.location = str_printf(a, "X-Rspamd-Action: %.*s", STRF(action));
  v.verdict = base64_encode(a, str_printf(a, "action=%.*s%.*s", STRF(action), STRF(buf_str(&verdict))));
  v.tracker = base64_encode(a, buf_str(&symbols));
  for (size_t i = 0; i < n; i++)
    vec_push(a, &ret->recipients, ((struct bmi_recipient){recipients[i], ret->v.n}));
  vec_push(a, &ret->v, v);
  return true;
}

/* ---- in the spool ---- */

/* Lines "V action rules location verdict tracker" with "-" for nothing, then "R number address". */
static struct str word_of(struct str s) { return s.len ? s : STR("-"); }

struct str bmi_encode(struct arena *a, const struct bmi_set *s) {
  struct buf b;
  buf_init(&b, a, TEXT_MAX);
  for (size_t i = 0; i < s->v.n; i++) {
    const struct bmi_verdict *v = &s->v.v[i];
    buf_printf(&b, "V %s %.*s %.*s %.*s %.*s\n", actions[v->action], STRF(word_of(v->rules)), STRF(word_of(base64_encode(a, v->location))),
        STRF(word_of(v->verdict)), STRF(word_of(v->tracker)));
  }
  for (size_t i = 0; i < s->recipients.n; i++)
    buf_printf(&b, "R %zu %.*s\n", s->recipients.v[i].verdict, STRF(s->recipients.v[i].address));
  return base64_encode(a, buf_str(&b));
}

static struct str next_word(struct str *rest) {
  struct str w = str_is_set(*rest) ? str_cut(rest, ' ') : STR_EMPTY;
  return str_eq_c(w, "-") ? STR_EMPTY : w;
}

static bool decode_line(struct arena *a, struct str line, struct bmi_set *ret) {
  struct str rest = line, kind = str_cut(&rest, ' ');
  uint64_t n;
  if (str_eq_c(kind, "R")) {
    if (!str_is_set(rest) || !str_to_u64(str_cut(&rest, ' '), &n) || n >= ret->v.n || !str_is_set(rest))
      return false;
    vec_push(a, &ret->recipients, ((struct bmi_recipient){rest, (size_t)n}));
    return true;
  }
  struct bmi_verdict v = {.action = BMI_DELIVER};
  struct str bad;
  if (!str_eq_c(kind, "V") || ret->v.n == BMI_VERDICTS_MAX || !read_action(next_word(&rest), &v.action))
    return false;
  v.rules = next_word(&rest);
  if (!bmi_rules_valid(v.rules, &bad) || !read_location(a, next_word(&rest), &v.location))
    return false;
  v.verdict = next_word(&rest);
  v.tracker = next_word(&rest);
  vec_push(a, &ret->v, v);
  return is_base64(a, v.verdict) && is_base64(a, v.tracker);
}

bool bmi_decode(struct arena *a, struct str text, struct bmi_set *ret) {
  struct str lines;
  *ret = (struct bmi_set){0};
  if (!base64_decode(a, text, false, &lines))
    return false;
  lines = str_tainted(lines);
  while (str_is_set(lines) && lines.len > 0)
    if (!decode_line(a, str_cut(&lines, '\n'), ret))
      return false;
  return true;
}

/* ---- questions ---- */

const struct bmi_verdict *bmi_find(const struct bmi_set *s, struct str address) {
  for (size_t i = 0; i < s->recipients.n; i++)
    if (str_eq(s->recipients.v[i].address, address))
      return &s->v.v[s->recipients.v[i].verdict];
  return NULL;
}

bool bmi_rule_fired(const struct bmi_verdict *v, struct str wanted) {
  while (str_is_set(wanted)) {
    uint64_t want, got;
    if (!str_to_u64(str_trim(str_cut(&wanted, ':')), &want))
      continue;
    struct str rest = v->rules;
    while (str_is_set(rest))
      if (str_to_u64(str_cut(&rest, ':'), &got) && got == want)
        return true;
  }
  return false;
}
