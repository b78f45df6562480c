#include "base/buf.h"
#include "base/test.h"
#include "match/match.h"

/* Items joined with `|`, so that one comparison shows them all. */
static struct str items(struct arena *a, struct str text) {
  struct buf b;
  buf_init(&b, a, 10000);
  struct list_iter i;
  struct str item;
  list_iter_init(&i, a, text);
  while (list_next(&i, &item)) {
    buf_add_byte(&b, '[');
    buf_add(&b, item);
    buf_add_byte(&b, ']');
  }
  return buf_str(&b);
}

static void test_split(void **state) {
  struct arena *a = arena_new("test");
  static const struct {
    const char *text, *want;
  } cases[] = {
    {"", ""}, {" ", ""}, {":", "[]"}, {"a", "[a]"}, {"a:", "[a]"}, {" a : b ", "[a][b]"}, {"a::b", "[a:b]"},
    {"a: :b", "[a][][b]"}, {"a:::b", "[a:][b]"}, {"a::::b", "[a::b]"}, {"a::", "[a:]"}, {"::a", "[:a]"},
    {"<; a;b:c", "[a][b:c]"}, {" <;a;;b", "[a;b]"}, {"<\n a b\n\nc\n", "[a b][][c]"}, {"<\na\n b", "[a][b]"},
    {"<a b", "[<a b]"}, {"<", ""}, {"<;", ""}, {"<; ;", "[]"}, {"3ffe::ffff::836f::::/48", "[3ffe:ffff:836f::/48]"},
    {"<?a?b", "[a][b]"}, {": : :", "[][][]"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_str(items(a, str_c(cases[i].text)), cases[i].want);
  arena_free(a);
}

static void test_taint(void **state) {
  struct arena *a = arena_new("test");
  assert_str(items(a, str_tainted(STR("<;a;b:c"))), "[<;a;b][c]");
  struct list_iter i;
  struct str item;
  list_iter_init_literal(&i, a, str_tainted(STR("<;a;;b:c")));
  assert_true(list_next(&i, &item));
  assert_str(item, "a;b:c");
  assert_true(str_is_tainted(item));
  assert_false(list_next(&i, &item));
  assert_true(list_changes_separator(STR(" <; a")));
  assert_true(list_changes_separator(STR("<\\n a")));
  assert_false(list_changes_separator(STR("<a")));
  arena_free(a);
}

static void test_add(void **state) {
  struct arena *a = arena_new("test");
  struct buf b;
  buf_init(&b, a, 1000);
  list_add(&b, ':', STR_EMPTY);
  list_add(&b, ':', STR("a:b"));
  list_add(&b, ':', STR_EMPTY);
  list_add(&b, ':', STR(":c"));
  list_add(&b, ':', str_tainted(STR("d")));
  struct str list = buf_str(&b);
  assert_true(str_is_tainted(list));
  assert_str(items(a, list), "[][a:b][][:c][d]");
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_split), cmocka_unit_test(test_taint), cmocka_unit_test(test_add)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
