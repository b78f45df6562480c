/* DCC: the condition `dcc` asks a dccifd whether the message is bulk (features.md F05; dccifd(8)). */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "base/ip.h"
#include "base/map.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/stream.h"
#include "match/match.h"
#include "message/message.h"
#include "scan/dcc.h"
#include "scan/scan.h"

#define SECONDS 60          /* for all of it */
#define ANSWER_MAX (64u << 10)
#define QUESTION_MAX (16u << 20)

struct dcc_options {
  struct str address, options;
  bool direct;
};

struct dcc_state {
  bool done;
  int result;               /* OUTCOME_OK: the letters tell */
  struct str letter, recipients, header;
  struct str *asked;        /* the recipients that dccifd was told, a letter for each */
  size_t n_asked;
};

static struct dcc_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &dcc_module) : NULL;
}

/* The letter for the recipient whose ACL runs (PRDR), or for all. */
static struct str letter_of(struct ctx *c, const struct dcc_state *s) {
  const struct acl_session *session = acl_session(c);
  const struct acl_recipient *r = session ? session->recipient : NULL;
  for (size_t i = 0; r && i < s->n_asked && i < s->recipients.len; i++)
    if (str_eq(s->asked[i], r->address))
      return str_slice(s->recipients, i, i + 1);
  return s->letter;
}

static int trouble(struct ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int trouble(struct ctx *c, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  struct str text = str_vprintf(c->arena, fmt, ap);
  va_end(ap);
  acl_log(c, LOG_MAIN | LOG_PANIC, "dcc acl condition: %.*s", STRF(log_printable(c->arena, text)));
  return OUTCOME_DEFER;
}

/* ---- servers: one, or a list, tried in order ---- */

static bool single(struct str text) { return text.len == 0 || text.p[0] != '<' ? dcc_address_valid(text) : false; }

static int connect_any(struct ctx *c, struct str addresses, usec_t deadline, struct stream **ret) {
  struct list_iter i;
  struct str item = addresses, error;
  if (single(addresses)) {
    if (scan_connect(c, addresses, deadline, ret, &error) == 0)
      return 0;
    return trouble(c, "%.*s", STRF(error));
  }
  list_iter_init_literal(&i, c->arena, addresses);
  while (list_next(&i, &item)) {
    if (scan_connect(c, item, deadline, ret, &error) == 0)
      return 0;
    acl_log(c, LOG_MAIN, "dcc acl condition: %.*s", STRF(error));
  }
  return trouble(c, "all servers failed");
}

static int check_main(struct config_reader *r, void *block) {
  const struct dcc_options *o = block;
  struct list_iter i;
  struct str item;
  if (!str_is_set(o->address) || single(o->address))
    return 0;
  list_iter_init_literal(&i, config_reader_arena(r), o->address);
  while (list_next(&i, &item))
    if (!dcc_address_valid(item))
      return config_error(r, "dccifd_address: \"%.*s\" is neither the path of a socket nor an IP address and a port", STRF(item));
  return 0;
}

/* ---- the question ---- */

static struct str message_variable(struct ctx *c, const char *name) {
  const struct str *s = c->message->acl_m ? map_get(c->message->acl_m, str_c(name)) : NULL;
  return s ? *s : STR_UNSET;
}

/* Whom the message comes from, as far as DCC is concerned. */
static struct str client_address(struct ctx *c) {
  struct str override = message_variable(c, "acl_m_dcc_override_client_ip");
  struct ip_addr ip;
  if (str_is_set(override) && override.len > 0) {
    if (ip_parse(str_trim(override), &ip))
      return str_trim(override);
    acl_log(c, LOG_MAIN, "dcc acl condition: $acl_m_dcc_override_client_ip is not an IP address: \"%.*s\"",
        STRF(log_printable(c->arena, override)));
  }
  return str_is_set(c->client->host_address) ? c->client->host_address : STR("127.0.0.1");
}

static struct str question(struct ctx *c, struct str options) {
  const struct client *cl = c->client;
  const struct message *m = c->message;
  struct buf b;
  buf_init(&b, c->arena, QUESTION_MAX);
  buf_printf(&b, "%.*s\n%.*s", STRF(options), STRF(client_address(c)));
  if (str_is_set(cl->host_name) && cl->host_name.len > 0)
    buf_printf(&b, "\r%.*s", STRF(cl->host_name));
  buf_printf(&b, "\n%.*s\n%.*s\n", STRF(str_is_set(cl->helo_name) ? cl->helo_name : STR_EMPTY), STRF(m->reverse_path));
  for (size_t i = 0; i < m->recipients.n; i++) {
    buf_add(&b, m->recipients.v[i].address);
    buf_add_byte(&b, '\n');
  }
  buf_add_byte(&b, '\n');
  return buf_str(&b);
}

static int talk(struct ctx *c, struct stream *to, struct str options, usec_t deadline, struct buf *answer) {
  struct scan_copy copy;
  int rc = scan_copy_open(c, false, &copy);
  if (rc < 0)
    return trouble(c, "cannot read the message: %s", strerror(-rc));
  rc = stream_write(to, question(c, options));
  if (rc >= 0)
    rc = scan_copy_send(c, &copy, to);
  scan_copy_close(&copy);
  if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET)
    return trouble(c, "unable to send to socket (%s)", strerror(-rc));
  shutdown(stream_fd(to), SHUT_WR);
  while ((rc = stream_fill(to, deadline)) > 0) {
    struct str data = stream_peek(to);
    buf_add(answer, data);
    stream_consume(to, data.len);
    if (answer->overflow)
      return trouble(c, "too long an answer");
  }
  return rc < 0 && !(rc == -ECONNRESET && answer->len > 0) ? trouble(c, "unable to read from socket (%s)", strerror(-rc)) : 0;
}

/* ---- the answer ---- */

/* What came in under the same name is not ours to trust. */
static void strip(struct message *m, struct str field) {
  struct str name = str_slice(field, 0, header_name_length(field));
  for (struct header *h = m->headers; h; h = h->next)
    if (h->type != HEADER_DELETED && str_ieq(str_slice(h->text, 0, h->name_len), name))
      h->type = HEADER_DELETED;
}

static void add(struct ctx *c, struct str text, bool direct) {
  struct message *m = c->message;
  if (!direct) {
    acl_add_header(c, text);
    return;
  }
  /* Each line that does not begin with white space begins a field. */
  while (text.len > 0) {
    size_t end = 0;
    while (end < text.len && !(text.p[end] == '\n' && (end + 1 == text.len || (text.p[end + 1] != ' ' && text.p[end + 1] != '\t'))))
      end++;
    message_add_header(m, 0, str_tainted(str_dup(m->arena, str_slice(text, 0, end + 1))));
    text = str_from(text, end + 1);
  }
}

static void add_headers(struct ctx *c, const struct dcc_options *o, const struct dcc_answer *a) {
  struct str own = message_variable(c, "acl_m_dcc_add_header"), text;
  if (a->header.len > 0) {
    strip(c->message, a->header);
    add(c, a->header, o->direct);
  }
  if (str_is_set(own) && own.len > 0) {
    if (dcc_header_text(c->arena, own, &text))
      add(c, text, o->direct);
    else
      acl_log(c, LOG_MAIN, "dcc acl condition: $acl_m_dcc_add_header is not a header line, not added: \"%.*s\"",
          STRF(log_printable(c->arena, own)));
  }
  if (o->direct)
    scan_file_forget(c);
}

static int ask(struct ctx *c, struct dcc_state *s) {
  const struct dcc_options *o = config_block(c->config, &dcc_module);
  struct arena *keep = c->message->arena;
  usec_t deadline = deadline_in(SECONDS);
  struct stream *to = NULL;
  struct dcc_answer a;
  struct buf text;
  buf_init(&text, c->arena, ANSWER_MAX);
  int rc = connect_any(c, str_is_set(o->address) ? o->address : STR_EMPTY, deadline, &to);
  if (rc == 0) {
    stream_set_write_timeout(to, SECONDS);
    rc = talk(c, to, str_is_set(o->options) ? o->options : STR_EMPTY, deadline, &text);
  }
  stream_free(to);
  if (rc == 0 && !dcc_read_answer(c->arena, str_tainted(buf_str(&text)), &a))
    rc = trouble(c, text.len ? "dccifd's answer cannot be understood" : "dccifd gave no answer");
  if (rc != 0)
    return rc;
  s->letter = str_printf(keep, "%c", a.result);
  s->recipients = str_dup(keep, a.recipients);
  s->header = str_tainted(str_dup(keep, str_rtrim(a.header)));
  s->n_asked = c->message->recipients.n;
  s->asked = arena_array(keep, struct str, s->n_asked);
  for (size_t i = 0; i < s->n_asked; i++)
    s->asked[i] = c->message->recipients.v[i].address;
  add_headers(c, o, &a);
  return a.result == 'T' ? OUTCOME_DEFER : OUTCOME_OK;
}

static int judged(struct ctx *c, const struct dcc_state *s) {
  struct str letter = letter_of(c, s);
  if (s->result != OUTCOME_OK)
    return s->result;
  return str_eq_c(letter, "A") || str_eq_c(letter, "S") ? OUTCOME_OK : OUTCOME_FAIL;
}

static int eval_dcc(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct dcc_state *s = state_of(c);
  struct str rest = arg, what = str_trim(str_cut(&rest, '/'));
  bool defer_ok = str_is_set(rest) && str_ieq_c(str_trim(rest), "defer_ok");
  if (!s || what.len == 0 || str_eq_c(what, "0") || str_ieq_c(what, "false"))
    return OUTCOME_FAIL;
  if (!s->done) {
    s->result = ask(c, s);
    s->done = true;
  }
  /* The condition is used negated: trouble that is to let the message pass is "accept". */
  int rc = judged(c, s);
  return rc == OUTCOME_DEFER && defer_ok ? OUTCOME_OK : rc;
}

/* ---- the module ---- */

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct dcc_state *s = state_of(c);
  struct str v = s ? *(const struct str *)(const void *)((const char *)s + def->offset) : STR_UNSET;
  if (s && def->offset == offsetof(struct dcc_state, letter))
    v = letter_of(c, s);
  *ret = str_is_set(v) ? v : STR_EMPTY;
  return 0;
}

static const struct variable_def variables[] = {
  {"dcc_header", get, offsetof(struct dcc_state, header)}, {"dcc_recipients", get, offsetof(struct dcc_state, recipients)},
  {"dcc_result", get, offsetof(struct dcc_state, letter)}, {0},
};

static const struct acl_condition_def conditions[] = {
  {"dcc", ACL_ONLY(ACL_BIT(ACL_DATA) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_NOT_SMTP)), true, 0, eval_dcc, NULL}, {0},
};

static const struct option_def options[] = {
  {"dcc_direct_add_header", OPTION_BOOL, offsetof(struct dcc_options, direct)},
  {"dccifd_address", OPTION_STRING, offsetof(struct dcc_options, address), "/usr/local/dcc/var/dccifd"},
  {"dccifd_options", OPTION_STRING, offsetof(struct dcc_options, options), "header"},
  OPTIONS_END,
};

const struct module dcc_module = {
  .name = "dcc",
  .summary = "Distributed Checksum Clearinghouse",
  .support = "EXPERIMENTAL_DCC",
  .main_options = options,
  .main_size = sizeof(struct dcc_options),
  .main_check = check_main,
  .acl_conditions = conditions,
  .variables = variables,
  .macros = (const char *const[]){"_HAVE_DCC", NULL},
  .message_state = {.size = sizeof(struct dcc_state)},
};
