#include "transport/header.h"

#include <time.h>

#include "base/buf.h"
#include "base/time.h"
#include "deliver/errors.h"
#include "expand/expand.h"
#include "log/log.h"
#include "message/message.h"
#include "message/rewrite.h"
#include "transport/options.h"
#include "transport/transport.h"

#define HEAD_MAX (64u << 20)

void transport_chain_result(struct address *chain, enum outcome result, int err, struct str message) {
  for (struct address *a = chain; a; a = a->next) {
    a->result = result;
    a->basic_errno = err;
    a->message = message;
    a->panic = result == OUTCOME_DEFER && err == ERROR_UNKNOWN;
  }
}

bool transport_chain_panic(struct ctx *c, struct address *chain, int err, struct str message) {
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(message));
  transport_chain_result(chain, OUTCOME_DEFER, err, message);
  for (struct address *a = chain; a; a = a->next)
    a->panic = false;
  return false;
}

bool transport_header_listed(struct str list, struct str name) {
  while (str_is_set(list) && list.len) {
    struct str item = str_trim(str_cut(&list, ':'));
    if (item.len && item.p[item.len - 1] == '*' ? str_istarts(name, str_slice(item, 0, item.len - 1)) : str_ieq(item, name))
      return true;
  }
  return false;
}

static bool fail(struct ctx *c, struct address *chain) {
  transport_chain_result(chain, OUTCOME_DEFER, ERROR_CHANGE_HEADER_FAIL,
      str_printf(c->arena, "failed to expand headers_add or headers_remove: %.*s", STRF(c->error)));
  for (struct address *a = chain; a; a = a->next)
    a->panic = true;
  return false;
}

/* Expands an option in which a forced failure means "as if unset". */
static bool expand_or_unset(struct ctx *c, const struct option_expr *o, struct str *ret) {
  int e = expand_option(c, o, ret);
  if (e == OUTCOME_FORCED)
    *ret = STR_UNSET;
  return e == 0 || e == OUTCOME_FORCED;
}

/* headers_remove is split first, then each item is expanded. */
static bool remove_list(struct ctx *c, const struct instance *t, struct str from_address, struct str *ret) {
  const struct option_expr *o = &transport_options(t)->headers_remove;
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_add(&b, from_address);
  if (str_is_set(o->text)) {
    struct str list;
    if (!expand_or_unset(c, o, &list))
      return false;
    if (str_is_set(list)) {
      buf_add_c(&b, b.len ? ":" : "");
      buf_add(&b, list);
    }
  }
  *ret = buf_str(&b);
  return true;
}

struct tops {
  const struct address **v;
  size_t n, cap;
};

/* Each recipient of the message is named once, however often its children lead here; the same address given twice is two. */
static void add_recipient(struct arena *arena, struct buf *b, const struct address *a, struct tops *seen) {
  const struct address *top = address_top(a);
  for (size_t i = 0; i < seen->n; i++)
    if (seen->v[i] == top)
      return;
  buf_add_c(b, seen->n ? ",\n " : "Envelope-to: ");
  buf_add(b, top->recipient < 0 ? top->address : a->topaddr); /* the system filter is nobody's address */
  vec_push(arena, seen, top);
}

/* Envelope-to: names the top-level addresses, and those that are delivered along with them. */
static void add_envelope_to(struct arena *arena, struct buf *b, const struct address *chain) {
  struct tops seen = {0};
  for (const struct address *a = chain; a; a = a->next) {
    for (const struct address *o = a->its_duplicates; o; o = o->next_duplicate)
      add_recipient(arena, b, o, &seen);
    add_recipient(arena, b, a, &seen);
  }
  buf_add_byte(b, '\n');
}

/* Empty lines are dropped: they would end the header. */
static void add_lines(struct buf *b, struct str lines) {
  while (str_is_set(lines) && lines.len > 0) {
    struct str line = str_cut(&lines, '\n');
    if (line.len == 0)
      continue;
    buf_add(b, line);
    buf_add_byte(b, '\n');
  }
}

static bool add_header(struct ctx *c, const struct instance *t, struct address *chain, struct buf *b) {
  const struct transport_options *o = transport_options(t);
  const struct rewrite_rules *rules = rewrite_rules_of_option(c, o->headers_rewrite);
  struct str remove, added;
  if (!remove_list(c, t, chain->prop.remove_headers, &remove))
    return fail(c, chain);
  if (!expand_or_unset(c, &o->headers_add, &added))
    return fail(c, chain);
  for (struct header *h = c->message->headers; h; h = h->next) {
    if (h->type == '*' || (remove.len && transport_header_listed(remove, str_slice(h->text, 0, h->name_len))))
      continue;
    buf_add(b, rules ? rewrite_header_text(c, rules, h) : h->text);
  }
  add_lines(b, chain->prop.extra_headers);
  add_lines(b, added);
  buf_add_byte(b, '\n');
  return true;
}

bool transport_size_allowed(struct ctx *c, const struct instance *t, struct address *chain) {
  const struct option_expr *o = &transport_options(t)->message_size_limit;
  const char *problem = "failed to expand";
  struct str value;
  int64_t limit = 0;
  int e = str_is_set(o->text) ? expand_option(c, o, &value) : 0;
  if (!e && str_is_set(o->text)) {
    problem = "invalid";
    e = expand_to_int(c, value, &limit);
  }
  if (e) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
        str_printf(c->arena, "%s message_size_limit in %.*s transport: %.*s", problem, STRF(t->name), STRF(c->error)));
    for (struct address *a = chain; a; a = a->next)
      a->panic = false;
    return false;
  }
  if (limit <= 0 || (int64_t)c->message->size <= limit)
    return true;
  transport_chain_result(chain, OUTCOME_FAIL, ERROR_UNKNOWN, STR("message is too big (transport limit)"));
  for (struct address *a = chain; a; a = a->next)
    a->message = str_printf(c->arena, "message is too big (transport limit = %lld)", (long long)limit);
  return false;
}

bool transport_return_path(struct ctx *c, const struct instance *t, struct address *chain) {
  const struct option_expr *o = &transport_options(t)->return_path;
  struct str path = str_is_set(chain->prop.errors_address) ? chain->prop.errors_address : c->message->reverse_path;
  if (str_is_set(o->text)) {
    struct str own;
    int e = expand_option(c, o, &own);
    if (e == 0) {
      path = own;
    } else if (e != OUTCOME_FORCED) {
      if (((const struct transport_def *)t->driver)->local)
        return transport_chain_panic(c, chain, ERROR_EXPAND_FAIL, str_printf(c->arena,
            "Failed to expand return path \"%.*s\" in %.*s transport: %.*s", STRF(o->text), STRF(t->name), STRF(c->error)));
      transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
          str_printf(c->arena, "Failed to expand return path \"%.*s\": %.*s", STRF(o->text), STRF(c->error)));
      return false;
    }
  }
  for (struct address *a = chain; a; a = a->next)
    a->return_path = path;
  return true;
}

bool transport_message_build(struct ctx *c, const struct instance *t, struct address *chain, struct transport_message *ret) {
  const struct transport_options *o = transport_options(t);
  struct message *m = c->message;
  *ret = (struct transport_message){.return_path = chain->return_path, .with_body = !o->headers_only, .head = STR_EMPTY};
  if (!transport_size_allowed(c, t, chain))
    return false;
  struct buf b;
  buf_init(&b, c->arena, HEAD_MAX);
  if (!o->body_only) {
    if (o->return_path_add)
      buf_printf(&b, "Return-path: <%.*s>\n", STRF(ret->return_path));
    if (o->envelope_to_add)
      add_envelope_to(c->arena, &b, chain);
    if (o->delivery_date_add) {
      buf_add_c(&b, "Delivery-date: ");
      buf_add(&b, time_rfc2822(c->arena, time(NULL)));
      buf_add_byte(&b, '\n');
    }
    if (!add_header(c, t, chain, &b))
      return false;
  }
  if (b.overflow) {
    transport_chain_result(chain, OUTCOME_FAIL, ERROR_UNKNOWN, STR("header of the message is too large"));
    return false;
  }
  ret->head = buf_str(&b);
  ret->size = (int64_t)ret->head.len + (ret->with_body ? (int64_t)m->body_size : 0);
  return true;
}
