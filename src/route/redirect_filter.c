/* Filters in the redirect router: users' own, and the administrator's for each
address (Exim manual, sections "Redirect router" options allow_filter …, and
"Per-address filtering"). */

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/main_options.h"
#include "deliver/as_user.h"
#include "deliver/errors.h"
#include "deliver/submit.h"
#include "expand/expand.h"
#include "hints/hints.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"
#include "queue/spool.h"
#include "route/redirect_filter.h"

#define REQUEST_MAX (64u << 20)

static unsigned forbidden(const struct redirect_options *o) {
  return (o->forbid_filter_dlfunc ? EXPAND_FORBID_DLFUNC : 0) | (o->forbid_filter_existstest ? EXPAND_FORBID_EXISTS : 0) |
         (o->forbid_filter_lookup ? EXPAND_FORBID_LOOKUP : 0) | (o->forbid_filter_perl ? EXPAND_FORBID_PERL : 0) |
         (o->forbid_filter_readfile ? EXPAND_FORBID_READFILE : 0) | (o->forbid_filter_readsocket ? EXPAND_FORBID_READSOCKET : 0) |
         (o->forbid_filter_run ? EXPAND_FORBID_RUN : 0);
}

/* --- items to addresses --- */

/* A relative file is the user's (filter_prepend_home); a Sieve script's folder is the transport's. */
static struct str file_name(struct redirect_run *run, struct str name) {
  struct str home = run->c->vars.home;
  if (run->sieve || !run->o->filter_prepend_home || (name.len && name.p[0] == '/') || !str_is_set(home) || !home.len)
    return name;
  return str_cat(run->c->arena, home, str_cat(run->c->arena, STR("/"), name));
}

static enum route_result make_child(struct redirect_run *run, const struct filter_item *item, struct address **ret) {
  static const enum address_kind kinds[] = {[FILTER_FILE] = ADDRESS_FILE, [FILTER_PIPE] = ADDRESS_PIPE, [FILTER_REPLY] = ADDRESS_REPLY};
  struct address *child;
  if (item->kind == FILTER_ADDRESS) {
    struct redirect_item r = {.kind = REDIRECT_ADDRESS, .text = item->text};
    enum route_result rc = redirect_address(run, &r, &child);
    if (rc)
      return rc;
  } else {
    child = redirect_special(run, kinds[item->kind], item->kind == FILTER_FILE ? file_name(run, item->text) : item->text);
  }
  child->filter = item;
  child->mode = item->mode;
  if (str_is_set(item->errors_to))
    child->prop.errors_address = item->errors_to;
  child->prop.ignore_error |= item->noerror;
  child->hide_in_errors = run->o->hide_child_in_errmsg || run->a->hide_in_errors;
  *ret = child;
  return ROUTE_OK;
}

/* All children, in the filter's order; they inherit what the router adds. */
static enum route_result make_children(struct redirect_run *run, const struct filter_result *f, struct address **ret, unsigned *ret_n) {
  struct address *a = run->a, **tail = ret;
  struct address_props props = a->prop, saved = a->prop;
  enum route_result rc = router_props(run->c, run->r, a, &props);
  if (!rc)
    rc = redirect_srs_sender(run->c, run->r, a, &run->srs, &props);
  *ret = NULL;
  *ret_n = 0;
  if (rc)
    return rc;
  a->prop = props;
  for (size_t i = 0; i < f->items.n && !rc; i++) {
    if (f->items.v[i].kind == FILTER_NOTIFY)
      continue;
    if ((rc = make_child(run, &f->items.v[i], tail)))
      break;
    tail = &(*tail)->next;
    ++*ret_n;
  }
  *tail = NULL;
  a->prop = saved;
  return rc;
}

static void add_children(struct address *children, struct route_lists *lists) {
  struct address **tail = &children;
  while (*tail)
    tail = &(*tail)->next;
  *tail = lists->children;
  lists->children = children;
}

/* The children and the address itself become children of a copy of it: it fails or waits for itself. */
static void add_beside(struct redirect_run *run, struct address *children, unsigned n, struct route_lists *lists) {
  struct address *a = run->a;
  if (!n || route_verifying(a))
    return;
  struct address *parent = arena_new_of(run->c->arena, struct address);
  *parent = *a;
  parent->next = NULL;
  parent->router = (struct instance *)run->r;
  parent->child_pending = n + 1;
  for (struct address *child = children; child; child = child->next)
    child->parent = parent;
  struct address *twin = address_child(run->c->arena, parent, a->address);
  a->parent = parent;
  a->unique = twin->unique;
  a->homonym = true;
  add_children(children, lists);
}

/* Nothing significant: what there is is delivered besides, and a twin of the address goes on behind this router. */
static enum route_result go_on(struct redirect_run *run, struct address *children, unsigned n, struct route_lists *lists) {
  if (!n || route_verifying(run->a))
    return ROUTE_DECLINE;
  if (!run->r->next) {
    add_beside(run, children, n, lists);
    return ROUTE_DECLINE;
  }
  struct address *twin = address_child(run->c->arena, run->a, run->a->address);
  twin->start_router = run->r->next;
  twin->next = children;
  add_children(twin, lists);
  return ROUTE_REROUTED;
}

/* --- outcomes --- */

static enum route_result filter_error(struct redirect_run *run, const struct filter_result *f) {
  const char *kind = str_is_set(run->o->file.text) ? "file" : "data";
  if (!run->o->skip_syntax_errors)
    return router_defer(run->c, run->a, ERROR_BAD_REDIRECT, "error in filter %s: %.*s", kind, STRF(f->text));
  struct redirect_parsed p = {.result = REDIRECT_ITEMS};
  struct redirect_skipped skipped = {.item = STR_UNSET, .error = f->text};
  vec_push(run->c->arena, &p.skipped, skipped);
  redirect_report_skipped(run, &p);
  return ROUTE_DECLINE;
}

static enum route_result stopped(struct redirect_run *run, const struct filter_result *f) {
  struct address *a = run->a;
  struct str text = str_is_set(f->text) ? f->text : STR_EMPTY;
  if (f->outcome == FILTER_FAIL)
    return redirect_forced(run, text.len ? text : STR("filter forced failure"), ROUTE_FAIL);
  if (f->outcome == FILTER_DEFER)
    return redirect_forced(run, text.len ? text : STR("filter forced deferral"), ROUTE_DEFER);
  /* Addresses that are only looked at do not freeze anything. */
  enum route_result rc = redirect_forced(run, text.len ? text : STR("frozen by filter"), ROUTE_DEFER);
  a->special_action_freeze = !route_verifying(a);
  return rc;
}

static const char *refused(const struct redirect_options *o, enum filter_kind kind) {
  if (!o->allow_filter)
    return "filtering not enabled";
  if (kind == FILTER_EXIM)
    return o->forbid_exim_filter ? "Exim filtering not enabled" : NULL;
  return o->forbid_sieve_filter ? "Sieve filtering not enabled" : NULL;
}

/* --- Sieve --- */

static enum route_result sieve_string(struct redirect_run *run, const char *name, const struct option_expr *o, struct str *ret) {
  *ret = STR_UNSET;
  if (!str_is_set(o->text))
    return ROUTE_OK;
  int rc = expand_option(run->c, o, ret);
  if (rc == OUTCOME_FORCED)
    *ret = STR_UNSET;
  else if (rc)
    return router_defer(run->c, run->a, ERROR_EXPAND_FAIL, "failed to expand \"%.*s\" (%s): %.*s", STRF(o->text), name, STRF(run->c->error));
  return ROUTE_OK;
}

/* What the router's options tell a Sieve script. */
static enum route_result sieve_strings(struct redirect_run *run, struct filter_rules *rules) {
  const struct redirect_options *o = run->o;
  enum route_result rc = sieve_string(run, "sieve_inbox", &o->sieve_inbox, &rules->sieve_inbox);
  if (!rc)
    rc = sieve_string(run, "sieve_subaddress", &o->sieve_subaddress, &rules->sieve_subaddress);
  if (!rc)
    rc = sieve_string(run, "sieve_useraddress", &o->sieve_useraddress, &rules->sieve_useraddress);
  if (!rc)
    rc = sieve_string(run, "sieve_vacation_directory", &o->sieve_vacation_directory, &rules->sieve_vacation_directory);
  if (!rc)
    rc = sieve_string(run, "sieve_enotify_mailto_owner", &o->sieve_enotify_mailto_owner, &rules->sieve_enotify_owner);
  if (!rc && !rules->sieve_inbox.len)
    return router_defer(run->c, run->a, ERROR_BAD_REDIRECT, "sieve_inbox is empty");
  return rc;
}

struct notified {
  bool before;
};

static int note_notified(struct arena *a, struct str *value, void *arg) {
  struct notified *n = arg;
  n->before = str_is_set(*value);
  *value = str_printf(a, "%lld", (long long)time(NULL));
  return n->before ? 0 : 1;
}

/* A message that is routed again, because something about it is not delivered yet, was already told of. */
static bool already_notified(struct redirect_run *run, const struct filter_item *item) {
  struct notified n = {0};
  struct str key = str_printf(run->c->arena, "notify %s %.*s %.*s", run->c->message->id, STRF(run->a->address), STRF(item->text));
  return hints_update(run->c, "autoreply", str_slice(key, 0, 500), note_notified, &n) == OUTCOME_OK && n.before;
}

static void send_notification(struct redirect_run *run, const struct filter_reply *reply) {
  struct ctx *c = run->c;
  struct address_walk w = {.text = reply->to};
  struct mail_address m;
  struct submit s;
  struct str error;
  submit_init(&s, c->arena, c->message);
  s.sender = run->a->address;
  s.as_user = run->uid >= 0;
  s.uid = (uint32_t)run->uid;
  s.gid = (uint32_t)run->gid;
  while (address_walk_next(&w))
    if (!address_parse(c->arena, str_slice(w.text, w.from, w.to), 0, &m, &error))
      vec_push(s.arena, &s.recipients, m.address);
  buf_printf(&s.header, "From: %.*s\nTo: %.*s\n", STRF(reply->from), STRF(reply->to));
  if (str_is_set(reply->subject))
    buf_printf(&s.header, "Subject: %.*s\n", STRF(reply->subject));
  buf_add(&s.header, reply->headers);
  buf_add(&s.body, reply->text);
  if (reply->text.len && !str_ends(reply->text, STR("\n")))
    buf_add_byte(&s.body, '\n');
  int e = submit_message(c, &s);
  if (e) /* the message itself is more important */
    log_write(LOG_MAIN, c->message, "failed to send notification for %.*s: %s", STRF(run->a->address), strerror(-e));
}

static void send_notifications(struct redirect_run *run, const struct filter_result *f) {
  if (route_verifying(run->a) || run->c->is_test || !run->c->message || !run->c->message->id[0])
    return;
  for (size_t i = 0; i < f->items.n; i++)
    if (f->items.v[i].kind == FILTER_NOTIFY && !already_notified(run, &f->items.v[i]))
      send_notification(run, f->items.v[i].reply);
}

/* --- whose process it runs in --- */

static struct filter_rules rules_of(const struct redirect_options *o) {
  return (struct filter_rules){.allow_defer = o->allow_defer, .allow_fail = o->allow_fail, .allow_freeze = o->allow_freeze,
      .forbid_logwrite = o->forbid_filter_logwrite, .forbid = forbidden(o)};
}

static const struct instance *filter_router(const struct config *c, struct str name) {
  const struct instance *r = config_driver(c, DRIVER_ROUTER, name);
  return r && r->driver == &router_redirect_def.driver && ((const struct redirect_options *)r->options)->allow_filter ? r : NULL;
}

bool redirect_filters_allowed(const struct config *c, struct str name) { return filter_router(c, name) != NULL; }

static void serve(struct arena *a, struct config *c, struct str router, struct str request, int body_fd, struct buf *answer) {
  const struct instance *r = filter_router(c, router);
  if (!r)
    return;
  struct filter_rules rules = rules_of(r->options);
  filter_request_serve(a, c, &rules, request, body_fd, answer);
}

void redirect_serve_filters(struct config *c) { user_filter_serve_with(c, serve); }

/* What the filter's strings do is done as its user: in a process of his when we can have one. */
static int ask_user(struct ctx *c, const struct instance *r, int64_t uid, int64_t gid, enum filter_work work, struct str text,
    const struct filter_rules *rules, struct filter_result *ret) {
  struct buf request;
  struct str answer, error;
  int body = -1;
  buf_init(&request, c->arena, REQUEST_MAX);
  int e = filter_request_encode(c, work, text, rules, &request);
  if (e)
    return ctx_fail(c, OUTCOME_ERROR, "the filter cannot be handed to its user's process: %s", strerror(-e));
  if (c->message && c->message->id[0] && str_ifind(text, STR("body")) >= 0)
    body = spool_open_body(c, c->message);
  redirect_serve_filters(c->config);
  e = user_filter_evaluate(c->arena, uid, gid, r->name, buf_str(&request), body, &answer, &error);
  if (body >= 0 && body != c->message->data_fd)
    close(body);
  if (e)
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(error));
  return filter_answer_decode(c->arena, answer, ret) ? 0 : ctx_fail(c, OUTCOME_ERROR, "malformed result of the filter process");
}

static void run_filter(struct redirect_run *run, struct str data, const struct filter_rules *rules, struct filter_result *f) {
  struct ctx *c = run->c;
  if (!user_filter_other_user(run->uid)) {
    filter_run(c, data, rules, f);
  } else if (ask_user(c, run->r, run->uid, run->gid, FILTER_WORK_RUN, data, rules, f)) {
    *f = (struct filter_result){.outcome = FILTER_ERROR, .text = c->error};
  }
}

int redirect_expand_as_user(struct ctx *c, const struct address *a, struct str text, struct str *ret) {
  const struct filter_rules rules = {0};
  struct filter_result f;
  if (!a->router || !a->uid_set || !user_filter_other_user(a->uid))
    return filter_expand_lines(c, text, ret);
  int rc = ask_user(c, a->router, a->uid, a->gid_set ? (int64_t)a->gid : -1, FILTER_WORK_EXPAND, text, &rules, &f);
  if (rc)
    return rc;
  if (f.outcome == FILTER_ERROR)
    return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(f.text));
  *ret = f.text;
  return 0;
}

enum route_result redirect_filter(struct redirect_run *run, struct str data, enum filter_kind kind, struct route_lists *lists) {
  const struct redirect_options *o = run->o;
  struct filter_result f;
  struct address *children;
  unsigned n;
  enum route_result rc;
  const char *why = refused(o, kind);
  if (why) {
    f.text = str_c(why);
    return router_defer(run->c, run->a, ERROR_BAD_REDIRECT, "error in filter %s: %s", str_is_set(o->file.text) ? "file" : "data", why);
  }
  struct filter_rules rules = rules_of(o);
  rules.manually_thawed = run->c->message && run->c->message->manual_thaw;
  run->sieve = kind == FILTER_SIEVE;
  if (run->sieve && (rc = sieve_strings(run, &rules)))
    return rc;
  run_filter(run, data, &rules, &f);
  if (f.outcome == FILTER_ERROR)
    return filter_error(run, &f);
  if ((rc = make_children(run, &f, &children, &n)))
    return rc;
  send_notifications(run, &f);
  if (f.outcome == FILTER_DELIVERED) {
    if (!n) {
      run->a->discarded = true;
      return ROUTE_DISCARD;
    }
    add_children(children, lists);
    run->a->result = OUTCOME_OK;
    return ROUTE_REROUTED;
  }
  if (f.outcome == FILTER_NOT_DELIVERED)
    return go_on(run, children, n, lists);
  add_beside(run, children, n, lists);
  return stopped(run, &f);
}
