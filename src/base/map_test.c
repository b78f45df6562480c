#include "base/test.h"
#include "base/arena.h"
#include "base/map.h"

static void sets_and_gets(void **state) {
  struct arena *a = arena_new("test");
  struct map *m = map_new(a);
  assert_null(map_get(m, STR("x")));
  for (int i = 0; i < 1000; i++) {
    char key[16];
    snprintf(key, sizeof key, "k%d", i);
    map_set(m, str_c(key), arena_memdup(a, &i, sizeof i));
  }
  assert_int_equal(map_count(m), 1000);
  assert_int_equal(*(int *)map_get(m, STR("k777")), 777);
  map_set(m, STR("k777"), NULL);
  assert_true(map_has(m, STR("k777")));
  assert_null(map_get(m, STR("k777")));
  assert_false(map_has(m, STR("K778")));
  map_remove(m, STR("k0"));
  map_remove(m, STR("k0"));
  assert_int_equal(map_count(m), 999);
  struct str key;
  void *value;
  size_t it = 0;
  int n = 1;
  while (map_next(m, &it, &key, &value)) {
    if (n != 777)
      assert_int_equal(*(int *)value, n);
    n++;
  }
  assert_int_equal(n, 1000);
  arena_free(a);
}

static void ignores_case(void **state) {
  struct arena *a = arena_new("test");
  struct map *m = map_new_caseless(a);
  int one, two;
  map_set(m, STR("Abc"), &one);
  map_set(m, STR("aBC"), &two);
  assert_int_equal(map_count(m), 1);
  assert_ptr_equal(map_get(m, STR("ABC")), &two);
  map_set(m, STR(""), &one);
  assert_true(map_has(m, STR_EMPTY));
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(sets_and_gets), cmocka_unit_test(ignores_case)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
