/* A filter's context and result as bytes, so that a process of the filter's
user can run it. Both ends are the same program; all the same every length is
checked. */

#include <errno.h>
#include <unistd.h>

#include "base/map.h"
#include "deliver/address.h"
#include "filter/internal.h"
#include "message/message.h"
#include "queue/spool_codec.h"

#define VARS (sizeof(struct policy_vars) / sizeof(struct str))
#define TEXT_MAX (64u << 20)
#define ROUTER_VARS_MAX 10000

/* --- both ways --- */

static void put(struct buf *b, struct str s) {
  uint32_t head[2] = {str_is_set(s) ? s.len : UINT32_MAX, s.taint};
  buf_add_n(b, (const char *)head, sizeof head);
  if (str_is_set(s))
    buf_add_n(b, s.p, s.len);
}

static void put_number(struct buf *b, int64_t n) { buf_add_n(b, (const char *)&n, sizeof n); }

struct reader {
  struct arena *arena;
  struct str rest;
  bool bad;
};

static bool take_bytes(struct reader *r, void *to, size_t n) {
  if (r->bad || r->rest.len < n) {
    r->bad = true;
    return false;
  }
  memcpy(to, r->rest.p, n);
  r->rest = str_from(r->rest, n);
  return true;
}

static struct str take(struct reader *r) {
  uint32_t head[2];
  if (!take_bytes(r, head, sizeof head) || head[0] == UINT32_MAX)
    return STR_UNSET;
  if (r->rest.len < head[0]) {
    r->bad = true;
    return STR_UNSET;
  }
  struct str s = str_dup(r->arena, str_slice(r->rest, 0, head[0]));
  s.taint = head[1];
  r->rest = str_from(r->rest, head[0]);
  return s;
}

static int64_t take_number(struct reader *r) {
  int64_t n = 0;
  take_bytes(r, &n, sizeof n);
  return n;
}

/* --- the request --- */

static void put_address(const struct address *a, struct buf *out) {
  put_number(out, a != NULL);
  if (!a)
    return;
  put(out, a->address);
  put(out, a->return_path);
  put(out, a->prop.errors_address);
  put_number(out, a->local_user);
  put_number(out, a->uid);
  put_number(out, a->gid);
}

int filter_request_encode(struct ctx *c, enum filter_work work, struct str text, const struct filter_rules *rules, struct buf *out) {
  const struct message *m = c->message;
  struct buf header;
  struct str sn;
  put_number(out, work);
  put(out, text);
  put(out, m ? str_c(m->id) : STR_UNSET);
  buf_init(&header, c->arena, SPOOL_HEADER_MAX);
  int e = m && m->id[0] ? spool_encode(m, &header) : 0;
  if (e)
    return e;
  put(out, m && m->id[0] ? buf_str(&header) : STR_UNSET);
  put_number(out, m ? (int64_t)m->size : 0);
  put_number(out, m ? (int64_t)m->body_size : 0);
  put_number(out, m ? m->manual_thaw : 0);
  put_number(out, m ? m->deliver_first_time : 0);
  const struct str *vars = (const struct str *)&c->vars;
  for (size_t i = 0; i < VARS; i++)
    put(out, vars[i]);
  for (int i = 0; i < 10; i++) {
    filter_system_count(c, i, &sn);
    put(out, sn);
  }
  const struct str sieve[] = {rules->sieve_subaddress, rules->sieve_useraddress, rules->sieve_inbox, rules->sieve_vacation_directory,
      rules->sieve_enotify_owner};
  for (size_t i = 0; i < sizeof sieve / sizeof *sieve; i++)
    put(out, sieve[i]);
  put_address(c->address, out);
  put_number(out, c->router_vars ? (int64_t)map_count(c->router_vars) : 0);
  struct str key;
  void *value;
  for (size_t i = 0; c->router_vars && map_next(c->router_vars, &i, &key, &value);) {
    put(out, key);
    put(out, *(const struct str *)value);
  }
  return out->overflow ? -EMSGSIZE : 0;
}

static struct message *take_message(struct reader *r, int body_fd) {
  struct str id = take(r), header = take(r);
  struct message *m = message_new("filter");
  int line;
  if (str_is_set(header) && spool_decode(header, m, &line))
    r->bad = true;
  if (str_is_set(id) && id.len < sizeof m->id)
    memcpy(m->id, id.p, id.len);
  m->size = (uint64_t)take_number(r);
  m->body_size = (uint64_t)take_number(r);
  m->manual_thaw = take_number(r) != 0;
  m->deliver_first_time = take_number(r) != 0;
  m->data_fd = body_fd >= 0 ? dup(body_fd) : -1;
  return m;
}

static struct address *take_address(struct reader *r) {
  if (!take_number(r))
    return NULL;
  struct address *a = address_new(r->arena, take(r), -1);
  a->return_path = take(r);
  a->prop.errors_address = take(r);
  a->local_user = take_number(r) != 0;
  a->uid = (uint32_t)take_number(r);
  a->gid = (uint32_t)take_number(r);
  return a;
}

static void take_context(struct reader *r, struct ctx *c, struct filter_rules *rules) {
  struct str *vars = (struct str *)&c->vars;
  int64_t sn[10] = {0};
  for (size_t i = 0; i < VARS; i++)
    vars[i] = take(r);
  for (int i = 0; i < 10; i++) {
    struct str s = take(r);
    (void)(str_is_set(s) && str_to_i64(s, &sn[i]));
  }
  filter_set_system_counts(c->message, sn);
  struct str *sieve[] = {&rules->sieve_subaddress, &rules->sieve_useraddress, &rules->sieve_inbox, &rules->sieve_vacation_directory,
      &rules->sieve_enotify_owner};
  for (size_t i = 0; i < sizeof sieve / sizeof *sieve; i++)
    *sieve[i] = take(r);
  c->address = take_address(r);
  int64_t n = take_number(r);
  if (n > 0)
    c->router_vars = map_new(r->arena);
  for (int64_t i = 0; i < n && i < ROUTER_VARS_MAX && !r->bad; i++) {
    struct str key = take(r), *value = arena_new_of(r->arena, struct str);
    *value = take(r);
    map_set(c->router_vars, key, value);
  }
}

/* --- the answer --- */

static void put_reply(struct buf *b, const struct filter_reply *p) {
  const struct str texts[] = {p->to, p->cc, p->bcc, p->from, p->reply_to, p->subject, p->headers, p->text, p->file, p->log, p->once};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    put(b, texts[i]);
  put_number(b, p->once_repeat);
  put_number(b, p->file_expand);
  put_number(b, p->return_message);
  put_number(b, p->once_directory);
}

static void put_result(struct buf *b, const struct filter_result *f) {
  put_number(b, f->outcome);
  put(b, f->text);
  for (int i = 0; i < 10; i++)
    put_number(b, f->n[i]);
  put_number(b, f->keep);
  put_number(b, (int64_t)f->items.n);
  for (size_t i = 0; i < f->items.n; i++) {
    const struct filter_item *item = &f->items.v[i];
    put_number(b, item->kind);
    put(b, item->text);
    put(b, item->errors_to);
    put_number(b, item->mode);
    put_number(b, item->noerror);
    put_number(b, item->argv_n);
    for (int64_t k = 0; k < item->argv_n; k++)
      put(b, item->argv[k]);
    put(b, item->shell_command);
    put(b, item->pipe_error);
    put_number(b, item->reply != NULL);
    if (item->reply)
      put_reply(b, item->reply);
  }
}

static struct filter_reply *take_reply(struct reader *r) {
  struct filter_reply *p = arena_new_of(r->arena, struct filter_reply);
  struct str *texts[] = {&p->to, &p->cc, &p->bcc, &p->from, &p->reply_to, &p->subject, &p->headers, &p->text, &p->file, &p->log, &p->once};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    *texts[i] = take(r);
  p->once_repeat = take_number(r);
  p->file_expand = take_number(r) != 0;
  p->return_message = take_number(r) != 0;
  p->once_directory = take_number(r) != 0;
  return p;
}

static void take_item(struct reader *r, struct filter_item *item) {
  int64_t kind = take_number(r);
  item->kind = kind >= FILTER_ADDRESS && kind <= FILTER_NOTIFY ? (enum filter_item_kind)kind : FILTER_ADDRESS;
  item->text = take(r);
  item->errors_to = take(r);
  item->mode = (int)take_number(r);
  item->noerror = take_number(r) != 0;
  item->argv_n = take_number(r);
  if (item->argv_n < 0 || item->argv_n > (int64_t)r->rest.len) {
    r->bad = true;
    return;
  }
  item->argv = arena_array(r->arena, struct str, (size_t)item->argv_n + 1);
  for (int64_t i = 0; i < item->argv_n; i++)
    item->argv[i] = take(r);
  item->shell_command = take(r);
  item->pipe_error = take(r);
  item->reply = take_number(r) ? take_reply(r) : NULL;
  r->bad |= !str_is_set(item->text) || (item->kind >= FILTER_REPLY) != (item->reply != NULL);
}

bool filter_answer_decode(struct arena *a, struct str answer, struct filter_result *ret) {
  struct reader r = {.arena = a, .rest = answer};
  int64_t outcome = take_number(&r);
  *ret = (struct filter_result){.text = take(&r)};
  for (int i = 0; i < 10; i++)
    ret->n[i] = take_number(&r);
  ret->keep = take_number(&r) != 0;
  int64_t n = take_number(&r);
  if (r.bad || outcome < FILTER_DELIVERED || outcome > FILTER_ERROR || n < 0 || n > FILTER_ITEMS_MAX)
    return false;
  ret->outcome = (enum filter_outcome)outcome;
  for (int64_t i = 0; i < n && !r.bad; i++) {
    struct filter_item item = {0};
    take_item(&r, &item);
    vec_push(a, &ret->items, item);
  }
  return !r.bad && !r.rest.len;
}

/* --- the work --- */

int filter_expand_lines(struct ctx *c, struct str text, struct str *ret) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  while (str_is_set(text) && text.len) {
    struct str line = str_cut(&text, '\n'), value;
    bool plain = !line.len || (!memchr(line.p, '$', line.len) && !memchr(line.p, '\\', line.len));
    buf_add(&b, plain || expand_text(c, line, &value) ? line : value);
    if (str_is_set(text))
      buf_add_byte(&b, '\n');
  }
  *ret = buf_str(&b);
  return b.overflow ? ctx_fail(c, OUTCOME_ERROR, "the expanded text is too long") : 0;
}

void filter_request_serve(struct arena *a, struct config *config, const struct filter_rules *rules, struct str request, int body_fd,
    struct buf *answer) {
  struct reader r = {.arena = a, .rest = request};
  struct ctx *c = ctx_new(a, config);
  struct filter_result f = {.outcome = FILTER_ERROR, .text = STR("malformed request")};
  int64_t work = take_number(&r);
  struct str text = take(&r);
  struct message *m = take_message(&r, body_fd);
  struct filter_rules own = *rules;
  c->message = m;
  c->client = &m->client;
  c->acl_m = m->acl_m;
  take_context(&r, c, &own);
  own.manually_thawed = m->manual_thaw;
  if (!r.bad && str_is_set(text) && work == FILTER_WORK_RUN) {
    filter_run(c, text, &own, &f);
  } else if (!r.bad && str_is_set(text) && work == FILTER_WORK_EXPAND) {
    struct filter_vars vars = {.this_address = STR_UNSET, .charset = STR_UNSET, .forbid = rules->forbid};
    c->filter = &vars;
    int rc = filter_expand_lines(c, text, &f.text);
    f.outcome = rc ? FILTER_ERROR : FILTER_DELIVERED;
    if (rc)
      f.text = c->error;
    c->filter = NULL;
  }
  put_result(answer, &f);
  message_free(m);
}
