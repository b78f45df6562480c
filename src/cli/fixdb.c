/* exim_fixdb: records of the hints, changed by hand (Exim manual, section "exim_fixdb"). */

#include "cli/fixdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/ascii.h"
#include "core/ctx.h"
#include "hints/records.h"

#define LINE_BYTES 1024

struct fix {
  struct ctx *c;
  const char *db;
  bool utc;
  struct str key; /* the record that is in hand; unset: none */
};

static void show_retry(struct fix *f, const struct hint_retry *r) {
  struct arena *a = f->c->arena;
  printf("0 error number: %d %.*s\n", r->basic_errno, STRF(r->text));
  printf("1 extra data:   %d\n", r->more_errno);
  printf("2 first failed: %.*s\n", STRF(hints_time(a, r->first_failed, f->utc)));
  printf("3 last try:     %.*s\n", STRF(hints_time(a, r->last_try, f->utc)));
  printf("4 next try:     %.*s\n", STRF(hints_time(a, r->next_try, f->utc)));
  printf("5 expired:      %s\n", r->expired ? "yes" : "no");
}

static void show(struct fix *f) {
  struct str value;
  struct hint_retry r;
  if (hints_get(f->c, f->db, f->key, f->c->arena, &value) != OUTCOME_OK) {
    printf("record %.*s not found\n", STRF(f->key));
    f->key = STR_UNSET;
  } else if (!strcmp(f->db, "retry") && hint_retry_decode(value, &r)) {
    show_retry(f, &r);
  } else {
    printf("%.*s\n", STRF(value));
  }
}

/* Pairs of digits for year, month, day, hour and minute, colons between them as one likes. */
static bool read_time(struct str s, int64_t *ret) {
  int pair[5] = {0}, n = 0;
  for (uint32_t i = 0; i < s.len; i++) {
    if (s.p[i] == ':')
      continue;
    if (n == 10 || !ascii_is_digit(s.p[i]))
      return false;
    pair[n / 2] = pair[n / 2] * 10 + (s.p[i] - '0');
    n++;
  }
  struct tm tm = {.tm_year = pair[0] < 90 ? pair[0] + 100 : pair[0], .tm_mon = pair[1] - 1, .tm_mday = pair[2], .tm_hour = pair[3],
      .tm_min = pair[4], .tm_isdst = -1};
  time_t t = n == 10 ? mktime(&tm) : -1;
  *ret = t;
  return t != -1;
}

static bool change_retry(struct hint_retry *r, int field, struct str s) {
  char text[LINE_BYTES], *end;
  snprintf(text, sizeof text, "%.*s", STRF(s));
  long number = strtol(text, &end, 10);
  bool is_number = s.len && !*end && number >= INT32_MIN && number <= INT32_MAX;
  switch (field) {
  case 0:
    r->basic_errno = is_number ? (int)number : r->basic_errno;
    return is_number;
  case 1:
    r->more_errno = is_number ? (int)number : r->more_errno;
    return is_number;
  case 2:
    return read_time(s, &r->first_failed);
  case 3:
    return read_time(s, &r->last_try);
  case 4:
    return read_time(s, &r->next_try);
  case 5:
    if (!str_ieq(s, STR("yes")) && !str_ieq(s, STR("no")))
      return false;
    r->expired = str_ieq(s, STR("yes"));
    return true;
  default:
    puts("unknown field number");
    return true;
  }
}

static int change(struct fix *f, int field, struct str to) {
  struct str value;
  struct hint_retry r;
  if (strcmp(f->db, "retry")) {
    printf("Can't change contents of %s database record\n", f->db);
    return 0;
  }
  if (hints_get(f->c, f->db, f->key, f->c->arena, &value) != OUTCOME_OK || !hint_retry_decode(value, &r)) {
    printf("record %.*s not found\n", STRF(f->key));
    return 0;
  }
  if (!change_retry(&r, field, to)) {
    puts("bad value");
    return 0;
  }
  if (hints_put(f->c, f->db, f->key, hint_retry_encode(f->c->arena, &r)) != OUTCOME_OK)
    return 1;
  show(f);
  return 0;
}

/* A key, or what is to be done with the record whose key came before. */
static int obey(struct fix *f, struct str line) {
  if (str_is_set(f->key) && str_eq_c(line, "d")) {
    puts(hints_delete(f->c, f->db, f->key) == OUTCOME_OK ? "deleted" : "not deleted");
    f->key = STR_UNSET;
    return 0;
  }
  struct str rest = line, word = str_cut(&rest, ' ');
  if (str_is_set(f->key) && word.len == 1 && ascii_is_digit(word.p[0]) && str_is_set(rest))
    return change(f, word.p[0] - '0', str_trim(rest));
  f->key = str_dup(f->c->arena, line);
  show(f);
  return 0;
}

int fixdb_run(struct ctx *c, struct str spool, struct str db, bool utc) {
  struct fix f = {.c = c, .db = str_dup_c(c->arena, db), .utc = utc, .key = STR_UNSET};
  char line[LINE_BYTES];
  int status = 0;
  printf("Modifying Exim hints database %.*s/db/%.*s\n", STRF(spool), STRF(db));
  for (;;) {
    printf("> ");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
      break;
    struct str s = str_trim(str_c(line));
    if (s.len)
      status |= obey(&f, s);
    else if (str_is_set(f.key))
      show(&f);
    else
      puts("No previous record name is set");
  }
  putchar('\n');
  return status;
}
