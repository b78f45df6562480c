#include <errno.h>
#include <stdlib.h>
#include "base/map.h"
#include "core/module.h"
#include "queue/spool_codec.h"

/* Text for one line: what would end it becomes a blank. */
static void add_line_text(struct buf *out, struct str s) {
  for (uint32_t i = 0; i < s.len; i++)
    buf_add_byte(out, s.p[i] == '\n' || s.p[i] == '\0' ? ' ' : s.p[i]);
}

void spool_write_item(struct spool_writer *w, const char *name, struct str value) {
  buf_add_c(w->out, str_is_tainted(value) ? "--" : "-");
  buf_add_c(w->out, name);
  if (value.len) {
    buf_add_byte(w->out, ' ');
    add_line_text(w->out, value);
  }
  buf_add_byte(w->out, '\n');
}

static void item(struct spool_writer *w, const char *name, struct str value) {
  if (value.len)
    spool_write_item(w, name, value);
}

static void flag(struct spool_writer *w, const char *name, bool on) {
  if (on)
    spool_write_item(w, name, STR_EMPTY);
}

static void number(struct spool_writer *w, const char *name, int64_t n) {
  buf_printf(w->out, "-%s %lld\n", name, (long long)n);
}

static void endpoint(struct spool_writer *w, const char *name, struct str address, int port, bool tainted) {
  if (address.len)
    buf_printf(w->out, "%s%s [%.*s]:%d\n", tainted ? "--" : "-", name, STRF(address), port);
}

/* -aclm REST LENGTH, then the value on lines of its own. */
static void acl_variables(struct spool_writer *w, const char *name, const struct map *map) {
  size_t i = 0;
  struct str key;
  void *value;
  while (map && map_next(map, &i, &key, &value)) {
    struct str v = *(struct str *)value;
    /* Keys are whole names: acl_m_foo, acl_m0. */
    buf_printf(w->out, "%s%s %.*s %u\n", str_is_tainted(v) ? "--" : "-", name, STRF(str_from(key, 5)), v.len);
    buf_add(w->out, v);
    buf_add_byte(w->out, '\n');
  }
}

static void client_items(struct spool_writer *w, const struct client *c) {
  item(w, "helo_name", c->helo_name);
  endpoint(w, "host_address", c->host_address, c->host_port, true);
  item(w, "host_auth", c->host_authenticated);
  item(w, "host_auth_pubname", c->host_auth_mechanism);
  item(w, "host_name", c->host_name);
  flag(w, "host_lookup_failed", c->host_lookup_failed);
  endpoint(w, "interface_address", c->interface_address, c->interface_port, true);
  item(w, "ident", c->ident);
  item(w, "received_protocol", c->protocol);
}

static void counts(struct spool_writer *w, const struct message *m) {
  if (m->spool_file_wireformat)
    flag(w, "spool_file_wireformat", true);
  else
    number(w, "body_linecount", m->body_lines);
  number(w, "max_received_linelength", m->max_received_line_length);
  if (m->body_zeros > 0)
    number(w, "body_zerocount", m->body_zeros);
}

static void flags(struct spool_writer *w, const struct message *m) {
  item(w, "auth_id", m->client.authenticated_id);
  item(w, "auth_sender", m->client.authenticated_sender);
  flag(w, "allow_unqualified_recipient", m->allow_unqualified_recipient);
  flag(w, "allow_unqualified_sender", m->allow_unqualified_sender);
  flag(w, "deliver_firsttime", m->deliver_first_time);
  if (m->frozen)
    number(w, "frozen", m->frozen_time);
  flag(w, "N", m->dont_deliver);
  flag(w, "local", m->sender_local);
  flag(w, "localerror", m->local_error_message);
  flag(w, "manual_thaw", m->manual_thaw);
  flag(w, "sender_set_untrusted", m->reverse_path_set_untrusted);
  flag(w, "smtputf8", m->smtputf8);
  item(w, "dsn_envid", str_untainted(m->dsn_envid));
  if (m->dsn_ret)
    number(w, "dsn_ret", m->dsn_ret);
}

static int compare_keys(const void *a, const void *b) {
  return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* The sorted keys as a balanced tree, node before branches. */
static void tree(struct buf *out, const struct str *v, size_t n) {
  size_t middle = n / 2;
  bool left = middle > 0, right = n - middle > 1;
  buf_add_byte(out, left ? 'Y' : 'N');
  buf_add_byte(out, right ? 'Y' : 'N');
  buf_add_byte(out, ' ');
  add_line_text(out, v[middle]);
  buf_add_byte(out, '\n');
  if (left)
    tree(out, v, middle);
  if (right)
    tree(out, v + middle + 1, n - middle - 1);
}

static void nonrecipients(struct buf *out, const struct map *map) {
  size_t n = map ? map_count(map) : 0, i = 0, k = 0;
  if (n == 0) {
    buf_add_c(out, "XX\n");
    return;
  }
  struct str *v = xcalloc(n, sizeof *v), key;
  void *value;
  while (k < n && map_next(map, &i, &key, &value))
    v[k++] = key;
  qsort(v, k, sizeof *v, compare_keys);
  tree(out, v, k);
  free(v);
}

static bool line_safe(struct str s) {
  return memchr(s.p ? s.p : "", '\n', s.len) == NULL && memchr(s.p ? s.p : "", '\0', s.len) == NULL;
}

static int add_recipient(struct buf *out, const struct recipient *r) {
  if (!line_safe(r->address) || !line_safe(r->errors_to) || !line_safe(r->orcpt) || r->address.len == 0)
    return -EINVAL;
  buf_add(out, r->address);
  bool dsn = r->dsn_flags || r->orcpt.len, one_time = r->parent >= 0 || r->errors_to.len;
  if (dsn || one_time)
    buf_printf(out, " %.*s %u,%u %.*s %u,%d#3", STRF(r->orcpt), r->orcpt.len, r->dsn_flags, STRF(r->errors_to),
      r->errors_to.len, r->parent);
  buf_add_byte(out, '\n');
  return 0;
}

static void modules_items(struct spool_writer *w, const struct message *m) {
  for (size_t i = 0; modules[i]; i++) {
    const struct module_message_state *own = &modules[i]->message_state;
    const void *state = m->module_state ? m->module_state[i] : NULL;
    if (own->write_spool && (state || own->size == 0)) /* without a state of its own a module writes from the message */
      own->write_spool(w, m, state);
  }
}

int spool_encode(const struct message *m, struct buf *out) {
  struct spool_writer w = {out, m};
  if (!line_safe(m->reverse_path) || !line_safe(m->originator_login))
    return -EINVAL;
  buf_printf(out, "%s-H\n%.*s %u %u\n<%.*s>\n%lld %d\n", m->id, STRF(m->originator_login), m->originator_uid,
    m->originator_gid, STRF(m->reverse_path), (long long)m->received_time.tv_sec, m->warnings_sent);
  buf_printf(out, "-received_time_usec .%06ld\n", (long)m->received_time.tv_usec);
  if (m->received_complete.tv_sec)
    buf_printf(out, "-received_time_complete %lld.%06ld\n", (long long)m->received_complete.tv_sec,
      (long)m->received_complete.tv_usec);
  client_items(&w, &m->client);
  acl_variables(&w, "aclc", m->acl_c);
  acl_variables(&w, "aclm", m->acl_m);
  counts(&w, m);
  flags(&w, m);
  modules_items(&w, m);
  buf_add(out, m->unknown_lines);
  nonrecipients(out, m->nonrecipients);
  buf_printf(out, "%zu\n", m->recipients.n);
  for (size_t i = 0; i < m->recipients.n; i++)
    if (add_recipient(out, &m->recipients.v[i]))
      return -EINVAL;
  buf_add_byte(out, '\n');
  for (const struct header *h = m->headers; h; h = h->next) {
    buf_printf(out, "%03u%c ", h->text.len, h->type);
    buf_add(out, h->text);
  }
  return out->overflow ? -EMSGSIZE : 0;
}
