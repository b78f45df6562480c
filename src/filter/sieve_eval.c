/* Tests of Sieve scripts evaluated. */

#include <stdio.h>

#include "base/buf.h"
#include "expand/rfc2047.h"
#include "filter/sieve.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"

#define HEADER_TEXT_MAX (1u << 20)

struct str sieve_header_text(struct ctx *c, struct str value) {
  struct buf b;
  buf_init(&b, c->arena, HEADER_TEXT_MAX);
  value = str_trim(str_slice(value, 0, HEADER_TEXT_MAX));
  for (uint32_t i = 0; i < value.len; i++)
    if (value.p[i] != '\n')
      buf_add_byte(&b, value.p[i]);
  b.taint = value.taint;
  value = buf_str(&b);
  return str_find(value, STR("=?")) < 0 ? value : rfc2047_decode(c, value, STR("UTF-8"));
}

/* Is one of the keys in it? -1: the run has ended. */
static int any_key(struct sieve_runner *r, const struct sieve_test *t, struct str value, bool *ret) {
  for (size_t i = 0; i < t->keys.n && !*ret; i++) {
    r->work += sieve_match_work(t->match, value, t->keys.v[i]);
    if (r->work > SIEVE_WORK_MAX)
      return filter_fail(&r->run, "the script's comparisons take too much work");
    *ret = sieve_matches(t->match, t->comparator, value, t->keys.v[i]);
  }
  return 0;
}

static struct header *next_header(struct sieve_runner *r, struct str name, const struct header *after) {
  const struct message *m = r->run.c->message;
  return m ? message_find_header(m, name, after) : NULL;
}

static int header(struct sieve_runner *r, const struct sieve_test *t, bool *ret) {
  for (size_t i = 0; i < t->names.n && !*ret; i++)
    for (struct header *h = NULL; !*ret && (h = next_header(r, t->names.v[i], h));) {
      if (!filter_step(&r->run) || any_key(r, t, sieve_header_text(r->run.c, header_value(h)), ret))
        return -1;
    }
  return 0;
}

static int exists(struct sieve_runner *r, const struct sieve_test *t, bool *ret) {
  *ret = true;
  for (size_t i = 0; i < t->names.n && *ret; i++) {
    if (!filter_step(&r->run))
      return -1;
    *ret = t->names.v[i].len && next_header(r, t->names.v[i], NULL) != NULL;
  }
  return 0;
}

/* --- addresses --- */

/* The part that the test asks for; unset: there is none. Of the recipient, the administrator's options say which parts they are. */
static struct str part_of(struct sieve_runner *r, const struct sieve_test *t, struct str address, bool recipient) {
  const struct filter_rules *rules = r->run.rules;
  struct str local, domain;
  address_split(address, &local, &domain);
  local = address_unquote_local_part(r->run.c->arena, local);
  switch (t->part) {
  case SIEVE_LOCALPART: return local;
  case SIEVE_DOMAIN: return domain;
  case SIEVE_USER: return recipient && str_is_set(rules->sieve_useraddress) ? rules->sieve_useraddress : local;
  case SIEVE_DETAIL: return recipient ? rules->sieve_subaddress : STR_UNSET;
  default: return address;
  }
}

static int one_address(struct sieve_runner *r, const struct sieve_test *t, struct str address, bool recipient, bool *ret) {
  struct str part = part_of(r, t, address, recipient);
  return str_is_set(part) ? any_key(r, t, part, ret) : 0;
}

static int header_addresses(struct sieve_runner *r, const struct sieve_test *t, const struct header *h, bool *ret) {
  struct address_walk w = {.text = header_value(h)};
  struct arena *a = r->run.c->arena;
  struct mail_address m;
  struct str error;
  while (!*ret && address_walk_next(&w)) {
    if (!filter_step(&r->run))
      return -1;
    if (!address_parse(a, str_slice(w.text, w.from, w.to), ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8, &m, &error) &&
        one_address(r, t, m.address, false, ret))
      return -1;
  }
  return 0;
}

static int address(struct sieve_runner *r, const struct sieve_test *t, bool *ret) {
  for (size_t i = 0; i < t->names.n && !*ret; i++)
    for (struct header *h = NULL; !*ret && (h = next_header(r, t->names.v[i], h));)
      if (header_addresses(r, t, h, ret))
        return -1;
  return 0;
}

static int envelope(struct sieve_runner *r, const struct sieve_test *t, bool *ret) {
  const struct message *m = r->run.c->message;
  for (size_t i = 0; i < t->names.n && !*ret; i++) {
    bool to = str_ieq_c(t->names.v[i], "to");
    struct str value = to ? sieve_recipient(r->run.c) : m && str_is_set(m->reverse_path) ? m->reverse_path : STR_EMPTY;
    if (one_address(r, t, value, to, ret))
      return -1;
  }
  return 0;
}

/* --- notify --- */

static bool valid_method(struct sieve_runner *r, struct str uri) {
  struct sieve_notify unused = {0};
  return !sieve_mailto(r->run.c->arena, uri, &unused);
}

/* Nobody knows whether a mailbox's owner is there (RFC 5435, section 5). */
static int notify_capability(struct sieve_runner *r, const struct sieve_test *t, bool *ret) {
  if (!valid_method(r, t->names.v[0]) || !str_ieq_c(t->capability, "online"))
    return 0;
  return any_key(r, t, STR("maybe"), ret);
}

/* --- all --- */

static int several(struct sieve_runner *r, const struct sieve_test *t, bool *ret) {
  bool all = t->kind == SIEVE_TEST_ALLOF;
  *ret = all;
  for (size_t i = 0; i < t->parts.n && *ret == all; i++)
    if (sieve_test(r, t->parts.v[i], ret))
      return -1;
  return 0;
}

int sieve_test(struct sieve_runner *r, const struct sieve_test *t, bool *ret) {
  const struct message *m = r->run.c->message;
  *ret = false;
  if (!filter_step(&r->run))
    return -1;
  switch (t->kind) {
  case SIEVE_TEST_TRUE: *ret = true; break;
  case SIEVE_TEST_FALSE: break;
  case SIEVE_TEST_NOT:
    if (sieve_test(r, t->parts.v[0], ret))
      return -1;
    *ret = !*ret;
    break;
  case SIEVE_TEST_ALLOF:
  case SIEVE_TEST_ANYOF: return several(r, t, ret);
  case SIEVE_TEST_EXISTS: return exists(r, t, ret);
  case SIEVE_TEST_SIZE: *ret = t->over ? (m ? m->size : 0) > t->size : (m ? m->size : 0) < t->size; break;
  case SIEVE_TEST_HEADER: return header(r, t, ret);
  case SIEVE_TEST_ADDRESS: return address(r, t, ret);
  case SIEVE_TEST_ENVELOPE: return envelope(r, t, ret);
  case SIEVE_TEST_VALID_NOTIFY:
    *ret = true;
    for (size_t i = 0; i < t->names.n && *ret; i++)
      *ret = valid_method(r, t->names.v[i]);
    break;
  case SIEVE_TEST_NOTIFY_CAPABILITY: return notify_capability(r, t, ret);
  }
  return 0;
}
