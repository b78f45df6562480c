#include "log/log.h"
#include "log/mask.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/idn.h"
#include "config/config.h"
#include "core/build.h"
#include "core/main_options.h"
#include "log/debug_file.h"
#include "log/files.h"
#include "log/select.h"
#include "log/syslog.h"
#include "message/message.h"

#define LOG_LINE_MAX (64u << 10)
#define LOG_ENTRY_MAX 8192 /* with the header lines of the reject log */

/* The process's logs: opened on first use, after every fork the same. */
static struct {
  struct arena *arena;
  struct log_paths paths;
  struct log_file files[LOG_KINDS];
  uid_t uid;
  gid_t gid;
  bool stderr_copy, top_bits, write_reject, zone;
  bool syslog_duplication, syslog_stamp, syslog_pid;
  enum log_echo echo;
  bool no_panic_log;
  bool failing; /* the log itself is in trouble: no second complaint inside the first */
  void (*tap)(unsigned logs, struct str line, void *arg);
  void *tap_arg;
} state = {.files = {{.fd = -1}, {.fd = -1}, {.fd = -1}}, .write_reject = true, .syslog_duplication = true,
           .syslog_stamp = true, .syslog_pid = true};

/* Helper threads write log lines too. A child made by fork while one of them does gets the lock free. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void take_lock(void) { pthread_mutex_lock(&lock); }
static void give_lock(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void guard_fork(void) { pthread_atfork(take_lock, give_lock, give_lock); }

static void set_time_zone(struct str zone) {
  if (!str_is_set(zone))
    return;
  const char *now = getenv("TZ");
  if (str_is_empty(zone))
    unsetenv("TZ");
  else if (now == NULL || !str_eq_c(zone, now))
    setenv("TZ", str_dup_c(state.arena, zone), 1);
  tzset();
}

static void set_selectors(struct str text) {
  struct str error;
  log_selector_mask = log_selector_defaults();
  if (str_is_set(text))
    (void)select_parse(state.arena, text, log_selector_names(), "log_selector", &log_selector_mask, &error);
}

void log_init(const struct config *c) {
  log_done();
  state.arena = arena_new("log");
  const struct main_options *o = c == NULL ? NULL : main_options(c);
  set_selectors(o == NULL ? STR_UNSET : o->log_selector);
  struct str built = str_c(build.log_file_path);
  struct str spool = o == NULL || str_is_empty(o->spool_directory) ? str_c(build.spool_directory) : o->spool_directory;
  if (str_is_empty(built))
    built = str_printf(state.arena, "%.*s/log/%%slog", STRF(spool));
  log_paths_parse(state.arena, o == NULL ? built : o->log_file_path, built, &state.paths);
  if (o == NULL)
    return;
  state.uid = o->exim_user.id;
  state.gid = o->exim_group.id;
  state.top_bits = o->print_topbitchars;
  state.write_reject = o->write_rejectlog;
  state.zone = o->log_timezone;
  state.syslog_duplication = o->syslog_duplication;
  state.syslog_stamp = o->syslog_timestamp;
  state.syslog_pid = o->syslog_pid;
  set_time_zone(o->timezone);
  int facility = str_is_set(o->syslog_facility) ? log_syslog_facility(o->syslog_facility) : LOG_MAIL;
  log_syslog_init(facility < 0 ? LOG_MAIL : facility, str_dup_c(state.arena, o->syslog_processname), o->syslog_pid);
  if (state.paths.too_many)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "More than one path given in log_file_path: using %s", state.paths.file);
}

void log_set_stderr(bool on) { state.stderr_copy = on; }

void log_set_echo(enum log_echo echo) { state.echo = echo; }
bool log_is_verbose(void) { return state.echo == LOG_ECHO_VERBOSE; }

void log_tap(void (*fn)(unsigned logs, struct str line, void *arg), void *arg) {
  state.tap = fn;
  state.tap_arg = arg;
}

void log_reopen(void) {
  for (int i = 0; i < LOG_KINDS; i++)
    log_file_close(&state.files[i]);
}

void log_done(void) {
  log_reopen();
  log_syslog_done();
  arena_free(state.arena);
  state.arena = NULL;
  state.paths = (struct log_paths){0};
}

/* "2001-09-16 16:09:47.123 +0100 ". */
static size_t stamp_to(char *text, size_t size, const struct timeval *now, const struct tm *tm) {
  size_t n = strftime(text, size, "%Y-%m-%d %H:%M:%S", tm);
  if (log_selected(LOGSEL_millisec))
    n += (size_t)snprintf(text + n, size - n, ".%03d", (int)(now->tv_usec / 1000));
  if (state.zone)
    n += strftime(text + n, size - n, " %z", tm);
  return n;
}

struct str log_stamp(struct arena *a) {
  struct timeval now;
  struct tm tm;
  char text[64];
  gettimeofday(&now, NULL);
  localtime_r(&now.tv_sec, &tm);
  return str_dup(a, str_n(text, stamp_to(text, sizeof text, &now, &tm)));
}

/* Length of what may stand in a log at the start of s; 0: its first byte may not. */
static size_t printable(struct str s, bool utf8) {
  unsigned char c = (unsigned char)s.p[0];
  if ((c >= 32 && c < 127) || c == '\t' || (c > 127 && state.top_bits))
    return 1;
  if (!utf8 || c < 0xc2 || (c == 0xc2 && s.len > 1 && (unsigned char)s.p[1] < 0xa0))
    return 0;
  for (size_t n = 2; n <= 4 && n <= s.len; n++)
    if (utf8_valid(str_slice(s, 0, n)))
      return n;
  return 0;
}

static struct str make_printable(struct arena *a, struct str s, bool utf8) {
  static const char escapes[] = {['\n'] = 'n', ['\r'] = 'r', ['\b'] = 'b', ['\f'] = 'f', ['\v'] = 'v'};
  size_t i = 0, n;
  while (i < s.len && (n = printable(str_from(s, i), utf8)) > 0)
    i += n;
  if (i == s.len)
    return s;
  struct buf b;
  buf_init(&b, a, (size_t)s.len * 4 + 1);
  for (i = 0; i < s.len; i += n) {
    unsigned char c = (unsigned char)s.p[i];
    n = printable(str_from(s, i), utf8);
    if (n > 0) {
      buf_add_n(&b, s.p + i, n);
      continue;
    }
    n = 1;
    if (c < sizeof escapes && escapes[c] != 0)
      buf_printf(&b, "\\%c", escapes[c]);
    else
      buf_printf(&b, "\\%03o", c);
  }
  b.taint |= s.taint;
  return buf_str(&b);
}

struct str log_printable(struct arena *a, struct str s) { return make_printable(a, s, false); }

struct str log_printable_utf8(struct arena *a, struct str s) { return make_printable(a, s, true); }

/* --- one entry --- */

/* The parts of a log entry: files get all of it, syslog may leave out stamp and pid. */
struct entry {
  struct str stamp, pid, body; /* body: message id and text, without the final newline */
  size_t id_len;               /* of the id and the blank behind it */
  struct str extra;            /* for the reject log: whole lines */
  struct tm tm;
};

static int write_whole(int fd, struct iovec *v, int n) {
  size_t total = 0;
  for (int i = 0; i < n; i++)
    total += v[i].iov_len;
  ssize_t done;
  do
    done = writev(fd, v, n);
  while (done < 0 && errno == EINTR);
  return done < 0 ? -errno : (size_t)done < total ? -ENOSPC : 0;
}

static struct iovec piece(struct str s) { return (struct iovec){.iov_base = (void *)(uintptr_t)s.p, .iov_len = s.len}; }

/* 0, or -errno with *ret_what saying what went wrong with which file. */
static int write_file(enum log_kind kind, const struct entry *e, char *ret_what, size_t size) {
  static const char *const words[] = {"main", "reject", "panic"};
  char name[1024];
  if (log_file_name(&state.paths, kind, &e->tm, name, sizeof name) < 0) {
    snprintf(ret_what, size, "%s log path is too long", words[kind]);
    return -ENAMETOOLONG;
  }
  struct log_file *f = &state.files[kind];
  int rc = log_file_open(f, name, state.uid, state.gid);
  if (rc < 0) {
    snprintf(ret_what, size, "Cannot open %s log file \"%s\": %s: euid=%d egid=%d", words[kind], name, strerror(-rc),
        (int)geteuid(), (int)getegid());
    return rc;
  }
  struct iovec v[5] = {piece(e->stamp), piece(e->pid), piece(e->body), piece(STR("\n")), piece(e->extra)};
  rc = write_whole(f->fd, v, kind == LOG_KIND_REJECT ? 5 : 4);
  if (rc < 0)
    snprintf(ret_what, size, "failed to write to %s log: %s", words[kind], strerror(-rc));
  return rc;
}

int log_debug_name(struct str tag, char *name, size_t size) {
  struct tm tm;
  time_t now = time(NULL);
  localtime_r(&now, &tm);
  if (state.paths.file == NULL || log_file_name(&state.paths, LOG_KIND_DEBUG, &tm, name, size) < 0)
    return -1;
  size_t n = strlen(name);
  if (n + tag.len >= size)
    return -1;
  memcpy(name + n, tag.p, tag.len);
  name[n + tag.len] = 0;
  return 0;
}

static void write_syslog(int priority, const struct entry *e, bool with_extra) {
  struct arena *a = arena_new("syslog entry");
  struct str text = str_printf(a, "%.*s%.*s%.*s%s%.*s", STRF(state.syslog_stamp ? e->stamp : STR_EMPTY),
      STRF(state.syslog_pid ? e->pid : STR_EMPTY), STRF(e->body), with_extra && e->extra.len > 0 ? "\n" : "",
      STRF(with_extra ? e->extra : STR_EMPTY));
  log_syslog_write(priority, text);
  arena_free(a);
}

static void write_stderr(const struct entry *e) {
  struct iovec v[4] = {piece(e->stamp), piece(e->pid), piece(e->body), piece(STR("\n"))};
  (void)write_whole(STDERR_FILENO, v, 4);
}

static void make_entry(struct arena *a, struct entry *e, const struct message *m, struct str text) {
  struct timeval now;
  char stamp[64];
  gettimeofday(&now, NULL);
  localtime_r(&now.tv_sec, &e->tm);
  size_t n = stamp_to(stamp, sizeof stamp - 1, &now, &e->tm);
  stamp[n++] = ' ';
  e->stamp = str_dup(a, str_n(stamp, n));
  e->pid = log_selected(LOGSEL_pid) ? str_printf(a, "[%d] ", (int)getpid()) : STR_EMPTY;
  e->body = m != NULL && m->id[0] != 0 ? str_printf(a, "%s %.*s", m->id, STRF(text)) : text;
  e->id_len = e->body.len - text.len;
  e->extra = STR_EMPTY;
}

/* The last resort of a panic line: whoever reads stderr, and the system's log. */
static void panic_fallback(const struct entry *e, const struct entry *saved) {
  if (saved != NULL)
    write_stderr(saved);
  write_stderr(e);
  if (saved != NULL)
    write_syslog(LOG_CRIT, saved, false);
  write_syslog(LOG_CRIT, e, false);
  static const struct str last = STR("exim: could not open panic log - aborting: see message(s) above");
  static const struct str last_of_worker = STR("exim: could not open panic log: see message(s) above");
  struct str text = state.stderr_copy ? last : last_of_worker;
  log_syslog_write(LOG_CRIT, text);
  fprintf(stderr, "%.*s\n", STRF(text));
  /* A command in the foreground ends; a worker, whose sessions are worth more than its logs, goes on. */
  state.no_panic_log = state.stderr_copy;
}

static void write_panic(const struct entry *e, const struct entry *saved) {
  char what[1200];
  if (state.stderr_copy && (state.echo == LOG_ECHO_NONE || saved != NULL))
    write_stderr(e);
  if (state.paths.syslog)
    write_syslog(LOG_ALERT, e, false);
  if (state.paths.file == NULL)
    return;
  if ((saved != NULL && write_file(LOG_KIND_PANIC, saved, what, sizeof what) < 0) ||
      write_file(LOG_KIND_PANIC, e, what, sizeof what) < 0)
    panic_fallback(e, saved);
}

/* A log that cannot be written: the complaint and the line itself go to the panic log. */
static void complain(struct arena *a, const struct entry *e, const char *what) {
  if (state.failing)
    return;
  state.failing = true;
  struct entry complaint;
  make_entry(a, &complaint, NULL, str_c(what));
  write_panic(&complaint, e);
  state.failing = false;
}

static void echo_entry(unsigned logs, struct str text) {
  char flags[32];
  if (state.echo == LOG_ECHO_HOST_CHECK) {
    if (logs & (LOG_MAIN | LOG_PANIC | LOG_PANIC_DIE))
      fprintf(stderr, "LOG: %.*s\n", STRF(text));
    return;
  }
  snprintf(flags, sizeof flags, "%s%s%s%s", logs & LOG_MAIN ? " MAIN" : "", logs & LOG_PANIC ? " PANIC" : "",
      logs & LOG_PANIC_DIE ? " DIE" : "", logs & LOG_REJECT ? " REJECT" : "");
  fprintf(stderr, "LOG:%s\n  %.*s\n", flags, STRF(text));
}

static void write_logs(struct arena *a, unsigned logs, const struct entry *e) {
  char what[1200];
  bool once = !state.syslog_duplication;
  if (logs & LOG_MAIN) {
    if (state.paths.file != NULL && write_file(LOG_KIND_MAIN, e, what, sizeof what) < 0)
      complain(a, e, what);
    if (state.paths.syslog && !(once && logs & (LOG_REJECT | LOG_PANIC)))
      write_syslog(LOG_INFO, e, false);
  }
  if (logs & LOG_REJECT && state.write_reject) {
    if (state.paths.file != NULL && write_file(LOG_KIND_REJECT, e, what, sizeof what) < 0)
      complain(a, e, what);
    if (state.paths.syslog && !(once && logs & LOG_PANIC))
      write_syslog(LOG_NOTICE, e, true);
  }
}

/* A last guard against forged lines: control characters of the text become \ooo. A newline may only stand where it
begins a continuation of ours, with a blank or two. */
static struct str guard(struct arena *a, struct str text) {
  size_t bad = 0;
  for (size_t i = 0; i < text.len; i++) {
    unsigned char c = (unsigned char)text.p[i];
    if ((c < 32 && c != '\t' && c != '\n') || c == 127 || (c == '\n' && !str_starts(str_from(text, i), STR("\n "))))
      bad++;
  }
  if (bad == 0)
    return text;
  struct buf b;
  buf_init(&b, a, text.len + bad * 3 + 1);
  for (size_t i = 0; i < text.len; i++) {
    unsigned char c = (unsigned char)text.p[i];
    bool newline = c == '\n' && str_starts(str_from(text, i), STR("\n "));
    if ((c >= 32 && c != 127) || c == '\t' || newline)
      buf_add_byte(&b, text.p[i]);
    else if (c == '\n')
      buf_add(&b, STR("\\n"));
    else
      buf_printf(&b, "\\%03o", c);
  }
  return buf_str(&b);
}

/* Header lines may be long, and come from anywhere: they end where the entry becomes too long. */
static struct str bounded_extra(struct arena *a, const struct entry *e, struct str extra) {
  size_t used = e->stamp.len + e->pid.len + e->body.len + 1, room = used < LOG_ENTRY_MAX ? LOG_ENTRY_MAX - used : 0;
  if (extra.len <= room)
    return extra;
  static const struct str note = STR("*** truncated ***\n");
  room = room > note.len ? room - note.len : 0;
  while (room > 0 && extra.p[room - 1] != '\n')
    room--;
  return str_cat(a, str_slice(extra, 0, room), note);
}

static void write_entry(unsigned logs, const struct message *m, struct str text, struct str extra) {
  int saved_errno = errno;
  struct arena *a = arena_new("log entry");
  struct entry e;
  take_lock();
  if (logs & LOG_PANIC_DIE)
    logs |= LOG_PANIC;
  if (state.arena == NULL)
    log_init(NULL);
  make_entry(a, &e, m, log_masked(a, guard(a, str_rtrim(text))));
  e.extra = bounded_extra(a, &e, extra);
  if (state.tap != NULL)
    state.tap(logs, str_printf(a, "%.*s%.*s%.*s", STRF(e.stamp), STRF(e.pid), STRF(e.body)), state.tap_arg);
  debug_file_log_line(logs, str_from(e.body, e.id_len));
  if (state.echo == LOG_ECHO_STDERR)
    write_stderr(&e);
  else if (state.echo != LOG_ECHO_NONE)
    echo_entry(logs, state.echo == LOG_ECHO_VERBOSE ? str_from(e.body, e.id_len) : e.body);
  if (state.echo == LOG_ECHO_NONE || state.echo == LOG_ECHO_VERBOSE)
    write_logs(a, logs, &e);
  bool panic = state.echo == LOG_ECHO_NONE || state.echo == LOG_ECHO_VERBOSE || state.echo == LOG_ECHO_PANIC;
  if (logs & LOG_PANIC && panic)
    write_panic(&e, NULL);
  give_lock();
  arena_free(a);
  errno = saved_errno;
  if (logs & LOG_PANIC_DIE || state.no_panic_log)
    exit(EXIT_FAILURE);
}

void log_vwrite(unsigned logs, const struct message *m, const char *fmt, va_list ap) {
  char line[2048];
  va_list again;
  va_copy(again, ap);
  int n = vsnprintf(line, sizeof line, fmt, ap);
  if (n >= 0 && (size_t)n < sizeof line) {
    write_entry(logs, m, str_n(line, (size_t)n), STR_EMPTY);
  } else if (n >= 0) {
    static const char cut[] = " (line too long: cut)";
    char *text = xmalloc(LOG_LINE_MAX + sizeof cut);
    vsnprintf(text, LOG_LINE_MAX, fmt, again);
    size_t len = (size_t)n < LOG_LINE_MAX ? (size_t)n : LOG_LINE_MAX - 1;
    if ((size_t)n >= LOG_LINE_MAX) {
      memcpy(text + len, cut, sizeof cut);
      len += sizeof cut - 1;
    }
    write_entry(logs, m, str_n(text, len), STR_EMPTY);
    free(text);
  }
  va_end(again);
}

void log_write(unsigned logs, const struct message *m, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  log_vwrite(logs, m, fmt, ap);
  va_end(ap);
}

void log_write_with_headers(unsigned logs, const struct message *m, struct str line, struct str extra) {
  write_entry(logs, m, line, log_selected(LOGSEL_rejected_header) ? extra : STR_EMPTY);
}

void log_write_reject(const struct message *m, struct str line, struct str extra) {
  write_entry(LOG_MAIN | LOG_REJECT, m, line, log_selected(LOGSEL_rejected_header) ? extra : STR_EMPTY);
}
