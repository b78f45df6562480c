/* The personal condition (filter specification, "Details of the personal condition"). */

#include "filter/internal.h"
#include "message/address.h"
#include "message/message.h"
#include "message/rewrite.h"

#define SELF_MAX 16

struct self {
  const struct str *aliases;
  size_t aliases_n;
  struct str address[SELF_MAX];
  size_t n;
};

static bool has_header(const struct message *m, const char *name) { return message_find_header(m, str_c(name), NULL) != NULL; }

static void add_self(struct ctx *c, struct self *self, struct str local_part) {
  struct str a = str_cat(c->arena, local_part, str_cat(c->arena, STR("@"), c->vars.domain)), rewritten = a;
  if (self->n + 2 > SELF_MAX)
    return;
  self->address[self->n++] = a;
  (void)rewrite_envelope_recipient(c, &rewritten);
  if (!str_ieq(rewritten, a))
    self->address[self->n++] = rewritten;
}

static bool is_self(const struct self *self, struct str address) {
  for (size_t i = 0; i < self->n; i++)
    if (str_ieq(address, self->address[i]))
      return true;
  for (size_t i = 0; i < self->aliases_n; i++)
    if (str_ieq(address, self->aliases[i]))
      return true;
  return false;
}

/* server@ …, …-request@, owner-…@: as Exim does it, not in the middle of a word as its manual says */
static bool is_robot(struct str address) {
  static const char *const names[] = {"server@", "daemon@", "root@", "listserv@", "majordomo@"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (str_istarts(address, str_c(names[i])))
      return true;
  if (str_ifind(address, STR("-request@")) >= 0)
    return true;
  return str_istarts(address, STR("owner-")) && str_find_byte(address, '@') > 6;
}

/* Does one of the header's addresses belong to the user, or (with robots) to a machine? */
static bool any_address(struct ctx *c, const struct self *self, const char *name, bool robots) {
  struct header *h = NULL;
  while ((h = message_find_header(c->message, str_c(name), h))) {
    struct str value = header_value(h), error;
    struct address_walk w = {.text = value};
    struct mail_address m;
    while (address_walk_next(&w)) {
      if (address_parse(c->arena, str_slice(value, w.from, w.to), 0, &m, &error))
        continue;
      if (is_self(self, m.address) || (robots && is_robot(m.address)))
        return true;
    }
  }
  return false;
}

static bool precedence_of_lists(const struct message *m) {
  struct header *h = NULL;
  while ((h = message_find_header(m, STR("Precedence"), h))) {
    struct str v = header_value(h);
    if (str_ifind(v, STR("bulk")) >= 0 || str_ifind(v, STR("list")) >= 0 || str_ifind(v, STR("junk")) >= 0)
      return true;
  }
  return false;
}

bool filter_is_personal(struct ctx *c, const struct str *aliases, size_t n) {
  static const char *const lists[] = {"List-Id", "List-Help", "List-Subscribe", "List-Unsubscribe", "List-Post", "List-Owner",
      "List-Archive"};
  const struct message *m = c->message;
  if (!m || !m->reverse_path.len || (c->filter && c->filter->system)) /* a system filter serves no single user */
    return false;
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    if (has_header(m, lists[i]))
      return false;
  struct header *automatic = message_find_header(m, STR("Auto-Submitted"), NULL);
  if ((automatic && !str_ieq_c(header_value(automatic), "no")) || precedence_of_lists(m))
    return false;
  struct self self = {.aliases = aliases, .aliases_n = n};
  struct policy_vars *v = &c->vars;
  add_self(c, &self, v->local_part);
  if (v->local_part_prefix.len || v->local_part_suffix.len) {
    add_self(c, &self, str_cat(c->arena, v->local_part_prefix, v->local_part));
    add_self(c, &self, str_cat(c->arena, v->local_part, v->local_part_suffix));
    add_self(c, &self, str_cat(c->arena, v->local_part_prefix, str_cat(c->arena, v->local_part, v->local_part_suffix)));
  }
  return any_address(c, &self, "To", false) && !any_address(c, &self, "From", true);
}
