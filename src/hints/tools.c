/* exim_dumpdb and exim_tidydb. */
#include <stdio.h>
#include <time.h>
#include "base/vec.h"
#include "hints/records.h"
#include "base/buf.h"

struct str hints_time(struct arena *a, int64_t t, bool utc) {
  time_t when = (time_t)t;
  struct tm tm;
  char text[40];
  if (utc)
    gmtime_r(&when, &tm);
  else
    localtime_r(&when, &tm);
  strftime(text, sizeof text, "%d-%b-%Y %H:%M:%S", &tm);
  return str_c(arena_strdup(a, text));
}

struct dump {
  const struct hints_dump_options *o;
  const char *db;
  struct arena *a;
  void (*write)(struct str line, void *arg);
  void *arg;
  char host[256]; /* whose waiting messages are being shown */
};

static void dump_retry(struct dump *d, struct str key, struct str value) {
  struct hint_retry r;
  if (!hint_retry_decode(value, &r))
    return;
  d->write(str_printf(d->a, "  %.*s %d %d %.*s\n%.*s  %.*s  %.*s%s\n", STRF(key), r.basic_errno, r.more_errno, STRF(r.text),
    STRF(hints_time(d->a, r.first_failed, d->o->utc)), STRF(hints_time(d->a, r.last_try, d->o->utc)),
    STRF(hints_time(d->a, r.next_try, d->o->utc)), r.expired ? " *" : ""), d->arg);
}

static const char *answer_text(enum hint_answer v) {
  static const char *const texts[] = {"unknown", "accept", "reject", "reject_mfnull", "not tested"};
  return texts[v];
}

static struct str test_text(struct dump *d, const char *name, enum hint_answer v, int64_t stamp) {
  struct str s = str_printf(d->a, " %s=%s", name, answer_text(v));
  if (v == HINT_ACCEPT || v == HINT_REJECT)
    s = str_printf(d->a, "%.*s (%.*s)", STRF(s), STRF(hints_time(d->a, stamp, d->o->utc)));
  return s;
}

static void dump_callout(struct dump *d, struct str key, struct str value, int64_t stamp) {
  struct hint_callout r;
  if (!hint_callout_decode(value, &r))
    return;
  struct str tests = STR_EMPTY;
  if (r.is_domain)
    tests = str_cat(d->a, test_text(d, "postmaster", r.postmaster, r.postmaster_stamp),
      test_text(d, "random", r.random, r.random_stamp));
  d->write(str_printf(d->a, "%.*s %.*s callout=%s%.*s\n", STRF(hints_time(d->a, stamp, d->o->utc)), STRF(key),
    answer_text(r.result), STRF(tests)), d->arg);
}

/* "now rate [events]" as acl/ratelimit.c writes it. */
static void dump_rate(struct dump *d, struct str key, struct str value) {
  char text[128];
  double when, rate;
  int n = snprintf(text, sizeof text, "%.*s", STRF(str_slice(value, 0, 100)));
  if (n <= 0 || sscanf(text, "%lf %lf", &when, &rate) != 2 || !(when >= 0 && when < 1e12))
    return;
  int64_t seconds = (int64_t)when;
  d->write(str_printf(d->a, "%.*s.%06d rate: %10.3f key: %.*s\n", STRF(hints_time(d->a, seconds, d->o->utc)),
    (int)((when - (double)seconds) * 1e6), rate, STRF(key)), d->arg);
}

/* What smtp/client/early.c remembers of a server: "time FF summary FF …". */
static void dump_ehlo(struct dump *d, struct str key, struct str value) {
  struct str end = STR(".EHLO");
  if (key.len <= end.len || !str_eq(str_from(key, key.len - end.len), end))
    return;
  (void)str_cut(&value, '\f');
  struct str host = str_slice(key, 0, key.len - end.len), summary = str_cut(&value, '\f');
  if (str_is_set(summary))
    d->write(str_printf(d->a, "helo/ehlo %.*s %.*s\n", STRF(host), STRF(summary)), d->arg);
}

/* One line for each host, with the ids of all that wait for it. */
static void dump_waiting(struct dump *d, struct str key) {
  struct str id = key, host = str_cut(&id, ' ');
  if (!str_is_set(id))
    return;
  if (!str_eq_c(host, d->host)) {
    d->write(str_printf(d->a, "%s%.*s", d->host[0] ? "\n" : "", STRF(host)), d->arg);
    snprintf(d->host, sizeof d->host, "%.*s", STRF(host));
  }
  d->write(str_printf(d->a, " %.*s", STRF(id)), d->arg);
}

static bool dump_one(struct str key, struct str value, int64_t stamp, void *arg) {
  struct dump *d = arg;
  struct str when = hints_time(d->a, stamp, d->o->utc);
  if (d->o->keys_only)
    d->write(str_printf(d->a, "  %.*s\n", STRF(key)), d->arg);
  else if (strcmp(d->db, "retry") == 0)
    dump_retry(d, key, value);
  else if (strcmp(d->db, "callout") == 0)
    dump_callout(d, key, value, stamp);
  else if (strcmp(d->db, "ratelimit") == 0)
    dump_rate(d, key, value);
  else if (strncmp(d->db, "wait-", 5) == 0)
    dump_waiting(d, key);
  else if (strcmp(d->db, "seen") == 0)
    d->write(str_printf(d->a, "%.*s\t%.*s\n", STRF(key), STRF(when)), d->arg);
  else
    d->write(str_printf(d->a, "%.*s %.*s\n", STRF(when), STRF(key)), d->arg);
  if (!d->o->keys_only && strcmp(d->db, "misc") == 0)
    dump_ehlo(d, key, value);
  arena_reset(d->a);
  return true;
}

int hints_dump(struct ctx *c, const char *db, const struct hints_dump_options *o,
    void (*write)(struct str line, void *arg), void *arg) {
  struct dump d = {o, db, arena_new("dump"), write, arg, ""};
  int r = hints_each_stamped(c, db, dump_one, &d);
  if (d.host[0])
    write(STR("\n"), arg);
  arena_free(d.a);
  return r;
}

/* --- tidying --- */

struct tidy {
  const char *db;
  int64_t oldest;
  struct arena *a;
  VEC(struct str) gone; /* keys of what is to be deleted */
  bool (*exists)(struct str id, void *arg);
  void (*write)(struct str line, void *arg);
  void *arg;
};

static bool is_id(struct str s) {
  return (s.len == 23 && s.p[6] == '-' && s.p[18] == '-') || (s.len == 16 && s.p[6] == '-' && s.p[13] == '-');
}

static void delete(struct tidy *t, struct str key) { vec_push(t->a, &t->gone, str_dup(t->a, key)); }

static bool tidy_one(struct str key, struct str value, int64_t stamp, void *arg) {
  struct tidy *t = arg;
  if (stamp < t->oldest) {
    t->write(str_printf(t->a, "deleted %.*s (too old)\n", STRF(key)), t->arg);
    delete(t, key);
    return true;
  }
  if (t->exists == NULL)
    return true;
  bool waiting = strncmp(t->db, "wait-", 5) == 0;
  ptrdiff_t before = str_rfind_byte(key, waiting ? ' ' : ':');
  if ((waiting || strcmp(t->db, "retry") == 0) && before >= 0) {
    struct str id = str_from(key, (size_t)before + 1);
    if (is_id(id) && !t->exists(id, t->arg)) {
      t->write(str_printf(t->a, "deleted %.*s (no message)\n", STRF(key)), t->arg);
      delete(t, key);
    }
  }
  return true;
}

int hints_tidy(struct ctx *c, const char *db, int64_t max_age, bool (*exists)(struct str id, void *arg),
    void (*write)(struct str line, void *arg), void *arg) {
  struct arena *a = arena_new("tidy");
  struct tidy t = {.db = db, .oldest = (int64_t)time(NULL) - max_age, .a = a, .exists = exists, .write = write, .arg = arg};
  int r = hints_each_stamped(c, db, tidy_one, &t);
  for (size_t i = 0; i < t.gone.n && r == OUTCOME_OK; i++)
    r = hints_delete(c, db, t.gone.v[i]);
  arena_free(a);
  return r;
}
