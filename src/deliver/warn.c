/* Warnings to the sender of a message that waits (Exim manual, the options
delay_warning and delay_warning_condition). */

#include <time.h>
#include "core/main_options.h"
#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "deliver/report.h"
#include "expand/expand.h"
#include "log/log.h"

/* How many warnings should have been sent by now, and after what time the last of them. */
static int due_count(const struct option_times *times, int64_t queued, int64_t *ret_delay) {
  int n = 0;
  *ret_delay = 0;
  for (size_t i = 0; i < times->n; i++)
    if (times->v[i] > 0 && queued >= times->v[i]) {
      *ret_delay = times->v[i];
      n++;
    }
  /* After the last time: again and again after its interval to the one before. */
  if (times->n && queued > times->v[times->n - 1]) {
    int64_t last = times->v[times->n - 1];
    int64_t step = times->n > 1 ? last - times->v[times->n - 2] : last;
    if (step > 0) {
      n += (int)((queued - last) / step);
      *ret_delay = last + (queued - last) / step * step;
    }
  }
  return n;
}

/* $domain for the condition: that of all the addresses that wait, if it is one. */
static struct str common_domain(const struct delivery *d) {
  for (const struct address *a = d->deferred; a; a = a->next)
    if (!str_eq(a->domain, d->deferred->domain))
      return STR_UNSET;
  return d->deferred->domain;
}

int64_t delivery_next_warning(const struct main_options *o, const struct message *m) {
  const struct option_times *times = &o->delay_warning;
  int64_t queued = time(NULL) - m->received_time.tv_sec, arrived = m->received_time.tv_sec;
  if (!times->n || !m->reverse_path.len)
    return 0;
  for (size_t i = 0; i < times->n; i++)
    if (times->v[i] > queued)
      return arrived + times->v[i];
  int64_t last = times->v[times->n - 1];
  int64_t step = times->n > 1 ? last - times->v[times->n - 2] : last;
  return step > 0 ? arrived + last + ((queued - last) / step + 1) * step : 0;
}

static bool wanted(struct delivery *d) {
  const struct main_options *o = main_options(d->c->config);
  struct str value;
  if (!str_is_set(o->delay_warning_condition.text))
    return true;
  d->c->vars.domain = common_domain(d);
  int rc = expand_option(d->c, &o->delay_warning_condition, &value);
  d->c->vars.domain = STR_UNSET;
  if (rc == OUTCOME_FORCED)
    return false;
  if (rc) {
    log_write(LOG_MAIN | LOG_PANIC, d->m, "failed to expand delay_warning_condition: %.*s", STRF(d->c->error));
    return true;
  }
  return value.len && !str_eq_c(value, "0") && !str_ieq_c(value, "no") && !str_ieq_c(value, "false");
}

static struct str delay_text(struct ctx *c, int64_t seconds) {
  if (seconds < 120 * 60)
    return str_printf(c->arena, "%lld minutes", (long long)(seconds / 60));
  return str_printf(c->arena, "%lld hours", (long long)(seconds / 3600));
}

static void default_introduction(struct report *r, struct str delay) {
  struct buf *b = &r->submit.body;
  const struct header *h;
  buf_add_c(b, "This message was created automatically by mail delivery software.\n");
  if (str_eq(r->recipient, r->m->reverse_path))
    buf_add_c(b, "A message that you sent has not yet been delivered to one or more of its\n");
  else
    buf_printf(b, "A message sent by\n\n  <%.*s>\n\nhas not yet been delivered to one or more of its\n", STRF(r->m->reverse_path));
  buf_printf(b, "recipients after more than %.*s on the queue on %.*s.\n\nThe message identifier is:     %s\n", STRF(delay),
      STRF(main_options(r->c->config)->primary_hostname), r->m->id);
  if ((h = message_find_header(r->m, STR("Subject"), NULL)))
    buf_printf(b, "The subject of the message is: %.*s\n", STRF(header_value(h)));
  if ((h = message_find_header(r->m, STR("Date"), NULL)))
    buf_printf(b, "The date of the message is:    %.*s\n", STRF(header_value(h)));
  buf_printf(b, "\nThe address%s to which the message has not yet been delivered %s:\n", r->addresses.n == 1 ? "" : "es",
      r->addresses.n == 1 ? "is" : "are");
}

static void add_line_end(struct buf *b) {
  if (b->len && b->p[b->len - 1] != '\n')
    buf_add_byte(b, '\n');
}

static void write_warning(struct report *r, int64_t after) {
  struct ctx *c = r->c;
  struct report_template t;
  struct buf *b = &r->submit.body;
  struct str delay = delay_text(c, after);
  c->vars.warn_message_delay = delay;
  c->vars.warn_message_recipients = r->recipient;
  report_template_read(c, &main_options(c->config)->warn_message_file, "warning", &t);
  report_header(r);
  if (str_is_set(t.items[0])) {
    buf_add(&r->submit.header, t.items[0]);
    add_line_end(&r->submit.header);
  } else {
    buf_printf(&r->submit.header, "Subject: Warning: message %s delayed %.*s\n", r->m->id, STRF(delay));
  }
  report_text_part(r);
  if (str_is_set(t.items[1])) {
    buf_add(b, t.items[1]);
    add_line_end(b);
  } else {
    default_introduction(r, delay);
  }
  buf_add_byte(b, '\n');
  for (size_t i = 0; i < r->addresses.n; i++) {
    if (report_address(r, b, r->addresses.v[i], "  ", "\n    "))
      report_reason(b, r->addresses.v[i], "Delay reason: ");
    buf_add_byte(b, '\n');
  }
  buf_add_byte(b, '\n');
  if (str_is_set(t.items[2])) {
    buf_add(b, t.items[2]);
    add_line_end(b);
  } else {
    buf_add_c(b, "No action is required on your part. Delivery attempts will continue for\n"
                 "some time, and this warning may be repeated at intervals if the message\n"
                 "remains undelivered. Eventually the mail delivery software will give up,\n"
                 "and when that happens, the message will be returned to you.\n");
  }
  buf_add_byte(b, '\n');
  report_status(r, "delayed", "4.0.0");
  report_original(r, true);
  c->vars.warn_message_delay = c->vars.warn_message_recipients = STR_UNSET;
}

void delivery_warn(struct delivery *d) {
  const struct main_options *o = main_options(d->c->config);
  struct message *m = d->m;
  int64_t queued = time(NULL) - m->received_time.tv_sec, after;
  if (!d->deferred || !m->reverse_path.len || m->frozen || !o->delay_warning.n)
    return;
  int count = due_count(&o->delay_warning, queued, &after);
  if (count <= m->warnings_sent || !wanted(d))
    return;
  struct report r;
  report_init(&r, d->c, m, m->reverse_path);
  for (struct address *a = d->deferred; a; a = a->next)
    if ((!a->dsn_flags || a->dsn_flags & DSN_NOTIFY_DELAY) && !a->prop.ignore_error && a->basic_errno != ERROR_LOCAL_ONLY)
      vec_push(d->c->arena, &r.addresses, a);
  if (!r.addresses.n)
    return;
  write_warning(&r, after);
  if (!report_submit(&r))
    return;
  m->warnings_sent = count;
  d->rewrite_header = true;
}
