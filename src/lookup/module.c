/* The lookup room's words. Types whose behaviour is not there yet are known
and refused, so that a configuration that uses one fails with a clear text. */
#include "core/module.h"
#include "lookup/types.h"

#define LATER(type, how)                                                                                               \
  static const struct lookup_def later_##type = {.name = #type, .flags = LOOKUP_LATER | (how)};
LATER(dbm, LOOKUP_FILE)
LATER(dbmjz, LOOKUP_FILE)
LATER(dbmnz, LOOKUP_FILE)
LATER(json, LOOKUP_FILE)
LATER(ldap, LOOKUP_QUERY)
LATER(ldapdn, LOOKUP_QUERY)
LATER(ldapm, LOOKUP_QUERY)
LATER(lmdb, LOOKUP_FILE)
LATER(mysql, LOOKUP_QUERY)
LATER(nis, 0)
LATER(nis0, 0)
LATER(nisplus, LOOKUP_QUERY)
LATER(nmh, 0)
LATER(oracle, LOOKUP_QUERY)
LATER(pgsql, LOOKUP_QUERY)
LATER(psl, LOOKUP_FILE)
LATER(redis, LOOKUP_QUERY)
LATER(regdom, LOOKUP_FILE)
LATER(spf, 0)
LATER(whoson, LOOKUP_QUERY)

static const struct lookup_def *const lookups[] = {
  &lookup_cdb, &later_dbm, &later_dbmjz, &later_dbmnz, &lookup_dnsdb, &lookup_dsearch, &lookup_iplsearch, &later_json,
  &later_ldap, &later_ldapdn, &later_ldapm, &later_lmdb, &lookup_lsearch, &later_mysql, &later_nis, &later_nis0,
  &later_nisplus, &later_nmh, &lookup_nwildlsearch, &later_oracle, &lookup_passwd, &later_pgsql, &later_psl,
  &later_redis, &later_regdom, &later_spf, &lookup_sqlite, &later_whoson, &lookup_wildlsearch, NULL,
};

const struct module lookup_module = {
  .name = "lookup",
  .summary = "lookups in files, directories, SQLite databases and the DNS",
  .lookups = lookups,
};
