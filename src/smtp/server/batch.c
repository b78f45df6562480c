/* Batched SMTP (-bS; Exim manual, section "Incoming batched SMTP"): SMTP
without replies. The first error ends it, told on stdout for programs and on
stderr for people. */
#include <stdio.h>

#include "expand/expand.h"
#include "message/address.h"
#include "smtp/server/internal.h"

/* Gives up. Exit status: 1 if messages were accepted before, else 2. */
static int give_up(struct smtp_session *s, bool with_command, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int give_up(struct smtp_session *s, bool with_command, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(s->c->arena, fmt, ap);
  va_end(ap);
  FILE *out = s->p->out ? s->p->out : stdout, *err = s->p->err ? s->p->err : stderr;
  fprintf(err, "An error was detected while processing a file of BSMTP input.\nThe error message was:\n\n  %.*s\n\n", STRF(text));
  fprintf(err, "The SMTP transaction started in line %ld.\nThe error was detected in line %ld.\n", s->batch.transaction_line,
      s->batch.line);
  fprintf(out, "%.*s\nTransaction started in line %ld\nError detected in line %ld\n", STRF(text), s->batch.transaction_line, s->batch.line);
  if (with_command) {
    fprintf(err, "The SMTP command at fault was:\n\n   %.*s\n\n", STRF(s->command));
    fprintf(out, "%.*s\n", STRF(s->command));
  }
  fprintf(err, "%d previous message%s successfully processed.\nThe rest of the batch was abandoned.\n", s->batch.accepted,
      s->batch.accepted == 1 ? " was" : "s were");
  fflush(out);
  fflush(err);
  s->batch.failed = true;
  return s->batch.accepted > 0 ? 1 : 2;
}

static void begin(struct smtp_session *s) {
  struct str command = s->command;
  char *text = str_dup_c(s->arena, command);
  smtp_reset(s);
  s->command = str_dup(s->c->arena, str_c(text));
  s->batch.transaction_line = s->batch.line;
}

static int batch_mail(struct smtp_session *s, struct str args) {
  struct mail_address address;
  struct str error;
  if (s->message)
    return give_up(s, true, "503 Sender already given");
  if (args.len == 0)
    return give_up(s, true, "501 MAIL FROM must have an address operand");
  if (address_parse(s->c->arena, args, address_flags(s->c, ADDRESS_ALLOW_EMPTY | ADDRESS_ALLOW_DOMAIN_LITERAL), &address, &error) < 0)
    return give_up(s, true, "501 %.*s", STRF(error));
  if (address.address.len > 0 && address.domain.len == 0) {
    if (s->p->no_qualify)
      return give_up(s, true, "501 sender address must contain a domain");
    address.address = receive_qualify(s->c, s->c->arena, address.address, true);
  }
  struct message *m = smtp_begin_message(s);
  m->reverse_path = str_dup(m->arena, address.address);
  m->reverse_path.taint = STR_TAINTED;
  s->mail_seen = true;
  if (str_is_set(s->p->sender) && s->p->submitter && s->p->submitter->trusted)
    m->reverse_path = s->p->sender;
  return 0;
}

static int batch_rcpt(struct smtp_session *s, struct str args) {
  struct mail_address address;
  struct str error;
  if (!s->message)
    return give_up(s, true, "503 No sender yet given");
  if (args.len == 0)
    return give_up(s, true, "501 RCPT TO must have an address operand");
  if (s->recipients_max > 0 && (int64_t)s->message->recipients.n >= s->recipients_max)
    return give_up(s, true, "452 too many recipients");
  if (address_parse(s->c->arena, args, address_flags(s->c, ADDRESS_ALLOW_DOMAIN_LITERAL), &address, &error) < 0)
    return give_up(s, true, "501 %.*s", STRF(error));
  if (address.domain.len == 0) {
    if (s->p->no_qualify)
      return give_up(s, true, "501 recipient address must contain a domain");
    address.address = receive_qualify(s->c, s->c->arena, address.address, false);
  }
  message_add_recipient(s->message, str_dup(s->message->arena, address.address))->address.taint = STR_TAINTED;
  return 0;
}

/* Reads up to the dot; counts lines for the error report. */
static int read_body(struct smtp_session *s, struct reception *r) {
  while (!r->dot.ended) {
    struct str in = stream_peek(s->stream);
    if (in.len == 0) {
      int rc = stream_fill(s->stream, DEADLINE_NEVER);
      if (rc <= 0) {
        s->batch.line++;
        return -1;
      }
      in = stream_peek(s->stream);
    }
    size_t used = receive_push(r, in);
    for (size_t i = 0; i < used; i++)
      s->batch.line += in.p[i] == '\n';
    stream_consume(s->stream, used);
  }
  return 0;
}

static int batch_data(struct smtp_session *s) {
  struct ctx *c = s->c;
  struct receive_params p;
  if (!s->message)
    return give_up(s, true, "503 MAIL FROM:<sender> command must precede DATA");
  if (s->message->recipients.n == 0)
    return give_up(s, true, "503 RCPT TO:<recipient> must precede DATA");
  struct reception *r = s->reception = arena_new_of(c->arena, struct reception);
  receive_not_smtp_start(c);
  smtp_check_local_sender(s);
  smtp_data_params(s, &p, false);
  receive_begin(r, c, s->message, &p);
  if (read_body(s, r) < 0) {
    acl_log(c, LOG_MAIN, "SMTP connection from %.*s lost while reading message data%s", STRF(c->client->ident),
        r->header_done ? "" : " (header)");
    return give_up(s, false, "421 Lost incoming connection");
  }
  s->reception = NULL;
  if (receive_end(r) < 0) {
    receive_abandon(r);
    return give_up(s, false, "%.*s", STRF(r->reply));
  }
  struct str why;
  bool discarded;
  if (!receive_not_smtp_acl(r, &why, &discarded)) {
    receive_abandon(r);
    return give_up(s, false, "550 %.*s", STRF(why));
  }
  if (!discarded) {
    receive_apply_controls(c, s->message);
    smtp_copy_client(s);
    if (receive_commit(r) < 0)
      return give_up(s, false, "%.*s", STRF(r->reply));
    smtp_hand_over(s);
  } else {
    receive_abandon(r);
  }
  s->batch.accepted++;
  smtp_reset(s);
  s->batch.transaction_line = s->batch.line;
  return 0;
}

static bool verb_is(struct str line, const char *verb, struct str *args) {
  struct str v = str_c(verb);
  if (!str_istarts(line, v))
    return false;
  if (v.p[v.len - 1] != ':' && line.len > v.len && line.p[v.len] != ' ' && line.p[v.len] != '\t')
    return false;
  *args = str_trim(str_from(line, v.len));
  return true;
}

/* 0 goes on, -1 QUIT, else the exit status. */
static int batch_command(struct smtp_session *s) {
  struct str args, line = s->command;
  static const char *const ignored[] = {"VRFY", "EXPN", "ETRN", "ATRN", "HELP", "NOOP"};
  if (verb_is(line, "MAIL FROM:", &args))
    return batch_mail(s, args);
  if (verb_is(line, "RCPT TO:", &args))
    return batch_rcpt(s, args);
  if (verb_is(line, "DATA", &args))
    return batch_data(s);
  if (verb_is(line, "HELO", &args) || verb_is(line, "EHLO", &args)) {
    s->c->client->helo_name = str_dup(s->arena, args);
    s->c->client->helo_name.taint = STR_TAINTED;
    client_set_fullhost(s->arena, s->c->client);
    begin(s);
    return 0;
  }
  if (verb_is(line, "RSET", &args)) {
    begin(s);
    return 0;
  }
  if (verb_is(line, "QUIT", &args))
    return -1;
  for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
    if (verb_is(line, ignored[i], &args))
      return 0;
  if (memchr(line.p, 0, line.len))
    return give_up(s, true, "501 Unexpected NULL in SMTP command");
  return give_up(s, true, "500 Command unrecognized");
}

int smtp_batch_run(struct smtp_session *s) {
  if (expand_option_int(s->c, &s->o->recipients_max, "recipients_max", &s->recipients_max) != 0)
    s->recipients_max = 0;
  s->allow_unqualified_sender = s->allow_unqualified_recipient = !s->p->no_qualify;
  for (;;) {
    struct str line;
    int eol, rc = stream_read_line(s->stream, SMTP_LINE_MAX, DEADLINE_NEVER, &line, &eol);
    if (rc == 0)
      return 0;
    s->batch.line++;
    if (rc < 0)
      return give_up(s, false, "500 line too long");
    s->command = str_dup(s->c->arena, str_rtrim(line));
    s->command.taint = STR_TAINTED;
    rc = batch_command(s);
    if (rc)
      return rc < 0 ? 0 : rc;
  }
}
