/* Header lines: each address is replaced where it stands, so that phrases,
comments and folding stay as they were. */
#include "base/buf.h"
#include "core/main_options.h"
#include "expand/rfc2047.h"
#include "log/log.h"
#include "message/address.h"
#include "message/rewrite_internal.h"
#include "message/rewrite_rules.h"

/* A line that grew by rewriting and has become this long is folded behind the address. */
#define FOLD_AFTER 40

struct str rewrite_encode(struct ctx *c, struct str text) {
  return rfc2047_encode(c, text, main_options(c->config)->headers_charset);
}

static unsigned header_place(char type) {
  switch (type) {
    case HEADER_SENDER: return REWRITE_SENDER;
    case HEADER_FROM: return REWRITE_FROM;
    case HEADER_TO: return REWRITE_TO;
    case HEADER_CC: return REWRITE_CC;
    case HEADER_BCC: return REWRITE_BCC;
    case HEADER_REPLY_TO: return REWRITE_REPLY_TO;
    default: return 0;
  }
}

/* One header line on its way. */
struct line {
  struct ctx *c;
  const struct rewrite_rules *rules;
  unsigned place;
  bool qualify;
  bool every_line; /* of an incoming message: malformed addresses are logged also where nothing could change */
  struct str from_domain, to_domain; /* of rewrite_change_domain; unset otherwise */
  struct str text;
  struct buf out;
  size_t copied;       /* bytes of text that are in out */
  size_t line_start;   /* in out: behind the last fold we made */
  bool changed;
};

static bool may_qualify(const struct ctx *c, unsigned place) {
  if (!c->message)
    return true;
  return place & (REWRITE_SENDER | REWRITE_FROM | REWRITE_REPLY_TO) ? c->message->allow_unqualified_sender
                                                                   : c->message->allow_unqualified_recipient;
}

/* The new form of an item's address. False: it stays. *ret_whole is set when the item goes as a whole. */
static bool new_address(struct line *l, struct str address, bool qualified, struct str *ret, struct str *ret_whole) {
  struct str before = address;
  *ret_whole = STR_UNSET;
  if (!qualified) {
    if (!l->qualify)
      return false;
    bool sender = l->place & (REWRITE_SENDER | REWRITE_FROM | REWRITE_REPLY_TO);
    address = rewrite_qualify(l->c, address, sender);
  }
  if (str_is_set(l->from_domain)) {
    struct str local_part, domain;
    address_split(address, &local_part, &domain);
    if (str_ieq(domain, l->from_domain))
      address = str_cat(l->c->arena, str_cat(l->c->arena, local_part, STR("@")), l->to_domain);
  }
  rewrite_one(l->c, l->rules, l->place, &address, ret_whole);
  *ret = address;
  return str_is_set(*ret_whole) || !str_eq(before, address);
}

/* Behind a replaced address: a fold after the separator, if the line has become long and goes on. */
static void fold(struct line *l, size_t item_end) {
  size_t pos = item_end;
  if (l->out.len + (item_end - l->copied) - l->line_start < FOLD_AFTER)
    return;
  if (pos >= l->text.len || (l->text.p[pos] != ',' && l->text.p[pos] != ';'))
    return;
  pos++;
  while (pos < l->text.len && (l->text.p[pos] == ' ' || l->text.p[pos] == '\t'))
    pos++;
  if (pos >= l->text.len || l->text.p[pos] == '\n')
    return;
  buf_add(&l->out, str_slice(l->text, l->copied, pos));
  l->copied = pos;
  buf_add_c(&l->out, "\n");
  l->line_start = l->out.len;
  buf_add_byte(&l->out, '\t');
}

size_t rewrite_start(struct str item, const struct mail_address *m) {
  ptrdiff_t angle = str_rfind_byte(str_slice(item, 0, m->start), '<');
  if (angle >= 0)
    return (size_t)angle + 1;
  size_t start = 0;
  while (start < m->start && (item.p[start] == ' ' || item.p[start] == '\t' || item.p[start] == '\n'))
    start++;
  return start < m->start && item.p[start] == '@' ? start : m->start;
}

/* [from, to) of the line's text is one item. */
static void rewrite_item(struct line *l, size_t from, size_t to) {
  struct str item = str_rtrim(str_slice(l->text, from, to)), error, address, whole;
  struct mail_address m;
  unsigned flags = address_flags(l->c, ADDRESS_ALLOW_EMPTY | ADDRESS_ALLOW_DOMAIN_LITERAL);
  if (address_parse(l->c->arena, item, flags, &m, &error)) {
    log_write(LOG_MAIN, l->c->message, "qualify/rewrite: %.*s", STRF(error));
    return;
  }
  if (!m.address.len || !new_address(l, m.address, m.domain.len > 0, &address, &whole))
    return;
  l->changed = true;
  size_t start = from + m.start, end = from + m.end;
  if (str_is_set(whole)) {
    start = from;
    end = to;
    while (end > start && (l->text.p[end - 1] == '\n' || l->text.p[end - 1] == ' ' || l->text.p[end - 1] == '\t'))
      end--;
    address = whole;
  } else {
    /* A route stays out: it belonged to the old address; comments inside of <> go too. */
    ptrdiff_t angle = str_rfind_byte(str_slice(item, 0, m.start), '<');
    start = from + rewrite_start(item, &m);
    ptrdiff_t close = angle < 0 ? -1 : str_find_byte(str_from(item, m.end), '>');
    if (close >= 0)
      end += (size_t)close;
  }
  bool grown = address.len > end - start;
  buf_add(&l->out, str_slice(l->text, l->copied, start));
  buf_add(&l->out, address);
  l->copied = end;
  if (grown)
    fold(l, to);
}

/* The new text, or unset when nothing changed. */
static struct str rewrite_line(struct line *l, const struct header *h) {
  l->place = header_place(h->type);
  if (!l->place || h->name_len >= h->text.len)
    return STR_UNSET;
  l->text = h->text;
  l->qualify = may_qualify(l->c, l->place);
  if (!l->every_line && !l->qualify && !str_is_set(l->from_domain) && (!l->rules || !(l->rules->flags & l->place)))
    return STR_UNSET;
  buf_init(&l->out, l->c->arena, BUF_MAX_EXPANSION);
  ptrdiff_t colon = str_find_byte(str_from(h->text, h->name_len), ':');
  struct address_walk w = {.text = h->text, .next = h->name_len + (size_t)(colon < 0 ? 0 : colon + 1)};
  while (address_walk_next(&w))
    rewrite_item(l, w.from, w.to);
  if (!l->changed)
    return STR_UNSET;
  buf_add(&l->out, str_from(l->text, l->copied));
  return l->out.overflow ? STR_UNSET : buf_str(&l->out);
}

struct str rewrite_header_text(struct ctx *c, const struct rewrite_rules *rules, const struct header *h) {
  struct line l = {.c = c, .rules = rules, .from_domain = STR_UNSET};
  struct str text = rewrite_line(&l, h);
  return str_is_set(text) ? text : h->text;
}

static void replace_header(struct message *m, struct header *h, struct str text) {
  message_insert_header(m, h, h->type, str_dup(m->arena, text));
  h->type = HEADER_DELETED;
  m->header_rewritten = true;
}

static void rewrite_all(struct ctx *c, struct message *m, const struct rewrite_rules *rules, struct str from_domain,
    struct str to_domain) {
  struct message *outer = c->message;
  c->message = m;
  for (struct header *h = m->headers, *next; h; h = next) {
    next = h->next;
    struct line l = {.c = c, .rules = rules, .from_domain = from_domain, .to_domain = to_domain,
      .every_line = !str_is_set(from_domain)};
    struct str text = rewrite_line(&l, h);
    if (str_is_set(text))
      replace_header(m, h, text);
  }
  c->message = outer;
}

void rewrite_message_headers(struct ctx *c, struct message *m, const struct rewrite_rules *rules) {
  rewrite_all(c, m, rules, STR_UNSET, STR_UNSET);
}

void rewrite_change_domain(struct ctx *c, struct message *m, struct str from, struct str to) {
  DEBUG(rewrite, "domain %.*s rewritten\n", STRF(from));
  if (m)
    rewrite_all(c, m, rewrite_rules(c->config), from, to);
}

/* --- -brw --- */

static void test_place(struct ctx *c, FILE *out, const char *label, unsigned place, struct str text,
    const struct mail_address *m) {
  struct str address = m->address, whole;
  bool changed = rewrite_one(c, rewrite_rules(c->config), place, &address, &whole);
  struct str before = str_slice(text, 0, rewrite_start(text, m)), after = str_from(text, m->end);
  if (place & REWRITE_ENVELOPE)
    fprintf(out, "%s%.*s\n", label, STRF(address.len ? address : STR("<>")));
  else if (!changed)
    fprintf(out, "%s%.*s\n", label, STRF(text));
  else if (str_is_set(whole))
    fprintf(out, "%s%.*s\n", label, STRF(whole));
  else
    fprintf(out, "%s%.*s%.*s%.*s\n", label, STRF(before), STRF(address), STRF(after));
}

void rewrite_test(struct ctx *c, struct str text, FILE *out) {
  static const struct {
    const char *label;
    unsigned place;
  } places[] = {
    {"  sender: ", REWRITE_SENDER}, {"    from: ", REWRITE_FROM},         {"      to: ", REWRITE_TO},
    {"      cc: ", REWRITE_CC},     {"     bcc: ", REWRITE_BCC},          {"reply-to: ", REWRITE_REPLY_TO},
    {"env-from: ", REWRITE_ENV_FROM}, {"  env-to: ", REWRITE_ENV_TO},
  };
  struct str changed = text, error;
  struct mail_address m;
  if (!rewrite_rules(c->config)) {
    fprintf(out, "No rewrite rules are defined\n");
    return;
  }
  if (rewrite_smtp(c, true, &changed)) {
    bool parsed = address_parse(c->arena, changed, ADDRESS_ALLOW_DOMAIN_LITERAL, &m, &error) == 0;
    fprintf(out, "    SMTP: %.*s\n", STRF(parsed ? m.address : changed));
  }
  if (str_find_byte(text, '@') < 0)
    text = rewrite_qualify(c, text, false);
  if (address_parse(c->arena, text, address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL), &m, &error)) {
    char *e = str_dup_c(c->arena, error);
    if (*e >= 'a' && *e <= 'z')
      *e = (char)(*e - 32);
    fprintf(out, "Syntax error in %.*s\n%s\n", STRF(text), e);
    return;
  }
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    test_place(c, out, places[i].label, places[i].place, text, &m);
}
