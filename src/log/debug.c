#include <errno.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "base/buf.h"
#include "log/log.h"
#include "log/mask.h"
#include "log/select.h"

uint64_t debug_mask;

#define BIT(area) (1ull << DEBUG_##area)

static const struct select_name area_names[] = {
#define X(name, on) {#name, 1ull << DEBUG_##name, 0},
#include "log/debug_areas.def"
#undef X
  /* +all leaves out what floods the output or changes its form. */
  {"all", UINT64_MAX, ((1ull << DEBUG_COUNT) - 1) & ~(BIT(memory) | BIT(noutf8))},
  {0},
};

uint64_t debug_default_mask(void) {
  return 0
#define X(name, on) | ((uint64_t)(on) << DEBUG_##name)
#include "log/debug_areas.def"
#undef X
    ;
}

int debug_parse(struct arena *a, struct str selection, struct str *ret_error) {
  uint64_t mask = debug_default_mask();
  if (select_parse(a, selection, area_names, "debug_selector", &mask, ret_error) < 0)
    return -1;
  debug_mask = mask & ((1ull << DEBUG_COUNT) - 1);
  return 0;
}

int debug_set(struct str selection) {
  struct arena *a = arena_new("debug selection");
  struct str error;
  int rc = debug_parse(a, selection, &error);
  arena_free(a);
  return rc;
}

void debug_vprint(const char *fmt, va_list ap) {
  static bool at_line_start = true;
  int saved_errno = errno;
  char text[8192];
  size_t n = 0;
  if (at_line_start && debug_mask & BIT(timestamp)) {
    struct timeval now;
    struct tm tm;
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &tm);
    n += strftime(text, sizeof text, "%H:%M:%S", &tm);
    if (log_selected(LOGSEL_millisec))
      n += (size_t)snprintf(text + n, sizeof text - n, ".%03d", (int)(now.tv_usec / 1000));
    text[n++] = ' ';
  }
  if (at_line_start && debug_mask & BIT(pid))
    n += (size_t)snprintf(text + n, sizeof text - n, "%5d ", (int)getpid());
  int added = vsnprintf(text + n, sizeof text - n, fmt, ap);
  n += added < 0 ? 0 : (size_t)added;
  if (n >= sizeof text) {
    n = sizeof text - 1;
    text[n - 1] = '\n';
  }
  at_line_start = n == 0 || text[n - 1] == '\n';
  struct arena *a = arena_new("debug text");
  struct str shown = log_masked(a, str_n(text, n));
  /* One write a piece: output of several processes keeps its lines whole. */
  for (size_t done = 0; done < shown.len;) {
    ssize_t w = write(STDERR_FILENO, shown.p + done, shown.len - done);
    if (w < 0 && errno != EINTR)
      break;
    done += w < 0 ? 0 : (size_t)w;
  }
  arena_free(a);
  errno = saved_errno;
}

void debug_print(enum debug_area area, const char *fmt, ...) {
  if (!debug_on(area))
    return;
  va_list ap;
  va_start(ap, fmt);
  debug_vprint(fmt, ap);
  va_end(ap);
}
