#include "base/arena.h"
#include "base/test.h"
#include "scan/http.h"

static struct arena *arena;

#define OK "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK "Transfer-Encoding: chunked\r\n\r\n"

static void test_whole(void **state) {
  static const struct {
    const char *text;
    bool ended;
    const char *body;
    bool keep;
  } tests[] = {
    {OK "Content-Length: 3\r\n\r\nabc", false, "abc", true},
    {OK "content-length:3\r\nConnection: keep-alive\r\n\r\nabc", false, "abc", true},
    {OK "Content-Length: 3\r\nConnection: foo, Close\r\n\r\nabc", false, "abc", false},
    {OK "Content-Length: 3\r\n\r\nabcd", false, "abc", false},          /* more than the answer */
    {OK "Content-Length: 3\r\n\r\nabc", true, "abc", false},
    {OK "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", false, "abc", true},
    {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, "abc", false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", false, "abc", true},
    {OK "\r\nabc", true, "abc", false},
    {CHUNKED "3\r\nabc\r\n0\r\n\r\n", false, "abc", true},
    {CHUNKED "3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nTrailer: x\r\n\r\n", false, "abcde", true},
    {CHUNKED "0\r\n\r\n", false, "", true},
    {CHUNKED "0\r\n\r\nmore", false, "", false},
    {OK "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n", false, "a", false},
    {"HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 1\r\n\r\na", false, "a", true},
    {"HTTP/1.1 204 No Content\r\n\r\n", false, "", true},
  };
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    struct http_answer r;
    assert_int_equal(http_read_answer(arena, str_c(tests[i].text), tests[i].ended, &r), HTTP_DONE);
    assert_str(r.body, tests[i].body);
    if (r.keep != tests[i].keep)
      fail_msg("keep: %s", tests[i].text);
    /* Before its last byte none is whole, unless the end tells. */
    if (tests[i].keep)
      assert_int_equal(http_read_answer(arena, str_slice(str_c(tests[i].text), 0, strlen(tests[i].text) - 1), false, &r), HTTP_MORE);
  }
}

static void test_not_whole(void **state) {
  static const char *const tests[] = {"", "HTTP/1.1", OK, OK "Content-Length: 3\r\n\r\nab", CHUNKED "3\r\nab", CHUNKED "3", CHUNKED "3\r\nabc\r\n0\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n"};
  struct http_answer r;
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    assert_int_equal(http_read_answer(arena, str_c(tests[i]), false, &r), HTTP_MORE);
    assert_int_equal(http_read_answer(arena, str_c(tests[i]), true, &r), HTTP_BAD);
  }
}

static void test_bad(void **state) {
  static const char *const tests[] = {"HTTP/2 200\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1200 OK\r\n\r\n", "junk\r\n\r\n", OK "Content-Length: x\r\n\r\n",
    OK "Content-Length: -1\r\n\r\n", OK "Content-Length: 99999999999\r\n\r\n", OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    OK "Transfer-Encoding: gzip, chunked\r\n\r\n", CHUNKED "x\r\n", CHUNKED "\r\n", CHUNKED "ffffffff\r\n", CHUNKED "3\r\nabcd\r\n", CHUNKED "-1\r\n"};
  struct http_answer r;
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (http_read_answer(arena, str_c(tests[i]), false, &r) != HTTP_BAD)
      fail_msg("taken: %s", tests[i]);
  char *large = arena_bytes(arena, HTTP_HEAD_MAX);
  memset(large, 'x', HTTP_HEAD_MAX);
  assert_int_equal(http_read_answer(arena, str_n(large, HTTP_HEAD_MAX), false, &r), HTTP_BAD);
}

int main(void) {
  arena = arena_new("test");
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_not_whole), cmocka_unit_test(test_bad)};
  int rc = cmocka_run_group_tests(tests, NULL, NULL);
  arena_free(arena);
  return rc;
}
