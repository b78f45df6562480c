/* Conditions of filters evaluated, and shown (-bf -v). */

#include <stdio.h>

#include "base/pcre.h"
#include "filter/internal.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"

/* --- what -v shows --- */

static void show(FILE *f, struct arena *a, const struct filter_test *t, bool top);

/* `or` is taken from the left: ((a or b) or c) or d. */
static void show_parts(FILE *f, struct arena *a, const struct filter_test *t, size_t from, size_t to) {
  for (size_t i = from; t->kind == TEST_OR && i + 2 < to; i++)
    fputc('(', f);
  for (size_t i = from; i < to; i++) {
    if (i > from)
      fputs(t->kind == TEST_AND ? " and " : " or ", f);
    show(f, a, t->parts.v[i], t->kind == TEST_OR);
    if (t->kind == TEST_OR && i > from && i + 1 < to)
      fputc(')', f);
  }
}

static void show(FILE *f, struct arena *a, const struct filter_test *t, bool top) {
  static const char *const names[] = {[TEST_ABOVE] = "above", [TEST_BEGINS] = "begins", [TEST_BELOW] = "below", [TEST_CONTAINS] = "contains",
      [TEST_ENDS] = "ends", [TEST_IS] = "is", [TEST_MATCHES] = "matches"};
  static const char *const upper[] = {[TEST_ABOVE] = "above", [TEST_BEGINS] = "BEGINS", [TEST_BELOW] = "below", [TEST_CONTAINS] = "CONTAINS",
      [TEST_ENDS] = "ENDS", [TEST_IS] = "IS", [TEST_MATCHES] = "MATCHES"};
  static const char *const negative[] = {[TEST_ABOVE] = "not above", [TEST_BEGINS] = "does not begin", [TEST_BELOW] = "not below",
      [TEST_CONTAINS] = "does not contain", [TEST_ENDS] = "does not end", [TEST_IS] = "is not", [TEST_MATCHES] = "does not match"};
  const char *no = t->negated ? "not " : "";
  switch (t->kind) {
  case TEST_AND:
  case TEST_OR:
    if (t->negated || (!top && t->kind == TEST_OR))
      fprintf(f, "%s(", no);
    show_parts(f, a, t, 0, t->parts.n);
    if (t->negated || (!top && t->kind == TEST_OR))
      fputc(')', f);
    break;
  case TEST_DELIVERED: fprintf(f, "%sdelivered", no); break;
  case TEST_ERROR_MESSAGE: fprintf(f, "%serror_message", no); break;
  case TEST_FIRST_DELIVERY: fprintf(f, "%sfirst_delivery", no); break;
  case TEST_MANUALLY_THAWED: fprintf(f, "%smanually_thawed", no); break;
  case TEST_PERSONAL: fprintf(f, "%spersonal", no); break;
  case TEST_FORANYADDRESS:
    fprintf(f, "%sforanyaddress %.*s (", no, STRF(log_printable(a, t->left.text)));
    show(f, a, t->parts.v[0], true);
    fputc(')', f);
    break;
  default:
    fprintf(f, "%.*s %s ", STRF(log_printable(a, t->left.text)), t->negated ? negative[t->kind] : (t->caseful ? upper : names)[t->kind]);
    fprintf(f, "%.*s", STRF(log_printable(a, t->right.text)));
  }
}

static void show_result(struct filter_runner *r, const struct filter_test *t, bool top, bool yes) {
  if (!r->rules->verbose)
    return;
  fprintf(stderr, "%*s%sondition is %s: ", (int)(2 * r->level) - 1, "", top ? "C" : "Sub-c", yes ? "true" : "false");
  show(stderr, r->c->arena, t, true);
  fputs(" \n", stderr);
}

/* The result of some neighbouring terms together. */
static void show_partial(struct filter_runner *r, const struct filter_test *t, size_t from, size_t to, bool yes) {
  if (!r->rules->verbose || to - from < 2 || to - from == t->parts.n)
    return;
  fprintf(stderr, "%*sSub-condition is %s: ", (int)(2 * r->level) - 1, "", yes ? "true" : "false");
  show_parts(stderr, r->c->arena, t, from, to);
  fputs(" \n", stderr);
}

/* --- kinds --- */

static bool contains(struct str in, struct str what, bool caseful) {
  return !what.len || (caseful ? str_find(in, what) : str_ifind(in, what)) >= 0;
}

static int matches(struct filter_runner *r, const struct filter_test *t, struct str subject, struct str pattern, bool *ret) {
  struct str error, groups[CAPTURES_MAX];
  if (r->rules->verbose)
    fprintf(stderr, "%*sMatch expanded arguments:\n%*s  Subject = %.*s\n%*s  Pattern = %.*s\n", 1, "", 1, "",
        STRF(log_printable(r->c->arena, subject)), 1, "", STRF(log_printable(r->c->arena, pattern)));
  const struct pcre *p = pcre_get(r->c->arena, pattern, t->caseful ? 0 : PCRE_CASELESS, &error);
  if (!p) {
    ptrdiff_t reason = str_find(error, STR("\": ")); /* of its own, behind the pattern again */
    if (reason >= 0)
      error = str_from(error, (size_t)reason + 3);
    return filter_fail(r, "error while compiling regular expression \"%.*s\": %.*s", STRF(pattern), STRF(error));
  }
  int n = pcre_match(p, subject, groups, CAPTURES_MAX);
  if (n < 0)
    return filter_fail(r, "the regular expression \"%.*s\" takes too much work", STRF(pattern));
  *ret = n > 0;
  if (n > 0)
    captures_set(&r->c->expand, groups, n);
  return 0;
}

/* Digits and K or M, as the manual has it; a sign and blanks in front do no harm. */
static int number(struct filter_runner *r, struct str text, int64_t *ret) {
  struct str s = str_ltrim(text);
  int64_t factor = 1, v;
  char last = s.len ? s.p[s.len - 1] : 0;
  if (last == 'k' || last == 'K')
    factor = 1024;
  else if (last == 'm' || last == 'M')
    factor = 1024 * 1024;
  if (factor > 1)
    s = str_slice(s, 0, s.len - 1);
  if (!str_to_i64(s, &v) || v > INT64_MAX / factor || v < INT64_MIN / factor)
    return filter_fail(r, "malformed numerical string \"%.*s\"", STRF(text));
  *ret = v * factor;
  return 0;
}

static int compare(struct filter_runner *r, const struct filter_test *t, bool *ret) {
  struct str left, right, end;
  int64_t a, b;
  if (!filter_expand(r, &t->left, "filter file", &left) || !filter_expand(r, &t->right, "filter file", &right))
    return -1;
  switch (t->kind) {
  case TEST_ABOVE:
  case TEST_BELOW:
    if (number(r, left, &a) || number(r, right, &b))
      return -1;
    *ret = t->kind == TEST_ABOVE ? a > b : a < b;
    return 0;
  case TEST_BEGINS:
    *ret = t->caseful ? str_starts(left, right) : str_istarts(left, right);
    return 0;
  case TEST_ENDS:
    end = left.len < right.len ? left : str_from(left, left.len - right.len);
    *ret = t->caseful ? str_eq(end, right) : str_ieq(end, right);
    return 0;
  case TEST_CONTAINS:
    *ret = contains(left, right, t->caseful);
    return 0;
  case TEST_MATCHES:
    return matches(r, t, left, right, ret);
  default:
    *ret = t->caseful ? str_eq(left, right) : str_ieq(left, right);
    return 0;
  }
}

static int foranyaddress(struct filter_runner *r, const struct filter_test *t, bool *ret) {
  struct str list, error;
  *ret = false;
  if (!filter_expand(r, &t->left, "filter file", &list))
    return -1;
  struct address_walk w = {.text = list};
  while (!*ret && address_walk_next(&w)) {
    struct mail_address m;
    if (!filter_step(r))
      return -1;
    if (address_parse(r->c->arena, str_slice(list, w.from, w.to), 0, &m, &error))
      continue;
    if (r->rules->verbose)
      fprintf(stderr, "%*sExtracted address %.*s\n", (int)(2 * r->level) - 1, "", STRF(m.address));
    r->vars->this_address = m.address;
    if (filter_test(r, t->parts.v[0], false, ret))
      return -1;
  }
  return 0;
}

static int personal(struct filter_runner *r, const struct filter_test *t, bool *ret) {
  VEC(struct str) aliases = {0};
  for (size_t i = 0; i < t->aliases.n; i++) {
    struct str alias;
    if (!filter_expand(r, &t->aliases.v[i], "filter file", &alias))
      return -1;
    vec_push(r->c->arena, &aliases, alias);
  }
  *ret = filter_is_personal(r->c, aliases.v, aliases.n);
  return 0;
}

/* or: from the left, until one is true. */
static int any_of(struct filter_runner *r, const struct filter_test *t, bool *ret) {
  for (size_t i = 0; i < t->parts.n; i++) {
    if (filter_test(r, t->parts.v[i], false, ret))
      return -1;
    show_partial(r, t, 0, i + 1, *ret);
    if (*ret)
      break;
  }
  return 0;
}

static int all_of(struct filter_runner *r, const struct filter_test *t, bool *ret) {
  size_t i = 0;
  do {
    if (filter_test(r, t->parts.v[i], false, ret))
      return -1;
  } while (*ret && ++i < t->parts.n);
  for (i = i < t->parts.n - 1 ? i : t->parts.n - 1; i > 0; i--)
    show_partial(r, t, i, t->parts.n, *ret);
  return 0;
}

int filter_test(struct filter_runner *r, const struct filter_test *t, bool top, bool *ret) {
  const struct message *m = r->c->message;
  int rc = 0;
  if (!filter_step(r))
    return -1;
  switch (t->kind) {
  case TEST_AND: rc = all_of(r, t, ret); break;
  case TEST_OR: rc = any_of(r, t, ret); break;
  case TEST_DELIVERED: *ret = r->delivered; break;
  case TEST_ERROR_MESSAGE: *ret = m && !m->reverse_path.len; break;
  case TEST_FIRST_DELIVERY: *ret = !m || m->deliver_first_time; break;
  case TEST_MANUALLY_THAWED: *ret = m && m->manual_thaw; break;
  case TEST_PERSONAL: rc = personal(r, t, ret); break;
  case TEST_FORANYADDRESS: rc = foranyaddress(r, t, ret); break;
  default: rc = compare(r, t, ret);
  }
  if (rc)
    return -1;
  *ret ^= t->negated;
  show_result(r, t, top, *ret);
  return 0;
}
