/* Errors of local submission, told by mail or on stderr. */
#include <stdio.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "queue/spool.h"
#include "smtp/local.h"

static const char *subject(enum local_error e) {
  switch (e) {
    case LOCAL_BAD_ADDRESS:
    case LOCAL_BAD_IN_HEADER: return "malformed recipient address";
    case LOCAL_NO_RECIPIENTS:
    case LOCAL_ARGS_SUPPRESSED: return "no recipient addresses";
    case LOCAL_TOO_BIG: return "message too big";
    case LOCAL_HEADER_TOO_BIG: return "overlong header section";
    case LOCAL_HEADER_LINE_TOO_BIG: return "overlong header line";
    case LOCAL_TOO_MANY: return "too many recipients";
    case LOCAL_REJECTED: return "rejected by local scanning code";
    default: return "system failure";
  }
}

/* Those of the header that are no addresses; others: there are good ones beside them. */
static void add_bad_list(struct buf *b, struct str list, bool others) {
  bool one = str_find_byte(list, '\n') < 0;
  struct str line;
  buf_add_c(b, "A message that you sent contained one or more recipient addresses that were\nincorrectly constructed:\n\n");
  while (list.len > 0) {
    line = str_cut(&list, '\n');
    buf_printf(b, "  %.*s\n", STRF(line));
  }
  buf_printf(b, "\n%s been ignored. %s\n", one ? "This address has" : "These addresses have",
      others ? "The other addresses in the message were\nsyntactically valid and have been passed on for an attempt at delivery."
             : "There were no other addresses in your\nmessage, and so no attempt at delivery was possible.");
}

static void add_explanation(struct buf *b, enum local_error e, struct str detail, struct str extra) {
  switch (e) {
    case LOCAL_BAD_ADDRESS:
      buf_add_c(b, "A message that you sent contained a recipient address that was incorrectly\nconstructed:\n\n");
      buf_printf(b, "  %.*s  %.*s\n\nThe message has not been delivered to any recipients.\n", STRF(detail), STRF(extra));
      break;
    case LOCAL_BAD_IN_HEADER: add_bad_list(b, detail, extra.len > 0); break;
    case LOCAL_ARGS_SUPPRESSED:
      buf_add_c(b, "A message that you sent using the -t command line option contained no\naddresses that were not also on the command line,"
                   " and were therefore\nsuppressed. This left no recipient addresses, and so no delivery could\nbe attempted.\n");
      break;
    case LOCAL_NO_RECIPIENTS:
      buf_add_c(b, "A message that you sent contained no recipient addresses, and therefore no\ndelivery could be attempted.\n");
      break;
    case LOCAL_TOO_BIG:
      buf_add_c(b, "A message that you sent was longer than the maximum size allowed on this\nsystem. It was not delivered to any"
                   " recipients.\n");
      break;
    case LOCAL_HEADER_TOO_BIG:
    case LOCAL_HEADER_LINE_TOO_BIG:
      buf_printf(b, "A message that you sent contained a header %s that was excessively\nlong and could not be handled by the mail"
                    " transmission software. The\nmessage has not been delivered to any recipients.\n",
          e == LOCAL_HEADER_TOO_BIG ? "section" : "line");
      break;
    case LOCAL_TOO_MANY:
      buf_add_c(b, "A message that you sent contained more recipients than allowed on this\nsystem. It was not delivered to any"
                   " recipients.\n");
      break;
    case LOCAL_REJECTED:
      buf_add_c(b, "A message that you sent was rejected by the local scanning code that\nchecks incoming messages on this system.");
      if (detail.len)
        buf_printf(b, " The following error was given:\n\n  %.*s", STRF(detail));
      buf_add_byte(b, '\n');
      break;
    default:
      buf_printf(b, "A system failure was encountered while processing a message that you sent,\nso it has not been possible to deliver"
                    " it. The error was:\n\n%.*s\n", STRF(detail));
  }
}

/* Nobody to write to; writing to ourselves would loop. */
static void no_usable_sender(struct ctx *c, struct str bounced_id, enum local_error e, struct str detail) {
  bool about = str_is_set(bounced_id);
  struct str what = e == LOCAL_REJECTED ? detail : str_c(subject(e));
  if (e == LOCAL_BAD_IN_HEADER) { /* the first one */
    struct str rest = detail, first = str_cut(&rest, '\n');
    ptrdiff_t colon = str_find(first, STR(": "));
    what = colon < 0 ? first : str_printf(c->arena, "at least one malformed recipient address: %.*s - %.*s",
                                   STRF(str_slice(first, 0, (size_t)colon)), STRF(str_from(first, (size_t)colon + 2)));
  }
  acl_log(c, LOG_MAIN, "Error while reading message with no usable sender address%s%.*s%s: %s%.*s", about ? " (R=" : "",
      STRF(about ? bounced_id : STR_EMPTY), about ? ")" : "", e == LOCAL_REJECTED ? "rejected by non-SMTP ACL: " : "", STRF(what));
}

static int to_stderr(const struct local_params *p, enum local_error e, struct str detail, struct str extra) {
  FILE *err = p->err ? p->err : stderr;
  bool several = false;
  switch (e) {
    case LOCAL_BAD_ADDRESS:
      fprintf(err, "%s: bad recipient address \"%.*s\": %.*s\n", p->program, STRF(detail), STRF(extra));
      break;
    case LOCAL_BAD_IN_HEADER:
      if (str_find_byte(detail, '\n') < 0)
        fprintf(err, "%s: invalid address:  %.*s\n", p->program, STRF(detail));
      else
        fprintf(err, "%s: invalid addresses:\n", p->program);
      while (str_find_byte(detail, '\n') >= 0 || (several && detail.len)) {
        struct str line = str_cut(&detail, '\n');
        several = true;
        fprintf(err, "  %.*s\n", STRF(line));
      }
      break;
    case LOCAL_NO_RECIPIENTS: fprintf(err, "%s: no recipients in message\n", p->program); break;
    case LOCAL_ARGS_SUPPRESSED: fprintf(err, "%s: all -t recipients overridden by command line\n", p->program); break;
    case LOCAL_TOO_BIG: fprintf(err, "%s: message too big (limit set to %.*s)\n", p->program, STRF(detail)); break;
    case LOCAL_HEADER_TOO_BIG:
      fprintf(err, "%s: excessively long message header section read\n", p->program);
      break;
    case LOCAL_HEADER_LINE_TOO_BIG: fprintf(err, "%s: excessively long message header line read\n", p->program); break;
    case LOCAL_TOO_MANY: fprintf(err, "%s: too many recipients (max set to %.*s)\n", p->program, STRF(detail)); break;
    case LOCAL_REJECTED: fprintf(err, "%s: message rejected by non-SMTP ACL: %.*s\n", p->program, STRF(detail)); break;
    default: fprintf(err, "%s: %.*s\n", p->program, STRF(detail));
  }
  fflush(err);
  return 1;
}

/* What was written of the message's body, up to what may be returned. [suspends] */
static void add_body(struct reception *r, struct buf *b) {
  size_t limit = (size_t)main_options(r->c->config)->bounce_return_size_limit, had = 0;
  char piece[8192];
  ssize_t n = 0;
  if (r->error || !r->spool_open || r->p.unspooled)
    return;
  int fd = spool_open_body(r->c, r->m);
  if (fd < 0)
    return;
  while (had < limit && (n = read(fd, piece, limit - had < sizeof piece ? limit - had : sizeof piece)) > 0) {
    buf_add(b, str_n(piece, (size_t)n));
    had += (size_t)n;
  }
  if (n > 0 && read(fd, piece, 1) == 1)
    buf_printf(b, "\n------ No more than %zu characters of the body are included. ------\n", limit);
  close(fd);
}

/* The text of the message to the submitter. */
static struct str compose(struct reception *r, enum local_error e, struct str detail, struct str extra) {
  const struct main_options *o = main_options(r->c->config);
  struct buf b;
  struct str from;
  buf_init(&b, r->c->arena, BUF_MAX_EXPANSION);
  if (expand_option(r->c, &o->dsn_from, &from) != 0 || !str_is_set(from))
    from = str_printf(r->c->arena, "Mail Delivery System <Mailer-Daemon@%.*s>", STRF(o->qualify_domain));
  buf_printf(&b, "Auto-Submitted: auto-replied\nFrom: %.*s\nTo: %.*s\n", STRF(from), STRF(r->m->reverse_path));
  /* These were seen before anything was added to the header; an empty line stands for Received:, as Exim has it. */
  bool fixed = e != LOCAL_BAD_ADDRESS && e != LOCAL_TOO_MANY;
  /* Nor has Received: its text when recipients are looked at; header lines that were rewritten are there twice. */
  bool early = e == LOCAL_BAD_IN_HEADER || e == LOCAL_NO_RECIPIENTS || e == LOCAL_ARGS_SUPPRESSED;
  const struct header *id = message_find_header(r->m, STR("Message-Id"), NULL);
  if (fixed && id)
    buf_printf(&b, "References: %.*s\n", STRF(header_value(id)));
  buf_printf(&b, "Subject: Mail failure - %s\n\n", subject(e));
  add_explanation(&b, e, detail, extra);
  buf_add_c(&b, "\n------ This is a copy of your message, including all the headers. ------\n\n");
  struct buf body;
  buf_init(&body, r->c->arena, BUF_MAX_EXPANSION);
  add_body(r, &body);
  if (!fixed)
    buf_add_byte(&b, '\n');
  for (const struct header *h = fixed || r->last_given ? r->m->headers : NULL; h; h = h->next) {
    if (fixed && !early ? h->type != '*' : h != r->received)
      buf_add(&b, h->text);
    if (!fixed && h == r->last_given)
      break;
  }
  if (e == LOCAL_HEADER_LINE_TOO_BIG)
    buf_add(&b, buf_str(&r->current));
  if (e == LOCAL_HEADER_LINE_TOO_BIG ? !str_ends(buf_str(&b), STR("\n")) : fixed || body.len)
    buf_add_byte(&b, '\n');
  buf_add(&b, buf_str(&body));
  return buf_str(&b);
}

/* Reports are messages that came in without SMTP, too. */
static bool commit_report(struct reception *report, const struct submitter *us) {
  struct ctx *c = report->c;
  struct message *m = report->m;
  struct str why;
  bool discarded = false;
  if (receive_end(report) < 0)
    return false;
  if (!receive_not_smtp_acl(report, &why, &discarded)) {
    no_usable_sender(c, report->p.bounced_id, LOCAL_REJECTED, why);
    return false;
  }
  if (discarded)
    return false;
  receive_apply_controls(c, m);
  receive_keep_client(c, m, us);
  return receive_commit(report) == 0;
}

/* The exit status when nobody could be told. */
static int not_sent(enum local_error e) { return e == LOCAL_NO_RECIPIENTS || e == LOCAL_ARGS_SUPPRESSED ? 2 : 1; }

static int by_mail(const struct local_params *p, struct reception *r, enum local_error e, struct str detail, struct str extra) {
  struct ctx *c = r->c;
  struct message *failed = r->m, *m = message_new("error report");
  struct reception report;
  struct str text = compose(r, e, detail, extra);
  /* The mail system itself writes it. */
  struct submitter us = {.login = main_options(c->config)->exim_user.text, .uid = (uint32_t)geteuid(), .gid = (uint32_t)getegid(),
      .trusted = true};
  struct client saved = *c->client;
  struct receive_params rp = {.dot = DOT_PLAIN, .local = true, .qualify_headers = true, .submitter = &us,
      .bounced_id = e == LOCAL_BAD_ADDRESS || e == LOCAL_TOO_MANY ? STR_UNSET : str_c(failed->id)};
  int status = p->error_status;
  bool refused = false;
  *c->client = (struct client){.local = true, .ident = us.login, .protocol = STR("local")};
  c->message = m;
  m->reverse_path = STR_EMPTY;
  m->local_error_message = true;
  message_add_recipient(m, str_tainted(str_dup(m->arena, failed->reverse_path)));
  struct map *variables = c->acl_m;
  c->acl_m = NULL;
  receive_not_smtp_start(c);
  receive_begin(&report, c, m, &rp);
  receive_push(&report, text);
  if (!commit_report(&report, &us)) {
    receive_abandon(&report);
    message_free(m);
    refused = true;
  } else if (p->hooks && p->hooks->accepted) {
    c->message = NULL;
    p->hooks->accepted(p->hooks->arg, c, m, main_options(c->config)->queue_only); /* -odq was about the message */
  } else {
    message_free(m);
  }
  c->message = failed;
  c->acl_m = variables;
  *c->client = saved;
  if (refused) {
    acl_log(c, LOG_MAIN, "Child mail process returned status 1");
    return not_sent(e);
  }
  return status;
}

int local_report(const struct local_params *p, struct reception *r, enum local_error e, struct str detail, struct str extra) {
  if (p->errors_to_stderr)
    return to_stderr(p, e, detail, extra);
  if (r->m->reverse_path.len == 0) {
    no_usable_sender(r->c, p->bounced_id, e, detail);
    return not_sent(e);
  }
  return by_mail(p, r, e, detail, extra);
}
