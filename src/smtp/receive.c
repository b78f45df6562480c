#include "smtp/receive.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/fd_io.h"
#include "base/pcre.h"
#include "base/time.h"
#include "core/main_options.h"
#include "deliver/deliver.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/address.h"
#include "queue/spool.h"

#define PIECE 4096 /* input bytes handled at a time */

void receive_begin(struct reception *r, struct ctx *c, struct message *m, const struct receive_params *p) {
  *r = (struct reception){.c = c, .m = m, .p = *p, .first_line = true};
  dot_init(&r->dot, p->dot);
  buf_init(&r->physical, c->arena, BUF_MAX_EXPANSION);
  buf_init(&r->current, c->arena, BUF_MAX_EXPANSION);
  m->received_time = (struct timeval){0};
  gettimeofday(&m->received_time, NULL);
  m->deliver_first_time = true;
}

static void set_error(struct reception *r, enum receive_error e, const char *reply, struct str log) {
  if (r->error)
    return;
  r->error = e;
  r->reply = str_c(reply);
  r->log = log;
}

/* "rejected from <sender> H=… [U=…] [id]: reason" */
static struct str rejected_from(struct reception *r, const char *reason) {
  const struct client *cl = r->c->client;
  struct arena *a = r->c->arena;
  bool host = str_is_set(cl->fullhost), ident = str_is_set(cl->ident) && cl->ident.len > 0;
  struct str s = str_printf(a, "rejected from <%.*s>%s%.*s%s%.*s: %s", STRF(r->m->reverse_path), host ? " H=" : "",
      STRF(host ? cl->fullhost : STR_EMPTY), ident ? " U=" : "", STRF(ident ? cl->ident : STR_EMPTY), reason);
  s.taint = STR_TAINTED;
  return s;
}

static struct str who(struct reception *r) {
  const struct client *cl = r->c->client;
  return str_is_set(cl->fullhost) ? cl->fullhost : str_is_set(cl->ident) && cl->ident.len ? cl->ident : STR("local process");
}

/* ---- header ---- */

static void finish_header(struct reception *r) {
  struct str text = buf_str(&r->current);
  if (text.len == 0)
    return;
  text.taint = STR_TAINTED;
  struct header *h = message_add_header(r->m, ' ', str_dup(r->m->arena, text));
  h->text.taint = STR_TAINTED;
  buf_truncate(&r->current, 0);
  receive_classify(r, h);
}

/* "From user Fri Jan  5 12:35 GMT 1996": sets the sender if the caller may do that. */
static bool take_from_line(struct reception *r, struct str line) {
  struct ctx *c = r->c;
  const struct main_options *o = main_options(c->config);
  struct str groups[CAPTURES_MAX];
  int n = pcre_match_text(c->arena, o->uucp_from_pattern, line, groups, CAPTURES_MAX);
  if (n <= 0)
    return false;
  if (!r->p.sender_from_line || r->p.sender_forced)
    return true;
  struct expand_vars saved = ctx_save(c);
  captures_set(&c->expand, groups, n);
  struct str sender, error;
  struct mail_address address;
  if (expand_option(c, &o->uucp_from_sender, &sender) != 0) {
    acl_log(c, LOG_MAIN | LOG_PANIC, "expansion of \"%.*s\" failed after matching \"From \" line: %.*s",
        STRF(o->uucp_from_sender.text), STRF(c->error));
  } else if (address_parse(c->arena, sender,
      address_flags(c, ADDRESS_ALLOW_EMPTY | ADDRESS_ALLOW_DOMAIN_LITERAL), &address, &error) == 0) {
    r->m->reverse_path = receive_qualify(c, r->m->arena, address.address, true);
    r->m->reverse_path.taint = STR_TAINTED;
    r->m->reverse_path_set_untrusted = false;
    r->p.sender_forced = true;
  }
  ctx_restore(c, &saved);
  return true;
}

/* A full disk empties again by itself; any other error is for the administrator. */
static unsigned spool_panic(int rc) { return rc == -ENOSPC || rc == -EDQUOT ? 0 : LOG_PANIC; }

static void body_written(struct reception *r, int rc) {
  if (rc >= 0)
    return;
  struct str log = str_printf(r->c->arena, "spool file error (%s) while receiving message from %.*s", strerror(-rc), STRF(who(r)));
  set_error(r, RECEIVE_SPOOL, "451 Error while writing spool file", log);
  acl_log(r->c, LOG_MAIN | spool_panic(rc), "%.*s", STRF(log));
}

enum moment { HEADER_END, MESSAGE_END };

static void call_hooks(struct reception *r, enum moment when) {
  for (size_t i = 0; modules[i] && !r->error && !r->p.unspooled; i++) {
    int (*hook)(struct ctx *c) = when == MESSAGE_END ? modules[i]->hooks.message_end : modules[i]->hooks.header_end;
    if (hook && hook(r->c) != OUTCOME_OK) {
      r->error = RECEIVE_CONFIG;
      r->reply = STR("451 Temporary local problem - please try later");
    }
  }
}

static int open_unspooled(struct reception *r) {
  struct message *m = r->m;
  if (!m->id[0])
    message_make_id(m, -1);
  m->data_fd = memfd_create("message", MFD_CLOEXEC);
  struct str first = str_printf(r->c->arena, "%s-D\n", m->id);
  return m->data_fd < 0 ? -errno : fd_write_all(m->data_fd, first.p, first.len);
}

static void body_write(struct reception *r, struct str data) {
  r->body_bytes += data.len;
  if (r->error || !r->spool_open || data.len == 0)
    return;
  if (r->p.unspooled) {
    body_written(r, fd_write_all(r->m->data_fd, data.p, data.len));
    return;
  }
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.body_chunk)
      modules[i]->hooks.body_chunk(r->c, data);
  body_written(r, spool_data_write(r->c, r->m, data));
}

static void open_spool(struct reception *r) {
  if (r->error)
    return;
  int rc = r->p.unspooled ? open_unspooled(r) : spool_data_open(r->c, r->m);
  if (rc < 0) {
    struct str log = str_printf(r->c->arena, "Failed to create spool file: %s", strerror(-rc));
    set_error(r, RECEIVE_SPOOL, "451 Error while writing spool file", log);
    acl_log(r->c, LOG_MAIN | LOG_PANIC, "%.*s", STRF(log));
    return;
  }
  r->spool_open = true;
}

/* The header is complete; `line` is the body's first line when no empty line stood between. */
static void end_header(struct reception *r, struct str line) {
  finish_header(r);
  r->header_bytes -= line.len;
  r->header_done = true;
  dot_body(&r->dot);
  r->dot.lines = line.len > 0;
  r->mended += line.len > 0;
  for (struct header *h = r->m->headers; h; h = h->next)
    r->last_given = h;
  open_spool(r); /* gives the id, which Received: and Message-ID: show */
  call_hooks(r, HEADER_END);
  if (!r->error && receive_fix_headers(r) < 0) {
    set_error(r, RECEIVE_CONFIG, "451 Temporary local problem - please try later", r->c->error);
    acl_log(r->c, LOG_MAIN | LOG_PANIC, "%.*s", STRF(r->c->error));
  }
  body_write(r, line);
  buf_truncate(&r->physical, 0);
}

/* One physical line, with its newline. */
static void header_line(struct reception *r, struct str line) {
  const struct main_options *o = main_options(r->c->config);
  bool first = r->first_line;
  r->first_line = false;
  if (first && r->p.chunking && !r->dot.crlf) {
    set_error(r, RECEIVE_NOT_CRLF, "552 Message header not CRLF terminated",
        rejected_from(r, "Non-CRLF-terminated header, under CHUNKING: message abandoned"));
    if (header_name_length(line) > 0) {
      buf_add(&r->current, line);
      finish_header(r);
    }
    for (struct header *h = r->m->headers; h; h = h->next)
      h->type = ' '; /* what it is was not looked at */
    receive_log_rejection(r->c, LOG_MAIN | LOG_REJECT, r->log);
    return;
  }
  r->header_bytes += line.len;
  r->header_lines++;
  if (line.len == 1) {
    end_header(r, STR_EMPTY);
    return;
  }
  bool continued = (line.p[0] == ' ' || line.p[0] == '\t') && r->current.len > 0;
  if (!continued) {
    finish_header(r);
    if (first && r->p.allow_from_line && take_from_line(r, line)) {
      r->header_bytes -= line.len;
      return;
    }
    if (header_name_length(line) == 0) {
      r->body_line = str_dup(r->c->arena, line);
      return;
    }
  }
  buf_add(&r->current, line);
  if (o->header_line_maxsize > 0 && (int64_t)r->current.len > o->header_line_maxsize) {
    struct str log = str_printf(r->c->arena, "overlong message header line received from %.*s (more than %lld characters): message"
                                             " abandoned", STRF(who(r)), (long long)o->header_line_maxsize);
    set_error(r, RECEIVE_HEADER_LINE_TOO_BIG, "552 A message header line is too long", log);
    acl_log(r->c, LOG_MAIN, "%.*s", STRF(log));
  }
}

static void check_header_size(struct reception *r) {
  const struct main_options *o = main_options(r->c->config);
  if (r->header_done || r->error || o->header_maxsize <= 0 ||
      r->header_bytes + (int64_t)r->physical.len <= o->header_maxsize)
    return;
  struct str log = str_printf(r->c->arena, "ridiculously long message header received from %.*s (more than %lld characters):"
                                           " message abandoned", STRF(who(r)), (long long)o->header_maxsize);
  set_error(r, RECEIVE_HEADER_TOO_BIG, "552 Message header is ridiculously long", log);
  acl_log(r->c, LOG_MAIN, "%.*s", STRF(log));
}

/* ---- input ---- */

static void check_size(struct reception *r, size_t more) {
  r->total += (int64_t)more;
  if (r->error || r->p.size_limit <= 0 || r->header_bytes + r->body_bytes <= r->p.size_limit)
    return;
  char text[100];
  /* Without SMTP nobody reads on behind the byte that was too much. */
  snprintf(text, sizeof text, "message too big: read=%lld max=%lld", r->p.smtp ? (long long)(r->header_bytes + r->body_bytes) : (long long)r->p.size_limit + 1, (long long)r->p.size_limit);
  set_error(r, RECEIVE_TOO_BIG, "552 Message size exceeds maximum permitted", rejected_from(r, text));
}

/* A message has its id when it goes on behind the header. */
static void take_body_line(struct reception *r) {
  struct str line = r->body_line;
  r->body_line = STR_EMPTY;
  if (line.len > 0)
    end_header(r, line);
}

size_t receive_push(struct reception *r, struct str in) {
  size_t used = 0;
  char out[DOT_OUT_MAX(PIECE)];
  while (used < in.len && !r->dot.ended) {
    take_body_line(r);
    struct str piece = str_slice(in, used, used + PIECE);
    size_t n = 0;
    used += dot_run(&r->dot, piece, out, &n);
    struct str data = str_n(out, n);
    if (r->header_done) {
      body_write(r, data);
    } else {
      if (!r->error) {
        buf_add(&r->physical, data);
        check_header_size(r);
      }
      if (r->dot.line_done && !r->error) {
        header_line(r, buf_str(&r->physical));
        buf_truncate(&r->physical, 0);
      }
    }
    check_size(r, n);
  }
  return used;
}

static int64_t header_size(const struct message *m, int64_t *lines) {
  int64_t n = 0;
  for (const struct header *h = m->headers; h; h = h->next) {
    if (h->type == '*')
      continue;
    n += h->text.len;
    for (uint32_t i = 0; i < h->text.len; i++)
      *lines += h->text.p[i] == '\n';
  }
  return n;
}

int receive_end(struct reception *r) {
  char out[4];
  take_body_line(r);
  size_t n = dot_finish(&r->dot, out);
  if (n > 0) {
    r->mended += 2;
    if (r->header_done)
      body_write(r, str_n(out, n));
    else if (!r->error) {
      buf_add_n(&r->physical, out, n);
      header_line(r, buf_str(&r->physical));
      take_body_line(r);
    }
  }
  if (!r->header_done && !r->error)
    end_header(r, STR_EMPTY);
  struct message *m = r->m;
  m->body_size = (uint64_t)r->body_bytes;
  /* Lines of what came in chunks, for a spool that keeps them as they are, are not counted. */
  bool counted = !(main_options(r->c->config)->spool_wireformat && r->p.chunking);
  m->body_lines = counted ? r->dot.lines : 0;
  m->body_zeros = r->dot.zeros;
  /* As received; headers of ours come in at the end. */
  m->size = (uint64_t)(r->header_bytes + r->body_bytes);
  m->lines = r->header_lines + m->body_lines;
  m->max_received_line_length = r->dot.max_line_length;
  /* The manual says of the option that these have no useful values then; filters may be written for what they have. */
  if (r->p.chunking && main_options(r->c->config)->spool_wireformat) {
    m->body_lines = m->body_zeros = m->max_received_line_length = 0;
    m->lines = r->header_lines;
  }
  if (r->error == RECEIVE_TOO_BIG)
    receive_log_rejection(r->c, LOG_MAIN | LOG_REJECT, r->log);
  /* The delivery finds it, too. */
  if (!r->error && r->p.refuse_loops && m->received_count > main_options(r->c->config)->received_headers_max) {
    set_error(r, RECEIVE_LOOP, "550 Too many \"Received\" headers - suspected mail loop",
        rejected_from(r, "Too many \"Received\" headers"));
    receive_log_rejection(r->c, LOG_MAIN | LOG_REJECT, r->log);
  }
  if (!r->error && r->spool_open && !r->p.unspooled) /* ACLs may look at the end of the body */
    body_written(r, spool_data_end(r->c, m));
  call_hooks(r, MESSAGE_END);
  return r->error ? -1 : 0;
}

void receive_abandon(struct reception *r) {
  if (r->spool_open)
    spool_abandon(r->c, r->m);
  r->spool_open = false;
}

void receive_complete(struct reception *r) {
  struct ctx *c = r->c;
  struct message *m = r->m;
  if (r->completed)
    return;
  r->completed = true;
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.message_received)
      modules[i]->hooks.message_received(c);
  receive_update_received(r);
  gettimeofday(&m->received_complete, NULL);
  int64_t lines = 0;
  m->size = (uint64_t)(header_size(m, &lines) + r->body_bytes + 1);
  m->lines = lines + m->body_lines;
}

int receive_commit(struct reception *r) {
  struct ctx *c = r->c;
  struct message *m = r->m;
  receive_complete(r);
  if (c->is_test) {
    receive_log_arrival(r);
    receive_abandon(r);
    return 0;
  }
  int rc = spool_commit(c, m);
  r->spool_open = false;
  if (rc < 0) {
    r->error = RECEIVE_SPOOL;
    r->reply = STR("451 Error in writing spool file");
    acl_log(c, LOG_MAIN | spool_panic(rc), "spool file error (%s) while receiving message from %.*s", strerror(-rc), STRF(who(r)));
    return -1;
  }
  receive_log_arrival(r);
  if (m->deliver_freeze) {
    acl_log(c, LOG_MAIN, "frozen by ACL");
    if (acl_message(c)->freeze_tell)
      deliver_tell_frozen_on_arrival(c, m);
  }
  return 0;
}

/* ---- small helpers ---- */

struct str receive_login_address(struct ctx *c, struct arena *a, struct str login) {
  struct str local = address_quote_local_part(a, login);
  return str_printf(a, "%.*s@%.*s", STRF(local), STRF(main_options(c->config)->qualify_domain));
}

struct str receive_qualify(struct ctx *c, struct arena *a, struct str address, bool sender) {
  const struct main_options *o = main_options(c->config);
  struct str local, domain;
  address_split(address, &local, &domain);
  if (address.len == 0 || domain.len > 0)
    return str_dup(a, address);
  struct str q = sender ? o->qualify_domain : o->qualify_recipient;
  struct str s = str_printf(a, "%.*s@%.*s", STRF(address), STRF(q));
  s.taint = address.taint;
  return s;
}

int receive_size_limit(struct ctx *c, int64_t *ret) {
  struct str text;
  int rc = expand_option(c, &main_options(c->config)->message_size_limit, &text);
  if (rc)
    return rc;
  *ret = 0;
  if (!str_is_set(text) || text.len == 0)
    return 0;
  return expand_to_int(c, text, ret);
}

void receive_log_rejection(struct ctx *c, unsigned logs, struct str line) {
  if (!logs)
    return;
  struct message *m = c->message;
  if (!(logs & LOG_REJECT) || !m || !m->headers) {
    log_write(logs, m && m->id[0] ? m : NULL, "%.*s", STRF(line));
    return;
  }
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  buf_printf(&b, "Envelope-from: <%.*s>\n", STRF(m->reverse_path));
  for (size_t i = 0; i < m->recipients.n && i < 100; i++)
    buf_printf(&b, "%s<%.*s>\n", i ? "    " : "Envelope-to: ", STRF(m->recipients.v[i].address));
  if (m->recipients.n > 100)
    buf_add_c(&b, "    ...\n");
  for (const struct header *h = m->headers; h; h = h->next)
    if (h->text.len > 0)
      buf_printf(&b, "%c %.*s", h->type, STRF(h->text));
  log_write_with_headers(logs, m->id[0] ? m : NULL, line, buf_str(&b));
}
