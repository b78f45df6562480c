/* The redirect router: aliases and forward files (Exim manual, chapter "The
redirect router"). The data's text is taken apart by redirect_parse.c. */

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/main_options.h"
#include "deliver/as_user.h"
#include "deliver/errors.h"
#include "deliver/submit.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "message/address.h"
#include "message/message.h"
#include "message/rewrite.h"
#include "filter/filter.h"
#include "route/redirect.h"
#include "route/redirect_filter.h"
#include "route/redirect_parse.h"

#define ITEMS_MAX 200000

bool router_repeat_use(const struct instance *r) {
  return r->driver != &router_redirect_def.driver || ((const struct redirect_options *)r->options)->repeat_use;
}

/* --- reading files --- */

static struct str open_error(const struct redirect_run *run, struct arena *a, const char *what, struct str path, int error) {
  if (error == EACCES)
    return str_printf(a, "failed to open %s%.*s: %s (euid=%ld egid=%ld)", what, STRF(path), strerror(error), run->uid >= 0 ? (long)run->uid : (long)geteuid(),
        run->gid >= 0 ? (long)run->gid : (long)getegid());
  return str_printf(a, "failed to open %s%.*s: %s", what, STRF(path), strerror(error));
}

static int read_included(void *arg, struct arena *a, struct str path, struct str *ret, struct str *ret_error) {
  struct redirect_run *run = arg;
  struct user_file f;
  user_file_read(a, run->uid, run->gid, path, USER_FILE_MAX, &f);
  if (!f.error && !f.too_big && !f.not_regular) {
    *ret = f.text;
    return 0;
  }
  if (f.too_big)
    *ret_error = str_printf(a, "included file %.*s is too big (max %d)", STRF(path), USER_FILE_MAX);
  else if (f.not_regular)
    *ret_error = str_printf(a, "error while reading included file %.*s: %s", STRF(path), strerror(S_ISDIR(f.mode) ? EISDIR : EINVAL));
  else
    *ret_error = open_error(run, a, "included file ", path, f.error);
  return OUTCOME_ERROR;
}

static bool listed(const struct option_ids *ids, uint32_t id) {
  for (size_t i = 0; i < ids->n; i++)
    if (ids->v[i] == id)
      return true;
  return false;
}

/* Owner, group and mode of the forward file. */
static enum route_result check_file(struct redirect_run *run, struct str path, const struct user_file *f) {
  const struct redirect_options *o = run->o;
  struct address *a = run->a;
  if (f->mode & (mode_t)o->modemask)
    return router_defer(run->c, a, ERROR_UNKNOWN, "bad mode (0%o) for %.*s: 0%o bit(s) unexpected", (unsigned)f->mode,
        STRF(path), (unsigned)(f->mode & (mode_t)o->modemask));
  if (o->check_owner && !(a->local_user && f->uid == a->uid) && !listed(&o->owners, f->uid))
    return router_defer(run->c, a, ERROR_UNKNOWN, "bad owner for %.*s", STRF(path));
  if (o->check_group && !(a->local_user && f->gid == a->local_gid) && !listed(&o->owngroups, f->gid))
    return router_defer(run->c, a, ERROR_UNKNOWN, "bad group for %.*s", STRF(path));
  return ROUTE_OK;
}

struct stat_job {
  const char *path;
  int error;
};

static int stat_job(void *arg) {
  struct stat_job *j = arg;
  struct stat st;
  j->error = stat(j->path, &st) ? errno : 0;
  return 0;
}

/* No such file: fine, unless its directory is missing too (an unmounted home). */
static enum route_result no_file(struct redirect_run *run, struct str path) {
  if (run->o->ignore_enotdir)
    return ROUTE_DECLINE;
  ptrdiff_t slash = str_rfind_byte(path, '/');
  struct str dir = str_cat(run->c->arena, str_slice(path, 0, slash + 1), STR("."));
  struct stat_job j = {.path = str_dup_c(run->c->arena, dir)};
  fiber_offload(stat_job, &j);
  if (!j.error)
    return ROUTE_DECLINE;
  if (j.error == EACCES && run->o->ignore_eacces)
    return ROUTE_DECLINE;
  return router_defer(run->c, run->a, ERROR_UNKNOWN, "failed to stat %s (%s)", j.path, strerror(j.error));
}

static enum route_result file_problem(struct redirect_run *run, struct str path, const struct user_file *f) {
  if (f->error == ENOENT)
    return no_file(run, path);
  if (f->not_regular)
    return router_defer(run->c, run->a, ERROR_UNKNOWN, "%.*s is not a regular file", STRF(path));
  if (f->too_big)
    return router_defer(run->c, run->a, ERROR_UNKNOWN, "%.*s is too big (max %d)", STRF(path), USER_FILE_MAX);
  if ((f->error == ENOTDIR && run->o->ignore_enotdir) || (f->error == EACCES && run->o->ignore_eacces))
    return ROUTE_DECLINE;
  struct str text = open_error(run, run->c->arena, "", path, f->error);
  return router_defer(run->c, run->a, ERROR_UNKNOWN, "%.*s", STRF(text));
}

static enum route_result get_file(struct redirect_run *run, struct str *ret) {
  struct ctx *c = run->c;
  struct user_file f;
  struct str path;
  int rc = expand_option(c, &run->o->file, &path);
  if (rc == OUTCOME_FORCED)
    return ROUTE_DECLINE;
  if (rc)
    return router_defer(c, run->a, ERROR_UNKNOWN, "failed to expand \"%.*s\": %.*s", STRF(run->o->file.text), STRF(c->error));
  if (!path.len || path.p[0] != '/')
    return router_defer(c, run->a, ERROR_UNKNOWN, "\"%.*s\" is not an absolute path", STRF(path));
  if (str_is_tainted(path))
    return router_defer(c, run->a, ERROR_UNKNOWN, "Tainted name '%.*s' for file read not permitted", STRF(path));
  user_file_read(c->arena, run->uid, run->gid, path, USER_FILE_MAX, &f);
  if (f.error || f.not_regular || f.too_big)
    return file_problem(run, path, &f);
  *ret = f.text;
  return check_file(run, path, &f);
}

static enum route_result get_data(struct redirect_run *run, struct str *ret) {
  if (!str_is_set(run->o->data.text))
    return get_file(run, ret);
  int rc = expand_option(run->c, &run->o->data, ret);
  if (rc == OUTCOME_FORCED)
    return ROUTE_DECLINE;
  if (rc)
    return router_defer(run->c, run->a, ERROR_UNKNOWN, "failed to expand \"%.*s\": %.*s", STRF(run->o->data.text),
        STRF(run->c->error));
  return str_trim(*ret).len ? ROUTE_OK : ROUTE_DECLINE;
}

/* --- syntax errors that are skipped --- */

void redirect_report_skipped(struct redirect_run *run, const struct redirect_parsed *p) {
  struct ctx *c = run->c;
  const struct redirect_options *o = run->o;
  struct str to, text = STR_UNSET;
  for (size_t i = 0; i < p->skipped.n; i++) {
    const struct redirect_skipped *e = &p->skipped.v[i];
    if (str_is_set(e->item))
      log_write(LOG_MAIN, c->message, "%.*s router: skipped error: %.*s in \"%.*s\"", STRF(run->r->name), STRF(e->error), STRF(e->item));
    else
      log_write(LOG_MAIN, c->message, "%.*s router: skipped error: %.*s", STRF(run->r->name), STRF(e->error));
  }
  if (!str_is_set(o->syntax_errors_to) || !c->message || !c->message->id[0] || route_verifying(run->a) || c->is_test)
    return;
  if (expand_text(c, str_untainted(o->syntax_errors_to), &to) || !to.len) {
    log_write(LOG_MAIN, c->message, "%.*s router: failed to expand syntax_errors_to: %.*s", STRF(run->r->name), STRF(c->error));
    return;
  }
  struct submit s;
  submit_init(&s, c->arena, c->message);
  s.from_router = true;
  vec_push(c->arena, &s.recipients, to);
  buf_printf(&s.header, "Auto-Submitted: auto-replied\nFrom: %.*s\nTo: %.*s\n"
      "Subject: error(s) in forwarding or filtering\n", STRF(submit_from(c)), STRF(to));
  /* In the body, where Exim's users are used to find it. */
  buf_printf(&s.body, "References: <E%s@%.*s>\n", c->message->id, STRF(main_options(c->config)->primary_hostname));
  if (!expand_option(c, &o->syntax_errors_text, &text) && str_is_set(text) && text.len)
    buf_printf(&s.body, "%.*s\n\n", STRF(text));
  buf_printf(&s.body, "The %.*s router encountered the following error(s):\n\n", STRF(run->r->name));
  for (size_t i = 0; i < p->skipped.n; i++) {
    const struct redirect_skipped *e = &p->skipped.v[i];
    if (str_is_set(e->item))
      buf_printf(&s.body, "  %.*s in the address\n  \"%.*s\"\n\n", STRF(e->error), STRF(e->item));
    else
      buf_printf(&s.body, "  %.*s\n\n", STRF(e->error));
  }
  buf_add_c(&s.body, p->items.n ? "Other addresses were processed normally.\n" : "No valid addresses were generated.\n");
  submit_message(c, &s);
}

/* --- children --- */

static const struct address *same_ancestor(const struct address *a, struct str text) {
  for (const struct address *up = a; up; up = up->parent)
    if (up->kind == ADDRESS_MAIL && str_ieq(up->address, text))
      return up;
  return NULL;
}

/* The domain of an address that was written without one. */
static enum route_result qualify(struct redirect_run *run, const struct redirect_item *item, struct str *text) {
  struct ctx *c = run->c;
  struct str domain;
  if (item->backslash || run->o->qualify_preserve_domain) {
    domain = run->a->domain;
  } else if (str_is_set(run->o->qualify_domain.text)) {
    int rc = expand_option(c, &run->o->qualify_domain, &domain);
    if (rc == OUTCOME_FORCED)
      return ROUTE_DECLINE;
    if (rc)
      return router_defer(c, run->a, ERROR_UNKNOWN, "failed to expand \"%.*s\": %.*s", STRF(run->o->qualify_domain.text),
          STRF(c->error));
  } else {
    domain = main_options(c->config)->qualify_recipient;
  }
  *text = str_cat(c->arena, *text, str_cat(c->arena, STR("@"), domain));
  return ROUTE_OK;
}

enum route_result redirect_address(struct redirect_run *run, const struct redirect_item *item, struct address **ret) {
  struct ctx *c = run->c;
  const struct router_options *g = router_options(run->r);
  struct str text = item->text;
  enum route_result rc;
  if (str_find_byte(text, '@') < 0 && (rc = qualify(run, item, &text)))
    return rc;
  bool users_own = run->uid >= 0 && str_is_set(run->o->file.text);
  if (run->o->rewrite)
    (void)(users_own ? rewrite_envelope_recipient_quietly(c, &text) : rewrite_envelope_recipient(c, &text));
  if (run->o->check_ancestor && same_ancestor(run->a, text))
    text = run->a->address;
  *ret = address_child(c->arena, run->a, text);
  (*ret)->start_router = g->redirect_router;
  (*ret)->dsn_ended = true;
  return ROUTE_OK;
}

/* A file, directory or pipe: which transport, and whether it is allowed at all. */
struct address *redirect_special(struct redirect_run *run, enum address_kind kind, struct str text) {
  struct ctx *c = run->c;
  const struct redirect_options *o = run->o;
  bool pipe = kind == ADDRESS_PIPE, reply = kind == ADDRESS_REPLY, directory = kind == ADDRESS_FILE && str_ends(text, STR("/"));
  struct address *child = address_special(c->arena, run->a, kind, text);
  const struct option_expr *option = pipe ? &o->pipe_transport : reply ? &o->reply_transport
                                     : directory ? &o->directory_transport : &o->file_transport;
  const char *name = pipe ? "pipe_transport" : reply ? "reply_transport" : directory ? "directory_transport" : "file_transport";
  child->router = (struct instance *)run->r;
  child->dsn_ended = true;
  child->af_allow_pipe = pipe && !o->forbid_pipe;
  child->af_allow_file = kind == ADDRESS_FILE && !o->forbid_file;
  child->af_allow_reply = reply && !o->forbid_filter_reply;
  child->uid = run->a->uid;
  child->gid = run->a->gid;
  child->uid_set = run->a->uid_set;
  child->gid_set = run->a->gid_set;
  child->initgroups = run->a->initgroups;
  child->local_user = run->a->local_user;
  child->home = run->a->home;
  child->result = OUTCOME_OK;
  bool allowed = child->af_allow_pipe || child->af_allow_file || child->af_allow_reply; /* what is not needs no transport: the delivery refuses it */
  if ((allowed || str_is_set(option->text)) && router_transport(c, run->r, child, option, name, &child->transport) != ROUTE_OK)
    child->result = OUTCOME_DEFER;
  return child;
}

static enum route_result make_children(struct redirect_run *run, const struct redirect_parsed *p, struct route_lists *lists) {
  struct address *a = run->a, *first = NULL, **tail = &first;
  struct address_props props = a->prop, saved = a->prop;
  enum route_result rc = router_props(run->c, run->r, a, &props);
  if (rc || (rc = redirect_srs_sender(run->c, run->r, a, &run->srs, &props)))
    return rc;
  a->prop = props; /* inherited by the children */
  for (size_t i = 0; i < p->items.n && !rc; i++) {
    struct address *child = NULL;
    if (p->items.v[i].kind == REDIRECT_ADDRESS)
      rc = redirect_address(run, &p->items.v[i], &child);
    else
      child = redirect_special(run, p->items.v[i].kind == REDIRECT_PIPE ? ADDRESS_PIPE : ADDRESS_FILE, p->items.v[i].text);
    if (rc)
      break;
    child->hide_in_errors = run->o->hide_child_in_errmsg || a->hide_in_errors;
    if (run->o->one_time) {
      child->one_time = true;
      child->onetime_parent = str_is_set(a->onetime_parent) ? a->onetime_parent : address_top(a)->address;
    }
    *tail = child;
    tail = &child->next;
  }
  a->prop = saved;
  if (rc)
    return rc;
  *tail = lists->children;
  lists->children = first;
  a->result = OUTCOME_OK;
  return ROUTE_REROUTED;
}

/* --- what the data says --- */

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* "550 5.1.1 text" is "text", for routers whose data may not choose codes (forbid_smtp_code). */
static struct str without_codes(struct str text) {
  if (text.len < 4 || text.p[0] < '2' || text.p[0] > '5' || !digit(text.p[1]) || !digit(text.p[2]) || text.p[3] != ' ')
    return text;
  text = str_ltrim(str_from(text, 4));
  struct str rest = text, extended = str_cut(&rest, ' ');
  int dots = 0;
  for (uint32_t i = 0; i < extended.len; i++) {
    if (extended.p[i] == '.' && i > 0 && digit(extended.p[i - 1]))
      dots++;
    else if (!digit(extended.p[i]))
      return text;
  }
  return dots == 2 && str_is_set(rest) ? str_ltrim(rest) : text;
}

/* The text of :fail: and :defer: is for whoever gave us the address. */
enum route_result redirect_forced(struct redirect_run *run, struct str text, enum route_result result) {
  struct address *a = run->a;
  if (run->o->forbid_smtp_code && route_verifying(a))
    text = without_codes(text);
  a->result = result == ROUTE_FAIL ? OUTCOME_FAIL : OUTCOME_DEFER;
  a->basic_errno = ERROR_UNKNOWN;
  a->message = text;
  a->user_message = text;
  a->pass_message = true;
  return result;
}

static enum route_result act(struct redirect_run *run, const struct redirect_parsed *p, struct route_lists *lists) {
  const char *kind = str_is_set(run->o->file.text) ? "file" : "data";
  if (p->skipped.n)
    redirect_report_skipped(run, p);
  switch (p->result) {
  case REDIRECT_BLACKHOLE:
    return ROUTE_DISCARD;
  case REDIRECT_UNKNOWN:
    return ROUTE_DECLINE;
  case REDIRECT_FAIL:
    return redirect_forced(run, p->text, ROUTE_FAIL);
  case REDIRECT_DEFER:
    return redirect_forced(run, p->text, ROUTE_DEFER);
  case REDIRECT_ERROR:
    return router_defer(run->c, run->a, ERROR_BAD_REDIRECT, "error in redirect %s: %.*s", kind, STRF(p->text));
  case REDIRECT_INCLUDE_DEFER:
    return router_defer(run->c, run->a, ERROR_UNKNOWN, "%.*s", STRF(p->text));
  case REDIRECT_ITEMS:
    break;
  }
  if (p->items.n)
    return make_children(run, p, lists);
  if (p->skipped.n)
    run->a->message = STR(ROUTE_SYNTAX_ERROR);
  return ROUTE_DECLINE;
}

static enum route_result redirect_route(struct ctx *c, const struct instance *r, struct address *a, struct route_lists *lists) {
  const struct main_options *m = main_options(c->config);
  struct redirect_run run = {.c = c, .r = r, .o = r->options, .a = a, .uid = -1, .gid = -1};
  struct redirect_parsed parsed;
  struct str data;
  a->local_gid = a->gid;
  enum route_result rc = router_owner(c, r, a);
  if (rc)
    return rc;
  if (a->uid_set) {
    run.uid = a->uid;
    run.gid = a->gid_set ? (int64_t)a->gid : -1;
  }
  if ((rc = redirect_srs_begin(c, r, a, &run.srs)) || (rc = get_data(&run, &data)))
    return rc;
  enum filter_kind kind = filter_kind(data);
  if (kind != FILTER_NONE)
    return redirect_filter(&run, data, kind, lists);
  struct redirect_rules rules = {
      .allow_defer = run.o->allow_defer,
      .allow_fail = run.o->allow_fail,
      .forbid_blackhole = run.o->forbid_blackhole,
      .forbid_include = run.o->forbid_include,
      .skip_syntax_errors = run.o->skip_syntax_errors,
      .address_flags = (m->allow_domain_literals ? ADDRESS_ALLOW_DOMAIN_LITERAL : 0) |
                       (m->strip_trailing_dot ? ADDRESS_STRIP_TRAILING_DOT : 0) | (m->allow_utf8_domains || a->prop.utf8_msg ? ADDRESS_ALLOW_UTF8 : 0),
      .include_directory = run.o->include_directory,
      .items_max = ITEMS_MAX,
      .read_file = read_included,
      .arg = &run,
  };
  redirect_parse(c->arena, data, &rules, &parsed);
  return act(&run, &parsed, lists);
}

const struct router_def router_redirect_def = {
    .driver = {.name = "redirect", .class = DRIVER_ROUTER, .options = redirect_option_table,
        .options_size = sizeof(struct redirect_options), .summary = "aliases, forward files, :fail: and the like",
        .init = redirect_init},
    .flags = ROUTER_NO_TRANSPORT,
    .route = redirect_route,
};
