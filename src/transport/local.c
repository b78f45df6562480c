#include "transport/local.h"
#include "deliver/room.h"
#include "transport/transport.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "deliver/errors.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "message/message.h"
#include "queue/spool.h"
#include "transport/command.h"
#include "transport/identity.h"
#include "transport/options.h"

bool local_expand(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, const char *what,
    struct str *ret) {
  if (expand_option(c, o, ret) == 0)
    return true;
  transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
      str_printf(c->arena, "Expansion of \"%.*s\" (%s for %.*s transport) failed: %.*s", STRF(o->text), what, STRF(t->name),
          STRF(c->error)));
  return false;
}

bool local_expand_affix(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, const char *what,
    struct str *ret) {
  if (expand_option(c, o, ret) == 0)
    return true;
  transport_chain_result(chain, OUTCOME_DEFER, ERROR_EXPAND_FAIL,
      str_printf(c->arena, "Expansion of \"%.*s\" (%s for %.*s transport) failed", STRF(o->text), what, STRF(t->name)));
  return false;
}

bool address_check_room(struct ctx *c, struct address *a, int64_t size) {
  const struct transport_def *def = a->transport ? (const struct transport_def *)a->transport->driver : NULL;
  if (!def || !def->check_room)
    return false;
  def->check_room(c, a->transport, a, size);
  return true;
}

static bool directory_option(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o,
    const char *which, struct str *ret) {
  if (!str_is_set(o->text))
    return true;
  if (expand_option(c, o, ret))
    return transport_chain_panic(c, chain, ERROR_EXPAND_FAIL, str_printf(c->arena, "%s directory \"%.*s\" failed to expand for %.*s transport: %.*s",
        which, STRF(o->text), STRF(t->name), STRF(c->error)));
  if (ret->len && ret->p[0] == '/')
    return true;
  return transport_chain_panic(c, chain, ERROR_NOT_ABSOLUTE, str_printf(c->arena, "%s directory path \"%.*s\" is not absolute for %.*s transport",
      which, STRF(*ret), STRF(t->name)));
}

bool local_plan_begin(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct transport_options *o = transport_options(t);
  *p = (struct plan){.uid = -1, .gid = -1, .initgroups_user = STR_UNSET, .cwd = STR_UNSET, .home = STR_UNSET,
      .tail = STR_UNSET, .check_string = STR_UNSET, .maildir_tag = STR_UNSET, .transport = t->name};
  p->hostname = main_options(c->config)->primary_hostname;
  if (!identity_choose(c, t, chain, p))
    return false;
  p->home = chain->home;
  if (!directory_option(c, t, chain, &o->home_directory, "home", &p->home))
    return false;
  if (str_is_set(p->home))
    c->vars.home = p->home;
  p->cwd = str_is_set(chain->current_dir) ? chain->current_dir : p->home;
  return directory_option(c, t, chain, &o->current_directory, "current", &p->cwd);
}

bool local_plan_prepare(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p,
    struct transport_message *m) {
  const struct transport_options *o = transport_options(t);
  if (!local_plan_begin(c, t, chain, p))
    return false;
  if (!transport_message_build(c, t, chain, m))
    return false;
  struct command filter;
  if (!command_filter(c, t, chain, &filter))
    return false;
  p->filter = filter.argv;
  p->filter_n = (int64_t)filter.n;
  p->filter_timeout = o->transport_filter_timeout;
  p->head = m->head;
  p->body_length = m->with_body ? (int64_t)c->message->body_size : 0;
  p->body_offset = (int64_t)strlen(c->message->id) + 3; /* "ID-D\n" stands before the body */
  p->message_size = m->size;
  return true;
}

void local_plan_run(struct ctx *c, const struct instance *t, struct address *chain, const struct plan *p,
    struct plan_result *ret) {
  int fd = p->body_length ? spool_open_body(c, c->message) : -1;
  if (p->body_length && fd < 0) {
    *ret = (struct plan_result){.outcome = OUTCOME_DEFER, .basic_errno = -fd};
    transport_chain_result(chain, OUTCOME_DEFER, -fd, str_printf(c->arena, "cannot open the message's body: %s", strerror(-fd)));
    return;
  }
  plan_run(c->arena, p, fd, ret);
  if (fd >= 0 && fd != c->message->data_fd)
    close(fd);
  for (struct address *a = chain; a; a = a->next) {
    a->result = (enum outcome)ret->outcome;
    a->basic_errno = (int)ret->basic_errno;
    a->more_errno = (int)ret->more_errno;
    a->message = ret->message;
    a->special_action_freeze = ret->freeze;
    a->panic = ret->basic_errno == ERROR_FILTER_FAIL;
  }
}
