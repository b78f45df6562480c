/* The lookup room's words. Types that are not there are known and refused, so that a configuration that uses one fails
with a clear text. */
#include "config/config.h"
#include "core/module.h"
#include "lookup/types.h"

#define REFUSED(type, how, reason)                                                                                     \
  static const struct lookup_def refused_##type = {.name = #type, .flags = LOOKUP_LATER | (how), .why = reason};
REFUSED(nis, 0, "NIS is not spoken; copy the map into a file")
REFUSED(nis0, 0, "NIS is not spoken; copy the map into a file")
REFUSED(nisplus, LOOKUP_QUERY, "NIS+ is not spoken")
REFUSED(nmh, 0, "the protocol of its server is not documented")
REFUSED(oracle, LOOKUP_QUERY, "its client library is not free")
REFUSED(whoson, LOOKUP_QUERY, "the service is no longer made")

static const struct lookup_def *const lookups[] = {
  &lookup_cdb, &lookup_dbm, &lookup_dbmjz, &lookup_dbmnz, &lookup_dnsdb, &lookup_dsearch, &lookup_iplsearch, &lookup_json,
  &lookup_ldap, &lookup_ldapdn, &lookup_ldapm, &lookup_lmdb, &lookup_lsearch, &lookup_mysql, &refused_nis,
  &refused_nis0, &refused_nisplus, &refused_nmh, &lookup_nwildlsearch, &refused_oracle, &lookup_passwd, &lookup_pgsql,
  &lookup_psl, &lookup_redis, &lookup_regdom, &lookup_sqlite, &lookup_testdb, &refused_whoson,
  &lookup_wildlsearch, NULL,
};

static const struct option_def options[] = {
  {"redis_tls_verify_certificates", OPTION_STRING, offsetof(struct lookup_options, redis_tls_verify_certificates), "system"},
  {0},
};

const struct lookup_options *lookup_options(const struct config *config) { return config_block(config, &lookup_module); }

const struct module lookup_module = {
  .name = "lookup",
  .summary = "lookups in files, directories, databases and the DNS",
  .support = "Experimental_LMDB Experimental_Redis",
  .lookups = lookups,
  .main_options = options,
  .main_size = sizeof(struct lookup_options),
};
