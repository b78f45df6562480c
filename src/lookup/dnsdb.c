/* dnsdb (manual, "More about dnsdb" and the sections behind it). */
#include "base/ascii.h"
#include "base/time.h"
#include "core/main_options.h"
#include "dns/dns.h"
#include "lookup/types.h"
#include "match/match.h"

#define RESULT_MAX (1u << 20)
#define DOMAINS_MAX 1000

enum pseudo { PLAIN, PSEUDO_A_PLUS, PSEUDO_CSA, PSEUDO_MXH, PSEUDO_ZNS };
enum behaviour { NEVER, LAX, STRICT };

static const struct type {
  const char *name;
  enum dns_type type;
  enum pseudo pseudo;
} types[] = {
  {"a", DNS_A, PLAIN}, {"a+", DNS_A, PSEUDO_A_PLUS}, {"aaaa", DNS_AAAA, PLAIN},
  {"cname", DNS_CNAME, PLAIN}, {"csa", DNS_SRV, PSEUDO_CSA}, {"mx", DNS_MX, PLAIN}, {"mxh", DNS_MX, PSEUDO_MXH},
  {"ns", DNS_NS, PLAIN}, {"ptr", DNS_PTR, PLAIN}, {"soa", DNS_SOA, PLAIN}, {"spf", DNS_SPF, PLAIN}, {"srv", DNS_SRV, PLAIN},
  {"tlsa", DNS_TLSA, PLAIN}, {"txt", DNS_TXT, PLAIN}, {"zns", DNS_NS, PSEUDO_ZNS},
};

struct query {
  struct ctx *c;
  char separator;        /* between records */
  char field_separator;  /* 0: the type's default; ';' : none at all (TXT) */
  bool field_given;
  enum behaviour defer, dnssec;
  struct dns_query_options o;
  const struct type *type;
  struct buf out;
  bool any, again, secure;
  uint32_t ttl;
};

/* ">x" and ">x,y" or ">x;": separators of records and of fields. */
static struct str parse_separators(struct query *q, struct str s) {
  q->separator = '\n';
  s = str_ltrim(s);
  if (s.len < 2 || s.p[0] != '>')
    return s;
  q->separator = s.p[1];
  s = str_from(s, 2);
  if (s.len >= 2 && s.p[0] == ',') {
    q->field_separator = s.p[1];
    q->field_given = true;
    s = str_from(s, 2);
  } else if (s.len >= 1 && s.p[0] == ';') {
    q->field_separator = '\0';
    q->field_given = true;
    s = str_from(s, 1);
  }
  return str_ltrim(s);
}

static bool parse_behaviour(struct str s, enum behaviour *ret) {
  static const char *const names[] = {"never", "lax", "strict"};
  for (int i = 0; i < 3; i++)
    if (str_ieq_c(s, names[i])) {
      *ret = (enum behaviour)i;
      return true;
    }
  return false;
}

/* One "name_value" before a comma. 1: it was one; 0: it is none; negative: error. */
static int parse_modifier(struct query *q, struct str m) {
  if (str_istarts(m, STR("defer_")))
    return parse_behaviour(str_from(m, 6), &q->defer)
      ? 1 : ctx_fail(q->c, OUTCOME_DEFER, "unsupported dnsdb defer behaviour");
  if (str_istarts(m, STR("dnssec_")))
    return parse_behaviour(str_from(m, 7), &q->dnssec)
      ? 1 : ctx_fail(q->c, OUTCOME_DEFER, "unsupported dnsdb dnssec behaviour");
  if (str_istarts(m, STR("retrans_"))) {
    q->o.retrans = time_parse_interval(str_from(m, 8));
    return q->o.retrans > 0 ? 1 : ctx_fail(q->c, OUTCOME_DEFER, "unsupported dnsdb timeout value");
  }
  if (str_istarts(m, STR("retry_")))
    return str_to_i64(str_from(m, 6), &q->o.retry) && q->o.retry >= 0
      ? 1 : ctx_fail(q->c, OUTCOME_DEFER, "dnsdb modifier syntax error");
  return 0;
}

static const struct type *type_by_name(struct str name) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (str_ieq_c(name, types[i].name))
      return &types[i];
  return NULL;
}

static int parse(struct query *q, struct str s, struct str *ret_domains) {
  s = parse_separators(q, s);
  for (;;) {
    ptrdiff_t comma = str_find_byte(s, ',');
    int r = comma < 0 ? 0 : parse_modifier(q, str_trim(str_slice(s, 0, (size_t)comma)));
    if (r < 0)
      return r;
    if (r == 0)
      break;
    s = str_ltrim(str_from(s, (size_t)comma + 1));
  }
  q->type = type_by_name(STR("txt"));
  ptrdiff_t eq = str_find_byte(s, '=');
  if (eq >= 0) {
    struct str name = str_trim(str_slice(s, 0, (size_t)eq));
    if ((q->type = type_by_name(name)) == NULL)
      return ctx_fail(q->c, OUTCOME_DEFER, "unsupported DNS record type");
    s = str_ltrim(str_from(s, (size_t)eq + 1));
  }
  *ret_domains = s;
  return 0;
}

/* The root, which says "none" as a target, is shown as nothing. */
static struct str target(const struct dns_record *r) { return str_eq_c(r->text, ".") ? STR_EMPTY : r->text; }

static void add_fields(struct query *q, const struct dns_record *r, char sep) {
  struct buf *b = &q->out;
  switch (r->type) {
  case DNS_MX:
    if (q->type->pseudo != PSEUDO_MXH)
      buf_printf(b, "%d%c", r->preference, sep);
    buf_add(b, target(r));
    break;
  case DNS_SRV:
    buf_printf(b, "%d%c%d%c%d%c", r->preference, sep, r->weight, sep, r->port, sep);
    buf_add(b, target(r));
    break;
  case DNS_SOA:
    for (size_t i = 0; i < (q->field_given ? r->chunks_n : 1); i++) {
      if (i > 0)
        buf_add_byte(b, sep);
      buf_add(b, r->chunks[i]);
    }
    break;
  case DNS_TXT: case DNS_SPF:
    /* TXT: the first string, unless a separator says how to join them; SPF: all, joined. */
    for (size_t i = 0; i < (q->field_given || r->type == DNS_SPF ? r->chunks_n : r->chunks_n ? 1 : 0); i++) {
      if (i > 0 && q->field_given && q->field_separator)
        buf_add_byte(b, q->field_separator);
      buf_add(b, r->chunks[i]);
    }
    break;
  case DNS_TLSA:
    if (r->text.len < 3)
      return;
    buf_printf(b, "%d%c%d%c%d%c", (unsigned char)r->text.p[0], sep, (unsigned char)r->text.p[1], sep,
      (unsigned char)r->text.p[2], sep);
    for (size_t i = 3; i < r->text.len; i++)
      buf_printf(b, "%02x", (unsigned char)r->text.p[i]);
    break;
  default:
    buf_add(b, target(r));
  }
}

static void add_record(struct query *q, const struct dns_record *r) {
  if (q->any)
    buf_add_byte(&q->out, q->separator);
  q->any = true;
  add_fields(q, r, q->field_separator ? q->field_separator : ' ');
  q->out.taint |= STR_TAINTED;
}

static void add_answer(struct query *q, const struct dns_answer *a) {
  for (size_t i = 0; i < a->n; i++)
    add_record(q, &a->v[i]);
  q->secure &= a->secure;
  if (a->min_ttl < q->ttl)
    q->ttl = a->min_ttl;
}

/* One name and type; with parents if the type asks for them. */
static enum dns_result ask(struct query *q, struct str name, enum dns_type type, struct dns_answer *ret) {
  bool parents = q->type->pseudo == PSEUDO_ZNS || type == DNS_SOA;
  for (;;) {
    enum dns_result r = dns_query_with(q->c, q->c->arena, name, type, &q->o, ret);
    if (r == DNS_OK && q->dnssec == STRICT && !ret->secure)
      r = DNS_AGAIN;
    if ((r != DNS_NOMATCH && r != DNS_NODATA) || !parents)
      return r;
    ptrdiff_t dot = str_find_byte(name, '.');
    if (dot < 0 || (size_t)dot + 1 >= name.len)
      return r;
    name = str_from(name, (size_t)dot + 1);
  }
}

static enum dns_result ask_csa(struct query *q, struct str name) {
  struct dns_record rec;
  char code;
  enum dns_result r = dns_find_csa(q->c, q->c->arena, name, &rec, &code);
  if (r != DNS_OK)
    return r;
  if (q->any)
    buf_add_byte(&q->out, q->separator);
  q->any = true;
  q->secure = false; /* several answers made it, not all of them records that are shown */
  buf_printf(&q->out, "%c ", code);
  buf_add(&q->out, rec.text);
  return r;
}

/* OUTCOME_OK to go on, DEFER. */
static int note(struct query *q, enum dns_result r, struct str name) {
  if (r != DNS_AGAIN && r != DNS_FAIL)
    return OUTCOME_OK;
  if (q->defer == STRICT)
    return ctx_fail(q->c, OUTCOME_DEFER, "DNS lookup of \"%.*s\" failed temporarily", STRF(name));
  if (q->defer == LAX)
    q->again = true;
  return OUTCOME_OK;
}

static int find_domain(struct query *q, struct str name) {
  struct arena *a = q->c->arena;
  struct ip_addr ip;
  struct dns_answer answer;
  enum dns_type type = q->type->type;
  if (q->type->pseudo == PSEUDO_CSA)
    return note(q, ask_csa(q, name), name);
  if (type == DNS_PTR && ip_parse(name, &ip))
    name = ip_reverse_name(a, &ip, NULL);
  if (q->type->pseudo == PSEUDO_A_PLUS) {
    bool v6 = q->c->config == NULL || !main_options(q->c->config)->disable_ipv6;
    enum dns_result r = v6 ? ask(q, name, DNS_AAAA, &answer) : DNS_NODATA;
    if (r == DNS_OK)
      add_answer(q, &answer);
    int o = note(q, r, name);
    if (o != OUTCOME_OK)
      return o;
  }
  enum dns_result r = ask(q, name, type, &answer);
  if (r == DNS_OK)
    add_answer(q, &answer);
  return note(q, r, name);
}

static int dnsdb_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  struct query q = {.c = c, .defer = LAX, .dnssec = LAX, .secure = true, .ttl = UINT32_MAX};
  struct str domains;
  buf_init(&q.out, c->arena, RESULT_MAX);
  *ret_seconds = 0; /* the resolver has its own cache */
  int r = parse(&q, key, &domains);
  if (r < 0)
    return r;
  c->vars.lookup_dnssec_authenticated = STR_UNSET;
  struct ip_addr ip;
  if (q.type->type == DNS_PTR && ip_parse(str_trim(domains), &ip)) {
    r = find_domain(&q, str_trim(domains)); /* one IPv6 address is not a list */
  } else {
    struct list_iter iter;
    struct str name;
    list_iter_init_literal(&iter, c->arena, domains);
    for (int n = 0; r == OUTCOME_OK && list_next(&iter, &name); n++) {
      if (n >= DOMAINS_MAX)
        return ctx_fail(c, OUTCOME_DEFER, "more than %d domains in a dnsdb lookup", DOMAINS_MAX);
      r = find_domain(&q, name);
    }
  }
  if (q.dnssec != NEVER)
    c->vars.lookup_dnssec_authenticated = q.any && q.secure ? STR("yes") : STR("no");
  if (r != OUTCOME_OK)
    return r;
  if (!q.any)
    return q.again ? ctx_fail(c, OUTCOME_DEFER, "DNS lookup failed temporarily") : OUTCOME_FAIL;
  if (q.out.len == 0)
    return OUTCOME_FAIL; /* empty records */
  *ret = str_tainted(buf_str(&q.out));
  return OUTCOME_OK;
}

const struct lookup_def lookup_dnsdb = {.name = "dnsdb", .flags = LOOKUP_QUERY, .find = dnsdb_find};
