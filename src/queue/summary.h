/* Summaries: what -bp shows of each message, in one file a queue (SPOOL[/QUEUE]/summary/messages), so that listing a large
queue does not open each of its files. A cache and nothing more: a record counts only while the message's -H file is the
one (by its inode) that it was made from, so whatever else changes the spool is seen; without the file all goes on.

One line a record, appended by every process that writes a -H file; the last of an id counts; records of messages that are
gone are dropped when the file has grown. No function here suspends; all may be called in any thread. */
#pragma once

#include <sys/types.h>
#include "base/arena.h"
#include "base/str.h"

struct message;

struct summary_recipient {
  struct str address;
  bool done;
};
struct summary {
  struct str id, login;          /* login: unset unless the sender is the word of an ordinary user */
  struct str sender;
  ino_t inode;
  int64_t received;
  uint64_t size;
  uint32_t uid;
  bool frozen, generated;        /* generated: has addresses done that are none of the recipients */
  size_t recipients_n;
  struct str recipients;         /* for summary_next_recipient */
};

/* m's -H has been written in this directory. Nothing is told: the message is read from its file then. */
void summary_note(const struct message *m, int dir);

/* What is known of a queue. */
struct summaries;
struct summaries *summaries_load(struct arena *a, struct str queue_name);
bool summaries_find(const struct summaries *s, const char *id, ino_t inode, struct summary *ret);
/* False: no more. */
bool summary_next_recipient(struct summary *s, struct summary_recipient *ret);
/* Of a message that was read while its -H was this inode: kept for the next time. */
void summaries_add(struct summaries *s, const struct message *m, ino_t inode);
/* Writes what was added. */
void summaries_save(struct summaries *s);
