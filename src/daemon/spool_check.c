#include "daemon/spool_check.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "core/build.h"
#include "core/main_options.h"
#include "log/files.h"

struct identity {
  bool change; /* workers will be somebody else */
  uid_t uid;
  gid_t gid;
};

static struct identity of_workers(const struct main_options *o) {
  struct identity id = {.uid = geteuid(), .gid = getegid()};
  if (id.uid == 0 && o->exim_user.set) {
    id.change = true;
    id.uid = o->exim_user.id;
    id.gid = o->exim_group.set ? o->exim_group.id : o->exim_user.gid;
  }
  return id;
}

/* All components that are missing; what is on the way to the last one is root's, as elsewhere below /var. 0 or errno. */
static int make(struct arena *a, const char *path, const struct identity *id) {
  char *p = str_dup_c(a, str_c(path));
  for (char *slash = strchr(p + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdir(p, 0755) < 0 && errno != EEXIST)
      return errno;
    *slash = '/';
  }
  if (mkdir(p, 0750) < 0)
    return errno == EEXIST ? 0 : errno;
  return id->change && chown(p, id->uid, id->gid) < 0 ? errno : 0;
}

/* Asked in a child that has become the workers' user. 0 or errno. */
static int may_write(const char *path, int how, const struct identity *id) {
  pid_t pid = id->change ? fork() : 0;
  if (pid < 0)
    return 0; /* nothing is known */
  if (pid == 0) {
    if (id->change && (setgroups(0, NULL) < 0 || setresgid(id->gid, id->gid, id->gid) < 0 || setresuid(id->uid, id->uid, id->uid) < 0))
      _exit(0);
    int e = faccessat(AT_FDCWD, path, how, AT_EACCESS) == 0 ? 0 : errno;
    if (!id->change)
      return e;
    _exit(e);
  }
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR)
      return 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

static struct str user_name(struct arena *a, uid_t uid) {
  const struct passwd *pw = getpwuid(uid);
  return pw ? str_dup(a, str_c(pw->pw_name)) : str_printf(a, "%ld", (long)uid);
}

/* `what` it is; `else_do`: another way to mend what belongs to somebody else. */
static struct str complain(struct arena *a, const char *what, const char *path, const struct identity *id, int error, const char *else_do) {
  struct stat st;
  struct str user = user_name(a, id->uid), text = str_printf(a, "%s %s: %s", what, path, strerror(error));
  if (stat(path, &st) < 0 && errno == ENOENT)
    return str_printf(a, "%s %s does not exist and cannot be made: %s; start the daemon as root, or make it for user %.*s", what, path,
        strerror(error), STRF(user));
  if (error != EACCES)
    return text;
  return str_printf(a, "%.*s for user %.*s, as whom mail is received and delivered (it belongs to %.*s, mode %04o): give it to %.*s "
      "(chown%s)%s", STRF(text), STRF(user), STRF(user_name(a, st.st_uid)), (unsigned)st.st_mode & 07777, STRF(user),
      S_ISDIR(st.st_mode) ? " -R" : "", else_do);
}

struct str spool_check(const struct config *c, struct arena *a) {
  const struct main_options *o = main_options(c);
  struct identity id = of_workers(o);
  const char *spool = str_dup_c(a, o->spool_directory), *input = str_dup_c(a, str_printf(a, "%s/input", spool));
  const char *what = "spool directory", *else_do = id.change ? ", or set exim_user and exim_group to its owner" : "";
  int e = make(a, spool, &id);
  e = e ? e : may_write(spool, R_OK | W_OK | X_OK, &id);
  if (e)
    return complain(a, what, spool, &id, e, else_do);
  e = may_write(input, R_OK | W_OK | X_OK, &id); /* a spool that was another user's may have it below */
  return e && e != ENOENT ? complain(a, what, input, &id, e, else_do) : STR_UNSET;
}

struct str log_check(const struct config *c, struct arena *a) {
  const struct main_options *o = main_options(c);
  struct identity id = of_workers(o);
  struct str built = *build.log_file_path ? str_c(build.log_file_path) : str_printf(a, "%.*s/log/%%slog", STRF(o->spool_directory));
  struct log_paths paths;
  time_t now = time(NULL);
  struct tm tm;
  log_paths_parse(a, o->log_file_path, built, &paths);
  if (!paths.file || !localtime_r(&now, &tm))
    return STR_UNSET; /* syslog alone */
  for (int kind = 0; kind < LOG_KINDS; kind++) {
    char name[1024];
    if (log_file_name(&paths, kind, &tm, name, sizeof name) < 0)
      return STR_UNSET;
    char *directory = str_dup_c(a, str_c(name)), *slash = strrchr(directory, '/');
    if (!slash || slash == directory)
      continue;
    *slash = 0;
    int e = make(a, directory, &id);
    e = e ? e : may_write(directory, W_OK | X_OK, &id);
    const char *else_do = ", or choose another place with log_file_path";
    if (e)
      return complain(a, "log directory", directory, &id, e, else_do);
    e = may_write(name, W_OK, &id); /* a log that root has begun */
    if (e && e != ENOENT)
      return complain(a, "log file", name, &id, e, else_do);
  }
  return STR_UNSET;
}
