/* exiqgrep: messages of the queue that fit (Exim manual, section "Selective queue listing"). */

#include <string.h>
#include <time.h>

#include "base/pcre.h"
#include "base/vec.h"
#include "cli/tools/tools.h"
#include "message/message.h"

static const char help[] =
    "Exim message queue display utility.\n\n"
    "\t-h\t\tThis help message.\n\t-C\t\tSpecify which exim.conf to use.\n\t-E\t\tSpecify exim binary to use.\n\n"
    "Selection criteria:\n"
    "\t-f <regexp>\tMatch sender address sender (field is \"< >\" wrapped)\n\t-r <regexp>\tMatch recipient address\n"
    "\t-s <regexp>\tMatch against the size field from long output\n\t-y <seconds>\tMessage younger than\n"
    "\t-o <seconds>\tMessage older than\n\t-z\t\tFrozen messages only (exclude non-frozen)\n"
    "\t-x\t\tNon-frozen messages only (exclude frozen)\n\t-G <queuename>\tMatch in given queue only\n\n"
    "[ NB: for regexps, provided string sits in /<string>/ ]\n\n"
    "Display options:\n"
    "\t-c\t\tDisplay match count\n\t-l\t\tLong Format [Default]\n\t-i\t\tMessage IDs only\n\t-b\t\tBrief Format\n"
    "\t-R\t\tReverse order\n\t-a\t\tAll recipients (including delivered)\n";

struct query {
  struct tool *t;
  struct str sender, recipient, size, queue, config; /* unset: not given */
  int64_t younger, older;                            /* -1: not given */
  bool frozen, thawed, count, ids, brief, reverse, all;
};

static bool fits(struct query *q, struct str pattern, struct str text) {
  struct str error;
  const struct pcre *p = pcre_get(q->t->arena, pattern, PCRE_CASELESS, &error);
  return p && pcre_match(p, text, NULL, 0) > 0;
}

static bool any_recipient(struct query *q, const struct tool_message *m) {
  for (size_t i = 0; i < m->n; i++)
    if (fits(q, q->recipient, m->recipients[i]))
      return true;
  return false;
}

static bool selected(struct query *q, const struct tool_message *m) {
  int64_t age = (int64_t)time(NULL) - message_id_time(m->id);
  if ((q->frozen && !m->frozen) || (q->thawed && m->frozen))
    return false;
  if ((q->younger >= 0 && age >= q->younger) || (q->older >= 0 && age <= q->older))
    return false;
  return (!str_is_set(q->sender) || fits(q, q->sender, m->sender)) && (!str_is_set(q->size) || fits(q, q->size, m->size)) &&
         (!str_is_set(q->recipient) || any_recipient(q, m));
}

static void show(const struct query *q, const struct tool_message *m) {
  if (q->ids) {
    printf("%.*s\n", STRF(m->id));
    return;
  }
  if (q->brief) {
    printf("%.*s From: %.*s To: ", STRF(m->id), STRF(m->sender));
    for (size_t i = 0; i < m->n; i++)
      printf("%s%.*s", i ? ";" : "", STRF(m->recipients[i]));
    putchar('\n');
    return;
  }
  printf("%3.*s %5.*s %.*s %.*s%s\n", STRF(m->age), STRF(m->size), STRF(m->id), STRF(m->sender), m->frozen ? " *** frozen ***" : "");
  for (size_t i = 0; i < m->n; i++)
    printf("\t  %.*s\n", STRF(m->recipients[i]));
  putchar('\n');
}

static bool patterns_ok(struct query *q) {
  const struct str patterns[] = {q->sender, q->recipient, q->size};
  struct str error;
  for (size_t i = 0; i < 3; i++)
    if (str_is_set(patterns[i]) && !pcre_get(q->t->arena, patterns[i], PCRE_CASELESS, &error)) {
      fprintf(stderr, "exiqgrep: %.*s\n", STRF(error));
      return false;
    }
  return true;
}

static int search(struct query *q) {
  const char *words[8] = {NULL};
  int n = 0;
  struct str listing;
  if (str_is_set(q->config)) {
    words[n++] = "-C";
    words[n++] = q->config.p;
  }
  words[n++] = q->all ? "-bp" : "-bpu";
  if (str_is_set(q->queue))
    words[n++] = str_printf(q->t->arena, "-qG%.*s", STRF(q->queue)).p;
  int status = tool_ask(q->t, words, STR_EMPTY, &listing), rc;
  if (status)
    return status < 0 ? 1 : status;
  VEC(struct tool_message) found = {0};
  size_t all = 0;
  struct tool_message m;
  for (; (rc = tool_take_message(q->t, &listing, &m)) > 0; all++)
    if (selected(q, &m))
      vec_push(q->t->arena, &found, m);
  if (rc < 0)
    return 1;
  if (q->count)
    printf("%zu matches out of %zu messages\n", found.n, all);
  for (size_t i = 0; !q->count && i < found.n; i++)
    show(q, &found.v[q->reverse ? found.n - 1 - i : i]);
  return 0;
}

static bool number(struct str s, int64_t *ret) {
  if (str_to_i64(s, ret) && *ret >= 0)
    return true;
  fprintf(stderr, "exiqgrep: %.*s is not a number of seconds\n", STRF(s));
  return false;
}

int tool_exiqgrep(struct tool *t) {
  struct query q = {.t = t, .sender = STR_UNSET, .recipient = STR_UNSET, .size = STR_UNSET, .queue = STR_UNSET, .config = STR_UNSET,
      .younger = -1, .older = -1};
  struct tool_options o = {0};
  struct str value;
  bool selection = false;
  for (int letter; (letter = tool_option(t, &o, "hf:r:y:o:s:C:zxlibRcaG:E:", &value));) {
    selection |= strchr("fryoszxG", letter) != NULL;
    switch (letter) {
    case 'f': q.sender = value; break;
    case 'r': q.recipient = value; break;
    case 's': q.size = value; break;
    case 'G': q.queue = value; break;
    case 'C': q.config = value; break;
    case 'E': t->exim = str_dup_c(t->arena, value); break;
    case 'z': q.frozen = true; break;
    case 'x': q.thawed = true; break;
    case 'c': q.count = true; break;
    case 'i': q.ids = true; break;
    case 'b': q.brief = true; break;
    case 'R': q.reverse = true; break;
    case 'a': q.all = true; break;
    case 'l': break;
    case 'y':
    case 'o':
      if (!number(value, letter == 'y' ? &q.younger : &q.older))
        return 1;
      break;
    default: fputs(help, stdout); return letter == 'h' ? 0 : 1;
    }
  }
  if (!selection && !q.count) {
    fputs(help, stdout);
    return 1;
  }
  return patterns_ok(&q) ? search(&q) : 1;
}
