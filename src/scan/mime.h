/* MIME (RFC 2045, 2046, 2231), as a library that knows nothing of messages and sessions: fields of a part's header, delimiter
lines, transfer encodings. All input is foreign. Memory comes from the arena given and is bounded by the constants. */
#pragma once

#include "base/str.h"

struct arena;
struct buf;

#define MIME_FIELD_MAX 32768    /* of one header field; what is longer is cut */
#define MIME_BOUNDARY_MAX 1000
#define MIME_SEGMENTS_MAX 100   /* of a parameter in pieces (RFC 2231, section 3) */

/* A part's header as the variables $mime_… show it. Unset: it was not there. */
struct mime_header {
  struct str content_type, content_disposition, transfer_encoding, content_id, content_description; /* lower case, no parameters */
  struct str boundary, charset, filename;
  struct str filename_charset; /* of a name by RFC 2231, perhaps empty; unset: the name may hold words of RFC 2047 */
};

/* Takes one unfolded or folded field ("Name: value\n"); others than those of struct mime_header are passed over. */
void mime_header_field(struct mime_header *h, struct arena *a, struct str field);
/* Would mime_header_field look at a field that begins like this? */
bool mime_header_wanted(struct str line);
bool mime_is_multipart(const struct mime_header *h);
bool mime_is_rfc822(const struct mime_header *h);

/* Is the line a delimiter of this boundary? How well: 0 no, 1 with something behind the boundary that does not belong there,
2 exactly. *ret_end: it ends the multipart. */
int mime_delimiter(struct str line, struct str boundary, bool *ret_end);

enum mime_encoding { MIME_IDENTITY, MIME_BASE64, MIME_QUOTED };
enum mime_encoding mime_encoding_of(const struct mime_header *h);

/* Takes a transfer encoding off, piece by piece. */
struct mime_decoder {
  enum mime_encoding encoding;
  uint32_t bits;
  int have;       /* characters of the quantum that is open */
  bool padded;    /* "=" was seen: nothing may follow */
  bool broken;    /* something is wrong with the encoding; what can be read is read */
};
#define MIME_DECODED_MAX(n) ((n) + 8)
/* Decodes lines, or a piece of one, into out, which has room for MIME_DECODED_MAX(text.len) bytes; returns how many there are.
Pieces of quoted-printable text must not part an "=" from what belongs to it; lines do not. */
size_t mime_decode(struct mime_decoder *d, struct str text, char *out);
/* The end of the data: an open quantum breaks the encoding. */
void mime_decode_end(struct mime_decoder *d);
