/* martlet queue: the queue for people. What waits for which destination and why, with ages and the next attempt; and what
administrators do to many messages at once, by selection, with a line that says how far it is.

Reads the output of -bp, and the hints where the caller may: without them reasons and times are not known. */

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/idn.h"
#include "base/map.h"
#include "base/time.h"
#include "base/vec.h"
#include "cli/tools/tools.h"
#include "core/ctx.h"
#include "hints/hints.h"
#include "hints/records.h"
#include "message/message.h"

#define WORDS_MAX 40
#define BATCH 100         /* messages a command */
#define REASON_MAX 200

struct group {
  struct str destination, reason;
  uint64_t messages, recipients, frozen, bytes;
  int64_t oldest, newest; /* ages */
  int64_t next;           /* 0: not known */
  struct str last_id;     /* counted already */
};

struct view {
  struct tool *t;
  const char *words[WORDS_MAX]; /* -C and -D, for the program */
  int n;
  const char *action, *doing; /* the -M option; NULL: only show */
  struct str to, from;
  int64_t older;
  bool frozen, not_frozen, all, json;
  struct map *retry, *waits;  /* key -> struct hint_retry; id -> host */
  VEC(struct str) databases;
  struct map *by_key;
  VEC(struct group *) groups;
  VEC(struct str) ids;        /* selected */
  struct group total;
};

/* --- why, and when again --- */

/* T:host[:address][:port][/interface], where the host may be [an address]; or the same with a message's id at its end. It is
remembered by the id, or as the records of `wait-TRANSPORT` name the host: with the port, if it is not 25. */
static void keep_host(struct view *v, struct str key, struct hint_retry *r) {
  struct arena *a = v->t->arena;
  struct str rest = key, host;
  uint64_t port;
  if (!str_starts(key, STR("T:")))
    return;
  rest = str_from(key, 2);
  if (str_starts(rest, STR("["))) {
    rest = str_from(rest, 1);
    host = str_cut(&rest, ']');
  } else
    host = str_cut(&rest, ':');
  rest = str_cut(&rest, '/');
  ptrdiff_t last = str_rfind_byte(rest, ':');
  struct str end = str_from(rest, (size_t)(last + 1));
  if (message_id_valid(end))
    map_set(v->retry, str_printf(a, "message %.*s", STRF(end)), r);
  else if (str_to_u64(end, &port))
    map_set(v->retry, str_printf(a, "host %.*s:%llu", STRF(str_lower(a, host)), (unsigned long long)port), r);
  else
    map_set(v->retry, str_printf(a, "host %.*s", STRF(str_lower(a, host))), r);
}

static bool each_retry(struct str key, struct str value, void *arg) {
  struct view *v = arg;
  struct hint_retry *r = arena_new_of(v->t->arena, struct hint_retry);
  if (hint_retry_decode(value, r)) {
    r->text = str_dup(v->t->arena, r->text);
    map_set(v->retry, str_lower(v->t->arena, key), r);
    keep_host(v, key, r);
  }
  return true;
}

static bool each_wait(struct str key, struct str value, void *arg) {
  struct view *v = arg;
  struct str *host = arena_new_of(v->t->arena, struct str), id = str_dup(v->t->arena, key);
  *host = str_lower(v->t->arena, str_cut(&id, ' '));
  if (str_is_set(id))
    map_set(v->waits, id, host);
  return true;
}

static void each_database(struct str name, void *arg) {
  struct view *v = arg;
  if (str_starts(name, STR("wait-")))
    vec_push(v->t->arena, &v->databases, str_dup(v->t->arena, name));
}

/* Nothing is said when they cannot be read: the queue can. */
static void read_hints(struct view *v) {
  struct str spool;
  if (!tool_main_option(v->t, v->words, "spool_directory", &spool))
    return;
  const char *db = str_dup_c(v->t->arena, str_printf(v->t->arena, "%.*s/db", STRF(spool)));
  if (access(db, R_OK | W_OK | X_OK) != 0 || hints_open_directory(spool) != OUTCOME_OK)
    return;
  struct ctx *c = ctx_new(v->t->arena, NULL);
  (void)hints_each(c, "retry", each_retry, v);
  (void)hints_databases(c, each_database, v);
  for (size_t i = 0; i < v->databases.n; i++)
    (void)hints_each(c, str_dup_c(v->t->arena, v->databases.v[i]), each_wait, v);
  hints_close();
}

static const struct hint_retry *retry_of(struct view *v, const char *kind, struct str what) {
  return map_get(v->retry, str_printf(v->t->arena, "%s%.*s", kind, STRF(what)));
}

static const struct hint_retry *find_retry(struct view *v, struct str id, struct str address, struct str domain) {
  const struct hint_retry *r = retry_of(v, "R:", address);
  const struct str *host = map_get(v->waits, id);
  if (!r)
    r = retry_of(v, "R:", domain);
  if (!r)
    r = retry_of(v, "T:", address);
  if (!r)
    r = retry_of(v, "message ", id);
  return r || !host ? r : retry_of(v, "host ", *host);
}

/* Fit for a terminal. */
static struct str printable(struct arena *a, struct str s) {
  char *p = str_dup_c(a, s);
  for (uint32_t i = 0; i < s.len; i++)
    if ((unsigned char)p[i] < ' ' || p[i] == 127)
      p[i] = '?';
  return str_n(p, s.len);
}

static struct str reason_of(struct view *v, const struct tool_message *m, const struct hint_retry *r) {
  if (m->frozen)
    return STR("frozen");
  if (!r)
    return STR("waiting");
  struct str text = r->text.len ? r->text : r->basic_errno > 0 ? str_c(strerror(r->basic_errno)) : STR("deferred");
  return printable(v->t->arena, str_slice(text, 0, text.len < REASON_MAX ? text.len : REASON_MAX));
}

/* --- groups --- */

static struct group *group_of(struct view *v, struct str destination, struct str reason) {
  struct str key = str_printf(v->t->arena, "%.*s\n%.*s", STRF(destination), STRF(reason));
  struct group *g = map_get(v->by_key, key);
  if (!g) {
    g = arena_new_of(v->t->arena, struct group);
    *g = (struct group){.destination = destination, .reason = reason, .last_id = STR_EMPTY};
    map_set(v->by_key, key, g);
    vec_push(v->t->arena, &v->groups, g);
  }
  return g;
}

static void count(struct group *g, const struct tool_message *m) {
  g->recipients++;
  if (str_eq(g->last_id, m->id))
    return;
  int64_t age = tool_age(m->age), size = tool_size(m->size);
  g->oldest = !g->messages || age > g->oldest ? age : g->oldest;
  g->newest = !g->messages || age < g->newest ? age : g->newest;
  g->bytes += size > 0 ? (uint64_t)size : 0;
  g->messages++;
  g->frozen += m->frozen;
  g->last_id = m->id;
}

static struct str domain_of(struct arena *a, struct str address) {
  ptrdiff_t at = str_rfind_byte(address, '@');
  return str_lower(a, at < 0 ? address : str_from(address, (size_t)at + 1));
}

/* A domain of the list, or below one that is written with a dot in front, or a part of the address. */
static bool matches(struct str wanted, struct str address) { return !str_is_set(wanted) || str_ifind(address, wanted) >= 0; }

static void add(struct view *v, const struct tool_message *m) {
  bool selected = false;
  if (!matches(v->from, m->sender) || (v->older > 0 && tool_age(m->age) < v->older) || (v->frozen && !m->frozen) ||
      (v->not_frozen && m->frozen))
    return;
  for (size_t i = 0; i < m->n; i++) {
    struct str address = m->recipients[i];
    if (str_starts(address, STR("D ")) || str_starts(address, STR("+D ")) || !matches(v->to, address))
      continue;
    struct str domain = printable(v->t->arena, domain_of(v->t->arena, address));
    const struct hint_retry *r = find_retry(v, m->id, address, domain);
    struct group *g = group_of(v, domain, reason_of(v, m, r));
    count(g, m);
    count(&v->total, m);
    if (r && !m->frozen && (!g->next || r->next_try < g->next))
      g->next = r->next_try;
    selected = true;
  }
  if (selected)
    vec_push(v->t->arena, &v->ids, m->id);
}

static int by_count(const void *x, const void *y) {
  const struct group *a = *(struct group *const *)x, *b = *(struct group *const *)y;
  if (a->messages != b->messages)
    return a->messages < b->messages ? 1 : -1;
  int rc = str_cmp(a->destination, b->destination);
  return rc ? rc : str_cmp(a->reason, b->reason);
}

/* --- showing --- */

static const char *colour(bool on, const char *code) { return on ? code : ""; }

static const char *ago(char text[24], int64_t seconds) {
  if (seconds < 90 * 60)
    snprintf(text, 24, "%lldm", (long long)(seconds / 60));
  else if (seconds < 72 * 3600)
    snprintf(text, 24, "%lldh", (long long)(seconds / 3600));
  else
    snprintf(text, 24, "%lldd", (long long)(seconds / 86400));
  return text;
}

static const char *when(char text[32], int64_t next) {
  char length[24];
  int64_t left = next - time(NULL);
  if (!next)
    snprintf(text, 32, "-");
  else if (left <= 0)
    snprintf(text, 32, "next run");
  else if (left < 60)
    snprintf(text, 32, "in %llds", (long long)left);
  else
    snprintf(text, 32, "in %s", ago(length, left));
  return text;
}

static void show(const struct view *v) {
  bool c = isatty(1) && !getenv("NO_COLOR");
  char oldest[24], newest[24], next[32];
  int width = 11;
  for (size_t i = 0; i < v->groups.n; i++)
    width = (int)v->groups.v[i]->destination.len > width ? (int)v->groups.v[i]->destination.len : width;
  width = width > 40 ? 40 : width;
  if (v->groups.n)
    printf("%s%-*s  %8s  %6s  %6s  %-9s  %s%s\n", colour(c, "\033[1m"), width, "DESTINATION", "MESSAGES", "OLDEST", "NEWEST", "NEXT", "REASON",
      colour(c, "\033[0m"));
  for (size_t i = 0; i < v->groups.n; i++) {
    const struct group *g = v->groups.v[i];
    const char *tint = g->frozen ? "\033[36m" : g->oldest >= 86400 ? "\033[31m" : g->oldest >= 4 * 3600 ? "\033[33m" : "";
    printf("%-*.*s  %8llu  %s%6s%s  %6s  %-9s  %.*s\n", width, STRF(g->destination), (unsigned long long)g->messages, colour(c, tint),
      ago(oldest, g->oldest), colour(c && *tint, "\033[0m"), ago(newest, g->newest), when(next, g->next), STRF(g->reason));
  }
  printf("%s%llu message%s for %llu recipient%s, %llu frozen\n", v->groups.n ? "\n" : "", (unsigned long long)v->total.messages,
    v->total.messages == 1 ? "" : "s", (unsigned long long)v->total.recipients, v->total.recipients == 1 ? "" : "s",
    (unsigned long long)v->total.frozen);
}

static void json_text(struct str s) {
  bool utf8 = utf8_valid(s);
  putchar('"');
  for (uint32_t i = 0; i < s.len; i++) {
    unsigned char b = (unsigned char)s.p[i];
    if (b == '"' || b == '\\')
      printf("\\%c", b);
    else if (b < ' ' || b == 127 || (b > 127 && !utf8))
      printf("\\u%04x", b);
    else
      putchar(b);
  }
  putchar('"');
}

static void json_group(const struct group *g) {
  printf("\"messages\": %llu, \"recipients\": %llu, \"frozen\": %llu, \"bytes\": %llu", (unsigned long long)g->messages,
    (unsigned long long)g->recipients, (unsigned long long)g->frozen, (unsigned long long)g->bytes);
}

static void show_json(const struct view *v) {
  putchar('{');
  json_group(&v->total);
  printf(", \"groups\": [");
  for (size_t i = 0; i < v->groups.n; i++) {
    const struct group *g = v->groups.v[i];
    printf("%s\n  {\"destination\": ", i ? "," : "");
    json_text(g->destination);
    printf(", \"reason\": ");
    json_text(g->reason);
    printf(", ");
    json_group(g);
    printf(", \"oldest\": %lld, \"newest\": %lld, \"next\": ", (long long)g->oldest, (long long)g->newest);
    if (g->next)
      printf("%lld}", (long long)g->next);
    else
      printf("null}");
  }
  printf("%s]}\n", v->groups.n ? "\n" : "");
}

/* --- doing --- */

static void progress(const struct view *v, size_t done, time_t began) {
  char left[24];
  if (!isatty(2))
    return;
  int64_t took = time(NULL) - began, rest = done ? took * (int64_t)(v->ids.n - done) / (int64_t)done : 0;
  fprintf(stderr, "\r%s: %zu of %zu (%zu %%)", v->doing, done, v->ids.n, done * 100 / v->ids.n);
  if (rest >= 60)
    fprintf(stderr, ", %s left", ago(left, rest));
  else if (done < v->ids.n && took > 0)
    fprintf(stderr, ", %llds left", (long long)rest);
  fputs(done == v->ids.n ? "\033[K\n" : "\033[K", stderr);
}

static int act(struct view *v) {
  time_t began = time(NULL);
  size_t done = 0;
  int status = 0;
  while (done < v->ids.n) {
    struct tool batch = *v->t;
    const char *words[WORDS_MAX + BATCH + 2] = {NULL};
    int n = v->n;
    batch.arena = arena_new("queue batch");
    memcpy(words, v->words, sizeof v->words);
    words[n++] = v->action;
    for (int i = 0; i < BATCH && done < v->ids.n; i++, done++)
      words[n++] = str_dup_c(batch.arena, v->ids.v[done]);
    struct str output;
    int got = tool_ask(&batch, words, STR_EMPTY, &output);
    /* Of what goes wrong the program's own words. */
    while (got && str_is_set(output) && output.len) {
      struct str line = str_cut(&output, '\n');
      if (line.len && str_find(line, STR(" has been ")) < 0 && str_find(line, STR(" is now ")) < 0 && str_find(line, STR(" is no longer ")) < 0)
        fprintf(stderr, "%s%.*s\n", isatty(2) ? "\r\033[K" : "", STRF(line));
    }
    status |= got != 0;
    arena_free(batch.arena);
    progress(v, done, began);
  }
  printf("%s: %zu message%s%s\n", v->doing, v->ids.n, v->ids.n == 1 ? "" : "s", status ? ", not all of it done" : "");
  return status;
}

/* --- the command --- */

static int usage(void) {
  fputs("Usage: martlet queue [-C FILE] [-Dmacro] [--queue NAME] [SELECTION] [--json]\n"
        "       martlet queue [-C FILE] [-Dmacro] [--queue NAME] SELECTION --flush | --remove | --freeze | --thaw\n"
        "SELECTION: --to TEXT      messages that wait for an address with this in it\n"
        "           --from TEXT    whose sender has this in it\n"
        "           --older TIME   that have waited for as long (30m, 2d)\n"
        "           --frozen, --not-frozen\n"
        "           --all          all of them (needed when nothing else selects, and something is to be done)\n",
    stderr);
  return 2;
}

static const struct action {
  const char *word, *option, *doing;
} actions[] = {{"--flush", "-M", "delivering"}, {"--remove", "-Mrm", "removing"}, {"--freeze", "-Mf", "freezing"}, {"--thaw", "-Mt", "thawing"}};

static bool take_action(struct view *v, const char *word) {
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
    if (!strcmp(word, actions[i].word)) {
      if (v->action)
        return false;
      v->action = actions[i].option;
      v->doing = actions[i].doing;
      return true;
    }
  return false;
}

/* How many words it was; 0: wrong. */
static int take_option(struct view *v, const char *word, const char *next) {
  bool *flags[] = {&v->frozen, &v->not_frozen, &v->all, &v->json};
  static const char *const names[] = {"--frozen", "--not-frozen", "--all", "--json"};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (!strcmp(word, names[i])) {
      *flags[i] = true;
      return 1;
    }
  if (take_action(v, word))
    return 1;
  if (!strncmp(word, "-D", 2) && word[2] && v->n + 3 < WORDS_MAX) {
    v->words[v->n++] = word;
    return 1;
  }
  if (!next || !*next)
    return 0;
  if (!strcmp(word, "-C") && v->n + 3 < WORDS_MAX) {
    v->words[v->n++] = word;
    v->words[v->n++] = next;
    return 2;
  }
  if (!strcmp(word, "--queue") && v->n + 3 < WORDS_MAX) {
    v->words[v->n++] = str_dup_c(v->t->arena, str_printf(v->t->arena, "-qG%s", next));
    return 2;
  }
  if (!strcmp(word, "--to"))
    v->to = str_c(next);
  else if (!strcmp(word, "--from"))
    v->from = str_c(next);
  else if (strcmp(word, "--older") || (v->older = time_parse_interval(str_c(next))) <= 0)
    return 0;
  return 2;
}

static bool take_options(struct view *v) {
  struct tool *t = v->t;
  for (int i = 0, n; i < t->argc; i += n)
    if (!(n = take_option(v, t->argv[i], i + 1 < t->argc ? t->argv[i + 1] : NULL)))
      return false;
  bool selects = str_is_set(v->to) || str_is_set(v->from) || v->older > 0 || v->frozen || v->not_frozen;
  return !(v->action && (v->json || !(selects || v->all))) && !(v->frozen && v->not_frozen);
}

int tool_queue(struct tool *t) {
  struct arena *a = t->arena;
  struct view v = {.t = t, .to = STR_UNSET, .from = STR_UNSET, .retry = map_new(a), .waits = map_new(a), .by_key = map_new(a),
      .total = {.last_id = STR_EMPTY}};
  struct str listing;
  struct tool_message m;
  if (!take_options(&v))
    return usage();
  const char *words[WORDS_MAX + 1];
  memcpy(words, v.words, sizeof v.words);
  words[v.n] = "-bpu";
  words[v.n + 1] = NULL;
  int rc = tool_ask(t, words, STR_EMPTY, &listing);
  if (rc)
    return 1;
  if (!v.action)
    read_hints(&v);
  while ((rc = tool_take_message(t, &listing, &m)) > 0)
    add(&v, &m);
  if (rc < 0)
    return 1;
  if (v.action)
    return act(&v);
  if (v.groups.n)
    qsort(v.groups.v, v.groups.n, sizeof *v.groups.v, by_count);
  if (v.json)
    show_json(&v);
  else
    show(&v);
  return 0;
}
