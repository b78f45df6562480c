/* Tests of Sieve scripts: reading them. Words and texts of errors are Exim's. */

#include "base/ascii.h"
#include "filter/sieve.h"

static struct sieve_test *new_test(struct sieve_parser *p, enum sieve_test_kind kind) {
  struct sieve_test *t = arena_new_of(p->arena, struct sieve_test);
  t->kind = kind;
  return t;
}

/* --- tagged arguments --- */

static int take_comparator(struct sieve_parser *p, enum sieve_comparator *ret, bool *given) {
  struct str name;
  int rc = sieve_take_word(p, ":comparator");
  if (rc <= 0)
    return rc;
  if (*given)
    return sieve_error(p, "comparator already specified");
  if ((rc = sieve_take_string(p, &name)) <= 0)
    return rc ? rc : sieve_error(p, "missing comparator");
  if (str_ieq_c(name, "i;octet"))
    *ret = SIEVE_OCTET;
  else if (str_ieq_c(name, "i;ascii-casemap") || str_ieq_c(name, "en;ascii-casemap"))
    *ret = SIEVE_CASEMAP;
  else if (!str_ieq_c(name, "i;ascii-numeric"))
    return sieve_error(p, "invalid comparator");
  else if (!sieve_need(p, SIEVE_NUMERIC, "comparator-i;ascii-numeric"))
    return -1;
  else
    *ret = SIEVE_ASCII_NUMERIC;
  *given = true;
  return 1;
}

static int take_match(struct sieve_parser *p, enum sieve_match *ret, bool *given) {
  static const char *const tags[] = {[SIEVE_IS] = ":is", [SIEVE_CONTAINS] = ":contains", [SIEVE_MATCHES] = ":matches"};
  for (int i = SIEVE_IS; i <= SIEVE_MATCHES; i++) {
    int rc = sieve_take_word(p, tags[i]);
    if (rc < 0)
      return -1;
    if (!rc)
      continue;
    if (*given)
      return sieve_error(p, "match type already specified");
    *ret = (enum sieve_match)i;
    *given = true;
    return 1;
  }
  return 0;
}

static int take_part(struct sieve_parser *p, enum sieve_part *ret, bool *given) {
  static const char *const tags[] = {[SIEVE_ALL] = ":all", [SIEVE_LOCALPART] = ":localpart", [SIEVE_DOMAIN] = ":domain",
      [SIEVE_USER] = ":user", [SIEVE_DETAIL] = ":detail"};
  for (int i = SIEVE_ALL; i <= SIEVE_DETAIL; i++) {
    int rc = sieve_take_word(p, tags[i]);
    if (rc < 0)
      return -1;
    if (!rc)
      continue;
    if (i >= SIEVE_USER && !sieve_need(p, SIEVE_SUBADDRESS, "subaddress"))
      return -1;
    if (*given)
      return sieve_error(p, "address part already specified");
    *ret = (enum sieve_part)i;
    *given = true;
    return 1;
  }
  return 0;
}

/* In any order. */
static bool take_tags(struct sieve_parser *p, struct sieve_test *t, bool parts) {
  bool comparator = false, match = false, part = false;
  int rc;
  do {
    rc = take_comparator(p, &t->comparator, &comparator);
    if (!rc)
      rc = take_match(p, &t->match, &match);
    if (!rc && parts)
      rc = take_part(p, &t->part, &part);
  } while (rc > 0);
  if (!rc && t->comparator == SIEVE_ASCII_NUMERIC && t->match != SIEVE_IS)
    return sieve_fail(p, "comparator does not offer specified matchtype");
  return !rc;
}

bool sieve_need_list(struct sieve_parser *p, const char *missing, struct sieve_strings *ret) {
  int rc = sieve_take_list(p, ret);
  return rc ? rc > 0 : sieve_fail(p, "%s", missing);
}

/* --- kinds --- */

static bool valid_header(struct str name) {
  for (uint32_t i = 0; i < name.len; i++)
    if ((unsigned char)name.p[i] <= 32 || name.p[i] == 127 || name.p[i] == ':')
      return false;
  return name.len > 0;
}

/* Header fields that hold addresses (section 5.1); more than Exim takes. */
static bool address_header(struct str name) {
  static const char *const names[] = {"from", "to", "cc", "bcc", "sender", "reply-to", "resent-from", "resent-to", "resent-cc",
      "resent-bcc", "resent-sender", "resent-reply-to", "return-path", "delivered-to", "envelope-to", "x-original-to",
      "apparently-to", "errors-to", "mail-followup-to", "mail-reply-to", "disposition-notification-to", "return-receipt-to"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (str_ieq_c(name, names[i]))
      return true;
  return false;
}

static bool envelope_part(struct str name) { return str_ieq_c(name, "from") || str_ieq_c(name, "to"); }

static bool comparison(struct sieve_parser *p, struct sieve_test *t) {
  bool header = t->kind == SIEVE_TEST_HEADER, envelope = t->kind == SIEVE_TEST_ENVELOPE;
  if (envelope && !sieve_need(p, SIEVE_ENVELOPE, "envelope"))
    return false;
  if (!take_tags(p, t, !header) ||
      !sieve_need_list(p, envelope ? "envelope string list expected" : "header string list expected", &t->names) ||
      !sieve_need_list(p, "key string list expected", &t->keys))
    return false;
  for (size_t i = 0; i < t->names.n; i++)
    if (!(header ? valid_header : envelope ? envelope_part : address_header)(t->names.v[i]))
      return sieve_fail(p, envelope ? "invalid envelope string" : "invalid header field");
  return true;
}

static bool exists(struct sieve_parser *p, struct sieve_test *t) {
  if (!sieve_need_list(p, "header string list expected", &t->names))
    return false;
  for (size_t i = 0; i < t->names.n; i++)
    if (t->names.v[i].len && !valid_header(t->names.v[i]))
      return sieve_fail(p, "header string expansion failed");
  return true;
}

static bool size(struct sieve_parser *p, struct sieve_test *t) {
  int rc = sieve_take_word(p, ":over");
  t->over = rc > 0;
  if (!rc)
    rc = sieve_take_word(p, ":under");
  if (rc <= 0)
    return rc < 0 ? false : sieve_fail(p, "missing :over or :under");
  return sieve_take_number(p, &t->size);
}

static bool test_list(struct sieve_parser *p, struct sieve_test *t) {
  struct sieve_test *part;
  int rc = sieve_take_byte(p, '(');
  if (rc <= 0)
    return rc < 0 ? false : sieve_fail(p, "missing test list");
  do {
    if (!sieve_parse_test(p, &part))
      return false;
    vec_push(p->arena, &t->parts, part);
  } while ((rc = sieve_take_byte(p, ',')) > 0);
  if (rc < 0 || (rc = sieve_take_byte(p, ')')) < 0)
    return false;
  return rc ? true : sieve_fail(p, "missing closing paren");
}

static bool negation(struct sieve_parser *p, struct sieve_test *t) {
  struct sieve_test *part = NULL;
  if (!sieve_parse_test(p, &part))
    return false;
  vec_push(p->arena, &t->parts, part);
  return true;
}

bool sieve_need_string(struct sieve_parser *p, const char *missing, struct str *ret) {
  int rc = sieve_take_string(p, ret);
  return rc ? rc > 0 : sieve_fail(p, "%s", missing);
}

static bool notify_test(struct sieve_parser *p, struct sieve_test *t) {
  struct str uri;
  if (!sieve_need(p, SIEVE_ENOTIFY, "enotify"))
    return false;
  if (t->kind == SIEVE_TEST_VALID_NOTIFY)
    return sieve_need_list(p, "URI string list expected", &t->names);
  if (!take_tags(p, t, false) || !sieve_need_string(p, "missing notification URI string", &uri) ||
      !sieve_need_string(p, "missing notification capability string", &t->capability) || !sieve_need_list(p, "missing key string list", &t->keys))
    return false;
  vec_push(p->arena, &t->names, uri);
  return true;
}

static bool nothing(struct sieve_parser *p, struct sieve_test *t) { return true; }

bool sieve_parse_test(struct sieve_parser *p, struct sieve_test **ret) {
  static const struct {
    const char *word;
    enum sieve_test_kind kind;
    bool (*parse)(struct sieve_parser *p, struct sieve_test *t);
  } tests[] = {
      {"address", SIEVE_TEST_ADDRESS, comparison}, {"allof", SIEVE_TEST_ALLOF, test_list}, {"anyof", SIEVE_TEST_ANYOF, test_list},
      {"envelope", SIEVE_TEST_ENVELOPE, comparison}, {"exists", SIEVE_TEST_EXISTS, exists}, {"false", SIEVE_TEST_FALSE, nothing},
      {"header", SIEVE_TEST_HEADER, comparison}, {"not", SIEVE_TEST_NOT, negation},
      {"notify_method_capability", SIEVE_TEST_NOTIFY_CAPABILITY, notify_test}, {"size", SIEVE_TEST_SIZE, size},
      {"true", SIEVE_TEST_TRUE, nothing}, {"valid_notify_method", SIEVE_TEST_VALID_NOTIFY, notify_test},
  };
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    int rc = sieve_take_word(p, tests[i].word);
    if (rc < 0)
      return false;
    if (!rc)
      continue;
    if (++p->depth > FILTER_DEPTH_MAX)
      return sieve_fail(p, "tests and blocks are nested too deeply");
    *ret = new_test(p, tests[i].kind);
    bool ok = tests[i].parse(p, *ret);
    p->depth--;
    return ok;
  }
  return sieve_fail(p, "missing test");
}
