/* MTA-STS policies (RFC 8461, sections 3.1 and 3.2): what other people's web servers and zones say. */
#pragma once

#include "base/arena.h"
#include "base/str.h"

#define STS_POLICY_MAX (64u << 10)
#define STS_MX_MAX 100
#define STS_MAX_AGE 31557600 /* seconds: a year */
#define STS_ID_MAX 32

enum sts_mode { STS_NONE, STS_TESTING, STS_ENFORCE };

struct sts_policy {
  enum sts_mode mode;
  int64_t max_age;
  struct str mx[STS_MX_MAX]; /* patterns */
  size_t mx_n;
};

/* 0, or -1: it is none. *ret points into the text. */
int sts_policy_parse(struct str text, struct sts_policy *ret);
/* May the host with this name (without a dot at its end) be used? */
bool sts_policy_allows(const struct sts_policy *p, struct str host);
/* The id of a TXT record at _mta-sts.DOMAIN. 0; -1: it is none of these records; -2: it is a broken one. */
int sts_record_parse(struct str text, struct str *ret_id);
