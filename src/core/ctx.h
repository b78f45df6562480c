/* The context: what policy code sees (DESIGN §3). One struct ctx a fiber that
evaluates policy: an SMTP session, a routing or delivery, a one-shot command.
Passed as a pointer everywhere; there are no globals. */
#pragma once

#include "base/arena.h"
#include "base/outcome.h"
#include "base/str.h"
#include "config/config.h"
#include "core/session.h"

struct address;
struct host;
struct message;
struct map;
struct router;
struct tls_info;
struct transport;

#define CAPTURES_MAX 21 /* $0 … $20 */

/* What the evaluation of one string or condition sees and sets. Saved and
restored by constructs that nest (see ctx_scope). */
struct expand_vars {
  struct str capture[CAPTURES_MAX]; /* $0… set by match and friends; unset = empty; only the first `captures` count */
  int captures;
  struct str item;                  /* $item */
  struct str value;                 /* $value */
  int runrc;
};

/* $0… from the groups of a match; n may be more than there are variables. */
static inline void captures_set(struct expand_vars *v, const struct str *groups, int n) {
  v->captures = n < CAPTURES_MAX ? n : CAPTURES_MAX;
  for (int i = 0; i < v->captures; i++)
    v->capture[i] = groups[i];
}
/* One of them; the others stay. */
static inline void capture_set(struct expand_vars *v, int i, struct str value) {
  while (v->captures <= i)
    v->capture[v->captures++] = STR_UNSET;
  v->capture[i] = value;
}

/* Names in policy text that depend on where we are. Unset reads as empty. */
struct policy_vars {
  struct str domain, domain_data;
  struct str local_part, local_part_data, local_part_prefix, local_part_prefix_v, local_part_suffix, local_part_suffix_v;
  struct str local_part_verified;
  struct str original_local_part, original_domain, parent_local_part, parent_domain;
  struct str self_hostname;
  struct str address_data, sender_address_data;
  struct str home, address_file, address_pipe;
  struct str inode, mailstore_basename; /* while appendfile's options are expanded */
  struct str host_data, sender_data, lookup_dnssec_authenticated, ldap_dn;
  struct str verify_mode;
  struct str dnslist_domain, dnslist_matched, dnslist_text, dnslist_value;
  struct str sender_rate, sender_rate_limit, sender_rate_period;
  struct str acl_verify_message, recipient_verify_failure, sender_verify_failure;
  struct str smtp_command, smtp_command_argument, smtp_notquit_reason;
  struct str event_name, event_data, event_defer_errno;
  struct str sending_ip_address, sending_port; /* our end of the connection that the smtp client uses */
  struct str rcpt_count_text;
  struct str bounce_recipient, warn_message_delay, warn_message_recipients;
  struct str prvscheck_address, prvscheck_keynum, prvscheck_result;
  struct str srs_recipient;
  struct str signing_domain, signing_selector; /* while options of signatures are expanded */
};

/* While a filter runs: what its strings see, and what they may not do. */
struct filter_vars {
  int64_t n[10];              /* $n0 … */
  struct str this_address;    /* of foranyaddress */
  struct str charset;         /* headers charset; unset: headers_charset */
  unsigned forbid;            /* EXPAND_FORBID_… */
  bool system;                /* the system filter: it sees $recipients */
};

struct acl_frame; /* acl/acl.h */

struct ctx {
  struct arena *arena;        /* results of evaluation; lives as long as the work that ctx serves */
  struct config *config;
  struct session *session;    /* NULL in deliveries */
  struct client *client;      /* of the session, or of the message being delivered; never NULL */
  struct message *message;    /* NULL: none yet */
  struct address *address;    /* being verified, routed or delivered */
  const struct instance *router, *transport, *authenticator;
  struct host *host;          /* being delivered to */
  struct client_proxy *proxy_out; /* through which the connection to it goes; NULL: none */
  struct tls_info *tls_out;   /* of the connection to it, or of the handshake that goes on; NULL: none */
  struct str smtp_active_hostname; /* of the SMTP session; unset elsewhere: primary_hostname */
  struct str host_lookup_key;
  struct expand_vars expand;
  struct policy_vars vars;
  struct map *router_vars;    /* $r_…: struct str * */
  struct map *acl_m;          /* struct str * by full name (acl_m0); the message's while there is one. Without a session
                                 and a message acl_c… is here too */
  struct str auth[4];         /* $auth1 … $auth4 */
  struct filter_vars *filter; /* the filter that runs, or NULL */
  struct acl_frame *acl;      /* the ACL that runs, or NULL */
  int acl_where;              /* enum acl_where + 1; 0 outside */
  int depth;                  /* nesting of expansions and ACLs; bounded */
  uint32_t expand_steps;      /* of the expansion under way, from depth 0; bounded (expand_step) */
  size_t expand_start;        /* what the arena held when it began */
  struct str error;           /* text of the last failed expansion, lookup, list match, DNS … */
  struct str user_message;    /* for the SMTP reply, when something refuses */
  struct str log_message;
  struct memo *memo;          /* results of lookups and of named lists during this message (lookup/memo.h) */
  bool dns_checking;          /* a list that decides about a DNS answer is being checked: no such list inside it */
  const char *match_what;     /* what the list that is checked is for ("local_parts"), for error texts; may be NULL */
  bool queue_running;         /* a delivery that a queue run started */
  bool is_test;               /* -bh, -bt, -be …: no side effects beyond output */
  bool lookup_deferred;
};

/* A new context with its client set to an empty local one. */
struct ctx *ctx_new(struct arena *arena, struct config *config);
/* Saves the expansion variables around a nested construct. */
struct expand_vars ctx_save(const struct ctx *c);
void ctx_restore(struct ctx *c, const struct expand_vars *saved);
/* Sets c->error; returns `code`, so that `return ctx_fail(c, OUTCOME_DEFER, "…")` reads well. */
int ctx_fail(struct ctx *c, enum outcome code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
