#include "scan/bmi_provider.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "core/ctx.h"
#include "expand/foreign.h"
#include "loop/stream.h"
#include "match/match.h"
#include "message/message.h"
#include "scan/http.h"
#include "scan/pool.h"
#include "scan/scan.h"

#define SECONDS 120
#define ANSWER_MAX (4u << 20)
#define QUESTION_MAX (16u << 20)
#define LIBRARIES_MAX 10
#define GROUPS_MAX 100      /* of recipients with the same opt-in data, for Rspamd */

const char *bmi_check_provider(struct str file) {
  if (str_starts(file, STR("unix:")))
    return file.len > 5 && file.p[5] == '/' ? NULL : "the path of a socket is missing behind \"unix:\"";
  if (str_starts(file, STR("inet:")))
    return str_rfind_byte(str_from(file, 5), ':') > 0 ? NULL : "host and port are missing behind \"inet:\"";
  if (str_starts(file, STR("rspamd:http://")))
    return file.len > 14 ? NULL : "a host is missing behind \"rspamd:http://\"";
  return file.len > 0 && file.p[0] == '/' ? NULL : "this is neither an absolute path nor unix:, inet: or rspamd:http://";
}

struct str bmi_optin_words(struct arena *a, struct str list) {
  struct buf b;
  buf_init(&b, a, BUF_MAX_LINE);
  b.taint = list.taint;
  bool commas = str_find_byte(list, ',') >= 0 && str_find_byte(list, ':') < 0;
  struct list_iter i;
  struct str item;
  list_iter_init_literal(&i, a, list);
  if (commas)
    i.sep = ',';
  while (list_next(&i, &item)) {
    bool first = true;
    for (size_t k = 0; k < item.len; k++) {
      if ((unsigned char)item.p[k] <= ' ' || item.p[k] == ',')
        continue;
      if (first && b.len > 0)
        buf_add_byte(&b, ',');
      first = false;
      buf_add_byte(&b, item.p[k]);
    }
  }
  return buf_str(&b);
}

/* ---- shared ---- */

struct asking {
  struct ctx *c;
  const struct bmi_optin *optin;
  size_t n;
  usec_t deadline;
  struct str error;
  bool gone;    /* the server has closed, with nothing of an answer */
};

static bool fail(struct asking *k, const char *what, const char *why) {
  k->error = str_printf(k->c->arena, "%s%s%s", what, why ? ": " : "", why ? why : "");
  return false;
}

static struct str optin_of(const struct asking *k, struct str address) {
  for (size_t i = 0; i < k->n; i++)
    if (str_eq(k->optin[i].address, address))
      return k->optin[i].words;
  return STR_EMPTY;
}

/* "host:port", the host perhaps in brackets, to what scan_connect() takes. */
static struct str host_port(struct arena *a, struct str text, const char *port) {
  ptrdiff_t colon = str_rfind_byte(text, ':');
  bool bracket = text.len > 0 && text.p[text.len - 1] == ']';
  struct str host = colon < 0 || bracket ? text : str_slice(text, 0, (size_t)colon);
  struct str number = colon < 0 || bracket ? str_c(port) : str_from(text, (size_t)colon + 1);
  if (host.len > 2 && host.p[0] == '[' && host.p[host.len - 1] == ']')
    host = str_slice(host, 1, host.len - 1);
  return str_printf(a, "%.*s %.*s", STRF(host), STRF(number));
}

static bool send_message(struct asking *k, struct stream *to, struct str head, const struct scan_copy *copy) {
  stream_set_write_timeout(to, SECONDS);
  int rc = stream_write(to, head);
  if (rc >= 0)
    rc = scan_copy_send(k->c, copy, to);
  k->gone = rc == -EPIPE || rc == -ECONNRESET;
  return rc >= 0 || fail(k, "unable to send to socket", strerror(-rc));
}

/* ---- the line protocol ---- */

static struct str line_head(struct asking *k, uint64_t size) {
  const struct message *m = k->c->message;
  const struct client *cl = k->c->client;
  struct buf b;
  buf_init(&b, k->c->arena, QUESTION_MAX);
  buf_printf(&b, "BMI/1\nHELO %.*s\nCLIENT %.*s\nFROM <%.*s>\n", STRF(str_is_set(cl->helo_name) ? cl->helo_name : STR_EMPTY),
      STRF(str_is_set(cl->host_address) ? cl->host_address : STR_EMPTY), STRF(m->reverse_path));
  for (size_t i = 0; i < m->recipients.n; i++) {
    struct str words = optin_of(k, m->recipients.v[i].address);
    buf_printf(&b, "RCPT <%.*s>%s%.*s\n", STRF(m->recipients.v[i].address), words.len ? " " : "", STRF(words));
  }
  buf_printf(&b, "DATA %llu\n", (unsigned long long)size);
  return buf_str(&b);
}

/* Up to DONE, or the end. */
static bool read_lines(struct asking *k, struct stream *from, struct buf *b) {
  struct str line;
  int rc;
  while ((rc = scan_answer_line(from, BUF_MAX_LINE, k->deadline, &line)) > 0) {
    buf_add(b, line);
    buf_add_byte(b, '\n');
    if (b->overflow)
      return fail(k, "too long an answer", NULL);
    if (str_eq_c(line, "DONE"))
      return true;
  }
  return fail(k, "unable to read from socket", rc == 0 ? "EOF" : strerror(-rc));
}

static bool ask_lines(struct asking *k, struct str server, const struct scan_copy *copy, const struct str *recipients, size_t n, struct bmi_set *ret) {
  struct stream *to = NULL;
  struct buf answer;
  buf_init(&answer, k->c->message->arena, ANSWER_MAX);
  if (scan_connect(k->c, server, k->deadline, &to, &k->error) < 0)
    return false;
  bool fine = send_message(k, to, line_head(k, copy->size), copy) && read_lines(k, to, &answer);
  stream_free(to);
  if (fine && !bmi_read_answer(k->c->message->arena, str_tainted(buf_str(&answer)), recipients, n, ret))
    return fail(k, "malformed answer", NULL);
  return fine;
}

/* ---- Rspamd ---- */

static void add_field(struct buf *b, const char *name, struct str value) {
  if (!str_is_set(value) || value.len == 0)
    return;
  buf_printf(b, "%s: ", name);
  for (size_t i = 0; i < value.len; i++)
    if ((unsigned char)value.p[i] >= ' ')
      buf_add_byte(b, value.p[i]);
  buf_add_c(b, "\r\n");
}

static struct str rspamd_head(struct asking *k, struct str host, uint64_t size, const struct str *recipients, size_t n, struct str words) {
  const struct message *m = k->c->message;
  const struct client *cl = k->c->client;
  struct buf b;
  buf_init(&b, k->c->arena, QUESTION_MAX);
  buf_printf(&b, "POST /checkv2 HTTP/1.1\r\nHost: %.*s\r\nConnection: %s\r\nContent-Length: %llu\r\nQueue-Id: %s\r\n", STRF(host),
      scan_links_kept(k->c) ? "keep-alive" : "close", (unsigned long long)size, m->id);
  add_field(&b, "From", m->reverse_path);
  for (size_t i = 0; i < n; i++)
    add_field(&b, "Rcpt", recipients[i]);
  add_field(&b, "IP", cl->host_address);
  add_field(&b, "Helo", cl->helo_name);
  add_field(&b, "Hostname", cl->host_name);
  add_field(&b, "User", cl->authenticated_id);
  add_field(&b, "Settings-ID", words);
  buf_add_c(&b, "\r\n");
  return buf_str(&b);
}

static bool read_http(struct asking *k, struct stream *from, struct http_answer *ret) {
  struct buf b;
  enum http_state state = HTTP_MORE;
  buf_init(&b, k->c->message->arena, ANSWER_MAX);
  while (state == HTTP_MORE) {
    int rc = stream_fill(from, k->deadline);
    bool ended = rc == 0 || (rc == -ECONNRESET && b.len > 0);
    if (rc > 0) {
      struct str data = stream_peek(from);
      buf_add(&b, data);
      stream_consume(from, data.len);
    } else if (!ended || b.len == 0) {
      k->gone = rc == 0 || rc == -ECONNRESET || rc == -EPIPE;
      return fail(k, "unable to read from socket", rc == 0 ? "EOF" : strerror(-rc));
    }
    if (b.overflow)
      return fail(k, "too long an answer", NULL);
    state = http_read_answer(k->c->message->arena, str_tainted(buf_str(&b)), ended, ret);
  }
  if (state == HTTP_BAD)
    return fail(k, "malformed answer", NULL);
  return ret->status == 200 || fail(k, "the server refused", str_dup_c(k->c->arena, str_slice(ret->line, 0, 200)));
}

/* Over a kept connection, if there is one; when that has ended meanwhile, over a new one. */
static bool ask_http(struct asking *k, struct str server, struct str head, const struct scan_copy *copy, struct http_answer *ret) {
  for (bool anew = false;; anew = true) {
    struct scan_link *link;
    if (scan_link_open(k->c, "http", server, k->deadline, anew, &link, &k->error) < 0)
      return false;
    bool used = link->asked++ > 0;
    bool fine = send_message(k, link->stream, head, copy) && read_http(k, link->stream, ret);
    if (fine && ret->keep)
      scan_link_keep(k->c, link, server);
    else
      scan_link_close(link);
    if (fine || !used || !k->gone)
      return fine;
  }
}

static bool ask_rspamd(struct asking *k, struct str url, const struct scan_copy *copy, const struct str *recipients, size_t n, struct str words,
    struct bmi_set *ret) {
  struct str rest = str_from(url, 7), host = str_cut(&rest, '/');
  struct http_answer answer;
  if (!ask_http(k, host_port(k->c->arena, host, "11333"), rspamd_head(k, host, copy->size, recipients, n, words), copy, &answer))
    return false;
  return bmi_read_rspamd(k->c->message->arena, answer.body, recipients, n, ret) || fail(k, "malformed answer", NULL);
}

/* Once for all recipients whose opt-in data are the same. */
static bool ask_groups(struct asking *k, struct str url, const struct scan_copy *copy, const struct str *recipients, size_t n, struct bmi_set *ret) {
  bool *done = arena_array(k->c->arena, bool, n);
  struct str *group = arena_array(k->c->arena, struct str, n);
  int groups = 0;
  for (size_t i = 0; i < n; i++) {
    size_t members = 0;
    struct str words = optin_of(k, recipients[i]);
    for (size_t j = i; j < n && !done[i]; j++)
      if (j == i || str_eq(words, optin_of(k, recipients[j])))
        group[members++] = recipients[j];
    for (size_t j = i + 1; j < n; j++)
      done[j] = done[j] || str_eq(words, optin_of(k, recipients[j]));
    if (members == 0)
      continue;
    if (++groups > GROUPS_MAX)
      return fail(k, "too many different opt-in data", NULL);
    if (!ask_rspamd(k, url, copy, group, members, words, ret))
      return false;
  }
  return true;
}

/* ---- the client library, in a process of its own ---- */

struct body {
  struct ctx *c;
  const struct scan_copy *copy;
};

static int send_body(void *arg, struct stream *to) {
  struct body *b = arg;
  return scan_copy_send(b->c, b->copy, to);
}

static int add_libraries(struct arena *a, struct str list, struct str *v) {
  struct list_iter i;
  struct str item;
  int n = 0;
  list_iter_init_literal(&i, a, list);
  while (n < LIBRARIES_MAX && list_next(&i, &item))
    v[n++] = str_dup(a, item);
  return n;
}

static bool ask_library(struct asking *k, struct str file, struct str list, const struct scan_copy *copy, const struct str *recipients, size_t n,
    struct bmi_set *ret) {
  const struct message *m = k->c->message;
  const struct client *cl = k->c->client;
  struct arena *a = k->c->arena;
  struct scan_copy body = *copy;
  struct str *v = arena_array(a, struct str, BMI_TEXTS + LIBRARIES_MAX + n);
  int libraries = add_libraries(a, list, v + BMI_TEXTS);
  v[BMI_TEXT_FILE] = file;
  v[BMI_TEXT_HELO] = str_is_set(cl->helo_name) ? cl->helo_name : STR_EMPTY;
  v[BMI_TEXT_CLIENT] = str_is_set(cl->host_address) ? cl->host_address : STR_EMPTY;
  v[BMI_TEXT_SENDER] = m->reverse_path;
  v[BMI_TEXT_HEAD] = copy->head;
  v[BMI_TEXT_LIBRARIES] = str_printf(a, "%d", libraries);
  for (size_t i = 0; i < n; i++)
    v[BMI_TEXTS + libraries + (int)i] = str_printf(a, "%.*s %.*s", STRF(optin_of(k, recipients[i])), STRF(recipients[i]));
  body.head = STR_EMPTY;
  struct buf answer;
  buf_init(&answer, m->arena, ANSWER_MAX);
  int rc = foreign_feed(bmi_library_role.name, v, BMI_TEXTS + libraries + (int)n, send_body, &(struct body){k->c, &body}, SECONDS, &answer);
  struct str text = str_tainted(buf_str(&answer));
  if (rc < 0)
    return fail(k, "the client library", foreign_error(rc));
  if (str_starts(text, STR("ERROR ")))
    return fail(k, str_dup_c(a, str_trim(str_from(text, 6))), NULL);
  return bmi_read_answer(m->arena, text, recipients, n, ret) || fail(k, "malformed answer", NULL);
}

/* ---- */

bool bmi_ask(struct ctx *c, struct str file, struct str library, const struct bmi_optin *optin, size_t n, struct bmi_set *ret, struct str *ret_error) {
  struct asking k = {.c = c, .optin = optin, .n = n, .deadline = deadline_in(SECONDS), .error = STR_EMPTY};
  const struct message *m = c->message;
  struct scan_copy copy;
  *ret = (struct bmi_set){0};
  if (!str_is_set(file) || file.len == 0) {
    *ret_error = STR("bmi_config_file is not set");
    return false;
  }
  int rc = scan_copy_open(c, false, &copy);
  if (rc < 0) {
    *ret_error = str_printf(c->arena, "cannot read the message: %s", strerror(-rc));
    return false;
  }
  struct str *recipients = arena_array(m->arena, struct str, m->recipients.n);
  for (size_t i = 0; i < m->recipients.n; i++)
    recipients[i] = m->recipients.v[i].address;
  bool fine;
  if (str_starts(file, STR("unix:")))
    fine = ask_lines(&k, str_from(file, 5), &copy, recipients, m->recipients.n, ret);
  else if (str_starts(file, STR("inet:")))
    fine = ask_lines(&k, host_port(c->arena, str_from(file, 5), ""), &copy, recipients, m->recipients.n, ret);
  else if (file.p[0] == '/')
    fine = ask_library(&k, file, library, &copy, recipients, m->recipients.n, ret);
  else
    fine = ask_groups(&k, str_from(file, 7), &copy, recipients, m->recipients.n, ret);
  scan_copy_close(&copy);
  *ret_error = k.error;
  return fine;
}
