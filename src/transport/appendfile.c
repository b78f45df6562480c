/* The appendfile transport: mbox files and Maildirs (Exim manual, chapter
"The appendfile transport"). Policy is settled here; plan_file.c and
plan_maildir.c do the work as the recipient's user. */

#include "base/buf.h"
#include "deliver/errors.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "message/message.h"
#include "transport/bsmtp.h"
#include "transport/local.h"
#include "transport/transport.h"

struct appendfile {
  bool allow_fifo, allow_symlink, check_group, check_owner, create_directory, file_must_exist, maildir_format, mailstore_format,
      mbx_format, mode_fail_narrower, notify_comsat, quota_is_inclusive, use_bsmtp, use_crlf, use_fcntl_lock, use_flock_lock,
      use_lockfile, use_mbx_lock;
  struct transport_batch batch;
  struct str check_string, create_file, escape_string, file_format, maildirfolder_create_regex, quota_size_regex;
  struct option_expr directory, directory_file, file, mailbox_filecount, mailbox_size, maildir_quota_directory_regex, maildir_tag,
      maildir_use_size_file, mailstore_prefix, mailstore_suffix, message_prefix, message_suffix, quota, quota_directory,
      quota_filecount, quota_warn_message, quota_warn_threshold;
  int64_t directory_mode, lock_fcntl_timeout, lock_flock_timeout, lock_interval, lock_retries, lockfile_mode, lockfile_timeout,
      maildir_retries, mode;
  enum plan_create create;
};

#define OFF(f) offsetof(struct appendfile, f)
static const struct option_def appendfile_options[] = {
    {"allow_fifo", OPTION_BOOL, OFF(allow_fifo)},
    {"allow_symlink", OPTION_BOOL, OFF(allow_symlink)},
    {"batch_id", OPTION_EXPR, OFF(batch.id)},
    {"batch_max", OPTION_INT, OFF(batch.max), "1"},
    {"check_group", OPTION_BOOL, OFF(check_group)},
    {"check_owner", OPTION_BOOL, OFF(check_owner), "true"},
    {"check_string", OPTION_STRING, OFF(check_string)},
    {"create_directory", OPTION_BOOL, OFF(create_directory), "true"},
    {"create_file", OPTION_STRING, OFF(create_file)},
    {"directory", OPTION_EXPR, OFF(directory)},
    {"directory_file", OPTION_EXPR, OFF(directory_file), NULL, OPTION_LATER},
    {"directory_mode", OPTION_OCTAL, OFF(directory_mode), "0700"},
    {"escape_string", OPTION_STRING, OFF(escape_string)},
    {"file", OPTION_EXPR, OFF(file)},
    {"file_format", OPTION_STRING, OFF(file_format), NULL, OPTION_LATER},
    {"file_must_exist", OPTION_BOOL, OFF(file_must_exist)},
    {"lock_fcntl_timeout", OPTION_TIME, OFF(lock_fcntl_timeout)},
    {"lock_flock_timeout", OPTION_TIME, OFF(lock_flock_timeout)},
    {"lock_interval", OPTION_TIME, OFF(lock_interval), "3s"},
    {"lock_retries", OPTION_INT, OFF(lock_retries), "10"},
    {"lockfile_mode", OPTION_OCTAL, OFF(lockfile_mode), "0600"},
    {"lockfile_timeout", OPTION_TIME, OFF(lockfile_timeout), "30m"},
    {"mailbox_filecount", OPTION_EXPR, OFF(mailbox_filecount), NULL, OPTION_LATER},
    {"mailbox_size", OPTION_EXPR, OFF(mailbox_size), NULL, OPTION_LATER},
    {"maildir_format", OPTION_BOOL, OFF(maildir_format)},
    {"maildir_quota_directory_regex", OPTION_EXPR, OFF(maildir_quota_directory_regex), NULL, OPTION_LATER},
    {"maildir_retries", OPTION_INT, OFF(maildir_retries), "10"},
    {"maildir_tag", OPTION_EXPR, OFF(maildir_tag)},
    {"maildir_use_size_file", OPTION_EXPR_BOOL, OFF(maildir_use_size_file), NULL, OPTION_LATER},
    {"maildirfolder_create_regex", OPTION_STRING, OFF(maildirfolder_create_regex), NULL, OPTION_LATER},
    {"mailstore_format", OPTION_BOOL, OFF(mailstore_format), NULL, OPTION_LATER},
    {"mailstore_prefix", OPTION_EXPR, OFF(mailstore_prefix), NULL, OPTION_LATER},
    {"mailstore_suffix", OPTION_EXPR, OFF(mailstore_suffix), NULL, OPTION_LATER},
    {"mbx_format", OPTION_BOOL, OFF(mbx_format), NULL, OPTION_LATER},
    {"message_prefix", OPTION_EXPR, OFF(message_prefix)},
    {"message_suffix", OPTION_EXPR, OFF(message_suffix)},
    {"mode", OPTION_OCTAL, OFF(mode), "0600"},
    {"mode_fail_narrower", OPTION_BOOL, OFF(mode_fail_narrower), "true"},
    {"notify_comsat", OPTION_BOOL, OFF(notify_comsat), NULL, OPTION_LATER},
    {"quota", OPTION_EXPR, OFF(quota)},
    {"quota_directory", OPTION_EXPR, OFF(quota_directory)},
    {"quota_filecount", OPTION_EXPR, OFF(quota_filecount)},
    {"quota_is_inclusive", OPTION_BOOL, OFF(quota_is_inclusive), "true"},
    {"quota_size_regex", OPTION_STRING, OFF(quota_size_regex)},
    {"quota_warn_message", OPTION_EXPR, OFF(quota_warn_message), NULL, OPTION_LATER},
    {"quota_warn_threshold", OPTION_EXPR, OFF(quota_warn_threshold), NULL, OPTION_LATER},
    {"use_bsmtp", OPTION_BOOL, OFF(use_bsmtp)},
    {"use_crlf", OPTION_BOOL, OFF(use_crlf)},
    {"use_fcntl_lock", OPTION_BOOL, OFF(use_fcntl_lock), "true"},
    {"use_flock_lock", OPTION_BOOL, OFF(use_flock_lock)},
    {"use_lockfile", OPTION_BOOL, OFF(use_lockfile), "true"},
    {"use_mbx_lock", OPTION_BOOL, OFF(use_mbx_lock), NULL, OPTION_LATER},
    OPTIONS_END,
};

static int appendfile_init(struct config_reader *r, struct instance *i) {
  struct appendfile *o = i->options;
  if (str_is_set(o->file.text) && str_is_set(o->directory.text))
    return config_error_at(r, i->where, "only one of \"file\" or \"directory\" can be set for the %.*s transport", STRF(i->name));
  if (o->maildir_format && !str_is_set(o->directory.text) && str_is_set(o->file.text))
    return config_error_at(r, i->where, "\"directory\" must be set for \"maildir_format\" in the %.*s transport", STRF(i->name));
  if (str_is_set(o->directory.text) && !o->maildir_format)
    return config_error_at(r, i->where, "\"directory\" without \"maildir_format\" is not supported yet (%.*s transport)", STRF(i->name));
  struct str create = str_is_set(o->create_file) && o->create_file.len ? o->create_file : STR("anywhere");
  if (str_eq_c(create, "anywhere"))
    o->create = PLAN_CREATE_ANYWHERE;
  else if (str_eq_c(create, "belowhome"))
    o->create = PLAN_CREATE_BELOW_HOME;
  else if (str_eq_c(create, "inhome"))
    o->create = PLAN_CREATE_IN_HOME;
  else if (create.len && create.p[0] == '/')
    o->create = PLAN_CREATE_BELOW_PATH;
  else
    return config_error_at(r, i->where, "invalid value given for \"create_file\" for the %.*s transport: '%.*s'", STRF(i->name),
        STRF(create));
  if (!o->use_lockfile && !o->use_fcntl_lock && !o->use_flock_lock && str_is_set(o->file.text))
    return config_error_at(r, i->where, "no locking configured for %.*s transport", STRF(i->name));
  return 0;
}

static const struct transport_batch *appendfile_batch(const struct instance *t) {
  return &((const struct appendfile *)t->options)->batch;
}

/* create_file = belowhome, or a path: a name that stays below it is as good as one of ours. */
static bool checked_below(struct ctx *c, const struct appendfile *o, struct str path) {
  struct str base = o->create == PLAN_CREATE_BELOW_PATH ? o->create_file
                    : o->create == PLAN_CREATE_BELOW_HOME ? c->vars.home : STR_UNSET;
  if (!str_is_set(base) || !base.len || str_find(path, STR("/../")) >= 0 || str_ends(path, STR("/..")))
    return false;
  size_t n = base.len;
  while (n > 1 && base.p[n - 1] == '/')
    n--;
  return path.len > n + 1 && str_starts(path, str_slice(base, 0, n)) && path.p[n] == '/';
}

/* With create_file = belowhome or a path, a name below that directory is as good as one without foreign text: it cannot leave it. */
static bool is_below(const struct appendfile *o, struct address *chain, struct str home, struct str path) {
  struct str base = o->create == PLAN_CREATE_BELOW_PATH ? o->create_file : o->create == PLAN_CREATE_BELOW_HOME ? home : STR_UNSET;
  return str_is_set(base) && base.len && str_starts(path, base) && path.len > base.len && path.p[base.len] == '/' &&
         str_find(path, STR("/../")) < 0 && !str_ends(path, STR("/..")) && !memchr(path.p, 0, path.len);
}

/* The file or directory: from the options, or from the address when it names a file. */
static bool find_path(struct ctx *c, const struct instance *t, struct address *chain, struct str home, struct str *ret, bool *ret_directory) {
  const struct appendfile *o = t->options;
  const struct option_expr *e = str_is_set(o->file.text) ? &o->file : &o->directory;
  *ret_directory = e == &o->directory;
  if (str_is_set(e->text)) {
    if (chain->kind == ADDRESS_FILE)
      c->vars.address_file = chain->address;
    if (!local_expand(c, t, chain, e, "file or directory name", ret))
      return false;
  } else if (chain->kind == ADDRESS_FILE) {
    *ret = chain->address;
    *ret_directory = str_ends(*ret, STR("/")) || o->maildir_format;
  } else {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "Mandatory file or directory option missing from %.*s transport", STRF(t->name)));
    return false;
  }
  if (str_is_tainted(*ret) && checked_below(c, o, *ret))
    *ret = str_untainted(*ret);
  if (is_below(o, chain, home, *ret))
    *ret = str_untainted(*ret);
  if (str_is_tainted(*ret)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "Tainted '%.*s' (file or directory name for %.*s transport) not permitted", STRF(*ret), STRF(t->name)));
    return false;
  }
  if (!ret->len || ret->p[0] != '/' || memchr(ret->p, 0, ret->len)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_NOT_ABSOLUTE,
        str_printf(c->arena, "appendfile: file or directory name \"%.*s\" is not absolute", STRF(*ret)));
    return false;
  }
  if (*ret_directory && !o->maildir_format) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "delivery into directory %.*s by the %.*s transport without maildir_format is not supported yet",
            STRF(*ret), STRF(t->name)));
    return false;
  }
  while (*ret_directory && ret->len > 1 && ret->p[ret->len - 1] == '/')
    ret->len--;
  return true;
}

/* "20M", "1.5K", "1000", each perhaps with "/no_check" behind it. */
static bool parse_size(struct str text, int64_t *ret) {
  struct str rest = text, number = str_trim(str_cut(&rest, '/'));
  int64_t unit = 1;
  uint64_t whole = 0, tenths = 0, scale = 1;
  if (str_is_set(rest) && !str_eq_c(str_trim(rest), "no_check"))
    return false;
  if (number.len && strchr("kKmMgG", number.p[number.len - 1])) {
    char ch = number.p[--number.len] | 32;
    unit = ch == 'k' ? 1 << 10 : ch == 'm' ? 1 << 20 : 1 << 30;
  }
  struct str fraction = number, integer = str_cut(&fraction, '.');
  if (!str_to_u64(integer, &whole) || whole > (uint64_t)INT64_MAX / (uint64_t)unit)
    return false;
  if (str_is_set(fraction)) {
    if (fraction.len > 6 || !str_to_u64(fraction, &tenths))
      return false;
    for (uint32_t i = 0; i < fraction.len; i++)
      scale *= 10;
  }
  *ret = (int64_t)whole * unit + (int64_t)(tenths * (uint64_t)unit / scale);
  return true;
}

static bool size_option(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, const char *what,
    int64_t *ret) {
  *ret = 0;
  struct str text;
  if (!str_is_set(o->text))
    return true;
  if (!local_expand(c, t, chain, o, what, &text))
    return false;
  if (parse_size(text, ret))
    return true;
  c->error = str_printf(c->arena, "\"%.*s\" is not a size", STRF(text));
  transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
      str_printf(c->arena, "bad value for %s in the %.*s transport: %.*s", what, STRF(t->name), STRF(c->error)));
  return false;
}

/* Prefix and suffix: by default those of an mbox for files, none for directories. */
static bool affixes(struct ctx *c, const struct instance *t, struct address *chain, bool directory, struct plan *p) {
  const struct appendfile *o = t->options;
  static const struct str mbox_prefix = {"From ${if def:return_path{$return_path}{MAILER-DAEMON}} ${tod_bsdinbox}\n", 0, 0};
  struct str prefix = STR_EMPTY, suffix = STR_EMPTY;
  bool mbox = !directory && !o->use_bsmtp;
  if (str_is_set(o->message_prefix.text)) {
    if (!local_expand(c, t, chain, &o->message_prefix, "message_prefix", &prefix))
      return false;
  } else if (mbox && expand_text(c, str_c(mbox_prefix.p), &prefix)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN, c->error);
    return false;
  }
  if (str_is_set(o->message_suffix.text)) {
    if (!local_expand(c, t, chain, &o->message_suffix, "message_suffix", &suffix))
      return false;
  } else if (mbox) {
    suffix = STR("\n");
  }
  if (o->use_bsmtp)
    bsmtp_wrap(c, chain, &prefix, &suffix);
  p->head = str_cat(c->arena, prefix, p->head);
  p->tail = suffix;
  p->check_string = str_is_set(o->check_string) ? o->check_string : o->use_bsmtp ? STR(".") : mbox ? STR("From ") : STR_EMPTY;
  p->escape_string = str_is_set(o->escape_string) ? o->escape_string : o->use_bsmtp ? STR("..") : mbox ? STR(">From ") : STR_EMPTY;
  return true;
}

static void appendfile_deliver(struct ctx *c, const struct instance *t, struct address *chain) {
  const struct appendfile *o = t->options;
  struct transport_message message;
  struct plan p;
  struct plan_result result;
  bool directory;
  if (!local_plan_prepare(c, t, chain, &p, &message))
    return;
  if (!find_path(c, t, chain, p.home, &p.path, &directory) || !affixes(c, t, chain, directory, &p))
    return;
  if (!size_option(c, t, chain, &o->quota, "quota", &p.quota) ||
      !size_option(c, t, chain, &o->quota_filecount, "quota_filecount", &p.quota_filecount))
    return;
  if (str_is_set(o->quota_directory.text) && !local_expand(c, t, chain, &o->quota_directory, "quota_directory", &p.quota_directory))
    return;
  if (directory && str_is_set(o->maildir_tag.text)) {
    int e = expand_option(c, &o->maildir_tag, &p.maildir_tag);
    if (e == OUTCOME_FORCED)
      p.maildir_tag = STR_UNSET;
    else if (e && !local_expand(c, t, chain, &o->maildir_tag, "maildir_tag", &p.maildir_tag))
      return;
    if (str_is_set(p.maildir_tag) && memchr(p.maildir_tag.p, '/', p.maildir_tag.len))
      p.maildir_tag = STR_UNSET;
  }
  p.kind = directory ? PLAN_MAILDIR : PLAN_FILE;
  p.create = o->create;
  p.create_below = o->create == PLAN_CREATE_BELOW_PATH ? o->create_file : STR_UNSET;
  p.mode = chain->kind == ADDRESS_FILE && chain->mode > 0 ? chain->mode : o->mode;
  p.mode_set = true;
  p.directory_mode = o->directory_mode;
  p.lockfile_mode = o->lockfile_mode;
  p.create_directory = o->create_directory;
  p.file_must_exist = o->file_must_exist;
  p.allow_symlink = o->allow_symlink;
  p.allow_fifo = o->allow_fifo;
  p.check_owner = o->check_owner;
  p.check_group = o->check_group;
  p.mode_fail_narrower = o->mode_fail_narrower;
  p.lock_fcntl = o->use_fcntl_lock;
  p.lock_flock = o->use_flock_lock;
  p.lock_file = o->use_lockfile;
  p.lock_retries = o->lock_retries;
  p.lock_interval = o->lock_interval;
  p.lock_fcntl_timeout = o->lock_fcntl_timeout;
  p.lock_flock_timeout = o->lock_flock_timeout;
  p.lockfile_timeout = o->lockfile_timeout;
  p.maildir_retries = o->maildir_retries;
  p.quota_is_inclusive = o->quota_is_inclusive;
  p.quota_size_regex = o->quota_size_regex;
  p.use_crlf = o->use_crlf;
  local_plan_run(c, t, chain, &p, &result);
}

const struct transport_def transport_appendfile = {
    .driver = {.name = "appendfile", .class = DRIVER_TRANSPORT, .options = appendfile_options,
        .options_size = sizeof(struct appendfile), .summary = "append to files and Maildirs", .subtypes = "maildir",
        .init = appendfile_init},
    .local = true,
    .batch = appendfile_batch,
    .deliver = appendfile_deliver,
};
