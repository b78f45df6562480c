#include "deliver/logline.h"

#include "base/buf.h"
#include "base/time.h"
#include "core/main_options.h"
#include "core/module.h"
#include "deliver/errors.h"
#include "log/log.h"
#include "match/match.h"
#include "message/address.h"
#include "message/message.h"
#include "route/options.h"
#include "tls/tls.h"
#include "transport/options.h"
#include "transport/transport.h"

#define LINE_MAX (256u << 10)
#define CONFIRMATION_MAX 1024 /* of a reply that is logged */

static bool is_local(const struct address *a) {
  return a->transport && ((const struct transport_def *)a->transport->driver)->local;
}

bool logline_disabled(const struct address *a) {
  return (a->router && router_options(a->router)->disable_logging) ||
         (a->transport && transport_options(a->transport)->disable_logging);
}

static struct str top_text(const struct address *a) {
  return str_is_set(a->onetime_parent) ? a->onetime_parent : address_top(a)->address;
}

/* "(last intermediate)" of a file or pipe, or all of them with the selector all_parents. */
static void add_parents(struct buf *b, const struct address *a) {
  const struct address *top = address_top(a);
  const char *before = " (";
  bool any = false;
  if (a->kind == ADDRESS_MAIL && !log_selected(LOGSEL_all_parents))
    return;
  for (const struct address *up = a->parent; up && up != top; up = up->parent) {
    if (str_eq(up->address, a->address))
      continue;
    buf_add_c(b, before);
    buf_add(b, up->address);
    any = true;
    if (!log_selected(LOGSEL_all_parents))
      break;
    before = ", ";
  }
  if (any)
    buf_add_byte(b, ')');
}

/* The same address, but for the case of the domain? */
static bool same_address(struct str a, struct str b) {
  struct str a_local, a_domain, b_local, b_domain;
  address_split(a, &a_local, &a_domain);
  address_split(b, &b_local, &b_domain);
  return str_eq(a_local, b_local) && str_ieq(a_domain, b_domain);
}

static void add_address(struct buf *b, struct ctx *c, const struct address *a, bool success) {
  struct str top = top_text(a);
  bool short_form = success && a->kind == ADDRESS_MAIL && a->router && router_options(a->router)->log_as_local && is_local(a);
  bool included = a->transport && transport_options(a->transport)->rcpt_include_affixes;
  bool affixes = success && a->kind == ADDRESS_MAIL && (a->prefix.len || a->suffix.len) && !included;
  bool routed = a->kind == ADDRESS_MAIL && a->router && !included &&
                (success || !(a->prefix.len || a->suffix.len));
  struct str shown = a->address;
  if (short_form) {
    buf_add(b, included ? a->prefix : STR_EMPTY);
    buf_add(b, a->local_part);
    buf_add(b, included ? a->suffix : STR_EMPTY);
  } else {
    if (routed) /* as the router saw it: without affixes, the case ignored unless it said caseful_local_part */
      shown = str_printf(c->arena, "%.*s@%.*s", STRF(a->local_part), STRF(a->domain));
    if (success && str_is_set(a->sent_as))
      shown = a->sent_as;
    if (a->kind == ADDRESS_FILE && str_is_set(a->file_used))
      shown = a->file_used;
    if (!success && a->kind == ADDRESS_FILE && shown.len && shown.p[0] != '/')
      buf_add_c(b, "save ");
    buf_add(b, shown);
  }
  add_parents(b, a);
  if (short_form || affixes || a->kind != ADDRESS_MAIL || !same_address(top, shown)) {
    buf_add_c(b, " <");
    buf_add(b, top);
    buf_add_byte(b, '>');
  }
}

struct str logline_address(struct ctx *c, const struct address *a, bool success) {
  struct buf b;
  buf_init(&b, c->arena, LINE_MAX);
  add_address(&b, c, a, success);
  return log_printable_utf8(c->arena, buf_str(&b));
}

static void add_sender(struct buf *b, struct ctx *c, const struct address *a) {
  struct str sender = a->result == OUTCOME_OK && str_is_set(a->sent_sender) ? a->sent_sender : c->message->reverse_path;
  if (log_selected(LOGSEL_sender_on_delivery))
    buf_printf(b, " F=<%.*s>", STRF(sender));
}

static void add_queue(struct buf *b, struct ctx *c) {
  if (str_is_set(c->message->queue_name) && c->message->queue_name.len)
    buf_printf(b, " Q=%.*s", STRF(c->message->queue_name));
}

static void add_return_path(struct buf *b, struct ctx *c, const struct address *a) {
  if (!log_selected(LOGSEL_return_path_on_delivery) || !a->transport)
    return;
  struct str path = str_is_set(a->return_path) ? a->return_path
                    : str_is_set(a->prop.errors_address) ? a->prop.errors_address : c->message->reverse_path;
  buf_printf(b, " P=<%.*s>", STRF(path));
}

static void add_drivers(struct buf *b, const struct address *a) {
  if (a->router)
    buf_printf(b, " R=%.*s", STRF(a->router->name));
  if (a->bypassed)
    buf_add_c(b, " T=**bypassed**");
  else if (a->transport)
    buf_printf(b, " T=%.*s", STRF(a->transport->name));
}

/* log_ports: is the port of the other end to be logged? */
static bool port_wanted(struct ctx *c, int port) {
  struct str list = main_options(c->config)->log_ports;
  if (!log_selected(LOGSEL_outgoing_port))
    return false;
  if (!str_is_set(list) || str_eq_c(list, "*"))
    return true;
  return match_string(c, list, str_printf(c->arena, "%d", port), false, NULL) == OUTCOME_OK;
}

static void add_host(struct buf *b, struct ctx *c, const struct address *a) {
  const struct host *h = a->host_used;
  if (!h)
    return;
  buf_printf(b, " H=%.*s", STRF(h->name));
  if (log_selected(LOGSEL_dnssec) && h->dnssec)
    buf_add_c(b, " DS");
  if (str_is_set(h->address))
    buf_printf(b, " [%.*s]", STRF(h->address));
  int port = a->host_used_port ? a->host_used_port : h->port;
  if (port && port_wanted(c, port))
    buf_printf(b, ":%d", port);
  if (a->continued)
    buf_add_byte(b, '*');
  if (log_selected(LOGSEL_proxy) && str_is_set(a->proxy)) {
    buf_printf(b, " PRX=[%.*s]", STRF(a->proxy));
    if (log_selected(LOGSEL_outgoing_port))
      buf_printf(b, ":%d", a->proxy_port);
  }
  if (log_selected(LOGSEL_incoming_interface) && log_selected(LOGSEL_outgoing_interface) && str_is_set(a->sending_address)) {
    buf_printf(b, " I=[%.*s]", STRF(a->sending_address));
    if (log_selected(LOGSEL_outgoing_port))
      buf_printf(b, ":%d", a->sending_port);
  }
}

static void add_tls(struct buf *b, struct ctx *c, const struct address *a) {
  const struct tls_info *t = a->tls_out;
  if (!t)
    return;
  if (log_selected(LOGSEL_tls_cipher) && str_is_set(t->cipher))
    buf_printf(b, " X=%.*s%s", STRF(t->cipher), log_selected(LOGSEL_tls_resumption) && t->resumption & 16 ? "*" : "");
  if (log_selected(LOGSEL_tls_certificate_verified) && str_is_set(t->peer_dn))
    buf_printf(b, " CV=%s", t->dane ? "dane" : t->peer_verified ? "yes" : "no");
  if (log_selected(LOGSEL_tls_peerdn) && str_is_set(t->peer_dn) && t->peer_dn.len)
    buf_printf(b, " DN=\"%.*s\"", STRF(log_printable(c->arena, t->peer_dn)));
}

static void add_smtp(struct buf *b, const struct address *a) {
  if (log_selected(LOGSEL_protocol_detail) && str_is_set(a->protocol_steps))
    buf_printf(b, " PS=%.*s", STRF(a->protocol_steps));
}

static void add_smtp_features(struct buf *b, const struct address *a) {
  if (str_is_set(a->auth_out) && a->auth_out.len) {
    buf_printf(b, " A=%.*s", STRF(a->auth_out));
    if (str_is_set(a->auth_id_out) && a->auth_id_out.len)
      buf_printf(b, ":%.*s", STRF(a->auth_id_out));
  }
  if (log_selected(LOGSEL_pipelining) && a->used_pipelining)
    buf_add_c(b, a->used_early ? " L*" : " L");
  if (a->used_prdr)
    buf_add_c(b, " PRDR");
  if (a->used_chunking)
    buf_add_c(b, " K");
  if (str_is_set(a->signed_log))
    buf_printf(b, " %.*s", STRF(a->signed_log));
}

static void add_item(void *arg, struct str item) {
  struct buf *b = arg;
  buf_add_byte(b, ' ');
  buf_add(b, item);
}

static void add_confirmation(struct buf *b, struct ctx *c, const struct address *a) {
  if (!log_selected(LOGSEL_smtp_confirmation) || !str_is_set(a->confirmation) || !a->confirmation.len)
    return;
  buf_add_c(b, " C=\"");
  for (size_t i = 0; i < a->confirmation.len && i < CONFIRMATION_MAX; i++) {
    char ch = a->confirmation.p[i];
    if (ch == '\n') {
      buf_add_c(b, "\\\\n");
      continue;
    }
    if (ch == '"' || ch == '\\')
      buf_add_byte(b, '\\');
    buf_add(b, log_printable(c->arena, str_n(&ch, 1))); /* the other side's words: whatever its character set */
  }
  buf_add_byte(b, '"');
}

/* QT= and DT=. */
static void add_times(struct buf *b, struct ctx *c, const struct address *a, bool queue_time) {
  bool millis = log_selected(LOGSEL_millisec);
  if (queue_time && log_selected(LOGSEL_queue_time)) {
    const struct timeval *from = log_selected(LOGSEL_queue_time_exclusive) ? &c->message->received_complete : &c->message->received_time;
    int64_t queued = time_now_usec() - (from->tv_sec * 1000000LL + from->tv_usec);
    buf_printf(b, " QT=%.*s", STRF(time_format_duration(c->arena, queued < 0 ? 0 : queued, millis)));
  }
  if (log_selected(LOGSEL_deliver_time))
    buf_printf(b, " DT=%.*s", STRF(time_format_duration(c->arena, a->time_taken, millis)));
}

static void add_modules(struct buf *b, struct ctx *c, const struct address *a) {
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.delivery_log)
      modules[i]->hooks.delivery_log(c, (struct address *)a, add_item, b);
}

struct str logline_success(struct ctx *c, const struct address *a, const char *flag) {
  struct buf b;
  buf_init(&b, c->arena, LINE_MAX);
  buf_printf(&b, "%s ", flag);
  if (a->blackholed) {
    buf_printf(&b, "%s <%.*s>", a->discarded ? "discarded" : ":blackhole:", STRF(a->address));
    if (a->router)
      buf_printf(&b, " R=%.*s", STRF(a->router->name));
    return log_printable_utf8(c->arena, buf_str(&b));
  }
  add_address(&b, c, a, true);
  add_sender(&b, c, a);
  add_queue(&b, c);
  if (!a->bypassed)
    add_return_path(&b, c, a);
  add_drivers(&b, a);
  if (log_selected(LOGSEL_delivery_size) && !a->bypassed)
    buf_printf(&b, " S=%llu", (unsigned long long)c->message->size);
  if (is_local(a)) {
    if (a->hosts)
      buf_printf(&b, " H=%.*s", STRF(a->hosts->name));
    if (str_is_set(a->delivered_to))
      buf_printf(&b, " ST=%.*s", STRF(a->delivered_to));
  }
  add_host(&b, c, a);
  add_smtp(&b, a);
  add_tls(&b, c, a);
  add_smtp_features(&b, a);
  add_modules(&b, c, a);
  add_confirmation(&b, c, a);
  add_times(&b, c, a, true);
  return log_printable_utf8(c->arena, buf_str(&b));
}

/* ": Connection refused", ": why": of system errors the name, and what else is known. */
static void add_reason(struct buf *b, const struct address *a) {
  if (a->basic_errno > 0)
    buf_printf(b, ": %s", strerror(a->basic_errno));
}

static bool message_is_errno(const struct address *a) {
  return a->basic_errno > 0 && str_eq_c(a->message, strerror(a->basic_errno));
}

struct str logline_deferred(struct ctx *c, const struct address *a) {
  struct buf b;
  buf_init(&b, c->arena, LINE_MAX);
  add_address(&b, c, a, false);
  if (a->basic_errno == ERROR_ROUTING_RETRY || a->routing || (a->kind != ADDRESS_MAIL && !a->router && !a->transport)) {
    add_queue(&b, c);
    buf_printf(&b, " routing defer (%d)", a->basic_errno);
    add_times(&b, c, a, false);
    buf_printf(&b, ": %.*s", STRF(log_printable(c->arena, a->message)));
    return log_printable_utf8(c->arena, buf_str(&b));
  }
  add_queue(&b, c);
  add_drivers(&b, a);
  buf_printf(&b, " defer (%d)", a->basic_errno);
  add_reason(&b, a);
  if (!message_is_errno(a))
    add_host(&b, c, a);
  add_times(&b, c, a, false);
  if (str_is_set(a->message) && a->message.len && !message_is_errno(a))
    buf_printf(&b, ": %.*s", STRF(log_printable(c->arena, a->message)));
  return log_printable_utf8(c->arena, buf_str(&b));
}

struct str logline_failed(struct ctx *c, const struct address *a) {
  struct buf b;
  buf_init(&b, c->arena, LINE_MAX);
  add_address(&b, c, a, false);
  add_sender(&b, c, a);
  add_queue(&b, c);
  if (a->transport && !a->bypassed)
    add_return_path(&b, c, a);
  add_drivers(&b, a);
  add_host(&b, c, a);
  add_smtp(&b, a);
  add_tls(&b, c, a);
  buf_add_c(&b, " ");
  if (a->basic_errno > 0 && !message_is_errno(a))
    add_reason(&b, a);
  if (str_is_set(a->message) && a->message.len)
    buf_printf(&b, ": %.*s", STRF(log_printable(c->arena, a->message)));
  add_times(&b, c, a, false);
  return log_printable_utf8(c->arena, buf_str(&b));
}
