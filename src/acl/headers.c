/* add_header and remove_header: collected while ACLs run, applied at the
moments the manual names (sections "Adding header lines in ACLs", "Removing
header lines in ACLs"). */
#include "acl/internal.h"
#include "base/buf.h"
#include "base/pcre.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"

#define HEADERS_MAX 1000

static bool is_header_line(struct str line) {
  size_t i = 0;
  while (i < line.len && line.p[i] > 32 && line.p[i] < 127 && line.p[i] != ':')
    i++;
  size_t name = i;
  while (i < line.len && (line.p[i] == ' ' || line.p[i] == '\t'))
    i++;
  return name > 0 && i < line.len && line.p[i] == ':';
}

static struct str cut_place(struct str line, enum acl_header_place *ret) {
  static const struct { const char *name; enum acl_header_place place; } places[] = {
      {":after_received:", ACL_HEADER_AFTER_RECEIVED}, {":at_start_rfc:", ACL_HEADER_START_RFC},
      {":at_start:", ACL_HEADER_START}, {":at_end:", ACL_HEADER_END}};
  *ret = ACL_HEADER_END;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    struct str name = str_c(places[i].name);
    if (str_starts(line, name)) {
      *ret = places[i].place;
      return str_ltrim(str_from(line, name.len));
    }
  }
  return line;
}

static void add_one(struct ctx *c, struct acl_message *m, struct str line) {
  enum acl_header_place place;
  struct arena *a = c->message->arena;
  struct str text = cut_place(line, &place);
  if (text.len == 0 || m->added.n >= HEADERS_MAX)
    return;
  struct buf b;
  buf_init(&b, a, BUF_MAX_LINE);
  if (!is_header_line(text))
    buf_add_c(&b, "X-ACL-Warn: ");
  buf_add(&b, text);
  buf_add_byte(&b, '\n');
  if (b.overflow)
    return;
  text = buf_str(&b);
  for (size_t i = 0; i < m->added.n; i++)
    if (str_eq(m->added.v[i].text, text))
      return;
  struct acl_header h = {place, text};
  vec_push(a, &m->added, h);
}

void acl_add_header(struct ctx *c, struct str text) {
  struct acl_message *m = acl_message(c);
  if (!m)
    return;
  while (text.len > 0 && text.p[0] == '\n')
    text = str_from(text, 1);
  while (text.len > 0 && text.p[text.len - 1] == '\n')
    text = str_slice(text, 0, text.len - 1);
  /* Each newline that is not followed by white space begins another header line. */
  while (text.len > 0) {
    size_t end = 0;
    while (end < text.len && !(text.p[end] == '\n' && (end + 1 >= text.len || (text.p[end + 1] != ' ' && text.p[end + 1] != '\t'))))
      end++;
    add_one(c, m, str_slice(text, 0, end));
    text = str_from(text, end + 1);
  }
}

int acl_apply_add_header(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  acl_add_header(c, arg);
  return OUTCOME_OK;
}

int acl_apply_remove_header(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct acl_message *m = acl_message(c);
  if (m && arg.len > 0 && m->removed.n < HEADERS_MAX)
    vec_push(c->message->arena, &m->removed, str_dup(c->message->arena, arg));
  return OUTCOME_OK;
}

struct str acl_headers_added(struct ctx *c) {
  struct acl_message *m = acl_message(c);
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  for (size_t i = 0; m && i < m->added.n; i++) {
    struct str t = m->added.v[i].text;
    buf_add(&b, i + 1 < m->added.n ? t : str_slice(t, 0, t.len - 1));
  }
  return buf_str(&b);
}

static bool is_resent(const struct header *h) { return str_istarts(h->text, STR("resent-")); }

/* The line after which a new one goes: NULL for the very start. */
static struct header *place_of(struct message *m, enum acl_header_place place) {
  struct header *after = NULL;
  if (place == ACL_HEADER_START)
    return NULL;
  struct header *h = m->headers;
  if (place == ACL_HEADER_AFTER_RECEIVED) {
    /* The first block of Received: lines. */
    while (h && h->type != 'P')
      h = h->next;
    for (; h && h->type == 'P'; h = h->next)
      after = h;
    return after;
  }
  struct header *received = h; /* what was put in front of it does not count */
  while (received && received->type != 'P')
    received = received->next;
  for (h = received ? received : h; h && (h->type == 'P' || h->type == '*' || is_resent(h)); h = h->next)
    after = h;
  return after;
}

static void apply_removals(struct ctx *c, struct acl_message *m) {
  for (size_t i = 0; i < m->removed.n; i++) {
    struct list_iter iter;
    struct str name, group;
    list_iter_init(&iter, c->arena, m->removed.v[i]);
    while (list_next(&iter, &name)) {
      bool pattern = name.len > 0 && name.p[0] == '^';
      for (struct header *h = c->message->headers; h; h = h->next) {
        if (h->type == '*')
          continue;
        bool hit = pattern ? pcre_match_text(c->arena, name, h->text, &group, 1) > 0
                           : str_ieq(str_slice(h->text, 0, h->name_len), name);
        if (hit)
          h->type = '*';
      }
    }
  }
  m->removed.n = 0;
}

void acl_apply_headers(struct ctx *c, const char *acl_name) {
  struct acl_message *m = acl_message(c);
  if (!m)
    return;
  apply_removals(c, m);
  if (m->added.n > 0)
    DEBUG(receive, ">>Headers added by %s ACL:\n", acl_name);
  for (size_t i = 0; i < m->added.n; i++) {
    const struct acl_header *a = &m->added.v[i];
    if (a->place == ACL_HEADER_END)
      message_add_header(c->message, 0, a->text);
    else
      message_insert_header(c->message, place_of(c->message, a->place), 0, a->text);
  }
  m->added.n = 0;
}
