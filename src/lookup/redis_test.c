/* The protocol against scripted servers (what a real one says is in tests/e2e); lists of servers; the pool. */
#include "lookup/redis_wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/test.h"
#include "core/main_options.h"
#include "lookup/lookup.h"
#include "lookup/servers.h"

static struct arena *a;
static struct ctx *c;

static int setup(void **state) {
  loop_init();
  a = arena_new("test");
  c = ctx_new(a, NULL);
  return 0;
}

static int teardown(void **state) {
  lookup_tidy();
  arena_free(a);
  loop_done();
  return 0;
}

static void test_split(void **state) {
  static const struct {
    const char *command;
    int n;
    const char *args[4];
  } cases[] = {
    {"", 0, {NULL}}, {" \t", 0, {NULL}}, {"get x", 2, {"get", "x"}}, {"  set a\\ b c\\\\d\n", 3, {"set", "a b", "c\\d"}},
    {"set k \"two words\" \"\"", 4, {"set", "k", "two words", ""}}, {"a\"b c", 2, {"a\"b", "c"}},
    {"\"x\\\"y\"z \\\"q", 2, {"x\"yz", "\"q"}}, {"get \"open", -1, {NULL}}, {"tail\\", 1, {"tail\\"}},
  };
  static struct str args[REDIS_ARGS_MAX];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int n = redis_split(a, str_c(cases[i].command), args);
    if (n != cases[i].n)
      fail_msg("%s: %d", cases[i].command, n);
    for (int k = 0; k < n; k++)
      assert_str(args[k], cases[i].args[k]);
  }
  struct buf many;
  buf_init(&many, a, 1u << 20);
  for (int i = 0; i <= REDIS_ARGS_MAX; i++)
    buf_add_c(&many, "x ");
  assert_int_equal(redis_split(a, buf_str(&many), args), -1);
}

/* What is quoted is one argument, whatever it holds. */
static void test_quote(void **state) {
  static const char *const texts[] = {"a b", "a\r\nFLUSHALL", "\"", "a\" b \"", "\\", "\\\\ ", "\t x"};
  const struct lookup_def *redis = lookup_by_name(STR("redis"));
  static struct str args[REDIS_ARGS_MAX];
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct buf b;
    buf_init(&b, a, 1000);
    buf_add_c(&b, "get ");
    assert_int_equal(lookup_quote(c, redis, str_c(texts[i]), STR_UNSET, &b), OUTCOME_OK);
    assert_int_equal(redis_split(a, buf_str(&b), args), 2);
    assert_str(args[1], texts[i]);
    struct buf wire;
    buf_init(&wire, a, 1000);
    redis_command(&wire, args, 2);
    assert_true(str_starts(buf_str(&wire), STR("*2\r\n$3\r\nget\r\n$")));
  }
}

static struct {
  const char *bytes;
  int kind;
  struct str text;
} one;

static int read_one_reply(void *arg) {
  int fds[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  size_t n = strlen(one.bytes);
  assert_int_equal(write(fds[1], one.bytes, n), (ssize_t)n);
  shutdown(fds[1], SHUT_WR);
  struct stream *s = stream_new(fds[0], -1);
  one.kind = redis_read_reply(a, s, deadline_in(10), &one.text);
  stream_free(s);
  close(fds[1]);
  return 0;
}

static void reply(const char *bytes, int kind, const char *text) {
  one.bytes = bytes;
  one.text = STR_EMPTY;
  loop_run(read_one_reply, NULL);
  if (one.kind != kind || (kind >= 0 && !str_eq_c(one.text, text)))
    fail_msg("%s: %d '%.*s'", bytes, one.kind, STRF(one.text));
}

static void test_replies(void **state) {
  reply("+OK\r\n", REDIS_TEXT, "OK");
  reply(":-42\r\n", REDIS_TEXT, "-42");
  reply("$5\r\na\r\nbc\r\n", REDIS_TEXT, "a\r\nbc");
  reply("$0\r\n\r\n", REDIS_TEXT, "");
  reply("$-1\r\n", REDIS_NIL, "");
  reply("*-1\r\n", REDIS_NIL, "");
  reply("*0\r\n", REDIS_NIL, "");
  reply("-ERR no\r\n", REDIS_REFUSED, "ERR no");
  reply("*3\r\n$1\r\na\r\n$-1\r\n:7\r\n", REDIS_TEXT, "a\n\n7");
  reply("*2\r\n*2\r\n+a\r\n+b\r\n*1\r\n+c\r\n", REDIS_TEXT, "a\nb\nc");
  reply("$-2\r\n", -EPROTO, NULL);
  reply("*x\r\n", -EPROTO, NULL);
  reply("hello\r\n", -EPROTO, NULL);
  reply("+OK\n", -EPROTO, NULL);
  reply("$3\r\nabcd\r\n", -EPROTO, NULL);
  reply("$100\r\nhalf", -EPIPE, NULL);
  reply("$99999999999999999999\r\n", -EPROTO, NULL);
  reply("$4294967295\r\n", -EMSGSIZE, NULL);
  reply("*1000000000\r\n", -EMSGSIZE, NULL);
  reply("*1000000\r\n", -EPROTO, NULL);
  reply("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+x\r\n", -EPROTO, NULL);
}

/* --- servers --- */

static char asked[1000];
static int answer[4], answers;

static int note(struct ctx *ctx, const struct db_server *s, void *arg) {
  snprintf(asked + strlen(asked), sizeof asked - strlen(asked), "%.*s[%.*s][%.*s] ", STRF(s->host), STRF(s->fields[0]),
    STRF(s->fields[1]));
  int r = answer[answers++];
  return r == OUTCOME_DEFER ? ctx_fail(ctx, r, "cannot %.*s", STRF(s->shown)) : r;
}

static void ask(struct str list, struct str only, int want, const char *want_asked, const char *error) {
  struct db_servers s = {"Test", "test_servers", 2, list, note};
  asked[0] = '\0';
  answers = 0;
  int r = db_servers_ask(c, &s, only, NULL);
  if (r != want || strcmp(asked, want_asked) != 0)
    fail_msg("%.*s: %d %s", STRF(list), r, asked);
  if (error)
    assert_str(c->error, error);
}

static void test_servers(void **state) {
  struct str two = STR("one/1/p/w : (/run/x/sock)/2/ : 10.0.0.1::99/db/");
  answer[0] = OUTCOME_OK;
  ask(two, STR_UNSET, OUTCOME_OK, "one[1][p/w] ", NULL);
  answer[0] = OUTCOME_FAIL;
  ask(two, STR_UNSET, OUTCOME_FAIL, "one[1][p/w] ", NULL);
  ask(two, STR("10.0.0.1::99"), OUTCOME_FAIL, "10.0.0.1:99[db][] ", NULL);
  ask(two, STR("<!(/run/x/sock)"), OUTCOME_FAIL, "(/run/x/sock)[2][] ", NULL);
  ask(two, STR("<!::1.99/x/"), OUTCOME_FAIL, "::1.99[x][] ", NULL);
  answer[0] = answer[1] = OUTCOME_DEFER, answer[2] = OUTCOME_FAIL;
  ask(two, STR_UNSET, OUTCOME_FAIL, "one[1][p/w] (/run/x/sock)[2][] 10.0.0.1:99[db][] ", NULL);
  answer[2] = OUTCOME_DEFER;
  ask(two, STR_UNSET, OUTCOME_DEFER, "one[1][p/w] (/run/x/sock)[2][] 10.0.0.1:99[db][] ", "cannot 10.0.0.1:99/db");
  ask(two, STR("none:one"), OUTCOME_DEFER, "", "Test server \"none\" not found in test_servers");
  ask(STR("one"), STR_UNSET, OUTCOME_DEFER, "", "incomplete Test server data: one");
  ask(STR("one/x"), STR_UNSET, OUTCOME_DEFER, "", "incomplete Test server data: one");
  ask(STR_UNSET, STR_UNSET, OUTCOME_DEFER, "", "no Test servers defined (test_servers option)");
  ask(two, str_tainted(STR("h/d/secret")), OUTCOME_DEFER, "", "Test server \"h/d\" is tainted");
  ask(two, str_tainted(STR("one")), OUTCOME_DEFER, "", "Test server \"one/1\" is tainted");
}

static void test_prefix(void **state) {
  struct str q = STR(" servers = a/b/c : d ; select 1; 2");
  assert_str(db_servers_prefix(c, &q), "a/b/c : d");
  assert_str(q, "select 1; 2");
  q = STR("serversx=1;2");
  assert_false(str_is_set(db_servers_prefix(c, &q)));
  assert_str(q, "serversx=1;2");
}

static void test_host_port(void **state) {
  static const struct {
    const char *text, *host, *port;
  } cases[] = {
    {"h", "h", NULL}, {"h:1", "h", "1"}, {"1.2.3.4", "1.2.3.4", NULL}, {"1.2.3.4:99", "1.2.3.4", "99"}, {"::1", "::1", NULL},
    {"::1.99", "::1", "99"}, {"[::1]", "::1", NULL}, {"[::1]:99", "::1", "99"}, {"fe80::1.2", "fe80::1", "2"},
    {"h:x", "h:x", NULL}, {"h:99999", "h:99999", NULL}, {"", "", NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct str host, port;
    db_host_port(str_c(cases[i].text), &host, &port);
    assert_str(host, cases[i].host);
    if (cases[i].port)
      assert_str(port, cases[i].port);
    else
      assert_false(str_is_set(port));
  }
}

/* --- a whole lookup --- */

static int find(struct str query, const char *server, struct str *ret) {
  struct lookup_spec spec;
  struct str error;
  struct str type = str_printf(a, "redis,servers=%s,cache=no", server);
  assert_int_equal(lookup_parse(a, type, &spec, &error), OUTCOME_OK);
  return lookup_find(c, &spec, STR_UNSET, query, false, ret);
}

static char socket_path[] = "/tmp/redis_test.XXXXXX";
static int listener;

/* Answers each connection's commands; a client that says "die" is cut off, "half" gets a part of a reply. */
static void serve(void *arg) {
  struct stream *s = arg;
  struct str line;
  int eol;
  while (stream_read_line(s, 1000, deadline_in(10), &line, &eol) > 0) {
    const char *r = str_eq_c(line, "get") ? "$3\r\nyes\r\n" : str_eq_c(line, "gone") ? "-MOVED 1 h:1\r\n"
      : str_eq_c(line, "half") ? "$10\r\nabc" : str_eq_c(line, "AUTH") ? "-WRONGPASS no\r\n" : NULL;
    if (str_eq_c(line, "die") || str_eq_c(line, "half")) {
      stream_printf(s, "%s", r ? r : "");
      stream_flush(s);
      break;
    }
    if (r) {
      stream_printf(s, "%s", r);
      stream_flush(s);
    }
  }
  stream_free(s);
}

static int accepted;

static void accept_all(void *arg) {
  while (accepted < *(int *)arg && fiber_wait_fd(listener, FIBER_READ, deadline_in(10)) > 0) {
    accepted++;
    fiber_spawn("server", serve, stream_new(accept(listener, NULL, NULL), -1));
  }
}

static int conversation(void *arg) {
  struct str got;
  static int connections = 5;
  char server[100], bad[100], wrong[100];
  snprintf(server, sizeof server, "(%s)//", socket_path);
  snprintf(bad, sizeof bad, "(%s.none)//:(%s)//", socket_path, socket_path);
  snprintf(wrong, sizeof wrong, "(%s)//secret", socket_path);
  fiber_spawn("accept", accept_all, &connections);
  assert_int_equal(find(STR("get x"), server, &got), OUTCOME_OK);
  assert_str(got, "yes");
  assert_int_equal(find(STR("get y"), bad, &got), OUTCOME_OK);
  assert_int_equal(accepted, 1); /* the same connection again */
  assert_int_equal(find(STR("gone x"), server, &got), OUTCOME_DEFER);
  assert_str(c->error, "REDIS: query failed: MOVED 1 h:1");
  assert_int_equal(find(STR("die"), server, &got), OUTCOME_DEFER);
  assert_int_equal(accepted, 2); /* one that was kept may have been closed: once more over a new one, and no more */
  assert_int_equal(find(STR("get z"), server, &got), OUTCOME_OK);
  assert_int_equal(accepted, 3);
  assert_int_equal(find(STR("half"), server, &got), OUTCOME_DEFER);
  assert_int_equal(accepted, 3); /* who begins to answer has heard the question */
  assert_int_equal(find(STR("get z"), server, &got), OUTCOME_OK);
  assert_int_equal(accepted, 4);
  assert_int_equal(find(STR("get z"), wrong, &got), OUTCOME_DEFER);
  assert_true(str_ends(c->error, STR("WRONGPASS no")));
  assert_true(str_find(c->error, STR("secret")) < 0);
  assert_int_equal(find(str_tainted(STR("get z")), server, &got), OUTCOME_DEFER);
  assert_str(c->error, "tainted search query is not properly quoted");
  assert_int_equal(find(STR(""), server, &got), OUTCOME_FAIL);
  assert_int_equal(accepted, 5);
  lookup_tidy();
  return 0;
}

static void test_conversation(void **state) {
  int fd = mkstemp(socket_path);
  assert_true(fd >= 0);
  close(fd);
  unlink(socket_path);
  struct sockaddr_un sa = {.sun_family = AF_UNIX};
  memcpy(sa.sun_path, socket_path, sizeof socket_path);
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof sa), 0);
  assert_int_equal(listen(listener, 10), 0);
  loop_run(conversation, NULL);
  close(listener);
  unlink(socket_path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_split), cmocka_unit_test(test_quote), cmocka_unit_test(test_replies), cmocka_unit_test(test_servers),
    cmocka_unit_test(test_prefix), cmocka_unit_test(test_host_port), cmocka_unit_test(test_conversation),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
