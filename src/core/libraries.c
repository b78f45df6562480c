/* The libraries that everything stands on, for the "Library version:" lines of -d. */
#include "core/libraries.h"

#include <ares.h>
#include <event2/event.h>
#include <idn2.h>
#include <lmdb.h>
#include <pcre2.h>

static const char *libevent_version(void) { return event_get_version(); }
static const char *cares_version(void) { return ares_version(NULL); }
static const char *idn2_version(void) { return idn2_check_version(NULL); }
static const char *lmdb_version(void) { return mdb_version(NULL, NULL, NULL); }

static const char *pcre2_version(void) {
  static char text[64]; /* the manual of PCRE2: 24 is enough */
  return pcre2_config(PCRE2_CONFIG_VERSION, NULL) <= (int)sizeof text && pcre2_config(PCRE2_CONFIG_VERSION, text) > 0 ? text : NULL;
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

const struct library_def core_libraries[] = {
  {"libevent", LIBEVENT_VERSION, libevent_version},
  {"PCRE2", TEXT(PCRE2_MAJOR) "." TEXT(PCRE2_MINOR) " " TEXT(PCRE2_DATE), pcre2_version},
  {"c-ares", ARES_VERSION_STR, cares_version},
  {"IDN2", IDN2_VERSION, idn2_version},
  {"LMDB", TEXT(MDB_VERSION_MAJOR) "." TEXT(MDB_VERSION_MINOR) "." TEXT(MDB_VERSION_PATCH), lmdb_version},
  {0},
};
