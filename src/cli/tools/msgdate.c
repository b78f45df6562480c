/* exim_msgdate: when a message was received, from its id, whole or only its first part (Exim manual, section "Message identification";
--help names the options). An id has the seconds, the process and a fraction of a second; where localhost_number is set, the fraction
is that number times its range, and a smaller fraction. */

#include <stddef.h>
#include <string.h>
#include <time.h>

#include "base/ascii.h"
#include "cli/tools/tools.h"

#define BAD_USE 255

struct date {
  struct tool *t;
  bool is_unix, utc, local, pid;
  unsigned base;
  const char *config;
  int64_t localhost; /* localhost_number; -1: not set */
};

static int help(void) {
  fputs("Usage: exim_msgdate [options] message-id...\n"
        "  -u, --unix                   seconds since 1970\n"
        "  -z, --utc                    date and time in UTC\n"
        "  -l, --local                  date and time here\n"
        "  -p, --pid                    with the number of the process\n"
        "  --b36, --b62                 the base of the id's digits (62)\n"
        "  -c, --config FILE            the configuration that says what localhost_number is\n"
        "  --localhost_number N         it is this\n"
        "Without -u, -z and -l: date and time here, as the tools for hints write them. An id may be its first part only.\n",
      stdout);
  return 0;
}

static bool digits(const struct date *d, struct str s, uint64_t *ret) {
  *ret = 0;
  for (size_t i = 0; i < s.len; i++) {
    char c = s.p[i];
    unsigned v = ascii_is_digit(c) ? (unsigned)(c - '0') : c >= 'A' && c <= 'Z' ? (unsigned)(c - 'A') + 10 : c >= 'a' && c <= 'z' ? (unsigned)(c - 'a') + 36 : 99;
    if (v >= d->base || *ret > (UINT64_MAX - v) / d->base) {
      fprintf(stderr, "%.*s is not base %u\n", STRF(s), d->base);
      return false;
    }
    *ret = *ret * d->base + v;
  }
  return true;
}

/* The fraction as microseconds. Its unit is that of the clock by which ids are made unique, of old ids (two digits) or new ones. */
static int64_t microseconds(const struct date *d, uint64_t fraction, bool old) {
  uint64_t range = old ? (d->base == 62 ? 200 : 100) : d->base == 62 ? 500000 : 250000;
  if (d->localhost < 0)
    return (int64_t)(old ? fraction * (d->base == 62 ? 500 : 1000) : fraction * (d->base == 62 ? 1 : 2));
  if (fraction / range != (uint64_t)d->localhost)
    fprintf(stderr, "localhost %llu from message-id != given number %lld\n", (unsigned long long)(fraction / range), (long long)d->localhost);
  return (int64_t)(fraction % range * (1000000 / range));
}

static void show(const struct date *d, int64_t seconds, int64_t micros, const char *process) {
  char text[80];
  struct tm tm;
  time_t at = (time_t)seconds;
  if (d->is_unix)
    printf("%lld.%06lld%s\n", (long long)seconds, (long long)micros, process);
  if (d->utc && gmtime_r(&at, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm))
    printf("%s.%06lld%s\n", text, (long long)micros, process);
  bool plain = !d->is_unix && !d->utc && !d->local;
  if (!(plain || d->local) || !localtime_r(&at, &tm))
    return;
  if (plain && strftime(text, sizeof text, "%d-%b-%Y %H:%M:%S", &tm))
    printf("%s%s\n", text, process);
  else if (!plain && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm)) {
    printf("%s.%06lld", text, (long long)micros);
    if (strftime(text, sizeof text, " %Z", &tm))
      fputs(text, stdout);
    printf("%s\n", process);
  }
}

static bool take(const struct date *d, const char *word) {
  struct str whole = str_c(word), rest = *word == 'E' && strlen(word) % 2 ? str_c(word + 1) : whole;
  if (*word == 'E' && strlen(word) != 7 && strlen(word) != 17 && strlen(word) != 24)
    rest = whole;
  struct str first = str_cut(&rest, '-'), second = str_is_set(rest) ? str_cut(&rest, '-') : STR_UNSET, third = rest;
  bool full = str_is_set(third), old = full && third.len == 2;
  if (first.len != 6 || str_is_set(second) != full || (full && !(second.len == 6 && old) && !(second.len == 11 && third.len == 4))) {
    fprintf(stderr, "%s is not a message id\n", word);
    return false;
  }
  uint64_t seconds, process = 0, fraction = 0;
  char text[40] = "";
  if (!digits(d, first, &seconds) || (full && (!digits(d, third, &fraction) || !digits(d, second, &process))))
    return false;
  if (d->pid && full)
    snprintf(text, sizeof text, "\tpid %llu", (unsigned long long)process);
  show(d, (int64_t)seconds, full ? microseconds(d, fraction, old) : 0, text);
  return true;
}

/* 0: an option with its value, if it has one; 1: no option; -1: a wrong one. */
static int option(struct date *d, int *at) {
  const char *word = d->t->argv[*at];
  if (word[0] != '-')
    return 1;
  struct str rest = str_c(word + (word[1] == '-' ? 2 : 1)), name = str_cut(&rest, '=');
  static const char *const with_value[] = {"c", "config", "localhost_number", "base"};
  bool needs = false;
  for (size_t i = 0; i < sizeof with_value / sizeof *with_value; i++)
    needs |= str_eq_c(name, with_value[i]);
  if (needs && !str_is_set(rest) && *at + 1 < d->t->argc)
    rest = str_c(d->t->argv[++*at]);
  int64_t n = -1;
  if (needs != str_is_set(rest))
    n = -1;
  else if (str_eq_c(name, "c") || str_eq_c(name, "config"))
    return d->config = str_dup_c(d->t->arena, rest), 0;
  else if (str_eq_c(name, "localhost_number") && str_to_i64(rest, &n) && n >= 0)
    return d->localhost = n, 0;
  else if (str_eq_c(name, "base") && str_to_i64(rest, &n) && (n == 36 || n == 62))
    return d->base = (unsigned)n, 0;
  else if (str_eq_c(name, "b36") || str_eq_c(name, "b62"))
    return d->base = str_eq_c(name, "b36") ? 36 : 62, 0;
  static const struct {
    const char *letter, *name;
    size_t at;
  } flags[] = {{"u", "unix", offsetof(struct date, is_unix)}, {"z", "utc", offsetof(struct date, utc)}, {"z", "zulu", offsetof(struct date, utc)},
      {"l", "local", offsetof(struct date, local)}, {"p", "pid", offsetof(struct date, pid)}};
  for (size_t i = 0; i < sizeof flags / sizeof *flags && !needs; i++)
    if (str_eq_c(name, flags[i].letter) || str_eq_c(name, flags[i].name))
      return *(bool *)((char *)d + flags[i].at) = true, 0;
  fprintf(stderr, "exim_msgdate: option %s is unknown, or its value is wrong; see exim_msgdate --help\n", word);
  return -1;
}

int tool_msgdate(struct tool *t) {
  struct date d = {.t = t, .base = 62, .localhost = -1};
  int at = 0, kind = 0;
  for (; at < t->argc; at++) {
    if (!strcmp(t->argv[at], "--help") || !strcmp(t->argv[at], "-h"))
      return help();
    kind = option(&d, &at);
    if (kind)
      break;
  }
  if (kind < 0)
    return BAD_USE;
  if (d.config && d.localhost < 0) {
    const char *words[] = {"-C", d.config, NULL};
    struct str value;
    int64_t n;
    if (!tool_main_option(t, words, "localhost_number", &value))
      return BAD_USE;
    if (str_to_i64(value, &n))
      d.localhost = n;
  }
  if (d.localhost > (d.base == 62 ? 16 : 10)) {
    fprintf(stderr, "localhost_number > %d\n", d.base == 62 ? 16 : 10);
    return BAD_USE;
  }
  for (; at < t->argc; at++)
    if (!take(&d, t->argv[at]))
      return BAD_USE;
  return 0;
}
