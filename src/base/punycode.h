/* Punycode (RFC 3492) of one label, without "xn--". */
#pragma once

#include "base/str.h"

/* UTF-8 to Punycode, the case kept as it is. False: no UTF-8. *ret is in the arena, with the taint of `text`. */
bool punycode_encode(struct arena *a, struct str text, struct str *ret);
/* Punycode to UTF-8. False: not well-formed. */
bool punycode_decode(struct arena *a, struct str text, struct str *ret);
