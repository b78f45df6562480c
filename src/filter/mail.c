/* mail and vacation: answers that the filter wants sent. */

#include "base/buf.h"
#include "base/time.h"
#include "filter/internal.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"

#define SHOWN_MAX 1024 /* of a text in an error */

/* Newlines in what becomes a header line only fold it. */
static int check_folding(struct filter_runner *r, struct str s, const char *where) {
  for (uint32_t i = 0; i < s.len; i++)
    if (s.p[i] == '\n' && (i + 1 >= s.len || (s.p[i + 1] != ' ' && s.p[i + 1] != '\t'))) {
      struct str shown = log_printable(r->c->arena, s);
      shown = str_slice(shown, 0, shown.len < SHOWN_MAX ? shown.len : SHOWN_MAX);
      return filter_fail(r, "\\n not followed by space in \"%.*s\" in %s", STRF(shown), where);
    }
  return 0;
}

static void show(struct filter_runner *r, const struct filter_command *cmd, const struct str *value) {
  FILE *out = r->rules->out;
  struct str to = str_is_set(value[MAIL_TO]) ? log_printable(r->c->arena, value[MAIL_TO]) : STR("<default>");
  fprintf(out, "%sail to: %.*s%s%s\n", cmd->seen ? "Seen m" : "M", STRF(to), cmd->kind == COMMAND_VACATION ? " (vacation)" : "",
      cmd->noerror ? " (noerror)" : "");
  for (int i = MAIL_CC; i < MAIL_ARGS; i++)
    if (str_is_set(value[i]))
      fprintf(out, "%7s: %.*s%s\n", filter_mail_words[i], STRF(log_printable(r->c->arena, value[i])),
          i == MAIL_FILE && cmd->expand_file ? " (expanded)" : "");
  if (cmd->return_message)
    fputs("Return original message\n", out);
}

/* What stands for the reply in logs: `>` and whom it is to, at most a line of them. */
static struct str log_text(struct filter_runner *r, const struct filter_reply *reply) {
  struct address_walk w = {.text = reply->to};
  struct mail_address m;
  struct str error;
  struct buf b;
  buf_init(&b, r->c->arena, 256);
  while (!b.overflow && address_walk_next(&w))
    if (!address_parse(r->c->arena, str_slice(w.text, w.from, w.to), 0, &m, &error))
      buf_add(&b, str_cat(r->c->arena, b.len ? STR(",") : STR(">"), m.address));
  return b.len ? buf_str(&b) : STR(FILTER_BAD_REPLY);
}

static int add_reply(struct filter_runner *r, const struct filter_command *cmd, const struct str *value) {
  struct filter_reply *reply = arena_new_of(r->c->arena, struct filter_reply);
  int64_t repeat = str_is_set(value[MAIL_ONCE_REPEAT]) ? time_parse_interval(value[MAIL_ONCE_REPEAT]) : 0;
  if (repeat < 0)
    return filter_fail(r, "Bad time value for \"once_repeat\" in mail or vacation command: %.*s", STRF(value[MAIL_ONCE_REPEAT]));
  *reply = (struct filter_reply){.to = value[MAIL_TO], .cc = value[MAIL_CC], .bcc = value[MAIL_BCC], .from = value[MAIL_FROM],
      .reply_to = value[MAIL_REPLY_TO], .subject = value[MAIL_SUBJECT], .headers = value[MAIL_HEADERS], .text = value[MAIL_TEXT],
      .file = value[MAIL_FILE], .log = value[MAIL_LOG], .once = value[MAIL_ONCE], .once_repeat = repeat,
      .file_expand = cmd->expand_file, .return_message = cmd->return_message};
  if (!str_is_set(reply->to) && expand_text(r->c, STR("$reply_address"), &reply->to))
    return filter_fail(r, "failed to expand \"$reply_address\" in mail command: %.*s", STRF(r->c->error));
  struct filter_item *item = filter_add_item(r, FILTER_REPLY, log_text(r, reply));
  if (!item)
    return -1;
  item->reply = reply;
  item->noerror = true; /* they are reports: nobody hears of their failure */
  return 0;
}

int filter_mail(struct filter_runner *r, const struct filter_command *cmd) {
  const char *where = cmd->kind == COMMAND_VACATION ? "vacation command" : "mail command";
  struct str value[MAIL_ARGS];
  if (r->c->message && !r->c->message->reverse_path.len) {
    if (r->rules->testing)
      fprintf(r->rules->out, "%s ignored because return_path is empty\n", where);
    return 0;
  }
  for (int i = 0; i < MAIL_ARGS; i++) {
    value[i] = STR_UNSET;
    if (!str_is_set(cmd->mail[i].text))
      continue;
    if (!filter_expand(r, &cmd->mail[i], where, &value[i]))
      return -1;
    if (i <= MAIL_SUBJECT && check_folding(r, value[i], where))
      return -1;
  }
  if (r->rules->testing) {
    show(r, cmd, value);
    return 0;
  }
  return add_reply(r, cmd, value);
}
