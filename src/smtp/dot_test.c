#include "base/test.h"

#include "smtp/dot.h"

/* Runs `in` through a machine in pieces of `step` bytes; the header ends at the first empty line. */
static struct str run(struct dot *d, enum dot_kind kind, struct str in, size_t step, char *out, size_t *used) {
  size_t n = 0, i = 0, line = 0;
  dot_init(d, kind);
  while (i < in.len && !d->ended) {
    size_t piece = in.len - i < step ? in.len - i : step, got;
    i += dot_run(d, str_n(in.p + i, piece), out + n, &got);
    n += got;
    if (d->header && d->line_done) {
      if (n - line == 1)
        dot_body(d);
      line = n;
    }
  }
  if (!d->ended)
    n += dot_finish(d, out + n);
  *used = i;
  return str_n(out, n);
}

static void check(enum dot_kind kind, struct str in, struct str want, size_t want_used, bool ended) {
  for (size_t step = 1; step <= in.len + 1; step++) {
    char out[4096];
    struct dot d;
    size_t used;
    struct str got = run(&d, kind, in, step, out, &used);
    if (!str_eq(got, want))
      fail_msg("step %zu: got \"%.*s\" want \"%.*s\"", step, STRF(got), STRF(want));
    assert_int_equal(used, want_used);
    assert_int_equal(d.ended, ended);
  }
}
#define ENDS(in, want) check(DOT_SMTP, STR(in), STR(want), sizeof(in) - 1, true)
#define OPEN(in, want) check(DOT_SMTP, STR(in), STR(want), sizeof(in) - 1, false)

static void test_plain(void **state) {
  ENDS("A: b\r\n\r\nbody\r\n.\r\n", "A: b\n\nbody\n");
  ENDS("A: b\n\nbody\n.\n", "A: b\n\nbody\n");
  ENDS(".\r\n", "");
  ENDS("A: b\r\n\r\n..two\r\n.one\r\n.\r\n", "A: b\n\n.two\none\n");
}

static void test_bytes_after_end_stay(void **state) {
  check(DOT_SMTP, STR("A: b\r\n\r\nx\r\n.\r\nQUIT\r\n"), STR("A: b\n\nx\n"), 14, true);
}

static void test_smuggling(void **state) {
  /* What some servers take for the end of data does not end it in CRLF mode. */
  OPEN("A: b\r\n\r\nx\n.\nMAIL", "A: b\n\nx . MAIL\n");
  OPEN("A: b\r\n\r\nx\n.\r\nMAIL", "A: b\n\nx .\nMAIL\n");
  OPEN("A: b\r\n\r\nx\r\n.\nMAIL", "A: b\n\nx\n MAIL\n");
  OPEN("A: b\r\n\r\nx\r.\rMAIL", "A: b\n\nx\n.\nMAIL\n");
  OPEN("A: b\r\n\r\nx\r.\r\nMAIL", "A: b\n\nx\n.\nMAIL\n");
  OPEN("A: b\r\n\r\nx\r\n.\rMAIL", "A: b\n\nx\n\nMAIL\n");
  /* In LF mode a bare CR does not begin a line for dots either. */
  OPEN("A: b\n\nx\r.\r\nMAIL", "A: b\n\nx\n.\nMAIL\n");
}

static void test_header(void **state) {
  OPEN("A: b\rc\r\nB: d\ne\r\n\r\n", "A: b\n c\nB: d\n e\n\n");
  OPEN("A: b\nB: c\r\nC\n\nx\r\n", "A: b\nB: c\nC\n\nx\n");
}

static void test_local(void **state) {
  check(DOT_LOCAL, STR("A: b\n\n..x\n.y\n.\nrest"), STR("A: b\n\n..x\n.y\n"), 15, true);
  check(DOT_LOCAL, STR("A: b\n\nno end"), STR("A: b\n\nno end\n"), 12, false);
  check(DOT_PLAIN, STR("A: b\n\n.\n..\n"), STR("A: b\n\n.\n..\n"), 11, false);
}

static void test_counts(void **state) {
  char out[256];
  struct dot d;
  size_t used;
  run(&d, DOT_SMTP, str_n("A: b\r\n\r\n12345\r\n\0\0\r\n.\r\n", 23), 5, out, &used);
  assert_int_equal(d.lines, 2);
  assert_int_equal(d.zeros, 2);
  assert_int_equal(d.max_line_length, 5);
}

int main(void) {
  const struct CMUnitTest t[] = {
      cmocka_unit_test(test_plain), cmocka_unit_test(test_bytes_after_end_stay), cmocka_unit_test(test_smuggling),
      cmocka_unit_test(test_header), cmocka_unit_test(test_local), cmocka_unit_test(test_counts),
  };
  return cmocka_run_group_tests(t, NULL, NULL);
}
