#include "mailauth/dmarc.h"

#include "base/ascii.h"
#include "base/idn.h"
#include "mailauth/dkim.h"

/* ---- records ---- */

/* The next "name=value" of a record; parts that are none are passed over. */
static bool next_tag(struct str *rest, struct str *name, struct str *value) {
  while (str_is_set(*rest)) {
    struct str v = str_cut(rest, ';');
    *name = str_trim(str_cut(&v, '='));
    if (!str_is_set(v) || name->len == 0)
      continue;
    *value = str_trim(v);
    return true;
  }
  return false;
}

bool dmarc_is_record(struct str text) {
  struct str rest = text, first = str_cut(&rest, ';'), value = first, name = str_trim(str_cut(&value, '='));
  return str_eq_c(name, "v") && str_is_set(value) && str_eq_c(str_trim(value), "DMARC1");
}

static enum dmarc_policy policy_of(struct str s) {
  return str_ieq_c(s, "none") ? DMARC_P_NONE : str_ieq_c(s, "quarantine") ? DMARC_P_QUARANTINE : str_ieq_c(s, "reject") ? DMARC_P_REJECT
                                                                                                                 : DMARC_P_UNSET;
}

const char *dmarc_policy_name(enum dmarc_policy p) {
  static const char *const names[] = {"", "none", "quarantine", "reject"};
  return names[p];
}

/* Is there an URI in the list that reports could go to? */
static bool has_uri(struct str list) {
  while (str_is_set(list)) {
    struct str item = str_trim(str_cut(&list, ','));
    if (str_istarts(item, STR("mailto:")) && str_find_byte(item, '@') > 7)
      return true;
  }
  return false;
}

static void take_tag(struct dmarc_record *r, struct str name, struct str value) {
  uint64_t n;
  if (str_eq_c(name, "p"))
    r->p = policy_of(value);
  else if (str_eq_c(name, "sp"))
    r->sp = policy_of(value);
  else if (str_eq_c(name, "np"))
    r->np = policy_of(value);
  else if (str_eq_c(name, "adkim"))
    r->strict_dkim = str_ieq_c(value, "s");
  else if (str_eq_c(name, "aspf"))
    r->strict_spf = str_ieq_c(value, "s");
  else if (str_eq_c(name, "t"))
    r->testing = str_ieq_c(value, "y");
  else if (str_eq_c(name, "psd"))
    r->psd = str_ieq_c(value, "y") ? 'y' : str_ieq_c(value, "n") ? 'n' : 'u';
  else if (str_eq_c(name, "pct") && str_to_u64(value, &n) && n <= 100)
    r->pct = (int)n;
  else if (str_eq_c(name, "rua"))
    r->rua = value;
  else if (str_eq_c(name, "ruf"))
    r->ruf = value;
  else if (str_eq_c(name, "fo"))
    r->fo = value;
}

bool dmarc_parse(struct str text, bool p_needed, struct dmarc_record *ret) {
  struct str rest = text, name, value;
  bool bad_sp = false;
  *ret = (struct dmarc_record){.text = text, .psd = 'u', .pct = 100, .rua = STR_UNSET, .ruf = STR_UNSET, .fo = STR_UNSET};
  if (text.len > DMARC_RECORD_MAX || !dmarc_is_record(text))
    return false;
  while (next_tag(&rest, &name, &value)) {
    take_tag(ret, name, value);
    bad_sp = bad_sp || (str_eq_c(name, "sp") && ret->sp == DMARC_P_UNSET);
  }
  if (ret->p != DMARC_P_UNSET && !bad_sp)
    return true;
  if (p_needed && !has_uri(ret->rua))
    return false;
  ret->p = DMARC_P_NONE;
  ret->sp = ret->np = DMARC_P_UNSET;
  return true;
}

/* ---- discovery ---- */

/* The record at _dmarc.NAME: true if there is just one. */
static bool fetch(struct arena *a, const struct dmarc_dns *dns, struct str name, bool p_needed, struct dmarc_record *ret, bool *trouble) {
  struct dns_answer answer;
  struct str text = STR_UNSET, at = str_cat(a, STR("_dmarc."), name);
  enum dns_result r = dns->query(dns->arg, a, at, DNS_TXT, &answer);
  if (r == DNS_AGAIN || r == DNS_FAIL)
    *trouble = true;
  if (r != DNS_OK)
    return false;
  for (size_t i = 0; i < answer.n; i++) {
    if (!dmarc_is_record(answer.v[i].text))
      continue;
    if (str_is_set(text))
      return false; /* several: none is used */
    text = answer.v[i].text;
  }
  return str_is_set(text) && dmarc_parse(text, p_needed, ret);
}

static size_t labels(struct str name) {
  size_t n = name.len > 0;
  for (size_t i = 0; i < name.len; i++)
    n += name.p[i] == '.';
  return n;
}

/* The last n labels of a name. */
static struct str last_labels(struct str name, size_t n) {
  for (size_t have = labels(name); have > n; have--)
    (void)str_cut(&name, '.');
  return name;
}

/* What a walk found (RFC 9989, section 4.10): the records on the way, the longest name first. */
struct walk {
  struct {
    struct str name;
    struct dmarc_record record;
  } v[DMARC_QUERIES_MAX];
  size_t n;
  bool trouble;
};

static void walk(struct arena *a, const struct dmarc_dns *dns, struct str start, struct walk *w) {
  struct str name = start;
  w->n = 0;
  w->trouble = false;
  for (int queries = 0; queries < DMARC_QUERIES_MAX && name.len > 0 && !w->trouble; queries++) {
    struct dmarc_record *r = &w->v[w->n].record;
    if (fetch(a, dns, name, false, r, &w->trouble)) {
      w->v[w->n++].name = name;
      if (r->psd != 'u')
        return;
    }
    size_t have = labels(name);
    if (have <= 1)
      return;
    name = last_labels(name, have >= 8 ? 7 : have - 1);
  }
}

static struct str walk_organization(const struct walk *w, struct str start) {
  if (w->n == 0)
    return start;
  struct str last = w->v[w->n - 1].name;
  if (w->v[w->n - 1].record.psd == 'y' && !str_eq(last, start))
    return last_labels(start, labels(last) + 1);
  return last;
}

static struct str organization_of(struct arena *a, const struct dmarc_dns *dns, struct str domain, bool *trouble) {
  struct walk w;
  if (dns->organization != NULL)
    return dns->organization(dns->arg, a, domain);
  walk(a, dns, domain, &w);
  *trouble = *trouble || w.trouble;
  return walk_organization(&w, domain);
}

/* Does the author's domain exist? Without an answer it does. */
static bool exists(struct arena *a, const struct dmarc_dns *dns, struct str domain) {
  static const enum dns_type types[] = {DNS_MX, DNS_A, DNS_AAAA};
  struct dns_answer answer;
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    enum dns_result r = dns->query(dns->arg, a, domain, types[i], &answer);
    if (r == DNS_NOMATCH)
      return false;
    if (r != DNS_NODATA)
      return true;
  }
  return false;
}

static void use(struct arena *a, const struct dmarc_dns *dns, struct str author, struct str name, const struct dmarc_record *r,
    struct dmarc_found *ret) {
  ret->any = true;
  ret->domain = name;
  ret->record = *r;
  ret->policy = r->p;
  if (!str_eq(author, name)) {
    if (r->sp != DMARC_P_UNSET)
      ret->policy = r->sp;
    if (dns->organization == NULL && r->np != DMARC_P_UNSET && !exists(a, dns, author))
      ret->policy = r->np;
  }
  if (dns->organization == NULL && r->testing && ret->policy > DMARC_P_NONE)
    ret->policy--;
}

static void find_by_list(struct arena *a, const struct dmarc_dns *dns, struct str domain, struct dmarc_found *ret) {
  struct dmarc_record r;
  ret->organization = dns->organization(dns->arg, a, domain);
  if (fetch(a, dns, domain, true, &r, &ret->trouble))
    use(a, dns, domain, domain, &r, ret);
  else if (!ret->trouble && !str_eq(ret->organization, domain) && fetch(a, dns, ret->organization, true, &r, &ret->trouble))
    use(a, dns, domain, ret->organization, &r, ret);
}

static void find_by_walk(struct arena *a, const struct dmarc_dns *dns, struct str domain, struct dmarc_found *ret) {
  struct walk w;
  size_t chosen;
  walk(a, dns, domain, &w);
  ret->trouble = w.trouble;
  ret->organization = walk_organization(&w, domain);
  if (w.trouble || w.n == 0)
    return;
  for (chosen = 0; chosen < w.n && !str_eq(w.v[chosen].name, domain); chosen++)
    ;
  if (chosen == w.n) /* not its own: the organization's, else the public suffix's */
    for (chosen = 0; chosen + 1 < w.n && !str_eq(w.v[chosen].name, ret->organization); chosen++)
      ;
  use(a, dns, domain, w.v[chosen].name, &w.v[chosen].record, ret);
}

void dmarc_find(struct arena *a, const struct dmarc_dns *dns, struct str domain, struct dmarc_found *ret) {
  *ret = (struct dmarc_found){.domain = STR_EMPTY, .organization = domain};
  if (dns->organization != NULL)
    find_by_list(a, dns, domain, ret);
  else
    find_by_walk(a, dns, domain, ret);
}

struct str dmarc_domain(struct arena *a, struct str domain) {
  const char *why;
  struct str ascii;
  return str_lower(a, idn_domain_to_ascii(a, domain, &ascii, &why) ? ascii : domain);
}

bool dmarc_aligned(struct arena *a, const struct dmarc_dns *dns, const struct dmarc_found *f, struct str author, struct str domain,
    bool strict, bool *ret_trouble) {
  domain = dmarc_domain(a, domain);
  if (str_ieq(author, domain))
    return true;
  /* Below the author's organization it may still be another's. */
  if (strict || !dkim_is_subdomain(domain, f->organization))
    return false;
  return str_ieq(domain, f->organization) || str_ieq(organization_of(a, dns, domain, ret_trouble), f->organization);
}
