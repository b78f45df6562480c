/* Inside the scanning room: the MIME part whose ACL runs. */
#pragma once

#include "scan/mime.h"
#include "scan/scan.h"

#define MIME_LEVELS_MAX 250         /* multiparts in each other */
#define MIME_PARTS_MAX 100000       /* of one message, attached ones included */
#define MIME_MESSAGES_MAX 1000      /* attached messages */

#define MIME_START_MAX 32768        /* of a decoded part, what mime_regex looks at */

/* A multipart that is open. */
struct mime_level {
  struct str boundary;
  bool all_cover;   /* its parts are cover letters when it is one: alternative, related */
  bool cover;
  uint32_t parts;   /* so far */
};

struct mime_part {
  struct mime_header header;
  int count;                /* $mime_part_count */
  bool cover, rfc822;
  const struct scan_source *source;
  uint64_t body, end;       /* where its content begins; where the message that it is in ends */
  uint64_t next;            /* where its content ends, once somebody has read it; else 0 */
  struct str decoded;       /* path of the file that holds it decoded; unset: none */
  uint64_t decoded_size;    /* bytes */
  struct str start;         /* its first MIME_START_MAX bytes */
  int anomaly;
};

struct mime_walk;

/* Content of the part that is looked at, up to the next delimiter of a multipart around it. One reader at a time. */
struct mime_content {
  struct mime_walk *walk;   /* whose reader it uses */
  int64_t *budget;          /* bytes that may still be read; NULL: any number */
};
void mime_content_init(struct mime_content *k, struct mime_walk *w);
/* The next line or piece of one. 1, 0 at the end of the part, or -errno. [suspends] */
int mime_content_line(struct mime_content *k, struct str *ret);
/* The next lines, SCAN_WINDOW bytes at most; else the same. [suspends] */
int mime_content_lines(struct mime_content *k, struct str *ret);
/* Which of the levels a line delimits: its number + 1, 0 none. */
size_t mime_level_of(const struct mime_level *levels, size_t n, struct str line, bool *ret_end);

/* Walks through the structure of the message: each part is given to visit() in the order in which it stands; attached messages
come behind, one after the other. */
struct mime_walk {
  struct ctx *c;
  struct mime_part part;         /* the one being visited */
  struct mime_level *levels;
  size_t depth;
  struct arena *arena;           /* of the walk */
  struct arena *part_arena;      /* emptied for each part */
  struct scan_reader reader;     /* of the message that the part is in */
  char *out;                     /* what decode() writes goes through it; made when it is used */
  int64_t budget;                /* bytes that conditions may still read: parts in each other could be read over and over */
  int (*visit)(struct mime_walk *w); /* 0 goes on; above 0 ends the walk */
  int (*temporary)(struct ctx *c);   /* gives the file for decoded attached messages; NULL: scan_temporary */
};
#define MIME_TOO_COMPLEX (-100000)
/* 0, what visit() returned (above 0), MIME_TOO_COMPLEX, or -errno. *ret_last: number of the message's last part, -1: it has no
Content-Type:. [suspends] */
int mime_walk(struct mime_walk *w, int *ret_last);
/* The same with a body that the caller has, and closes. */
int mime_walk_source(struct mime_walk *w, const struct scan_source *body, int *ret_last);

/* The part of the message whose ACL runs, or NULL; its content from the start. */
struct mime_part *mime_current(struct ctx *c);
bool mime_current_content(struct ctx *c, struct mime_content *ret);
/* Decodes it into a file, as `decode = how` does; how unset: by default. OUTCOME_* with c->log_message. [suspends] */
int mime_decode_part(struct ctx *c, struct str how);
