/* -M…: changes to one message under its lock, with Exim's words. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "core/main_options.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "message/address.h"
#include "message/message.h"
#include "queue/list.h"
#include "queue/spool.h"
#include "transport/event.h"

#define SHOW_MAX (1024u << 20)

/* --- showing --- */

static bool show_file(struct ctx *c, struct str id, const struct queue_manage *q, char which, FILE *out) {
  struct str text;
  const char *what = which == 'L' ? "msglog" : "input";
  const char *suffix = which == 'L' ? "" : which == 'H' ? "-H" : "-D";
  int rc = spool_read_file(c, q->queue_name, id, which, c->arena, SHOW_MAX, &text);
  if (rc == 0)
    return fwrite(text.p, 1, text.len, out) == text.len;
  fprintf(out, "Failed to open %s file for %.*s%s: %s\n", what, STRF(id), suffix, strerror(-rc));
  if (which == 'L' && !main_options(c->config)->message_logs)
    fputs("(No message logs are being created because the message_logs option is false.)\n", out);
  return false;
}

static bool show_copy(struct ctx *c, const struct message *m, FILE *out) {
  char buffer[64 << 10];
  int fd = spool_open_body(c, m);
  if (fd < 0)
    return false;
  for (const struct header *h = m->headers; h; h = h->next)
    if (h->type != HEADER_DELETED)
      fwrite(h->text.p, 1, h->text.len, out);
  fputc('\n', out);
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0)
    fwrite(buffer, 1, (size_t)n, out);
  close(fd);
  return n == 0;
}

/* --- changing --- */

static bool freeze(struct ctx *c, struct message *m, const struct queue_manage *q, FILE *out) {
  if (m->frozen) {
    fputs("is already frozen\n", out);
    return false;
  }
  m->frozen = true;
  m->manual_thaw = false;
  m->frozen_time = time(NULL);
  int rc = spool_write_header(c, m, true);
  if (rc) {
    fprintf(out, "could not be frozen: %s\n", strerror(-rc));
    return false;
  }
  fputs("is now frozen\n", out);
  log_write(LOG_MAIN, m, "frozen by %s", q->login);
  return true;
}

static bool thaw(struct ctx *c, struct message *m, const struct queue_manage *q, FILE *out) {
  if (!m->frozen) {
    fputs("is not frozen\n", out);
    return false;
  }
  m->frozen = false;
  m->manual_thaw = true;
  int rc = spool_write_header(c, m, true);
  if (rc) {
    fprintf(out, "could not be unfrozen: %s\n", strerror(-rc));
    return false;
  }
  fputs("is no longer frozen\n", out);
  log_write(LOG_MAIN, m, "unfrozen by %s", q->login);
  return true;
}

/* Each recipient that was left has failed, and the message is done. */
static void tell_events(struct ctx *c, struct message *m, const struct queue_manage *q) {
  struct str unused, text = str_printf(c->arena, "message removed by %s", q->login);
  if (!event_wanted(c, NULL))
    return;
  struct ctx *own = ctx_new(c->arena, c->config);
  own->message = m;
  own->client = &m->client;
  own->acl_m = m->acl_m;
  for (size_t i = 0; i < m->recipients.n; i++)
    if (!message_is_nonrecipient(m, m->recipients.v[i].address)) {
      address_split(m->recipients.v[i].address, &own->vars.local_part, &own->vars.domain);
      (void)event_raise(own, NULL, "msg:fail:internal", text, 0, &unused);
    }
  own->vars.local_part = own->vars.domain = STR_UNSET;
  (void)event_raise(own, NULL, "msg:complete", STR_EMPTY, 0, &unused);
}

static bool remove_message(struct ctx *c, struct message *m, const struct queue_manage *q, FILE *out) {
  int rc = spool_remove(c, m);
  if (!rc)
    tell_events(c, m, q);
  if (rc) {
    fprintf(out, "Error while removing %s: %s\n", m->id, strerror(-rc));
    return false;
  }
  spool_remove_log(c, m);
  fputs("has been removed\n", out);
  log_write(LOG_MAIN, m, "removed by %s", q->login);
  log_write(LOG_MAIN, m, "Completed");
  return true;
}

static bool move(struct ctx *c, struct message *m, const struct queue_manage *q, FILE *out) {
  struct str from = m->queue_name;
  int rc = spool_queue_name_valid(q->to_queue) ? spool_move(c, m, q->to_queue) : -EINVAL;
  fputs("\n", out);
  if (rc) {
    fprintf(out, "could not be moved: %s\n", strerror(-rc));
    return false;
  }
#define NAMED(s) (s).len ? "(" : "", STRF(s), (s).len ? ") " : ""
  log_write(LOG_MAIN, m, "moved from %s%.*s%sinput, msglog to %s%.*s%sinput, msglog", NAMED(from), NAMED(q->to_queue));
#undef NAMED
  return true;
}

static bool edit_error(FILE *out, const char *doing, struct str address, struct str error) {
  fprintf(out, "- error while %s:\n  bad address %.*s: %.*s\n", doing, STRF(address), STRF(error));
  return false;
}

/* One of the command's addresses, qualified. */
static bool take_address(struct ctx *c, struct message *m, struct str text, const char *doing, struct str *ret,
    FILE *out) {
  struct mail_address parsed;
  struct str error;
  unsigned flags = address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL);
  if (address_parse(c->arena, text, flags, &parsed, &error))
    return edit_error(out, doing, text, error);
  if (!parsed.domain.len)
    return edit_error(out, doing, text, STR("domain missing"));
  *ret = str_dup(m->arena, parsed.address);
  return true;
}

static bool add_recipient(struct message *m, const struct queue_manage *q, struct str address, const char *doing,
    FILE *out) {
  message_add_recipient(m, address);
  log_write(LOG_MAIN, m, "recipient <%.*s> added by %s", STRF(address), q->login);
  return true;
}

static bool mark_delivered(struct message *m, const struct queue_manage *q, struct str address, const char *doing,
    FILE *out) {
  for (size_t i = 0; i < m->recipients.n; i++) {
    if (!str_eq(m->recipients.v[i].address, address))
      continue;
    message_add_nonrecipient(m, address);
    log_write(LOG_MAIN, m, "address <%.*s> marked delivered by %s", STRF(address), q->login);
    return true;
  }
  fprintf(out, "- error while %s:\n  %.*s is not a recipient: message not updated\n", doing, STRF(address));
  return false;
}

static bool edit_sender(struct message *m, const struct queue_manage *q, struct str address, const char *doing,
    FILE *out) {
  m->reverse_path = address;
  log_write(LOG_MAIN, m, "sender address changed to <%.*s> by %s", STRF(address), q->login);
  return true;
}

static bool write_back(struct ctx *c, struct message *m, FILE *out, const char *doing) {
  int rc = spool_write_header(c, m, true);
  if (rc) {
    fprintf(out, "- while %s: %s\n", doing, strerror(-rc));
    return false;
  }
  fputs("has been modified\n", out);
  return true;
}

/* -Mar, -Mmd, -Mes: each address in turn; the first wrong one ends it, and nothing is changed. */
static bool edit(struct ctx *c, struct message *m, const struct queue_manage *q, const char *doing,
    bool (*fn)(struct message *m, const struct queue_manage *q, struct str address, const char *doing, FILE *out),
    FILE *out) {
  bool sender = q->action == QUEUE_EDIT_SENDER;
  if (q->n == 0) {
    fprintf(out, "- error while %s: no address given\n", doing);
    return false;
  }
  if (sender && q->n > 1) {
    fputs("- only one sender address can be specified\n", out);
    return false;
  }
  for (size_t i = 0; i < q->n; i++) {
    struct str address = STR_EMPTY;
    if (!(sender && str_eq_c(q->addresses[i], "<>")) && !take_address(c, m, q->addresses[i], doing, &address, out))
      return false;
    if (!fn(m, q, address, doing, out))
      return false;
  }
  return write_back(c, m, out, doing);
}

static bool mark_all(struct ctx *c, struct message *m, const struct queue_manage *q, FILE *out) {
  for (size_t i = 0; i < m->recipients.n; i++) {
    struct str address = m->recipients.v[i].address;
    if (message_is_nonrecipient(m, address))
      continue;
    message_add_nonrecipient(m, address);
    log_write(LOG_MAIN, m, "address <%.*s> marked delivered by %s", STRF(address), q->login);
  }
  int rc = spool_write_header(c, m, true);
  if (rc) {
    fprintf(out, "- could not mark all delivered: %s\n", strerror(-rc));
    return false;
  }
  fputs("has been modified\n", out);
  return true;
}

static bool change(struct ctx *c, struct message *m, const struct queue_manage *q, FILE *out) {
  fprintf(out, "Message %s ", m->id);
  switch (q->action) {
    case QUEUE_FREEZE: return freeze(c, m, q, out);
    case QUEUE_THAW: return thaw(c, m, q, out);
    case QUEUE_REMOVE: return remove_message(c, m, q, out);
    case QUEUE_MOVE: return move(c, m, q, out);
    case QUEUE_MARK_ALL: return mark_all(c, m, q, out);
    case QUEUE_MARK: return edit(c, m, q, "marking as delivered", mark_delivered, out);
    case QUEUE_ADD_RECIPIENT: return edit(c, m, q, "adding recipient", add_recipient, out);
    case QUEUE_EDIT_SENDER: return edit(c, m, q, "editing sender", edit_sender, out);
    default: return false;
  }
}

/* -Mrm of what is damaged or only partly there. */
static bool remove_unread(struct ctx *c, struct str id, const struct queue_manage *q, enum spool_read got, FILE *out) {
  if (got == SPOOL_NOT_FOUND) {
    fputs("Continuing, to ensure all files removed\n", out);
    fprintf(out, "Spool read error for %.*s-H: %s\n", STRF(id), strerror(ENOENT));
  }
  fputs("Continuing to ensure all files removed\n", out);
  bool any = q->admin && spool_remove_unread(c, q->queue_name, id);
  fprintf(out, "Message %.*s has been removed or did not exist\n", STRF(id));
  if (any)
    log_write(LOG_MAIN, NULL, "%.*s removed by %s", STRF(id), q->login);
  return any;
}

void queue_log_locked(struct str id) {
  if (log_selected(LOGSEL_skip_delivery))
    log_write(LOG_MAIN, NULL, "%.*s Spool file for %.*s is locked (another process is handling this message)", STRF(id), STRF(id));
}

static bool unreadable(struct ctx *c, struct str id, const struct queue_manage *q, enum spool_read got, FILE *out) {
  switch (got) {
    case SPOOL_LOCKED:
      fprintf(out, "Message %.*s is locked\n", STRF(id));
      queue_log_locked(id);
      return false;
    case SPOOL_NOT_FOUND:
      fprintf(out, "Spool data file for %.*s does not exist\n", STRF(id));
      log_write(LOG_MAIN, NULL, "%.*s Spool file %.*s-D not found", STRF(id), STRF(id));
      break;
    case SPOOL_BAD: fprintf(out, "Spool format error for %.*s\n", STRF(id)); break;
    default: fprintf(out, "Couldn't open spool file for %.*s: %.*s\n", STRF(id), STRF(c->error));
  }
  return q->action == QUEUE_REMOVE ? remove_unread(c, id, q, got, out) : false;
}

bool queue_manage(struct ctx *c, struct str id, const struct queue_manage *q, FILE *out) {
  if (!q->admin && q->action != QUEUE_REMOVE) {
    fputs("Permission denied\n", out);
    return false;
  }
  switch (q->action) {
    case QUEUE_SHOW_BODY: return show_file(c, id, q, 'D', out);
    case QUEUE_SHOW_HEADER: return show_file(c, id, q, 'H', out);
    case QUEUE_SHOW_LOG: return show_file(c, id, q, 'L', out);
    default: break;
  }
  struct message *m;
  bool copy = q->action == QUEUE_SHOW_COPY;
  enum spool_read got = spool_read_message(c, q->queue_name, id, !copy, &m);
  if (got != SPOOL_OK)
    return unreadable(c, id, q, got, out);
  bool done = false;
  if (!q->admin && m->originator_uid != q->uid)
    fputs("Permission denied\n", out);
  else
    done = copy ? show_copy(c, m, out) : change(c, m, q, out);
  if (done && !copy && spool_changed)
    spool_changed(m);
  message_free(m);
  return done;
}
