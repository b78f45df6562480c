/* Variables of the configuration, the process and the machine. */
#include "expand/variables.h"

#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "config/config.h"
#include "core/build.h"
#include "core/main_options.h"

#define OPTION(member) offsetof(struct main_options, member)

static int get_option(struct ctx *c, const struct variable_def *def, struct str *ret) {
  memcpy(ret, (const char *)main_options(c->config) + def->offset, sizeof *ret);
  return 0;
}

static int get_qualify_recipient(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct main_options *o = main_options(c->config);
  *ret = o->qualify_recipient.len > 0 ? o->qualify_recipient : o->qualify_domain;
  return 0;
}

static int get_version(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct str set = main_options(c->config)->exim_version;
  *ret = set;
  if (def->flags && build.exim_version != NULL && str_eq_c(set, build.version))
    *ret = str_c(build.exim_version);
  return 0;
}

static int get_config_file(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct str file = c->config->files.n > 0 ? c->config->files.v[0] : STR_EMPTY;
  if (def->flags == 0) {
    *ret = file;
    return 0;
  }
  ptrdiff_t slash = str_rfind_byte(file, '/');
  *ret = slash < 0 ? STR(".") : str_slice(file, 0, slash == 0 ? 1 : (size_t)slash);
  return 0;
}

static int get_option_number(struct ctx *c, const struct variable_def *def, struct str *ret) {
  int64_t n;
  memcpy(&n, (const char *)main_options(c->config) + def->offset, sizeof n);
  return variable_number(c, n, ret);
}

static int get_ids(struct ctx *c, const struct variable_def *def, struct str *ret) {
  bool known = c->session != NULL && c->session->caller_known;
  const struct main_options *o = main_options(c->config);
  switch (def->flags) {
  case 'u':
    return variable_number(c, o->exim_user.id, ret);
  case 'g':
    return variable_number(c, o->exim_group.set ? o->exim_group.id : o->exim_user.gid, ret);
  case 'U':
    return variable_number(c, known ? c->session->caller_uid : getuid(), ret);
  case 'G':
    return variable_number(c, known ? c->session->caller_gid : getgid(), ret);
  default:
    return variable_number(c, getpid(), ret);
  }
}

/* The directory that the program was started in: asked before main() can change it. */
static char initial_cwd[PATH_MAX];

__attribute__((constructor)) static void note_cwd(void) {
  if (getcwd(initial_cwd, sizeof initial_cwd) == NULL)
    initial_cwd[0] = '\0';
}

static int get_initial_cwd(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_c(initial_cwd);
  return 0;
}

static int get_active_hostname(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct main_options *o = main_options(c->config);
  int rc = expand_option(c, &o->smtp_active_hostname, ret);
  if (rc == 0 && !str_is_set(*ret))
    *ret = o->primary_hostname;
  return rc;
}

static int get_localhost_number(struct ctx *c, const struct variable_def *def, struct str *ret) {
  int64_t n = main_options(c->config)->localhost_number_value;
  return variable_number(c, n < 0 ? 0 : n, ret);
}

static int get_load(struct ctx *c, const struct variable_def *def, struct str *ret) {
  double load = 0;
  if (build.fake_load_average) {
    static int64_t faked = -10;
    return variable_number(c, faked += 10, ret);
  }
  if (getloadavg(&load, 1) != 1)
    return variable_number(c, -1, ret);
  return variable_number(c, (int64_t)(load * 1000 + 0.5), ret);
}

/* The directory of the log files: of the first file name in log_file_path, else the spool. */
static struct str log_directory(const struct main_options *o) {
  struct str list = o->log_file_path;
  while (list.len > 0) {
    struct str item = str_trim(str_cut(&list, ':'));
    ptrdiff_t slash = str_rfind_byte(item, '/');
    if (slash >= 0)
      return str_slice(item, 0, slash == 0 ? 1 : (size_t)slash);
  }
  return o->spool_directory;
}

static int get_space(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct main_options *o = main_options(c->config);
  bool log = (def->flags & 1) != 0;
  struct str directory = log ? log_directory(o) : o->spool_directory;
  struct statvfs st;
  if (statvfs(str_dup_c(c->arena, directory), &st) < 0)
    return ctx_fail(c, OUTCOME_ERROR, "cannot accept message: failed to stat %s directory %.*s: %m", log ? "log" : "spool",
        STRF(directory));
  if (def->flags & 2)
    return variable_number(c, st.f_files == 0 ? -1 : (int64_t)st.f_favail, ret);
  return variable_number(c, (int64_t)(st.f_bavail * (st.f_frsize / 1024.0)), ret);
}

enum time_form { TIME_DATE, TIME_ZONE, TIME_ZULU };

static int format_time(struct ctx *c, enum time_form form, struct str *ret) {
  char text[64];
  time_t now = time(NULL);
  struct tm tm;
  if (form == TIME_ZULU)
    gmtime_r(&now, &tm);
  else
    localtime_r(&now, &tm);
  size_t n = form == TIME_DATE   ? strftime(text, sizeof text, "%Y%m%d", &tm)
             : form == TIME_ZONE ? strftime(text, sizeof text, "%z", &tm)
                                 : strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
  *ret = str_dup(c->arena, str_n(text, n));
  return 0;
}

static int get_tod(struct ctx *c, const struct variable_def *def, struct str *ret) {
  switch (def->flags) {
  case 'b':
    *ret = time_bsd_inbox(c->arena, time(NULL));
    return 0;
  case 'f':
    *ret = time_rfc2822(c->arena, time(NULL));
    return 0;
  case 'e':
    return variable_number(c, time(NULL), ret);
  case 'l':
    return variable_number(c, time_now_usec(), ret);
  case 't': {
    char stamp[64];
    size_t n = time_log_stamp(stamp, time_now_usec(), false, main_options(c->config)->log_timezone, false);
    *ret = str_trim(str_dup(c->arena, str_n(stamp, n)));
    return 0;
  }
  case 'd':
    return format_time(c, TIME_DATE, ret);
  case 'o':
    return format_time(c, TIME_ZONE, ret);
  default:
    return format_time(c, TIME_ZULU, ret);
  }
}

const struct variable_def system_variables[] = {
  {"bounce_return_size_limit", get_option_number, OPTION(bounce_return_size_limit)},
  {"caller_gid", get_ids, 0, 'G'},
  {"caller_uid", get_ids, 0, 'U'},
  {"config_dir", get_config_file, 0, 1},
  {"config_file", get_config_file},
  {"exim_gid", get_ids, 0, 'g'},
  {"exim_path", get_option, OPTION(exim_path)},
  {"exim_uid", get_ids, 0, 'u'},
  {"exim_version", get_version, 0, 1},
  {"initial_cwd", get_initial_cwd},
  {"load_average", get_load},
  {"localhost_number", get_localhost_number},
  {"log_inodes", get_space, 0, 3},
  {"log_space", get_space, 0, 1},
  {"pid", get_ids, 0, 'p'},
  {"primary_hostname", get_option, OPTION(primary_hostname)},
  {"qualify_domain", get_option, OPTION(qualify_domain)},
  {"qualify_recipient", get_qualify_recipient},
  {"return_size_limit", get_option_number, OPTION(bounce_return_size_limit)},
  {"smtp_active_hostname", get_active_hostname},
  {"spool_directory", get_option, OPTION(spool_directory)},
  {"spool_inodes", get_space, 0, 2},
  {"spool_space", get_space},
  {"tod_bsdinbox", get_tod, 0, 'b'},
  {"tod_epoch", get_tod, 0, 'e'},
  {"tod_epoch_l", get_tod, 0, 'l'},
  {"tod_full", get_tod, 0, 'f'},
  {"tod_log", get_tod, 0, 't'},
  {"tod_logfile", get_tod, 0, 'd'},
  {"tod_zone", get_tod, 0, 'o'},
  {"tod_zulu", get_tod, 0, 'z'},
  {"version_number", get_version},
  {0},
};
