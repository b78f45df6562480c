/* check_host() of RFC 7208, section 4. */
#include "mailauth/spf.h"

#include "base/ascii.h"
#include "base/buf.h"

#define DOMAIN_MAX 253
#define EXPLANATION_MAX 1000

struct check {
  struct arena *a;
  const struct spf_dns *dns;
  struct spf_macros macros;  /* .domain: the one whose record is evaluated */
  struct spf_answer *answer;
  int64_t deadline;
  int lookups, voids;
  bool validated_known, no_reverse;
  struct str *names;         /* of the client's address, proven by their own addresses */
  int names_n;
};

static enum spf_result check_host(struct check *k, struct str domain, bool included);

/* The first problem is the one that counts. */
static enum spf_result broken(struct check *k, enum spf_result r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static enum spf_result broken(struct check *k, enum spf_result r, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  if (!str_is_set(k->answer->problem))
    k->answer->problem = str_tainted(str_vprintf(k->a, fmt, ap));
  va_end(ap);
  return r;
}

/* Labels of 1 to 63 bytes, 253 in all. */
static bool is_domain(struct str s) {
  size_t label = 0;
  if (s.len > 0 && s.p[s.len - 1] == '.')
    s.len--;
  if (s.len == 0 || s.len > DOMAIN_MAX)
    return false;
  for (size_t i = 0; i < s.len; i++) {
    if (s.p[i] == 0)
      return false;
    if (s.p[i] != '.')
      label++;
    else if (label == 0)
      return false;
    else
      label = 0;
    if (label > 63)
      return false;
  }
  return label > 0;
}

/* A name that may have a policy: of more than one label, and no literal. */
static bool may_have_record(struct str s) {
  ptrdiff_t dot = str_find_byte(s, '.');
  return is_domain(s) && dot > 0 && (size_t)dot + 1 < s.len && s.p[0] != '[';
}

static bool out_of_time(const struct check *k) { return k->dns->now(k->dns->arg) > k->deadline; }

/* What a query of a mechanism says: there are records, there are none (counted), or an error. */
enum found { FOUND, FOUND_NONE, FOUND_TOO_MANY_VOID, FOUND_ERROR };

static enum found ask(struct check *k, struct str name, enum dns_type type, struct dns_answer *ret) {
  *ret = (struct dns_answer){0};
  if (out_of_time(k))
    return FOUND_ERROR;
  if (name.len > 0 && name.p[name.len - 1] == '.')
    name.len--;
  switch (k->dns->query(k->dns->arg, k->a, name, type, ret)) {
    case DNS_OK:
      if (ret->n > 0)
        return FOUND;
      return FOUND_NONE;
    case DNS_NOMATCH: case DNS_NODATA: return FOUND_NONE;
    default: return FOUND_ERROR;
  }
}

static enum found ask_counted(struct check *k, struct str name, enum dns_type type, struct dns_answer *ret) {
  enum found f = ask(k, name, type, ret);
  return f == FOUND_NONE && ++k->voids > SPF_VOID_MAX ? FOUND_TOO_MANY_VOID : f;
}

static enum spf_result refused(struct check *k, enum found f, struct str name) {
  if (f == FOUND_TOO_MANY_VOID)
    return broken(k, SPF_PERMERROR, "more than %d DNS lookups without an answer", SPF_VOID_MAX);
  return broken(k, SPF_TEMPERROR, out_of_time(k) ? "it took more than %d seconds" : "DNS lookup failed for %.*s",
      out_of_time(k) ? SPF_SECONDS_MAX : (int)name.len, name.p);
}

/* ---- names of the client (section 5.5, steps of "ptr") ---- */

static bool has_address(struct check *k, struct str name) {
  struct dns_answer answer;
  if (!is_domain(name) || ask(k, name, k->macros.ip.family == AF_INET6 ? DNS_AAAA : DNS_A, &answer) != FOUND)
    return false;
  for (size_t i = 0; i < answer.n; i++)
    if (ip_eq(&answer.v[i].ip, &k->macros.ip))
      return true;
  return false;
}

/* Fills k->names, once; errors count as no names. */
static void find_names(struct check *k) {
  struct dns_answer answer;
  if (k->validated_known)
    return;
  k->validated_known = true;
  enum found f = ask(k, ip_reverse_name(k->a, &k->macros.ip, NULL), DNS_PTR, &answer);
  k->no_reverse = f == FOUND_NONE;
  if (f != FOUND)
    return;
  k->names = arena_array(k->a, struct str, SPF_NAMES_MAX);
  for (size_t i = 0; i < answer.n && i < SPF_NAMES_MAX; i++)
    if (has_address(k, answer.v[i].text))
      k->names[k->names_n++] = answer.v[i].text;
}

static bool is_in(struct str name, struct str domain) {
  if (name.len > 0 && name.p[name.len - 1] == '.')
    name.len--;
  if (domain.len > 0 && domain.p[domain.len - 1] == '.')
    domain.len--;
  return str_iends(name, domain) && (name.len == domain.len || name.p[name.len - domain.len - 1] == '.');
}

/* %p (section 7.3): the domain itself, else a name in it, else any. */
static struct str validated_name(struct check *k) {
  find_names(k);
  struct str in = STR_UNSET;
  for (int i = 0; i < k->names_n; i++) {
    if (str_ieq(k->names[i], k->macros.domain))
      return k->names[i];
    if (!str_is_set(in) && is_in(k->names[i], k->macros.domain))
      in = k->names[i];
  }
  return str_is_set(in) ? in : k->names_n > 0 ? k->names[0] : STR("unknown");
}

/* ---- mechanisms ---- */

/* Foreign text that is not ASCII cannot be in a name: such a term does not match (RFC 8616, section 4). */
static bool is_usable(const struct check *k, struct str spec) {
  if (!spf_macro_uses(spec, 's') && !spf_macro_uses(spec, 'l'))
    return true;
  for (size_t i = 0; i < k->macros.local_part.len; i++)
    if ((unsigned char)k->macros.local_part.p[i] > 126)
      return false;
  return true;
}

/* The name that a domain-spec stands for; over-long ones lose labels at the left (section 7.3). false: it is no name. */
static bool target(struct check *k, struct str spec, struct str *ret) {
  if (!str_is_set(spec)) {
    *ret = k->macros.domain;
    return is_domain(*ret);
  }
  if (!is_usable(k, spec))
    return false;
  if (spf_macro_uses(spec, 'p'))
    k->macros.validated = validated_name(k);
  struct buf b;
  buf_init(&b, k->a, 16 * SPF_RECORD_MAX);
  if (!spf_macro_expand(spec, SPF_DOMAIN_SPEC, &k->macros, &b))
    return false;
  struct str name = buf_str(&b);
  if (name.len > 0 && name.p[name.len - 1] == '.')
    name.len--;
  while (name.len > DOMAIN_MAX) {
    ptrdiff_t dot = str_find_byte(name, '.');
    if (dot < 0)
      return false;
    name = str_from(name, (size_t)dot + 1);
  }
  *ret = str_tainted(name);
  return is_domain(name);
}

enum match { MATCH, NO_MATCH, MATCH_ERROR };

/* An address record of `name` that fits the client within the prefix? */
static enum match addresses(struct check *k, const struct spf_directive *d, struct str name, bool count, enum spf_result *error) {
  struct dns_answer answer;
  bool six = k->macros.ip.family == AF_INET6;
  enum found f = (count ? ask_counted : ask)(k, name, six ? DNS_AAAA : DNS_A, &answer);
  if (f == FOUND_NONE)
    return NO_MATCH;
  if (f != FOUND) {
    *error = refused(k, f, name);
    return MATCH_ERROR;
  }
  for (size_t i = 0; i < answer.n; i++)
    if (ip_match(&k->macros.ip, &answer.v[i].ip, six ? d->bits6 : d->bits4))
      return MATCH;
  return NO_MATCH;
}

static enum match match_mx(struct check *k, const struct spf_directive *d, struct str name, enum spf_result *error) {
  struct dns_answer answer;
  enum found f = ask_counted(k, name, DNS_MX, &answer);
  if (f == FOUND_NONE)
    return NO_MATCH;
  if (f != FOUND) {
    *error = refused(k, f, name);
    return MATCH_ERROR;
  }
  if (answer.n > SPF_NAMES_MAX) {
    *error = broken(k, SPF_PERMERROR, "%.*s has more than %d MX records", STRF(name), SPF_NAMES_MAX);
    return MATCH_ERROR;
  }
  for (size_t i = 0; i < answer.n; i++) {
    if (!is_domain(answer.v[i].text))
      continue;
    enum match m = addresses(k, d, answer.v[i].text, false, error);
    if (m != NO_MATCH)
      return m;
  }
  return NO_MATCH;
}

static enum match match_ptr(struct check *k, struct str name, enum spf_result *error) {
  find_names(k);
  if (k->no_reverse && ++k->voids > SPF_VOID_MAX) {
    *error = refused(k, FOUND_TOO_MANY_VOID, name);
    return MATCH_ERROR;
  }
  for (int i = 0; i < k->names_n; i++)
    if (is_in(k->names[i], name))
      return MATCH;
  return NO_MATCH;
}

static enum match match_exists(struct check *k, struct str name, enum spf_result *error) {
  struct dns_answer answer;
  enum found f = ask_counted(k, name, DNS_A, &answer);
  if (f == FOUND || f == FOUND_NONE)
    return f == FOUND ? MATCH : NO_MATCH;
  *error = refused(k, f, name);
  return MATCH_ERROR;
}

/* Section 5.2. */
static enum match match_include(struct check *k, struct str name, enum spf_result *error) {
  struct str domain = k->macros.domain, mechanism = k->answer->mechanism;
  enum spf_result r = check_host(k, name, true);
  k->macros.domain = domain;
  k->answer->mechanism = mechanism;
  switch (r) {
    case SPF_PASS: return MATCH;
    case SPF_FAIL: case SPF_SOFTFAIL: case SPF_NEUTRAL: return NO_MATCH;
    case SPF_NONE: *error = broken(k, SPF_PERMERROR, "included %.*s has no policy", STRF(name)); return MATCH_ERROR;
    default: *error = r; return MATCH_ERROR;
  }
}

static bool count_lookup(struct check *k, enum spf_result *error) {
  if (++k->lookups <= SPF_LOOKUPS_MAX)
    return true;
  *error = broken(k, SPF_PERMERROR, "more than %d terms that need the DNS", SPF_LOOKUPS_MAX);
  return false;
}

static enum match match_directive(struct check *k, const struct spf_directive *d, enum spf_result *error) {
  struct str name;
  switch (d->mechanism) {
    case SPF_ALL: return MATCH;
    case SPF_IP4: return ip_match(&k->macros.ip, &d->net, d->bits4) ? MATCH : NO_MATCH;
    case SPF_IP6: return ip_match(&k->macros.ip, &d->net, d->bits6) ? MATCH : NO_MATCH;
    default: break;
  }
  if (!count_lookup(k, error))
    return MATCH_ERROR;
  if (!target(k, d->domain, &name)) {
    if (d->mechanism != SPF_INCLUDE)
      return NO_MATCH;
    *error = broken(k, SPF_PERMERROR, "\"%.*s\" gives no domain", STRF(d->text));
    return MATCH_ERROR;
  }
  switch (d->mechanism) {
    case SPF_A: return addresses(k, d, name, true, error);
    case SPF_MX: return match_mx(k, d, name, error);
    case SPF_PTR: return match_ptr(k, name, error);
    case SPF_EXISTS: return match_exists(k, name, error);
    default: return match_include(k, name, error);
  }
}

/* ---- explanations (section 6.2) ---- */

/* Trouble of any kind means that there is none. */
static struct str explain_text(struct check *k, struct str text) {
  if (!spf_macro_check(text, SPF_EXPLANATION))
    return STR_UNSET;
  if (spf_macro_uses(text, 'p'))
    k->macros.validated = validated_name(k);
  struct buf b;
  buf_init(&b, k->a, EXPLANATION_MAX);
  if (!spf_macro_expand(text, SPF_EXPLANATION, &k->macros, &b))
    return STR_UNSET;
  struct str s = buf_str(&b);
  for (size_t i = 0; i < s.len; i++)
    if ((unsigned char)s.p[i] < ' ' || (unsigned char)s.p[i] > 126)
      return STR_UNSET;
  return s.len > 0 ? str_tainted(s) : STR_UNSET;
}

static struct str explain(struct check *k, struct str spec) {
  struct str name;
  struct dns_answer answer;
  if (!str_is_set(spec) || !target(k, spec, &name) || ask(k, name, DNS_TXT, &answer) != FOUND || answer.n != 1)
    return STR_UNSET;
  return explain_text(k, answer.v[0].text);
}

/* ---- records ---- */

static enum spf_result redirect(struct check *k, const struct spf_record *record, bool included) {
  enum spf_result error;
  struct str name;
  if (!count_lookup(k, &error))
    return error;
  if (!target(k, record->redirect, &name))
    return broken(k, SPF_PERMERROR, "\"redirect=%.*s\" gives no domain", STRF(record->redirect));
  enum spf_result r = check_host(k, name, included);
  return r == SPF_NONE ? broken(k, SPF_PERMERROR, "redirect to %.*s, which has no policy", STRF(name)) : r;
}

static enum spf_result evaluate(struct check *k, struct str domain, struct str text, bool included) {
  struct spf_record record;
  struct str problem;
  if (!spf_parse(k->a, text, &record, &problem))
    return broken(k, SPF_PERMERROR, "policy of %.*s: %.*s", STRF(domain), STRF(problem));
  k->macros.domain = domain;
  for (const struct spf_directive *d = record.first; d; d = d->next) {
    enum spf_result error = SPF_PERMERROR;
    enum match m = match_directive(k, d, &error);
    if (m == MATCH_ERROR)
      return error;
    if (m == NO_MATCH)
      continue;
    k->answer->mechanism = str_tainted(d->text);
    if (d->qualifier == SPF_FAIL && !included)
      k->answer->explanation = explain(k, record.explanation);
    return d->qualifier;
  }
  return str_is_set(record.redirect) ? redirect(k, &record, included) : SPF_NEUTRAL;
}

/* Sections 4.3 to 4.5. `included`: its explanation does not count. */
static enum spf_result check_host(struct check *k, struct str domain, bool included) {
  struct dns_answer answer;
  struct str record = STR_UNSET;
  if (!may_have_record(domain))
    return SPF_NONE;
  enum found f = ask(k, domain, DNS_TXT, &answer);
  if (f == FOUND_ERROR)
    return refused(k, f, domain);
  for (size_t i = 0; i < answer.n; i++) {
    if (!spf_is_record(answer.v[i].text))
      continue;
    if (str_is_set(record))
      return broken(k, SPF_PERMERROR, "%.*s has more than one SPF record", STRF(domain));
    record = answer.v[i].text;
  }
  return str_is_set(record) ? evaluate(k, domain, record, included) : SPF_NONE;
}

static void begin(struct check *k, struct arena *a, const struct spf_dns *dns, const struct spf_identity *who) {
  struct str sender = str_is_set(who->sender) ? who->sender : STR_EMPTY;
  struct str helo = str_is_set(who->helo) ? who->helo : STR_EMPTY;
  ptrdiff_t at = str_rfind_byte(sender, '@');
  *k = (struct check){.a = a, .dns = dns};
  k->macros = (struct spf_macros){
    .local_part = at > 0 ? str_slice(sender, 0, (size_t)at) : STR("postmaster"),
    .sender_domain = sender.len == 0 ? helo : at < 0 ? sender : str_from(sender, (size_t)at + 1),
    .helo = helo, .ip = who->ip, .validated = STR("unknown"),
    .receiver = str_is_set(who->receiver) && who->receiver.len > 0 ? who->receiver : STR("unknown"),
    .now = dns->now(dns->arg),
  };
  k->macros.domain = k->macros.sender_domain;
  ip_unmap(&k->macros.ip);
  k->deadline = k->macros.now + SPF_SECONDS_MAX;
}

static void check(struct arena *a, const struct spf_dns *dns, const struct spf_identity *who, struct str record,
    struct spf_answer *ret) {
  struct check k;
  begin(&k, a, dns, who);
  struct str domain = str_tainted(k.macros.sender_domain);
  *ret = (struct spf_answer){.domain = domain, .mechanism = STR_UNSET, .problem = STR_UNSET, .explanation = STR_UNSET};
  k.answer = ret;
  ret->result = str_is_set(record) ? evaluate(&k, domain, record, false) : check_host(&k, domain, false);
}

struct str spf_explain(struct arena *a, const struct spf_dns *dns, const struct spf_identity *who, struct str text) {
  struct check k;
  begin(&k, a, dns, who);
  struct str s = explain_text(&k, text);
  return str_is_set(s) ? s : STR_EMPTY;
}

void spf_check(struct arena *a, const struct spf_dns *dns, const struct spf_identity *who, struct spf_answer *ret) {
  check(a, dns, who, STR_UNSET, ret);
}

void spf_check_record(struct arena *a, const struct spf_dns *dns, const struct spf_identity *who, struct str record,
    struct spf_answer *ret) {
  check(a, dns, who, record, ret);
}
