/* The generic option `self`: the first host to deliver to is ourselves; and
addresses that go on under another domain. */

#include "deliver/errors.h"
#include "log/log.h"
#include "message/message.h"
#include "message/rewrite.h"
#include "route/router.h"

enum route_result router_change_domain(struct ctx *c, const struct instance *r, struct address *a, struct str domain,
    bool rewrite_headers, struct route_lists *lists) {
  struct str local = str_slice(a->address, 0, a->address.len - a->domain.len);
  struct address *child = address_child(c->arena, a, str_cat(c->arena, local, domain));
  /* A name from the DNS does not taint the local part. */
  child->cc_local_part.taint = child->lc_local_part.taint = child->local_part.taint = a->cc_local_part.taint;
  if (rewrite_headers && c->message && lists->mode == ROUTE_FOR_DELIVERY)
    rewrite_change_domain(c, c->message, a->domain, domain);
  a->router = (struct instance *)r;
  a->result = OUTCOME_OK;
  child->next = lists->children;
  lists->children = child;
  return ROUTE_REROUTED;
}

static void log_local_host(struct ctx *c, const struct address *a, const char *text) {
  const struct message *m = c->message;
  if (m && m->id[0])
    log_write(LOG_MAIN, m, "%s: %.*s", text, STRF(a->domain));
  else if (c->client && c->client->fullhost.len)
    log_write(LOG_MAIN, m, "%s: %.*s (while verifying <%.*s> from host %.*s)", text, STRF(a->domain), STRF(a->address),
        STRF(c->client->fullhost));
  else
    log_write(LOG_MAIN, m, "%s: %.*s (while routing <%.*s>)", text, STRF(a->domain), STRF(a->address));
}

enum route_result router_self(struct ctx *c, const struct instance *r, struct address *a, const struct host *host,
    struct route_lists *lists) {
  const struct router_options *o = router_options(r);
  const char *text = host->mx >= 0 ? "lowest numbered MX record points to local host" : "remote host address is the local host";
  switch (o->self) {
  case SELF_SEND:
    return ROUTE_OK;
  case SELF_PASS:
    a->self_hostname = c->vars.self_hostname = host->name;
    return ROUTE_PASS;
  case SELF_FAIL:
    a->result = OUTCOME_FAIL;
    a->self_hostname = host->name;
    return router_fail(c, a, "%s", text);
  case SELF_REROUTE:
    return router_change_domain(c, r, a, o->self_domain, o->self_rewrite, lists);
  case SELF_FREEZE:
    log_local_host(c, a, text);
    a->special_action_freeze = true;
    break;
  case SELF_DEFER:
    break;
  }
  return router_defer(c, a, ERROR_UNKNOWN, "%s", text);
}
