#include "deliver/address.h"

#include "base/map.h"
#include "core/ctx.h"

const struct address *address_top(const struct address *addr) {
  while (addr->parent)
    addr = addr->parent;
  return addr;
}

static void address_take_apart(struct arena *a, struct address *addr) {
  struct str local, domain;
  address_split(addr->address, &local, &domain);
  addr->domain = str_lower(a, domain);
  addr->cc_local_part = address_unquote_local_part(a, local);
  addr->lc_local_part = str_lower(a, addr->cc_local_part);
  addr->local_part = addr->lc_local_part;
  /* Local parts count as written in the search for duplicates, domains do not. */
  addr->unique = str_cat(a, str_slice(addr->address, 0, addr->address.len - domain.len), addr->domain);
}

struct address *address_new(struct arena *a, struct str address, int recipient) {
  struct address *addr = arena_new_of(a, struct address);
  addr->address = str_dup(a, address);
  addr->recipient = recipient;
  addr->mode = -1;
  addr->result = OUTCOME_DEFER;
  address_take_apart(a, addr);
  return addr;
}

/* What every address that comes from another has of it. */
static struct address *descendant(struct arena *a, struct address *parent, struct str text) {
  struct address *addr = arena_new_of(a, struct address);
  addr->address = str_dup(a, text);
  addr->recipient = parent->recipient;
  addr->mode = -1;
  addr->result = OUTCOME_DEFER;
  addr->parent = parent;
  addr->prop = parent->prop;
  addr->onetime_parent = parent->onetime_parent;
  addr->topaddr = str_is_set(parent->topaddr) ? parent->topaddr : address_top(parent)->address;
  addr->local_error = parent->local_error;
  addr->self_hostname = parent->self_hostname;
  addr->dsn_flags = parent->dsn_flags;
  addr->dsn_ended = parent->dsn_ended;
  addr->dsn_orcpt = parent->dsn_orcpt;
  return addr;
}

struct address *address_child(struct arena *a, struct address *parent, struct str text) {
  struct address *addr = descendant(a, parent, text);
  addr->verify_sender = parent->verify_sender;
  addr->verify_recipient = parent->verify_recipient;
  address_take_apart(a, addr);
  /* A child with the address of an ancestor has a key of its own, so that its delivery does not cross off the ancestor. */
  int same = 0;
  for (const struct address *up = parent; up; up = up->parent)
    if (up->kind == ADDRESS_MAIL && str_eq(up->address, addr->address))
      same++;
  addr->homonym = same > 0;
  if (same)
    addr->unique = str_printf(a, "\\%d\\%.*s", same - 1, STRF(addr->unique));
  return addr;
}

struct str address_plain_key(const struct address *a) {
  if (!a->homonym)
    return a->unique;
  ptrdiff_t end = str_find_byte(str_from(a->unique, 1), '\\');
  return str_from(a->unique, end + 2);
}

struct address *address_special(struct arena *a, struct address *parent, enum address_kind kind, struct str text) {
  struct address *addr = descendant(a, parent, text);
  addr->kind = kind;
  addr->domain = parent->domain;
  addr->cc_local_part = parent->cc_local_part;
  addr->lc_local_part = parent->lc_local_part;
  addr->local_part = parent->local_part;
  addr->prefix = parent->prefix;
  addr->prefix_v = parent->prefix_v;
  addr->suffix = parent->suffix;
  addr->suffix_v = parent->suffix_v;
  struct str key = address_plain_key(parent);
  addr->unique = str_printf(a, "%.*s:%.*s", STRF(addr->address), STRF(key));
  return addr;
}

struct str address_without_affixes(struct arena *a, const struct address *addr) {
  if (addr->kind != ADDRESS_MAIL || (!addr->prefix.len && !addr->suffix.len))
    return addr->address;
  struct str local, domain, inner = addr->cc_local_part;
  address_split(addr->address, &local, &domain);
  inner = str_slice(inner, addr->prefix.len, inner.len - addr->suffix.len);
  return str_cat(a, address_quote_local_part(a, inner), str_cat(a, STR("@"), domain));
}

/* The whole local part, affixes included, in the case in which its router saw it. */
static struct str full_local_part(const struct address *addr) {
  return addr->caseful ? addr->cc_local_part : addr->lc_local_part;
}

static void set_ancestor_vars(struct policy_vars *v, const struct address *addr) {
  const struct address *top = address_top(addr);
  if (str_is_set(addr->onetime_parent)) {
    address_split(addr->onetime_parent, &v->original_local_part, &v->original_domain);
  } else {
    v->original_local_part = full_local_part(top);
    v->original_domain = top->domain;
  }
  if (addr->parent) {
    v->parent_domain = addr->parent->domain;
    v->parent_local_part = full_local_part(addr->parent);
  }
}

static bool same_domain(const struct address *chain) {
  for (const struct address *a = chain->next; a; a = a->next)
    if (!str_eq(a->domain, chain->domain))
      return false;
  return true;
}

static bool same_local_part(const struct address *chain) {
  for (const struct address *a = chain->next; a; a = a->next)
    if (!str_eq(a->local_part, chain->local_part))
      return false;
  return true;
}

void address_set_vars(struct ctx *c, const struct address *chain) {
  struct policy_vars *v = &c->vars;
  bool several = chain->next != NULL;
  address_clear_vars(c);
  c->address = (struct address *)chain;
  c->router_vars = chain->prop.set_vars;
  v->address_data = chain->prop.address_data;
  v->self_hostname = chain->self_hostname;
  if (chain->hosts)
    v->host_data = chain->host_data;
  if (several) {
    /* Of a batch only what all have in common is known. */
    if (same_domain(chain)) {
      v->domain = chain->domain;
      v->domain_data = chain->prop.domain_data;
    }
    if (same_local_part(chain)) {
      v->local_part = chain->local_part;
      v->local_part_data = chain->prop.local_part_data;
    }
    return;
  }
  v->domain = chain->domain;
  v->domain_data = chain->prop.domain_data;
  v->local_part = chain->local_part;
  v->local_part_data = chain->prop.local_part_data;
  v->local_part_prefix = chain->prefix;
  v->local_part_prefix_v = chain->prefix_v;
  v->local_part_suffix = chain->suffix;
  v->local_part_suffix_v = chain->suffix_v;
  if (chain->kind == ADDRESS_FILE)
    v->address_file = chain->address;
  else if (chain->kind == ADDRESS_PIPE)
    v->address_pipe = chain->address;
  set_ancestor_vars(v, chain);
}

void address_clear_vars(struct ctx *c) {
  struct policy_vars *v = &c->vars;
  v->domain = v->domain_data = v->local_part = v->local_part_data = STR_UNSET;
  v->local_part_prefix = v->local_part_prefix_v = v->local_part_suffix = v->local_part_suffix_v = STR_UNSET;
  v->original_local_part = v->original_domain = v->parent_local_part = v->parent_domain = STR_UNSET;
  v->self_hostname = v->address_data = v->home = v->address_file = v->address_pipe = v->host_data = STR_UNSET;
  c->router_vars = NULL;
  c->address = NULL;
}
