/* SPF against a table of names and answers: the grammar, each mechanism, the limits, the macros of RFC 7208. */
#include "mailauth/spf.h"

#include <stdlib.h>

#include "base/test.h"

static const struct rr {
  const char *name, *type, *data; /* of SERVFAIL the data does not count */
} zone[] = {
  /* records of one mechanism each, on d1.ex …: see the tests */
  {"pass.ex", "TXT", "v=spf1 +all"}, {"fail.ex", "TXT", "v=spf1 -all"}, {"soft.ex", "TXT", "v=spf1 ~all"},
  {"neutral.ex", "TXT", "v=spf1 ?all"}, {"empty.ex", "TXT", "v=spf1"}, {"upper.ex", "TXT", "V=SPF1 -ALL"},
  {"other.ex", "TXT", "some text"}, {"other.ex", "TXT", "v=spf10 -all"}, {"two.ex", "TXT", "v=spf1 -all"},
  {"two.ex", "TXT", "v=spf1 +all"}, {"mixed.ex", "TXT", "v=spf1 -all"}, {"mixed.ex", "TXT", "v=spf1x"},
  {"again.ex", "SERVFAIL", ""}, {"a.ex", "A", "192.0.2.1"}, {"a.ex", "A", "192.0.2.130"}, {"a.ex", "AAAA", "2001:db8::1"},
  {"mx.ex", "MX", "a.ex"}, {"mx.ex", "MX", "none.ex"}, {"mxagain.ex", "MX", "again.ex"},
  {"mx10.ex", "MX", "m0.ex"}, {"mx10.ex", "MX", "m1.ex"}, {"mx10.ex", "MX", "m2.ex"}, {"mx10.ex", "MX", "m3.ex"},
  {"mx10.ex", "MX", "m4.ex"}, {"mx10.ex", "MX", "m5.ex"}, {"mx10.ex", "MX", "m6.ex"}, {"mx10.ex", "MX", "m7.ex"},
  {"mx10.ex", "MX", "m8.ex"}, {"mx10.ex", "MX", "a.ex"},
  {"mx11.ex", "MX", "m0.ex"}, {"mx11.ex", "MX", "m1.ex"}, {"mx11.ex", "MX", "m2.ex"}, {"mx11.ex", "MX", "m3.ex"},
  {"mx11.ex", "MX", "m4.ex"}, {"mx11.ex", "MX", "m5.ex"}, {"mx11.ex", "MX", "m6.ex"}, {"mx11.ex", "MX", "m7.ex"},
  {"mx11.ex", "MX", "m8.ex"}, {"mx11.ex", "MX", "m9.ex"}, {"mx11.ex", "MX", "a.ex"},
  {"1.2.0.192.in-addr.arpa", "PTR", "wrong.ex"}, {"1.2.0.192.in-addr.arpa", "PTR", "A.ex"},
  {"1.2.0.192.in-addr.arpa", "PTR", "host.sub.ex"}, {"host.sub.ex", "A", "192.0.2.1"}, {"wrong.ex", "A", "192.0.2.9"},
  {"loop.ex", "TXT", "v=spf1 include:loop.ex -all"}, {"loop2.ex", "TXT", "v=spf1 redirect=loop2.ex"},
  {"bad.ex", "TXT", "v=spf1 foo:bar"}, {"explain.ex", "TXT", "No \x25{s} (\x25{i}), see http://\x25{d}/\x25{S}?r=\x25{r}&c=\x25{c}"},
  {"explain2.ex", "TXT", "one"}, {"explain2.ex", "TXT", "two"}, {"explain8.ex", "TXT", "caf\xc3\xa9"},
  {"explainbad.ex", "TXT", "\x25{x}"}, {"crlf.ex", "TXT", "a\r\nb"}, {"long.ex", "TXT", "time \x25{t}"},
  {"expfail.ex", "TXT", "v=spf1 -all exp=explain.ex"}, {"redexp.ex", "TXT", "v=spf1 redirect=expfail.ex exp=long.ex"},
  {"incexp.ex", "TXT", "v=spf1 include:expfail.ex -all"},
  {"1.2.0.192.in-addr.u.pass.ex.m.ex", "A", "127.0.0.2"},
  {"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.m.ex", "A", "127.0.0.2"},
};

static struct str record;    /* of "it.ex" */
static int queries;

static bool add(struct arena *a, struct dns_answer *ret, enum dns_type type, const struct rr *r) {
  struct dns_record *v = arena_array(a, struct dns_record, ret->n + 1);
  if (ret->n > 0)
    memcpy(v, ret->v, ret->n * sizeof *v);
  v[ret->n].type = type;
  v[ret->n].text = str_c(r->data);
  ip_parse(str_c(r->data), &v[ret->n].ip);
  ret->v = v;
  ret->n++;
  return true;
}

static enum dns_result query(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  const char *kind = type == DNS_A ? "A" : type == DNS_AAAA ? "AAAA" : type == DNS_MX ? "MX" : type == DNS_PTR ? "PTR" : "TXT";
  bool exists = false;
  *ret = (struct dns_answer){0};
  queries++;
  if (str_ieq_c(name, "it.ex") && type == DNS_TXT) {
    struct rr r = {"it.ex", "TXT", str_dup_c(a, record)};
    return add(a, ret, type, &r) ? DNS_OK : DNS_NODATA;
  }
  for (size_t i = 0; i < sizeof zone / sizeof *zone; i++) {
    if (!str_ieq_c(name, zone[i].name))
      continue;
    if (strcmp(zone[i].type, "SERVFAIL") == 0)
      return DNS_AGAIN;
    exists = true;
    if (strcmp(zone[i].type, kind) == 0)
      add(a, ret, type, &zone[i]);
  }
  return ret->n > 0 ? DNS_OK : exists ? DNS_NODATA : DNS_NOMATCH;
}

static int64_t clock_step;
static int64_t clock_now;
static int64_t now(void *arg) { return clock_now += clock_step; }

static const struct spf_dns dns = {query, now, NULL};

static struct spf_answer ask(struct arena *a, const char *ip, const char *sender, const char *helo) {
  struct spf_identity who = {.sender = str_c(sender), .helo = str_c(helo), .receiver = STR("mx.test")};
  struct spf_answer answer;
  assert_true(ip_parse(str_c(ip), &who.ip));
  queries = 0;
  clock_now = 1000000000;
  spf_check(a, &dns, &who, &answer);
  return answer;
}

static void test_selection(void **state) {
  static const struct {
    const char *sender, *helo, *result;
  } cases[] = {
    {"u@pass.ex", "h.ex", "pass"}, {"u@fail.ex", "h.ex", "fail"}, {"u@soft.ex", "h.ex", "softfail"},
    {"u@neutral.ex", "h.ex", "neutral"}, {"u@empty.ex", "h.ex", "neutral"}, {"u@upper.ex", "h.ex", "fail"},
    {"u@other.ex", "h.ex", "none"}, {"u@two.ex", "h.ex", "permerror"}, {"u@mixed.ex", "h.ex", "fail"},
    {"u@nothing.ex", "h.ex", "none"}, {"u@a.ex", "h.ex", "none"}, {"u@again.ex", "h.ex", "temperror"},
    {"u@bad.ex", "h.ex", "permerror"}, {"", "fail.ex", "fail"}, {"", "[192.0.2.1]", "none"}, {"", "single", "none"},
    {"@fail.ex", "h.ex", "fail"}, {"u@[192.0.2.1]", "h.ex", "none"}, {"u@a..ex", "h.ex", "none"}, {"u@.ex", "h.ex", "none"},
    {"a@b@fail.ex", "h.ex", "fail"}, {"u@fail.ex.", "h.ex", "fail"}, {"u@localhost", "h.ex", "none"},
    {"u@a123456789b123456789c123456789d123456789e123456789f123456789g123.ex", "h.ex", "none"},
  };
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct spf_answer r = ask(a, "192.0.2.1", cases[i].sender, cases[i].helo);
    if (strcmp(spf_result_name(r.result), cases[i].result) != 0)
      fail_msg("%s: %s, not %s", cases[i].sender, spf_result_name(r.result), cases[i].result);
  }
  arena_free(a);
}

/* The record of it.ex, for 192.0.2.1 and u@it.ex unless told otherwise. */
static const struct {
  const char *record, *result, *ip;
} records[] = {
  {"v=spf1   -all  ", "fail", NULL}, {"v=spf1 all:x -all", "permerror", NULL}, {"v=spf1 all/8", "permerror", NULL},
  {"v=spf1 all.", "permerror", NULL}, {"v=spf1 +all -foo", "permerror", NULL}, {"v=spf1 ++all", "permerror", NULL},
  {"v=spf1\t-all", "none", NULL}, {"v=spf1 ip4:192.0.2.1\t-all", "permerror", NULL}, {"v=spf1 caf\xc3\xa9=x -all", "permerror", NULL},
  /* ip4 */
  {"v=spf1 ip4:192.0.2.1 -all", "pass", NULL}, {"v=spf1 ip4:192.0.2.0/24 -all", "pass", NULL},
  {"v=spf1 ip4:192.0.3.0/24 -all", "fail", NULL}, {"v=spf1 ip4:10.0.0.0/0 -all", "pass", NULL},
  {"v=spf1 ip4:192.0.2.1/33", "permerror", NULL}, {"v=spf1 ip4:192.0.2.1/032", "permerror", NULL},
  {"v=spf1 ip4:192.0.2.1/", "permerror", NULL}, {"v=spf1 ip4:192.0.2", "permerror", NULL}, {"v=spf1 ip4", "permerror", NULL},
  {"v=spf1 ip4:192.0.2.1:25", "permerror", NULL}, {"v=spf1 ip4:192.0.2.01", "permerror", NULL},
  {"v=spf1 ip4:", "permerror", NULL}, {"v=spf1 ip4:2001:db8::1", "permerror", NULL}, {"v=spf1 ip4:192.0.2.1//32", "permerror", NULL},
  {"v=spf1 ip4:192.0.2.1 -all", "pass", "::ffff:192.0.2.1"}, {"v=spf1 ip4:0.0.0.0/0 -all", "fail", "2001:db8::1"},
  /* ip6 */
  {"v=spf1 ip6:2001:db8::1 -all", "pass", "2001:db8::1"}, {"v=spf1 ip6:2001:db8::/32 -all", "pass", "2001:db8::1"},
  {"v=spf1 ip6:::/0 -all", "pass", "2001:db8::1"}, {"v=spf1 ip6:::/0 -all", "fail", NULL},
  {"v=spf1 ip6:::/0 -all", "fail", "::ffff:192.0.2.1"}, {"v=spf1 ip6:::1/129", "permerror", NULL},
  {"v=spf1 ip6:::1//33", "permerror", NULL}, {"v=spf1 ip6:192.0.2.1", "permerror", NULL}, {"v=spf1 ip6", "permerror", NULL},
  {"v=spf1 ip6:fe80::1\x25" "eth0", "permerror", NULL},
  /* a */
  {"v=spf1 a:a.ex -all", "pass", NULL}, {"v=spf1 a:A.EX. -all", "pass", NULL}, {"v=spf1 a -all", "fail", NULL},
  {"v=spf1 a:a.ex/24 -all", "pass", "192.0.2.99"}, {"v=spf1 a:a.ex/24 -all", "fail", "192.0.3.99"},
  {"v=spf1 a:a.ex -all", "pass", "192.0.2.130"}, {"v=spf1 a:a.ex//64 -all", "pass", "2001:db8::99"},
  {"v=spf1 a:a.ex/24//64 -all", "pass", "192.0.2.99"}, {"v=spf1 a:a.ex/24//128 -all", "fail", "2001:db8::99"},
  {"v=spf1 a:a.ex/0 -all", "pass", "10.0.0.1"}, {"v=spf1 a:none.ex/0 -all", "fail", NULL},
  {"v=spf1 a:a.ex/33", "permerror", NULL}, {"v=spf1 a:a.ex//129", "permerror", NULL}, {"v=spf1 a:a.ex/", "permerror", NULL},
  {"v=spf1 a:a.ex/032", "permerror", NULL}, {"v=spf1 a/32 -all", "fail", NULL}, {"v=spf1 a/ -all", "permerror", NULL},
  {"v=spf1 a: -all", "permerror", NULL}, {"v=spf1 a:museum -all", "permerror", NULL}, {"v=spf1 a:museum. -all", "permerror", NULL},
  {"v=spf1 a:192.0.2.1 -all", "permerror", NULL}, {"v=spf1 a:x.no$such -all", "permerror", NULL},
  {"v=spf1 a:x.a-b -all", "fail", NULL}, {"v=spf1 a:x.-b -all", "permerror", NULL}, {"v=spf1 a:x.b- -all", "permerror", NULL},
  {"v=spf1 a:foo:bar/baz.a.ex -all", "fail", NULL}, {"v=spf1 a:a.ex/24x -all", "permerror", NULL},
  {"v=spf1 a:again.ex -all", "temperror", NULL}, {"v=spf1 ip4:192.0.2.1 a:again.ex -all", "pass", NULL},
  {"v=spf1 a:a..ex -all", "fail", NULL},
  /* mx */
  {"v=spf1 mx:mx.ex -all", "pass", NULL}, {"v=spf1 mx:a.ex -all", "fail", NULL}, {"v=spf1 mx:mx.ex/24 -all", "pass", "192.0.2.77"},
  {"v=spf1 mx:mx.ex//32 -all", "pass", "2001:db8:ffff::1"}, {"v=spf1 mx:mx10.ex -all", "pass", NULL},
  {"v=spf1 mx:mx11.ex -all", "permerror", NULL}, {"v=spf1 mx:mxagain.ex -all", "temperror", NULL}, {"v=spf1 mx/abc", "permerror", NULL},
  {"v=spf1 mx: -all", "permerror", NULL}, {"v=spf1 mx -all", "fail", NULL},
  /* ptr */
  {"v=spf1 ptr:a.ex -all", "pass", NULL}, {"v=spf1 ptr:sub.ex -all", "pass", NULL}, {"v=spf1 ptr:ub.ex -all", "fail", NULL},
  {"v=spf1 ptr:wrong.ex -all", "fail", NULL}, {"v=spf1 ptr -all", "fail", NULL}, {"v=spf1 ptr/24", "permerror", NULL},
  {"v=spf1 ptr: -all", "permerror", NULL}, {"v=spf1 ptr:a.ex -all", "fail", "192.0.2.2"},
  /* exists */
  {"v=spf1 exists:a.ex -all", "pass", NULL}, {"v=spf1 exists:a.ex -all", "pass", "2001:db8::9"},
  {"v=spf1 exists:mx.ex -all", "fail", NULL}, {"v=spf1 exists", "permerror", NULL}, {"v=spf1 exists:", "permerror", NULL},
  {"v=spf1 exists:a.ex/24", "permerror", NULL}, {"v=spf1 exists:again.ex -all", "temperror", NULL},
  {"v=spf1 exists:\x25{ir}.\x25{v}.u.pass.ex.m.ex -all", "pass", NULL}, {"v=spf1 exists:\x25{ir}.\x25{v}.m.ex -all", "pass", "2001:db8::1"},
  /* include */
  {"v=spf1 include:pass.ex -all", "pass", NULL}, {"v=spf1 -include:pass.ex +all", "fail", NULL},
  {"v=spf1 include:fail.ex ~all", "softfail", NULL}, {"v=spf1 include:soft.ex -all", "fail", NULL},
  {"v=spf1 include:neutral.ex -all", "fail", NULL}, {"v=spf1 include:other.ex -all", "permerror", NULL},
  {"v=spf1 include:nothing.ex -all", "permerror", NULL}, {"v=spf1 include:bad.ex -all", "permerror", NULL},
  {"v=spf1 include:again.ex -all", "temperror", NULL}, {"v=spf1 include -all", "permerror", NULL},
  {"v=spf1 include:pass.ex/24", "permerror", NULL}, {"v=spf1 include: -all", "permerror", NULL},
  {"v=spf1 include:loop.ex -all", "permerror", NULL},
  /* redirect, exp, other modifiers */
  {"v=spf1 redirect=pass.ex", "pass", NULL}, {"v=spf1 redirect=pass.ex ip4:192.0.2.1/32", "pass", NULL},
  {"v=spf1 redirect=pass.ex -all", "fail", NULL}, {"v=spf1 redirect=other.ex", "permerror", NULL},
  {"v=spf1 redirect=again.ex", "temperror", NULL}, {"v=spf1 redirect=loop2.ex", "permerror", NULL},
  {"v=spf1 redirect=pass.ex redirect=fail.ex", "permerror", NULL}, {"v=spf1 redirect= -all", "permerror", NULL},
  {"v=spf1 redirect:pass.ex", "permerror", NULL}, {"v=spf1 exp=a.ex exp=b.ex -all", "permerror", NULL},
  {"v=spf1 exp= -all", "permerror", NULL}, {"v=spf1 exp=-all", "permerror", NULL}, {"v=spf1 =x -all", "permerror", NULL},
  {"v=spf1 1x=y -all", "permerror", NULL}, {"v=spf1 a+b=c -all", "permerror", NULL}, {"v=spf1 moo=cow -all", "fail", NULL},
  {"v=spf1 moo= -all", "fail", NULL}, {"v=spf1 moo.cow-far_out=man:dog/cat ip4:192.0.2.1 -all", "pass", NULL},
  {"v=spf1 moo=\x25 -all", "permerror", NULL}, {"v=spf1 moo=\x25{x} -all", "permerror", NULL}, {"v=spf1 -moo=x -all", "permerror", NULL},
  /* macros */
  {"v=spf1 exists:\x25{x}.a.ex -all", "permerror", NULL}, {"v=spf1 exists:\x25{c}.a.ex -all", "permerror", NULL},
  {"v=spf1 exists:\x25(i).a.ex -all", "permerror", NULL}, {"v=spf1 exists:\x25{d0}.ex -all", "permerror", NULL},
  {"v=spf1 exists:\x25{d5r+/} -all", "fail", NULL}, {"v=spf1 exists:\x25{d", "permerror", NULL},
  {"v=spf1 exists:\x25{dd} -all", "permerror", NULL}, {"v=spf1 exists:\x25", "permerror", NULL}, {"v=spf1 exists:a.ex\x25{} -all", "permerror", NULL},
  {"v=spf1 exists:\x25{ir}.x} -all", "permerror", NULL}, {"v=spf1 exists:x.\x25\x25 -all", "fail", NULL},
  /* limits */
  {"v=spf1 a:a.ex a:a.ex mx:mx.ex a:a.ex a:a.ex a:a.ex a:a.ex a:a.ex a:a.ex exists:a.ex -all", "pass", "192.0.9.9"},
  {"v=spf1 -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex +all", "pass", "192.0.9.9"},
  {"v=spf1 -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex -a:a.ex +all", "permerror", "192.0.9.9"},
  {"v=spf1 a:n1.ex a:n2.ex ?all", "neutral", NULL}, {"v=spf1 a:n1.ex a:n2.ex a:n3.ex ?all", "permerror", NULL},
  {"v=spf1 a:n1.ex mx:a.ex exists:n3.ex ?all", "permerror", NULL},
};

static void test_records(void **state) {
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
    record = str_c(records[i].record);
    const char *want = records[i].result;
    struct spf_answer r = ask(a, records[i].ip ? records[i].ip : "192.0.2.1", "u@it.ex", "h.ex");
    if (strcmp(spf_result_name(r.result), want) != 0)
      fail_msg("\"%s\": %s, not %s (%.*s)", records[i].record, spf_result_name(r.result), want, STRF(r.problem));
    if (r.result == SPF_PERMERROR || r.result == SPF_TEMPERROR)
      assert_true(str_is_set(r.problem) && r.problem.len > 0);
    assert_true(queries <= 130);
  }
  arena_free(a);
}

static void test_macros(void **state) {
  static const struct {
    const char *text, *value;
  } cases[] = {
    {"\x25{s}", "strong-bad@email.example.com"}, {"\x25{o}", "email.example.com"}, {"\x25{d}", "email.example.com"},
    {"\x25{d4}", "email.example.com"}, {"\x25{d3}", "email.example.com"}, {"\x25{d2}", "example.com"}, {"\x25{d1}", "com"},
    {"\x25{dr}", "com.example.email"}, {"\x25{d2r}", "example.email"}, {"\x25{l}", "strong-bad"}, {"\x25{l-}", "strong.bad"},
    {"\x25{lr}", "strong-bad"}, {"\x25{lr-}", "bad.strong"}, {"\x25{l1r-}", "strong"}, {"\x25{h}", "h.ex"}, {"\x25{D}", "email.example.com"},
    {"\x25{S}", "strong-bad\x25" "40email.example.com"}, {"\x25{ir}.\x25{v}._spf.\x25{d2}", "3.2.0.192.in-addr._spf.example.com"},
    {"\x25{lr-}.lp._spf.\x25{d2}", "bad.strong.lp._spf.example.com"}, {"\x25{l1r-}.lp.\x25{ir}.\x25{v}", "strong.lp.3.2.0.192.in-addr"},
    {"a\x25\x25" "b\x25_c\x25-", "a\x25" "b c\x25" "20"}, {"\x25{p}", "unknown"}, {"\x25{c} \x25{r} \x25{t}", "192.0.2.3 mx.test 77"},
    {"\x25{d99999999999}", "email.example.com"}, {"\x25{I}", "192.0.2.3"}, {"\x25{l2-.}x", "strong.badx"},
  };
  struct arena *a = arena_new("test");
  struct spf_macros m = {.local_part = STR("strong-bad"), .sender_domain = STR("email.example.com"), .helo = STR("h.ex"),
    .domain = STR("email.example.com"), .validated = STR("unknown"), .receiver = STR("mx.test"), .now = 77};
  assert_true(ip_parse(STR("192.0.2.3"), &m.ip));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct buf b;
    buf_init(&b, a, 1000);
    assert_true(spf_macro_check(str_c(cases[i].text), SPF_EXPLANATION));
    assert_true(spf_macro_expand(str_c(cases[i].text), SPF_EXPLANATION, &m, &b));
    assert_str(buf_str(&b), cases[i].value);
  }
  struct buf b;
  buf_init(&b, a, 10);
  assert_false(spf_macro_expand(STR("\x25{s}"), SPF_EXPLANATION, &m, &b));
  arena_free(a);
}

/* Long names lose labels at the left; %p prefers the domain; foreign local parts are no names. */
static void test_names(void **state) {
  struct arena *a = arena_new("test");
  char sender[400];
  for (int i = 0; i < 25; i++)
    snprintf(sender + 10 * i, sizeof sender - (size_t)(10 * i), "abcdefghi.");
  snprintf(sender + 250, sizeof sender - 250, "x@it.ex");
  record = STR("v=spf1 exists:\x25{l}.a.ex -all");
  assert_int_equal(ask(a, "192.0.2.1", sender, "h.ex").result, SPF_FAIL);
  assert_int_equal(queries, 2);
  record = STR("v=spf1 exists:\x25{p} -all");
  assert_int_equal(ask(a, "192.0.2.1", "u@it.ex", "h.ex").result, SPF_PASS);
  record = STR("v=spf1 exists:\x25{l}.\x25{d} -all");
  assert_int_equal(ask(a, "192.0.2.1", "caf\xc3\xa9@it.ex", "h.ex").result, SPF_FAIL);
  assert_int_equal(queries, 1);
  arena_free(a);
}

static void test_explanations(void **state) {
  static const struct {
    const char *record, *text;
  } cases[] = {
    {"v=spf1 -all exp=explain.ex", "No u@it.ex (192.0.2.1), see http://it.ex/u\x25" "40it.ex?r=mx.test&c=192.0.2.1"},
    {"v=spf1 -all exp=explain2.ex", NULL}, {"v=spf1 -all exp=explain8.ex", NULL}, {"v=spf1 -all exp=explainbad.ex", NULL},
    {"v=spf1 -all exp=crlf.ex", NULL}, {"v=spf1 -all exp=none.ex", NULL}, {"v=spf1 -all exp=again.ex", NULL}, {"v=spf1 -all", NULL},
    {"v=spf1 -all exp=long.ex", "time 1000000000"}, {"v=spf1 ~all exp=explain.ex", NULL},
    {"v=spf1 redirect=expfail.ex", "No u@it.ex (192.0.2.1), see http://expfail.ex/u\x25" "40it.ex?r=mx.test&c=192.0.2.1"},
    {"v=spf1 redirect=redexp.ex", "No u@it.ex (192.0.2.1), see http://expfail.ex/u\x25" "40it.ex?r=mx.test&c=192.0.2.1"},
    {"v=spf1 include:expfail.ex -all", NULL}, {"v=spf1 include:expfail.ex -all exp=long.ex", "time 1000000000"},
  };
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    record = str_c(cases[i].record);
    struct spf_answer r = ask(a, "192.0.2.1", "u@it.ex", "h.ex");
    if (cases[i].text)
      assert_str(r.explanation, cases[i].text);
    else
      assert_false(str_is_set(r.explanation));
  }
  arena_free(a);
}

static void test_guess_and_time(void **state) {
  struct arena *a = arena_new("test");
  struct spf_identity who = {.sender = STR("u@a.ex"), .helo = STR("h.ex")};
  struct spf_answer r;
  assert_true(ip_parse(STR("192.0.2.77"), &who.ip));
  spf_check_record(a, &dns, &who, STR("v=spf1 a/24 mx/24 ptr ?all"), &r);
  assert_int_equal(r.result, SPF_PASS);
  assert_str(r.mechanism, "a/24");
  record = STR("v=spf1 a:n.ex a:a.ex -all");
  clock_step = SPF_SECONDS_MAX;
  assert_int_equal(ask(a, "192.0.2.1", "u@it.ex", "h.ex").result, SPF_TEMPERROR);
  clock_step = 0;
  struct str big = str_n(arena_alloc(a, SPF_RECORD_MAX + 1), SPF_RECORD_MAX + 1);
  memset((char *)big.p, ' ', big.len);
  memcpy((char *)big.p, "v=spf1", 6);
  record = big;
  assert_int_equal(ask(a, "192.0.2.1", "u@it.ex", "h.ex").result, SPF_PERMERROR);
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_selection), cmocka_unit_test(test_records), cmocka_unit_test(test_macros),
    cmocka_unit_test(test_names), cmocka_unit_test(test_explanations), cmocka_unit_test(test_guess_and_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
