/* The appendfile transport's options, shared by its files. */
#pragma once

#include "config/config.h"
#include "transport/plan.h"
#include "transport/transport.h"

struct appendfile {
  bool allow_fifo, allow_symlink, check_group, check_owner, create_directory, file_must_exist, maildir_format, mailstore_format,
      mbx_format, mode_fail_narrower, notify_comsat, quota_is_inclusive, use_bsmtp, use_crlf, use_flock_lock;
  int use_fcntl_lock, use_lockfile, use_mbx_lock; /* -1: not given; 0 or 1 after init */
  struct transport_batch batch;
  struct str check_string, create_file, escape_string, file_format, maildirfolder_create_regex, maildir_quota_directory_regex, quota_size_regex;
  struct option_expr directory, directory_file, file, mailbox_filecount, mailbox_size, maildir_tag,
      maildir_use_size_file, mailstore_prefix, mailstore_suffix, message_prefix, message_suffix, quota, quota_directory,
      quota_filecount, quota_warn_message, quota_warn_threshold;
  int64_t directory_mode, lock_fcntl_timeout, lock_flock_timeout, lock_interval, lock_retries, lockfile_mode, lockfile_timeout,
      maildir_retries, mode;
  enum plan_create create;
  struct str *formats;      /* of file_format: pairs */
  int64_t formats_n;
};

/* Quotas and the warning threshold into the plan, which has its message. False: the chain has its result. [suspends] */
bool appendfile_quotas(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p);
/* Sends quota_warn_message. [suspends] */
void appendfile_warn(struct ctx *c, const struct instance *t, struct address *chain);
/* Tells the comsat daemon of this host. */
void appendfile_comsat(const struct address *chain, int64_t offset);
