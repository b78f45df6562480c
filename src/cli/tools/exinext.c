/* exinext: when what will be tried again (Exim manual, section "Finding individual retry times"). */

#include <string.h>

#include "base/vec.h"
#include "cli/tools/tools.h"
#include "core/ctx.h"
#include "hints/hints.h"
#include "hints/records.h"
#include "message/message.h"

#define WORDS_MAX 40

struct query {
  struct tool *t;
  const char *words[WORDS_MAX]; /* -C and -D, for the program */
  int n;
  struct str what, domain;      /* as given; behind the @ */
  VEC(struct str) hosts;        /* where the domain's messages go */
  bool found;
};

/* "  host mx.example [192.0.2.1] MX=10": what -bt says of an address. */
static void find_hosts(struct query *q) {
  const char *words[WORDS_MAX + 3] = {NULL};
  struct str output;
  memcpy(words, q->words, sizeof q->words);
  words[q->n] = "-bt";
  words[q->n + 1] = str_find_byte(q->what, '@') >= 0 ? q->what.p : str_printf(q->t->arena, "postmaster@%.*s", STRF(q->domain)).p;
  if (tool_ask(q->t, words, STR_EMPTY, &output) < 0)
    return;
  while (str_is_set(output) && output.len) {
    struct str line = str_trim(str_cut(&output, '\n'));
    if (!str_starts(line, STR("host ")))
      continue;
    line = str_ltrim(str_from(line, 5));
    struct str host = str_cut(&line, ' ');
    vec_push(q->t->arena, &q->hosts, str_lower(q->t->arena, host));
  }
}

/* "T:host:1.2.3.4" and "T:[1.2.3.4]:1.2.3.4": of that host? */
static bool about_host(struct str rest, struct str host) {
  ptrdiff_t end = str_find_byte(rest, ']');
  if (rest.len && rest.p[0] == '[' && end > 0)
    return str_ieq(str_slice(rest, 1, (size_t)end), host);
  return str_istarts(rest, host) && (rest.len == host.len || rest.p[host.len] == ':');
}

static bool about(const struct query *q, struct str key) {
  struct str rest = str_from(key, 2);
  if (key.len < 3 || key.p[1] != ':')
    return false;
  if (str_ieq(rest, q->what) || str_ieq(rest, q->domain))
    return true;
  if (message_id_valid(q->what))
    return str_find(rest, q->what) >= 0;
  struct str local = str_cut(&rest, '@'), colon = str_is_set(rest) ? rest : STR_EMPTY;
  colon = str_cut(&colon, ':');
  if (colon.len && str_ieq(colon, q->domain))
    return str_find_byte(q->what, '@') < 0 || str_ieq(local, str_slice(q->what, 0, (size_t)str_find_byte(q->what, '@')));
  for (size_t i = 0; i < q->hosts.n; i++)
    if (about_host(str_from(key, 2), q->hosts.v[i]))
      return true;
  return false;
}

static bool each(struct str key, struct str value, void *arg) {
  struct query *q = arg;
  struct arena *a = q->t->arena;
  struct hint_retry r;
  if (!about(q, key) || !hint_retry_decode(value, &r))
    return true;
  q->found = true;
  printf("%s: %.*s error %d: %.*s\n", key.p[0] == 'R' ? "Route" : "Transport", STRF(str_from(key, 2)), r.basic_errno, STRF(r.text));
  printf("  first failed: %.*s\n  last tried:   %.*s\n  next try at:  %.*s\n", STRF(hints_time(a, r.first_failed, false)),
      STRF(hints_time(a, r.last_try, false)), STRF(hints_time(a, r.next_try, false)));
  if (r.expired)
    puts("  past final cutoff time");
  return true;
}

static int look(struct query *q) {
  struct str spool, domain;
  if (!tool_main_option(q->t, q->words, "spool_directory", &spool))
    return 1;
  ptrdiff_t at = str_rfind_byte(q->what, '@');
  bool id = message_id_valid(q->what);
  if (at >= 0) {
    q->domain = str_from(q->what, (size_t)at + 1);
  } else if (!id && str_find_byte(q->what, '.') < 0) { /* a local part */
    if (!tool_main_option(q->t, q->words, "qualify_domain", &domain))
      return 1;
    q->domain = domain;
    q->what = str_printf(q->t->arena, "%.*s@%.*s", STRF(q->what), STRF(domain));
  } else {
    q->domain = q->what;
  }
  if (!id)
    find_hosts(q);
  struct ctx *c = ctx_new(q->t->arena, NULL);
  if (hints_open_directory(spool) != OUTCOME_OK)
    return 1;
  (void)hints_each(c, "retry", each, q);
  hints_close();
  if (!q->found)
    printf("No retry data found for %.*s\n", STRF(q->what));
  return 0;
}

int tool_exinext(struct tool *t) {
  struct query q = {.t = t, .domain = STR_EMPTY};
  struct tool_options o = {0};
  struct str value;
  int status = 0;
  for (int letter; (letter = tool_option(t, &o, "C:D:", &value));) {
    if (letter == '?' || q.n + 4 > WORDS_MAX) {
      o.at = t->argc;
      break;
    }
    q.words[q.n++] = letter == 'C' ? "-C" : str_printf(t->arena, "-D%.*s", STRF(value)).p;
    if (letter == 'C')
      q.words[q.n++] = value.p;
  }
  if (o.at >= t->argc) {
    fputs("Usage: exinext [-C <config file>] [-D<macro>] <address, domain, local part or message id> ...\n", stderr);
    return 1;
  }
  for (; o.at < t->argc; o.at++) {
    q.what = str_c(t->argv[o.at]);
    q.hosts.n = 0;
    q.found = false;
    status |= look(&q);
  }
  return status;
}
