/* SRS0 and SRS1 addresses in the form of libsrs_alt and Mail::SRS: a forwarder's envelope sender that leads back to the
original one. (The native form, ${srs_encode}, is in expand/items_srs.c.) */
#pragma once

#include "base/arena.h"
#include "base/str.h"

struct srs_rules {
  const struct str *secrets;  /* the first signs, all verify */
  size_t n_secrets;
  int64_t max_age;            /* days */
  int64_t hash_length, hash_min;
  bool use_timestamp, use_hash;
};

/* The words of $srs_status. */
enum srs_status { SRS_OK, SRS_NOT, SRS_BAD_HASH, SRS_EXPIRED, SRS_BAD_FORMAT, SRS_DB_ERROR };
const char *srs_status_name(enum srs_status s);

#define SRS_HASH_MAX 27     /* characters of a whole HMAC-SHA1 */
#define SRS_MAX_AGE 511     /* of a cycle of 1024 days, what is not in the future */
#define SRS_LOCAL_MAX 64    /* of the address inside (RFC 5321, section 4.5.3.1.1) */

/* The sender `local`@`domain`, rewritten to be at `alias`. SRS0 of others becomes SRS1, SRS1 stays one. SRS_OK, or
SRS_BAD_FORMAT: it cannot be rewritten. Taint: of its parts. `now`: seconds. */
enum srs_status srs_forward(struct arena *a, const struct srs_rules *rules, struct str local, struct str domain, struct str alias,
    int64_t now, struct str *ret);
/* What an unquoted local part stands for; SRS_NOT: it is no SRS address. */
enum srs_status srs_reverse(struct arena *a, const struct srs_rules *rules, struct str local, int64_t now, struct str *ret);

/* The key that stands for an address in a database; the same address has the same one, and only who knows the secret can guess it. */
struct str srs_key(struct arena *a, const struct srs_rules *rules, struct str address);
/* The key of a local part of the form SRS0=KEY, or unset. */
struct str srs_key_of(struct str local);
