/* The cache of callouts: one record for an address and one for its domain
(Exim manual, section "Callout caching"). */
#include "base/time.h"
#include "core/main_options.h"
#include "hints/records.h"
#include "log/log.h"
#include "smtp/client/callout.h"

#define KEY_MAX 500 /* longer ones are not cached: what strangers send decides them */

static bool get(struct ctx *c, struct str key, struct hint_callout *ret) {
  struct str value;
  return key.len <= KEY_MAX && hints_get(c, "callout", key, c->arena, &value) == OUTCOME_OK && hint_callout_decode(value, ret);
}

static bool fresh(int64_t stamp, bool positive, int64_t positive_time, int64_t negative_time) {
  return time_now_usec() / 1000000 - stamp <= (positive ? positive_time : negative_time);
}

static void read_domain(struct ctx *c, struct callout_facts *f) {
  const struct main_options *o = main_options(c->config);
  int64_t positive = o->callout_domain_positive_expire, negative = o->callout_domain_negative_expire;
  struct hint_callout r;
  if (!get(c, f->domain_key, &r) || !r.is_domain) {
    DEBUG(verify, "callout cache: no domain record found for %.*s\n", STRF(f->domain_key));
    return;
  }
  if (!fresh(r.stamp, r.result == HINT_ACCEPT && r.postmaster != HINT_REJECT, positive, negative)) {
    DEBUG(verify, "callout cache: domain record expired for %.*s\n", STRF(f->domain_key));
    return;
  }
  DEBUG(verify, "callout cache: found domain record for %.*s\n", STRF(f->domain_key));
  f->have_domain = true;
  f->domain = r.result;
  f->domain_stamp = r.stamp;
  if (fresh(r.random_stamp, true, positive, negative)) {
    f->random = r.random;
    f->random_stamp = r.random_stamp;
  }
  if (fresh(r.postmaster_stamp, r.postmaster == HINT_ACCEPT, positive, negative)) {
    f->postmaster = r.postmaster;
    f->postmaster_stamp = r.postmaster_stamp;
  }
}

void callout_cache_read(struct ctx *c, const struct address *a, struct str from, struct callout_facts *ret) {
  const struct main_options *o = main_options(c->config);
  struct hint_callout r;
  *ret = (struct callout_facts){.domain_key = a->domain};
  ret->address_key = from.len ? str_printf(c->arena, "%.*s/<%.*s>", STRF(a->address), STRF(from)) : a->address;
  read_domain(c, ret);
  if (!get(c, ret->address_key, &r) || r.is_domain) {
    DEBUG(verify, "callout cache: no address record found for %.*s\n", STRF(ret->address_key));
  } else if (!fresh(r.stamp, r.result == HINT_ACCEPT, o->callout_positive_expire, o->callout_negative_expire)) {
    DEBUG(verify, "callout cache: address record expired for %.*s\n", STRF(ret->address_key));
  } else {
    DEBUG(verify, "callout cache: found address record for %.*s\n", STRF(ret->address_key));
    ret->address = r.result;
  }
}

void callout_cache_write(struct ctx *c, struct callout_facts *f) {
  int64_t now = time_now_usec() / 1000000;
  if (f->changed_domain && f->domain_key.len <= KEY_MAX) {
    struct hint_callout r = {.is_domain = true, .result = f->domain, .stamp = now, .postmaster = f->postmaster,
        .postmaster_stamp = f->postmaster_stamp, .random = f->random, .random_stamp = f->random_stamp};
    hints_put(c, "callout", f->domain_key, hint_callout_encode(c->arena, &r));
    DEBUG(verify, "wrote callout cache domain record for %.*s: result=%d postmaster=%d random=%d\n", STRF(f->domain_key), f->domain,
        f->postmaster, f->random);
  }
  if (f->changed_address && f->address_key.len <= KEY_MAX) {
    struct hint_callout r = {.result = f->address, .stamp = now};
    hints_put(c, "callout", f->address_key, hint_callout_encode(c->arena, &r));
    DEBUG(verify, "wrote %s callout cache address record for %.*s\n", f->address == HINT_ACCEPT ? "positive" : "negative",
        STRF(f->address_key));
  }
}
