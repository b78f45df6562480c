/* Walking a list: polarity of items, named lists, files, results remembered;
and the room's entry points. */
#include "match/match.h"

#include "config/config.h"
#include "expand/expand.h"
#include "log/log.h"
#include "lookup/memo.h"
#include "match/list.h"

const char *match_kind_name(enum list_kind kind) {
  static const char *const names[] = {"string", "domain", "host", "address", "local part"};
  return names[kind];
}

static int match_one(struct match *m, const struct item *i) {
  switch (i->type) {
  case ITEM_NAMED:
    return match_named(m, m->kind, i->arg);
  case ITEM_FILE:
    return match_file(m, i);
  default:
    break;
  }
  switch (m->kind) {
  case LIST_HOST:
    return match_item_host(m, i);
  case LIST_ADDRESS:
    return match_item_address(m, i);
  case LIST_DOMAIN:
    return match_item_domain(m, i, m->subject);
  default:
    return match_item_string(m, i, m->caseful ? m->original : m->subject, m->caseful);
  }
}

/* Words that change what follows. true: it was one. */
static bool switch_item(struct match *m, const struct item *i) {
  switch (i->type) {
  case ITEM_CASEFUL:
    m->caseful = true;
    return true;
  case ITEM_INCLUDE_UNKNOWN: case ITEM_IGNORE_UNKNOWN:
    m->include_unknown = i->type == ITEM_INCLUDE_UNKNOWN;
    m->ignore_unknown = !m->include_unknown;
    return true;
  case ITEM_INCLUDE_DEFER: case ITEM_IGNORE_DEFER:
    m->include_defer = i->type == ITEM_INCLUDE_DEFER;
    m->ignore_defer = !m->include_defer;
    return true;
  default:
    return false;
  }
}

/* A host item that could not be decided (manual, "Behaviour when an IP address or name cannot be found").
1: go on with the next item; else the result of the whole list. */
static int undecided(struct match *m, int r) {
  bool unknown = r == MATCH_UNKNOWN;
  if (unknown ? m->ignore_unknown : m->ignore_defer)
    return 1;
  if (unknown ? m->include_unknown : m->include_defer) {
    if (log_selected(LOGSEL_unknown_in_list))
      log_write(LOG_MAIN, m->c->message, "%.*s: accepted by +include_%s", STRF(m->c->error), unknown ? "unknown" : "defer");
    return OUTCOME_OK;
  }
  if (!unknown)
    return OUTCOME_DEFER;
  if (log_selected(LOGSEL_unknown_in_list))
    log_write(LOG_MAIN, m->c->message, "list matching forced to fail: %.*s", STRF(m->c->error));
  DEBUG(lists, "%s list: no (%.*s)\n", match_kind_name(m->kind), STRF(m->c->error));
  return OUTCOME_FAIL;
}

int match_list(struct match *m, const struct list *l) {
  bool negate = false;
  for (size_t k = 0; k < l->n; k++) {
    const struct item *i = &l->v[k];
    if (switch_item(m, i))
      continue;
    negate = i->negate;
    m->value = STR_UNSET;
    int r = match_one(m, i);
    if (r == MATCH_UNKNOWN || (r == OUTCOME_DEFER && m->kind == LIST_HOST)) {
      r = undecided(m, r);
      if (r == 1)
        continue;
      return r;
    }
    if (r == OUTCOME_OK || r == MATCH_NOT_IN) {
      bool in = (r == OUTCOME_OK) != negate;
      DEBUG(lists, "%.*s in \"%.*s\"? %s (matched \"%s%.*s\")\n", STRF(m->kind == LIST_HOST ? m->host_address : m->subject),
        STRF(l->text), in ? "yes" : "no", negate ? "!" : "", STRF(i->text));
      return in ? OUTCOME_OK : OUTCOME_FAIL;
    }
    if (r != OUTCOME_FAIL)
      return r;
    if (i->type == ITEM_FILE && m->file_ends_negated)
      negate = !negate;
  }
  m->value = STR_UNSET;
  DEBUG(lists, "%.*s in \"%.*s\"? %s (end of list)\n", STRF(m->kind == LIST_HOST ? m->host_address : m->subject),
    STRF(l->text), negate ? "yes" : "no");
  return negate ? OUTCOME_OK : OUTCOME_FAIL;
}

int match_file(struct match *m, const struct item *i) {
  struct list_ref *ref;
  const struct list *l;
  if (list_cache_file(m->c, m->kind, i->arg, &ref, &l) != OUTCOME_OK) {
    log_write(LOG_MAIN | LOG_PANIC, m->c->message, "%.*s", STRF(m->c->error));
    return OUTCOME_DEFER;
  }
  int r = OUTCOME_FAIL;
  bool negate = false;
  for (size_t k = 0; k < l->n && r == OUTCOME_FAIL; k++) {
    negate = l->v[k].negate;
    r = match_one(m, &l->v[k]);
    if ((r == MATCH_UNKNOWN && m->ignore_unknown) || (r == OUTCOME_DEFER && m->ignore_defer))
      r = OUTCOME_FAIL;
  }
  if (r == OUTCOME_OK) {
    if (str_is_set(m->value))
      m->value = str_dup(m->c->arena, m->value);
    r = negate ? MATCH_NOT_IN : OUTCOME_OK;
  }
  m->file_ends_negated = negate; /* as in any list, the last line decides about what was in none */
  list_cache_release(ref);
  return r;
}

int match_expand(struct ctx *c, const struct option_expr *list, struct str *ret, unsigned *ret_flags) {
  *ret_flags = list_changes_separator(list->text) ? MATCH_LITERAL_SEPARATOR : 0;
  return expand_option(c, list, ret);
}

/* The list of an option: compiled with the configuration, or expanded now. Unset: nothing is in it. */
static int match_option(struct match *m, const struct option_expr *e) {
  struct ctx *c = m->c;
  if (!str_is_set(e->text))
    return OUTCOME_FAIL;
  if (e->list)
    return match_list(m, e->list);
  struct str text;
  unsigned flags;
  struct expand_vars saved = ctx_save(c);
  int r = match_expand(c, e, &text, &flags);
  ctx_restore(c, &saved);
  if (memchr(e->text.p, '$', e->text.len))
    m->dynamic = true;
  if (r == OUTCOME_FORCED)
    return OUTCOME_FAIL;
  if (r != OUTCOME_OK) {
    if (r == OUTCOME_ERROR) {
      ctx_fail(c, OUTCOME_DEFER, "failed to expand \"%.*s\" while checking a list: %.*s", STRF(e->text), STRF(c->error));
      log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
    }
    return OUTCOME_DEFER;
  }
  if (!str_is_set(text))
    return OUTCOME_FAIL;
  struct list_ref *ref;
  r = match_list(m, list_cache_text(m->kind, text, flags, &ref));
  if (str_is_set(m->value))
    m->value = str_dup(c->arena, m->value);
  list_cache_release(ref);
  return r;
}

static struct str memo_key(const struct match *m, const struct named_list *l) {
  /* With its case: the list may contain +caseful. */
  struct str subject = m->kind == LIST_HOST ? m->host_address : m->original;
  bool client = m->kind == LIST_HOST && m->is_client;
  unsigned head[2] = {l->number, (unsigned)m->kind << 2 | (unsigned)m->caseful << 1 | client};
  char *p = arena_bytes(m->c->arena, sizeof head + 1 + subject.len);
  p[0] = '+';
  memcpy(p + 1, head, sizeof head);
  if (subject.len > 0)
    memcpy(p + 1 + sizeof head, subject.p, subject.len);
  return str_n(p, sizeof head + 1 + subject.len);
}

int match_named(struct match *m, enum list_kind kind, struct str name) {
  struct ctx *c = m->c;
  struct named_list *l = c->config ? config_list(c->config, kind, name) : NULL;
  if (l == NULL) {
    ctx_fail(c, OUTCOME_ERROR, "unknown named %s list \"+%.*s\"", match_kind_name(kind), STRF(name));
    log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
    return OUTCOME_DEFER;
  }
  if (m->depth >= LIST_MAX_DEPTH)
    return ctx_fail(c, OUTCOME_DEFER, "named %s lists are nested too deeply at \"+%.*s\"", match_kind_name(kind), STRF(name));
  const struct list *compiled = l->value.list;
  bool remember = compiled == NULL || !compiled->quick;
  struct str key = remember ? memo_key(m, l) : STR_UNSET;
  const struct memo_value *known = remember ? memo_get(c, key) : NULL;
  if (known) {
    m->value = str_is_set(known->value) ? str_dup(c->arena, known->value) : STR_UNSET;
    DEBUG(lists, "cached %s match for +%.*s\n", known->outcome == OUTCOME_OK ? "yes" : "no", STRF(name));
    return known->outcome;
  }
  struct match sub = *m;
  sub.depth++;
  sub.dynamic = false;
  /* These words do not reach into the lists that are named after them; +caseful does. */
  sub.include_unknown = sub.ignore_unknown = sub.include_defer = sub.ignore_defer = false;
  int r = match_option(&sub, &l->value);
  m->value = sub.value;
  m->host_name = sub.host_name;
  m->name_failed = sub.name_failed;
  if (!(r == OUTCOME_OK || r == OUTCOME_FAIL) || (sub.dynamic && !l->cache))
    m->dynamic = true;
  else if (remember)
    memo_put(c, key, r, sub.value, -1);
  return r;
}

void match_compile(struct arena *a, enum list_kind kind, struct option_expr *list) {
  list->list = (void *)list_compile(a, kind, list->text, MATCH_LITERAL_SEPARATOR);
}

static void compile_expr(struct config *c, struct option_expr *e, enum option_type type, enum list_kind kind, void *arg) {
  bool constant = memchr(e->text.p, '$', e->text.len) == NULL && memchr(e->text.p, '\\', e->text.len) == NULL;
  if (type == OPTION_LIST && constant && kind != LIST_STRING)
    match_compile(c->arena, kind, e);
}

void match_compile_config(struct config *c) { config_each_expr(c, compile_expr, NULL); }

static struct match match_start(struct ctx *c, enum list_kind kind, struct str subject, bool caseful) {
  struct match m = {.c = c, .kind = kind, .original = subject, .caseful = caseful, .value = STR_UNSET};
  m.captures = kind == LIST_DOMAIN || kind == LIST_LOCAL_PART || kind == LIST_STRING;
  m.subject = kind == LIST_HOST ? STR_EMPTY : str_lower(c->arena, subject);
  if (kind == LIST_DOMAIN)
    m.original = m.subject;
  if (kind == LIST_ADDRESS) {
    ptrdiff_t at = str_rfind_byte(subject, '@');
    size_t split = at < 0 ? subject.len : (size_t)at;
    m.original = str_cat(c->arena, str_slice(subject, 0, split), str_from(m.subject, split));
  }
  return m;
}

static int match_end(struct match *m, int r, struct str *ret_data) {
  if (ret_data)
    *ret_data = r == OUTCOME_OK && str_is_set(m->value) ? str_dup(m->c->arena, m->value) : STR_UNSET;
  return r;
}

int match_domain(struct ctx *c, const struct option_expr *list, struct str domain, struct str *ret_data) {
  struct match m = match_start(c, LIST_DOMAIN, domain, false);
  return match_end(&m, match_option(&m, list), ret_data);
}

int match_local_part(struct ctx *c, const struct option_expr *list, struct str local_part, bool caseful,
    struct str *ret_data) {
  struct match m = match_start(c, LIST_LOCAL_PART, local_part, caseful);
  return match_end(&m, match_option(&m, list), ret_data);
}

int match_address(struct ctx *c, const struct option_expr *list, struct str address, bool caseful, struct str *ret_data) {
  struct match m = match_start(c, LIST_ADDRESS, address, caseful);
  return match_end(&m, match_option(&m, list), ret_data);
}

static struct match match_start_host(struct ctx *c, struct str name, struct str address) {
  struct match m = match_start(c, LIST_HOST, STR_EMPTY, false);
  m.host_name = str_is_set(name) ? name : STR_EMPTY;
  m.host_address = str_is_set(address) ? address : STR_EMPTY;
  if (m.host_address.len > 0 && ip_parse(m.host_address, &m.ip))
    ip_unmap(&m.ip);
  return m;
}

static struct match match_start_client(struct ctx *c) {
  struct match m = match_start_host(c, c->client->host_name, c->client->host_address);
  m.is_client = true;
  return m;
}

int match_client_host(struct ctx *c, const struct option_expr *list, struct str *ret_data) {
  struct match m = match_start_client(c);
  return match_end(&m, match_option(&m, list), ret_data);
}

int match_host(struct ctx *c, const struct option_expr *list, struct str name, struct str address, struct str *ret_data) {
  struct match m = match_start_host(c, name, address);
  return match_end(&m, match_option(&m, list), ret_data);
}

int match_ip(struct ctx *c, const struct option_expr *list, struct str address, struct str *ret_data) {
  struct match m = match_start_host(c, STR_EMPTY, address);
  m.ip_only = true;
  return match_end(&m, match_option(&m, list), ret_data);
}

static int match_now(struct match *m, struct str text, unsigned flags, struct str *ret_data) {
  struct list_ref *ref;
  int r = match_list(m, list_cache_text(m->kind, text, flags & MATCH_LITERAL_SEPARATOR, &ref));
  if (str_is_set(m->value))
    m->value = str_dup(m->c->arena, m->value);
  list_cache_release(ref);
  return match_end(m, r, ret_data);
}

int match_text(struct ctx *c, enum list_kind kind, struct str list, struct str subject, unsigned flags,
    struct str *ret_data) {
  struct match m = match_start(c, kind, subject, flags & MATCH_CASEFUL);
  if (kind == LIST_HOST) {
    m = match_start_host(c, STR_EMPTY, subject);
    m.ip_only = true;
  }
  return match_now(&m, list, flags, ret_data);
}

int match_host_text(struct ctx *c, struct str list, struct str name, struct str address, struct str *ret_data) {
  struct match m = match_start_host(c, name, address);
  return match_now(&m, list, 0, ret_data);
}

int match_client_host_text(struct ctx *c, struct str list, struct str *ret_data) {
  struct match m = match_start_client(c);
  return match_now(&m, list, 0, ret_data);
}

int match_string(struct ctx *c, struct str list, struct str subject, bool caseful, struct str *ret_data) {
  return match_text(c, LIST_STRING, list, subject, caseful ? MATCH_CASEFUL : 0, ret_data);
}

int match_item(struct ctx *c, struct str pattern, struct str subject, bool caseful) {
  struct match m = match_start(c, LIST_STRING, subject, caseful);
  struct item i;
  item_compile(c->arena, LIST_STRING, pattern, LIST_IN_FILE | LIST_TRANSIENT, &i);
  return match_item_string(&m, &i, caseful || i.type == ITEM_REGEX ? m.original : m.subject, caseful);
}
