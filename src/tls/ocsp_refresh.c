/* tls_ocsp_refresh: a program of the administrator's gets new proofs, in time. */
#include <errno.h>
#include <sys/wait.h>
#include <time.h>

#include "base/arena.h"
#include "core/main_options.h"
#include "log/log.h"
#include "loop/child.h"
#include "tls/module.h"
#include "tls/ocsp.h"

#define LOOK_SECONDS 3600 /* files may be replaced by others, too */
#define RETRY_SECONDS 300
#define RUN_SECONDS 60
#define OUTPUT_MAX 4096
#define ARGUMENTS_MAX 32

struct proof_file {
  const char *name;
  bool pem;
  int64_t half_time;
};

static int read_time(void *arg) {
  struct proof_file *f = arg;
  f->half_time = tls_proof_half_time(f->name, f->pem);
  return 0;
}

/* The words of the option, and the file's name as the last. The proof is judged by what it is then, not by the exit status. */
static void run(struct arena *a, struct str command, const char *file) {
  char *argv[ARGUMENTS_MAX + 2], *envp[] = {(char *)(uintptr_t)"PATH=/usr/local/bin:/usr/bin:/bin", NULL};
  int n = 0, status = 0;
  for (command = str_trim(command); command.len && n < ARGUMENTS_MAX; command = str_ltrim(command))
    argv[n++] = str_dup_c(a, str_cut(&command, ' '));
  argv[n++] = str_dup_c(a, str_c(file));
  argv[n] = NULL;
  struct child_spec spec = {.path = argv[0], .argv = argv, .envp = envp, .cwd = "/", .stdin_fd = -2, .stdout_fd = -1, .stderr_fd = -3, .umask = 022,
      .new_group = true};
  struct str output = STR_EMPTY;
  int e = child_run(&spec, a, STR_EMPTY, OUTPUT_MAX, deadline_in(RUN_SECONDS), &output, &status);
  if (e < 0 && e != -EMSGSIZE && e != -ECANCELED)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "tls_ocsp_refresh: %s: %s", argv[0], e == -ETIMEDOUT ? "timed out" : strerror(-e));
  else if (e == 0 && status != 0)
    log_write(LOG_MAIN, NULL, "tls_ocsp_refresh: %s %s: exit status %d: %.*s", argv[0], file, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
        STRF(log_printable(a, str_trim(output))));
}

/* Sees to one file; when it is to be looked at again. */
static int64_t refresh(struct str command, struct str name, bool pem) {
  struct arena *a = arena_new("tls_ocsp_refresh");
  struct proof_file f = {.name = str_dup_c(a, name), .pem = pem};
  (void)fiber_offload(read_time, &f);
  int64_t now = (int64_t)time(NULL);
  if (f.half_time <= now) {
    run(a, command, f.name);
    (void)fiber_offload(read_time, &f);
    now = (int64_t)time(NULL);
    if (f.half_time > now)
      log_write(LOG_MAIN, NULL, "tls_ocsp_refresh: %s has a new proof", f.name);
    else
      f.half_time = now + RETRY_SECONDS;
  }
  arena_free(a);
  return f.half_time;
}

static void refresher(void *arg) {
  struct config *config = arg;
  struct str command = tls_main_options(config)->tls_ocsp_refresh;
  for (;;) {
    int64_t next = (int64_t)time(NULL) + LOOK_SECONDS, now;
    struct str rest = main_options(config)->tls_ocsp_file.text;
    bool pem = false;
    while (str_is_set(rest) && rest.len) {
      struct str item = str_trim(str_cut(&rest, ':'));
      if (str_starts(item, STR("PEM ")) || str_starts(item, STR("DER "))) {
        pem = item.p[0] == 'P';
        item = str_trim(str_from(item, 4));
      }
      int64_t due = item.len ? refresh(command, item, pem) : next;
      next = due < next ? due : next;
    }
    now = (int64_t)time(NULL);
    if (fiber_sleep((usec_t)(next > now ? next - now : 1) * USEC_PER_SEC) < 0)
      return;
  }
}

struct fiber *tls_ocsp_refresh_start(struct config *config) {
  return tls_main_options(config)->tls_ocsp_refresh.len ? fiber_spawn("tls_ocsp_refresh", refresher, config) : NULL;
}
