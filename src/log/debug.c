#include <errno.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/fd_io.h"
#include "log/debug_file.h"
#include "log/log.h"
#include "log/mask.h"
#include "log/select.h"

uint64_t debug_mask;
static const char *line_prefix = "";

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

int debug_select(struct arena *a, struct str selection, uint64_t *ret_mask, struct str *ret_error) {
  uint64_t mask = debug_default_mask();
  if (select_parse(a, selection, area_names, "debug_selector", &mask, ret_error) < 0)
    return -1;
  *ret_mask = mask & ((1ull << DEBUG_COUNT) - 1);
  return 0;
}

int debug_parse(struct arena *a, struct str selection, struct str *ret_error) {
  return debug_select(a, selection, &debug_mask, ret_error);
}

int debug_set(struct str selection) {
  struct arena *a = arena_new("debug selection");
  struct str error;
  int rc = debug_parse(a, selection, &error);
  arena_free(a);
  return rc;
}

void debug_set_prefix(const char *prefix) { line_prefix = prefix; }

size_t debug_line_start(char *text, size_t size, bool stamp, bool pid) {
  size_t n = 0;
  if (stamp) {
    struct timeval now;
    struct tm tm;
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &tm);
    n += strftime(text, size, "%H:%M:%S", &tm);
    if (log_selected(LOGSEL_millisec))
      n += (size_t)snprintf(text + n, size - n, ".%03d", (int)(now.tv_usec / 1000));
    text[n++] = ' ';
  }
  if (pid)
    n += (size_t)snprintf(text + n, size - n, "%5d ", (int)getpid());
  return n;
}

/* With a prefix each line of the text gets it. */
static struct str with_starts(struct arena *a, struct str text, bool *at_line_start) {
  struct buf b;
  char start[64];
  buf_init(&b, a, BUF_MAX_EXPANSION);
  for (struct str rest = text; rest.len > 0;) {
    ptrdiff_t newline = str_find_byte(rest, '\n');
    size_t n = newline < 0 ? rest.len : (size_t)newline + 1;
    if (*at_line_start) {
      buf_add_n(&b, start, debug_line_start(start, sizeof start, debug_mask & BIT(timestamp), debug_mask & BIT(pid)));
      buf_add_c(&b, line_prefix);
    }
    buf_add_n(&b, rest.p, n);
    *at_line_start = newline >= 0;
    rest = str_from(rest, n);
    if (*at_line_start && !*line_prefix) { /* what a text goes on with is set off by nothing */
      buf_add(&b, rest);
      *at_line_start = rest.len == 0 || rest.p[rest.len - 1] == '\n';
      break;
    }
  }
  return buf_str(&b);
}

static void to_stderr(struct str text) {
  static bool at_line_start = true;
  struct arena *a = arena_new("debug text");
  struct str shown = with_starts(a, text, &at_line_start);
  /* One write a piece: output of several processes keeps its lines whole. */
  (void)fd_write_all(STDERR_FILENO, shown.p, shown.len);
  arena_free(a);
}

void debug_print(enum debug_area area, const char *fmt, ...) {
  if (!debug_on(area))
    return;
  int saved_errno = errno;
  char text[8192];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (n >= (int)sizeof text) {
    n = (int)sizeof text - 1;
    text[n - 1] = '\n';
  }
  struct arena *a = arena_new("debug text");
  struct str shown = log_masked(a, str_n(text, n < 0 ? 0 : (size_t)n));
  if ((debug_mask >> area) & 1)
    to_stderr(shown);
  if (debug_file_wants(area))
    debug_file_add(shown);
  arena_free(a);
  errno = saved_errno;
}
