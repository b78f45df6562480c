/* Reads what a crash, an editor or an enemy may have made of a -H file: every
length is checked against the text that is there. */
#include <errno.h>
#include "base/ascii.h"
#include "base/map.h"
#include "core/module.h"
#include "queue/spool_codec.h"

/* The next line without its newline; false at the end of the text. */
static bool next_line(struct spool_reader *r, struct str *ret) {
  if (r->pos >= r->text.len)
    return false;
  struct str rest = str_from(r->text, r->pos);
  ptrdiff_t end = str_find_byte(rest, '\n');
  if (end < 0)
    return false;
  *ret = str_slice(rest, 0, (size_t)end);
  r->pos += (size_t)end + 1;
  return true;
}

static struct str keep(struct spool_reader *r, struct str s, bool tainted) {
  s = str_dup(r->message->arena, s);
  s.taint = tainted ? STR_TAINTED : 0;
  return s;
}

struct str spool_read_value(struct spool_reader *r, struct str value) {
  return keep(r, value, r->tainted);
}

struct str spool_decode_id(struct str text) {
  struct str line = str_cut(&text, '\n');
  if (!str_is_set(text) || !str_ends(line, STR("-H")))
    return STR_UNSET;
  line = str_slice(line, 0, line.len - 2);
  return message_id_valid(line) ? line : STR_UNSET;
}

/* "login uid gid": from the end, as a login may hold blanks. */
static bool read_originator(struct spool_reader *r, struct message *m) {
  struct str line;
  uint64_t uid, gid;
  if (!next_line(r, &line))
    return false;
  ptrdiff_t last = str_rfind_byte(line, ' ');
  if (last < 0 || !str_to_u64(str_from(line, (size_t)last + 1), &gid) || gid > UINT32_MAX)
    return false;
  line = str_slice(line, 0, (size_t)last);
  last = str_rfind_byte(line, ' ');
  if (last < 0 || !str_to_u64(str_from(line, (size_t)last + 1), &uid) || uid > UINT32_MAX)
    return false;
  m->originator_login = keep(r, str_slice(line, 0, (size_t)last), true);
  m->originator_uid = (uint32_t)uid;
  m->originator_gid = (uint32_t)gid;
  return true;
}

static bool read_envelope(struct spool_reader *r, struct message *m) {
  struct str line;
  int64_t seconds, warnings;
  if (!read_originator(r, m) || !next_line(r, &line))
    return false;
  if (line.len < 2 || line.p[0] != '<' || line.p[line.len - 1] != '>')
    return false;
  m->reverse_path = keep(r, str_slice(line, 1, line.len - 1), true);
  if (!next_line(r, &line))
    return false;
  struct str first = str_cut(&line, ' ');
  if (!str_to_i64(first, &seconds) || seconds < 0 || !str_is_set(line) || !str_to_i64(line, &warnings) ||
      warnings < 0 || warnings > 1000000)
    return false;
  m->received_time.tv_sec = seconds;
  m->warnings_sent = (int)warnings;
  return true;
}

/* --- items ("-name value") --- */

enum item_kind { ITEM_FLAG, ITEM_NUMBER, ITEM_MESSAGE_TEXT, ITEM_CLIENT_TEXT, ITEM_CLIENT_FLAG, ITEM_INT };

static const struct item_def {
  const char *name;
  enum item_kind kind;
  size_t offset;
} items[] = {
#define MESSAGE_AT(member) offsetof(struct message, member)
#define CLIENT_AT(member) offsetof(struct client, member)
  {"N", ITEM_FLAG, MESSAGE_AT(dont_deliver)},
  {"allow_unqualified_recipient", ITEM_FLAG, MESSAGE_AT(allow_unqualified_recipient)},
  {"allow_unqualified_sender", ITEM_FLAG, MESSAGE_AT(allow_unqualified_sender)},
  {"auth_id", ITEM_CLIENT_TEXT, CLIENT_AT(authenticated_id)},
  {"auth_sender", ITEM_CLIENT_TEXT, CLIENT_AT(authenticated_sender)},
  {"body_linecount", ITEM_NUMBER, MESSAGE_AT(body_lines)},
  {"body_zerocount", ITEM_NUMBER, MESSAGE_AT(body_zeros)},
  {"deliver_firsttime", ITEM_FLAG, MESSAGE_AT(deliver_first_time)},
  {"dsn_envid", ITEM_MESSAGE_TEXT, MESSAGE_AT(dsn_envid)},
  {"dsn_ret", ITEM_INT, MESSAGE_AT(dsn_ret)},
  {"helo_name", ITEM_CLIENT_TEXT, CLIENT_AT(helo_name)},
  {"host_auth", ITEM_CLIENT_TEXT, CLIENT_AT(host_authenticated)},
  {"host_auth_pubname", ITEM_CLIENT_TEXT, CLIENT_AT(host_auth_mechanism)},
  {"host_lookup_failed", ITEM_CLIENT_FLAG, CLIENT_AT(host_lookup_failed)},
  {"host_name", ITEM_CLIENT_TEXT, CLIENT_AT(host_name)},
  {"ident", ITEM_CLIENT_TEXT, CLIENT_AT(ident)},
  {"local", ITEM_FLAG, MESSAGE_AT(sender_local)},
  {"localerror", ITEM_FLAG, MESSAGE_AT(local_error_message)},
  {"manual_thaw", ITEM_FLAG, MESSAGE_AT(manual_thaw)},
  {"max_received_linelength", ITEM_NUMBER, MESSAGE_AT(max_received_line_length)},
  {"received_protocol", ITEM_CLIENT_TEXT, CLIENT_AT(protocol)},
  {"sender_set_untrusted", ITEM_FLAG, MESSAGE_AT(reverse_path_set_untrusted)},
  {"smtputf8", ITEM_FLAG, MESSAGE_AT(smtputf8)},
  {"spool_file_wireformat", ITEM_FLAG, MESSAGE_AT(spool_file_wireformat)},
};

static bool read_table_item(struct spool_reader *r, struct str name, struct str value, bool *ret_ok) {
  struct message *m = r->message;
  for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
    if (!str_eq_c(name, items[i].name))
      continue;
    bool client = items[i].kind == ITEM_CLIENT_TEXT || items[i].kind == ITEM_CLIENT_FLAG;
    char *at = (client ? (char *)&m->client : (char *)m) + items[i].offset;
    int64_t n = 0;
    *ret_ok = true;
    switch (items[i].kind) {
      case ITEM_FLAG:
      case ITEM_CLIENT_FLAG: *(bool *)(void *)at = true; break;
      case ITEM_MESSAGE_TEXT:
      case ITEM_CLIENT_TEXT: *(struct str *)(void *)at = keep(r, value, r->tainted); break;
      case ITEM_NUMBER:
      case ITEM_INT:
        *ret_ok = str_to_i64(value, &n) && n >= 0 && (items[i].kind == ITEM_NUMBER || n < 1000000);
        if (items[i].kind == ITEM_INT)
          *(int *)(void *)at = (int)n;
        else
          *(int64_t *)(void *)at = n;
        break;
    }
    return true;
  }
  return false;
}

static bool read_endpoint(struct spool_reader *r, struct str value, struct ip_addr *ip, struct str *ret_text,
    int *ret_port) {
  struct ip_addr parsed;
  int port = 0;
  if (!ip_parse_port(value, &parsed, &port))
    return false;
  if (ip)
    *ip = parsed;
  *ret_text = ip_text(r->message->arena, &parsed);
  *ret_port = port;
  return true;
}

/* "-received_time_usec .123456" and "-received_time_complete 1795227046.246441". */
static bool read_time(struct str value, struct timeval *t, bool seconds_too) {
  uint64_t n;
  struct str whole = str_cut(&value, '.');
  if (!str_is_set(value) || value.len != 6 || !str_to_u64(value, &n))
    return false;
  t->tv_usec = (suseconds_t)n;
  if (!seconds_too)
    return true;
  if (!str_to_u64(whole, &n) || n > INT64_MAX / 2)
    return false;
  t->tv_sec = (time_t)n;
  return true;
}

/* The value of an ACL variable stands on the next lines, `length` bytes and a newline. */
static bool read_acl_value(struct spool_reader *r, char kind, struct str rest, struct str length) {
  struct message *m = r->message;
  uint64_t n;
  if (!str_to_u64(length, &n) || n >= r->text.len - r->pos || r->text.p[r->pos + n] != '\n' || rest.len == 0 ||
      rest.len > 200)
    return false;
  struct str *value = arena_new_of(m->arena, struct str);
  *value = keep(r, str_slice(r->text, r->pos, r->pos + n), r->tainted);
  r->pos += n + 1;
  struct map **map = kind == 'c' ? &m->acl_c : &m->acl_m;
  if (!*map)
    *map = map_new(m->arena);
  map_set(*map, str_printf(m->arena, "acl_%c%.*s", kind, STRF(rest)), value);
  return true;
}

/* -aclm REST LENGTH; and of Exim before 4.61: -acl NUMBER LENGTH, where 0-9 are c0-c9 and 10-19 m0-m9. */
static bool read_acl_item(struct spool_reader *r, struct str name, struct str value) {
  struct str rest = str_cut(&value, ' ');
  uint64_t n;
  if (!str_is_set(value))
    return false;
  if (name.len == 4)
    return read_acl_value(r, name.p[3], rest, value);
  if (!str_to_u64(rest, &n) || n > 19)
    return false;
  char digit = (char)('0' + n % 10);
  return read_acl_value(r, n < 10 ? 'c' : 'm', str_n(&digit, 1), value);
}

static bool read_module_item(struct spool_reader *r, struct str name, struct str value) {
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->message_state.read_spool &&
        modules[i]->message_state.read_spool(r, r->message, message_module_state(r->message, modules[i]), name, value))
      return true;
  return false;
}

static bool read_special_item(struct spool_reader *r, struct str name, struct str value, bool *ret_ok) {
  struct message *m = r->message;
  struct client *c = &m->client;
  if (str_eq_c(name, "aclm") || str_eq_c(name, "aclc") || str_eq_c(name, "acl")) {
    *ret_ok = read_acl_item(r, name, value);
  } else if (str_eq_c(name, "host_address")) {
    *ret_ok = read_endpoint(r, value, &c->ip, &c->host_address, &c->host_port);
  } else if (str_eq_c(name, "interface_address")) {
    *ret_ok = read_endpoint(r, value, NULL, &c->interface_address, &c->interface_port);
  } else if (str_eq_c(name, "received_time_usec")) {
    *ret_ok = read_time(value, &m->received_time, false);
  } else if (str_eq_c(name, "received_time_complete")) {
    *ret_ok = read_time(value, &m->received_complete, true);
  } else if (str_eq_c(name, "frozen")) {
    m->frozen = true;
    *ret_ok = str_to_i64(value, &m->frozen_time) && m->frozen_time >= 0;
  } else {
    return false;
  }
  return true;
}

static bool read_item(struct spool_reader *r, struct str line, struct buf *unknown) {
  struct str text = str_from(line, 1);
  bool ok = true;
  r->tainted = text.len && text.p[0] == '-';
  if (r->tainted)
    text = str_from(text, 1);
  if (text.len && text.p[0] == '(') { /* "quoted for" a lookup: forgotten, the text stays tainted */
    ptrdiff_t close = str_find_byte(text, ')');
    text = str_from(text, close < 0 ? text.len : (size_t)close + 1);
  }
  struct str name = str_cut(&text, ' ');
  struct str value = str_is_set(text) ? text : STR_EMPTY;
  if (read_table_item(r, name, value, &ok) || read_special_item(r, name, value, &ok))
    return ok;
  if (!read_module_item(r, name, value)) {
    buf_add(unknown, line);
    buf_add_byte(unknown, '\n');
  }
  return true;
}

static bool read_items(struct spool_reader *r, struct str *ret_next) {
  struct buf unknown;
  buf_init(&unknown, r->message->arena, 1u << 20);
  struct str line;
  while (next_line(r, &line)) {
    if (line.len == 0 || line.p[0] != '-') {
      *ret_next = line;
      r->message->unknown_lines = buf_str(&unknown);
      r->message->client.local = r->message->client.host_address.len == 0;
      return !unknown.overflow;
    }
    if (!read_item(r, line, &unknown))
      return false;
  }
  return false;
}

/* Each line says how many branches follow it: no need to build the tree. */
static bool read_nonrecipients(struct spool_reader *r, struct str line) {
  if (str_eq_c(line, "XX"))
    return true;
  size_t pending = 1;
  for (size_t n = 0;; n++) {
    if (n >= SPOOL_RECIPIENTS_MAX || line.len < 4 || line.p[2] != ' ')
      return false;
    for (int i = 0; i < 2; i++) {
      if (line.p[i] != 'Y' && line.p[i] != 'N')
        return false;
      pending += line.p[i] == 'Y';
    }
    message_add_nonrecipient(r->message, keep(r, str_from(line, 3), true));
    if (--pending == 0)
      return true;
    if (!next_line(r, &line))
      return false;
  }
}

/* Takes "TEXT LENGTH,NUMBER" off the end of *line: the number, then as many bytes of text as it says. */
static bool cut_field(struct str *line, struct str *ret_text, int64_t *ret_number) {
  uint64_t length;
  ptrdiff_t comma = str_rfind_byte(*line, ',');
  if (comma < 0 || !str_to_i64(str_from(*line, (size_t)comma + 1), ret_number))
    return false;
  *line = str_slice(*line, 0, (size_t)comma);
  ptrdiff_t blank = str_rfind_byte(*line, ' ');
  if (blank < 0 || !str_to_u64(str_from(*line, (size_t)blank + 1), &length) || length + 1 > (uint64_t)blank)
    return false;
  size_t start = (size_t)blank - (size_t)length;
  if (line->p[start - 1] != ' ')
    return false;
  *ret_text = str_slice(*line, start, (size_t)blank);
  *line = str_slice(*line, 0, start - 1);
  return true;
}

static bool read_recipient(struct spool_reader *r, struct str line, size_t count) {
  struct recipient rcpt = {.parent = -1};
  uint64_t bits;
  ptrdiff_t hash = str_rfind_byte(line, '#');
  if (hash >= 0 && str_to_u64(str_from(line, (size_t)hash + 1), &bits)) {
    struct str errors_to = STR_EMPTY, orcpt = STR_EMPTY;
    int64_t parent = -1, dsn = 0;
    line = str_slice(line, 0, (size_t)hash);
    if ((bits & 1) && !cut_field(&line, &errors_to, &parent))
      return false;
    if ((bits & 2) && !cut_field(&line, &orcpt, &dsn))
      return false;
    if (bits > 3 || parent < -1 || parent >= (int64_t)count || dsn < 0 || dsn > 255)
      return false;
    rcpt.errors_to = errors_to.len ? keep(r, errors_to, true) : STR_UNSET;
    rcpt.orcpt = orcpt.len ? keep(r, orcpt, true) : STR_UNSET;
    rcpt.parent = (int)parent;
    rcpt.dsn_flags = (unsigned)dsn;
  }
  if (line.len == 0)
    return false;
  rcpt.address = keep(r, line, true);
  vec_push(r->message->arena, &r->message->recipients, rcpt);
  return true;
}

static bool read_recipients(struct spool_reader *r) {
  struct str line;
  uint64_t count;
  if (!next_line(r, &line) || !str_to_u64(line, &count) || count > SPOOL_RECIPIENTS_MAX)
    return false;
  for (uint64_t i = 0; i < count; i++)
    if (!next_line(r, &line) || !read_recipient(r, line, count))
      return false;
  return next_line(r, &line) && line.len == 0;
}

/* "049  Message-Id: …": length, letter, blank, text. */
static bool read_header(struct spool_reader *r) {
  size_t length = 0, digits = 0, pos = r->pos;
  struct str text = r->text;
  while (pos < text.len && ascii_is_digit(text.p[pos]) && digits++ < 9)
    length = length * 10 + (size_t)(text.p[pos++] - '0');
  if (digits == 0 || pos + 2 > text.len || text.p[pos + 1] != ' ' || length == 0 || length > text.len - pos - 2)
    return false;
  char type = text.p[pos];
  struct str line = str_slice(text, pos + 2, pos + 2 + length);
  if (!memchr(" BCFIPRST*", type, 10) || line.p[line.len - 1] != '\n')
    return false;
  r->pos = pos + 2 + length;
  message_add_header(r->message, type, keep(r, line, true));
  return true;
}

static bool decode(struct spool_reader *r) {
  struct str line, id = spool_decode_id(r->text);
  struct message *m = r->message;
  if (!str_is_set(id) || !next_line(r, &line))
    return false;
  memcpy(m->id, id.p, id.len);
  m->id[id.len] = '\0';
  if (!read_envelope(r, m) || !read_items(r, &line) || !read_nonrecipients(r, line) || !read_recipients(r))
    return false;
  while (r->pos < r->text.len)
    if (!read_header(r))
      return false;
  for (struct header *h = m->headers; h; h = h->next)
    m->received_count += h->type == HEADER_RECEIVED;
  return true;
}

int spool_decode(struct str text, struct message *m, int *ret_line) {
  struct spool_reader r = {.text = text, .message = m};
  if (text.len <= SPOOL_HEADER_MAX && decode(&r))
    return 0;
  *ret_line = 0;
  for (size_t i = 0; i < r.pos && i < text.len; i++)
    *ret_line += text.p[i] == '\n';
  return -EINVAL;
}
