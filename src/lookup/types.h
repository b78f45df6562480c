/* The lookup types of this room, for its module's table. */
#pragma once

#include "lookup/lookup.h"

extern const struct lookup_def lookup_cdb;
extern const struct lookup_def lookup_dbm;
extern const struct lookup_def lookup_dbmjz;
extern const struct lookup_def lookup_dbmnz;
extern const struct lookup_def lookup_dnsdb;
extern const struct lookup_def lookup_dsearch;
extern const struct lookup_def lookup_iplsearch;
extern const struct lookup_def lookup_json;
extern const struct lookup_def lookup_ldap;
extern const struct lookup_def lookup_ldapdn;
extern const struct lookup_def lookup_ldapm;
extern const struct lookup_def lookup_lmdb;
extern const struct lookup_def lookup_lsearch;
extern const struct lookup_def lookup_mysql;
extern const struct lookup_def lookup_nwildlsearch;
extern const struct lookup_def lookup_passwd;
extern const struct lookup_def lookup_pgsql;
extern const struct lookup_def lookup_psl;
extern const struct lookup_def lookup_redis;
extern const struct lookup_def lookup_regdom;
extern const struct lookup_def lookup_sqlite;
extern const struct lookup_def lookup_testdb;
extern const struct lookup_def lookup_wildlsearch;
extern const struct module lookup_module;
extern const struct foreign_role dbm_verify_role; /* expand/foreign.h */

/* One command for the first of these servers that answers (a list as redis_servers is). [suspends] OUTCOME_OK with the reply in
c->arena, OUTCOME_FAIL: there is no such thing, OUTCOME_DEFER (c->error). */
int redis_call(struct ctx *c, struct str list, const struct str *args, int n, struct str *ret);

/* Main options of our own. */
struct lookup_options {
  struct str redis_tls_verify_certificates;
};
const struct lookup_options *lookup_options(const struct config *config);
