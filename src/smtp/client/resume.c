/* What is kept of TLS sessions for the next connection to the same host (manual, "TLS Resumption"). The record in the hints
database "tls" is "1 UNTIL OCSP SESSION", the session in base64: a secret, which is why the database is closed to others. */
#include <time.h>
#include "base/buf.h"
#include "base/encode.h"
#include "base/hash.h"
#include "base/ip.h"
#include "expand/expand.h"
#include "hints/hints.h"
#include "match/match.h"
#include "smtp/client/client.h"
#include "tls/tls.h"

#define DB "tls"

static void add_part(struct buf *b, struct str s) {
  buf_printf(b, "%u:", s.len);
  buf_add(b, s);
}

/* All that has a say in whether a session would be verified and made as the next one is to be. */
static struct str key_of(struct ctx *c, const struct smtp_connection *n, const struct tls_params *p, struct str extracted) {
  const struct str parts[] = {n->host_name, n->host_address, p->sni, p->alpn, p->ciphers, p->certificate, p->private_key,
      p->verify_certificates, p->crl, p->openssl_options, p->verify_host, extracted};
  struct buf b;
  buf_init(&b, c->arena, 1u << 20);
  buf_printf(&b, "%d %d ", n->port, p->verify);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    add_part(&b, parts[i]);
  unsigned char bytes[HASH_MAX];
  size_t len = hash_bytes("sha256", buf_str(&b), bytes);
  return len && !b.overflow ? hex_encode(n->arena, str_n((char *)bytes, len)) : STR_UNSET;
}

/* "UNTIL OCSP SESSION" */
static void take_record(struct ctx *c, struct str record, struct tls_params *p) {
  struct str version = str_cut(&record, ' '), until = str_cut(&record, ' '), ocsp = str_cut(&record, ' '), session;
  uint64_t seconds;
  if (!str_eq_c(version, "1") || !str_to_u64(until, &seconds) || (int64_t)seconds <= (int64_t)time(NULL))
    return;
  if (ocsp.len != 1 || ocsp.p[0] < '0' || ocsp.p[0] > '4' || !str_is_set(record) || !base64_decode(c->arena, record, false, &session))
    return;
  enum tls_ocsp_status status = (enum tls_ocsp_status)(ocsp.p[0] - '0');
  /* The proof came with the first handshake; who did not ask then may want one now. */
  if ((p->ocsp == TLS_OCSP_REQUIRE && status != TLS_OCSP_GOOD) || (p->ocsp && status == TLS_OCSP_NOT_ASKED))
    return;
  p->session = session;
  p->session_ocsp = status;
}

static void on_session(void *session_arg, struct str session, int64_t until) {
  struct smtp_connection *n = session_arg;
  struct ctx *c = n->user;
  if (n->tls_info)
    n->tls_info->resumption |= 8;
  if (!c)
    return; /* between two messages: the next one brings another */
  if (c->tls_out)
    c->tls_out->resumption |= 8;
  int ocsp = n->tls_info ? n->tls_info->ocsp : n->ocsp_status;
  (void)hints_put(c, DB, n->session_key, str_printf(c->arena, "1 %lld %d %.*s", (long long)until, ocsp, STRF(base64_encode(c->arena, session))));
}

void smtp_resume_prepare(struct ctx *c, struct smtp_connection *n, const struct smtp_client_options *o, struct tls_params *p) {
  struct str extracted = STR_EMPTY, record;
  if (n->dane.in_effect || !str_is_set(o->tls_resumption_hosts.text) ||
      match_host(c, &o->tls_resumption_hosts, n->host_name, n->host_address, NULL) != OUTCOME_OK)
    return;
  if (str_is_set(n->ehlo_reply)) { /* on connect there is nothing to take a name from */
    struct expand_scope *saved = expand_scope_begin(c);
    c->expand.item = n->ehlo_reply;
    int rc = expand_option(c, &o->host_name_extract, &extracted);
    expand_scope_end(c, saved);
    if (rc || !str_is_set(extracted))
      extracted = STR_EMPTY;
  }
  n->session_key = key_of(c, n, p, extracted);
  if (!str_is_set(n->session_key))
    return;
  p->resumption = true;
  p->on_session = on_session;
  p->session_arg = n;
  if (hints_get(c, DB, n->session_key, c->arena, &record) == OUTCOME_OK)
    take_record(c, record, p);
}
