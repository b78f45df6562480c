/* The autoreply transport: answers a message with a new one (Exim manual,
chapter "The autoreply transport"; RFC 3834). Messages it makes have an empty
reverse-path. */

#include <errno.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/time.h"
#include "core/main_options.h"
#include "deliver/errors.h"
#include "deliver/submit.h"
#include "expand/expand.h"
#include "filter/filter.h"
#include "log/log.h"
#include "match/match.h"
#include "message/address.h"
#include "message/message.h"
#include "queue/spool.h"
#include "route/redirect.h"
#include "transport/identity.h"
#include "transport/local.h"
#include "transport/options.h"
#include "transport/transport.h"

#define FILE_MAX (1u << 20)
#define RETURN_PIECE 8000 /* what is returned is told in units of this */
#define FILTERED_MAX (16 << 20) /* that a transport_filter makes of the returned message */

struct autoreply {
  bool file_expand, file_optional, return_message;
  struct option_expr bcc, cc, file, from, headers, log, never_mail, once, once_repeat, reply_to, subject, text, to;
  int64_t mode, once_file_size;
};

#define OFF(f) offsetof(struct autoreply, f)
static const struct option_def autoreply_options[] = {
    {"bcc", OPTION_EXPR, OFF(bcc)},
    {"cc", OPTION_EXPR, OFF(cc)},
    {"file", OPTION_EXPR, OFF(file)},
    {"file_expand", OPTION_BOOL, OFF(file_expand)},
    {"file_optional", OPTION_BOOL, OFF(file_optional)},
    {"from", OPTION_EXPR, OFF(from)},
    {"headers", OPTION_EXPR, OFF(headers)},
    {"log", OPTION_EXPR, OFF(log)},
    {"mode", OPTION_OCTAL, OFF(mode), "0600"},
    {"never_mail", OPTION_LIST, OFF(never_mail), NULL, 0, LIST_ADDRESS},
    {"once", OPTION_EXPR, OFF(once)},
    {"once_file_size", OPTION_INT, OFF(once_file_size)},
    {"once_repeat", OPTION_EXPR, OFF(once_repeat), "0s"},
    {"reply_to", OPTION_EXPR, OFF(reply_to)},
    {"return_message", OPTION_BOOL, OFF(return_message)},
    {"subject", OPTION_EXPR, OFF(subject)},
    {"text", OPTION_EXPR, OFF(text)},
    {"to", OPTION_EXPR, OFF(to)},
    OPTIONS_END,
};

struct reply {
  struct ctx *c;
  const struct instance *t;
  const struct autoreply *o;
  struct address *a;
  struct str from, reply_to, to, cc, bcc, subject, headers, text, file, log, once;
  int64_t once_repeat;
  bool file_expand, return_message, once_directory;
};

static bool fail_with(struct reply *r, enum outcome o, int error, struct str text) {
  r->a->result = o;
  r->a->basic_errno = error;
  r->a->message = text;
  r->a->panic = false;
  return false;
}

static bool fail(struct reply *r, enum outcome o, struct str text) { return fail_with(r, o, ERROR_UNKNOWN, text); }

/* A list of addresses in one line, however it was folded. */
static void unfold(struct reply *r, struct str *list) {
  if (!str_is_set(*list) || str_find_byte(*list, '\n') < 0)
    return;
  char *p = str_dup_c(r->c->arena, *list);
  for (uint32_t i = 0; i + 1 < list->len; i++)
    if (p[i] == '\n')
      p[i] = ' ';
  list->p = p;
}

/* Newlines in a header are only for folding; other control characters are not for headers at all. `source` is what the option
says; NULL: a filter's own words. */
static bool header_safe(struct reply *r, const struct str *source, bool multi, const struct str *ret) {
  for (uint32_t i = 0; str_is_set(*ret) && i < ret->len; i++) {
    unsigned char ch = (unsigned char)ret->p[i];
    bool folded = ch == '\n' && (multi || i + 1 == ret->len || ret->p[i + 1] == ' ' || ret->p[i + 1] == '\t');
    if ((ch < 32 || ch == 127) && ch != '\t' && !folded)
      return fail(r, OUTCOME_FAIL, str_printf(r->c->arena, "Expansion of \"%.*s\" in %.*s transport contains non-printing character %d",
          STRF(log_printable(r->c->arena, source ? *source : *ret)), STRF(r->t->name), ch));
  }
  return true;
}

static bool text_of(struct reply *r, const struct option_expr *o, struct str *ret) {
  return expand_option(r->c, o, ret) == 0 ||
         fail(r, OUTCOME_FAIL, str_printf(r->c->arena, "Expansion of \"%.*s\" failed in %.*s transport: %.*s",
             STRF(log_printable(r->c->arena, o->text)), STRF(r->t->name), STRF(r->c->error)));
}

static bool header_text(struct reply *r, const struct option_expr *o, bool multi, struct str *ret) {
  return text_of(r, o, ret) && header_safe(r, &o->text, multi, ret);
}

/* A filter has said all of it, expanded: the transport's own settings do not count. */
static bool gather_from_filter(struct reply *r, const struct filter_reply *f) {
  r->from = f->from;
  r->reply_to = f->reply_to;
  r->to = f->to;
  r->cc = f->cc;
  r->bcc = f->bcc;
  r->subject = f->subject;
  r->headers = f->headers;
  r->text = f->text;
  r->file = f->file;
  r->log = f->log;
  r->once = f->once;
  r->once_repeat = f->once_repeat;
  r->file_expand = f->file_expand;
  r->return_message = f->return_message;
  r->once_directory = f->once_directory;
  unfold(r, &r->to);
  unfold(r, &r->cc);
  return header_safe(r, NULL, false, &r->from) && header_safe(r, NULL, false, &r->reply_to) && header_safe(r, NULL, false, &r->to) &&
         header_safe(r, NULL, false, &r->cc) && header_safe(r, NULL, false, &r->bcc) && header_safe(r, NULL, false, &r->subject) &&
         header_safe(r, NULL, true, &r->headers);
}

static bool gather(struct reply *r) {
  const struct autoreply *o = r->o;
  if (r->a->filter && r->a->filter->reply)
    return gather_from_filter(r, r->a->filter->reply);
  r->file_expand = o->file_expand;
  r->return_message = o->return_message;
  struct str repeat = STR_UNSET;
  if (!header_text(r, &o->from, false, &r->from) || !header_text(r, &o->reply_to, false, &r->reply_to) ||
      !header_text(r, &o->to, false, &r->to) || !header_text(r, &o->cc, false, &r->cc) || !header_text(r, &o->bcc, false, &r->bcc) ||
      !header_text(r, &o->subject, false, &r->subject) || !header_text(r, &o->headers, true, &r->headers) ||
      !text_of(r, &o->text, &r->text) || !text_of(r, &o->file, &r->file) || !text_of(r, &o->log, &r->log) ||
      !text_of(r, &o->once, &r->once) || !text_of(r, &o->once_repeat, &repeat))
    return false;
  r->once_repeat = str_is_set(repeat) && repeat.len ? time_parse_interval(repeat) : 0;
  if (r->once_repeat < 0)
    return fail(r, OUTCOME_FAIL, str_printf(r->c->arena, "Invalid time value \"%.*s\" for \"once_repeat\" in %.*s transport",
        STRF(repeat), STRF(r->t->name)));
  return true;
}

/* Nothing can be sent: in the words of a program whose standard input has no good recipients. */
static bool refuse_message(struct reply *r, struct str why) {
  log_write(LOG_MAIN, r->c->message, "Error while reading message with no usable sender address (R=%s): %.*s", r->c->message->id, STRF(why));
  return fail_with(r, OUTCOME_DEFER, 0, str_printf(r->c->arena, "Failed to send message from %.*s transport (1)", STRF(r->t->name)));
}

/* never_mail: 1 it is on the list, 0 it is not, -1 the address has its result. */
static int is_never_mailed(struct reply *r, struct str address) {
  if (!str_is_set(r->o->never_mail.text))
    return 0;
  int in = match_address(r->c, &r->o->never_mail, address, false, NULL);
  if (in == OUTCOME_OK)
    DEBUG(transport, "discarding recipient %.*s (matched never_mail)\n", STRF(address));
  else if (in != OUTCOME_FAIL)
    (void)fail(r, OUTCOME_DEFER, str_printf(r->c->arena, "never_mail for %.*s transport: %.*s", STRF(r->t->name), STRF(r->c->error)));
  return in == OUTCOME_OK ? 1 : in == OUTCOME_FAIL ? 0 : -1;
}

/* Adds the addresses of a header-style list to the recipients, but for those on never_mail, which also leave the list. */
static bool add_recipients(struct reply *r, struct str *whole, struct submit *s) {
  struct address_walk w = {.text = str_is_set(*whole) ? *whole : STR_EMPTY};
  struct str kept = STR_UNSET, error;
  bool discarded = false;
  while (address_walk_next(&w)) {
    struct str item = str_trim(str_slice(w.text, w.from, w.to));
    struct mail_address m;
    if (address_parse(r->c->arena, item, 0, &m, &error))
      return refuse_message(r, str_printf(r->c->arena, "at least one malformed recipient address: %.*s - %.*s",
          STRF(log_printable(r->c->arena, item)), STRF(error)));
    if (!m.address.len)
      continue;
    if (!m.domain.len)
      m.address = str_printf(r->c->arena, "%.*s@%.*s", STRF(m.address), STRF(main_options(r->c->config)->qualify_recipient));
    int never = is_never_mailed(r, m.address);
    if (never < 0)
      return false;
    discarded |= never != 0;
    if (never)
      continue;
    vec_push(s->arena, &s->recipients, m.address);
    kept = str_is_set(kept) ? str_printf(r->c->arena, "%.*s, %.*s", STRF(kept), STRF(item)) : item;
  }
  if (discarded)
    *whole = kept;
  return true;
}

/* To:, Cc: and Bcc: lines among the option `headers` name recipients, too; those of Bcc: are not told. */
static bool add_header_recipients(struct reply *r, struct submit *s) {
  struct str rest = r->headers;
  struct buf told;
  buf_init(&told, r->c->arena, BUF_MAX_EXPANSION);
  while (str_is_set(rest) && rest.len) {
    size_t end = 0;
    do {
      ptrdiff_t nl = str_find_byte(str_from(rest, end), '\n');
      end = nl < 0 ? rest.len : end + (size_t)nl + 1;
    } while (end < rest.len && (rest.p[end] == ' ' || rest.p[end] == '\t'));
    struct str line = str_slice(rest, 0, end), value = line, name = str_rtrim(str_cut(&value, ':'));
    rest = str_from(rest, end);
    bool hidden = str_is_set(value) && str_ieq_c(name, "Bcc");
    if (str_is_set(value) && (hidden || str_ieq_c(name, "To") || str_ieq_c(name, "Cc")) && !add_recipients(r, &value, s))
      return false;
    if (!hidden)
      buf_add(&told, line);
  }
  if (str_is_set(r->headers))
    r->headers = buf_str(&told);
  return true;
}

/* The `once` file: false, the address has its result; otherwise *ret_seen, or with `sent` the recipients are noted in it. */
static bool use_once_file(struct reply *r, bool sent, bool *ret_seen) {
  struct plan p;
  struct plan_result got;
  *ret_seen = false;
  bool named = str_is_set(r->once) && r->once.len && str_is_set(r->to) && r->to.len;
  if (named && str_is_tainted(r->once))
    return fail_with(r, OUTCOME_DEFER, EACCES,
        str_printf(r->c->arena, "Tainted '%.*s' (once file for %.*s transport) not permitted", STRF(r->once), STRF(r->t->name)));
  if (!local_plan_begin(r->c, r->t, r->a, &p))
    return false;
  if (!named && !str_is_set(p.cwd)) /* otherwise the user must be able to work there */
    return true;
  p.kind = PLAN_ONCE;
  p.path = named ? r->once : STR_EMPTY;
  p.sender = r->to;
  p.once_repeat = r->once_repeat;
  p.once_file_size = r->o->once_file_size;
  p.once_note = sent;
  p.create_directory = r->once_directory;
  p.directory_mode = 0700;
  plan_run(r->c->arena, &p, -1, &got);
  if (got.outcome != OUTCOME_OK && str_starts(got.message, STR("failed to chdir")))
    return fail_with(r, OUTCOME_DEFER, (int)got.basic_errno, got.message);
  if (got.outcome != OUTCOME_OK)
    return fail_with(r, OUTCOME_DEFER, (int)got.basic_errno,
        str_printf(r->c->arena, "Failed to open hintsdb file %.*s when sending message from %.*s transport: %.*s", STRF(r->once),
            STRF(r->t->name), STRF(got.message)));
  *ret_seen = got.status != 0;
  return true;
}

static void add_line(struct buf *b, const char *name, struct str value) {
  if (str_is_set(value) && value.len)
    buf_printf(b, "%s: %.*s\n", name, STRF(str_trim(value)));
}

/* On one line, as long as that may be sent (RFC 5322 2.1.1). */
static void add_reference(struct buf *b, size_t *column, struct str id) {
  bool fold = *column + 1 + id.len > 990;
  buf_printf(b, "%s%.*s", fold ? "\n " : " ", STRF(id));
  *column = (fold ? 0 : *column) + 1 + id.len;
}

/* References: what the message refers to and itself; the first and the last eleven when there are more (RFC 5322 3.6.4). */
static void add_references(struct reply *r, struct buf *b) {
  struct header *id = message_find_header(r->c->message, STR("Message-ID"), NULL);
  struct header *refs = message_find_header(r->c->message, STR("References"), NULL);
  if (!refs)
    refs = message_find_header(r->c->message, STR("In-Reply-To"), NULL);
  if (!id && !refs)
    return;
  size_t column = strlen("References:");
  buf_add_c(b, "References:");
  if (refs) {
    VEC(struct str) ids = {0};
    struct str rest = header_value(refs);
    while (rest.len) {
      ptrdiff_t from = str_find_byte(rest, '<');
      ptrdiff_t to = from < 0 ? -1 : str_find_byte(str_from(rest, (size_t)from), '>');
      if (to < 0)
        break;
      vec_push(r->c->arena, &ids, str_slice(rest, (size_t)from, (size_t)(from + to + 1)));
      rest = str_from(rest, (size_t)(from + to + 1));
    }
    for (size_t i = 0; i < ids.n; i++)
      if (ids.n <= 11 || i == 0 || i > ids.n - 11)
        add_reference(b, &column, ids.v[i]);
  }
  if (id)
    add_reference(b, &column, str_trim(header_value(id)));
  buf_add_byte(b, '\n');
}

/* The file is the user's: what it asks for is done as him, too. */
static int expand_file(struct reply *r, struct str *text) {
  struct str own = str_untainted(*text);
  return r->a->filter ? redirect_expand_as_user(r->c, r->a, own, text) : filter_expand_lines(r->c, own, text);
}

static bool read_file(struct reply *r, struct buf *body) {
  struct plan p;
  struct transport_message unused;
  struct plan_result got;
  if (!str_is_set(r->file) || !r->file.len)
    return true;
  if (str_is_tainted(r->file))
    return fail_with(r, OUTCOME_DEFER, EACCES, str_printf(r->c->arena, "Tainted '%.*s' (file for %.*s transport) not permitted", STRF(r->file), STRF(r->t->name)));
  if (!local_plan_prepare(r->c, r->t, r->a, &p, &unused))
    return false;
  if (str_eq_c(r->file, "/dev/null"))
    return true;
  p.kind = PLAN_READ;
  p.path = r->file;
  p.max_read = FILE_MAX;
  p.head = STR_EMPTY;
  plan_run(r->c->arena, &p, -1, &got);
  if (got.outcome != OUTCOME_OK)
    return r->o->file_optional ? true
                               : fail_with(r, OUTCOME_DEFER, (int)got.basic_errno, str_printf(r->c->arena, "Failed to open file %.*s when sending message from %.*s transport: %.*s",
                                     STRF(r->file), STRF(r->t->name), STRF(got.message)));
  struct str text = got.output;
  if (r->file_expand && expand_file(r, &text))
    return fail(r, OUTCOME_DEFER, str_printf(r->c->arena, "Failed to expand file %.*s for %.*s transport: %.*s", STRF(r->file),
        STRF(r->t->name), STRF(r->c->error)));
  buf_add(body, text);
  return true;
}

/* transport_filter: header and body go through it, as the user, and what it writes is what is returned. */
static bool filter_message(struct reply *r, struct plan *p, struct buf *out) {
  struct plan_result got;
  p->kind = PLAN_PIPE;
  p->argv = p->filter;
  p->argv_n = p->filter_n;
  p->filter_n = 0;
  p->timeout = p->filter_timeout;
  p->timeout_defer = true;
  p->umask = 022;
  p->max_output = FILTERED_MAX;
  p->temp_errors = STR("*");
  local_plan_run(r->c, r->t, r->a, p, &got);
  if (got.outcome != OUTCOME_OK)
    return fail(r, OUTCOME_DEFER, got.message);
  r->a->result = OUTCOME_DEFER; /* not sent yet */
  if (str_is_set(got.output))
    buf_add(out, got.output);
  return true;
}

/* The message that is answered, whole, as far as return_size_limit lets it. */
static bool return_message(struct reply *r, struct submit *s) {
  const struct main_options *mo = main_options(r->c->config);
  struct transport_message m;
  struct plan p;
  if (!local_plan_prepare(r->c, r->t, r->a, &p, &m))
    return false;
  int64_t limit = mo->bounce_return_size_limit;
  bool whole = limit <= 0 || m.size <= limit;
  int64_t size = (int64_t)r->c->message->body_size + p.body_offset, most = (limit / RETURN_PIECE + 1) * RETURN_PIECE;
  const struct transport_options *o = transport_options(r->t);
  buf_printf(&s->body, "\n------ This is a copy of the %s.%s\n\n",
      o->body_only      ? "body of the message, without the headers"
      : o->headers_only ? "message's header lines"
                        : "message, including all the headers",
      limit <= 0 || size <= most || o->headers_only ? ""
          : str_printf(r->c->arena, "\n------ The body of the message is %lld characters long; only the first\n------ %lld or so are included here.",
                (long long)size, (long long)most).p);
  if (!whole && p.body_length > limit)
    p.body_length = limit;
  if (p.filter_n)
    return filter_message(r, &p, &s->body);
  buf_add(&s->body, m.head);
  if (!m.with_body)
    return true;
  int fd = spool_open_body(r->c, r->c->message);
  if (fd < 0)
    return true;
  s->body_fd = fd;
  s->body_offset = p.body_offset;
  s->body_length = p.body_length;
  return true;
}

/* Who was answered, in the user's own log. That it cannot be written is no reason to answer again. */
static void write_log(struct reply *r, bool answered_before) {
  struct plan p;
  struct transport_message unused;
  struct plan_result got;
  struct buf line;
  if (!str_is_set(r->log) || !r->log.len)
    return;
  if (str_is_tainted(r->log)) {
    log_write(LOG_MAIN | LOG_PANIC, r->c->message, "Tainted filename '%.*s'", STRF(r->log));
    return;
  }
  if (!local_plan_prepare(r->c, r->t, r->a, &p, &unused))
    return;
  buf_init(&line, r->c->arena, BUF_MAX_LINE);
  buf_printf(&line, "%.*s\n", STRF(log_stamp(r->c->arena)));
  const struct {
    const char *name;
    struct str value;
  } lines[] = {{"From", r->from}, {"To", r->to}, {"Cc", r->cc}, {"Bcc", r->bcc}, {"Subject", r->subject}};
  if (answered_before)
    buf_printf(&line, "  previously sent to %.*s\n", STRF(r->to));
  for (size_t i = 0; i < sizeof lines / sizeof *lines && !answered_before; i++)
    if (str_is_set(lines[i].value))
      buf_printf(&line, "  %s: %.*s\n", lines[i].name, STRF(lines[i].value));
  p.kind = PLAN_FILE;
  p.path = r->log;
  p.create = PLAN_CREATE_ANYWHERE;
  p.mode = r->o->mode;
  p.head = buf_str(&line);
  p.body_length = p.filter_n = 0;
  p.allow_symlink = true;
  plan_run(r->c->arena, &p, -1, &got);
  if (got.outcome != OUTCOME_OK)
    DEBUG(transport, "Failed to open log file %.*s when sending message from %.*s transport: %.*s\n", STRF(r->log), STRF(r->t->name),
        STRF(got.message));
}

static void send_reply(struct reply *r) {
  struct ctx *c = r->c;
  struct submit s;
  bool seen;
  submit_init(&s, c->arena, c->message);
  s.sender = STR_EMPTY;
  struct plan who = {.uid = -1, .gid = -1};
  if (!identity_choose(c, r->t, r->a, &who))
    return;
  s.as_user = who.uid >= 0;
  s.uid = (uint32_t)who.uid;
  s.gid = (uint32_t)who.gid;
  if (!add_recipients(r, &r->to, &s) || !add_recipients(r, &r->cc, &s) || !add_recipients(r, &r->bcc, &s) || !add_header_recipients(r, &s))
    return;
  if (!use_once_file(r, false, &seen))
    return;
  if (seen || !s.recipients.n) { /* an answer to a bounce, or all were on never_mail */
    r->a->result = OUTCOME_OK;
    if (seen)
      write_log(r, true);
    return;
  }
  add_line(&s.header, "From", r->from);
  add_line(&s.header, "Reply-To", r->reply_to);
  add_line(&s.header, "To", r->to);
  add_line(&s.header, "Cc", r->cc);
  add_line(&s.header, "Subject", r->subject);
  struct header *id = message_find_header(c->message, STR("Message-ID"), NULL);
  if (id)
    add_line(&s.header, "In-Reply-To", header_value(id));
  add_references(r, &s.header);
  buf_add_c(&s.header, "Auto-Submitted: auto-replied\n");
  if (str_is_set(r->headers) && r->headers.len) {
    buf_add(&s.header, r->headers);
    if (!str_ends(r->headers, STR("\n")))
      buf_add_byte(&s.header, '\n');
  }
  if (str_is_set(r->text) && r->text.len) {
    buf_add(&s.body, r->text);
    if (!str_ends(r->text, STR("\n")))
      buf_add_byte(&s.body, '\n');
  }
  if (!read_file(r, &s.body))
    return;
  if (r->return_message && !return_message(r, &s))
    return;
  int e = submit_message(c, &s);
  if (s.body_fd >= 0 && s.body_fd != c->message->data_fd)
    close(s.body_fd);
  if (e)
    (void)fail_with(r, OUTCOME_DEFER, 0, e == -EPERM ? str_printf(c->arena, "Failed to send message from %.*s transport (1)", STRF(r->t->name))
        : str_printf(c->arena, "Failed to submit message from %.*s transport: %s", STRF(r->t->name), strerror(-e)));
  else if (r->a->result = OUTCOME_OK, write_log(r, false), !use_once_file(r, true, &seen)) {
    log_write(LOG_MAIN, c->message, "%.*s", STRF(r->a->message)); /* that it cannot be noted is no reason to answer again */
    r->a->result = OUTCOME_OK;
    r->a->basic_errno = 0;
    r->a->message = STR_UNSET;
  }
}

static void autoreply_deliver(struct ctx *c, const struct instance *t, struct address *chain) {
  for (struct address *a = chain; a; a = a->next) {
    struct reply r = {.c = c, .t = t, .o = t->options, .a = a};
    a->result = OUTCOME_DEFER;
    if (a->filter && a->filter->reply && str_eq_c(a->address, FILTER_BAD_REPLY)) {
      a->domain = STR_EMPTY; /* it has none */
      (void)fail(&r, OUTCOME_FAIL, STR("filter autoreply generated syntactically invalid recipient"));
      continue;
    }
    if (transport_size_allowed(c, t, a) && gather(&r))
      send_reply(&r);
  }
}

const struct transport_def transport_autoreply = {
    .driver = {.name = "autoreply", .class = DRIVER_TRANSPORT, .options = autoreply_options, .options_size = sizeof(struct autoreply),
        .summary = "answer with a new message"},
    .local = true,
    .deliver = autoreply_deliver,
};
