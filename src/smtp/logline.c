/* The "<=" line (Exim manual, section "Logging message reception"). */
#include "acl/acl.h"
#include "base/buf.h"
#include "base/time.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/rfc2047.h"
#include "log/log.h"
#include "smtp/receive.h"
#include "tls/tls.h"

static void add_item(void *arg, struct str item) {
  struct buf *b = arg;
  buf_add_byte(b, ' ');
  buf_add(b, item);
}

/* The first "Subject:" line as T="…": quotes and backslashes escaped, newlines shown. */
static void add_subject(struct ctx *c, struct buf *b, const struct message *m) {
  const struct header *h = message_find_header(m, STR("Subject"), NULL);
  if (!h)
    return;
  struct str v = rfc2047_decode(c, header_value(h), STR_UNSET);
  buf_add_c(b, " T=\"");
  for (uint32_t i = 0; i < v.len; i++) {
    if (v.p[i] == '"' || v.p[i] == '\\')
      buf_add_byte(b, '\\');
    if (v.p[i] == '\n')
      buf_add_c(b, "\\n");
    else
      buf_add(b, log_printable(c->arena, str_slice(v, i, i + 1)));
  }
  buf_add_byte(b, '"');
}

static void add_tls(struct ctx *c, struct buf *b) {
  const struct tls_info *t = c->client->tls;
  if (!t)
    return;
  if (log_selected(LOGSEL_tls_cipher) && str_is_set(t->cipher))
    buf_printf(b, " X=%.*s%s", STRF(t->cipher), log_selected(LOGSEL_tls_resumption) && t->resumption & 16 ? "*" : "");
  if (log_selected(LOGSEL_tls_certificate_verified) && t->verify_wanted)
    buf_printf(b, " CV=%s", t->peer_verified ? "yes" : "no");
  if (log_selected(LOGSEL_tls_peerdn) && str_is_set(t->peer_dn))
    buf_printf(b, " DN=\"%.*s\"", STRF(log_printable(c->arena, t->peer_dn)));
  if (log_selected(LOGSEL_tls_sni) && str_is_set(t->sni) && t->sni.len)
    buf_printf(b, " SNI=%.*s", STRF(log_printable(c->arena, t->sni)));
}

static void add_pipelining(const struct receive_params *p, struct buf *b) {
  if (!log_selected(LOGSEL_pipelining) || !(p->offered_pipelining || p->used_pipelining))
    return;
  buf_add_c(b, " L");
  if (p->early)
    buf_add_byte(b, p->early);
  if (!p->used_pipelining)
    buf_add_byte(b, '-');
}

static void add_host(struct ctx *c, struct buf *b) {
  const struct client *cl = c->client;
  bool host = str_is_set(cl->fullhost) && cl->fullhost.len > 0;
  if (host) {
    buf_printf(b, " H=%.*s", STRF(cl->fullhost));
    if (log_selected(LOGSEL_incoming_interface) && str_is_set(cl->interface_address) && cl->interface_address.len)
      buf_printf(b, " I=[%.*s]:%d", STRF(cl->interface_address), cl->interface_port);
  }
  if (str_is_set(cl->ident) && cl->ident.len)
    buf_printf(b, " U=%.*s", STRF(cl->ident));
  if (log_selected(LOGSEL_connection_id) && str_is_set(cl->connection_id) && cl->connection_id.len)
    buf_printf(b, " Ci=%.*s", STRF(cl->connection_id));
  if (str_is_set(cl->protocol) && cl->protocol.len)
    buf_printf(b, " P=%.*s", STRF(cl->protocol));
}

static void add_auth(struct ctx *c, struct buf *b) {
  const struct client *cl = c->client;
  if (!str_is_set(cl->host_authenticated) || cl->host_authenticated.len == 0)
    return;
  buf_printf(b, " A=%.*s", STRF(cl->host_authenticated));
  if (str_is_set(cl->authenticated_id) && cl->authenticated_id.len)
    buf_printf(b, ":%.*s", STRF(cl->authenticated_id));
  if (log_selected(LOGSEL_smtp_mailauth) && str_is_set(cl->authenticated_sender) && cl->authenticated_sender.len)
    buf_printf(b, ":%.*s", STRF(cl->authenticated_sender));
}

struct str receive_log_client_items(struct ctx *c) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  add_auth(c, &b);
  add_tls(c, &b);
  return buf_str(&b);
}

void receive_log_arrival(struct reception *r) {
  struct ctx *c = r->c;
  struct message *m = r->m;
  const struct acl_message *am = acl_message(c);
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  bool fake = am && am->fakereject;
  buf_printf(&b, "%s %s%.*s%s", fake ? "(=" : "<=", m->reverse_path.len ? "" : "<", STRF(m->reverse_path),
      m->reverse_path.len ? "" : ">");
  if (str_is_set(r->p.bounced_id) && r->p.bounced_id.len)
    buf_printf(&b, " R=%.*s", STRF(r->p.bounced_id));
  add_host(c, &b);
  add_pipelining(&r->p, &b);
  add_tls(c, &b);
  add_auth(c, &b);
  if (r->p.prdr)
    buf_add_c(&b, " PRDR");
  if (c->client->proxy && log_selected(LOGSEL_proxy))
    buf_printf(&b, " PRX=%.*s", STRF(c->client->proxy->local_address));
  if (r->p.chunking)
    buf_add_c(&b, " K");
  buf_printf(&b, " S=%llu", (unsigned long long)m->size);
  if (log_selected(LOGSEL_8bitmime))
    buf_printf(&b, " M8S=%d", r->p.body_8bit);
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.received_log)
      modules[i]->hooks.received_log(c, add_item, &b);
  if (log_selected(LOGSEL_receive_time)) {
    int64_t usec = (m->received_complete.tv_sec - m->received_time.tv_sec) * 1000000LL + m->received_complete.tv_usec -
                   m->received_time.tv_usec;
    buf_printf(&b, " RT=%.*s", STRF(time_format_duration(c->arena, usec, true)));
  }
  if (str_is_set(m->queue_name) && m->queue_name.len)
    buf_printf(&b, " Q=%.*s", STRF(m->queue_name));
  bool given = str_is_set(r->message_id_value) && r->message_id_value.len > 0;
  const struct header *made = r->have_message_id || r->resent ? NULL : message_find_header(m, STR("Message-Id"), NULL);
  if (given && log_selected(LOGSEL_msg_id)) {
    buf_printf(&b, " id=%.*s", STRF(log_printable(c->arena, r->message_id_value)));
  } else if (made && log_selected(LOGSEL_msg_id_created)) { /* else a generated one says nothing new */
    struct str v = header_value(made);
    if (v.len > 2)
      buf_printf(&b, " id*=%.*s", STRF(str_slice(v, 1, v.len - 1)));
  }
  if (log_selected(LOGSEL_subject))
    add_subject(c, &b, m);
  /* The message log has the envelope in the message's own file. */
  m->arrival_text = str_dup(m->arena, log_printable(c->arena, str_from(buf_str(&b), 3)));
  if (log_selected(LOGSEL_received_sender)) {
    struct str sender = str_is_set(m->reverse_path_before) ? m->reverse_path_before : m->reverse_path;
    buf_printf(&b, " from <%.*s>", STRF(str_is_set(r->sender_given) ? r->sender_given : sender));
  }
  if (log_selected(LOGSEL_received_recipients)) {
    for (size_t i = 0; i < m->recipients.n; i++) {
      struct recipient *rcpt = &m->recipients.v[i];
      buf_printf(&b, "%s %.*s", i ? "" : " for", STRF(str_is_set(rcpt->given) ? rcpt->given : rcpt->address));
    }
  }
  struct str line = log_printable_utf8(c->arena, buf_str(&b));
  acl_log(c, LOG_MAIN, "%.*s", STRF(line));
}
