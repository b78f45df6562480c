/* LDAP queries: settings and a URL (manual, "Format of LDAP queries", "LDAP authentication and control information"), and
the two kinds of quoting. */
#pragma once

#include "base/buf.h"
#include "core/ctx.h"

enum ldap_dereference { LDAP_DEREFERENCE_UNSET, LDAP_DEREFERENCE_NEVER, LDAP_DEREFERENCE_SEARCHING, LDAP_DEREFERENCE_FINDING,
  LDAP_DEREFERENCE_ALWAYS };

struct ldap_query {
  struct str user, password, servers; /* unset: not given */
  struct str url;                     /* whole; without a host, if it had one */
  struct str host;                    /* of the URL, decoded; empty: none */
  enum { LDAP_PLAIN, LDAP_TLS, LDAP_LOCAL } scheme;
  int64_t size, time, net_time;       /* 0: not given */
  enum ldap_dereference dereference;
  bool no_referrals;
};

/* Takes a query apart. 0, or OUTCOME_DEFER with c->error. Without a URL only if `url_optional`; then url is empty. */
int ldap_query_parse(struct ctx *c, struct str text, bool url_optional, struct ldap_query *ret) MUST_CHECK;
int ldap_quote(struct ctx *c, struct str text, struct str option, struct buf *out);
