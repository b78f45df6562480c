/* The text of a -H file, both ways (Exim manual, section "Format of the -H file"). No files here. */
#pragma once

#include "base/buf.h"
#include "message/message.h"
#include "queue/spool.h"

/* Longest -H file that is read or written. */
#define SPOOL_HEADER_MAX (64u << 20)
/* Recipients and non-recipients of one message. */
#define SPOOL_RECIPIENTS_MAX 1000000

struct spool_writer {
  struct buf *out;
  const struct message *message;
};

struct spool_reader {
  struct str text;  /* of the -H file */
  size_t pos;       /* next unread byte */
  struct message *message;
  bool tainted;     /* the item being read had a second hyphen */
};

/* Appends the whole text to `out`. 0; -EINVAL when an address or value could not be read back (a newline in an
address); -EMSGSIZE. */
int spool_encode(const struct message *m, struct buf *out);
/* Reads it into an empty message (strings are copied into its arena). 0, or -EINVAL at malformed text, with
*ret_line (1…) where. Does not look at the -D file; unknown items are kept in unknown_lines. */
int spool_decode(struct str text, struct message *m, int *ret_line);
/* The id that the first line names; unset when there is none. */
struct str spool_decode_id(struct str text);
