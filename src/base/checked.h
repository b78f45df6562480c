/* Arithmetic that notices overflow: true and the result, or false. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECKED __attribute__((warn_unused_result)) static inline bool

CHECKED checked_add_size(size_t a, size_t b, size_t *ret) { return !__builtin_add_overflow(a, b, ret); }
CHECKED checked_mul_size(size_t a, size_t b, size_t *ret) { return !__builtin_mul_overflow(a, b, ret); }
CHECKED checked_add_i64(int64_t a, int64_t b, int64_t *ret) { return !__builtin_add_overflow(a, b, ret); }
CHECKED checked_sub_i64(int64_t a, int64_t b, int64_t *ret) { return !__builtin_sub_overflow(a, b, ret); }
CHECKED checked_mul_i64(int64_t a, int64_t b, int64_t *ret) { return !__builtin_mul_overflow(a, b, ret); }
/* Also INT64_MIN / -1 overflows. */
CHECKED checked_div_i64(int64_t a, int64_t b, int64_t *ret) {
  if (b == 0 || (a == INT64_MIN && b == -1))
    return false;
  *ret = a / b;
  return true;
}
CHECKED checked_int(int64_t v, int *ret) {
  if (v < INT_MIN || v > INT_MAX)
    return false;
  *ret = (int)v;
  return true;
}
