/* Main options that depend on the build, on this host or on each other. */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "base/arena.h"
#include "config/config.h"
#include "config/value.h"
#include "core/build.h"
#include "core/main_check.h"
#include "core/main_options.h"
#include "log/log.h"
#include "log/select.h"
#include "log/syslog.h"

void core_main_defaults(void *block, struct arena *a) {
  struct main_options *o = block;
  o->exim_user = (struct option_user){.text = str_c(build.user), .id = geteuid(), .gid = getegid(), .gid_set = true};
  o->exim_group = (struct option_user){.text = str_c(build.group), .id = getegid()};
  int64_t gid;
  if (value_user(o->exim_user.text, &o->exim_user.id, &gid))
    o->exim_user.set = true;
  if (value_group(o->exim_group.text, &o->exim_group.id))
    o->exim_group.set = true;
  o->exim_path = str_c(build.program_path);
  o->exim_version = str_c(build.version);
  o->spool_directory = str_c(build.spool_directory);
  o->log_file_path = str_c(build.log_file_path);
  o->pid_file_path = str_c(build.pid_file_path);
  o->smtputf8_advertise_hosts.text = str_c(build.smtputf8_advertise_hosts);
  o->tls_advertise_requiretls.text = str_c(build.tls_advertise_requiretls);
  if (build.headers_charset)
    o->headers_charset = str_c(build.headers_charset);
  if (build.received_header_text)
    o->received_header_text.text = str_c(build.received_header_text);
  o->localhost_number_value = -1;
  struct str received = o->received_header_text.text;
  ptrdiff_t at = str_find(received, STR("(Martlet "));
  if (at >= 0 && strcmp(build.mailer_name, "Martlet"))
    o->received_header_text.text = str_printf(a, "%.*s(%s %.*s", (int)at, received.p, build.mailer_name, STRF(str_from(received, (size_t)at + 9)));
}

/* This host's name: uname's, made complete where it has no dot. */
static struct str host_name(struct arena *a) {
  struct utsname u;
  if (uname(&u) < 0)
    return STR("localhost");
  struct str name = str_dup(a, str_c(u.nodename));
  if (str_find_byte(name, '.') >= 0 || build.hosts_from_dns_only)
    return name;
  const struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  struct addrinfo *found = NULL;
  if (getaddrinfo(name.p, NULL, &hints, &found) == 0) {
    if (found->ai_canonname != NULL && strchr(found->ai_canonname, '.') != NULL)
      name = str_dup(a, str_c(found->ai_canonname));
    freeaddrinfo(found);
  }
  return name;
}

static int check_localhost_number(struct config_reader *r, struct main_options *o) {
  if (str_is_empty(o->localhost_number))
    return 0;
  int64_t n;
  if (value_int(str_trim(o->localhost_number), &n) != VALUE_OK || n < 0)
    return config_error(r, "localhost_number value is not a number: %.*s", STRF(o->localhost_number));
  if (n > 16)
    return config_error(r, "localhost_number is greater than the maximum allowed value (16)");
  o->localhost_number_value = n;
  return 0;
}

static int check_log_path(struct config_reader *r, const struct main_options *o) {
  struct str rest = o->log_file_path;
  while (str_is_set(rest)) {
    struct str item = str_trim(str_cut(&rest, ':'));
    if (str_is_empty(item) || str_eq_c(item, "syslog"))
      continue;
    if (str_find(item, STR("%s")) < 0)
      return config_error(r, "log_file_path \"%.*s\" does not contain \"%%s\"", STRF(item));
    if (item.p[0] != '/')
      return config_error(r, "log_file_path \"%.*s\" is not an absolute path", STRF(item));
  }
  return 0;
}

/* The daemon's directory is another one than that of who starts it. */
static int check_spool_directory(struct config_reader *r, const struct main_options *o) {
  if (str_is_empty(o->spool_directory))
    return config_error(r, "spool_directory undefined: cannot proceed");
  if (o->spool_directory.p[0] != '/')
    return config_error(r, "spool_directory \"%.*s\" is not an absolute path", STRF(o->spool_directory));
  return 0;
}

static int check_logs(struct config_reader *r, const struct main_options *o) {
  int rc = check_log_path(r, o);
  uint64_t mask = log_selector_defaults();
  struct str error;
  if (str_is_set(o->log_selector) &&
      select_parse(config_reader_arena(r), o->log_selector, log_selector_names(), "log_selector", &mask, &error) < 0)
    rc = config_error(r, "%.*s", STRF(error));
  if (str_is_set(o->syslog_facility) && log_syslog_facility(o->syslog_facility) < 0)
    rc = config_error(r, "failed to interpret syslog_facility \"%.*s\"", STRF(o->syslog_facility));
  if (o->syslog_processname.len > 32)
    rc = config_error(r, "syslog_processname is longer than 32 chars: aborting");
  return rc;
}

int core_main_check(struct config_reader *r, void *block) {
  struct main_options *o = block;
  struct arena *a = config_reader_arena(r);
  if (!str_is_set(o->primary_hostname))
    o->primary_hostname = host_name(a);
  if (!str_is_set(o->qualify_domain))
    o->qualify_domain = o->primary_hostname;
  if (!str_is_set(o->qualify_recipient))
    o->qualify_recipient = o->qualify_domain;
  if (o->exim_user.gid_set && !o->exim_group.set)
    o->exim_group.id = o->exim_user.gid;
  if (str_is_empty(o->pid_file_path))
    o->pid_file_path = str_printf(a, "%.*s/exim-daemon.pid", STRF(o->spool_directory));
  if (str_is_empty(o->process_log_path))
    o->process_log_path = str_printf(a, "%.*s/exim-process.info", STRF(o->spool_directory));
  int rc = check_localhost_number(r, o);
  if (check_spool_directory(r, o) < 0 || check_logs(r, o) < 0)
    rc = OUTCOME_ERROR;
  if (str_is_set(o->errors_reply_to.text) && str_find_byte(o->errors_reply_to.text, '@') < 0 &&
      str_find_byte(o->errors_reply_to.text, '$') < 0 && !str_is_empty(o->errors_reply_to.text))
    rc = config_error(r, "errors_reply_to (%.*s) does not contain a domain", STRF(o->errors_reply_to.text));
  return rc;
}
