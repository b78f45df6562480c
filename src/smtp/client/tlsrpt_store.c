/* What is counted for TLS reports, within bounds. */
#include <time.h>

#include "base/vec.h"
#include "hints/hints.h"
#include "log/log.h"
#include "smtp/client/tlsrpt.h"

#define PRUNE_AT_ONCE 1000
#define PRUNE_PAUSE 60
#define POLICY_MAX 8192
#define KEY_MAX 500

struct addition {
  struct str policy;
  bool is_new, room;
};

static int add_one(struct arena *a, struct str *value, void *arg) {
  struct addition *add = arg;
  struct str old = *value;
  int64_t count = 0;
  add->is_new = !str_is_set(old);
  if (add->is_new && !add->room)
    return 0;
  if (!add->is_new && !str_to_i64(str_cut(&old, '\n'), &count))
    count = 0;
  *value = str_printf(a, "%lld\n%.*s", (long long)count + 1, STRF(add->policy));
  return 1;
}

static int add_size(struct arena *a, struct str *value, void *arg) {
  int64_t size = 0, *more = arg;
  if (str_is_set(*value) && !str_to_i64(*value, &size))
    size = 0;
  *value = str_printf(a, "%lld", (long long)(size + *more));
  return 1;
}

struct tlsrpt_day tlsrpt_day(int64_t when) {
  struct tlsrpt_day d;
  struct tm tm;
  time_t t = (time_t)when;
  strftime(d.text, sizeof d.text, "%Y-%m-%d", gmtime_r(&t, &tm));
  return d;
}

struct str tlsrpt_size_key(struct arena *a, struct str key) {
  return str_printf(a, "size %.*s", STRF(str_slice(key, 0, key.len < 10 ? key.len : 10)));
}

struct old_keys {
  struct arena *a;
  struct str first_day;
  VEC(struct str) keys;
};

static bool is_old(struct str key, struct str value, void *arg) {
  struct old_keys *o = arg;
  if (o->keys.n >= PRUNE_AT_ONCE || str_cmp(str_slice(key, 0, key.len < 10 ? key.len : 10), o->first_day) >= 0)
    return false;
  vec_push(o->a, &o->keys, str_dup(o->a, key));
  return true;
}

/* Nobody need call `martlet tls-report`: what comes in takes what is old away. */
static void prune(struct ctx *c, int64_t now) {
  static int64_t last;
  struct tlsrpt_day first = tlsrpt_day(now - TLSRPT_DAYS * 86400);
  struct old_keys old = {.a = arena_new("TLS reports"), .first_day = str_c(first.text)};
  if (now - last >= PRUNE_PAUSE || now < last) {
    last = now;
    (void)hints_each(c, TLSRPT_DATABASE, is_old, &old);
  }
  for (size_t i = 0; i < old.keys.n; i++) {
    (void)hints_delete(c, TLSRPT_DATABASE, old.keys.v[i]);
    (void)hints_delete(c, TLSRPT_DATABASE, tlsrpt_size_key(old.a, old.keys.v[i]));
  }
  arena_free(old.a);
}

static void count(struct ctx *c, struct arena *a, struct str key, struct str policy) {
  struct str size_key = tlsrpt_size_key(a, key), text;
  struct addition add = {.policy = policy};
  int64_t size = 0, more = key.len + policy.len;
  if (hints_get(c, TLSRPT_DATABASE, size_key, a, &text) != OUTCOME_OK || !str_to_i64(text, &size))
    size = 0;
  add.room = size + more <= TLSRPT_DAY_BYTES;
  if (hints_update(c, TLSRPT_DATABASE, key, add_one, &add) != OUTCOME_OK || !add.is_new || size > TLSRPT_DAY_BYTES)
    return;
  if (!add.room) { /* said once */
    log_write(LOG_MAIN, NULL, "TLS reports: there is no room for more results of %.*s", STRF(str_slice(key, 0, 10)));
    more = TLSRPT_DAY_BYTES + 1;
  }
  (void)hints_update(c, TLSRPT_DATABASE, size_key, add_size, &more);
}

void tlsrpt_keep(struct ctx *c, int64_t now, struct str words, struct str policy) {
  struct arena *a = arena_new("TLS report");
  struct str key = str_printf(a, "%s %.*s", tlsrpt_day(now).text, STRF(words));
  prune(c, now);
  if (key.len <= KEY_MAX)
    count(c, a, key, str_slice(policy, 0, policy.len < POLICY_MAX ? policy.len : POLICY_MAX));
  arena_free(a);
}
