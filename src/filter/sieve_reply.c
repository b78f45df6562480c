/* vacation (RFC 5230) and notify (RFC 5435, 5436): answers and notifications that a script wants sent. */

#include "base/ascii.h"
#include "base/buf.h"
#include "base/hash.h"
#include "core/main_options.h"
#include "expand/rfc2047.h"
#include "filter/sieve.h"
#include "message/address.h"
#include "message/message.h"

#define TEXT_MAX (4u << 20)

struct str sieve_recipient(struct ctx *c) {
  const struct policy_vars *v = &c->vars;
  const struct str parts[] = {v->local_part_prefix, v->local_part, v->local_part_suffix};
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  for (size_t i = 0; i < 3; i++)
    if (str_is_set(parts[i]))
      buf_add(&b, parts[i]);
  struct str local = address_quote_local_part(c->arena, buf_str(&b));
  return str_cat(c->arena, local, str_cat(c->arena, STR("@"), str_is_set(v->domain) ? v->domain : STR_EMPTY));
}

/* Quoted-printable with line ends of the text, which is UTF-8 (RFC 2045, section 6.7). */
static void add_quoted_printable(struct buf *b, struct str s) {
  static const char digits[] = "0123456789ABCDEF";
  unsigned column = 0;
  for (uint32_t i = 0; i < s.len; i++) {
    unsigned char ch = (unsigned char)s.p[i];
    bool line_end = i + 1 == s.len || s.p[i + 1] == '\n';
    bool plain = (ch > 32 && ch < 127 && ch != '=') || ((ch == ' ' || ch == '\t') && !line_end);
    if (ch == '\n') {
      buf_add_byte(b, '\n');
      column = 0;
      continue;
    }
    if (column + (plain ? 1 : 3) > (line_end ? 76u : 75u)) {
      buf_add_c(b, "=\n");
      column = 0;
    }
    if (plain) {
      buf_add_byte(b, (char)ch);
    } else {
      const char code[3] = {'=', digits[ch >> 4], digits[ch & 15]};
      buf_add_n(b, code, 3);
    }
    column += plain ? 1 : 3;
  }
}

/* One line, not too long. */
static struct str header_line(struct ctx *c, struct str text) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  text = str_trim(str_slice(text, 0, 2000));
  for (uint32_t i = 0; i < text.len; i++)
    buf_add_byte(&b, ascii_is_cntrl(text.p[i]) ? ' ' : text.p[i]);
  b.taint = text.taint;
  return buf_str(&b);
}

/* Encoded words, a line each. */
static struct str header_encoded(struct ctx *c, struct str text) {
  struct str s = rfc2047_encode(c, header_line(c, text), STR("utf-8")), next = STR("?= =?");
  struct buf b;
  buf_init(&b, c->arena, TEXT_MAX);
  for (ptrdiff_t at; (at = str_find(s, next)) >= 0; s = str_from(s, (size_t)at + 3)) {
    buf_add(&b, str_slice(s, 0, (size_t)at + 2));
    buf_add_c(&b, "\n ");
  }
  buf_add(&b, s);
  return buf_str(&b);
}

/* Of fields that are no phrases: only what is not ASCII. */
static struct str header_unstructured(struct ctx *c, struct str text) {
  text = header_line(c, text);
  for (uint32_t i = 0; i < text.len; i++)
    if ((unsigned char)text.p[i] >= 128)
      return rfc2047_encode(c, text, STR("utf-8"));
  return text;
}

static struct str original_subject(struct ctx *c) {
  struct header *h = c->message ? message_find_header(c->message, STR("Subject"), NULL) : NULL;
  return h ? sieve_header_text(c, header_value(h)) : STR_UNSET;
}

/* --- whom vacation answers --- */

static bool automatic(struct ctx *c) {
  struct header *h = c->message ? message_find_header(c->message, STR("Auto-Submitted"), NULL) : NULL;
  if (!h)
    return false;
  struct str value = header_value(h);
  return !str_ieq_c(str_trim(str_cut(&value, ';')), "no");
}

/* RFC 5230, section 4.6; RFC 3834, section 2. */
static bool from_list(struct ctx *c) {
  static const char *const names[] = {"List-Id", "List-Help", "List-Subscribe", "List-Unsubscribe", "List-Post", "List-Owner", "List-Archive"};
  static const char *const precedences[] = {"bulk", "list", "junk"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (message_find_header(c->message, str_c(names[i]), NULL))
      return true;
  struct header *h = message_find_header(c->message, STR("Precedence"), NULL);
  for (size_t i = 0; h && i < sizeof precedences / sizeof *precedences; i++)
    if (str_ieq_c(header_value(h), precedences[i]))
      return true;
  return false;
}

static bool program_sender(struct str sender) {
  static const char *const names[] = {"mailer-daemon", "listserv", "majordomo", "listproc"};
  struct str local, domain;
  address_split(sender, &local, &domain);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (str_ieq_c(local, names[i]))
      return true;
  return str_istarts(local, STR("owner-")) || str_iends(local, STR("-request")) || str_iends(local, STR("-owner"));
}

static bool own_address(struct sieve_runner *r, const struct sieve_vacation *v, struct str address) {
  struct ctx *c = r->run.c;
  struct str bare = str_cat(c->arena, c->vars.local_part, str_cat(c->arena, STR("@"), c->vars.domain));
  if (str_ieq(address, bare) || str_ieq(address, sieve_recipient(c)))
    return true;
  for (size_t i = 0; i < v->addresses.n; i++)
    if (str_ieq(address, str_trim(v->addresses.v[i])))
      return true;
  return false;
}

/* Is one of the user's addresses in a header field that names recipients (section 4.5)? */
static bool to_me(struct sieve_runner *r, const struct sieve_vacation *v) {
  static const char *const names[] = {"To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"};
  struct ctx *c = r->run.c;
  struct mail_address m;
  struct str error;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    for (struct header *h = NULL; (h = message_find_header(c->message, str_c(names[i]), h));) {
      struct address_walk w = {.text = header_value(h)};
      while (address_walk_next(&w)) {
        r->work += 64 + v->addresses.n;
        if (r->work > SIEVE_WORK_MAX)
          return false;
        if (!address_parse(c->arena, str_slice(w.text, w.from, w.to), ADDRESS_ALLOW_UTF8, &m, &error) && own_address(r, v, m.address))
          return true;
      }
    }
  return false;
}

/* --- the answer --- */

/* The file that remembers whom this answer went to: Exim's name for it. */
static struct str once_file(struct sieve_runner *r, const struct sieve_command *cmd) {
  const struct sieve_vacation *v = cmd->vacation;
  struct arena *a = r->run.c->arena;
  struct buf key;
  buf_init(&key, a, TEXT_MAX);
  if (str_is_set(v->handle)) {
    buf_add(&key, v->handle);
  } else {
    if (str_is_set(v->subject))
      buf_add(&key, v->subject);
    if (str_is_set(v->from))
      buf_add(&key, v->from);
    buf_add_byte(&key, v->mime ? '1' : '0');
    buf_add(&key, cmd->text);
  }
  struct str hash = str_upper(a, hash_hex(a, "md5", buf_str(&key)));
  return str_cat(a, r->run.rules->sieve_vacation_directory, str_cat(a, STR("/"), hash));
}

static struct str vacation_subject(struct ctx *c, const struct sieve_vacation *v) {
  struct str subject = original_subject(c);
  if (str_is_set(v->subject))
    return header_encoded(c, v->subject);
  if (!str_is_set(subject) || !subject.len)
    return STR("Automated reply");
  return header_encoded(c, str_cat(c->arena, STR("Auto: "), subject));
}

/* An address without a domain gets ours. */
static struct str from_text(struct ctx *c, struct str given) {
  struct mail_address m;
  struct str error;
  if (!str_is_set(given))
    return sieve_recipient(c);
  if (address_parse(c->arena, given, 0, &m, &error) || m.domain.len)
    return given;
  return str_cat(c->arena, m.address, str_cat(c->arena, STR("@"), main_options(c->config)->qualify_recipient));
}

static void set_text(struct ctx *c, struct filter_reply *reply, struct str reason, bool mime) {
  struct buf body;
  if (mime) {
    ptrdiff_t end = reason.len && reason.p[0] == '\n' ? 0 : str_find(reason, STR("\n\n"));
    reply->headers = end < 0 ? reason : str_slice(reason, 0, (size_t)end);
    reply->text = end < 0 ? STR_EMPTY : str_from(reason, (size_t)end + (end ? 2 : 1));
    return;
  }
  buf_init(&body, c->arena, TEXT_MAX);
  add_quoted_printable(&body, reason);
  reply->headers = STR("MIME-Version: 1.0\nContent-Type: text/plain;\n\tcharset=\"utf-8\"\nContent-Transfer-Encoding: quoted-printable");
  reply->text = buf_str(&body);
}

static struct filter_reply *new_reply(struct sieve_runner *r, enum filter_item_kind kind, struct str to, struct str text) {
  struct filter_reply *reply = arena_new_of(r->run.c->arena, struct filter_reply);
  struct filter_item *item = filter_add_item(&r->run, kind, text);
  if (!item)
    return NULL;
  *reply = (struct filter_reply){.to = to, .cc = STR_UNSET, .bcc = STR_UNSET, .from = STR_UNSET, .reply_to = STR_UNSET, .subject = STR_UNSET,
      .headers = STR_UNSET, .text = STR_UNSET, .file = STR_UNSET, .log = STR_UNSET, .once = STR_UNSET};
  item->reply = reply;
  item->noerror = true;
  return reply;
}

int sieve_vacation(struct sieve_runner *r, const struct sieve_command *cmd) {
  const struct sieve_vacation *v = cmd->vacation;
  struct ctx *c = r->run.c;
  struct str sender = c->message && str_is_set(c->message->reverse_path) ? c->message->reverse_path : STR_EMPTY;
  if (r->vacation_done)
    return filter_fail(&r->run, "trying to execute vacation more than once in line %d", cmd->line);
  r->vacation_done = true;
  if (!sender.len || automatic(c) || from_list(c) || program_sender(sender) || !to_me(r, v) || r->run.rules->testing)
    return 0;
  struct filter_reply *reply = new_reply(r, FILTER_REPLY, sender, str_cat(c->arena, STR(">"), sender));
  if (!reply)
    return -1;
  reply->from = from_text(c, v->from);
  reply->subject = vacation_subject(c, v);
  reply->once = once_file(r, cmd);
  reply->once_directory = true;
  reply->once_repeat = v->days * 86400;
  set_text(c, reply, cmd->text, v->mime);
  return 0;
}

/* --- notify --- */

static struct str notify_subject(struct ctx *c, const struct sieve_notify *n) {
  struct str subject = str_is_set(n->message) ? n->message : str_is_set(n->subject) ? n->subject : original_subject(c);
  return str_is_set(subject) ? header_encoded(c, subject) : STR_UNSET;
}

int sieve_notify(struct sieve_runner *r, const struct sieve_command *cmd) {
  const struct sieve_notify *n = cmd->notify;
  struct ctx *c = r->run.c;
  struct buf headers, body;
  if (automatic(c) || r->run.rules->testing) /* RFC 5436, section 2.7.1: no notification of a notification */
    return 0;
  for (size_t i = 0; i < r->run.result->items.n; i++) /* once for each target (section 3.1) */
    if (r->run.result->items.v[i].kind == FILTER_NOTIFY && str_ieq(r->run.result->items.v[i].text, n->to))
      return 0;
  struct filter_reply *reply = new_reply(r, FILTER_NOTIFY, n->to, n->to);
  if (!reply)
    return -1;
  reply->from = from_text(c, n->from);
  reply->subject = notify_subject(c, n);
  buf_init(&headers, c->arena, TEXT_MAX);
  buf_printf(&headers, "Auto-Submitted: auto-notified; owner-email=\"%.*s\"\n", STRF(header_unstructured(c, r->run.rules->sieve_enotify_owner)));
  if (n->importance != '2')
    buf_printf(&headers, "Importance: %s\n", n->importance == '1' ? "High" : "Low");
  for (size_t i = 0; i < n->names.n; i++)
    buf_printf(&headers, "%.*s: %.*s\n", STRF(n->names.v[i]), STRF(header_unstructured(c, n->values.v[i])));
  buf_init(&body, c->arena, TEXT_MAX);
  if (str_is_set(n->body) && n->body.len) {
    buf_add_c(&headers, "MIME-Version: 1.0\nContent-Type: text/plain; charset=\"utf-8\"\nContent-Transfer-Encoding: quoted-printable\n");
    add_quoted_printable(&body, n->body);
  }
  reply->headers = buf_str(&headers);
  reply->text = buf_str(&body);
  return 0;
}
