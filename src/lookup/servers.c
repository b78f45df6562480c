#include "lookup/servers.h"

#include "base/ascii.h"
#include "base/ip.h"
#include "log/log.h"
#include "match/match.h"

struct str db_servers_prefix(struct ctx *c, struct str *query) {
  struct str q = str_ltrim(*query);
  if (!str_istarts(q, STR("servers")))
    return STR_UNSET;
  struct str rest = str_ltrim(str_from(q, 7));
  ptrdiff_t end;
  if (rest.len == 0 || rest.p[0] != '=' || (end = str_find_byte(rest, ';')) < 0)
    return STR_UNSET;
  log_write(LOG_MAIN, c->message, "WARNING: obsolete syntax used for lookup");
  *query = str_ltrim(str_from(rest, (size_t)end + 1));
  return str_trim(str_slice(rest, 1, (size_t)end));
}

/* The host is all before the first slash outside of parentheses. */
static struct str host_of(struct str item) {
  int depth = 0;
  for (size_t i = 0; i < item.len; i++) {
    depth += item.p[i] == '(';
    depth -= item.p[i] == ')' && depth > 0;
    if (item.p[i] == '/' && depth == 0)
      return str_slice(item, 0, i);
  }
  return item;
}

/* false: fields are missing. */
static bool take_apart(struct ctx *c, const struct db_servers *s, struct str item, struct db_server *ret) {
  *ret = (struct db_server){.host = host_of(item), .key = item};
  struct str rest = str_from(item, ret->host.len);
  ret->shown = ret->host;
  for (int i = 0; i < s->fields; i++) {
    if (rest.len == 0)
      return false;
    rest = str_from(rest, 1);
    ptrdiff_t slash = i + 1 < s->fields ? str_find_byte(rest, '/') : -1;
    ret->fields[i] = slash < 0 ? rest : str_slice(rest, 0, (size_t)slash);
    rest = str_from(rest, ret->fields[i].len);
    if (i == 0)
      ret->shown = str_printf(c->arena, "%.*s/%.*s", STRF(ret->host), STRF(ret->fields[0]));
  }
  return true;
}

/* The main option's item with this host. */
static bool find_by_host(struct ctx *c, const struct db_servers *s, struct str host, struct str *ret) {
  struct list_iter i;
  struct str item;
  list_iter_init(&i, c->arena, s->list);
  while (list_next(&i, &item))
    if (str_eq(host_of(item), host)) {
      *ret = item;
      return true;
    }
  return false;
}

/* An item of the list, looked up in the main option if it is only a host of a query's own list. */
static int understand(struct ctx *c, const struct db_servers *s, struct str item, bool own_list, struct db_server *ret) {
  if (own_list && host_of(item).len == item.len) {
    struct str host = item;
    if (!find_by_host(c, s, host, &item))
      return ctx_fail(c, OUTCOME_ERROR, "%s server \"%.*s\" not found in %s", s->title, STRF(host), s->option);
    item.taint |= host.taint;
  }
  bool whole = take_apart(c, s, item, ret);
  if (str_is_tainted(item))
    return ctx_fail(c, OUTCOME_ERROR, "%s server \"%.*s\" is tainted", s->title, STRF(ret->shown));
  if (!whole)
    return ctx_fail(c, OUTCOME_ERROR, "incomplete %s server data: %.*s", s->title, STRF(ret->host));
  return OUTCOME_OK;
}

static int ask_one(struct ctx *c, const struct db_servers *s, struct str item, bool own_list, void *arg) {
  struct db_server server;
  int r = understand(c, s, item, own_list, &server);
  return r == OUTCOME_OK ? s->ask(c, &server, arg) : r;
}

bool db_servers_find(struct ctx *c, const struct db_servers *s, struct str only, bool (*is_it)(struct str host, struct str wanted),
    struct str wanted, struct db_server *ret) {
  bool own_list = str_is_set(only), found = false;
  struct str item, error = c->error;
  struct list_iter i;
  list_iter_init(&i, c->arena, own_list ? only : s->list);
  while (!found && list_next(&i, &item))
    found = is_it(host_of(item), wanted) && understand(c, s, item, own_list, ret) == OUTCOME_OK;
  c->error = error;
  return found;
}

int db_servers_ask(struct ctx *c, const struct db_servers *s, struct str only, void *arg) {
  bool own_list = str_is_set(only);
  struct list_iter i;
  struct str item;
  int r = OUTCOME_ERROR;
  ctx_fail(c, OUTCOME_DEFER, "no %s servers defined (%s option)", s->title, s->option);
  list_iter_init(&i, c->arena, own_list ? only : s->list);
  while (list_next(&i, &item)) {
    r = ask_one(c, s, item, own_list, arg);
    if (r != OUTCOME_DEFER)
      break;
    DEBUG(lookup, "%s: %.*s\n", s->title, STRF(c->error));
  }
  return r == OUTCOME_ERROR ? OUTCOME_DEFER : r;
}

static bool is_number(struct str s) {
  uint64_t n;
  return str_to_u64(s, &n) && n > 0 && n < 65536;
}

void db_host_port(struct str text, struct str *ret_host, struct str *ret_port) {
  struct ip_addr ip;
  *ret_host = text;
  *ret_port = STR_UNSET;
  if (text.len > 2 && text.p[0] == '[') {
    ptrdiff_t end = str_find_byte(text, ']');
    if (end > 0) {
      *ret_host = str_slice(text, 1, (size_t)end);
      struct str rest = str_from(text, (size_t)end + 1);
      if (rest.len > 1 && (rest.p[0] == ':' || rest.p[0] == '.'))
        *ret_port = str_from(rest, 1);
    }
    return;
  }
  if (ip_parse(text, &ip))
    return;
  /* An IPv6 address has colons of its own: its port stands behind a full stop. */
  ptrdiff_t colon = str_find_byte(text, ':');
  bool v6 = colon >= 0 && str_rfind_byte(text, ':') != colon;
  ptrdiff_t at = v6 ? str_rfind_byte(text, '.') : colon;
  if (at > 0 && is_number(str_from(text, (size_t)at + 1))) {
    *ret_host = str_slice(text, 0, (size_t)at);
    *ret_port = str_from(text, (size_t)at + 1);
  }
}
