/* RFC 2047: words like =?utf-8?Q?caf=C3=A9?= in header text. */
#pragma once

#include "base/str.h"

struct ctx;

/* Decodes the words in `text`; white space between two of them goes. With a charset they are converted to it (iconv);
what cannot be converted stays as it is. A word that is malformed, or too long while check_rfc2047_length is on, stays. Taint
is kept; the result is in c->arena. c->error is set (and `text` as decoded without conversion given) when a charset is unknown. */
struct str rfc2047_decode(struct ctx *c, struct str text, struct str charset);
/* Encodes when there is need to, in words of at most 75 characters. */
struct str rfc2047_encode(struct ctx *c, struct str text, struct str charset);
/* Adds the text converted (iconv); bytes that have no counterpart go over as they are. An unknown charset sets c->error, and the
text goes over as it is; so it does when a charset is empty, or both are the same. */
struct buf;
void rfc2047_convert(struct ctx *c, struct buf *out, struct str text, struct str from, struct str to);
