/* `ratelimit =` and `seen =` (Exim manual, sections "Rate limiting incoming
messages", "Previously seen user and hosts"): exponentially weighted rates and
time stamps in the hints databases `ratelimit` and `seen`. Keys hold what
clients send: they are bounded and opaque to the store. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#include "acl/internal.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "core/module.h"
#include "hints/hints.h"
#include "log/log.h"
#include "match/match.h"

#define KEY_MAX 1000
#define UNIQUE_MAX 1000 /* different events remembered per key */

enum per { PER_MAIL, PER_CONN, PER_BYTE, PER_RCPT, PER_ADDR, PER_CMD, PER_NONE };
static const char *const per_names[] = {"per_mail", "per_conn", "per_byte", "per_rcpt", "per_addr", "per_cmd"};

enum mode { MODE_UNSET, MODE_LEAKY, MODE_STRICT, MODE_READONLY };

struct rate_request {
  double limit, period, count;
  bool count_set;
  enum per per;
  enum mode mode;
  struct str unique, key;
  struct str limit_text, period_text;
};

/* A record is text: "seconds.micros rate hash hash …". */
struct rate_update {
  const struct rate_request *q;
  double now, rate;
  uint64_t event;      /* hash of the unique value */
};

static double parse_number(struct str s, bool *ok) {
  char text[64];
  if (s.len == 0 || s.len >= sizeof text) {
    *ok = false;
    return 0;
  }
  memcpy(text, s.p, s.len);
  text[s.len] = 0;
  char *end;
  double v = strtod(text, &end);
  if (end == text || !(v >= 0) || isinf(v)) {
    *ok = false;
    return 0;
  }
  if (*end == 'k' || *end == 'K')
    v *= 1024, end++;
  else if (*end == 'm' || *end == 'M')
    v *= 1024.0 * 1024, end++;
  else if (*end == 'g' || *end == 'G')
    v *= 1024.0 * 1024 * 1024, end++;
  *ok = *end == 0;
  return v;
}

/* The new rate after an event of weight `count`, `interval` seconds after the last. */
static double smooth(double old, double count, double interval, double period) {
  double i = interval / period;
  if (i < 1e-9)
    i = 1e-9;
  double a = exp(-i);
  return (1 - a) * count / i + a * old;
}

static int update_rate(struct arena *a, struct str *value, void *arg) {
  struct rate_update *u = arg;
  const struct rate_request *q = u->q;
  double then = 0, old = 0;
  bool ok = false, known = false;
  struct str rest = STR_EMPTY;
  if (str_is_set(*value) && value->len > 0) {
    rest = *value;
    then = parse_number(str_cut(&rest, ' '), &ok);
    bool rate_ok = false;
    old = parse_number(str_is_set(rest) ? str_cut(&rest, ' ') : STR_EMPTY, &rate_ok);
    ok = ok && rate_ok;
  }
  if (!str_is_set(rest))
    rest = STR_EMPTY;
  struct str hashes = rest;
  if (ok && u->now - then > q->period) /* forget the events of an earlier period */
    hashes = STR_EMPTY;
  char mine[20];
  struct buf b;
  if (str_is_set(q->unique)) {
    snprintf(mine, sizeof mine, "%016llx", (unsigned long long)u->event);
    known = ok && str_find(hashes, str_c(mine)) >= 0;
  }
  double count = known || q->mode == MODE_READONLY ? 0 : q->count;
  if (!ok)
    u->rate = q->mode == MODE_READONLY ? 0 : count;
  else
    u->rate = smooth(old, count, u->now > then ? u->now - then : 0, q->period);
  if (q->mode == MODE_READONLY)
    return 0;
  if (q->mode != MODE_STRICT && u->rate >= q->limit)
    return 0; /* leaky: what is refused is not counted */
  buf_init(&b, a, 32 + 32 + UNIQUE_MAX * 17);
  buf_printf(&b, "%.6f %.9g", u->now, u->rate);
  if (hashes.len > 0 && hashes.len < (UNIQUE_MAX - 1) * 17) {
    buf_add_byte(&b, ' ');
    buf_add(&b, hashes);
  }
  if (str_is_set(q->unique) && !known)
    buf_printf(&b, " %s", mine);
  *value = buf_str(&b);
  return 1;
}

static int bad(struct ctx *c, const char *what) {
  return acl_fail(c, OUTCOME_ERROR, "error in arguments to \"ratelimit\" condition: %s", what);
}

static int bad_text(struct ctx *c, struct str text, const char *what) {
  return acl_fail(c, OUTCOME_ERROR, "error in arguments to \"ratelimit\" condition: \"%.*s\" is not a %s", STRF(text), what);
}

static int set_mode(struct ctx *c, struct rate_request *q, enum mode m) {
  if (q->mode != MODE_UNSET && (q->mode != m || m != MODE_READONLY)) /* readonly has two names */
    return bad(c, "conflicting update modes");
  q->mode = m;
  return 0;
}

static int parse_request(struct ctx *c, struct str arg, struct rate_request *q) {
  bool ok;
  struct str rest = arg;
  *q = (struct rate_request){.per = PER_NONE, .count = 1};
  q->limit_text = str_trim(str_cut(&rest, '/'));
  if (str_trim(arg).len == 0)
    return bad(c, "sender rate limit not set");
  q->limit = parse_number(q->limit_text, &ok);
  if (!ok && q->limit_text.len > 0)
    return bad_text(c, q->limit_text, "positive number");
  q->period_text = str_is_set(rest) ? str_trim(str_cut(&rest, '/')) : STR_EMPTY;
  int64_t seconds = acl_time(q->period_text);
  if (seconds <= 0)
    return bad_text(c, q->period_text.len ? q->period_text : STR("NULL"), "time value");
  if (!ok)
    return bad(c, "sender rate limit not set");
  q->period = (double)seconds;
  while (str_is_set(rest)) {
    struct str all = rest, item = str_trim(str_cut(&rest, '/'));
    int per = PER_NONE;
    for (int i = 0; i < PER_NONE; i++)
      if (str_eq_c(item, per_names[i]))
        per = i;
    if (per != PER_NONE) {
      if (q->per != PER_NONE)
        return bad(c, "conflicting per_* options");
      q->per = per;
    } else if (str_eq_c(item, "leaky")) {
      if (set_mode(c, q, MODE_LEAKY) < 0)
        return OUTCOME_ERROR;
    } else if (str_eq_c(item, "strict")) {
      if (set_mode(c, q, MODE_STRICT) < 0)
        return OUTCOME_ERROR;
    } else if (str_eq_c(item, "readonly") || str_eq_c(item, "noupdate")) {
      if (set_mode(c, q, MODE_READONLY) < 0)
        return OUTCOME_ERROR;
    } else if (str_starts(item, STR("count="))) {
      q->count = parse_number(str_from(item, 6), &ok);
      q->count_set = true;
      if (!ok)
        return bad_text(c, item, "positive number");
    } else if (str_starts(item, STR("unique="))) {
      q->unique = str_from(item, 7);
    } else {
      q->key = str_trim(all); /* the last: it may hold slashes */
      break;
    }
  }
  return 0;
}

/* What is measured here, and may it be updated in this ACL? */
static int finish_request(struct ctx *c, struct rate_request *q) {
  enum acl_where w = c->acl->where;
  if (q->per == PER_NONE)
    q->per = PER_MAIL;
  uint32_t allowed = ACL_ALL;
  if (q->per == PER_MAIL || q->per == PER_BYTE)
    allowed = ACL_MESSAGE_WHERE & ~ACL_BIT(ACL_DKIM);
  else if (q->per == PER_RCPT)
    allowed = ACL_MESSAGE_WHERE & ~ACL_BIT(ACL_MAIL);
  else if (q->per == PER_ADDR)
    allowed = ACL_BIT(ACL_RCPT);
  else if (q->per == PER_CONN)
    allowed = ACL_ALL & ~ACL_NOT_SMTP_WHERE;
  if (!(allowed & ACL_BIT(w))) {
    if (q->mode == MODE_LEAKY || q->mode == MODE_STRICT)
      return acl_fail(c, OUTCOME_ERROR, "\"%s\" must not have /leaky or /strict option, or cannot be used in %s ACL",
          per_names[q->per], acl_where_name(w));
    q->mode = MODE_READONLY;
  }
  if (q->mode == MODE_UNSET)
    q->mode = MODE_LEAKY;
  if (q->per == PER_BYTE && !q->count_set)
    q->count = c->message && c->message->size > 0 ? (double)c->message->size : 0;
  if (q->per == PER_RCPT && !q->count_set && w != ACL_RCPT)
    q->count = c->message ? (double)c->message->recipients.n : 0;
  if (q->per == PER_ADDR && !str_is_set(q->unique)) {
    struct acl_session *s = acl_session(c);
    if (s && s->recipient)
      q->unique = s->recipient->address;
  }
  if (!str_is_set(q->key))
    q->key = str_is_set(c->client->host_address) ? c->client->host_address : STR_EMPTY;
  return 0;
}

/* A rate that was computed already for this connection, message or recipient is not computed again. */
static struct map **cache_of(struct ctx *c, enum per per, struct arena **ret_arena) {
  struct acl_session *s = acl_session(c);
  struct acl_message *m = acl_message(c);
  if (per == PER_CONN && s) {
    *ret_arena = c->session->arena;
    return &s->rates;
  }
  if ((per == PER_MAIL || per == PER_BYTE) && m) {
    *ret_arena = c->message->arena;
    return &m->rates;
  }
  if ((per == PER_RCPT || per == PER_ADDR) && c->acl->where == ACL_RCPT && s && s->recipient) {
    *ret_arena = c->arena;
    return &s->recipient->rates;
  }
  if (per == PER_RCPT && m) {
    *ret_arena = c->message->arena;
    return &m->rates;
  }
  return NULL;
}

/* Two of the kinds are others with a count or a unique= of their own. */
static enum per key_kind(enum per per) { return per == PER_ADDR ? PER_RCPT : per == PER_BYTE ? PER_MAIL : per; }

int acl_eval_ratelimit(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct rate_request q;
  if (parse_request(c, str_trim(arg), &q) < 0 || finish_request(c, &q) < 0)
    return OUTCOME_ERROR;
  struct str key = str_printf(c->arena, "%.*s/%s%s/%.*s", STRF(q.period_text), per_names[key_kind(q.per)],
      str_is_set(q.unique) ? "/unique" : "", STRF(str_slice(q.key, 0, KEY_MAX)));
  key.taint = q.key.taint;
  struct arena *ca = c->arena;
  struct map **cache = cache_of(c, q.per, &ca);
  double *known = cache && *cache ? map_get(*cache, key) : NULL;
  struct timeval tv;
  gettimeofday(&tv, NULL);
  struct rate_update u = {.q = &q, .now = (double)tv.tv_sec + (double)tv.tv_usec / 1e6,
      .event = str_is_set(q.unique) ? str_ihash(q.unique) : 0};
  if (known) {
    u.rate = *known;
  } else {
    if (hints_update(c, "ratelimit", key, update_rate, &u) == OUTCOME_DEFER)
      return acl_fail(c, OUTCOME_DEFER, "ratelimit database is not available");
    if (cache) {
      if (!*cache)
        *cache = map_new(ca);
      double *keep = arena_new_of(ca, double);
      *keep = u.rate;
      map_set(*cache, key, keep);
    }
  }
  c->vars.sender_rate = str_printf(c->arena, "%.1f", u.rate);
  c->vars.sender_rate_limit = q.limit_text;
  c->vars.sender_rate_period = q.period_text;
  return u.rate >= q.limit ? OUTCOME_OK : OUTCOME_FAIL;
}

/* ---- seen ---- */

struct seen_update {
  int64_t now, interval, refresh;
  bool write, readonly, found;
  int64_t then;
};

static int update_seen(struct arena *a, struct str *value, void *arg) {
  struct seen_update *u = arg;
  if (str_is_set(*value))
    u->found = str_to_i64(str_trim(*value), &u->then);
  bool stale = u->found && u->now - u->then >= u->refresh;
  if (u->readonly || (u->found && !(u->write || stale)))
    return 0;
  *value = str_printf(a, "%lld", (long long)u->now);
  return 1;
}

int acl_eval_seen(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str rest = str_trim(arg), item = str_trim(str_cut(&rest, '/'));
  struct str key = str_is_set(c->client->host_address) ? c->client->host_address : STR_EMPTY;
  struct timeval tv;
  gettimeofday(&tv, NULL);
  struct seen_update u = {.now = tv.tv_sec, .refresh = 10 * 86400};
  bool before = item.len > 0 && item.p[0] == '-';
  u.interval = acl_time(before ? str_from(item, 1) : item);
  if (u.interval < 0)
    return acl_fail(c, OUTCOME_ERROR, "error in arguments to \"seen\" condition: interval '%.*s' not a time value", STRF(item));
  while (str_is_set(rest)) {
    item = str_trim(str_cut(&rest, '/'));
    if (str_starts(item, STR("key=")))
      key = str_from(item, 4);
    else if (str_eq_c(item, "readonly"))
      u.readonly = true;
    else if (str_eq_c(item, "write"))
      u.write = true;
    else if (str_starts(item, STR("refresh=")) && (u.refresh = acl_time(str_from(item, 8))) >= 0)
      continue;
    else
      return acl_fail(c, OUTCOME_ERROR, "error in arguments to \"seen\" condition: option '%.*s'", STRF(item));
  }
  key = str_slice(key, 0, KEY_MAX);
  if (hints_update(c, "seen", key, update_seen, &u) == OUTCOME_DEFER)
    return acl_fail(c, OUTCOME_DEFER, "database for \"seen\" is not available");
  bool within = u.found && u.now - u.then < u.interval;
  if (before) /* seen, and not within the interval */
    return u.found && !within ? OUTCOME_OK : OUTCOME_FAIL;
  return within ? OUTCOME_OK : OUTCOME_FAIL;
}
