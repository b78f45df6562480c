/* What the processes of a daemon are doing, for exiwhat (Exim manual, section
"Finding out what Exim processes are doing"): each writes its lines into a pipe
that came with the question. */
#pragma once

#include <stdbool.h>
#include <time.h>

#include "base/buf.h"
#include "base/ip.h"

/* Something that a worker does, noted by who does it, on a list of the process. */
struct what_item {
  const char *doing;         /* literal */
  char id[24];               /* of the message; "": none */
  struct ip_addr peer;
  int port;                  /* of the peer; 0: there is none */
  long uid;                  /* of the caller; -1: there is none */
  time_t since;
  struct what_item *next, **link;
};

void what_begin(struct what_item *i, const char *doing);
void what_end(struct what_item *i);
/* The lines of all items, each beginning with the process's id. */
void what_lines(struct buf *b);
/* Writes the text line by line and closes the descriptor, in a fiber of its own, for some seconds at most. The text is copied. */
void what_answer(int fd, struct str text);
