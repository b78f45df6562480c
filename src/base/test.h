/* What every cmocka test file includes: cmocka wants these in this order. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include "base/str.h"

/* Compares a struct str with a C string. */
#define assert_str(s, c)                                                                                               \
  do {                                                                                                                 \
    struct str assert_str_s_ = (s);                                                                                    \
    struct str assert_str_c_ = str_c(c);                                                                               \
    if (!str_eq(assert_str_s_, assert_str_c_))                                                                         \
      fail_msg("got '%.*s', expected '%s'", STRF(assert_str_s_), assert_str_c_.p);                                     \
  } while (0)
