#include "message/message.h"

#include <unistd.h>
#include "base/ascii.h"
#include "base/map.h"
#include "core/module.h"

struct message *message_new(const char *arena_name) {
  struct arena *a = arena_new(arena_name);
  struct message *m = arena_new_of(a, struct message);
  m->arena = a;
  m->headers_tail = &m->headers;
  m->data_fd = -1;
  m->reverse_path = m->queue_name = STR_EMPTY;
  m->nonrecipients = map_new(a);
  return m;
}

void message_free(struct message *m) {
  if (!m)
    return;
  for (size_t i = 0; m->module_state && modules[i]; i++)
    if (m->module_state[i] && modules[i]->message_state.release)
      modules[i]->message_state.release(m, m->module_state[i]);
  if (m->data_fd >= 0)
    close(m->data_fd);
  arena_free(m->arena);
}

char header_type(struct str name) {
  static const struct {
    const char *name;
    char type;
  } types[] = {
    {"bcc", HEADER_BCC}, {"cc", HEADER_CC}, {"from", HEADER_FROM}, {"message-id", HEADER_ID},
    {"received", HEADER_RECEIVED}, {"reply-to", HEADER_REPLY_TO}, {"sender", HEADER_SENDER}, {"to", HEADER_TO},
  };
  bool resent = str_istarts(name, STR("resent-"));
  if (resent)
    name = str_from(name, 7);
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (str_ieq_c(name, types[i].name))
      return resent && types[i].type == HEADER_RECEIVED ? HEADER_OTHER : types[i].type;
  return HEADER_OTHER;
}

uint32_t header_name_length(struct str line) {
  uint32_t n = 0;
  while (n < line.len && line.p[n] > ' ' && line.p[n] != 127 && line.p[n] != ':')
    n++;
  uint32_t colon = n;
  while (colon < line.len && (line.p[colon] == ' ' || line.p[colon] == '\t'))
    colon++;
  return colon < line.len && line.p[colon] == ':' ? n : 0;
}

static struct header *header_new(struct message *m, char type, struct str text) {
  if (!text.len || text.p[text.len - 1] != '\n') {
    char *copy = arena_bytes(m->arena, (size_t)text.len + 2);
    memcpy(copy, text.p, text.len);
    memcpy(copy + text.len, "\n", 2);
    text = (struct str){copy, text.len + 1, text.taint};
  }
  struct header *h = arena_new_of(m->arena, struct header);
  h->text = text;
  h->name_len = header_name_length(text);
  h->type = type ? type : header_type(str_slice(text, 0, h->name_len));
  return h;
}

struct header *message_insert_header(struct message *m, struct header *after, char type, struct str text) {
  struct header *h = header_new(m, type, text);
  struct header **link = after ? &after->next : &m->headers;
  h->next = *link;
  *link = h;
  if (!h->next)
    m->headers_tail = &h->next;
  return h;
}

struct header *message_add_header(struct message *m, char type, struct str text) {
  struct header *h = header_new(m, type, text);
  *m->headers_tail = h;
  m->headers_tail = &h->next;
  return h;
}

struct header *message_prepend_header(struct message *m, char type, struct str text) {
  return message_insert_header(m, NULL, type, text);
}

struct header *message_find_header(const struct message *m, struct str name, const struct header *after) {
  for (struct header *h = after ? after->next : m->headers; h; h = h->next)
    if (h->type != HEADER_DELETED && str_ieq(str_slice(h->text, 0, h->name_len), name))
      return h;
  return NULL;
}

struct str header_value(const struct header *h) {
  ptrdiff_t colon = str_find_byte(str_from(h->text, h->name_len), ':');
  return str_trim(str_from(h->text, h->name_len + (size_t)(colon < 0 ? 0 : colon + 1)));
}

struct recipient *message_add_recipient(struct message *m, struct str address) {
  struct recipient r = {.address = address, .parent = -1};
  vec_push(m->arena, &m->recipients, r);
  return &m->recipients.v[m->recipients.n - 1];
}

bool message_is_nonrecipient(const struct message *m, struct str address) {
  return m->nonrecipients && map_has(m->nonrecipients, address);
}

void message_add_nonrecipient(struct message *m, struct str address) {
  if (!m->nonrecipients)
    m->nonrecipients = map_new(m->arena);
  map_set(m->nonrecipients, address, m);
}
