/* How the program was called, for the log (selector `arguments`): where mail of a machine's own users comes from. */
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/process.h"
#include "log/log.h"

#define CALL_MAX 8000

static bool needs_quotes(struct str s) {
  for (size_t i = 0; i < s.len; i++)
    if (s.p[i] == ' ' || (s.p[i] >= '\t' && s.p[i] <= '\r'))
      return true;
  return s.len == 0;
}

struct str cli_call_text(struct arena *a, int argc, char **argv) {
  char *directory = getcwd(NULL, 0);
  struct buf b;
  buf_init(&b, a, CALL_MAX);
  buf_printf(&b, "cwd=%s %d args:", directory ? directory : "(unknown)", argc);
  free(directory);
  for (int i = 0; i < argc; i++) {
    struct str s = str_c(argv[i]);
    const char *quote = needs_quotes(s) ? "\"" : "";
    if (b.len + s.len + 4 > CALL_MAX - 4) {
      buf_add_c(&b, " ...");
      break;
    }
    buf_printf(&b, " %s%.*s%s", quote, STRF(s), quote);
  }
  return str_tainted(buf_str(&b));
}

/* Those that only look at something are not logged. */
static bool is_logged(enum cli_mode mode) {
  switch (mode) {
  case MODE_RECEIVE:
  case MODE_SMTP:
  case MODE_BATCH_SMTP:
  case MODE_QUEUE_LIST:
  case MODE_MESSAGE:
  case MODE_QUEUE_RUN:
  case MODE_DAEMON:
  case MODE_QUEUE_DAEMON:
  case MODE_INETD_WAIT:
  case MODE_ALIASES:
  case MODE_ATRN: return true;
  default: return false;
  }
}

void process_log_call(const struct process *p) {
  struct str call = p->cli.call;
  if (!log_selected(LOGSEL_arguments) || !str_is_set(call) || !is_logged(p->cli.mode) || str_is_set(p->cli.log_line))
    return;
  call.len = call.len < CALL_MAX ? call.len : CALL_MAX;
  log_write(LOG_MAIN, NULL, "%.*s", STRF(log_printable(p->arena, call)));
}
