/* The condition `spam` (Exim manual, sections "Scanning with SpamAssassin and Rspamd" and "Calling SpamAssassin from an Exim ACL"). */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "base/random.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/stream.h"
#include "match/match.h"
#include "message/message.h"
#include "queue/spool.h"
#include "scan/scan.h"
#include "scan/spam.h"

#define SERVERS_MAX 32
#define ANSWER_MAX (256u << 10)
#define BAR_MAX 50

struct spam_options {
  struct str address;
};

struct spam_state {
  struct str user;   /* for whom the answer holds; unset: nobody has been asked */
  bool changes;      /* spamd_address was expanded: it holds for nobody */
  int result;
  struct str score, score_int, bar, action, report;
};

static struct spam_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &spam_module) : NULL;
}

static int trouble(struct ctx *c, unsigned logs, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int trouble(struct ctx *c, unsigned logs, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(c->arena, fmt, ap);
  va_end(ap);
  acl_log(c, logs, "spam acl condition: %.*s", STRF(log_printable(c->arena, text)));
  c->error = STR_EMPTY; /* has been told */
  return OUTCOME_DEFER;
}

/* ---- servers ---- */

struct servers {
  struct spam_server v[SERVERS_MAX];
  size_t n;
};

static void warn_option(void *arg, const char *what, struct str option) {
  trouble(arg, LOG_MAIN, "warning - invalid spamd %s: '%.*s'", what, STRF(option));
}

/* Is it on duty at this time of day? A window may go over midnight. */
static bool on_duty(const struct spam_server *s) {
  time_t now = time(NULL);
  struct tm tm;
  if (s->from < 0)
    return true;
  localtime_r(&now, &tm);
  int64_t at = tm.tm_hour * 3600 + tm.tm_min * 60 + tm.tm_sec;
  return s->from <= s->to ? at >= s->from && at <= s->to : at >= s->from || at <= s->to;
}

static int read_servers(struct ctx *c, struct str list, struct servers *ret) {
  struct list_iter i;
  struct str item;
  ret->n = 0;
  list_iter_init_literal(&i, c->arena, list);
  while (ret->n < SERVERS_MAX && list_next(&i, &item)) {
    const char *wrong = spam_read_server(item, &ret->v[ret->n], warn_option, c);
    if (wrong)
      warn_option(c, wrong, item);
    else if (on_duty(&ret->v[ret->n]))
      ret->n++;
  }
  return ret->n ? 0 : trouble(c, LOG_MAIN | LOG_PANIC, "no useable spamd server addresses in spamd_address configuration option.");
}

/* Takes one out: of the highest priority, by chance and weight. */
static struct spam_server choose(struct servers *list) {
  int64_t priority = -1;
  uint64_t weights = 0;
  for (size_t i = 0; i < list->n; i++)
    if (list->v[i].priority > priority)
      priority = list->v[i].priority;
  for (size_t i = 0; i < list->n; i++)
    weights += list->v[i].priority == priority ? (uint64_t)list->v[i].weight : 0;
  uint64_t at = weights ? random_below(weights) : 0;
  for (size_t i = 0; i < list->n; i++) {
    if (list->v[i].priority != priority)
      continue;
    if (at < (uint64_t)list->v[i].weight || weights == 0) {
      struct spam_server chosen = list->v[i];
      list->v[i] = list->v[--list->n];
      return chosen;
    }
    at -= (uint64_t)list->v[i].weight;
  }
  return list->v[--list->n];
}

static int connect_any(struct ctx *c, struct servers *list, struct spam_server *ret_server, usec_t *ret_deadline, struct stream **ret) {
  struct str error;
  while (list->n > 0) {
    struct spam_server s = choose(list);
    *ret_deadline = deadline_in(s.seconds);
    int rc = scan_connect(c, s.address, *ret_deadline, ret, &error);
    if (rc < 0 && s.retry > 0 && fiber_sleep(s.retry * USEC_PER_SEC) == 0) {
      *ret_deadline = deadline_in(s.seconds);
      rc = scan_connect(c, s.address, *ret_deadline, ret, &error);
    }
    if (rc == 0) {
      stream_set_write_timeout(*ret, (int)s.seconds);
      *ret_server = s;
      return 0;
    }
    trouble(c, LOG_MAIN, "spamd: %.*s", STRF(error));
  }
  return trouble(c, LOG_MAIN | LOG_PANIC, "all spamd servers failed");
}

/* ---- the question and the answer ---- */

/* A value on a line of its own; what could begin another line is left out. */
static void add_line(struct buf *b, const char *name, struct str value, const char *before, const char *after) {
  buf_printf(b, "%s: %s", name, before);
  for (size_t i = 0; i < value.len; i++)
    if ((unsigned char)value.p[i] >= ' ')
      buf_add_byte(b, value.p[i]);
  buf_printf(b, "%s\r\n", after);
}

static struct str rspamd_head(struct ctx *c, uint64_t size) {
  const struct message *m = c->message;
  const struct client *cl = c->client;
  struct str host;
  struct buf b;
  buf_init(&b, c->arena, 16u << 20);
  buf_printf(&b, "CHECK RSPAMC/1.3\r\nContent-length: %llu\r\nQueue-Id: %s\r\n", (unsigned long long)size, m->id);
  add_line(&b, "From", m->reverse_path, "<", ">");
  buf_printf(&b, "Recipient-Number: %zu\r\n", m->recipients.n);
  for (size_t i = 0; i < m->recipients.n; i++)
    add_line(&b, "Rcpt", m->recipients.v[i].address, "<", ">");
  if (str_is_set(cl->helo_name) && cl->helo_name.len)
    add_line(&b, "Helo", cl->helo_name, "", "");
  if (expand_text(c, STR("$sender_host_name"), &host) == 0 && str_is_set(host) && host.len) /* looked up now, unless it was */
    add_line(&b, "Hostname", host, "", "");
  if (str_is_set(cl->host_address) && cl->host_address.len)
    add_line(&b, "IP", cl->host_address, "", "");
  if (str_is_set(cl->authenticated_id) && cl->authenticated_id.len)
    add_line(&b, "User", cl->authenticated_id, "", "");
  buf_add_c(&b, "\r\n");
  return buf_str(&b);
}

static struct str spamd_head(struct ctx *c, struct str user, uint64_t size) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_add_c(&b, "REPORT SPAMC/1.2\r\n");
  add_line(&b, "User", user, "", "");
  buf_printf(&b, "Content-length: %llu\r\n\r\n", (unsigned long long)size);
  return buf_str(&b);
}

static int send_message(struct ctx *c, const struct spam_server *server, struct str user, struct stream *to) {
  struct scan_copy copy;
  int rc = scan_copy_open(c, true, &copy);
  if (rc < 0)
    return trouble(c, LOG_MAIN | LOG_PANIC, "error while creating mbox spool file: %s", strerror(-rc));
  rc = stream_write(to, server->rspamd ? rspamd_head(c, copy.size) : spamd_head(c, user, copy.size));
  if (rc >= 0)
    rc = scan_copy_send(c, &copy, to);
  scan_copy_close(&copy);
  /* Who answers before all is sent, and closes, is heard. */
  if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET)
    return trouble(c, LOG_MAIN | LOG_PANIC, "%s on spamd %.*s socket", strerror(-rc), STRF(server->address));
  if (!server->rspamd)
    shutdown(stream_fd(to), SHUT_WR);
  return 0;
}

/* All of it, or its start. */
static int read_text(struct stream *from, usec_t deadline, struct buf *b) {
  int rc;
  while ((rc = stream_fill(from, deadline)) > 0) {
    struct str data = stream_peek(from);
    buf_add(b, data);
    stream_consume(from, data.len);
    if (b->overflow)
      return 0;
  }
  return rc == -ECONNRESET && b->len > 0 ? 0 : rc;
}

static struct str address_of(struct ctx *c) {
  struct str s;
  return expand_text(c, STR("$callout_address"), &s) == 0 ? s : STR_EMPTY;
}

static void keep(struct ctx *c, struct spam_state *s, const struct spam_answer *a, bool rspamd) {
  struct arena *arena = c->message->arena;
  char bar[BAR_MAX + 1];
  size_t n = fabs(a->score) > BAR_MAX ? BAR_MAX : (size_t)fabs(a->score);
  memset(bar, a->score > 0 ? '+' : '-', n);
  if (n == 0)
    bar[n++] = '/';
  s->bar = str_dup(arena, str_n(bar, n));
  s->score = str_printf(arena, "%.1f", a->score);
  s->score_int = str_printf(arena, "%d", (int)(a->score * 10 + (a->score < 0 ? -1e-6 : 1e-6)));
  s->action = str_is_set(a->action) ? str_dup(arena, a->action) : rspamd ? STR_EMPTY : a->score >= a->threshold ? STR("reject") : STR("no action");
  s->report = str_dup(arena, a->report);
  s->result = a->score >= a->threshold ? OUTCOME_OK : OUTCOME_FAIL;
}

static int ask(struct ctx *c, struct spam_state *s, struct str user, struct str addresses) {
  struct servers *list = arena_new_of(c->arena, struct servers);
  struct spam_server server = {.seconds = 0};
  struct spam_answer answer;
  struct stream *to = NULL;
  struct buf text;
  usec_t deadline = 0;
  int rc = read_servers(c, addresses, list);
  if (rc == 0)
    rc = connect_any(c, list, &server, &deadline, &to);
  if (rc == 0)
    rc = send_message(c, &server, user, to);
  buf_init(&text, c->arena, ANSWER_MAX);
  int got = rc == 0 ? read_text(to, deadline, &text) : 0;
  stream_free(to);
  if (rc != 0)
    return rc;
  if (got < 0)
    return trouble(c, LOG_MAIN | LOG_PANIC, "error reading from spamd %.*s, socket: %s", STRF(address_of(c)), strerror(-got));
  if (!spam_read_answer(c->arena, str_tainted(buf_str(&text)), server.rspamd, &answer))
    return trouble(c, LOG_MAIN | LOG_PANIC, "cannot parse spamd %.*s output", STRF(address_of(c)));
  keep(c, s, &answer, server.rspamd);
  return 0;
}

/* ---- the condition ---- */

struct argument {
  struct str user;
  bool always, defer_ok;
};

/* "user", "user:true", either with "/defer_ok". */
static struct argument read_argument(struct str arg) {
  struct argument ret = {0};
  struct str rest = arg, what = str_trim(str_cut(&rest, '/'));
  while (str_is_set(rest))
    ret.defer_ok |= str_ieq_c(str_trim(str_cut(&rest, '/')), "defer_ok");
  ret.user = str_trim(str_cut(&what, ':'));
  ret.always = str_is_set(what) && str_ieq_c(str_trim(what), "true");
  return ret;
}

static int eval_spam(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  const struct spam_options *o = config_block(c->config, &spam_module);
  struct spam_state *s = state_of(c);
  struct argument a = read_argument(arg);
  struct str addresses = str_is_set(o->address) ? o->address : STR_EMPTY;
  if (!s || a.user.len == 0 || str_eq_c(a.user, "0") || str_ieq_c(a.user, "false"))
    return OUTCOME_FAIL;
  bool changes = addresses.len > 0 && addresses.p[0] == '$';
  if (changes && expand_text(c, addresses, &addresses) != 0) {
    trouble(c, LOG_MAIN | LOG_PANIC, "spamd_address starts with $, but expansion failed: %.*s", STRF(c->error));
    return a.defer_ok ? OUTCOME_FAIL : OUTCOME_DEFER;
  }
  if (changes || !str_is_set(s->user) || !str_eq(s->user, a.user)) {
    int rc = ask(c, s, a.user, addresses);
    if (rc != 0)
      return a.defer_ok ? OUTCOME_FAIL : rc;
    s->user = changes ? STR_UNSET : str_dup(c->message->arena, a.user);
  }
  return a.always ? OUTCOME_OK : s->result;
}

/* ---- the spool, variables ---- */

static const struct {
  const char *name;
  size_t offset;
} items[] = {
  {"spam_action", offsetof(struct spam_state, action)}, {"spam_bar", offsetof(struct spam_state, bar)},
  {"spam_score", offsetof(struct spam_state, score)}, {"spam_score_int", offsetof(struct spam_state, score_int)},
};

static void write_spool(struct spool_writer *w, const struct message *m, const void *state) {
  for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
    struct str value = *(const struct str *)(const void *)((const char *)state + items[i].offset);
    if (str_is_set(value) && value.len > 0)
      spool_write_item(w, items[i].name, value);
  }
}

static bool read_spool(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value) {
  for (size_t i = 0; i < sizeof items / sizeof *items; i++)
    if (str_eq_c(name, items[i].name)) {
      *(struct str *)(void *)((char *)state + items[i].offset) = spool_read_value(r, value);
      return true;
    }
  return false;
}

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct spam_state *s = state_of(c);
  struct str v = s ? *(const struct str *)(const void *)((const char *)s + def->offset) : STR_UNSET;
  *ret = str_is_set(v) ? v : STR_EMPTY;
  return 0;
}

#define V(name, member) {name, get, offsetof(struct spam_state, member)}
static const struct variable_def variables[] = {
  V("spam_action", action), V("spam_bar", bar), V("spam_report", report), V("spam_score", score), V("spam_score_int", score_int), {0},
};

static const struct acl_condition_def conditions[] = {
  {"spam", ACL_ONLY(ACL_BIT(ACL_DATA) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_NOT_SMTP)), true, 0, eval_spam, NULL}, {0},
};

static const struct option_def options[] = {
  {"spamd_address", OPTION_STRING, offsetof(struct spam_options, address), "127.0.0.1 783"}, OPTIONS_END,
};

const struct module spam_module = {
  .name = "spam",
  .summary = "SpamAssassin and Rspamd",
  .main_options = options,
  .main_size = sizeof(struct spam_options),
  .acl_conditions = conditions,
  .variables = variables,
  .message_state = {.size = sizeof(struct spam_state), .write_spool = write_spool, .read_spool = read_spool},
};
