#include "base/test.h"
#include "base/arena.h"
#include "base/asan.h"
#include "base/vec.h"

static void allocates(void **state) {
  struct arena *a = arena_new("test");
  for (size_t i = 0; i < 2000; i++) {
    char *p = arena_alloc(a, i);
    assert_int_equal((uintptr_t)p % 16, 0);
    for (size_t j = 0; j < i; j++)
      assert_int_equal(p[j], 0);
    memset(p, 0xff, i);
    *arena_bytes(a, 1) = 'x';
  }
  assert_true(arena_used(a) >= 1999 * 1000);
  arena_reset(a);
  assert_int_equal(arena_used(a), 0);
  memset(arena_alloc(a, 1u << 20), 1, 1u << 20);
  arena_free(a);
  arena_free(NULL);
}

static void regrows(void **state) {
  struct arena *a = arena_new("test");
  char *p = arena_bytes(a, 10);
  memcpy(p, "0123456789", 10);
  char *q = arena_regrow(a, p, 10, 20);
  assert_ptr_equal(p, q); /* in place: it was the last */
  memset(q + 10, 'x', 10);
  arena_bytes(a, 1);
  q = arena_regrow(a, p, 20, 40);
  assert_ptr_not_equal(p, q);
  assert_memory_equal(q, "0123456789xxxxxxxxxx", 20);
  q = arena_regrow(a, q, 40, 100000);
  assert_memory_equal(q, "0123456789xxxxxxxxxx", 20);
  arena_free(a);
}

static int order;
static void note(void *arg) { order = order * 10 + *(int *)arg; }

static void cleans_up(void **state) {
  static int one = 1, two = 2, three = 3;
  struct arena *a = arena_new_secret("test");
  order = 0;
  arena_cleanup(a, note, &one);
  size_t used = arena_used(a);
  struct arena_mark mark = arena_mark(a);
  arena_cleanup(a, note, &two);
  arena_cleanup(a, note, &three);
  arena_alloc(a, 100000);
  arena_alloc(a, 100000);
  arena_rewind(a, mark);
  assert_int_equal(order, 32);
  assert_int_equal(arena_used(a), used);
  arena_alloc(a, 10);
  arena_free(a);
  assert_int_equal(order, 321);
}

static void wipes_secrets(void **state) {
  struct arena *a = arena_new_secret("test");
  char *p = arena_bytes(a, 8);
  memcpy(p, "password", 8);
  arena_reset(a);
  asan_unpoison(p, 8);
  assert_memory_equal(p, "\0\0\0\0\0\0\0\0", 8);
  arena_free(a);
}

static void vectors_grow(void **state) {
  struct arena *a = arena_new("test");
  VEC(int) v = {0};
  for (int i = 0; i < 1000; i++)
    vec_push(a, &v, i);
  assert_int_equal(v.n, 1000);
  for (int i = 0; i < 1000; i++)
    assert_int_equal(v.v[i], i);
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest all[] = {cmocka_unit_test(allocates), cmocka_unit_test(regrows),
      cmocka_unit_test(cleans_up), cmocka_unit_test(wipes_secrets), cmocka_unit_test(vectors_grow)};
  return cmocka_run_group_tests(all, NULL, NULL);
}
