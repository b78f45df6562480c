/* Inside of DMARC: what was found about a message, for the files that keep and report it. */
#pragma once

#include "core/ctx.h"
#include "mailauth/dmarc.h"
#include "mailauth/spf.h"

#define DMARC_SIGNERS_MAX 20
#define DMARC_REPORT_URIS_MAX 10 /* destinations of one record */

enum dmarc_status {
  DMARC_UNCHECKED, DMARC_ACCEPT, DMARC_REJECT, DMARC_QUARANTINE, DMARC_NONE, DMARC_NORECORD, DMARC_NOFROM, DMARC_TEMPERROR, DMARC_OFF
};
const char *dmarc_status_name(enum dmarc_status s);

struct dmarc_signer {
  struct str domain, selector;
  struct str result;       /* "pass", "fail", "invalid" …, or the DKIM ACL's own word */
  bool pass;
};

struct dmarc_state {
  bool disabled, forensic; /* the two controls */
  bool by_list;            /* a list of public suffixes was used */
  enum dmarc_status status;
  struct str from;         /* the authors' domain */
  struct dmarc_found found;
  bool spf_known, spf_aligned, dkim_aligned;
  enum spf_result spf;
  struct str spf_domain;
  struct dmarc_signer signer[DMARC_SIGNERS_MAX];
  int signers;
  int64_t stored;          /* row in the store of results; 0: none */
};

/* The next address of a list of "mailto:" URIs (rua=, ruf=); a size behind "!" is passed over, other schemes too. */
bool dmarc_next_address(struct arena *a, struct str *rest, struct str *ret);
/* May reports about `domain` go to an address? That of the same organization may; others must say so in the DNS
(RFC 9990, section 4; RFC 7489, section 7.1). [suspends] */
bool dmarc_destination_wants(struct arena *a, const struct dmarc_dns *dns, struct str domain, struct str address);
/* How this configuration finds organizations. OUTCOME_OK; FAIL: DMARC is off; ERROR, which has been logged. `k` must stay. */
struct dmarc_asker {
  struct ctx *c;
  const void *psl;
};
int dmarc_choose_discovery(struct ctx *c, struct dmarc_asker *k, struct dmarc_dns *dns);

/* dmarc_history_file. */
void dmarc_history_write(struct ctx *c, const struct dmarc_state *s);
/* A failure report (RFC 6591, 9991), if the record and the configuration ask for one. [suspends] */
void dmarc_failure_report(struct ctx *c, const struct dmarc_dns *dns, const struct dmarc_state *s);
/* dmarc_report_store: keeps the result for an aggregate report. [suspends] */
void dmarc_store_add(struct ctx *c, struct dmarc_state *s);
/* The message was taken, whatever its author's domain asks. [suspends] */
void dmarc_store_accepted(struct ctx *c, const struct dmarc_state *s);
