/* Items that compute a string from strings: substr, hash, sg, tr, … */
#include "expand/items.h"

#include "base/ascii.h"
#include "base/hash.h"
#include "base/pcre.h"
#include "expand/internal.h"

/* The numbers in front of hash, length, nhash and substr. Nothing reads as 0. */
static int number_arg(struct ctx *c, const char *name, struct str text, bool positive, int64_t *ret) {
  if (str_is_tainted(text))
    return ctx_fail(c, OUTCOME_ERROR, "attempt to use tainted string '%.*s' for %s", STRF(text), name);
  struct str s = str_ltrim(text);
  size_t i = s.len > 0 && (s.p[0] == '-' || s.p[0] == '+');
  bool negative = i > 0 && s.p[0] == '-', ok = i < s.len || s.len == 0;
  int64_t v = 0;
  for (; i < s.len && ok; i++) {
    ok = ascii_is_digit(s.p[i]);
    if (ok && v <= INT32_MAX)
      v = v * 10 + (s.p[i] - '0');
  }
  if (v > INT32_MAX)
    v = INT32_MAX;
  if (!ok || (positive && negative && v != 0))
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" is not a %snumber (in \"%s\" expansion)", STRF(text),
        positive ? "positive " : "", name);
  *ret = negative ? -v : v;
  return 0;
}

void string_substr(struct str s, int64_t from, int64_t len, struct buf *out) {
  int64_t size = s.len;
  if (from < 0) {
    from += size;
    if (len < 0) {
      /* All in front of the offset. */
      len = from < 0 ? 0 : from;
      from = 0;
    } else if (from < 0) {
      len += from;
      from = 0;
    }
  } else if (len < 0) {
    len = size;
  }
  if (len > 0 && from < size)
    buf_add(out, str_slice(s, (size_t)from, (size_t)(from + len < size ? from + len : size)));
}

static unsigned char rotate(unsigned char b, unsigned n) {
  n &= 7;
  return (unsigned char)(b << n | b >> (8 - n));
}

/* Folds the rest of the string into its first `len` bytes, then shows those in an alphabet of 1 to 62 characters. */
int string_hash(struct ctx *c, struct str s, int64_t len, int64_t alphabet, struct buf *out) {
  static const char codes[] = "abcdefghijklmnopqrtsuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  if (alphabet < 0)
    alphabet = 26;
  if (alphabet > (int64_t)sizeof codes - 1)
    return ctx_fail(c, OUTCOME_ERROR, "hash count \"%lld\" too big", (long long)alphabet);
  if (len >= s.len) {
    buf_add(out, s);
    return 0;
  }
  if (alphabet == 0 || len <= 0)
    return 0;
  unsigned char *p = arena_memdup(c->arena, s.p, (size_t)len);
  for (size_t i = (size_t)len; i < s.len; i++) {
    unsigned char byte = (unsigned char)s.p[i];
    p[(i - (size_t)len) % (size_t)len] ^= rotate(byte, byte + (unsigned)i);
  }
  for (int64_t i = 0; i < len; i++)
    p[i] = (unsigned char)codes[p[i] % alphabet];
  struct str result = str_n((char *)p, (size_t)len);
  result.taint = s.taint;
  buf_add(out, result);
  return 0;
}

/* m -1: one number in 0 … n-1; else two. A range of 0 gives nothing. */
void string_nhash(struct str s, int64_t n, int64_t m, struct buf *out) {
  static const unsigned char primes[] = {3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79,
      83, 89, 97, 101, 103, 107, 109, 113};
  uint64_t total = 0;
  size_t at = 0;
  for (size_t i = 0; i < s.len; i++) {
    at = (at == 0 ? sizeof primes : at) - 1;
    total += (uint64_t)primes[at] * (unsigned char)s.p[i];
  }
  if (n <= 0 || m == 0)
    return;
  if (m < 0)
    buf_printf(out, "%llu", (unsigned long long)(total % (uint64_t)n));
  else
    buf_printf(out, "%llu/%llu", (unsigned long long)(total / (uint64_t)m % (uint64_t)n),
        (unsigned long long)(total % (uint64_t)m));
}

static int eval_measure(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  int64_t n, m = -1;
  bool substr = def->name[0] == 's';
  int rc = number_arg(c, def->name, args->value[0], def->name[0] == 'l', &n);
  if (rc == 0 && args->n > 2)
    rc = number_arg(c, def->name, args->value[1], true, &m);
  if (rc == 0 && n < 0 && !substr)
    rc = ctx_fail(
        c, OUTCOME_ERROR, "\"%.*s\" is not a positive number (in \"%s\" expansion)", STRF(args->value[0]), def->name);
  if (rc != 0)
    return rc;
  struct str s = args->value[args->n - 1];
  switch (def->name[0]) {
  case 'h':
    return string_hash(c, s, n, m, out);
  case 'l':
    buf_add(out, str_slice(s, 0, (size_t)n));
    return 0;
  case 'n':
    string_nhash(s, n, m, out);
    return 0;
  default:
    string_substr(s, n, m, out);
    return 0;
  }
}

#define SG_MAX_PAIRS CAPTURES_MAX

static void set_captures(struct ctx *c, struct str subject, const size_t *pairs, int n) {
  c->expand.captures = n < CAPTURES_MAX ? n : CAPTURES_MAX;
  for (int i = 0; i < c->expand.captures; i++) {
    bool set = pairs[2 * i] <= pairs[2 * i + 1] && pairs[2 * i] <= subject.len;
    c->expand.capture[i] = set ? str_slice(subject, pairs[2 * i], pairs[2 * i + 1]) : STR_UNSET;
  }
}

/* The replacement is expanded once more for each match: only a text without `$` and `\` may be tainted. */
static int sg_replacement(struct ctx *c, struct str text, const struct expr **ret) {
  *ret = NULL;
  if (str_find_byte(text, '$') < 0 && str_find_byte(text, '\\') < 0)
    return 0;
  if (str_is_tainted(text))
    return ctx_fail(c, OUTCOME_ERROR, "attempt to expand tainted string '%.*s'", STRF(text));
  *ret = expr_compile(c->arena, text, NULL);
  return 0;
}

int regex_limit_error(struct ctx *c, struct str pattern) {
  return ctx_fail(c, OUTCOME_ERROR, "matching takes more steps or memory than allowed for the regular expression \"%.*s\"",
      STRF(pattern));
}

static int sg_run(struct ctx *c, struct str subject, struct str pattern, struct str replacement, const struct expr *tree,
    struct buf *out) {
  struct str error;
  size_t at = 0, pairs[2 * SG_MAX_PAIRS];
  bool not_empty = false;
  while (at <= subject.len) {
    /* Asked for again each time: evaluating the replacement may suspend, and the cache may drop the pattern. */
    const struct pcre *re = pcre_get(c->arena, pattern, 0, &error);
    if (re == NULL)
      return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
    int n = pcre_match_at(re, subject, at, not_empty, pairs, SG_MAX_PAIRS);
    if (n < 0)
      return regex_limit_error(c, pattern);
    if (n <= 0 && !not_empty)
      break;
    if (n <= 0) {
      /* After an empty match nothing else matches here: one byte goes over as it is. */
      buf_add(out, str_slice(subject, at, at + 1));
      at++;
      not_empty = false;
      continue;
    }
    buf_add(out, str_slice(subject, at, pairs[0]));
    set_captures(c, subject, pairs, n);
    int rc = tree == NULL ? 0 : expand_add(c, tree, out);
    if (rc != 0)
      return rc;
    if (tree == NULL)
      buf_add(out, replacement);
    at = pairs[1];
    not_empty = pairs[0] == pairs[1];
    if (out->overflow)
      return ctx_fail(c, OUTCOME_ERROR, "expansion result is too long");
  }
  buf_add(out, str_from(subject, at));
  return 0;
}

static int eval_sg(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct expr *tree;
  struct str error;
  /* The pattern's own error comes before that of the replacement. */
  if (pcre_get(c->arena, args->value[1], 0, &error) == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
  int rc = sg_replacement(c, args->value[2], &tree);
  if (rc != 0)
    return rc;
  struct expand_scope *saved = expand_scope_begin(c);
  rc = sg_run(c, args->value[0], args->value[1], args->value[2], tree, out);
  expand_scope_end(c, saved);
  return rc;
}

static int eval_tr(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct str from = args->value[1], to = args->value[2];
  unsigned char map[256];
  for (int i = 0; i < 256; i++)
    map[i] = (unsigned char)i;
  for (size_t i = 0; i < from.len && to.len > 0; i++)
    map[(unsigned char)from.p[i]] = (unsigned char)to.p[i < to.len ? i : to.len - 1];
  struct str result = str_dup(c->arena, args->value[0]);
  for (size_t i = 0; i < result.len; i++)
    ((char *)result.p)[i] = (char)map[(unsigned char)result.p[i]];
  result.taint = str_taint_join(args->value[0].taint, to.taint);
  buf_add(out, result);
  return 0;
}

static int eval_hmac(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const char *name = str_eq_c(args->value[0], "md5") ? "md5" : str_eq_c(args->value[0], "sha1") ? "sha1" : NULL;
  if (name == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "hmac algorithm \"%.*s\" is not recognised", STRF(args->value[0]));
  buf_add(out, str_untainted(hmac_hex(c->arena, name, args->value[1], args->value[2])));
  return 0;
}

/* Doubles the separator in a text; nothing becomes a blank, so that the list keeps its item. */
static int eval_listquote(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  struct str text = args->value[1];
  char sep = args->value[0].len > 0 ? args->value[0].p[0] : '\0';
  for (size_t i = 0; i < text.len; i++) {
    if (sep != '\0' && text.p[i] == sep)
      buf_add_byte(out, sep);
    buf_add(out, str_slice(text, i, i + 1));
  }
  if (text.len == 0)
    buf_add_byte(out, ' ');
  return 0;
}

const struct expand_item_def string_items[] = {
  {"hash", 2, 3, 0, NULL, eval_measure},
  {"hmac", 3, 3, 0, NULL, eval_hmac},
  {"length", 2, 2, 0, NULL, eval_measure},
  {"listquote", 2, 2, 0, NULL, eval_listquote},
  {"nhash", 2, 3, 0, NULL, eval_measure},
  {"sg", 3, 3, 0, NULL, eval_sg},
  {"substr", 2, 3, 0, NULL, eval_measure},
  {"tr", 3, 3, 0, NULL, eval_tr},
  {0},
};
