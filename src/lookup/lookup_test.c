#include "lookup/lookup.h"

#include <stdlib.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/test.h"
#include "lookup/lsearch_file.h"

static struct arena *a;
static struct ctx *c;
static char dir[] = "/tmp/lookup_test.XXXXXX";
static const char *const files[] = {"ls", "ips", "wild", "nwild", "db.sqlite", "d/entry", "one.cdb", "short.cdb", "new"};

static struct str path(const char *name) { return str_printf(a, "%s/%s", dir, name); }

static void write_bytes(const char *name, const char *text, size_t n) {
  FILE *f = fopen(path(name).p, "w");
  assert_non_null(f);
  fwrite(text, 1, n, f);
  fclose(f);
}

static void write_file(const char *name, const char *text) { write_bytes(name, text, strlen(text)); }

/* A cdb file with one record, as the format says. */
static void write_cdb(const char *name, const char *key, const char *value) {
  static unsigned char p[4096];
  uint32_t hash = 5381, klen = (uint32_t)strlen(key), vlen = (uint32_t)strlen(value);
  for (uint32_t i = 0; i < klen; i++)
    hash = (hash * 33) ^ (unsigned char)key[i];
  uint32_t table = 2048 + 8 + klen + vlen, slot = (hash >> 8) % 2;
  memset(p, 0, sizeof p);
  for (uint32_t i = 0; i < 256; i++)
    memcpy(p + i * 8, &table, 4);
  memcpy(p + (hash & 255) * 8 + 4, &(uint32_t){2}, 4);
  memcpy(p + 2048, &klen, 4);
  memcpy(p + 2052, &vlen, 4);
  memcpy(p + 2056, key, klen);
  memcpy(p + 2056 + klen, value, vlen);
  memcpy(p + table + slot * 8, &hash, 4);
  memcpy(p + table + slot * 8 + 4, &(uint32_t){2048}, 4);
  write_bytes(name, (const char *)p, table + 16);
}

static int setup(void **state) {
  a = arena_new("test");
  assert_non_null(mkdtemp(dir));
  assert_int_equal(mkdir(path("d").p, 0700), 0);
  assert_int_equal(mkdir(path("d/sub").p, 0700), 0);
  write_file("d/entry", "");
  write_file("ls", "# comment\n*.pass.wd: partial data\n*@pass.wd: at data\n\"f oo:x\": quoted\ncont: one\n  two  \n# c\n\n"
                   "\tthree\tx\ncont2 : one   \n  two  \n\"q\" : rest\nnocolon a b\ncolondata: :fail:\ncolondata2 :fail:\n"
                   "CONT: second\n\"k\\\"l\\x41\\n\": esc\nlast");
  write_file("ips", "1.2.3.4: a\n1.2.0.0/16 b\n\"abcd::/16\": c\n*: star\n");
  write_file("wild", "*.a.b: ok\n^\\N(\\d)\\dx\\N: digits\n\"qu ote\": z\n");
  write_file("nwild", "^(\\d)\\dy: dig2\n*a.b: t\n");
  write_cdb("one.cdb", "key", "value");
  write_file("short.cdb", "x");
  c = ctx_new(a, NULL);
  return 0;
}

static int teardown(void **state) {
  lookup_tidy();
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    unlink(path(files[i]).p);
  rmdir(path("d/sub").p);
  rmdir(path("d").p);
  rmdir(dir);
  arena_free(a);
  return 0;
}

static int find(const char *type, const char *file, const char *key, struct str *ret) {
  struct lookup_spec spec;
  struct str error = STR_EMPTY;
  if (lookup_parse(a, str_c(type), &spec, &error) != OUTCOME_OK)
    fail_msg("%s: %.*s", type, STRF(error));
  *ret = STR_UNSET;
  return lookup_find(c, &spec, file ? path(file) : STR_UNSET, str_c(key), true, ret);
}

static void found(const char *type, const char *file, const char *key, const char *value) {
  struct str got;
  int r = find(type, file, key, &got);
  if (r != OUTCOME_OK || !str_eq_c(got, value))
    fail_msg("%s %s: %d '%.*s' %.*s", type, key, r, STRF(got), STRF(c->error));
}

static void not_found(const char *type, const char *file, const char *key) {
  struct str got;
  int r = find(type, file, key, &got);
  if (r != OUTCOME_FAIL)
    fail_msg("%s %s: %d '%.*s'", type, key, r, STRF(got));
}

static void refused(const char *type, const char *file, const char *key, int outcome, const char *error) {
  struct str got, want = str_c(error);
  ptrdiff_t at = str_find(want, STR("%D"));
  if (at >= 0)
    want = str_printf(a, "%.*s%s%.*s", (int)at, want.p, dir, STRF(str_from(want, (size_t)at + 2)));
  int r = find(type, file, key, &got);
  if (r != outcome || !str_eq(c->error, want))
    fail_msg("%s %s: %d '%.*s'", type, key, r, STRF(c->error));
}

static void parse_error(const char *type, const char *error) {
  struct lookup_spec spec;
  struct str got = STR_EMPTY;
  assert_int_equal(lookup_parse(a, str_c(type), &spec, &got), OUTCOME_ERROR);
  assert_str(got, error);
}

static void test_parse(void **state) {
  struct lookup_spec s;
  struct str error;
  assert_int_equal(lookup_parse(a, STR("partial3(.)lsearch*@,ret=full,cache=no"), &s, &error), OUTCOME_OK);
  assert_int_equal(s.partial, 3);
  assert_str(s.affix, ".");
  assert_int_equal(s.defaulting, LOOKUP_STAR_AT);
  assert_str(s.options, "ret=full,cache=no");
  assert_str(lookup_option(s.options, "cache"), "no");
  assert_false(str_is_set(lookup_option(s.options, "re")));
  assert_int_equal(lookup_parse(a, STR("partial0()cdb"), &s, &error), OUTCOME_OK);
  assert_int_equal(s.partial, 0);
  assert_str(s.affix, "");
  parse_error("nosuch", "unknown lookup type \"nosuch\"");
  parse_error("partial-nosuch", "unknown lookup type \"nosuch\"");
  parse_error("partialx-lsearch*", "format error in lookup type \"partialx-lsearch*\"");
  parse_error("partial(lsearch*", "format error in lookup type \"partial(lsearch*\"");
  parse_error("partial-passwd", "\"partial\" is not permitted for lookup type \"passwd\"");
  parse_error("dnsdb*", "defaults using \"*\" or \"*@\" are not permitted for lookup type \"dnsdb*\"");
}

static void test_lsearch(void **state) {
  found("lsearch", "ls", "f oo:x", "quoted");
  found("lsearch", "ls", "cont", "one two three\tx");
  found("lsearch,ret=full", "ls", "cont2", "cont2 : one two");
  found("lsearch,ret=full", "ls", "Q", "q : rest");
  found("lsearch,ret=key", "ls", "Q", "Q");
  found("lsearch", "ls", "nocolon", "a b");
  found("lsearch", "ls", "colondata", ":fail:");
  found("lsearch", "ls", "colondata2", "fail:");
  found("lsearch", "ls", "k\"lA\n", "esc");
  found("lsearch", "ls", "last", "");
  not_found("lsearch", "ls", "nope");
  not_found("lsearch", "ls", "");
  not_found("lsearch", "ls", "three");
  refused("lsearch", "none", "x", OUTCOME_ERROR, "failed to open %D/none for linear search: No such file or directory");
  refused("lsearch", "d", "x", OUTCOME_ERROR, "%D/d is not a regular file (lsearch lookup)");
}

static void test_defaults(void **state) {
  found("partial0-lsearch", "ls", "a.b.pass.wd", "partial data");
  assert_str(c->expand.capture[1], "a.b");
  assert_str(c->expand.capture[2], "pass.wd");
  found("partial-lsearch", "ls", "pass.wd", "partial data");
  assert_str(c->expand.capture[1], "");
  not_found("partial3-lsearch", "ls", "a.pass.wd");
  found("lsearch*@", "ls", "foo@pass.wd", "at data");
  not_found("lsearch*", "ls", "foo@pass.wd");
  found("iplsearch*", "ips", "9.9.9.9", "star");
  assert_str(c->expand.capture[1], "9.9.9.9");
}

/* The keys that partial matching asks for, in order: each file has only one of them. */
static void test_partial_order(void **state) {
  static const struct {
    const char *type, *key, *in_file;
    bool found;
  } cases[] = {
    {"partial-lsearch", "2250.dates.fict.example", "*.2250.dates.fict.example", true},
    {"partial-lsearch", "2250.dates.fict.example", "*.fict.example", true},
    {"partial-lsearch", "2250.dates.fict.example", "*.example", false},
    {"partial-lsearch", "2250.dates.fict.example", "fict.example", false},
    {"partial1-lsearch", "a.b", "*.b", true}, {"partial(.)lsearch", "a.b.c", ".a.b.c", true},
    {"partial(.)lsearch", "a.b.c", ".b.c", true}, {"partial(.)lsearch", "a.b.c", ".c", false},
    {"partial1()lsearch", "a.b.c", "c", true}, {"partial2()lsearch", "a.b.c", "c", false},
    {"partial0-lsearch", "a.b.c", "*", true}, {"partial0(.)lsearch", "a.b.c", ".", true},
    {"partial0()lsearch", "a.b.c", "*", false}, {"partial0(+-)lsearch", "a.b.c", "+-", true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_file("new", str_printf(a, "%s: x\n", cases[i].in_file).p);
    struct str got;
    char type[64];
    snprintf(type, sizeof type, "%s,cache=no", cases[i].type);
    int r = find(type, "new", cases[i].key, &got);
    if (r != (cases[i].found ? OUTCOME_OK : OUTCOME_FAIL))
      fail_msg("%s %s in %s: %d", cases[i].type, cases[i].key, cases[i].in_file, r);
  }
}

static void test_iplsearch(void **state) {
  found("iplsearch", "ips", "1.2.3.4", "a");
  found("iplsearch", "ips", "1.2.9.4", "b");
  found("iplsearch", "ips", "abcd::1", "c");
  found("iplsearch", "ips", "*", "star");
  not_found("iplsearch", "ips", "7.7.7.7");
  refused("iplsearch", "ips", "1.2.0.0/16", OUTCOME_DEFER, "\"1.2.0.0/16\" is not a valid iplsearch key (an IP address, with "
    "optional CIDR mask, is wanted): in a host list, use net-iplsearch as the search type");
}

static void test_wildlsearch(void **state) {
  found("wildlsearch", "wild", "x.a.b", "ok");
  found("wildlsearch", "wild", "12X", "digits");
  found("wildlsearch", "wild", "qu ote", "z");
  found("nwildlsearch", "nwild", "12y", "dig2");
  found("nwildlsearch", "nwild", "xa.b", "t");
  not_found("nwildlsearch", "nwild", "z");
}

static void test_dsearch(void **state) {
  found("dsearch", "d", "entry", "entry");
  not_found("dsearch", "d", "Entry");
  found("dsearch,ret=full", "d", "sub", path("d/sub").p);
  found("dsearch,filter=dir", "d", "sub", "sub");
  found("dsearch,filter=dir", "d", "..", "..");
  not_found("dsearch,filter=subdir", "d", "..");
  not_found("dsearch,filter=file", "d", "sub");
  found("dsearch,filter=file", "d", "entry", "entry");
  found("dsearch,key=path", "", "d/entry", "d/entry");
  refused("dsearch", "d", "a/b", OUTCOME_DEFER, "key for dsearch lookup contains a slash: a/b");
  refused("dsearch,key=path", "d", "sub/../entry", OUTCOME_DEFER,
    "key for dsearch lookup contains a '..' component: sub/../entry");
  refused("dsearch", "none", "a", OUTCOME_ERROR, "failed to open %D/none for directory search: No such file or directory");
  refused("dsearch", "ls", "a", OUTCOME_ERROR, "failed to open %D/ls for directory search: Not a directory");
  struct lookup_spec spec;
  struct str error, got;
  assert_int_equal(lookup_parse(a, STR("dsearch"), &spec, &error), OUTCOME_OK);
  assert_int_equal(lookup_find(c, &spec, STR("."), STR("a"), false, &got), OUTCOME_ERROR);
  assert_str(c->error, "dirname '.' for dsearch is not absolute");
  assert_int_equal(lookup_find(c, &spec, path("d"), str_tainted(STR("entry")), false, &got), OUTCOME_OK);
  assert_false(str_is_tainted(got));
  assert_int_equal(lookup_find(c, &spec, str_tainted(path("d")), STR("entry"), false, &got), OUTCOME_ERROR);
}

static void test_cache(void **state) {
  not_found("dsearch", "d", "late");
  write_file("d/late", "");
  not_found("dsearch", "d", "late");
  found("dsearch,cache=no_wr,ret=full", "d", "late", path("d/late").p);
  not_found("dsearch", "d", "late");
  found("dsearch,cache=no", "d", "late", "late");
  not_found("dsearch", "d", "late");
  found("dsearch,cache=no_rd", "d", "late", "late");
  unlink(path("d/late").p);
  found("dsearch", "d", "late", "late");
  not_found("dsearch,cache=no_rd", "d", "late");
  not_found("dsearch", "d", "late");
  /* Another message starts afresh. */
  write_file("d/late", "");
  c->message = (struct message *)1;
  found("dsearch", "d", "late", "late");
  c->message = NULL;
  unlink(path("d/late").p);
}

static void test_file_change(void **state) {
  write_file("new", "key: one\n");
  found("lsearch,cache=no", "new", "key", "one");
  write_file("new", "key: two\n");
  found("lsearch,cache=no", "new", "key", "two");
}

static void test_cdb(void **state) {
  found("cdb", "one.cdb", "key", "value");
  not_found("cdb", "one.cdb", "Key");
  not_found("cdb", "one.cdb", "kex");
  refused("cdb", "short.cdb", "x", OUTCOME_ERROR, "cdb: file %D/short.cdb is too short");
  refused("cdb", "none", "x", OUTCOME_ERROR, "failed to open %D/none for cdb lookup: No such file or directory");
}

static void test_passwd(void **state) {
  struct str got;
  assert_int_equal(find("passwd", NULL, "root", &got), OUTCOME_OK);
  assert_true(str_starts(got, STR("*:0:0:")));
  not_found("passwd", NULL, "no-such-user");
}

static void test_sqlite(void **state) {
  char type[200];
  snprintf(type, sizeof type, "sqlite,file=%s/db.sqlite", dir);
  not_found(type, NULL, "create table t (x, y)");
  not_found(type, NULL, "insert into t values (1, 'a b'), (2, 'it \"is\" \\'), (3, null), (4, ''), (5, 'z\\')");
  found(type, NULL, "select y from t where x = 1", "a b");
  found(type, NULL, "select * from t order by x", "x=1 y=\"a b\" \nx=2 y=\"it \\\"is\\\" \\\\\" \nx=3 y=<NULL> \n"
                                                  "x=4 y=\"\" \nx=5 y=z\\ ");
  found(type, NULL, "select x from t where x < 3 order by x", "1\n2");
  not_found(type, NULL, "select x from t where x > 9");
  not_found(type, NULL, "selec 1");
  assert_true(str_starts(c->error, STR("sqlite: near")));
  found("sqlite", NULL, str_printf(a, "%s/db.sqlite select 7", dir).p, "7");
  refused("sqlite", NULL, "select 1", OUTCOME_ERROR, "absolute file name expected for \"sqlite\" lookup");
  refused("sqlite,file=x", NULL, "select 1", OUTCOME_ERROR, "absolute file name expected for \"sqlite\" lookup");
}

static void test_quote(void **state) {
  struct buf out;
  buf_init(&out, a, 1000);
  const struct lookup_def *sqlite = lookup_by_name(STR("sqlite"));
  assert_int_equal(lookup_quote(c, sqlite, str_tainted(STR("a'b")), STR_UNSET, &out), OUTCOME_OK);
  struct str s = buf_str(&out);
  assert_str(s, "a''b");
  assert_true(str_is_tainted(s));
  assert_int_equal(s.taint & ~STR_TAINTED, lookup_quote_mark(sqlite));
  assert_int_equal(lookup_quote(c, sqlite, STR("a"), STR("x"), &out), OUTCOME_ERROR);
  assert_str(c->error, "\"x\" unrecognized after \"${quote_sqlite\"");
  buf_truncate(&out, 0);
  assert_int_equal(lookup_quote(c, lookup_by_name(STR("lsearch")), STR("a'b"), STR_UNSET, &out), OUTCOME_OK);
  assert_str(buf_str(&out), "a'b");
}

/* More files than may be open at once: each is still found. */
static void test_many_files(void **state) {
  for (int round = 0; round < 2; round++)
    for (int i = 0; i < 40; i++) {
      struct str name = str_printf(a, "d/m%d", i);
      write_file(name.p, "k: v\n");
      found("lsearch,cache=no", name.p, "k", "v");
    }
  for (int i = 0; i < 40; i++)
    unlink(path(str_printf(a, "d/m%d", i).p).p);
}

static void test_later(void **state) {
  refused("whoson", NULL, "x", OUTCOME_ERROR, "lookup type \"whoson\" is not supported: the service is no longer made");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_parse), cmocka_unit_test(test_lsearch), cmocka_unit_test(test_defaults),
    cmocka_unit_test(test_partial_order), cmocka_unit_test(test_iplsearch), cmocka_unit_test(test_wildlsearch),
    cmocka_unit_test(test_dsearch), cmocka_unit_test(test_cache), cmocka_unit_test(test_file_change),
    cmocka_unit_test(test_cdb), cmocka_unit_test(test_passwd), cmocka_unit_test(test_sqlite), cmocka_unit_test(test_quote),
    cmocka_unit_test(test_many_files), cmocka_unit_test(test_later),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
