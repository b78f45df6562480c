/* Sender Policy Framework (RFC 7208): may this client use that domain? The
evaluator asks for DNS answers through a function, so that tests and fuzzers
need no network. All texts of records and messages are foreign. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/ip.h"
#include "base/str.h"
#include "dns/dns.h"

/* RFC 7208, section 2.6; in the order of that section. */
enum spf_result { SPF_NONE, SPF_NEUTRAL, SPF_PASS, SPF_FAIL, SPF_SOFTFAIL, SPF_TEMPERROR, SPF_PERMERROR };
/* "none", "neutral", "pass" … */
const char *spf_result_name(enum spf_result r);

/* ---- records (section 4.6.1, 12) ---- */

enum spf_mechanism { SPF_ALL, SPF_INCLUDE, SPF_A, SPF_MX, SPF_PTR, SPF_IP4, SPF_IP6, SPF_EXISTS };

struct spf_directive {
  enum spf_mechanism mechanism;
  enum spf_result qualifier; /* the result when it matches */
  struct str domain;         /* macro string; unset: the current domain */
  struct ip_addr net;        /* ip4, ip6 */
  int bits4, bits6;          /* prefix lengths */
  struct str text;           /* as written */
  struct spf_directive *next;
};

struct spf_record {
  struct spf_directive *first;
  struct str redirect, explanation; /* macro strings of the modifiers; unset if absent */
};

#define SPF_RECORD_MAX 8192 /* bytes; longer records are in error */

/* Is this TXT record one of version 1? (section 4.5) */
bool spf_is_record(struct str text);
/* Takes the whole record apart; its views point into `text`, the rest lives in `a`. false: it breaks the grammar,
*ret_error says where. */
bool spf_parse(struct arena *a, struct str text, struct spf_record *ret, struct str *ret_error);

/* ---- macros (section 7) ---- */

struct spf_macros {
  struct str local_part, sender_domain, helo, domain; /* %l %o %h %d */
  struct ip_addr ip;
  struct str validated;   /* %p: the validated name, or "unknown" */
  struct str receiver;    /* %r */
  int64_t now;            /* %t, seconds */
};
/* Where a macro string stands: letters c, r and t are only for explanations, which may hold blanks. */
enum spf_macro_place { SPF_DOMAIN_SPEC, SPF_MODIFIER_VALUE, SPF_EXPLANATION };
/* Does the text fit the grammar? */
bool spf_macro_check(struct str text, enum spf_macro_place place);
/* Is the letter (lower case) used in it? The text has been checked. */
bool spf_macro_uses(struct str text, char letter);
/* Adds the expansion; false when the text breaks the grammar or the result does not fit in `out`. */
bool spf_macro_expand(struct str text, enum spf_macro_place place, const struct spf_macros *m, struct buf *out);

/* ---- check_host() (section 4) ---- */

struct spf_identity {
  struct ip_addr ip;      /* of the client; IPv4-mapped addresses count as IPv4 */
  struct str sender;      /* MAIL FROM, or empty: then the identity is postmaster@helo */
  struct str helo;        /* as given */
  struct str receiver;    /* our name, for %r */
};

/* Where answers come from. [suspends] as the function does. */
struct spf_dns {
  enum dns_result (*query)(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret);
  int64_t (*now)(void *arg); /* seconds of the wall clock, also for the time limit */
  void *arg;
};

struct spf_answer {
  enum spf_result result;
  struct str domain;      /* whose policy was asked for: the sender's domain, or the HELO name; tainted */
  struct str mechanism;   /* that decided, as written ("-all"); unset: none did. Tainted */
  struct str problem;     /* of permerror and temperror, for people; may quote foreign text */
  struct str explanation; /* of fail: the domain's own text (exp=), printable ASCII; unset: it has none. Tainted */
};

#define SPF_LOOKUPS_MAX 10   /* terms that ask the DNS (section 4.6.4) */
#define SPF_VOID_MAX 2       /* of them without an answer */
#define SPF_NAMES_MAX 10     /* names of one mx or ptr */
#define SPF_SECONDS_MAX 20   /* for one evaluation */

/* Evaluates the policy of the identity's domain. Texts live in `a`. [suspends] */
void spf_check(struct arena *a, const struct spf_dns *dns, const struct spf_identity *who, struct spf_answer *ret);
/* The same with `record` in place of the domain's own: the guess. [suspends] */
void spf_check_record(struct arena *a, const struct spf_dns *dns, const struct spf_identity *who, struct str record,
    struct spf_answer *ret);
/* A macro string for people about this identity; what does not fit is cut. The text must have passed spf_macro_check.
[suspends] */
struct str spf_explain(struct arena *a, const struct spf_dns *dns, const struct spf_identity *who, struct str text);
