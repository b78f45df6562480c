/* -bf and -bF: what a filter would do with a message (filter specification,
"Testing a new filter file"). Nothing is delivered; the caller's rights only. */

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/process.h"
#include "core/main_options.h"
#include "deliver/address.h"
#include "filter/filter.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"
#include "route/redirect_parse.h"
#include "smtp/receive.h"

#define TEXT_MAX (50u << 20)
#define FILTER_FILE_MAX (1u << 20)

static bool read_all(FILE *f, struct arena *a, size_t max, struct str *ret) {
  struct buf b;
  char piece[16384];
  size_t n;
  buf_init(&b, a, max);
  while (!b.overflow && (n = fread(piece, 1, sizeof piece, f)) > 0)
    buf_add_n(&b, piece, n);
  *ret = buf_str(&b);
  return !b.overflow && !ferror(f);
}

static bool read_filter(struct process *p, struct str name, struct str *ret) {
  FILE *f = fopen(str_dup_c(p->arena, name), "re");
  if (!f) {
    fprintf(p->err, "exim: failed to open %.*s: %s\n", STRF(name), strerror(errno));
    return false;
  }
  bool ok = read_all(f, p->arena, FILTER_FILE_MAX, ret);
  fclose(f);
  if (!ok)
    fprintf(p->err, "exim: %.*s cannot be read, or is bigger than %u bytes\n", STRF(name), FILTER_FILE_MAX);
  return ok;
}

/* --- the message --- */

/* "From joe@x.y Fri …" names the sender unless -f does. */
static struct str take_from_line(struct process *p, struct str text, struct str *ret_sender) {
  if (!str_starts(text, STR("From ")))
    return text;
  struct str rest = text, line = str_cut(&rest, '\n');
  line = str_from(line, 5);
  struct str who = str_cut(&line, ' ');
  if (!p->cli.sender_given && who.len) {
    *ret_sender = str_eq_c(who, "MAILER-DAEMON") ? STR_EMPTY : who;
    fputs("Sender taken from \"From \" line\n", p->out);
  }
  return str_is_set(rest) ? rest : STR_EMPTY;
}

/* What reception adds to a message of this caller, but for Received:. */
static bool complete_header(struct process *p, struct message *m) {
  struct submitter who = {.login = p->login, .name = p->real_name, .uid = p->real_uid, .gid = p->real_gid, .trusted = p->trusted || p->cli.sender_given,
      .admin = p->admin};
  struct reception r = {.c = p->ctx, .m = m, .p = {.local = true, .submitter = &who, .qualify_headers = true, .full_name = p->cli.full_name}};
  for (struct header *h = m->headers; h; h = h->next)
    receive_classify(&r, h);
  if (receive_fix_headers(&r))
    return false;
  if (r.received)
    r.received->type = HEADER_DELETED;
  return true;
}

/* `h`: the Return-path: line that came, or NULL. Reception takes such lines away. */
static void take_return_path(struct process *p, struct header *h) {
  struct str value = h ? header_value(h) : STR_UNSET;
  if (!h) {
    fputs("Return-path copied from sender\n", p->out);
    return;
  }
  if (value.len >= 2 && value.p[0] == '<' && value.p[value.len - 1] == '>')
    value = str_slice(value, 1, value.len - 1);
  struct address *a = address_new(p->arena, receive_login_address(p->ctx, p->arena, p->login), 0);
  a->return_path = value;
  p->ctx->address = a; /* for $return_path */
  fprintf(p->out, "Return-path taken from \"Return-path:\" header line\nReturn-path = %.*s\n", STRF(value.len ? value : STR("<>")));
  h->type = HEADER_DELETED;
}

static bool make_message(struct process *p) {
  struct ctx *c = p->ctx;
  struct message *m = c->message = message_new("filter test");
  struct str text;
  m->deliver_first_time = true;
  m->reverse_path = p->cli.sender_given ? p->cli.sender : receive_login_address(c, m->arena, p->login);
  if (str_eq_c(m->reverse_path, "<>"))
    m->reverse_path = STR_EMPTY;
  m->sender_local = !p->cli.sender_given;
  if (!read_all(stdin, m->arena, TEXT_MAX, &text)) {
    fprintf(p->err, "exim: the message cannot be read, or is bigger than %u bytes\n", TEXT_MAX);
    return false;
  }
  text = take_from_line(p, text, &m->reverse_path);
  if (m->reverse_path.len)
    m->reverse_path = receive_qualify(c, m->arena, m->reverse_path, true);
  size_t body = process_read_header(m, text);
  if (!m->headers)
    fputs("Warning: no message headers read\n", p->out);
  m->size = text.len;
  message_make_id(m, (int)main_options(p->config)->localhost_number_value);
  struct header *path = message_find_header(m, STR("Return-path"), NULL);
  if (!process_keep_body(m, str_from(text, body)) || !complete_header(p, m)) {
    fprintf(p->err, "exim: the message cannot be set up: %s %.*s\n", strerror(errno), STRF(c->error));
    return false;
  }
  take_return_path(p, path);
  return true;
}

/* --- the recipient --- */

static struct str or_else(struct str s, struct str other) { return str_is_set(s) && s.len ? s : other; }

static void set_recipient(struct process *p) {
  const struct cli *o = &p->cli;
  struct policy_vars *v = &p->ctx->vars;
  struct passwd *pw = getpwuid(p->real_uid);
  struct str sender = p->ctx->message->reverse_path;
  v->domain = v->original_domain = or_else(o->test_domain, main_options(p->config)->qualify_recipient);
  v->local_part = v->original_local_part = or_else(o->test_local_part, p->login);
  v->local_part_prefix = or_else(o->test_prefix, STR_EMPTY);
  v->local_part_suffix = or_else(o->test_suffix, STR_EMPTY);
  v->home = str_c(pw ? pw->pw_dir : "");
  v->home = str_dup(p->arena, v->home);
  struct str address = str_printf(p->arena, "%.*s%.*s%.*s@%.*s", STRF(v->local_part_prefix), STRF(v->local_part),
      STRF(v->local_part_suffix), STRF(v->domain));
  message_add_recipient(p->ctx->message, address);
  fprintf(p->out, "Sender      = %.*s\nRecipient   = %.*s\n", STRF(sender.len ? sender : STR("<>")), STRF(address));
  if (v->local_part_prefix.len)
    fprintf(p->out, "Prefix    = %.*s\n", STRF(v->local_part_prefix));
  if (v->local_part_suffix.len)
    fprintf(p->out, "Suffix    = %.*s\n", STRF(v->local_part_suffix));
}

/* --- the tests --- */

static int read_nothing(void *arg, struct arena *a, struct str path, struct str *ret, struct str *ret_error) {
  *ret = STR_EMPTY;
  return 0;
}

static int test_forward(struct process *p, struct str text) {
  struct redirect_rules rules = {.items_max = 200000, .read_file = read_nothing, .include_directory = STR_UNSET};
  struct redirect_parsed parsed;
  redirect_parse(p->arena, text, &rules, &parsed);
  switch (parsed.result) {
  case REDIRECT_BLACKHOLE:
    fputs("exim: forward file contains \":blackhole:\"\n", p->out);
    return 0;
  case REDIRECT_ITEMS:
    break;
  default:
    fprintf(p->out, "exim: error in forward file: %.*s\n", STRF(parsed.text));
    return 1;
  }
  fputs(parsed.items.n ? "exim: forward file generated:\n" : "exim: no addresses generated from forward file\n", p->out);
  for (size_t i = parsed.items.n; i > 0; i--)
    fprintf(p->out, "  %.*s\n", STRF(parsed.items.v[i - 1].text));
  fputc('\n', p->out);
  return 0;
}

/* One filter. The text is the caller's own word. */
static int test_filter(struct process *p, struct str name, struct str text, bool system) {
  enum filter_kind kind = system ? FILTER_EXIM : filter_kind(text);
  struct filter_rules rules = {.system = system, .testing = true, .verbose = p->cli.verbose, .out = p->out,
      .sieve_inbox = STR("inbox"), .sieve_subaddress = STR_UNSET, .sieve_useraddress = STR_UNSET,
      .sieve_vacation_directory = STR_UNSET, .sieve_enotify_owner = STR_UNSET};
  struct filter_result result;
  fprintf(p->out, "Testing %s file \"%.*s\"\n\n",
      kind == FILTER_EXIM ? "Exim filter" : kind == FILTER_SIEVE ? "Sieve filter" : "forward file", STRF(name));
  if (kind == FILTER_NONE)
    return test_forward(p, str_untainted(text));
  p->ctx->is_test = true;
  filter_run(p->ctx, str_untainted(text), &rules, &result);
  fflush(p->out);
  if (system)
    filter_set_system_counts(p->ctx->message, result.n);
  return result.outcome == FILTER_ERROR;
}

int mode_filter(struct process *p) {
  const struct cli *o = &p->cli;
  struct str system_text = STR_UNSET, user_text = STR_UNSET;
  int status = 1;
  log_set_echo(LOG_ECHO_TESTING);
  if (!process_become_caller(p))
    return 1;
  if ((!str_is_set(o->system_filter) || read_filter(p, o->system_filter, &system_text)) &&
      (!str_is_set(o->user_filter) || read_filter(p, o->user_filter, &user_text)) && make_message(p)) {
    set_recipient(p);
    status = str_is_set(system_text) ? test_filter(p, o->system_filter, system_text, true) : 0;
    if (!status && str_is_set(user_text))
      status = test_filter(p, o->user_filter, user_text, false);
  }
  message_free(p->ctx->message);
  p->ctx->message = NULL;
  return status;
}
