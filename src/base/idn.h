/* Internationalised names: UTF-8 checks, and domains in the ASCII form that the
DNS has (RFC 5890 A-labels; UTS 46, non-transitional). */
#pragma once

#include "base/str.h"

struct arena;

bool str_is_ascii(struct str s);
/* Strict: no overlong forms, surrogates, or what lies beyond U+10FFFF (RFC 3629). */
bool utf8_valid(struct str s);

/* The domain with its non-ASCII labels as A-labels; one of ASCII comes back as it is, unchecked. *ret is in the arena, with
the domain's taint. False: *ret_error, a literal, says why. */
bool idn_domain_to_ascii(struct arena *a, struct str domain, struct str *ret, const char **ret_error);
/* A local part as if it were one label: "xn--" and Punycode, a form that is Exim's own. False: no UTF-8. */
bool idn_local_part_to_ascii(struct arena *a, struct str local_part, struct str *ret);
/* Both of them, for local@domain. */
bool idn_address_to_ascii(struct arena *a, struct str address, struct str *ret, const char **ret_error);
