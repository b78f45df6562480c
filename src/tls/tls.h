/* TLS under a stream (OpenSSL 3; TLS 1.2 and later only). Exim manual, chapter
"Encrypted SMTP connections using TLS/SSL". Contexts are cached by the text of
their options and loaded again when one of their files changes. */
#pragma once

#include "base/str.h"
#include "loop/stream.h"

struct arena;
struct config;
struct ctx;
struct tls_tlsa;
struct x509_st; /* OpenSSL's X509 */

/* $tls_in_ocsp, $tls_out_ocsp. */
enum tls_ocsp_status { TLS_OCSP_NOT_ASKED, TLS_OCSP_NONE, TLS_OCSP_UNCHECKED, TLS_OCSP_FAILED, TLS_OCSP_GOOD };
enum tls_ocsp_wish { TLS_OCSP_IGNORE, TLS_OCSP_REQUEST, TLS_OCSP_REQUIRE };

enum tls_verify { TLS_VERIFY_NONE, TLS_VERIFY_OPTIONAL /* tls_try_verify_hosts */, TLS_VERIFY_REQUIRED };

/* Why a peer's certificate did not do. */
enum tls_fault_kind { TLS_FAULT_NONE, TLS_FAULT_NAME, TLS_FAULT_EXPIRED, TLS_FAULT_UNTRUSTED, TLS_FAULT_TLSA /* no TLSA record names it */ };
struct tls_fault {
  enum tls_fault_kind kind;
  const char *reason; /* in words, static */
};

/* What is wanted: expanded option values, unset or empty where the option is.
Tainted names of files are refused here too. */
struct tls_params {
  struct str certificate;  /* PEM file, with its chain; for a server a colon list of files */
  struct str private_key;  /* same; empty: in the certificate's file */
  struct str ciphers;      /* OpenSSL's cipher list, for TLS 1.2 */
  struct str verify_certificates; /* "system", or a file or directory that adds to the system's */
  struct str crl;          /* file or directory */
  struct str openssl_options; /* "+no_ticket …" on top of the defaults */
  struct str alpn;         /* colon list of names: what a server accepts, what a client offers */
  bool require_alpn;
  bool early_write; /* a server: with TLS 1.3 the handshake counts as done when our part is sent. Not with `verify`. */
  enum tls_verify verify;
  /* Called in the handshake with each failure of verification, as Exim logs it
  after the peer's address: "SSL verify error: depth=0 error=… cert=/CN=…".
  The text is tainted and lives during the call. May be NULL. */
  void (*on_verify_error)(void *arg, struct str text);
  /* Called in the handshake for each certificate of the peer's chain, the root first; not `good`: the one that does not verify,
  and the result does not matter. 0, or -1: it is refused. May suspend; the certificate lives during the call. May be NULL. */
  int (*on_certificate)(void *arg, struct x509_st *cert, int depth, bool good);
  void *arg;               /* for the callbacks */

  bool resumption;         /* tls_resumption_hosts: tickets are given and taken (RFC 5077); never where a client must be verified */

  /* Of a server. */
  struct str ocsp_file;    /* tls_ocsp_file: proofs for the certificates, whichever they belong to */
  struct str groups;       /* tls_eccurve */
  struct str dhparam;
  int64_t dh_max_bits;     /* 0: 2236 */
  /* For the certificate that is made when `certificate` is empty: the host's name, or
  a whole subject, "/C=UK/O=Organisation/CN=name". Unset: "localhost". */
  struct str self_signed_name;
  int self_signed_lifetime;    /* seconds; 0: a week */
  /* Called in the handshake when the client sends a name (SNI, tainted). May change
  *p, and returns 1 to use it, 0 to go on as before, -1 to break off. It may
  suspend. NULL: the name is only noted. If the changed options do not load,
  on_config_error gets the reason (a panic-log matter) and the handshake fails. */
  int (*on_sni)(void *arg, struct str sni, struct tls_params *p);
  void (*on_config_error)(void *arg, struct str text);
  /* When files were read: something is not as it should be, but works (a main-log matter). May be NULL. */
  void (*on_config_note)(void *arg, struct str text);

  /* Of a client. */
  struct str sni;          /* sent if not empty */
  enum tls_ocsp_wish ocsp; /* required: no handshake without a good proof; a revoked certificate is never taken if asked for */
  struct str session;      /* with `resumption`: one to resume, from on_session; empty: none */
  enum tls_ocsp_status session_ocsp; /* what was known in it */
  /* With `resumption`: a session that may be resumed until then (seconds since 1970). Also called later, when the stream is read;
  session_arg must live as long. The text is secret and lives during the call. May not suspend. */
  void (*on_session)(void *session_arg, struct str session, int64_t until);
  void *session_arg;
  int *ocsp_status;        /* gets the result, also of a handshake that fails; may be NULL */
  struct tls_fault *fault; /* gets the first failure of verification, if there is one; may be NULL */
  struct str verify_host;  /* the name for which the certificate must be; empty: any */
  /* DANE (tls/dane.h), when tlsa_n > 0: the certificates that match decide, not the system's, and `verify` must be REQUIRED.
  The TLSA base domain is sent as SNI, and like the other names it is one that a certificate may be for. */
  const struct tls_tlsa *tlsa;
  size_t tlsa_n, dane_names_n;
  struct str dane_base;
  const struct str *dane_names;
};

/* What a finished handshake has brought. The texts live in the arena that was given. */
struct tls_info {
  bool server;
  struct str version;     /* "TLS1.3" */
  struct str cipher;      /* "TLS1.3:TLS_AES_256_GCM_SHA384:256": X= and $tls_in_cipher */
  struct str cipher_std;  /* RFC name: "TLS_AES_256_GCM_SHA384" */
  int bits;
  struct str peer_dn;     /* "/C=UK/CN=name", tainted; unset: no certificate was presented */
  struct str sni;         /* received (tainted) or sent; unset: none */
  struct str alpn;        /* negotiated; unset: none */
  bool verify_wanted;     /* verify was not TLS_VERIFY_NONE */
  bool peer_verified;     /* the chain, and the host name if one was given */
  bool dane;              /* peer_verified is due to TLSA records */
  int tlsa_usage;         /* bits of $tls_out_tlsa_usage, set by the caller */
  struct str verified_name; /* the name that the certificate was for, where OpenSSL looked for one; unset: none */
  int ocsp;               /* enum tls_ocsp_status */
  int resumption;         /* bits of $tls_in_resumption */
  /* For SCRAM-…-PLUS, raw bytes: tls-exporter (RFC 9266) with TLS 1.3, else tls-unique. */
  struct str channel_binding;
  const char *channel_binding_type;
  struct x509_st *own_cert, *peer_cert; /* or NULL; released with the arena */
};

/* Puts TLS on a stream whose clear-text input has been discarded. [suspends]
0 and *ret_info (in `a`); or -errno and *ret_error (in `a`, tainted if it is from
the peer) as Exim logs it after "TLS error on connection from …" and "TLS
session: ": "(SSL_accept): timed out". After an error the stream can only be freed.
-ENOENT and -EINVAL: the options are at fault (a panic-log matter), nothing
was sent. */
int tls_server_start(struct stream *s, const struct tls_params *p, usec_t deadline, struct arena *a,
    struct tls_info **ret_info, struct str *ret_error);
int tls_client_start(struct stream *s, const struct tls_params *p, usec_t deadline, struct arena *a,
    struct tls_info **ret_info, struct str *ret_error);

/* A copy that lives as long as `a`; NULL for NULL. */
struct tls_info *tls_info_copy(struct arena *a, const struct tls_info *info);

/* Before a server's handshake with `resumption`: where keys of tickets are shared with other daemons (tls_ticket_servers), sees to
it that those of now are here. Trouble is logged; then tickets are for this host alone. [suspends] */
void tls_tickets_prepare(struct ctx *c);

/* A fiber that has tls_ocsp_refresh run for each file of tls_ocsp_file when half of its proof's time is over; it lasts until it is
cancelled. NULL: there is nothing to do. */
struct fiber *tls_ocsp_refresh_start(struct config *config);

/* Does the context load? For the answer to STARTTLS, and to fill the cache.
[suspends] 0, or -errno and *ret_error as above. */
int tls_server_check(const struct tls_params *p, struct arena *a, struct str *ret_error);

/* openssl_options: a list of "+name" and "-name". false: *ret_bad is the item that is unknown. */
bool tls_options_parse(struct str text, uint64_t *ret_options, struct str *ret_bad);
/* The name of item i in builtin macros, "NO_TLSV1_3"; NULL behind the last. */
const char *tls_option_macro_name(size_t i, char to[64]);
/* Is it a cipher list that OpenSSL takes? For the check of the configuration. */
bool tls_ciphers_valid(struct arena *a, struct str ciphers, struct str *ret_error);
/* Forgets all cached contexts (a reload of the configuration; the end of a test). */
void tls_cache_clear(void);
