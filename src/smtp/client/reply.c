/* Commands and replies of the client. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/buf.h"
#include "deliver/errors.h"
#include "log/log.h"
#include "smtp/client/client.h"
#include "smtp/client/patience.h"

enum smtp_stage_result smtp_command(struct ctx *c, struct smtp_connection *n, bool flush, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  n->command = str_vprintf(c->arena, fmt, ap);
  va_end(ap);
  n->command_pipelined = !flush;
  DEBUG(transport, "  SMTP>> %.*s\n", STRF(n->command));
  int e = stream_write(n->stream, n->command);
  if (!e)
    e = stream_write(n->stream, STR("\r\n"));
  if (!e && flush)
    e = stream_flush(n->stream);
  if (e) {
    smtp_note_broken(c, n, e);
    return SMTP_BROKEN;
  }
  return SMTP_OK;
}

static struct str after_command(struct ctx *c, const struct smtp_connection *n) {
  return str_printf(c->arena, "%s%.*s", n->command_pipelined ? "pipelined " : "", STRF(n->command));
}

void smtp_note_refusal(struct ctx *c, struct smtp_connection *n, int error) {
  struct str text = n->reply.text;
  struct str what = after_command(c, n);
  n->error = error;
  n->error_text = str_tainted(str_printf(c->arena, "SMTP error from remote mail server after %.*s: %.*s", STRF(what), STRF(text)));
}

void smtp_note_broken(struct ctx *c, struct smtp_connection *n, int error) {
  struct str what = after_command(c, n);
  switch (error) {
  case -ETIMEDOUT:
    n->error = ETIMEDOUT;
    n->error_text = str_printf(c->arena, "SMTP timeout after %.*s", STRF(what));
    return;
  case 0:
  case -EPIPE:
  case -ECONNRESET:
    n->error = ERROR_SMTP_CLOSED;
    n->error_text = str_printf(c->arena, "Remote host closed connection in response to %.*s", STRF(what));
    return;
  case ERROR_SMTP_FORMAT:
    n->error = ERROR_SMTP_FORMAT;
    n->error_text = str_tainted(str_printf(c->arena, "Malformed SMTP reply (%s) in response to %.*s%s%.*s",
        n->reply.text.len ? "" : "an empty line", STRF(what), n->reply.text.len ? ": " : "", STRF(n->reply.text)));
    return;
  default:
    n->error = error < 0 ? -error : error;
    n->error_text = str_printf(c->arena, "SMTP error after %.*s: %s", STRF(what), strerror(n->error));
  }
}

static bool well_formed(struct str line, int *ret_code) {
  int code = 0;
  if (line.len < 3)
    return false;
  for (int i = 0; i < 3; i++) {
    if (line.p[i] < '0' || line.p[i] > '9')
      return false;
    code = code * 10 + (line.p[i] - '0');
  }
  *ret_code = code;
  return line.len == 3 || line.p[3] == ' ' || line.p[3] == '-';
}

enum smtp_stage_result smtp_read_reply(struct ctx *c, struct smtp_connection *n, int64_t timeout) {
  struct buf text;
  usec_t deadline = deadline_in(timeout);
  buf_init(&text, c->arena, SMTP_REPLY_MAX);
  n->reply = (struct smtp_reply){.text = STR_EMPTY};
  for (int i = 0; i < SMTP_REPLY_LINES_MAX; i++) {
    struct str line;
    int eol, code, e = stream_read_line(n->stream, SMTP_REPLY_MAX, deadline, &line, &eol);
    if (e <= 0 || eol == 0) {
      n->reply.text = STR_EMPTY;
      if (e == -EMSGSIZE)
        n->reply.text = STR("line too long");
      smtp_note_broken(c, n, e == -EMSGSIZE ? ERROR_SMTP_FORMAT : e > 0 ? 0 : e);
      return SMTP_BROKEN;
    }
    DEBUG(transport, "  SMTP<< %.*s\n", STRF(line));
    bool fits = well_formed(line, &code);
    if (text.len)
      buf_add_byte(&text, '\n');
    buf_add(&text, line); /* beyond the maximum it is dropped: the code counts */
    n->reply.text = str_tainted(buf_str(&text));
    if (!fits) {
      smtp_note_broken(c, n, ERROR_SMTP_FORMAT);
      return SMTP_BROKEN;
    }
    if (i == 0) /* whatever the others say */
      n->reply.code = code;
    patience_progress();
    if (line.len == 3 || line.p[3] == ' ')
      return SMTP_OK;
  }
  n->reply.text = STR("too many lines");
  smtp_note_broken(c, n, ERROR_SMTP_FORMAT);
  return SMTP_BROKEN;
}

enum smtp_stage_result smtp_expect(struct ctx *c, struct smtp_connection *n, int64_t timeout, char digit) {
  enum smtp_stage_result r = smtp_read_reply(c, n, timeout);
  return r ? r : smtp_judge_reply(c, n, digit);
}

enum smtp_stage_result smtp_judge_reply(struct ctx *c, struct smtp_connection *n, char digit) {
  char got = (char)('0' + n->reply.code / 100);
  if (got == digit)
    return SMTP_OK;
  smtp_note_refusal(c, n, 0); /* a class that means nothing here is no consent */
  return got == '5' ? SMTP_REFUSED : SMTP_TEMPORARY;
}
