#include "log/syslog.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>
#include "core/build.h"

#define SYSLOG_LINE_MAX 870

static char ident_text[33] = "exim";
static int facility_number = LOG_MAIL;
static bool with_pid = true;
static int socket_fd = -1;
static void (*tap)(int priority, struct str line);
static unsigned dropped;

int log_syslog_facility(struct str name) {
  static const struct {
    const char *name;
    int facility;
  } names[] = {
    {"mail", LOG_MAIL}, {"user", LOG_USER}, {"news", LOG_NEWS}, {"uucp", LOG_UUCP}, {"daemon", LOG_DAEMON},
    {"local0", LOG_LOCAL0}, {"local1", LOG_LOCAL1}, {"local2", LOG_LOCAL2}, {"local3", LOG_LOCAL3},
    {"local4", LOG_LOCAL4}, {"local5", LOG_LOCAL5}, {"local6", LOG_LOCAL6}, {"local7", LOG_LOCAL7},
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (str_ieq_c(name, names[i].name))
      return names[i].facility;
  return -1;
}

void log_syslog_init(int facility, const char *ident, bool pid) {
  log_syslog_done();
  facility_number = facility;
  with_pid = pid;
  snprintf(ident_text, sizeof ident_text, "%s", ident);
}

static bool connect_socket(void) {
  const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
  if (socket_fd < 0)
    socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket_fd < 0 || connect(socket_fd, (const struct sockaddr *)&address, sizeof address) < 0) {
    log_syslog_done();
    return false;
  }
  return true;
}

static bool send_datagram(const char *text, size_t n) {
  if (socket_fd < 0 && !connect_socket())
    return false;
  if (send(socket_fd, text, n, MSG_NOSIGNAL) >= 0)
    return true;
  if (errno == EAGAIN || errno == ENOBUFS)
    return false;
  log_syslog_done(); /* the system's logger was restarted: its socket is a new one */
  return connect_socket() && send(socket_fd, text, n, MSG_NOSIGNAL) >= 0;
}

/* Not syslog(3), which waits when the logger is slow: a worker never waits for a log. What the logger cannot take is
counted, and the count sent once it listens again. */
static void write_line(int priority, struct str line) {
  if (tap != NULL) {
    tap(priority, line);
    return;
  }
  if (build.syslog_to_stderr) {
    fprintf(stderr, "SYSLOG: '%.*s'\n", STRF(line));
    return;
  }
  char stamp[32], pid[16] = "", text[SYSLOG_LINE_MAX + 160];
  time_t now = time(NULL);
  struct tm tm;
  localtime_r(&now, &tm);
  strftime(stamp, sizeof stamp, "%b %e %H:%M:%S", &tm);
  if (with_pid)
    snprintf(pid, sizeof pid, "[%d]", (int)getpid());
  if (dropped > 0) {
    int n = snprintf(text, sizeof text, "<%d>%s %s%s: %u log lines dropped: syslog was not ready",
        facility_number | LOG_WARNING, stamp, ident_text, pid, dropped);
    if (!send_datagram(text, (size_t)n)) {
      dropped++;
      return;
    }
    dropped = 0;
  }
  int n = snprintf(text, sizeof text, "<%d>%s %s%s: %.*s", facility_number | priority, stamp, ident_text, pid, STRF(line));
  if (n < 0 || !send_datagram(text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1))
    dropped++;
}

/* The next piece of the entry; *ret_newline: it ended at one. */
static struct str next_piece(struct str *rest, bool *ret_newline) {
  struct str piece = str_slice(*rest, 0, SYSLOG_LINE_MAX);
  ptrdiff_t newline = str_find_byte(piece, '\n');
  *ret_newline = newline >= 0 || (rest->len > SYSLOG_LINE_MAX && rest->p[SYSLOG_LINE_MAX] == '\n');
  if (newline >= 0)
    piece = str_slice(piece, 0, (size_t)newline);
  *rest = str_from(*rest, piece.len + (*ret_newline ? 1 : 0));
  return piece;
}

void log_syslog_write(int priority, struct str entry) {
  while (entry.len > 0 && entry.p[entry.len - 1] == '\n')
    entry.len--;
  int total = 0;
  bool newline;
  for (struct str rest = entry; rest.len > 0; total++)
    (void)next_piece(&rest, &newline);
  if (total <= 1) {
    write_line(priority, entry);
    return;
  }
  int i = 0;
  for (struct str rest = entry; rest.len > 0;) {
    struct str piece = next_piece(&rest, &newline);
    char line[SYSLOG_LINE_MAX + 32];
    int n = snprintf(line, sizeof line, "[%d%c%d] %.*s", ++i, newline ? '\\' : '/', total, STRF(piece));
    write_line(priority, str_n(line, n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1));
  }
}

void log_syslog_done(void) {
  if (socket_fd >= 0)
    close(socket_fd);
  socket_fd = -1;
}

void log_syslog_tap(void (*fn)(int priority, struct str line)) { tap = fn; }
