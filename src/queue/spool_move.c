/* What administrators do to whole messages: moving between queues, removing what cannot be read. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/ctx.h"
#include "loop/fiber.h"
#include "queue/spool_internal.h"
#include "queue/spool_wal.h"

/* The first name of -D goes when it has its second one. Whoever moves the files back by hand at this moment may be left with the
first one only: it is set aside, and comes back if the second is not there. */
static int drop_data(int from, int to, const char *data, const char *id) {
  char aside[SPOOL_NAME_MAX];
  snprintf(aside, sizeof aside, "old.%.23s", id);
  int rc = spool_io_rename(from, data, to, aside);
  if (rc)
    return rc;
  if (faccessat(to, data, F_OK, AT_SYMLINK_NOFOLLOW) && linkat(to, aside, from, data, 0) && errno != EEXIST)
    return -errno;
  return spool_io_unlink(to, aside);
}

/* -D is there under both names for a moment: a crash leaves a whole message, in one queue or the other. */
static int move_files(int from, int to, const char *id) {
  char data[SPOOL_NAME_MAX], header[SPOOL_NAME_MAX], journal[SPOOL_NAME_MAX];
  spool_name(data, id, 'D');
  spool_name(header, id, 'H');
  spool_name(journal, id, 'J');
  if (linkat(from, data, to, data, 0) && errno != EEXIST)
    return -errno;
  if (renameat(from, journal, to, journal) && errno != ENOENT)
    return -errno;
  int rc = spool_io_rename(from, header, to, header);
  if (rc == 0)
    rc = spool_io_sync_dir(to);
  return rc ? rc : drop_data(from, to, data, id);
}

int spool_move(struct ctx *c, struct message *m, struct str queue_name) {
  char subdir[2] = {m->spool_subdir[0], '\0'};
  int from = spool_dir(m->queue_name, subdir, false), to = spool_dir(queue_name, subdir, true);
  if (from < 0 || to < 0)
    return from < 0 ? from : to;
  int rc = from == to ? 0 : move_files(from, to, m->id);
  if (rc)
    return rc;
  from = spool_purpose_dir(m->queue_name, "msglog", subdir, false);
  to = from < 0 ? -1 : spool_purpose_dir(queue_name, "msglog", subdir, true);
  if (to >= 0)
    (void)renameat(from, m->id, to, m->id);
  m->queue_name = str_dup(m->arena, queue_name);
  return 0;
}

struct aside_job {
  const char *id;
  int from, to;
  bool sync; /* the files may not be on the disk yet: the log still holds the message */
};

static int aside(void *arg) {
  struct aside_job *j = arg;
  int rc = j->sync ? spool_io_sync_fs(j->from) : 0;
  return rc ? rc : move_files(j->from, j->to, j->id);
}

int spool_set_aside(struct ctx *c, struct message *m) {
  struct spool_state *s = spool_state(m);
  char subdir[2] = {m->spool_subdir[0], '\0'};
  int rc = spool_rest(c, m);
  if (rc)
    return rc;
  struct aside_job job = {.id = m->id, .from = spool_dir(m->queue_name, subdir, false),
      .to = spool_purpose_dir(m->queue_name, "Finput", subdir, true), .sync = s->wal != NULL};
  rc = job.from < 0 ? job.from : job.to < 0 ? job.to : fiber_offload(aside, &job);
  if (rc)
    return rc;
  int from = spool_purpose_dir(m->queue_name, "msglog", subdir, false);
  int to = from < 0 ? -1 : spool_purpose_dir(m->queue_name, "Fmsglog", subdir, true);
  if (to >= 0)
    (void)renameat(from, m->id, to, m->id);
  if (s->wal)
    wal_gone(s->wal);
  s->has_files = s->has_data = s->has_journal = false;
  if (spool_changed && !wal_active())
    spool_changed(m);
  return 0;
}

bool spool_remove_unread(struct ctx *c, struct str queue_name, struct str id) {
  char name[SPOOL_NAME_MAX], text[24], letter[2];
  bool any = false;
  if (!message_id_valid(id) || spool_open(c->config))
    return false;
  snprintf(text, sizeof text, "%.*s", STRF(id));
  letter[0] = spool_letter(text);
  letter[1] = '\0';
  for (int i = 0; i < 2; i++) {
    int dir = spool_dir(queue_name, i ? letter : "", false);
    for (const char *which = "HDJ"; dir >= 0 && *which; which++) {
      spool_name(name, text, *which);
      any |= spool_io_unlink(dir, name) == 0;
    }
    dir = spool_purpose_dir(queue_name, "msglog", i ? letter : "", false);
    any |= dir >= 0 && unlinkat(dir, text, 0) == 0;
  }
  return any;
}

void spool_remove_log(struct ctx *c, const struct message *m) {
  char subdir[2] = {m->spool_subdir[0], '\0'};
  int dir = spool_purpose_dir(m->queue_name, "msglog", subdir, false);
  if (dir >= 0)
    (void)unlinkat(dir, m->id, 0);
}
