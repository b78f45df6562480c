/* The conditions regex and mime_regex (Exim manual, section "Scanning with regular expressions"). */
#include <errno.h>
#include <string.h>

#include "acl/acl.h"
#include "base/pcre.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"
#include "scan/mime_part.h"

#define REGEX_MAX 100          /* expressions of one condition */
#define REGEX_VARIABLES 9

struct regex_state {
  struct arena *arena;         /* of the values; emptied by each match */
  struct str match, group[REGEX_VARIABLES];
};

static struct regex_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &regex_module) : NULL;
}

static void release(struct message *m, void *state) {
  struct regex_state *s = state;
  if (s->arena)
    arena_free(s->arena);
  *s = (struct regex_state){0};
}

static void clear(struct regex_state *s) {
  struct arena *a = s->arena ? s->arena : arena_new("regex");
  arena_reset(a);
  *s = (struct regex_state){.arena = a};
}

static void keep(struct regex_state *s, struct str pattern, const struct str *group, int n) {
  s->match = str_dup(s->arena, pattern);
  for (int i = 1; i < n && i <= REGEX_VARIABLES; i++)
    s->group[i - 1] = str_dup(s->arena, group[i]);
}

struct patterns {
  struct str text[REGEX_MAX];
  const struct pcre *re[REGEX_MAX];
  int n;
};

/* An expression that does not compile is passed over, with a line in the logs. */
static void compile(struct ctx *c, struct arena *a, struct str list, struct patterns *ret) {
  struct list_iter i;
  struct str item, error;
  ret->n = 0;
  list_iter_init_literal(&i, c->arena, list);
  while (list_next(&i, &item) && ret->n < REGEX_MAX) {
    if (item.len == 0)
      continue;
    ret->re[ret->n] = pcre_compile(a, item, 0, &error);
    if (ret->re[ret->n] == NULL) {
      log_write(LOG_MAIN, c->message, "regex acl condition warning - %.*s, skipped", STRF(error));
      continue;
    }
    ret->text[ret->n++] = item;
  }
}

static bool match(struct regex_state *s, const struct patterns *p, struct str text) {
  struct str group[REGEX_VARIABLES + 1] = {{0}};
  for (int i = p->n - 1; i >= 0; i--) { /* the last one that matches is shown, as in Exim */
    int n = pcre_match(p->re[i], text, group, REGEX_VARIABLES + 1);
    if (n > 0) {
      keep(s, p->text[i], group, n);
      return true;
    }
  }
  return false;
}

/* The message's header stands in front of its body. */
static bool match_head(struct regex_state *s, const struct patterns *p, struct str head) {
  while (head.len > 0) {
    ptrdiff_t lf = str_find_byte(head, '\n');
    size_t n = lf < 0 ? head.len : (size_t)lf + 1;
    if (match(s, p, str_slice(head, 0, n > SCAN_LINE_MAX ? SCAN_LINE_MAX : n)))
      return true;
    head = str_from(head, n);
  }
  return false;
}

/* OUTCOME_OK, FAIL, or -errno. */
static int scan_message(struct ctx *c, struct arena *a, struct regex_state *s, const struct patterns *p) {
  struct scan_copy copy;
  struct scan_reader r;
  struct str line;
  bool first;
  int rc = scan_copy_open(c, true, &copy);
  if (rc < 0)
    return rc;
  bool found = match_head(s, p, copy.head);
  scan_reader_init(&r, a, &copy.body, 0, UINT64_MAX);
  while (!found && (rc = scan_reader_line(&r, &line, &first)) > 0)
    found = match(s, p, line);
  scan_copy_close(&copy);
  return found ? OUTCOME_OK : rc < 0 ? rc : OUTCOME_FAIL;
}

static int scan_part(struct ctx *c, struct regex_state *s, const struct patterns *p) {
  struct mime_content content;
  struct str line;
  bool found = false;
  int rc = 0;
  mime_current_content(c, &content);
  while (!found && (rc = mime_content_line(&content, &line)) > 0)
    found = match(s, p, line);
  return found ? OUTCOME_OK : rc < 0 ? rc : OUTCOME_FAIL;
}

static int eval_regex(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct regex_state *s = state_of(c);
  struct patterns p;
  if (!s)
    return OUTCOME_FAIL;
  struct arena *a = arena_new("regex condition");
  clear(s);
  compile(c, a, arg, &p);
  int rc = p.n == 0 ? OUTCOME_FAIL : mime_current(c) ? scan_part(c, s, &p) : scan_message(c, a, s, &p);
  arena_free(a);
  if (rc == OUTCOME_OK || rc == OUTCOME_FAIL)
    return rc;
  c->log_message = str_printf(c->arena, "regex acl condition: cannot read the message: %s", strerror(-rc));
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->log_message));
  return OUTCOME_DEFER;
}

static int eval_mime_regex(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct regex_state *s = state_of(c);
  struct mime_part *part = mime_current(c);
  struct patterns p;
  if (!s || !part)
    return OUTCOME_FAIL;
  clear(s);
  if (!str_is_set(part->decoded)) {
    int rc = mime_decode_part(c, STR_UNSET);
    if (rc != OUTCOME_OK)
      return rc;
  }
  struct arena *a = arena_new("mime_regex condition");
  compile(c, a, arg, &p);
  bool found = match(s, &p, part->start);
  arena_free(a);
  return found ? OUTCOME_OK : OUTCOME_FAIL;
}

/* ---- the module ---- */

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct regex_state *s = state_of(c);
  struct str v = !s ? STR_UNSET : def->flags == 0 ? s->match : s->group[def->flags - 1];
  *ret = str_is_set(v) ? str_dup(c->arena, v) : STR_EMPTY; /* the next match empties the arena */
  return 0;
}

static const struct variable_def variables[] = {
  {"regex1", get, 0, 1}, {"regex2", get, 0, 2}, {"regex3", get, 0, 3}, {"regex4", get, 0, 4}, {"regex5", get, 0, 5},
  {"regex6", get, 0, 6}, {"regex7", get, 0, 7}, {"regex8", get, 0, 8}, {"regex9", get, 0, 9}, {"regex_match_string", get, 0, 0}, {0},
};

#define MIME_WHERE (ACL_BIT(ACL_MIME) | ACL_BIT(ACL_NOT_SMTP_MIME))
static const struct acl_condition_def conditions[] = {
  {"mime_regex", ACL_ONLY(MIME_WHERE), true, 0, eval_mime_regex, NULL},
  {"regex", ACL_ONLY(MIME_WHERE | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_DKIM)), true, 0, eval_regex, NULL},
  {0},
};

const struct module regex_module = {
  .name = "regex",
  .summary = "regular expressions on content",
  .acl_conditions = conditions,
  .variables = variables,
  .message_state = {.size = sizeof(struct regex_state), .release = release},
};
