/* Lookup types whose files other programs make: Berkeley DB, LMDB, JSON, the Public Suffix List. */
#include <db.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/test.h"
#include "expand/foreign.h"
#include "lookup/file.h"
#include "lookup/lookup.h"

static struct arena *a;
static struct ctx *c;
static char dir[] = "/tmp/lookup_files_test.XXXXXX";

static struct str path(const char *name) { return str_printf(a, "%s/%s", dir, name); }

static void write_bytes(const char *name, const char *text, size_t n) {
  FILE *f = fopen(path(name).p, "w");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, n, f), n);
  fclose(f);
}

static void write_file(const char *name, const char *text) { write_bytes(name, text, strlen(text)); }

struct pair {
  const char *key;
  size_t key_n;
  const char *data;
  size_t data_n;
};
#define PAIR(k, d) {k, sizeof k - 1, d, sizeof d - 1}

static void write_db(const char *name, int type, const struct pair *p, size_t n) {
  DB *db;
  assert_int_equal(db_create(&db, NULL, 0), 0);
  assert_int_equal(db->open(db, NULL, path(name).p, NULL, (DBTYPE)type, DB_CREATE, 0600), 0);
  for (size_t i = 0; i < n; i++) {
    DBT k = {.data = (void *)p[i].key, .size = (uint32_t)p[i].key_n}, v = {.data = (void *)p[i].data, .size = (uint32_t)p[i].data_n};
    assert_int_equal(db->put(db, NULL, &k, &v, 0), 0);
  }
  assert_int_equal(db->close(db, 0), 0);
}

static void write_lmdb(const char *name, const char *sub, const struct pair *p, size_t n) {
  MDB_env *env;
  MDB_txn *txn;
  MDB_dbi dbi;
  struct stat st;
  assert_int_equal(mdb_env_create(&env), 0);
  mdb_env_set_maxdbs(env, 4);
  mdb_env_set_mapsize(env, 4u << 20);
  bool is_dir = stat(path(name).p, &st) == 0 && S_ISDIR(st.st_mode);
  assert_int_equal(mdb_env_open(env, path(name).p, is_dir ? 0 : MDB_NOSUBDIR, 0600), 0);
  assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
  assert_int_equal(mdb_dbi_open(txn, sub, MDB_CREATE, &dbi), 0);
  for (size_t i = 0; i < n; i++) {
    MDB_val k = {p[i].key_n, (void *)p[i].key}, v = {p[i].data_n, (void *)p[i].data};
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
  }
  assert_int_equal(mdb_txn_commit(txn), 0);
  mdb_env_close(env);
}

static int setup(void **state) {
  a = arena_new("test");
  assert_non_null(mkdtemp(dir));
  c = ctx_new(a, NULL);
  return 0;
}

static int teardown(void **state) {
  lookup_tidy();
  pid_t pid = fork();
  if (pid == 0) {
    execlp("rm", "rm", "-rf", dir, (char *)NULL);
    _exit(1);
  }
  waitpid(pid, NULL, 0);
  arena_free(a);
  return 0;
}

static int find(const char *type, const char *file, struct str key, struct str *ret) {
  struct lookup_spec spec;
  struct str error = STR_EMPTY;
  if (lookup_parse(a, str_c(type), &spec, &error) != OUTCOME_OK)
    fail_msg("%s: %.*s", type, STRF(error));
  *ret = STR_UNSET;
  return lookup_find(c, &spec, file ? path(file) : STR_UNSET, key, true, ret);
}

static void found(const char *type, const char *file, const char *key, const char *value) {
  struct str got;
  int r = find(type, file, str_c(key), &got);
  if (r != OUTCOME_OK || !str_eq_c(got, value))
    fail_msg("%s %s: %d '%.*s' %.*s", type, key, r, STRF(got), STRF(c->error));
  assert_false(str_is_tainted(got));
}

static void not_found(const char *type, const char *file, const char *key) {
  struct str got;
  int r = find(type, file, str_c(key), &got);
  if (r != OUTCOME_FAIL)
    fail_msg("%s %s: %d '%.*s' %.*s", type, key, r, STRF(got), STRF(c->error));
}

static void refused(const char *type, const char *file, const char *key, int outcome, const char *error) {
  struct str got;
  int r = find(type, file, str_c(key), &got);
  if (r != outcome || str_find(c->error, str_c(error)) < 0)
    fail_msg("%s %s: %d '%.*s'", type, key, r, STRF(c->error));
}

static void test_dbm(void **state) {
  static const struct pair pairs[] = {PAIR("key\0", "value\0"), PAIR("*.a.test\0", "part\0"), PAIR("bare", "no zero"),
    PAIR("u\0r\0p", "joined"), PAIR("empty\0", "")};
  write_db("hash.db", DB_HASH, pairs, 5);
  write_db("btree.db", DB_BTREE, pairs, 5);
  for (int i = 0; i < 2; i++) {
    const char *file = i ? "btree.db" : "hash.db";
    found("dbm", file, "key", "value");
    not_found("dbm", file, "bare");
    not_found("dbm", file, "KEY");
    found("dbm", file, "empty", "");
    found("dbmnz", file, "bare", "no zero");
    not_found("dbmnz", file, "key");
    found("dbmjz", file, "u:r:p", "joined");
    found("dbmjz", file, "<;u;r;p", "joined");
    not_found("dbmjz", file, "u:r");
    found("partial-dbm", file, "x.a.test", "part");
  }
  struct str got;
  assert_int_equal(find("dbm", "hash.db", str_tainted(STR("key")), &got), OUTCOME_OK);
  assert_false(str_is_tainted(got));
  write_file("junk.db", "this is no database of any kind, whatever its name says");
  refused("dbm", "junk.db", "key", OUTCOME_ERROR, "as a Berkeley DB file");
  refused("dbm", "none.db", "key", OUTCOME_ERROR, "for dbm lookup: No such file or directory");
  refused("dbm", ".", "key", OUTCOME_ERROR, "is not a regular file (dbm lookup)");
}

static void test_dbm_changes(void **state) {
  static const struct pair one[] = {PAIR("k\0", "one\0")}, two[] = {PAIR("k\0", "two\0")};
  write_db("change.db", DB_HASH, one, 1);
  found("dbm,cache=no", "change.db", "k", "one");
  write_db("change.db", DB_HASH, two, 1);
  found("dbm,cache=no", "change.db", "k", "two");
}

static void test_json(void **state) {
  write_file("a.json", "{ \"name\": \"x \\u00e9 \\\"q\\\"\", \"list\": [1, 2.5, {\"deep\": [\"a\", \"b\"]}, null],\n"
                       "  \"o\": {\"b\": true, \"a\": \"s\"}, \"7\": \"seven\" }");
  found("json", "a.json", "name", "x \303\251 \"q\"");
  found("json", "a.json", "list", "[1, 2.5, {\"deep\": [\"a\", \"b\"]}, null]");
  found("json", "a.json", "list:0", "1");
  found("json", "a.json", "list:2:deep:1", "b");
  found("json", "a.json", "<; list ; 2 ; deep ; 0", "a");
  found("json", "a.json", "o", "{\"b\": true, \"a\": \"s\"}");
  found("json", "a.json", "o:b", "true");
  not_found("json", "a.json", "list:4");
  not_found("json", "a.json", "list:name");
  not_found("json", "a.json", "o:0");
  not_found("json", "a.json", "name:0");
  not_found("json", "a.json", "nothing");
  write_file("bad.json", "{\"a\": ");
  refused("json", "bad.json", "a", OUTCOME_ERROR, "bad.json line 1: ");
  write_file("deep.json", "");
  refused("json", "deep.json", "a", OUTCOME_ERROR, "deep.json line 1: ");
}

static void test_lmdb(void **state) {
  static char longest[512], data[] = "x\ny\0z";
  memset(longest, 'k', sizeof longest - 1);
  const struct pair pairs[] = {PAIR("first", "data for first"), PAIR("*.sub.test", "part"), {longest, 511, "long", 4},
    {"bytes", 5, data, 5}};
  write_lmdb("a.mdb", NULL, pairs, 4);
  found("lmdb", "a.mdb", "first", "data for first");
  not_found("lmdb", "a.mdb", "First");
  found("partial-lmdb", "a.mdb", "x.sub.test", "part");
  found("lmdb", "a.mdb", longest, "long");
  found("lmdb", "a.mdb", "bytes", "x\ny?z");
  not_found("lmdb", "a.mdb", str_printf(a, "%sk", longest).p);
  struct str got;
  assert_int_equal(find("lmdb", "a.mdb", STR("fir\0st"), &got), OUTCOME_FAIL);
  assert_int_equal(find("lmdb", "a.mdb", str_tainted(STR("first")), &got), OUTCOME_OK);
  assert_false(str_is_tainted(got));
  found("lmdb,ret=key", "a.mdb", "first", "first");
  refused("lmdb,db=none", "a.mdb", "first", OUTCOME_DEFER, "LMDB: no database \"none\"");
}

static void test_lmdb_named(void **state) {
  static const struct pair pairs[] = {PAIR("k", "in sub")};
  assert_int_equal(mkdir(path("env").p, 0700), 0);
  write_lmdb("env", "sub", pairs, 1);
  found("lmdb,db=sub", "env", "k", "in sub");
  not_found("lmdb", "env", "k");
}

/* A writer commits while the file stays open here; then the file is replaced. */
static void test_lmdb_changes(void **state) {
  static const struct pair one[] = {PAIR("k", "one")}, two[] = {PAIR("k", "two")}, three[] = {PAIR("k", "three")};
  write_lmdb("w.mdb", NULL, one, 1);
  found("lmdb,cache=no", "w.mdb", "k", "one");
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    write_lmdb("w.mdb", NULL, two, 1);
    write_lmdb("w2.mdb", NULL, three, 1);
    /* The child's own environment, not the one it inherited. */
    struct str got;
    _exit(find("lmdb,cache=no", "w.mdb", STR("k"), &got) == OUTCOME_OK && str_eq_c(got, "two") ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  found("lmdb,cache=no", "w.mdb", "k", "two");
  assert_int_equal(rename(path("w2.mdb").p, path("w.mdb").p), 0);
  found("lmdb,cache=no", "w.mdb", "k", "three");
}

static void test_lmdb_bad(void **state) {
  static char junk[100000];
  for (size_t i = 0; i < sizeof junk; i++)
    junk[i] = (char)(i * 7919 >> 3);
  refused("lmdb", "none.mdb", "k", OUTCOME_DEFER, "none.mdb: No such file or directory");
  write_file("empty.mdb", "");
  refused("lmdb", "empty.mdb", "k", OUTCOME_DEFER, "LMDB: unable to open ");
  write_bytes("junk.mdb", junk, sizeof junk);
  refused("lmdb", "junk.mdb", "k", OUTCOME_DEFER, "LMDB: unable to open ");
  assert_int_equal(mkdir(path("hollow").p, 0700), 0);
  refused("lmdb", "hollow", "k", OUTCOME_DEFER, "hollow/data.mdb: No such file or directory");
  static const struct pair pairs[] = {PAIR("k", "v")};
  write_lmdb("cut.mdb", NULL, pairs, 1);
  assert_int_equal(truncate(path("cut.mdb").p, 8192), 0);
  refused("lmdb", "cut.mdb", "k", OUTCOME_DEFER, "file is truncated");
  struct lookup_spec spec;
  struct str error, got;
  assert_int_equal(lookup_parse(a, STR("lmdb"), &spec, &error), OUTCOME_OK);
  assert_int_equal(lookup_find(c, &spec, str_tainted(path("a.mdb")), STR("first"), false, &got), OUTCOME_ERROR);
  assert_int_equal(lookup_find(c, &spec, STR("a.mdb"), STR("first"), false, &got), OUTCOME_ERROR);
}

static void put(MDB_txn *txn, MDB_dbi dbi, const char *key, const void *data, size_t n) {
  MDB_val k = {strlen(key), (void *)(uintptr_t)key}, v = {n, (void *)(uintptr_t)data};
  assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
}

/* All that the format has: trees of several levels, data on pages of their own, several values for a key, other orders. */
static void test_lmdb_forms(void **state) {
  static char big[100000];
  MDB_env *env;
  MDB_txn *txn;
  MDB_dbi plain, many, fixed, reversed, integers;
  memset(big, 'b', sizeof big);
  assert_int_equal(mdb_env_create(&env), 0);
  mdb_env_set_maxdbs(env, 8);
  mdb_env_set_mapsize(env, 64u << 20);
  assert_int_equal(mdb_env_open(env, path("forms.mdb").p, MDB_NOSUBDIR, 0600), 0);
  assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
  assert_int_equal(mdb_dbi_open(txn, "plain", MDB_CREATE, &plain), 0);
  assert_int_equal(mdb_dbi_open(txn, "many", MDB_CREATE | MDB_DUPSORT, &many), 0);
  assert_int_equal(mdb_dbi_open(txn, "fixed", MDB_CREATE | MDB_DUPSORT | MDB_DUPFIXED, &fixed), 0);
  assert_int_equal(mdb_dbi_open(txn, "reversed", MDB_CREATE | MDB_REVERSEKEY, &reversed), 0);
  assert_int_equal(mdb_dbi_open(txn, "integers", MDB_CREATE | MDB_INTEGERKEY, &integers), 0);
  for (int i = 0; i < 20000; i++) {
    struct str k = str_printf(a, "key-%d", i), v = str_printf(a, "value %d", i);
    put(txn, plain, k.p, v.p, v.len);
    put(txn, reversed, k.p, v.p, v.len);
  }
  put(txn, plain, "big", big, sizeof big);
  for (int i = 1; i <= 2000; i++) {
    struct str v = str_printf(a, "v%05d", i);
    put(txn, many, "few", v.p, i < 4 ? v.len : 3);
    put(txn, many, "thousands", v.p, v.len);
    put(txn, fixed, "few", i < 4 ? v.p : "v00001", v.len);
    put(txn, fixed, "thousands", v.p, v.len);
  }
  put(txn, many, "single", "one", 3);
  assert_int_equal(mdb_txn_commit(txn), 0);
  mdb_env_close(env);
  for (int i = 0; i < 20000; i += 37) {
    const char *k = str_printf(a, "key-%d", i).p, *v = str_printf(a, "value %d", i).p;
    found("lmdb,db=plain", "forms.mdb", k, v);
    found("lmdb,db=reversed", "forms.mdb", k, v);
    not_found("lmdb,db=plain", "forms.mdb", str_printf(a, "key-%dx", i).p);
    not_found("lmdb,db=reversed", "forms.mdb", str_printf(a, "key-%dx", i).p);
  }
  struct str got;
  assert_int_equal(find("lmdb,db=plain", "forms.mdb", STR("big"), &got), OUTCOME_OK);
  assert_int_equal(got.len, sizeof big);
  assert_memory_equal(got.p, big, sizeof big);
  for (int i = 0; i < 2; i++) {
    const char *type = i ? "lmdb,db=fixed" : "lmdb,db=many";
    found(type, "forms.mdb", "few", i ? "v00001" : "v00");
    found(type, "forms.mdb", "thousands", "v00001");
    not_found(type, "forms.mdb", "none");
  }
  found("lmdb,db=many", "forms.mdb", "single", "one");
  not_found("lmdb", "forms.mdb", "plain");
  refused("lmdb,db=integers", "forms.mdb", "k", OUTCOME_DEFER, "its keys are integers");
  refused("lmdb,db=key-1", "forms.mdb", "k", OUTCOME_DEFER, "no database \"key-1\"");
  /* It shrinks while it is open. */
  assert_int_equal(truncate(path("forms.mdb").p, 100000), 0);
  refused("lmdb,db=plain,cache=no", "forms.mdb", "key-1", OUTCOME_DEFER, "file is truncated");
  assert_int_equal(truncate(path("forms.mdb").p, 0), 0);
  refused("lmdb,db=plain,cache=no", "forms.mdb", "key-1", OUTCOME_DEFER, "not an LMDB file");
}

static void test_psl(void **state) {
  write_file("psl.dat", "// comment\n\ncom\nuk\nco.uk\n*.ck\n!www.ck\nxn--p1ai\nde\n");
  found("regdom", "psl.dat", "www.Example.COM", "example.com");
  found("psl", "psl.dat", "www.example.com", "com");
  found("psl", "psl.dat", "a.b.example.co.uk", "co.uk");
  found("regdom", "psl.dat", "a.b.example.co.uk.", "example.co.uk");
  not_found("regdom", "psl.dat", "co.uk");
  found("psl", "psl.dat", "co.uk", "co.uk");
  found("regdom", "psl.dat", "www.ck", "www.ck");
  found("psl", "psl.dat", "a.b.c.ck", "c.ck");
  found("psl", "psl.dat", "b\303\274cher.de", "de");
  found("regdom", "psl.dat", "x.b\303\234cher.de", "b\303\274cher.de");
  found("regdom", "psl.dat", "x.xn--bcher-kva.de", "xn--bcher-kva.de");
  not_found("psl", "psl.dat", "");
  not_found("regdom", "psl.dat", ".");
  struct str got;
  assert_int_equal(find("regdom", "psl.dat", str_tainted(STR("a.example.com")), &got), OUTCOME_OK);
  assert_false(str_is_tainted(got));
  write_file("nopsl.dat", "");
  refused("psl", "nopsl.dat", "a.com", OUTCOME_ERROR, "is no public suffix list");
  refused("regdom", "none.dat", "a.com", OUTCOME_ERROR, "for regdom lookup: No such file or directory");
}

/* Within a turn of the loop a file need not be looked at twice; afterwards its change is seen. */
static void test_stamps(void **state) {
  struct stat st;
  struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
  struct lookup_stamp stamp;
  write_file("stamped", "one");
  assert_int_equal(utimensat(AT_FDCWD, path("stamped").p, old, 0), 0);
  assert_int_equal(stat(path("stamped").p, &st), 0);
  lookup_stamp_set(&stamp, &st);
  assert_true(lookup_stamp_changed(&stamp, path("stamped"))); /* its status changed just now */
  st.st_ctim.tv_sec -= 1;
  lookup_stamp_set(&stamp, &st);
  stamp.ctime.tv_sec += 1;
  assert_false(lookup_stamp_changed(&stamp, path("stamped")));
  write_file("stamped", "three");
  lookup_stamps_expire();
  assert_true(lookup_stamp_changed(&stamp, path("stamped")));
}

static void test_testdb(void **state) {
  found("testdb", NULL, "something", "something");
  not_found("testdb", NULL, "fail");
  refused("testdb", NULL, "defer", OUTCOME_DEFER, "testdb lookup forced DEFER");
}

int main(int argc, char **argv) {
  foreign_main(argc, argv);
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_dbm), cmocka_unit_test(test_dbm_changes), cmocka_unit_test(test_json),
    cmocka_unit_test(test_lmdb), cmocka_unit_test(test_lmdb_named), cmocka_unit_test(test_lmdb_forms), cmocka_unit_test(test_lmdb_changes),
    cmocka_unit_test(test_lmdb_bad), cmocka_unit_test(test_psl), cmocka_unit_test(test_stamps), cmocka_unit_test(test_testdb),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
