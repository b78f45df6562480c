/* Values of options as the manual's chapter "The runtime configuration file"
writes them; also for values that are expanded first. */
#pragma once

#include "base/arena.h"
#include "base/outcome.h"
#include "base/str.h"
#include "config/option.h"

enum value_result { VALUE_OK = 0, VALUE_BAD = -1, VALUE_EXTRA = -2 /* something follows */, VALUE_OVERFLOW = -3 };

/* Decimal, 0octal or 0xhex, with K, M or G. */
enum value_result value_int(struct str s, int64_t *ret);
/* As option values may be: no more than 31 bits, 63 with `wide`. */
enum value_result value_int_limited(struct str s, bool wide, int64_t *ret);
enum value_result value_octal(struct str s, int64_t *ret);
/* "1.5" is 1500; further digits are ignored. */
enum value_result value_fixed(struct str s, int64_t *ret);
/* "1w2d3h4m5s", to seconds; `fractions` allows "0.5s" (rounded down). */
enum value_result value_time(struct str s, int64_t *ret);
/* yes, no, true, false in any case. */
enum value_result value_bool(struct str s, bool *ret);

/* The same back to text, in Exim's form. */
struct str value_time_text(struct arena *a, int64_t seconds);
struct str value_size_text(struct arena *a, int64_t n);
struct str value_fixed_text(struct arena *a, int64_t thousandths);

/* Undoes double quotes with escapes. *ret_rest is what follows the closing quote. VALUE_BAD: it is missing. */
enum value_result value_unquote(struct arena *a, struct str s, struct str *ret, struct str *ret_rest);

/* A user or group by name or number. False: not found. *ret_gid may be NULL; -1 when it is not known. */
bool value_user(struct str name, uint32_t *ret_uid, int64_t *ret_gid);
bool value_group(struct str name, uint32_t *ret_gid);

/* The next item of a list that needs no expansion: separator rules of the manual's "List construction".
False at the end. *sep is 0 at first. */
bool value_list_next(struct arena *a, struct str *rest, char *sep, struct str *ret);
