/* percent_hack_domains (Exim manual, chapter "Main configuration"). */

#include "core/main_options.h"
#include "deliver/errors.h"
#include "match/match.h"
#include "message/address.h"
#include "route/router.h"

/* Each step may ask a lookup, and an address comes from outside: so many steps, no more. */
#define PERCENT_HACK_MAX 16

enum route_result route_percent_hack_text(struct ctx *c, struct str *local_part, struct str *domain, bool *ret_changed) {
  const struct option_expr *domains = &main_options(c->config)->percent_hack_domains;
  struct str local = *local_part, at = *domain;
  ptrdiff_t percent;
  unsigned steps = 0;
  *ret_changed = false;
  if (!str_is_set(domains->text))
    return ROUTE_OK;
  while ((percent = str_rfind_byte(local, '%')) >= 0) {
    int rc = match_domain(c, domains, at, NULL);
    if (rc == OUTCOME_FAIL)
      break;
    if (rc != OUTCOME_OK) {
      c->error = STR("percent_hack_domains lookup deferred");
      return ROUTE_DEFER;
    }
    if (++steps > PERCENT_HACK_MAX) {
      c->error = STR("too many domains after percent signs in the local part");
      return ROUTE_FAIL;
    }
    at = str_from(local, percent + 1);
    local = str_slice(local, 0, (size_t)percent);
  }
  *local_part = local;
  *domain = at;
  *ret_changed = steps > 0;
  return ROUTE_OK;
}

enum route_result route_percent_hack(struct ctx *c, struct address *a) {
  struct str local = a->cc_local_part, domain = a->domain;
  bool changed;
  enum route_result rc = route_percent_hack_text(c, &local, &domain, &changed);
  if (rc == ROUTE_DEFER)
    return router_defer(c, a, ERROR_LIST_DEFER, "%.*s", STRF(c->error));
  if (rc == ROUTE_FAIL) {
    a->user_message = c->error;
    return router_fail(c, a, "%.*s", STRF(c->error));
  }
  if (!changed)
    return ROUTE_OK;
  /* The address as it came becomes the parent, so that logs still show it. */
  struct address *parent = arena_new_of(c->arena, struct address);
  *parent = *a;
  struct str text = str_cat(c->arena, address_quote_local_part(c->arena, local), str_cat(c->arena, STR("@"), domain));
  struct address *child = address_child(c->arena, parent, text), *next = a->next;
  child->next = next;
  *a = *child;
  return ROUTE_OK;
}
