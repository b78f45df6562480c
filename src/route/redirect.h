/* The redirect router's options (Exim manual, chapter "The redirect router"). */
#pragma once

#include "config/option.h"
#include "route/router.h"

struct redirect_options {
  bool allow_defer, allow_fail, allow_filter, allow_freeze;
  bool check_ancestor, filter_prepend_home;
  bool forbid_blackhole, forbid_exim_filter, forbid_file, forbid_filter_dlfunc, forbid_filter_existstest,
      forbid_filter_logwrite, forbid_filter_lookup, forbid_filter_perl, forbid_filter_readfile, forbid_filter_readsocket,
      forbid_filter_reply, forbid_filter_run, forbid_include, forbid_pipe, forbid_sieve_filter, forbid_smtp_code;
  bool hide_child_in_errmsg, ignore_eacces, ignore_enotdir, one_time, qualify_preserve_domain, repeat_use, rewrite,
      skip_syntax_errors;
  int check_owner, check_group; /* -1: not given (after init: 0 or 1) */
  int64_t modemask;
  struct option_expr data, file, directory_transport, file_transport, pipe_transport, reply_transport, qualify_domain,
      sieve_enotify_mailto_owner, sieve_inbox, sieve_subaddress, sieve_useraddress, sieve_vacation_directory, srs, srs_alias, srs_condition, srs_dbinsert, srs_dbselect, syntax_errors_text;
  struct str include_directory, syntax_errors_to;
  struct option_ids owners, owngroups;
};

extern const struct option_def redirect_option_table[];
/* May this router (found by name) run filters? */
bool redirect_filters_allowed(const struct config *c, struct str name);
/* Makes this process one whose children run the filters of users, with this configuration. */
void redirect_serve_filters(struct config *c);
/* Lines of a user's file expanded as in his filter, which `router` ran as uid and gid: of autoreply's `file`. 0, or an
outcome with c->error. [suspends] */
int redirect_expand_as_user(struct ctx *c, const struct address *a, struct str text, struct str *ret);
int redirect_init(struct config_reader *cr, struct instance *i);
