/* Who gave us the message: what the variables $sender_host_…, $tls_in_…,
$authenticated_… and friends are made of. Belongs to an SMTP session while it
lives; a copy goes with each message, into its -H file, so that routers and
transports see the same values later. */
#pragma once

#include "base/ip.h"
#include "base/str.h"

struct arena;
struct stream;
struct tls_info; /* tls/tls.h */

/* A client that came through a proxy (PROXY protocol, XCLIENT). Not kept in the spool. */
struct client_proxy {
  struct str local_address, external_address; /* the proxy as we see it; its side towards the client. Unset: negotiation failed */
  int local_port, external_port;
  struct str unique_id;           /* tainted */
};

struct client {
  struct ip_addr ip;              /* family 0: local submission */
  struct str host_address;        /* text of it; unset when local. Tainted? no: our own text of an address */
  int host_port;
  struct str host_name;           /* verified reverse name, when it was looked up; tainted */
  bool host_name_looked_up, host_lookup_failed, host_lookup_deferred;
  struct str host_aliases;        /* colon list */
  bool host_dnssec;
  struct str helo_name;           /* as given, tainted; unset before HELO */
  bool helo_verified, helo_verify_failed, helo_dnssec; /* verified, by what was authenticated */
  struct str fullhost;            /* "H" text for logs: name (helo) [ip]:port */
  struct str rcvhost;             /* for Received: */
  struct str ident;               /* RFC 1413, or the caller's login name for local submission */
  struct str interface_address;   /* our end */
  int interface_port;
  struct str authenticated_id, authenticated_sender, authenticated_fail_id;
  struct str host_authenticated;  /* authenticator's name */
  struct str host_auth_mechanism; /* its public name at that time */
  struct str protocol;            /* $received_protocol: esmtp, esmtps, local … */
  struct tls_info *tls;           /* NULL: clear */
  struct str connection_id;       /* of the session */
  struct client_proxy *proxy;     /* NULL: none is expected */
  bool local;                     /* $sender_host_address is empty: -bs, -bS, command line */
};

enum session_kind {
  SESSION_SMTP, SESSION_LOCAL_SMTP /* -bs */, SESSION_BATCH /* -bS */, SESSION_TEST /* -bh */, SESSION_STDIN /* no SMTP */
};

struct session {
  struct arena *arena;
  enum session_kind kind;
  struct client client;
  struct stream *stream;
  struct map *acl_c;              /* acl_c… variables: struct str *, live for the connection */
  void **module_state;
  int64_t start;                  /* usec of the wall clock */
  struct str connection_id;
  bool caller_known;              /* a local caller: who he is, by the system's word */
  uint32_t caller_uid, caller_gid;
};
