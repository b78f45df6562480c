/* DMARC: what a domain asks to be done with mail in its name that neither SPF
nor DKIM vouches for (RFC 7489 with a list of public suffixes; RFC 9989 with
the walk up the DNS tree). Answers come through a function, so that tests and
fuzzers need no network. Records are foreign. */
#pragma once

#include "base/arena.h"
#include "base/str.h"
#include "dns/dns.h"

enum dmarc_policy { DMARC_P_UNSET, DMARC_P_NONE, DMARC_P_QUARANTINE, DMARC_P_REJECT };

struct dmarc_record {
  struct str text;
  enum dmarc_policy p, sp, np;
  bool strict_dkim, strict_spf;   /* adkim=s, aspf=s */
  bool testing;                   /* t=y */
  char psd;                       /* 'y', 'n', 'u' */
  int pct;                        /* 100 if absent */
  struct str rua, ruf, fo;        /* as written; unset: absent */
};

#define DMARC_RECORD_MAX 8192
#define DMARC_QUERIES_MAX 8       /* of one walk */

/* Is it a DMARC record, "v=DMARC1" first? */
bool dmarc_is_record(struct str text);
/* Takes it apart; what is wrong in it counts as absent. `p_needed` (RFC 7489, section 6.6.3): false if it has no usable policy and
no rua= that would make it p=none. Without, that is p=none in any case. */
bool dmarc_parse(struct str text, bool p_needed, struct dmarc_record *ret);
const char *dmarc_policy_name(enum dmarc_policy p); /* "" when unset */

struct dmarc_dns {
  /* As dns_query. [suspends] */
  enum dns_result (*query)(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret);
  /* The organizational domain by a list of public suffixes; NULL: the tree is walked. */
  struct str (*organization)(void *arg, struct arena *a, struct str domain);
  void *arg;
};

struct dmarc_found {
  bool any;                  /* there is a record */
  bool trouble;              /* the DNS did not answer */
  struct str domain;         /* whose record it is */
  struct dmarc_record record;
  enum dmarc_policy policy;  /* for this author domain, t=y heeded */
  struct str organization;
};

/* A domain as it is compared and asked for: in lower case, A-labels for what is not ASCII. */
struct str dmarc_domain(struct arena *a, struct str domain);
/* The policy for an author domain (in that form). Results live in `a`. [suspends] */
void dmarc_find(struct arena *a, const struct dmarc_dns *dns, struct str domain, struct dmarc_found *ret);
/* Is a domain that SPF or DKIM vouches for aligned with the author's? *ret_trouble: the DNS did not answer. [suspends] */
bool dmarc_aligned(struct arena *a, const struct dmarc_dns *dns, const struct dmarc_found *f, struct str author, struct str domain,
    bool strict, bool *ret_trouble);
