/* The system filter: once per attempt, before anything is routed (Exim manual,
chapter "System-wide message filtering"). */

#include "core/main_options.h"
#include "deliver/as_user.h"
#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "filter/filter.h"
#include "log/log.h"
#include "route/user.h"
#include "transport/event.h"

/* Nothing can be decided: the message waits as it is. */
static bool trouble(struct delivery *d, struct str text) {
  log_write(LOG_MAIN | LOG_PANIC, d->m, "Error in system filter: %.*s", STRF(log_printable(d->c->arena, text)));
  return false;
}

struct owner {
  int64_t uid, gid;
};

/* system_filter_user and system_filter_group. */
static bool find_owner(struct delivery *d, struct owner *ret) {
  const struct main_options *o = main_options(d->c->config);
  *ret = (struct owner){-1, -1};
  if (o->system_filter_user.set) {
    ret->uid = o->system_filter_user.id;
    if (o->system_filter_user.gid_set)
      ret->gid = o->system_filter_user.gid;
  }
  if (o->system_filter_group.set)
    ret->gid = o->system_filter_group.id;
  return true;
}

static bool read_filter(struct delivery *d, const struct owner *owner, struct str *ret) {
  struct ctx *c = d->c;
  struct str path;
  struct user_file f;
  if (expand_option(c, &main_options(c->config)->system_filter, &path))
    return trouble(d, str_printf(c->arena, "failed to expand \"%.*s\": %.*s", STRF(main_options(c->config)->system_filter.text), STRF(c->error)));
  if (!path.len || path.p[0] != '/')
    return trouble(d, str_printf(c->arena, "\"%.*s\" is not an absolute path", STRF(path)));
  if (str_is_tainted(path))
    return trouble(d, str_printf(c->arena, "Tainted name '%.*s' for file read not permitted", STRF(path)));
  user_file_read(c->arena, owner->uid, owner->gid, path, USER_FILE_MAX, &f);
  if (f.too_big || f.not_regular)
    return trouble(d, str_printf(c->arena, "%.*s is %s", STRF(path), f.too_big ? "too big" : "not a regular file"));
  if (f.error)
    return trouble(d, str_printf(c->arena, "failed to open %.*s: %s", STRF(path), strerror(f.error)));
  *ret = f.text;
  return true;
}

#define FREEZE_TEXT_MAX 1000 /* of what the filter says about it, in log lines */

/* --- what it asks for --- */

/* Whose children the filter's deliveries are. */
static struct address *new_parent(struct delivery *d) {
  struct address *a = address_new(d->c->arena, STR("system-filter"), -1);
  a->domain = main_options(d->c->config)->qualify_domain;
  a->topaddr = str_cat(d->c->arena, a->address, str_cat(d->c->arena, STR("@"), a->domain));
  a->prop.utf8_msg = d->m->smtputf8;
  return a;
}

static void choose_transport(struct delivery *d, struct address *a) {
  const struct main_options *o = main_options(d->c->config);
  const struct option_expr *option;
  const char *name;
  struct str value;
  if (a->kind == ADDRESS_PIPE)
    option = &o->system_filter_pipe_transport, name = "system_filter_pipe_transport";
  else if (a->kind == ADDRESS_REPLY)
    option = &o->system_filter_reply_transport, name = "system_filter_reply_transport";
  else if (str_ends(a->address, STR("/")))
    option = &o->system_filter_directory_transport, name = "system_filter_directory_transport";
  else
    option = &o->system_filter_file_transport, name = "system_filter_file_transport";
  a->result = OUTCOME_DEFER;
  a->basic_errno = ERROR_UNKNOWN;
  a->panic = true;
  if (expand_option(d->c, option, &value)) {
    a->message = str_printf(d->c->arena, "failed to expand \"%.*s\" as a system filter transport name: %.*s", STRF(option->text), STRF(d->c->error));
    return;
  }
  if (!str_is_set(value) || !value.len) {
    a->message = str_printf(d->c->arena, "%s is unset", name);
    return;
  }
  a->transport = (struct instance *)config_driver(d->c->config, DRIVER_TRANSPORT, value);
  if (!a->transport) {
    a->message = str_printf(d->c->arena, "failed to find \"%.*s\" transport for system filter delivery", STRF(value));
    return;
  }
  a->result = OUTCOME_OK;
  a->basic_errno = 0;
  a->panic = false;
}

static struct address *make_child(struct delivery *d, struct address *parent, const struct filter_item *item, const struct owner *owner) {
  static const enum address_kind kinds[] = {[FILTER_FILE] = ADDRESS_FILE, [FILTER_PIPE] = ADDRESS_PIPE, [FILTER_REPLY] = ADDRESS_REPLY};
  struct address *a;
  if (item->kind == FILTER_ADDRESS) {
    struct str text = item->text;
    if (str_find_byte(text, '@') < 0)
      text = str_cat(d->c->arena, text, str_cat(d->c->arena, STR("@"), main_options(d->c->config)->qualify_recipient));
    a = address_child(d->c->arena, parent, text);
  } else {
    a = address_special(d->c->arena, parent, kinds[item->kind], item->text);
    a->af_allow_file = a->af_allow_pipe = a->af_allow_reply = true;
    a->mode = item->mode;
    if (owner->uid >= 0) {
      a->uid = (uint32_t)owner->uid;
      a->uid_set = true;
    }
    if (owner->gid >= 0) {
      a->gid = (uint32_t)owner->gid;
      a->gid_set = true;
    }
    choose_transport(d, a);
  }
  a->filter = item;
  a->prop.errors_address = str_is_set(item->errors_to) ? item->errors_to : a->prop.errors_address;
  a->prop.ignore_error |= item->noerror;
  return a;
}

/* The filter's deliveries, in front of the recipients: the last one first, as they come out in the filter's order. */
static void add_items(struct delivery *d, const struct filter_result *f, const struct owner *owner) {
  struct address *parent = new_parent(d);
  for (size_t i = 0; i < f->items.n; i++) {
    struct address *a = make_child(d, parent, &f->items.v[i], owner);
    a->next = d->fresh;
    d->fresh = a;
    parent->child_pending++;
  }
}

/* --- what becomes of the recipients --- */

static void drop_recipients(struct delivery *d, size_t others) {
  log_write(LOG_MAIN, d->m, others ? "original recipients ignored (system filter)" : "=> discarded (system filter)");
  while (d->fresh) {
    struct address *a = d->fresh;
    d->fresh = a->next;
    a->next = NULL;
    delivery_done(d, a);
  }
}

static void move(struct delivery *d, struct address **list, enum outcome result, int error, struct str text) {
  while (d->fresh) {
    struct address *a = d->fresh;
    d->fresh = a->next;
    a->result = result;
    a->basic_errno = error;
    a->message = a->user_message = text;
    a->pass_message = true;
    a->waits = result == OUTCOME_DEFER;
    a->next = *list;
    *list = a;
  }
}

/* "<<for the log>>for the sender" */
static void split_text(struct str text, struct str *ret_log, struct str *ret_user) {
  *ret_log = *ret_user = text;
  ptrdiff_t end = str_starts(text, STR("<<")) ? str_find(text, STR(">>")) : -1;
  if (end < 0)
    return;
  *ret_log = str_slice(text, 2, (size_t)end);
  *ret_user = str_from(text, (size_t)end + 2);
}

static void fail_recipients(struct delivery *d, struct str text) {
  struct str log, user;
  split_text(text, &log, &user);
  log_write(LOG_MAIN, d->m, "cancelled by system filter%s%.*s", log.len ? ": " : "", STRF(log_printable(d->c->arena, log)));
  struct address *had = d->failed;
  user = user.len ? user : STR("delivery cancelled");
  move(d, &d->failed, OUTCOME_FAIL, ERROR_FILTER_FAIL, user);
  for (struct address *a = d->failed; a && a != had; a = a->next)
    event_address(d->c, a, "msg:fail:internal", user, 0);
}

static void use_outcome(struct delivery *d, const struct filter_result *f) {
  struct str text = str_is_set(f->text) ? f->text : STR_EMPTY;
  switch (f->outcome) {
  case FILTER_DELIVERED:
    drop_recipients(d, f->items.n);
    break;
  case FILTER_DEFER:
    log_write(LOG_MAIN, d->m, "Delivery deferred by system filter");
    move(d, &d->deferred, OUTCOME_DEFER, ERROR_UNKNOWN, text);
    break;
  case FILTER_FREEZE:
    d->freeze = true;
    d->freeze_reason = STR(" by the system filter");
    d->freeze_detail = text.len <= FREEZE_TEXT_MAX ? text
        : str_cat(d->c->arena, str_slice(text, 0, FREEZE_TEXT_MAX), STR(" ... (truncated)"));
    move(d, &d->deferred, OUTCOME_DEFER, ERROR_UNKNOWN, STR_EMPTY);
    break;
  case FILTER_FAIL:
    fail_recipients(d, text);
    break;
  default:
    break;
  }
}

bool delivery_system_filter(struct delivery *d) {
  const struct main_options *o = main_options(d->c->config);
  struct filter_rules rules = {.system = true, .manually_thawed = d->m->manual_thaw};
  struct filter_result f;
  struct owner owner;
  struct str text;
  if (!str_is_set(o->system_filter.text) || !o->system_filter.text.len || d->how->give_up || !d->fresh)
    return true;
  if (!find_owner(d, &owner) || !read_filter(d, &owner, &text))
    return false;
  if (filter_kind(text) == FILTER_SIEVE)
    return trouble(d, STR("a system filter cannot be a Sieve filter"));
  filter_run(d->c, text, &rules, &f);
  if (f.outcome == FILTER_ERROR)
    return trouble(d, f.text);
  filter_set_system_counts(d->m, f.n);
  d->rewrite_header |= f.headers_changed;
  use_outcome(d, &f);
  add_items(d, &f, &owner);
  return true;
}
