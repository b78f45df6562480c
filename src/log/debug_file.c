#include "log/debug_file.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_io.h"
#include "log/files.h"
#include "loop/fiber.h"

#define FILES_MAX 64

struct debug_file {
  unsigned number;          /* 0: free */
  struct debug_file_how how;
  char path[1024];
  struct log_file file;
  bool mid_line;
  char *kept;               /* until a trigger: the newest `pretrigger` bytes, whole lines */
  size_t kept_n;
};
static struct debug_file files[FILES_MAX];
static unsigned last_number;

uint64_t debug_file_mask;

static struct debug_file *find(unsigned number) {
  for (size_t i = 0; number != 0 && i < FILES_MAX; i++)
    if (files[i].number == number)
      return &files[i];
  return NULL;
}

static void update_mask(void) {
  debug_file_mask = 0;
  for (size_t i = 0; i < FILES_MAX; i++)
    if (files[i].number != 0)
      debug_file_mask |= files[i].how.mask;
}

unsigned debug_file_open(const struct debug_file_how *how) {
  struct debug_file *f = NULL;
  for (size_t i = 0; i < FILES_MAX && !f; i++)
    if (files[i].number == 0)
      f = &files[i];
  if (!f || how->path.len >= sizeof f->path || str_is_tainted(how->path))
    return 0;
  *f = (struct debug_file){.how = *how, .file = {.fd = -1}};
  memcpy(f->path, how->path.p, how->path.len);
  f->how.path = STR_UNSET;
  if (f->how.pretrigger > DEBUG_FILE_PRETRIGGER_MAX)
    f->how.pretrigger = DEBUG_FILE_PRETRIGGER_MAX;
  if (f->how.pretrigger > 0)
    f->kept = xmalloc(f->how.pretrigger);
  if (++last_number == 0)
    last_number = 1;
  f->number = last_number;
  fiber_set_tag(f->number);
  update_mask();
  return f->number;
}

void debug_file_select(unsigned number, uint64_t mask) {
  struct debug_file *f = find(number);
  if (f)
    f->how.mask = mask;
  update_mask();
}

static void write_out(struct debug_file *f, struct str text) {
  if (log_file_open(&f->file, f->path, geteuid(), getegid()) < 0)
    return; /* debugging must not be in the way of what is debugged */
  (void)fd_write_all(f->file.fd, text.p, text.len);
}

void debug_file_trigger(unsigned number) {
  struct debug_file *f = find(number);
  if (!f || !f->kept)
    return;
  write_out(f, str_n(f->kept, f->kept_n));
  free(f->kept);
  f->kept = NULL;
}

void debug_file_close(unsigned number, bool remove) {
  struct debug_file *f = find(number);
  if (!f)
    return;
  log_file_close(&f->file);
  if (remove)
    (void)unlink(f->path);
  free(f->kept);
  *f = (struct debug_file){.file = {.fd = -1}};
  update_mask();
}

/* Newer lines displace the oldest. */
static void keep(struct debug_file *f, struct str text) {
  size_t room = f->how.pretrigger;
  if (text.len > room)
    text = str_from(text, text.len - room);
  if (f->kept_n + text.len > room) {
    size_t drop = f->kept_n + text.len - room;
    while (drop < f->kept_n && f->kept[drop - 1] != '\n')
      drop++;
    memmove(f->kept, f->kept + drop, f->kept_n - drop);
    f->kept_n -= drop;
  }
  memcpy(f->kept + f->kept_n, text.p, text.len);
  f->kept_n += text.len;
}

bool debug_file_wants(enum debug_area area) {
  const struct debug_file *f = debug_file_mask ? find(fiber_tag()) : NULL;
  return f && (f->how.mask >> area) & 1;
}

void debug_file_add(struct str text) {
  struct debug_file *f = find(fiber_tag());
  if (!f || text.len == 0)
    return;
  char start[64];
  size_t n = f->mid_line ? 0 : debug_line_start(start, sizeof start, true, true);
  struct arena *a = arena_new("debug line");
  struct str whole = str_cat(a, str_n(start, n), text);
  if (f->kept)
    keep(f, whole);
  else
    write_out(f, whole);
  f->mid_line = text.p[text.len - 1] != '\n';
  arena_free(a);
}

void debug_file_log_line(unsigned logs, struct str text) {
  struct debug_file *f = debug_file_mask ? find(fiber_tag()) : NULL;
  if (!f)
    return;
  struct arena *a = arena_new("debug line");
  if (f->mid_line)
    debug_file_add(STR("\n"));
  debug_file_add(str_printf(a, "LOG:%s%s%s%s\n", logs & LOG_MAIN ? " MAIN" : "", logs & LOG_PANIC ? " PANIC" : "",
      logs & LOG_PANIC_DIE ? " DIE" : "", logs & LOG_REJECT ? " REJECT" : ""));
  debug_file_add(str_printf(a, "  %.*s\n", STRF(text)));
  arena_free(a);
  if (logs & LOG_PANIC && f->how.on_panic)
    debug_file_trigger(f->number);
}
