/* The message log: SPOOL/msglog/ID (Exim manual, section "Message log").
Lines are kept in memory while a message is being delivered and written only
when it stays in the queue, so that most messages never have the file. */
#pragma once

#include "base/buf.h"
#include "core/ctx.h"
#include "message/message.h"

struct msglog {
  struct buf lines;
};

void msglog_init(struct msglog *l, struct arena *a);
/* One line with a time stamp. */
void msglog_add(struct msglog *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One line as it is ("*** Frozen"). */
void msglog_add_plain(struct msglog *l, struct str line);
/* The message stays: appends to its file, which begins with the "Received from" line. [suspends] */
void msglog_write(struct msglog *l, struct ctx *c, struct message *m);
/* The message waits without having been tried: its file, with the first line. [suspends] */
void msglog_begin(struct ctx *c, struct message *m);
/* The message is complete: removes its file (or keeps it in msglog.OLD, with preserve_message_logs). [suspends] */
void msglog_remove(struct ctx *c, struct message *m);
