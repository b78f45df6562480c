#include "mailauth/arc.h"

#include "base/ascii.h"

static struct str name_of(struct str field) {
  ptrdiff_t colon = str_find_byte(field, ':');
  return str_rtrim(str_slice(field, 0, colon < 0 ? 0 : (size_t)colon));
}

static struct str value_of(struct str field) {
  ptrdiff_t colon = str_find_byte(field, ':');
  return colon < 0 ? STR_EMPTY : str_from(field, (size_t)colon + 1);
}

const char *arc_state_name(enum arc_state s) {
  static const char *const names[] = {"", "none", "fail", "pass"};
  return names[s];
}

/* ---- Authentication-Results ---- */

/* Behind white space and comments (CFWS). */
static struct str skip_comments(struct str s) {
  size_t i = 0;
  for (int depth = 0; i < s.len; i++) {
    if (s.p[i] == '(')
      depth++;
    else if (s.p[i] == ')' && depth > 0)
      depth--;
    else if (s.p[i] == '\\' && depth > 0)
      i++;
    else if (depth == 0 && !ascii_is_space(s.p[i]))
      break;
  }
  return str_from(s, i < s.len ? i : s.len);
}

/* A token or quoted string at the start of *s, which is moved behind it. */
static struct str take_word(struct arena *a, struct str *s) {
  size_t i = 0;
  struct buf b;
  if (s->len == 0 || s->p[0] != '"') {
    while (i < s->len && !ascii_is_space(s->p[i]) && strchr("(;\"", s->p[i]) == NULL)
      i++;
    struct str word = str_slice(*s, 0, i);
    *s = str_from(*s, i);
    return word;
  }
  buf_init(&b, a, s->len + 1);
  for (i = 1; i < s->len && s->p[i] != '"'; i++) {
    i += s->p[i] == '\\' && i + 1 < s->len;
    buf_add_byte(&b, s->p[i]);
  }
  *s = str_from(*s, i < s->len ? i + 1 : i);
  return buf_str(&b);
}

bool arc_results_of(struct arena *a, struct str field, struct str admd, struct str *ret) {
  ptrdiff_t colon = str_find_byte(field, ':');
  if (colon < 0 || !str_ieq_c(str_rtrim(str_slice(field, 0, (size_t)colon)), "Authentication-Results"))
    return false;
  struct str rest = skip_comments(str_from(field, (size_t)colon + 1));
  if (!str_ieq(take_word(a, &rest), admd))
    return false;
  rest = skip_comments(rest);
  (void)take_word(a, &rest); /* a version */
  rest = skip_comments(rest);
  *ret = str_rtrim(str_from(rest, rest.len > 0 && rest.p[0] == ';'));
  while (ret->len > 0 && ret->p[ret->len - 1] == ';')
    *ret = str_rtrim(str_slice(*ret, 0, ret->len - 1));
  return true;
}

enum arc_state arc_results_state(struct str results) {
  while (str_is_set(results)) {
    struct str item = str_trim(str_cut(&results, ';'));
    for (int k = ARC_NONE; k <= ARC_PASS; k++) {
      struct str word = str_c(arc_state_name((enum arc_state)k));
      if (str_istarts(item, STR("arc=")) && str_istarts(str_from(item, 4), word) &&
          (item.len == 4 + word.len || strchr(" \t\n(", item.p[4 + word.len])))
        return (enum arc_state)k;
    }
  }
  return ARC_UNCHECKED;
}

/* ---- structure ---- */

static int number(struct str s) {
  uint64_t n;
  return str_is_set(s) && s.len > 0 && s.len <= 2 && str_to_u64(s, &n) && n >= 1 && n <= ARC_SETS_MAX ? (int)n : 0;
}

int arc_instance(struct arena *a, struct str field, bool results) {
  struct str value = value_of(field);
  struct tag_list tags;
  if (!results)
    return tags_parse(a, value, &tags) ? number(tags_value(&tags, "i")) : 0;
  /* "i=1; authserv-id; …": no tag list but for its beginning, where comments may stand. */
  struct str rest = skip_comments(value);
  if (rest.len == 0 || rest.p[0] != 'i' || (rest = skip_comments(str_from(rest, 1))).len == 0 || rest.p[0] != '=')
    return 0;
  rest = skip_comments(str_from(rest, 1));
  size_t digits = 0;
  while (digits < rest.len && ascii_is_digit(rest.p[digits]))
    digits++;
  int n = number(str_slice(rest, 0, digits));
  rest = skip_comments(str_from(rest, digits));
  return rest.len > 0 && rest.p[0] == ';' ? n : 0;
}

static void broken(struct arc_chain *c, int i, const char *why) {
  if (!str_is_set(c->broken))
    c->broken = str_printf(c->arena, "i=%d (%s)", i, why);
}

static bool take_seal(struct arc_chain *c, struct arc_set *set, int i) {
  set->as = dkim_signature_parse_as(c->arena, set->seal, DKIM_ARC_SEAL);
  if (set->as == NULL)
    return false;
  struct str cv = tags_value(&set->as->tags, "cv");
  set->cv = str_is_set(cv) ? cv : STR_EMPTY;
  if (!str_eq_c(set->cv, "none") && !str_eq_c(set->cv, "fail") && !str_eq_c(set->cv, "pass"))
    broken(c, i, "AS cv tag");
  if (tags_find(&set->as->tags, "h") != NULL)
    broken(c, i, "AS has a tag h=");
  return true;
}

/* A message signature must not cover seals: later ones would break it. */
static bool covers_seals(struct str names) {
  while (str_is_set(names))
    if (str_ieq_c(str_trim(str_cut(&names, ':')), "ARC-Seal"))
      return true;
  return false;
}

static void take_message(struct arc_chain *c, struct arc_set *set, int i) {
  set->ams = dkim_signature_parse_as(c->arena, set->message, DKIM_ARC_MESSAGE);
  if (set->ams == NULL)
    return;
  if (covers_seals(set->ams->header_names))
    broken(c, i, "AMS covers ARC-Seal");
  if (set->ams->status != DKIM_INVALID)
    set->ams->hash = body_hash_want(&c->hashes, set->ams->md, set->ams->body_canon, set->ams->body_length);
}

static void add_field(struct arc_chain *c, struct str field, struct str *(*slot)(struct arc_set *s), bool results) {
  int i = arc_instance(c->arena, field, results);
  if (i == 0) {
    struct str n = name_of(field);
    if (!str_is_set(c->broken))
      c->broken = str_printf(c->arena, "%.*s without a usable instance number", STRF(n));
    return;
  }
  struct str *to = slot(&c->set[i]);
  if (str_is_set(*to))
    broken(c, i, "duplicate");
  *to = field;
  c->sets = i > c->sets ? i : c->sets;
}

static struct str *results_slot(struct arc_set *s) { return &s->results; }
static struct str *message_slot(struct arc_set *s) { return &s->message; }
static struct str *seal_slot(struct arc_set *s) { return &s->seal; }

struct arc_chain *arc_collect(struct arena *a, const struct str *fields, size_t n) {
  struct arc_chain *c = arena_new_of(a, struct arc_chain);
  c->arena = c->hashes.arena = a;
  c->reason = STR_EMPTY;
  for (size_t k = 0; k < n; k++) {
    struct str name = name_of(fields[k]);
    if (name.len < 8 || !str_istarts(name, STR("ARC-")))
      continue;
    bool results = str_ieq_c(name, "ARC-Authentication-Results"), message = str_ieq_c(name, "ARC-Message-Signature");
    if (!results && !message && !str_ieq_c(name, "ARC-Seal"))
      continue;
    add_field(c, fields[k], results ? results_slot : message ? message_slot : seal_slot, results);
  }
  for (int i = 1; i <= c->sets; i++) {
    struct arc_set *s = &c->set[i];
    if (!str_is_set(s->results) || !str_is_set(s->message) || !str_is_set(s->seal))
      broken(c, i, "missing header");
    if (str_is_set(s->seal) && !take_seal(c, s, i))
      broken(c, i, "AS syntax");
    if (str_is_set(s->message))
      take_message(c, s, i);
    if (str_is_set(s->message) && s->ams == NULL)
      broken(c, i, "AMS syntax");
  }
  return c;
}

/* ---- validation ---- */

static void fail(struct arc_chain *c, struct str reason) {
  c->state = ARC_FAIL;
  c->reason = reason;
  c->oldest_pass = 0;
}

static const char *trouble(const struct dkim_signature *s) {
  switch (s->reason) {
    case DKIM_ALGORITHM: return "algorithm";
    case DKIM_KEY_UNAVAILABLE: return "pubkey unavailable";
    case DKIM_KEY_SYNTAX: return "pubkey syntax";
    case DKIM_KEY_UNFIT: return "pubkey unfit";
    case DKIM_KEY_SIZE: return "pubkey too short";
    case DKIM_SIGNATURE: return "sig nonverify";
    default: return "tag missing or invalid";
  }
}

static int least_bits(const struct dkim_signature *s) { return s->key_type == DKIM_RSA ? 1024 : 0; }

/* Is the message signature of a set good? NULL, or what is wrong. */
static const char *check_message(struct arc_chain *c, struct arc_set *set, struct header_index *index, arc_key_fn *key, void *arg) {
  struct dkim_signature *s = set->ams;
  if (s->status == DKIM_INVALID)
    return trouble(s);
  if (s->expires != DKIM_NO_TIME && s->expires < c->now)
    return "expired";
  if (!dkim_body_holds(s))
    return "body hash miscompare";
  key(arg, s);
  if (s->key == NULL)
    return trouble(s);
  dkim_verify(index, s, least_bits(s));
  return s->status == DKIM_PASS ? NULL : trouble(s);
}

void arc_seal_data(const struct arc_chain *c, int n, bool only_own, struct str results, struct str message, struct buf *out) {
  for (int i = 1; i < n && !only_own; i++) {
    canon_header(CANON_RELAXED, c->set[i].results, true, out);
    canon_header(CANON_RELAXED, c->set[i].message, true, out);
    canon_header(CANON_RELAXED, c->set[i].seal, true, out);
  }
  canon_header(CANON_RELAXED, results, true, out);
  canon_header(CANON_RELAXED, message, true, out);
}

static const char *check_seal(struct arc_chain *c, int i, struct header_index *index, arc_key_fn *key, void *arg) {
  struct arc_set *set = &c->set[i];
  struct dkim_signature *s = set->as;
  if (!str_eq_c(set->cv, i == 1 ? "none" : "pass"))
    return "cv";
  if (s->status == DKIM_INVALID)
    return trouble(s);
  key(arg, s);
  if (s->key == NULL)
    return trouble(s);
  struct buf *data = header_index_data(index); /* only now: asking for the key may have suspended */
  arc_seal_data(c, i, false, set->results, set->message, data);
  s->header_canon = CANON_RELAXED;
  dkim_add_own_field(s, data);
  dkim_verify_data(s, data, least_bits(s));
  return s->status == DKIM_PASS ? NULL : trouble(s);
}

void arc_validate(struct arc_chain *c, struct header_index *index, int64_t now, arc_key_fn *key, void *arg) {
  const char *why;
  c->now = now;
  c->oldest_pass = 0;
  if (c->sets == 0 && !str_is_set(c->broken)) {
    c->state = ARC_NONE;
    return;
  }
  if (c->sets > 0 && str_eq_c(c->set[c->sets].cv.p ? c->set[c->sets].cv : STR_EMPTY, "fail")) {
    fail(c, str_printf(c->arena, "i=%d (cv)", c->sets));
    return;
  }
  if (str_is_set(c->broken)) {
    fail(c, c->broken);
    return;
  }
  if ((why = check_message(c, &c->set[c->sets], index, key, arg)) != NULL) {
    fail(c, str_printf(c->arena, "AMS %s", why));
    return;
  }
  int oldest = c->sets;
  while (oldest > 1 && check_message(c, &c->set[oldest - 1], index, key, arg) == NULL)
    oldest--;
  for (int i = c->sets; i > 0; i--)
    if ((why = check_seal(c, i, index, key, arg)) != NULL) {
      fail(c, str_eq_c(str_c(why), "cv") ? str_printf(c->arena, "i=%d (cv)", i) : str_printf(c->arena, "AS i=%d %s", i, why));
      return;
    }
  c->state = ARC_PASS;
  c->oldest_pass = oldest;
}
