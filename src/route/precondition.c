#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "route/user.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "message/message.h"
#include "route/router.h"

/* --- affixes --- */

int router_match_affix(struct arena *a, struct str list, struct str local_part, bool suffix, int *ret_wild) {
  struct list_iter it;
  struct str item;
  list_iter_init(&it, a, list);
  while (list_next(&it, &item)) {
    bool wild = item.len && item.p[suffix ? item.len - 1 : 0] == '*';
    struct str fixed = !wild ? item : suffix ? str_slice(item, 0, item.len - 1) : str_from(item, 1);
    if (fixed.len > local_part.len)
      continue;
    if (!wild) {
      if (suffix ? str_iends(local_part, fixed) : str_istarts(local_part, fixed)) {
        *ret_wild = 0;
        return (int)fixed.len;
      }
      continue;
    }
    /* The longest text before the fixed part of a prefix; the longest behind that of a suffix. */
    size_t places = local_part.len - fixed.len + 1;
    for (size_t i = 0; i < places; i++) {
      size_t at = suffix ? i : places - 1 - i;
      if (!str_ieq(str_slice(local_part, at, at + fixed.len), fixed))
        continue;
      *ret_wild = (int)(suffix ? local_part.len - at - fixed.len : at);
      return (int)(fixed.len) + *ret_wild;
    }
  }
  return -1;
}

void router_reset_local_part(const struct instance *r, struct address *a) {
  a->prefix = a->prefix_v = a->suffix = a->suffix_v = STR_UNSET;
  a->caseful = router_options(r)->caseful_local_part;
  a->local_part = a->caseful ? a->cc_local_part : a->lc_local_part;
}

/* Affixes that are whole items of the configuration are its own text, not the sender's. */
static void untaint_fixed(struct str *affix, int wild) {
  if (!wild)
    *affix = str_untainted(*affix);
}

static enum route_result check_affixes(struct ctx *c, const struct router_options *o, struct address *a) {
  int n, wild = 0;
  if (str_is_set(o->local_part_prefix)) {
    n = router_match_affix(c->arena, o->local_part_prefix, a->local_part, false, &wild);
    if (n >= 0) {
      a->prefix = str_slice(a->local_part, 0, n);
      a->prefix_v = wild ? str_slice(a->local_part, 0, wild) : STR_UNSET;
      untaint_fixed(&a->prefix, wild);
      a->local_part = str_from(a->local_part, n);
    } else if (!o->local_part_prefix_optional) {
      return ROUTE_SKIP;
    }
  }
  if (str_is_set(o->local_part_suffix)) {
    n = router_match_affix(c->arena, o->local_part_suffix, a->local_part, true, &wild);
    if (n >= 0) {
      size_t at = a->local_part.len - n;
      a->suffix = str_from(a->local_part, at);
      a->suffix_v = wild ? str_from(a->local_part, a->local_part.len - wild) : STR_UNSET;
      untaint_fixed(&a->suffix, wild);
      a->local_part = str_slice(a->local_part, 0, at);
    } else if (!o->local_part_suffix_optional) {
      return ROUTE_SKIP;
    }
  }
  return ROUTE_OK;
}

/* --- why we route --- */

static enum route_result check_purpose(const struct router_options *o, const struct address *a,
    const struct route_lists *lists) {
  bool verifying = lists->mode == ROUTE_FOR_VERIFY;
  if (verifying && a->verify_sender && !o->verify_sender)
    return ROUTE_SKIP;
  if (verifying && a->verify_recipient && !o->verify_recipient)
    return ROUTE_SKIP;
  if (lists->mode == ROUTE_FOR_TEST && !o->address_test)
    return ROUTE_SKIP;
  if (!verifying && o->verify_only)
    return ROUTE_SKIP;
  if (lists->mode == ROUTE_FOR_EXPN && !o->expn)
    return ROUTE_SKIP;
  return ROUTE_OK;
}

/* --- lists --- */

static enum route_result list_result(struct ctx *c, struct address *a, int rc, const char *what) {
  if (rc == OUTCOME_OK)
    return ROUTE_OK;
  if (rc == OUTCOME_FAIL || rc == OUTCOME_FORCED)
    return ROUTE_SKIP;
  return router_defer(c, a, ERROR_UNKNOWN, "%s check lookup or other defer", what);
}

static enum route_result check_domains(struct ctx *c, const struct router_options *o, struct address *a) {
  struct str data = STR_UNSET;
  if (!str_is_set(o->domains.text))
    return ROUTE_OK;
  enum route_result r = list_result(c, a, match_domain(c, &o->domains, a->domain, &data), "domains");
  if (r == ROUTE_OK && str_is_set(data))
    a->prop.domain_data = c->vars.domain_data = data;
  return r;
}

static enum route_result check_local_parts(struct ctx *c, const struct router_options *o, struct address *a) {
  struct str data = STR_UNSET;
  if (!str_is_set(o->local_parts.text))
    return ROUTE_OK;
  int rc = match_local_part(c, &o->local_parts, a->local_part, o->caseful_local_part, &data);
  enum route_result r = list_result(c, a, rc, "local_parts");
  if (r == ROUTE_OK && str_is_set(data))
    a->prop.local_part_data = c->vars.local_part_data = data;
  return r;
}

static enum route_result check_senders(struct ctx *c, const struct router_options *o, struct address *a) {
  if (!str_is_set(o->senders.text))
    return ROUTE_OK;
  /* While a sender is verified it is not yet the message's sender. */
  struct str sender = a->verify_sender || !c->message ? STR_EMPTY : c->message->reverse_path;
  if (!str_is_set(sender))
    sender = STR_EMPTY;
  return list_result(c, a, match_address(c, &o->senders, sender, false, NULL), "senders");
}

/* --- accounts --- */

static enum route_result check_local_user(struct ctx *c, const struct router_options *o, struct address *a) {
  struct user_info user;
  if (!o->check_local_user)
    return ROUTE_OK;
  int rc = user_find(c->arena, a->local_part, &user);
  if (rc < 0)
    return router_defer(c, a, -rc, "failed to look up user \"%.*s\": %s", STRF(a->local_part), strerror(-rc));
  if (!rc)
    return ROUTE_SKIP;
  a->prop.local_part_data = c->vars.local_part_data = str_untainted(str_dup(c->arena, a->local_part));
  a->uid = user.uid;
  a->gid = user.gid;
  a->uid_set = a->gid_set = true;
  a->home = c->vars.home = user.home;
  a->local_user = true;
  return ROUTE_OK;
}

static enum route_result set_router_home(struct ctx *c, const struct router_options *o, struct address *a) {
  struct str home;
  if (!str_is_set(o->router_home_directory.text))
    return ROUTE_OK;
  int rc = expand_option(c, &o->router_home_directory, &home);
  if (rc == OUTCOME_FORCED)
    return ROUTE_OK;
  if (rc)
    return router_defer(c, a, ERROR_UNKNOWN, "failed to expand \"%.*s\" for router_home_directory: %.*s",
        STRF(o->router_home_directory.text), STRF(c->error));
  c->vars.home = home;
  /* The transport takes the password file's directory first. */
  if (!a->local_user)
    a->home = home;
  return ROUTE_OK;
}

/* --- require_files --- */

struct file_check {
  const char *path;
  bool as_user;
  uint32_t uid, gid;
  int error; /* 0: exists and may be read */
};

static bool allowed(const struct stat *st, uint32_t uid, uint32_t gid, mode_t bit) {
  mode_t mode = st->st_mode;
  if (st->st_uid == uid)
    mode >>= 6;
  else if (st->st_gid == gid)
    mode >>= 3;
  return mode & bit;
}

/* "x" on the directories of the path, "r" on the file: the rough check that the manual describes. */
static int user_access(const char *path, uint32_t uid, uint32_t gid) {
  struct stat st;
  char *copy = xstrdup(path);
  int error = 0;
  for (char *slash = strchr(copy + 1, '/'); slash && !error; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (stat(copy, &st))
      error = errno;
    else if (!allowed(&st, uid, gid, 1))
      error = EACCES;
    *slash = '/';
  }
  free(copy);
  if (!error && stat(path, &st))
    error = errno;
  if (!error && !allowed(&st, uid, gid, 4))
    error = EACCES;
  return error;
}

static int stat_file(void *arg) {
  struct file_check *f = arg;
  struct stat st;
  f->error = stat(f->path, &st) ? errno : 0;
  if (!f->error && f->as_user)
    f->error = user_access(f->path, f->uid, f->gid);
  return 0;
}

/* "user" or "user,group": for whom the files that follow are checked. */
static enum route_result set_check_user(struct ctx *c, struct address *a, struct str item, struct file_check *f) {
  struct str group = item, user = str_trim(str_cut(&group, ','));
  struct user_info info;
  uint64_t number;
  if (str_to_u64(user, &number) && number <= UINT32_MAX) {
    f->uid = (uint32_t)number;
    f->gid = UINT32_MAX;
  } else {
    if (user_find(c->arena, user, &info) <= 0)
      return router_defer(c, a, ERROR_UNKNOWN, "user \"%.*s\" for require_files not found", STRF(user));
    f->uid = info.uid;
    f->gid = info.gid;
  }
  if (str_is_set(group)) {
    group = str_trim(group);
    if (str_to_u64(group, &number) && number <= UINT32_MAX)
      f->gid = (uint32_t)number;
    else if (user_find_group(group, &f->gid) <= 0)
      return router_defer(c, a, ERROR_UNKNOWN, "group \"%.*s\" for require_files not found", STRF(group));
  }
  f->as_user = true;
  return ROUTE_OK;
}

static enum route_result check_file(struct ctx *c, struct address *a, struct str item, struct file_check *f) {
  bool invert = false, forgiving = false;
  if (item.p[0] == '!') {
    invert = true;
    item = str_ltrim(str_from(item, 1));
  }
  if (item.len && item.p[0] == '+') {
    forgiving = true;
    item = str_ltrim(str_from(item, 1));
  }
  if (!item.len || item.p[0] != '/')
    return router_defer(c, a, ERROR_UNKNOWN, "require_files: \"%.*s\" is not absolute", STRF(item));
  f->path = str_dup_c(c->arena, item);
  fiber_offload(stat_file, f);
  bool exists = f->error == 0;
  if (f->error && f->error != ENOENT && f->error != ENOTDIR && !(f->error == EACCES && forgiving))
    return router_defer(c, a, f->error, "require_files: error for %s: %s", f->path, strerror(f->error));
  return exists == invert ? ROUTE_SKIP : ROUTE_OK;
}

static enum route_result check_require_files(struct ctx *c, const struct router_options *o, struct address *a) {
  struct list_iter it;
  struct str item, value;
  struct file_check f = {0};
  if (!str_is_set(o->require_files))
    return ROUTE_OK;
  list_iter_init(&it, c->arena, o->require_files);
  while (list_next(&it, &item)) {
    int rc = expand_text(c, str_untainted(item), &value);
    if (rc == OUTCOME_FORCED)
      continue;
    if (rc)
      return router_defer(c, a, ERROR_UNKNOWN, "failed to expand \"%.*s\" for require_files: %.*s", STRF(item),
          STRF(c->error));
    value = str_trim(value);
    if (!value.len)
      continue;
    enum route_result r = str_find_byte(value, '/') < 0 ? set_check_user(c, a, value, &f) : check_file(c, a, value, &f);
    if (r != ROUTE_OK)
      return r;
  }
  return ROUTE_OK;
}

/* --- condition --- */

/* The lax rule for routers: any text but "", 0, no and false is true. */
static bool condition_true(struct str value) {
  return value.len && !str_eq_c(value, "0") && !str_ieq_c(value, "no") && !str_ieq_c(value, "false");
}

static enum route_result check_condition(struct ctx *c, const struct instance *r, struct address *a) {
  const struct router_options *o = router_options(r);
  for (size_t i = 0; i < o->conditions.n; i++) {
    struct str value;
    int rc = expand_option(c, &o->conditions.v[i], &value);
    if (rc == OUTCOME_FORCED)
      return ROUTE_SKIP;
    if (rc == OUTCOME_DEFER)
      return router_defer(c, a, ERROR_UNKNOWN, "condition check lookup defer");
    if (rc) {
      log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand condition \"%.*s\" for %.*s router: %.*s",
          STRF(o->conditions.v[i].text), STRF(r->name), STRF(c->error));
      return ROUTE_SKIP;
    }
    if (!condition_true(value))
      return ROUTE_SKIP;
  }
  return ROUTE_OK;
}

static void debug_print_option(struct ctx *c, const struct instance *r) {
  const struct router_options *o = router_options(r);
  struct str text;
  if (!str_is_set(o->debug_print.text) || !debug_on(DEBUG_route))
    return;
  if (expand_option(c, &o->debug_print, &text))
    debug_print(DEBUG_route, "failed to expand debug_output \"%.*s\": %.*s\n", STRF(o->debug_print.text), STRF(c->error));
  else
    debug_print(DEBUG_route, "%.*s%s", STRF(text), str_ends(text, STR("\n")) ? "" : "\n");
}

/* The order is the manual's. */
enum route_result router_check(struct ctx *c, const struct instance *r, struct address *a, const struct route_lists *lists) {
  const struct router_options *o = router_options(r);
  enum route_result rc;
  if ((rc = check_affixes(c, o, a)) || (rc = check_purpose(o, a, lists)))
    return rc;
  address_set_vars(c, a);
  if ((rc = check_domains(c, o, a)) || (rc = check_local_parts(c, o, a)) || (rc = check_local_user(c, o, a)) ||
      (rc = set_router_home(c, o, a)))
    return rc;
  debug_print_option(c, r);
  if ((rc = check_senders(c, o, a)) || (rc = check_require_files(c, o, a)))
    return rc;
  return check_condition(c, r, a);
}
