/* Bounces: failed addresses are reported to whoever wants to know (Exim
manual, section "Delivery in detail" and chapter "Customizing bounce and warning
messages"; RFC 3464). */

#include <time.h>
#include "config/value.h"
#include "core/main_options.h"
#include "deliver/delivery.h"
#include "deliver/errors.h"
#include "deliver/logline.h"
#include "deliver/report.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/address.h"
#include "smtp/client/requiretls.h"

#define FAILED_IN_LINE 50 /* addresses in one X-Failed-Recipients: line */

static struct str errors_address(struct delivery *d, const struct address *a) {
  return str_is_set(a->prop.errors_address) ? a->prop.errors_address : d->m->reverse_path;
}

static void ignore(struct delivery *d, struct address *a, const char *why) {
  struct str who = logline_address(d->c, a, false);
  log_write(LOG_MAIN, d->m, "%.*s: error ignored%s", STRF(who), why);
  msglog_add(&d->log, "%.*s: error ignored%s", STRF(who), why);
  delivery_done(d, a);
}

/* Nobody to send a bounce to. A message without a sender is frozen, so that somebody looks at it, unless it is old. */
static void no_sender(struct delivery *d, struct address *a) {
  int64_t age = time(NULL) - d->m->received_time.tv_sec;
  /* The administrator's filter, or who gave the message up, knew that there is no sender. */
  if (a->basic_errno == ERROR_FILTER_FAIL || d->how->give_up) {
    delivery_done(d, a);
    return;
  }
  bool asked_for = str_is_set(a->prop.errors_address) || a->prop.ignore_error || a->retry_timed_out;
  if (asked_for || age >= main_options(d->c->config)->ignore_bounce_errors_after) {
    ignore(d, a, "");
    return;
  }
  d->freeze = true;
  bool by_user = d->m->local_submission && d->m->reverse_path_set_untrusted;
  d->freeze_reason = by_user ? STR(" (message created with -f <>)") : STR(" (delivery error message)");
  a->result = OUTCOME_DEFER;
  a->next = d->deferred;
  d->deferred = a;
}

/* --- the text --- */

static void failed_header(struct report *r) {
  struct buf *h = &r->submit.header;
  size_t n = 0;
  for (size_t i = 0; i < r->addresses.n; i++) {
    const struct address *a = r->addresses.v[i];
    if (a->hide_in_errors)
      continue;
    buf_add_c(h, n % FAILED_IN_LINE == 0 ? (n ? "\nX-Failed-Recipients: " : "X-Failed-Recipients: ") : ",\n  ");
    buf_add(h, a->kind != ADDRESS_MAIL && a->parent ? a->parent->address : a->address);
    n++;
  }
  if (n)
    buf_add_byte(h, '\n');
}

static void introduction(struct report *r, const struct report_template *t) {
  const struct main_options *o = main_options(r->c->config);
  struct buf *b = &r->submit.body;
  if (str_is_set(t->items[1])) {
    buf_add(b, t->items[1]);
    if (b->len && b->p[b->len - 1] != '\n')
      buf_add_byte(b, '\n');
    buf_add_byte(b, '\n');
    return;
  }
  buf_add_c(b, "This message was created automatically by mail delivery software.\n");
  if (str_is_set(o->bounce_message_text) && o->bounce_message_text.len)
    buf_add(b, o->bounce_message_text); /* a blank line behind it is its own affair */
  if (str_eq(r->recipient, r->m->reverse_path))
    buf_add_c(b, "\nA message that you sent could not be delivered to one or more of its\n"
                 "recipients. This is a permanent error. The following address(es) failed:\n\n");
  else
    buf_printf(b, "\nA message sent by\n\n  <%.*s>\n\ncould not be delivered to one or more of its recipients. The following\n"
                  "address(es) failed:\n\n", STRF(r->m->reverse_path));
}

/* What pipes wrote, for addresses whose transport returns it. */
static void returned_output(struct report *r, const struct report_template *t) {
  struct buf *b = &r->submit.body;
  size_t n = 0;
  for (size_t i = 0; i < r->addresses.n; i++)
    n += str_is_set(r->addresses.v[i]->return_file) && r->addresses.v[i]->return_file.len;
  if (!n)
    return;
  if (str_is_set(t->items[2]))
    buf_add(b, t->items[2]);
  else
    buf_printf(b, "The following text was generated during the delivery attempt%s:\n", n > 1 ? "s" : "");
  for (size_t i = 0; i < r->addresses.n; i++) {
    struct address *a = r->addresses.v[i];
    if (!str_is_set(a->return_file) || !a->return_file.len)
      continue;
    buf_add_c(b, "\n------ ");
    report_address(r, b, a, "", "\n       ");
    buf_add_c(b, " ------\n\n");
    buf_add(b, a->return_file);
    if (b->len && b->p[b->len - 1] != '\n')
      buf_add_byte(b, '\n');
  }
  buf_add_byte(b, '\n');
}

static void write_bounce(struct report *r) {
  const struct main_options *o = main_options(r->c->config);
  struct buf *b = &r->submit.body;
  struct report_template t;
  r->c->vars.bounce_recipient = r->recipient;
  report_template_read(r->c, &o->bounce_message_file, "error", &t);
  failed_header(r);
  report_header(r);
  if (str_is_set(t.items[0])) {
    buf_add(&r->submit.header, t.items[0]);
    if (t.items[0].p[t.items[0].len - 1] != '\n')
      buf_add_byte(&r->submit.header, '\n');
  } else {
    buf_printf(&r->submit.header, "Subject: Mail delivery failed%s\n",
        str_eq(r->recipient, r->m->reverse_path) ? ": returning message to sender" : "");
  }
  report_text_part(r);
  introduction(r, &t);
  for (size_t i = 0; i < r->addresses.n; i++) {
    const struct address *a = r->addresses.v[i];
    if (report_address(r, b, a, "  ", "\n    "))
      report_reason(b, a, "");
    buf_add_byte(b, '\n');
  }
  buf_add_byte(b, '\n');
  returned_output(r, &t);
  report_status(r, "failed", "5.0.0");
  if (o->bounce_return_message)
    report_original(r, !o->bounce_return_body || r->m->dsn_ret == DSN_RET_HDRS || message_requires_tls(r->m));
  else
    buf_printf(b, "--%.*s--\n", STRF(r->boundary));
  r->c->vars.bounce_recipient = STR_UNSET;
}

/* errors_copy: "pattern  addresses" items; the copies go out as Bcc. */
static void add_copies(struct report *r) {
  const struct main_options *o = main_options(r->c->config);
  struct list_iter it;
  struct str item, list;
  if (!str_is_set(o->errors_copy.text))
    return;
  list_iter_init(&it, r->c->arena, str_untainted(o->errors_copy.text));
  while (list_next(&it, &item)) {
    struct str s = str_trim(item), pattern, to, data = STR_UNSET;
    if (s.len && s.p[0] == '"') {
      if (value_unquote(r->c->arena, s, &pattern, &to) == VALUE_BAD)
        continue;
    } else {
      size_t n = 0;
      while (n < s.len && s.p[n] != ' ' && s.p[n] != '\t')
        n++;
      pattern = str_slice(s, 0, n);
      to = str_from(s, n);
    }
    to = str_trim(to);
    if (!to.len)
      continue;
    struct expand_vars saved = ctx_save(r->c);
    struct policy_vars vars = r->c->vars;
    address_split(r->recipient, &r->c->vars.local_part, &r->c->vars.domain);
    struct str one = str_cat(r->c->arena, STR("<\x01 "), pattern);
    int rc = match_text(r->c, LIST_ADDRESS, one, r->recipient, false, &data);
    if (rc == OUTCOME_OK && !expand_text(r->c, to, &list))
      for (struct str rest = list; str_is_set(rest) && rest.len;) {
        struct str address = str_trim(str_cut(&rest, ','));
        if (address.len)
          vec_push(r->c->arena, &r->submit.recipients, address);
      }
    ctx_restore(r->c, &saved);
    r->c->vars = vars;
    if (rc == OUTCOME_OK)
      return;
  }
}

/* --- all of them --- */

/* Takes from the failed ones those that go to the same place as the first. */
static void take_group(struct delivery *d, struct report *r, struct str to) {
  for (struct address **link = &d->failed, *a; (a = *link);) {
    if (!str_eq(errors_address(d, a), to) || a->prop.ignore_error || (a->dsn_flags && !(a->dsn_flags & DSN_NOTIFY_FAILURE))) {
      link = &a->next;
      continue;
    }
    *link = a->next;
    a->next = NULL;
    vec_push(d->c->arena, &r->addresses, a);
  }
}

void delivery_bounce(struct delivery *d) {
  while (d->failed) {
    struct address *a = d->failed;
    struct str to = errors_address(d, a);
    bool unwanted = a->dsn_flags && !(a->dsn_flags & DSN_NOTIFY_FAILURE);
    if (!to.len || a->prop.ignore_error || unwanted) {
      d->failed = a->next;
      a->next = NULL;
      if (unwanted)
        ignore(d, a, ": RFC 3461 DSN, failure notify not requested");
      else
        no_sender(d, a);
      continue;
    }
    struct report r;
    report_init(&r, d->c, d->m, to);
    take_group(d, &r, to);
    write_bounce(&r);
    add_copies(&r);
    bool sent = report_submit(&r);
    for (size_t i = r.addresses.n; i-- > 0;) {
      struct address *x = r.addresses.v[i];
      if (sent) {
        delivery_done(d, x);
        continue;
      }
      /* The failure will be found, and reported, again. */
      x->result = OUTCOME_DEFER;
      x->next = d->deferred;
      d->deferred = x;
    }
  }
}
