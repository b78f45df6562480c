/* Encodings of bytes as text and back. Results lie in the arena, followed by a
NUL, and carry the taint of their input ("quoted" marks do not survive).
Decoders return false on malformed input and then leave *ret alone. */
#pragma once

#include "base/str.h"

struct arena;

/* RFC 4648, with padding, without line breaks. */
struct str base64_encode(struct arena *a, struct str s);
/* White space between the characters is skipped; padding may be absent at the end
only when `unpadded`. Everything else that is not the alphabet is an error. */
bool base64_decode(struct arena *a, struct str s, bool unpadded, struct str *ret);

struct str hex_encode(struct arena *a, struct str s); /* lower case */
struct str hex_encode_upper(struct arena *a, struct str s);
bool hex_decode(struct arena *a, struct str s, struct str *ret); /* either case */

/* Numbers in the digits 0-9A-Za-z, at least `width` of them, filled with zeros
(message ids; ${base62:} has width 6). Room for 11 + 1 bytes or width + 1 is
needed at `to`. Returns the length. */
size_t base62_write(char *to, uint64_t v, size_t width);
bool base62_read(struct str s, uint64_t *ret);

/* Numbers in the digits a-z2-7, none for zero (${base32:}). Room for 14 bytes. */
size_t base32_write(char *to, uint64_t v);
bool base32_read(struct str s, uint64_t *ret);

/* RFC 3461, section 4: what is not printable ASCII, "+" and "=" become +XX. */
struct str xtext_encode(struct arena *a, struct str s);
bool xtext_decode(struct arena *a, struct str s, struct str *ret);

/* RFC 3986: all but unreserved characters become %XX. Decoding leaves a "+" alone. */
struct str url_encode(struct arena *a, struct str s);
bool url_decode(struct arena *a, struct str s, struct str *ret);

/* Non-printing characters (and, unless `eight_bit`, those with the top bit set)
as C escapes: \n, \t, \r, \b, \v, \f, \\ stays "\\", others \ooo. For logs. */
struct str printable(struct arena *a, struct str s, bool eight_bit);
