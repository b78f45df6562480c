/* mua_wrapper: the whole message at once, over one connection, or not at all
(Exim manual, chapter "Using Exim as a non-queueing client"). Nothing waits and
nobody gets a bounce: the caller hears of it on the standard error output. */

#include <stdio.h>
#include "core/main_options.h"
#include "deliver/delivery.h"
#include "deliver/logline.h"
#include "log/log.h"

bool delivery_is_wrapper(const struct delivery *d) { return main_options(d->c->config)->mua_wrapper; }

static void fail_list(struct delivery *d, struct address **list) {
  while (*list) {
    struct address *a = *list;
    *list = a->next;
    a->result = OUTCOME_FAIL;
    a->next = d->failed;
    d->failed = a;
  }
}

static unsigned length(const struct address *a) {
  unsigned n = 0;
  for (; a; a = a->next)
    n++;
  return n;
}

bool delivery_wrapper_fits(struct delivery *d) {
  if (!d->local && !d->failed && !d->deferred && (!d->remote || delivery_one_group(d)))
    return true;
  for (struct address *a = d->deferred; a; a = a->next)
    log_write(LOG_MAIN, d->m, "** %.*s mua_wrapper forced failure for deferred delivery", STRF(logline_address(d->c, a, false)));
  if (!d->failed && !d->deferred) {
    log_write(LOG_MAIN, d->m, "** mua_wrapper is set but recipients cannot all be delivered in one transaction");
    fprintf(stderr, "delivery to smarthost failed (configuration problem)\n");
    d->wrapper_told = true;
  }
  fail_list(d, &d->local);
  fail_list(d, &d->remote);
  return false;
}

void delivery_wrapper_settle(struct delivery *d) {
  unsigned deferred = length(d->deferred);
  for (struct address *a = d->deferred; a && d->tried; a = a->next)
    log_write(LOG_MAIN, d->m, "** %.*s mua_wrapper forced failure for deferred delivery", STRF(logline_address(d->c, a, false)));
  d->wrapper_failed = deferred || d->failed;
  fail_list(d, &d->deferred);
  while (d->failed) {
    struct address *a = d->failed;
    d->failed = a->next;
    a->next = NULL;
    struct str why = str_is_set(a->message) && a->message.len ? a->message : str_is_set(a->user_message) ? a->user_message : STR_EMPTY;
    if (!d->wrapper_told && why.len)
      fprintf(stderr, "%.*s: %.*s\n", STRF(a->address), STRF(log_printable(d->c->arena, why)));
    else if (!d->wrapper_told && a->basic_errno > 0)
      fprintf(stderr, "%.*s: %s\n", STRF(a->address), strerror(a->basic_errno));
    delivery_done(d, a);
  }
}
