/* An address on its way: from the recipient list through the routers to a
transport and an outcome. Children made by redirection point to their parent. */
#pragma once

#include "base/arena.h"
#include "base/outcome.h"
#include "base/str.h"
#include "config/config.h"
#include "dns/dns.h"
#include "message/address.h"

struct filter_item; /* filter/filter.h */
struct map;

/* What routers hand down to children and to the transport. */
struct address_props {
  struct str address_data;
  struct str errors_address;      /* unset: the message's reverse-path */
  struct str extra_headers;       /* header lines, each with "\n" */
  struct str remove_headers;      /* colon list */
  struct str domain_data, local_part_data;
  struct map *set_vars;           /* $r_… */
  bool ignore_error, utf8_msg, utf8_downcvt;
};

enum address_kind { ADDRESS_MAIL, ADDRESS_FILE, ADDRESS_PIPE, ADDRESS_REPLY };

struct address {
  struct str address;             /* the current form, caseful */
  struct str unique;              /* key of -J and duplicates: address, or "pipe/file:parent" forms */
  struct str domain;              /* lower case */
  struct str local_part;          /* as the current router sees it */
  struct str cc_local_part, lc_local_part; /* caseful / lower case; whole, unquoted */
  bool caseful;                   /* its router wanted the local part's case kept */
  struct str prefix, prefix_v, suffix, suffix_v;
  struct str topaddr;             /* top-level recipient */
  struct str onetime_parent;
  bool homonym;                   /* same address as an ancestor: `unique` begins with "\\n\\" */
  struct address *parent;
  struct address *next;           /* in whatever list holds it */
  struct address_props prop;
  enum address_kind kind;
  const struct filter_item *filter; /* the filter's item that made it: a reply's parts, a pipe's arguments; NULL: none */
  bool local_error;               /* from a local sender's alias */
  struct instance *router;        /* that accepted it */
  struct instance *transport;
  const struct instance *start_router; /* NULL: from the first */
  struct str original_errors_address; /* prop.errors_address before the routers */
  struct host *hosts;             /* chosen by the router */
  struct host *fallback_hosts;
  struct host *host_used;
  int host_used_port;
  struct str self_hostname, host_data;
  struct option_user user;        /* to deliver as; set by router or file owner */
  bool uid_set, gid_set, initgroups;
  uint32_t local_gid;             /* the account's own group, whatever the router's group option says */
  bool hide_in_errors;            /* hide_child_in_errmsg */
  bool one_time;                  /* becomes a recipient of its own when it is not delivered at once */
  bool local_user;                /* check_local_user found an account; home is its directory */
  uint32_t uid, gid;
  struct str home, current_dir;
  int mode;
  int recipient;                  /* index in the message's recipients, -1 for bounces' own */
  bool af_allow_file, af_allow_pipe, af_allow_reply;
  bool unseen;                    /* delivered as a copy; the original goes on */
  bool verify_sender, verify_recipient; /* routing for verification, not delivery */
  bool verify_routed, verify_copied;
  bool blackholed;                /* :blackhole: */
  bool discarded;                 /* a filter said that it is dealt with (seen finish) */
  bool bypassed;                  /* /dev/null */
  bool done;                      /* needs nothing more */
  unsigned child_pending;         /* children that are not complete */
  struct address *duplicate_of;   /* another that will be delivered for both */
  struct address *its_duplicates, *next_duplicate; /* those for which this one is delivered */
  /* outcome */
  enum outcome result;
  int basic_errno, more_errno;
  struct str message;             /* for log and bounce */
  struct str user_message;        /* for the SMTP client or bounce, when it may be shown */
  bool panic;                     /* the configuration is to blame: the panic log shows the line, too */
  struct str host_errors;         /* what happened at hosts before, for the message log: lines, each with "\n" */
  struct str smtp_greeting, helo_response; /* F08 */
  struct str signed_log;          /* what signed it, for the log line; unset: nothing did */
  struct str confirmation;        /* C="…" */
  struct str return_path;         /* that the transport used; unset: errors address or reverse-path */
  struct str sent_as, sent_sender; /* the address and its sender in ASCII, when they had to be converted; else unset */
  struct str file_used;           /* of a file: the name that the transport made of it; unset: none yet */
  struct str sending_address;     /* our end of the connection, for I= */
  int sending_port;
  struct str proxy;               /* PRX=: "[ip]:port" of the SOCKS proxy; unset: none */
  int proxy_port;
  struct str protocol_steps;      /* PS=: "esea" (log selector protocol_detail) */
  struct str delivered_to;        /* ST/F= texts of the => line */
  bool pass_message, return_output_sent;
  struct str return_file;         /* output of a pipe, returned to the sender */
  struct tls_info *tls_out;
  struct str auth_out, auth_id_out;
  bool used_pipelining, used_early, used_chunking, used_dsn, used_prdr;
  bool continued;                 /* over a connection that had carried another message: "*" after the host in logs */
  int transaction;                /* of the chain's: the log's "=>" stands for the first address of each */
  bool smtp_in_transaction;       /* the smtp transport's own: sent in the present transaction */
  unsigned dsn_flags;
  bool dsn_ended;                 /* behind a redirection: its parameters are not passed on, and successes not told */
  const char *dsn_action;         /* of a success notice: "delivered", "relayed", "expanded" */
  struct str dsn_orcpt;
  int64_t started, time_taken;    /* usec */
  bool retry_address;             /* its failure has a retry record of the address, not of the host */
  struct address *refusal;        /* as it was when a host had refused it for now, before the last error at another one; else NULL */
  bool put_off;                   /* not this time, without a word: another attempt will do it */
  bool routing;                   /* deferred on its way to the first router: the log says so */
  bool waits;                     /* deferred without an attempt (held, queued): no retry record */
  bool retry_timed_out;           /* failed because its last retry cut-off has passed */
  struct str retry_key;           /* D:… T:… R:… */
  bool special_action_freeze;     /* :freeze:/ERROR: freeze the message */
};

struct ctx;
struct address *address_new(struct arena *a, struct str address, int recipient);
/* A copy as a child of `parent` for a new address text. */
struct address *address_child(struct arena *a, struct address *parent, struct str text);
/* A file, pipe or reply child: domain, local part and affixes are the parent's. */
struct address *address_special(struct arena *a, struct address *parent, enum address_kind kind, struct str text);
/* `unique` without the mark of a homonym. */
struct str address_plain_key(const struct address *a);
const struct address *address_top(const struct address *addr);  /* the recipient it comes from */

/* The address as an RCPT command names it when affixes are not to be included: in its own case, without them. */
struct str address_without_affixes(struct arena *a, const struct address *addr);

/* Sets $domain, $local_part, $address_data … of the context for an address, or for a batch of them what all
have in common (manual chapter "Environment for running local transports"); clear unsets them. */
void address_set_vars(struct ctx *c, const struct address *chain);
void address_clear_vars(struct ctx *c);
