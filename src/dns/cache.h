/* Answers of the name servers, kept for their time to live. Bounded; the
least recently used goes. Keyed by name and type. */
#pragma once

#include "dns/packet.h"

struct dns_cached {
  enum dns_result result;
  const unsigned char *reply; /* the message; NULL for results without one */
  size_t reply_n;
};

/* false: not known. The reply lives in `a`. */
bool dns_cache_get(struct arena *a, struct str name, enum dns_type type, struct dns_cached *ret);
void dns_cache_put(struct str name, enum dns_type type, const struct dns_cached *v, uint32_t ttl);
void dns_cache_clear(void);
