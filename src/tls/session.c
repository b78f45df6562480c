/* A TLS session: handshake, stream layer, and what is known of the peer. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/ip.h"
#include "tls/dane.h"
#include "tls/ocsp.h"
#include "tls/resume.h"
#include "tls/tls_internal.h"

#define DN_MAX 1024

struct tls_session {
  SSL *ssl;
  struct stream *stream;
  struct tls_context context;
  void (*on_session)(void *session_arg, struct str session, int64_t until); /* NULL: sessions are not kept */
  void *session_arg;
  bool early;  /* a server that may write before the client's Finished is there: reading ends the handshake */
  bool broken; /* after a fatal error nothing more may be sent */
  /* During the handshake only: */
  const struct tls_params *p;
  struct tls_params sni_params; /* as on_sni changed them */
  struct arena *arena;
  bool verify_failed;
  int ocsp, resumption;
  char error[TLS_ERROR_MAX]; /* ours, better than OpenSSL's */
};

static struct tls_session *session_of(const SSL *ssl) { return SSL_get_app_data(ssl); }

/* --- callbacks in the handshake --- */

static void dn_text(const X509_NAME *name, char to[DN_MAX]) {
  to[0] = '\0';
  if (name)
    X509_NAME_oneline(name, to, DN_MAX);
}

static void report_verify(struct tls_session *t, const char *text) {
  t->verify_failed = true;
  if (t->p->on_verify_error)
    t->p->on_verify_error(t->p->arg, str_tainted(str_c(text)));
}

/* OpenSSL 3 writes "self-signed" where older ones and the logs of many years have "self signed". */
static const char *verify_error_text(int error) {
  if (error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT)
    return "self signed certificate";
  if (error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN)
    return "self signed certificate in certificate chain";
  return X509_verify_cert_error_string(error);
}

static void note_fault(struct tls_session *t, int error) {
  struct tls_fault *f = t->p->fault;
  if (!f || f->kind != TLS_FAULT_NONE || t->p->verify == TLS_VERIFY_NONE || error == X509_V_OK)
    return;
  switch (error) {
  case X509_V_ERR_HOSTNAME_MISMATCH:
  case X509_V_ERR_IP_ADDRESS_MISMATCH: f->kind = TLS_FAULT_NAME; break;
  case X509_V_ERR_CERT_HAS_EXPIRED: f->kind = TLS_FAULT_EXPIRED; break;
  case X509_V_ERR_DANE_NO_MATCH: f->kind = TLS_FAULT_TLSA; break;
  default: f->kind = TLS_FAULT_UNTRUSTED; break;
  }
  f->reason = verify_error_text(error);
}

static bool host_matches(X509 *cert, struct str host) {
  struct ip_addr ip;
  if (ip_parse(host, &ip))
    return X509_check_ip(cert, ip.bytes, ip.family == AF_INET ? 4 : 16, 0) == 1;
  if (host.len && host.p[host.len - 1] == '.')
    host = str_slice(host, 0, host.len - 1);
  const unsigned flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_SINGLE_LABEL_SUBDOMAINS;
  return X509_check_host(cert, host.p, host.len, flags, NULL) == 1;
}

/* Called for each failure, and for each certificate that is good. */
static int on_verify(int ok, X509_STORE_CTX *store) {
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  struct tls_session *t = session_of(ssl);
  X509 *cert = X509_STORE_CTX_get_current_cert(store);
  int depth = X509_STORE_CTX_get_error_depth(store), required = t->p->verify == TLS_VERIFY_REQUIRED;
  char dn[DN_MAX], text[DN_MAX + 512];
  dn_text(cert ? X509_get_subject_name(cert) : NULL, dn);
  if (!ok && t->p->on_certificate && cert)
    (void)t->p->on_certificate(t->p->arg, cert, depth, false);
  if (!ok) {
    snprintf(text, sizeof text, "SSL verify error: depth=%d error=%s cert=%s", depth,
        verify_error_text(X509_STORE_CTX_get_error(store)), dn);
    note_fault(t, X509_STORE_CTX_get_error(store));
    report_verify(t, text);
    return !required;
  }
  if (t->p->verify != TLS_VERIFY_NONE && t->p->on_certificate && t->p->on_certificate(t->p->arg, cert, depth, true)) {
    snprintf(text, sizeof text, "SSL verify denied by event-action: depth=%d cert=%s", depth, dn);
    report_verify(t, text);
    ERR_clear_error();
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return !required;
  }
  ERR_clear_error(); /* others may have run meanwhile: the queue is the thread's */
  struct str host = t->p->verify_host;
  if (depth > 0 || host.len == 0 || SSL_is_server(ssl) || host_matches(cert, host))
    return 1;
  snprintf(text, sizeof text, "SSL verify error: certificate name mismatch: DN=\"%s\" H=\"%.*s\"", dn, STRF(host));
  note_fault(t, X509_V_ERR_HOSTNAME_MISMATCH);
  report_verify(t, text);
  if (X509_STORE_CTX_get_error(store) == X509_V_OK) /* where it may pass, too: a session that is resumed knows it */
    X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
  return !required;
}

static void set_verify(struct tls_session *t) {
  int mode = SSL_VERIFY_NONE;
  if (t->p->verify != TLS_VERIFY_NONE)
    mode = SSL_VERIFY_PEER;
  if (t->p->verify == TLS_VERIFY_REQUIRED)
    mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_set_verify(t->ssl, mode, on_verify);
}

/* The client named a server: other options may hold. 0, or -1. */
static int choose_context(SSL *ssl, struct str name) {
  struct tls_session *t = session_of(ssl);
  if (!name.len || !t->p->on_sni)
    return 0;
  t->sni_params = *t->p;
  int r = t->p->on_sni(t->p->arg, str_tainted(str_dup(t->arena, name)), &t->sni_params);
  if (r == 1) {
    struct tls_context c;
    char error[TLS_ERROR_MAX];
    r = tls_context_get(true, &t->sni_params, &c, error);
    if (r < 0 && t->p->on_config_error)
      t->p->on_config_error(t->p->arg, str_c(error));
    if (r == 0) {
      SSL_set_SSL_CTX(ssl, c.ctx);
      if (c.store)
        SSL_set1_verify_cert_store(ssl, c.store);
      tls_context_release(&t->context);
      t->context = c;
      t->p = &t->sni_params;
      set_verify(t);
    }
  }
  ERR_clear_error(); /* others may have run meanwhile: the queue is the thread's */
  return r < 0 ? -1 : 0;
}

/* Before anything else of the hello counts: which ticket may be taken depends on the name. */
static int on_hello(SSL *ssl, int *alert, void *arg) {
  struct str name = tls_hello_name(ssl);
  *alert = SSL_AD_INTERNAL_ERROR;
  if (choose_context(ssl, name) < 0)
    return SSL_CLIENT_HELLO_ERROR;
  struct tls_session *t = session_of(ssl);
  if (t->p->resumption)
    tls_tickets_bind(ssl, &t->context, t->p, name);
  return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_servername(SSL *ssl, int *alert, void *arg) { return SSL_TLSEXT_ERR_OK; }

void tls_session_note_resumption(SSL *ssl, int bits) { session_of(ssl)->resumption |= bits; }

void tls_session_note_ticket(SSL *ssl, struct str session, int64_t until) {
  struct tls_session *t = session_of(ssl);
  if (!t->on_session)
    return;
  t->resumption |= TLS_RESUME_TICKET;
  t->on_session(t->session_arg, session, until);
}

void tls_session_note_ocsp(SSL *ssl, enum tls_ocsp_status status) { session_of(ssl)->ocsp = status; }

int tls_session_check_staple(SSL *ssl) {
  struct tls_session *t = session_of(ssl);
  char text[TLS_ERROR_MAX];
  bool revoked;
  t->ocsp = tls_proof_check(ssl, text, sizeof text, &revoked);
  if (t->p->ocsp_status)
    *t->p->ocsp_status = t->ocsp;
  bool fatal = revoked || (t->p->ocsp == TLS_OCSP_REQUIRE && t->ocsp != TLS_OCSP_GOOD);
  if ((fatal || t->ocsp == TLS_OCSP_FAILED) && t->p->on_verify_error)
    t->p->on_verify_error(t->p->arg, str_tainted(str_c(text)));
  return !fatal;
}

/* The names a client offers, joined with colons. */
static struct str alpn_offered(struct arena *a, const unsigned char *in, unsigned n, int *ret_count) {
  struct buf b;
  buf_init(&b, a, 1024);
  *ret_count = 0;
  for (unsigned i = 0; i < n && i + 1u + in[i] <= n; i += in[i] + 1u) {
    if ((*ret_count)++)
      buf_add_byte(&b, ':');
    buf_add_n(&b, (const char *)in + i + 1, in[i]);
  }
  return buf_str(&b);
}

static bool alpn_accepted(struct str list, struct str name) {
  while (str_is_set(list))
    if (str_eq(str_trim(str_cut(&list, ':')), name))
      return name.len > 0;
  return false;
}

/* Guards against clients that are made to speak HTTP to a mail port: more than
one name, or one that is not in the list, is declined. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned n,
    void *arg) {
  struct tls_session *t = session_of(ssl);
  int count;
  struct str offered = alpn_offered(t->arena, in, n, &count);
  if (str_trim(t->p->alpn).len == 0)
    return SSL_TLSEXT_ERR_NOACK;
  if (count == 1 && alpn_accepted(t->p->alpn, offered)) {
    *out = in + 1;
    *out_len = in[0];
    return SSL_TLSEXT_ERR_OK;
  }
  snprintf(t->error, sizeof t->error, "(handshake): Bad ALPN presented (%.*s)", STRF(offered));
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

void tls_session_callbacks(SSL_CTX *ctx) {
  SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
  SSL_CTX_set_tlsext_servername_callback(ctx, on_servername);
  SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
}

/* --- the layer --- */

static void fail_with(struct tls_session *t, const char *where) {
  char text[TLS_ERROR_MAX];
  t->broken = true;
  tls_error_text(text, where);
  stream_set_error(t->stream, str_tainted(str_c(text)));
}

/* What an SSL call that did not succeed means for the stream. */
static int outcome(struct tls_session *t, int r, int *want, const char *where) {
  int saved = errno;
  switch (SSL_get_error(t->ssl, r)) {
  case SSL_ERROR_WANT_READ:
    *want = FIBER_READ;
    return -EAGAIN;
  case SSL_ERROR_WANT_WRITE:
    *want = FIBER_WRITE;
    return -EAGAIN;
  case SSL_ERROR_ZERO_RETURN:
    return 0;
  case SSL_ERROR_SYSCALL:
    t->broken = true;
    return saved ? -saved : -ECONNRESET;
  default:
    fail_with(t, where);
    return -EPROTO;
  }
}

static int layer_read(void *state, char *p, size_t n, int *want) {
  struct tls_session *t = state;
  size_t got;
  ERR_clear_error();
  errno = 0;
  int r = SSL_read_ex(t->ssl, p, n, &got);
  return r > 0 ? (int)got : outcome(t, r, want, "SSL_read");
}

static int layer_write(void *state, const char *p, size_t n, int *want) {
  struct tls_session *t = state;
  size_t done;
  ERR_clear_error();
  errno = 0;
  bool early = t->early && !SSL_is_init_finished(t->ssl);
  int r = early ? SSL_write_early_data(t->ssl, p, n, &done) : SSL_write_ex(t->ssl, p, n, &done);
  if (r > 0)
    return (int)done;
  r = outcome(t, r, want, "SSL_write");
  return r == 0 ? -EPIPE : r;
}


static void layer_shutdown(void *state) {
  struct tls_session *t = state;
  if (t->broken)
    return;
  ERR_clear_error();
  SSL_shutdown(t->ssl); /* sends close_notify if there is room for it; nobody waits for the answer */
  ERR_clear_error();
}

static void layer_free(void *state) {
  struct tls_session *t = state;
  SSL_free(t->ssl);
  tls_context_release(&t->context);
  free(t);
}

static const struct stream_layer layer = {layer_read, layer_write, layer_shutdown, layer_free};

/* --- what is known after the handshake --- */

static void release_x509(void *arg) { X509_free(arg); }

static struct x509_st *keep_cert(struct arena *a, X509 *cert) {
  if (cert)
    arena_cleanup(a, release_x509, cert);
  return cert;
}

/* "TLSv1.3" is "TLS1.3" in Exim's logs. */
static struct str version_text(struct arena *a, const SSL *ssl) {
  const char *v = SSL_get_version(ssl);
  return strncmp(v, "TLSv", 4) == 0 ? str_printf(a, "TLS%s", v + 4) : str_dup(a, str_c(v));
}

static void channel_binding(struct arena *a, SSL *ssl, struct tls_info *info) {
  unsigned char bytes[64];
  size_t n = 32;
  if (SSL_version(ssl) >= TLS1_3_VERSION) {
    static const char label[] = "EXPORTER-Channel-Binding";
    if (SSL_export_keying_material(ssl, bytes, n, label, sizeof label - 1, (const unsigned char *)"", 0, 1) != 1)
      return;
    info->channel_binding_type = "tls-exporter";
  } else if (SSL_session_reused(ssl) && SSL_get_extms_support(ssl) != 1) {
    return; /* two connections could have the same one (the triple handshake) */
  } else {
    /* The first Finished: the client's, unless the session was resumed. */
    bool own = SSL_is_server(ssl) == (SSL_session_reused(ssl) != 0);
    n = own ? SSL_get_finished(ssl, bytes, sizeof bytes) : SSL_get_peer_finished(ssl, bytes, sizeof bytes);
    info->channel_binding_type = "tls-unique";
  }
  info->channel_binding = str_dup(a, str_n((char *)bytes, n));
}

static int resumption_of(struct tls_session *t) {
  int bits = TLS_RESUME_SUPPORTED;
  if (!t->p->resumption)
    return bits;
  bits |= t->resumption;
  if (SSL_session_reused(t->ssl))
    return bits | TLS_RESUME_ASKED | TLS_RESUME_OFFERED | TLS_RESUME_RESUMED;
  /* A server that was not asked for one would have given it: so Exim counts. */
  return SSL_is_server(t->ssl) && !(bits & TLS_RESUME_ASKED) ? bits | TLS_RESUME_TICKET : bits;
}

static struct tls_info *collect_info(struct tls_session *t) {
  SSL *ssl = t->ssl;
  struct arena *a = t->arena;
  struct tls_info *info = arena_new_of(a, struct tls_info);
  const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
  info->server = SSL_is_server(ssl);
  info->bits = SSL_CIPHER_get_bits(cipher, NULL);
  info->version = version_text(a, ssl);
  info->cipher = str_printf(a, "%.*s:%s:%d", STRF(info->version), SSL_CIPHER_get_name(cipher), info->bits);
  info->cipher_std = str_dup(a, str_c(SSL_CIPHER_standard_name(cipher)));
  info->peer_cert = keep_cert(a, SSL_get1_peer_certificate(ssl));
  if (info->peer_cert) {
    char dn[DN_MAX];
    dn_text(X509_get_subject_name(info->peer_cert), dn);
    info->peer_dn = str_tainted(str_dup(a, str_c(dn)));
  }
  X509 *own = SSL_get_certificate(ssl);
  if (own)
    X509_up_ref(own);
  info->own_cert = keep_cert(a, own);
  const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  info->sni = str_dup(a, str_c(sni));
  if (info->server && sni)
    info->sni = str_tainted(info->sni);
  const unsigned char *alpn;
  unsigned alpn_len;
  SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
  if (alpn_len)
    info->alpn = str_tainted(str_dup(a, str_n((const char *)alpn, alpn_len)));
  if (SSL_session_reused(ssl)) {
    t->verify_failed = SSL_get_verify_result(ssl) != X509_V_OK;
    if (t->verify_failed)
      note_fault(t, (int)SSL_get_verify_result(ssl));
    t->ocsp = info->server ? t->ocsp : (int)t->p->session_ocsp;
  }
  info->verify_wanted = t->p->verify != TLS_VERIFY_NONE;
  info->peer_verified = info->verify_wanted && info->peer_cert && !t->verify_failed;
  info->dane = info->peer_verified && t->p->tlsa_n && tls_dane_verified(ssl);
  info->verified_name = str_tainted(str_dup(a, str_c(SSL_get0_peername(ssl))));
  info->ocsp = t->ocsp;
  info->resumption = resumption_of(t);
  channel_binding(a, ssl, info);
  return info;
}

struct tls_info *tls_info_copy(struct arena *a, const struct tls_info *info) {
  if (!info)
    return NULL;
  struct tls_info *copy = arena_memdup(a, info, sizeof *info);
  struct str *texts[] = {&copy->version, &copy->cipher, &copy->cipher_std, &copy->peer_dn, &copy->sni, &copy->alpn,
      &copy->channel_binding, &copy->verified_name};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    *texts[i] = str_dup(a, *texts[i]);
  if (copy->own_cert)
    X509_up_ref(copy->own_cert);
  if (copy->peer_cert)
    X509_up_ref(copy->peer_cert);
  keep_cert(a, copy->own_cert);
  keep_cert(a, copy->peer_cert);
  return copy;
}

/* --- the handshake --- */

static struct str handshake_error(struct tls_session *t, int r, bool server) {
  const char *where = server ? "SSL_accept" : "SSL_connect";
  if (t->error[0])
    return str_dup(t->arena, str_tainted(str_c(t->error)));
  if (r == -EPROTO)
    return str_dup(t->arena, stream_error(t->stream));
  const char *what = r == -ETIMEDOUT    ? "timed out"
                     : r == -ECONNRESET ? "TCP connection closed by peer"
                                        : strerror(-r);
  return str_printf(t->arena, "(%s): %s", where, what);
}

/* What SSL_do_handshake gives, but with TLS 1.3 it is enough that our own part is sent: we can write then. That is the way
of OpenSSL's early data, of which we take none. */
static int accept_early(struct tls_session *t) {
  char unused;
  size_t n;
  int r = SSL_read_early_data(t->ssl, &unused, sizeof unused, &n);
  if (r == SSL_READ_EARLY_DATA_FINISH)
    t->early = !SSL_is_init_finished(t->ssl);
  return r == SSL_READ_EARLY_DATA_FINISH ? 1 : -1;
}

static int handshake(struct tls_session *t, bool server, usec_t deadline) {
  for (;;) {
    int want = 0;
    ERR_clear_error();
    errno = 0;
    int r = t->p->early_write ? accept_early(t) : SSL_do_handshake(t->ssl);
    if (r == 1)
      return 0;
    unsigned long reason = ERR_peek_error();
    r = outcome(t, r, &want, server ? "SSL_accept" : "SSL_connect");
    if (r == 0 || (r == -EPROTO && ERR_GET_REASON(reason) == SSL_R_UNEXPECTED_EOF_WHILE_READING))
      return -ECONNRESET;
    if (r != -EAGAIN)
      return r;
    r = stream_wait(t->stream, want, deadline);
    if (r < 0)
      return r;
  }
}

static bool send_alpn(struct tls_session *t) {
  unsigned char wire[256];
  unsigned n = 0;
  struct str list = str_trim(t->p->alpn);
  while (list.len) {
    struct str name = str_trim(str_cut(&list, ':'));
    if (name.len == 0)
      continue;
    if (name.len > 255 || n + 1 + name.len > sizeof wire)
      return false;
    wire[n++] = (unsigned char)name.len;
    memcpy(wire + n, name.p, name.len);
    n += name.len;
  }
  return n == 0 || SSL_set_alpn_protos(t->ssl, wire, n) == 0;
}

static int prepare(struct tls_session *t, bool server) {
  t->ssl = SSL_new(t->context.ctx);
  if (!t->ssl)
    return -ENOMEM;
  SSL_set_app_data(t->ssl, t);
  set_verify(t);
  if (!SSL_set_rfd(t->ssl, stream_fd(t->stream)) || !SSL_set_wfd(t->ssl, stream_fd_out(t->stream)))
    return -ENOMEM;
  if (server) {
    SSL_set_accept_state(t->ssl);
    if (t->p->resumption) {
      SSL_clear_options(t->ssl, SSL_OP_NO_TICKET);
      SSL_set_num_tickets(t->ssl, 1);
    }
    return 0;
  }
  if (t->p->resumption) {
    SSL_clear_options(t->ssl, SSL_OP_NO_TICKET);
    t->on_session = t->p->on_session;
    t->session_arg = t->p->session_arg;
    t->resumption = TLS_RESUME_ASKED;
    if (t->p->session.len && tls_ticket_offer(t->ssl, t->p->session))
      t->resumption |= TLS_RESUME_OFFERED;
  }
  SSL_set_connect_state(t->ssl);
  if (t->p->tlsa_n && tls_dane_prepare(t->ssl, t->arena, t->p)) {
    snprintf(t->error, sizeof t->error, "(SSL_connect): the TLSA records are not usable");
    return -EINVAL;
  }
  if (t->p->sni.len && !SSL_set_tlsext_host_name(t->ssl, str_dup_c(t->arena, t->p->sni))) {
    snprintf(t->error, sizeof t->error, "(SSL_connect): the name for SNI is not usable");
    return -EINVAL;
  }
  if (t->p->ocsp)
    SSL_set_tlsext_status_type(t->ssl, TLSEXT_STATUSTYPE_ocsp);
  if (!send_alpn(t)) {
    snprintf(t->error, sizeof t->error, "(SSL_connect): tls_alpn is too long");
    return -EINVAL;
  }
  return 0;
}

static int start(struct stream *s, bool server, const struct tls_params *p, usec_t deadline, struct arena *a,
    struct tls_info **ret_info, struct str *ret_error) {
  struct tls_session *t = xcalloc(1, sizeof *t);
  t->stream = s;
  t->p = p;
  t->arena = a;
  int r = tls_context_get(server, p, &t->context, t->error);
  if (r == 0)
    r = prepare(t, server);
  if (r == 0)
    r = handshake(t, server, deadline);
  if (r == 0 && t->p->require_alpn) {
    const unsigned char *alpn;
    unsigned n;
    SSL_get0_alpn_selected(t->ssl, &alpn, &n);
    if (n == 0) {
      snprintf(t->error, sizeof t->error, "(handshake): ALPN required but not negotiated");
      r = -EPROTO;
    }
  }
  if (r < 0) {
    *ret_error = handshake_error(t, r, server);
    layer_free(t);
    return r;
  }
  *ret_info = collect_info(t);
  t->p = NULL;
  t->arena = NULL;
  stream_push_layer(s, &layer, t);
  return 0;
}

int tls_server_start(struct stream *s, const struct tls_params *p, usec_t deadline, struct arena *a,
    struct tls_info **ret_info, struct str *ret_error) {
  return start(s, true, p, deadline, a, ret_info, ret_error);
}

int tls_client_start(struct stream *s, const struct tls_params *p, usec_t deadline, struct arena *a,
    struct tls_info **ret_info, struct str *ret_error) {
  return start(s, false, p, deadline, a, ret_info, ret_error);
}
