/* Notices of success that a sender asked for with NOTIFY=SUCCESS, where the
next hop cannot be asked to send them (RFC 3461 5.2, RFC 3464). */

#include "core/main_options.h"
#include "deliver/delivery.h"
#include "deliver/report.h"
#include "log/log.h"
#include "route/route.h"

/* Told once: what is told here is asked for no more. The message keeps that across attempts. */
static void forget(struct delivery *d, struct address *a) {
  struct message *m = d->m;
  a->dsn_flags = (a->dsn_flags & ~DSN_NOTIFY_SUCCESS) | DSN_NOTIFY_EMPTY;
  if (a->recipient < 0 || (size_t)a->recipient >= m->recipients.n)
    return;
  unsigned *flags = &m->recipients.v[a->recipient].dsn_flags;
  *flags = (*flags & ~DSN_NOTIFY_SUCCESS) | DSN_NOTIFY_EMPTY;
  d->rewrite_header = true;
}

void delivery_tell(struct delivery *d, struct address *a, const char *action) {
  /* What came of a redirection has been told as expanded already. */
  if (a->dsn_ended || !(a->dsn_flags & DSN_NOTIFY_SUCCESS) || !d->m->reverse_path.len)
    return;
  a->dsn_action = action;
  vec_push(d->c->arena, &d->told, a);
}

void delivery_redirected(struct delivery *d, struct address *a) {
  const struct router_def *def = a->router ? (const struct router_def *)a->router->driver : NULL;
  if (!def || !(def->flags & ROUTER_NO_TRANSPORT) || a->dsn_ended || !(a->dsn_flags & DSN_NOTIFY_SUCCESS))
    return;
  delivery_tell(d, a, a->child_pending > 1 ? "expanded" : "relayed");
  forget(d, a);
}

static const char *words(const struct address *a) {
  if (str_eq_c(str_c(a->dsn_action), "delivered"))
    return "delivered to the recipient's mailbox";
  return str_eq_c(str_c(a->dsn_action), "expanded") ? "expanded to several addresses" : "relayed to non DSN-aware mailer";
}

void delivery_notify_success(struct delivery *d) {
  struct report r;
  if (!d->told.n)
    return;
  report_init(&r, d->c, d->m, d->m->reverse_path);
  for (size_t i = 0; i < d->told.n; i++)
    vec_push(d->c->arena, &r.addresses, d->told.v[i]);
  report_header(&r);
  buf_add_c(&r.submit.header, "Subject: Delivery Status Notification\n");
  struct buf *b = &r.submit.body;
  report_text_part(&r);
  buf_add_c(b, "This message was created automatically by mail delivery software.\n"
               " ----- The following addresses had successful delivery notifications -----\n");
  for (size_t i = 0; i < r.addresses.n; i++)
    buf_printf(b, "<%.*s> (%s)\n\n", STRF(r.global ? log_printable_utf8(d->c->arena, address_top(r.addresses.v[i])->address)
                                                 : log_printable(d->c->arena, address_top(r.addresses.v[i])->address)), words(r.addresses.v[i]));
  report_status(&r, NULL, "2.0.0");
  report_original(&r, true);
  (void)report_submit(&r); /* the log says it; the deliveries stand */
}
