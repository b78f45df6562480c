/* The appendfile transport: mbox files and Maildirs (Exim manual, chapter
"The appendfile transport"). Policy is settled here; plan_file.c and
plan_maildir.c do the work as the recipient's user. */

#include <unistd.h>

#include "base/buf.h"
#include "base/random.h"
#include "base/vec.h"
#include "deliver/errors.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "match/match.h"
#include "message/message.h"
#include "transport/appendfile.h"
#include "transport/bsmtp.h"
#include "transport/local.h"
#include "transport/options.h"
#include "transport/transport.h"

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
    {"create_file", OPTION_STRING, OFF(create_file), "anywhere"},
    {"directory", OPTION_EXPR, OFF(directory)},
    {"directory_file", OPTION_EXPR, OFF(directory_file), "q${base62:$tod_epoch}-$inode"},
    {"directory_mode", OPTION_OCTAL, OFF(directory_mode), "0700"},
    {"escape_string", OPTION_STRING, OFF(escape_string)},
    {"file", OPTION_EXPR, OFF(file)},
    {"file_format", OPTION_STRING, OFF(file_format)},
    {"file_must_exist", OPTION_BOOL, OFF(file_must_exist)},
    {"lock_fcntl_timeout", OPTION_TIME, OFF(lock_fcntl_timeout)},
    {"lock_flock_timeout", OPTION_TIME, OFF(lock_flock_timeout)},
    {"lock_interval", OPTION_TIME, OFF(lock_interval), "3s"},
    {"lock_retries", OPTION_INT, OFF(lock_retries), "10"},
    {"lockfile_mode", OPTION_OCTAL, OFF(lockfile_mode), "0600"},
    {"lockfile_timeout", OPTION_TIME, OFF(lockfile_timeout), "30m"},
    {"mailbox_filecount", OPTION_EXPR, OFF(mailbox_filecount)},
    {"mailbox_size", OPTION_EXPR, OFF(mailbox_size)},
    {"maildir_format", OPTION_BOOL, OFF(maildir_format)},
    {"maildir_quota_directory_regex", OPTION_STRING, OFF(maildir_quota_directory_regex), "^(?:cur|new|\\..*)$"},
    {"maildir_retries", OPTION_INT, OFF(maildir_retries), "10"},
    {"maildir_tag", OPTION_EXPR, OFF(maildir_tag)},
    {"maildir_use_size_file", OPTION_EXPR_BOOL, OFF(maildir_use_size_file)},
    {"maildirfolder_create_regex", OPTION_STRING, OFF(maildirfolder_create_regex)},
    {"mailstore_format", OPTION_BOOL, OFF(mailstore_format)},
    {"mailstore_prefix", OPTION_EXPR, OFF(mailstore_prefix)},
    {"mailstore_suffix", OPTION_EXPR, OFF(mailstore_suffix)},
    {"mbx_format", OPTION_BOOL, OFF(mbx_format)},
    {"message_prefix", OPTION_EXPR, OFF(message_prefix)},
    {"message_suffix", OPTION_EXPR, OFF(message_suffix)},
    {"mode", OPTION_OCTAL, OFF(mode), "0600"},
    {"mode_fail_narrower", OPTION_BOOL, OFF(mode_fail_narrower), "true"},
    {"notify_comsat", OPTION_BOOL, OFF(notify_comsat)},
    {"quota", OPTION_EXPR, OFF(quota)},
    {"quota_directory", OPTION_EXPR, OFF(quota_directory)},
    {"quota_filecount", OPTION_EXPR, OFF(quota_filecount)},
    {"quota_is_inclusive", OPTION_BOOL, OFF(quota_is_inclusive), "true"},
    {"quota_size_regex", OPTION_STRING, OFF(quota_size_regex)},
    {"quota_warn_message", OPTION_EXPR, OFF(quota_warn_message)},
    {"quota_warn_threshold", OPTION_EXPR, OFF(quota_warn_threshold)},
    {"use_bsmtp", OPTION_BOOL, OFF(use_bsmtp)},
    {"use_crlf", OPTION_BOOL, OFF(use_crlf)},
    {"use_fcntl_lock", OPTION_BOOL, OFF(use_fcntl_lock), .flags = OPTION_TRISTATE},
    {"use_flock_lock", OPTION_BOOL, OFF(use_flock_lock)},
    {"use_lockfile", OPTION_BOOL, OFF(use_lockfile), .flags = OPTION_TRISTATE},
    {"use_mbx_lock", OPTION_BOOL, OFF(use_mbx_lock), .flags = OPTION_TRISTATE},
    OPTIONS_END,
};

/* file_format: strings and transports by turns. */
static int parse_formats(struct config_reader *r, struct instance *i) {
  struct appendfile *o = i->options;
  struct arena *a = config_reader_arena(r);
  VEC(struct str) formats = {0};
  struct list_iter it;
  struct str item;
  if (!str_is_set(o->file_format))
    return 0;
  list_iter_init(&it, a, o->file_format);
  while (list_next(&it, &item))
    vec_push(a, &formats, str_dup(a, item));
  if (formats.n % 2 || formats.n > PLAN_ARGS_MAX)
    return config_error_at(r, i->where, "transport %.*s: file_format must be pairs of strings and transports", STRF(i->name));
  o->formats = formats.v;
  o->formats_n = (int64_t)formats.n;
  return 0;
}

/* Which locks: those given; else the MBX one for MBX, lock file and fcntl for other files. */
static int choose_locks(struct config_reader *r, struct instance *i) {
  struct appendfile *o = i->options;
  bool given = o->use_fcntl_lock >= 0 || o->use_lockfile >= 0 || o->use_mbx_lock >= 0 || o->use_flock_lock;
  if (o->mbx_format && !given) {
    o->use_mbx_lock = 1;
    o->use_fcntl_lock = o->use_lockfile = 0;
  }
  bool mbx = o->use_mbx_lock > 0;
  if (o->use_fcntl_lock < 0)
    o->use_fcntl_lock = !mbx;
  if (o->use_lockfile < 0)
    o->use_lockfile = !mbx;
  o->use_mbx_lock = mbx;
  if (mbx && o->use_fcntl_lock)
    return config_error_at(r, i->where, "transport %.*s: use_mbx_lock and use_fcntl_lock may not both be set", STRF(i->name));
  if (!o->use_lockfile && !o->use_fcntl_lock && !o->use_flock_lock && !mbx && str_is_set(o->file.text))
    return config_error(r, "no locking configured");
  return 0;
}

static int choose_create(struct config_reader *r, struct instance *i) {
  struct appendfile *o = i->options;
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
  return 0;
}

/* Where it is known that the mailbox is a file; else affixes() does it for each delivery. */
static void mbox_defaults(struct appendfile *o) {
  if (o->use_bsmtp || o->mbx_format)
    return;
  if (!str_is_set(o->message_prefix.text))
    o->message_prefix.text = STR(TRANSPORT_MBOX_PREFIX);
  if (!str_is_set(o->message_suffix.text))
    o->message_suffix.text = STR("\n");
  if (!str_is_set(o->check_string))
    o->check_string = STR("From ");
  if (!str_is_set(o->escape_string))
    o->escape_string = STR(">From ");
}

static int appendfile_init(struct config_reader *r, struct instance *i) {
  struct appendfile *o = i->options;
  if (str_is_set(o->file.text) && str_is_set(o->directory.text))
    return config_error(r, "only one of \"file\" or \"directory\" can be specified");
  if (o->maildir_format && o->mailstore_format)
    return config_error(r, "only one of maildir and mailstore may be specified");
  if (str_is_set(o->quota_filecount.text) && !str_is_set(o->quota.text))
    return config_error_at(r, i->where, "quota must be set if quota_filecount is set for the %.*s transport", STRF(i->name));
  if (str_is_set(o->file.text))
    mbox_defaults(o);
  if (choose_create(r, i) || choose_locks(r, i))
    return OUTCOME_ERROR;
  return parse_formats(r, i);
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
  if ((o->maildir_format || o->mailstore_format) && str_is_set(o->file.text)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN, str_printf(c->arena, "%s requires \"directory\" to be specified for the %.*s transport",
        o->maildir_format ? "maildir_format" : "mailstore_format", STRF(t->name)));
    return false;
  }
  if (str_is_set(e->text)) {
    if (chain->kind == ADDRESS_FILE)
      c->vars.address_file = chain->address;
    if (!local_expand(c, t, chain, e, "file or directory name", ret))
      return false;
    for (struct address *a = chain; a; a = a->next) /* the log shows where it went, not what it was called */
      if (a->kind == ADDRESS_FILE && !str_starts(a->address, STR("/")))
        a->address = *ret;
  } else if (chain->kind == ADDRESS_FILE) {
    *ret = chain->address;
    *ret_directory = str_ends(*ret, STR("/")) || o->maildir_format || o->mailstore_format;
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
  for (struct address *a = chain; a; a = a->next)
    if (a->kind == ADDRESS_FILE)
      a->file_used = *ret;
  while (*ret_directory && ret->len > 1 && ret->p[ret->len - 1] == '/')
    ret->len--;
  return true;
}

#define PASSED_MAX 4 /* transports that file_format may lead through */
extern const struct transport_def transport_appendfile;
static void deliver_as(struct ctx *c, const struct instance *t, struct address *chain, int depth);

/* Prefix and suffix: by default those of an mbox for files, none for directories. */
static bool affixes(struct ctx *c, const struct instance *t, struct address *chain, bool directory, struct plan *p) {
  const struct appendfile *o = t->options;
  struct str prefix = STR_EMPTY, suffix = STR_EMPTY;
  /* What names no directory itself writes mailboxes, also into a directory that an address names. */
  bool mbox = !str_is_set(o->directory.text) && !o->maildir_format && !o->mailstore_format && !o->use_bsmtp;
  if (str_is_set(o->message_prefix.text)) {
    if (!local_expand_affix(c, t, chain, &o->message_prefix, "prefix", &prefix))
      return false;
  } else if (mbox && expand_text(c, STR(TRANSPORT_MBOX_PREFIX), &prefix)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN, c->error);
    return false;
  }
  if (str_is_set(o->message_suffix.text)) {
    if (!local_expand_affix(c, t, chain, &o->message_suffix, "suffix", &suffix))
      return false;
  } else if (mbox) {
    suffix = STR("\n");
  }
  if (o->use_bsmtp)
    bsmtp_wrap(c, chain, &prefix, &suffix);
  p->prefix_length = prefix.len;
  p->head = str_cat(c->arena, prefix, p->head);
  p->tail = suffix;
  p->check_string = str_is_set(o->check_string) ? o->check_string : o->use_bsmtp ? STR(".") : mbox ? STR("From ") : STR_EMPTY;
  p->escape_string = str_is_set(o->escape_string) ? o->escape_string : o->use_bsmtp ? STR("..") : mbox ? STR(">From ") : STR_EMPTY;
  return true;
}

/* The tag is expanded when the size is known. It may hold anything printing but a slash; a letter or digit gets a colon before it. */
static bool maildir_tag(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct appendfile *o = t->options;
  struct buf b;
  struct str tag;
  if (!str_is_set(o->maildir_tag.text))
    return true;
  size_t size = c->message->size;
  c->message->size = (size_t)((int64_t)p->head.len + p->body_length + (str_is_set(p->tail) ? p->tail.len : 0));
  int e = expand_option(c, &o->maildir_tag, &tag);
  c->message->size = size;
  if (e == OUTCOME_FORCED)
    return true;
  if (e) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "Expansion of \"%.*s\" (maildir_tag for %.*s transport) failed: %.*s", STRF(o->maildir_tag.text),
            STRF(t->name), STRF(c->error)));
    return false;
  }
  buf_init(&b, c->arena, BUF_MAX_LINE);
  for (uint32_t i = 0; i < tag.len; i++) {
    char ch = tag.p[i];
    if (ch <= ' ' || ch >= 127 || ch == '/')
      continue;
    if (!b.len && ((ch | 32) >= 'a' && (ch | 32) <= 'z'))
      buf_add_byte(&b, ':');
    else if (!b.len && ch >= '0' && ch <= '9')
      buf_add_byte(&b, ':');
    buf_add_byte(&b, ch);
  }
  p->maildir_tag = buf_str(&b);
  return true;
}

/* directory_file: the inode's number is known when the file is there, so a mark stands for it. */
static bool file_name(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct appendfile *o = t->options;
  unsigned char random[6];
  random_bytes(random, sizeof random);
  p->inode_mark = str_printf(c->arena, "9%u%u%u%u%u%u", random[0], random[1], random[2], random[3], random[4], random[5]);
  c->vars.inode = p->inode_mark;
  bool ok = true;
  if (str_is_set(o->directory_file.text))
    ok = local_expand(c, t, chain, &o->directory_file, "directory_file", &p->directory_file);
  else if (expand_text(c, STR("q${base62:$tod_epoch}-$inode"), &p->directory_file))
    ok = false;
  c->vars.inode = STR_UNSET;
  if (!ok)
    return false;
  if (!p->directory_file.len || memchr(p->directory_file.p, '/', p->directory_file.len) || memchr(p->directory_file.p, 0, p->directory_file.len)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "\"%.*s\" is no name for a file (directory_file for %.*s transport)", STRF(p->directory_file), STRF(t->name)));
    return false;
  }
  return true;
}

static bool store_text(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, const char *what,
    struct buf *b) {
  struct str text;
  if (!str_is_set(o->text))
    return true;
  int e = expand_option(c, o, &text);
  if (e == OUTCOME_FORCED)
    return true;
  if (e) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_EXPAND_FAIL,
        str_printf(c->arena, "Expansion of \"%.*s\" (mailstore %s for %.*s transport) failed: %.*s", STRF(o->text), what, STRF(t->name),
            STRF(c->error)));
    return false;
  }
  buf_add(b, text);
  if (text.len && text.p[text.len - 1] != '\n')
    buf_add_byte(b, '\n');
  return true;
}

/* The envelope file: prefix, sender, recipients, suffix. */
static bool mailstore(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct appendfile *o = t->options;
  static unsigned serial;
  struct buf b;
  p->mailstore_base = str_printf(c->arena, "%s-%x-%u", c->message->id, (unsigned)getpid(), ++serial);
  c->vars.mailstore_basename = p->mailstore_base;
  buf_init(&b, c->arena, BUF_MAX_LINE * 16);
  bool ok = store_text(c, t, chain, &o->mailstore_prefix, "prefix", &b);
  buf_printf(&b, "%.*s\n", STRF(chain->return_path));
  for (const struct address *a = chain; a; a = a->next)
    buf_printf(&b, "%.*s@%.*s\n", STRF(a->local_part), STRF(a->domain));
  ok = ok && store_text(c, t, chain, &o->mailstore_suffix, "suffix", &b);
  c->vars.mailstore_basename = STR_UNSET;
  p->mailstore_envelope = buf_str(&b);
  return ok;
}

static bool maildir(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct appendfile *o = t->options;
  if (expand_option_bool(c, &o->maildir_use_size_file, "maildir_use_size_file", &p->maildir_size_file)) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_EXPAND_FAIL, c->error);
    return false;
  }
  p->maildir_directory_regex = o->maildir_quota_directory_regex;
  p->maildirfolder_regex = o->maildirfolder_create_regex;
  return maildir_tag(c, t, chain, p);
}

static void set_file_options(const struct appendfile *o, const struct address *chain, struct plan *p) {
  p->create = o->create;
  p->create_below = o->create == PLAN_CREATE_BELOW_PATH ? o->create_file : STR_UNSET;
  p->mode = chain->kind == ADDRESS_FILE && chain->mode > 0 ? chain->mode : o->mode;
  p->mode_set = true;
  p->directory_mode = o->directory_mode;
  p->lockfile_mode = o->lockfile_mode;
  p->create_directory = o->create_directory;
  p->file_must_exist = o->file_must_exist;
  p->allow_symlink = o->allow_symlink;
  p->allow_fifo = o->allow_fifo;
  p->check_owner = o->check_owner;
  p->check_group = o->check_group;
  p->mode_fail_narrower = o->mode_fail_narrower;
  p->lock_fcntl = o->use_fcntl_lock > 0;
  p->lock_flock = o->use_flock_lock;
  p->lock_file = o->use_lockfile > 0;
  p->lock_mbx = o->use_mbx_lock > 0;
  p->lock_retries = o->lock_retries;
  p->lock_interval = o->lock_interval;
  p->lock_fcntl_timeout = o->lock_fcntl_timeout;
  p->lock_flock_timeout = o->lock_flock_timeout;
  p->lockfile_timeout = o->lockfile_timeout;
  p->maildir_retries = o->maildir_retries;
  p->file_formats = o->formats;
  p->file_formats_n = o->formats_n;
  p->mbx = o->mbx_format;
  p->use_crlf = o->use_crlf || o->mbx_format;
}

/* file_format: the file is another transport's. That one delivers, with its own options. */
static void pass_on(struct ctx *c, struct address *chain, struct str name, int depth) {
  const struct instance *t = config_driver(c->config, DRIVER_TRANSPORT, name);
  if (!t || t->driver != &transport_appendfile.driver || depth >= PASSED_MAX)
    return;
  for (struct address *a = chain; a; a = a->next) {
    a->transport = (struct instance *)t;
    a->panic = false;
  }
  c->transport = t;
  deliver_as(c, t, chain, depth + 1);
}

/* Header lines that cannot be made are a fault of writing: the text says where to. */
static void name_file(struct ctx *c, const struct instance *t, struct address *chain, struct str home) {
  static const char text[] = "failed to expand headers_add or headers_remove";
  struct str message = chain->message, path;
  bool directory;
  if (chain->basic_errno != ERROR_CHANGE_HEADER_FAIL || !str_starts(message, str_c(text)) || !find_path(c, t, chain, home, &path, &directory))
    return;
  message = str_printf(c->arena, "%s while writing to %.*s%.*s", text, STRF(path), STRF(str_from(message, sizeof text - 1)));
  for (struct address *a = chain; a; a = a->next)
    a->message = message;
}

static void deliver_as(struct ctx *c, const struct instance *t, struct address *chain, int depth) {
  const struct appendfile *o = t->options;
  struct transport_message message;
  struct plan p;
  struct plan_result result;
  bool directory;
  if (!local_plan_prepare(c, t, chain, &p, &message)) {
    name_file(c, t, chain, p.home);
    return;
  }
  if (!find_path(c, t, chain, p.home, &p.path, &directory) || !affixes(c, t, chain, directory, &p) || !appendfile_quotas(c, t, chain, &p))
    return;
  set_file_options(o, chain, &p);
  p.kind = !directory ? PLAN_FILE : o->maildir_format ? PLAN_MAILDIR : PLAN_DIRECTORY;
  if ((p.kind == PLAN_MAILDIR && !maildir(c, t, chain, &p)) ||
      (p.kind == PLAN_DIRECTORY && !(o->mailstore_format ? mailstore(c, t, chain, &p) : file_name(c, t, chain, &p))))
    return;
  local_plan_run(c, t, chain, &p, &result);
  if (str_is_set(result.switch_to))
    pass_on(c, chain, result.switch_to, depth);
  if (result.outcome != OUTCOME_OK)
    return;
  if (result.warn)
    appendfile_warn(c, t, chain);
  if (o->notify_comsat && p.kind == PLAN_FILE)
    appendfile_comsat(chain, result.offset);
}

static void appendfile_check_room(struct ctx *c, const struct instance *t, struct address *a, int64_t size) {
  const struct appendfile *o = t->options;
  struct plan p;
  struct plan_result result;
  bool directory;
  a->result = OUTCOME_DEFER;
  if (!local_plan_begin(c, t, a, &p) || !find_path(c, t, a, p.home, &p.path, &directory) || !appendfile_quotas(c, t, a, &p))
    return;
  p.kind = PLAN_ROOM;
  p.message_size = size;
  if (directory && o->maildir_format)
    p.maildir_directory_regex = o->maildir_quota_directory_regex;
  plan_run(c->arena, &p, -1, &result);
  a->result = (enum outcome)result.outcome;
  a->basic_errno = (int)result.basic_errno;
  a->message = result.message;
}

static void appendfile_deliver(struct ctx *c, const struct instance *t, struct address *chain) { deliver_as(c, t, chain, 0); }

const struct transport_def transport_appendfile = {
    .driver = {.name = "appendfile", .class = DRIVER_TRANSPORT, .options = appendfile_options,
        .options_size = sizeof(struct appendfile), .summary = "append to files and Maildirs", .subtypes = "maildir/mailstore/mbx",
        .init = appendfile_init},
    .local = true,
    .batch = appendfile_batch,
    .check_room = appendfile_check_room,
    .deliver = appendfile_deliver,
};
