/* The message as a transport sends it: its header with what routers and the
transport add and take away (Exim manual, "Generic options for transports";
RFC 5321 4.4 for Return-Path). */
#pragma once

#include "core/ctx.h"
#include "deliver/address.h"

struct transport_message {
  struct str return_path;  /* envelope sender for this delivery */
  struct str head;         /* header lines with LF ends and the blank line; empty with body_only */
  bool with_body;
  int64_t size;            /* head and body */
  struct str *filter;      /* a remote transport's transport_filter: command and arguments; set before it is sent */
  size_t filter_n;
  int64_t filter_timeout;
};

/* The envelope sender of the delivery, into return_path of each address of the chain: the errors address, or what the
transport's return_path says. [suspends] False: it cannot be told, and all of the chain are deferred. */
bool transport_return_path(struct ctx *c, const struct instance *t, struct address *chain);

/* Builds it in c->arena for the addresses of the chain, which have their return path. [suspends] On failure all of the chain get
result OUTCOME_DEFER and a message, and false is returned. Also applies message_size_limit (OUTCOME_FAIL). */
bool transport_message_build(struct ctx *c, const struct instance *t, struct address *chain, struct transport_message *ret);

/* Sets the outcome of every address of a chain. */
void transport_chain_result(struct address *chain, enum outcome result, int err, struct str message);
/* message_size_limit. False: the addresses of the chain have their outcome. */
bool transport_size_allowed(struct ctx *c, const struct instance *t, struct address *chain);
/* A fault of the configuration: it is told in the main and panic logs at once, and the addresses wait. Always false. */
bool transport_chain_panic(struct ctx *c, struct address *chain, int err, struct str message);

/* Is a header of that name on a colon list of names (a trailing `*` matches any rest)? */
bool transport_header_listed(struct str list, struct str name);
