/* The store of results for aggregate reports (RFC 9990): a SQLite file, written while mail comes in, read by `martlet
dmarc-report`. Functions block: they run in an offload thread or a command of its own. */
#pragma once

#include <sqlite3.h>

#include "base/arena.h"
#include "base/buf.h"

/* Opens it, made if need be. NULL with *ret_error, which lives in `a`. */
sqlite3 *dmarc_store_open(struct arena *a, const char *file, bool create, struct str *ret_error);
/* dmarc_report_store, expanded; unset: there is none. OUTCOME_OK or ERROR with c->error. */
struct ctx;
int dmarc_store_file(struct ctx *c, struct str *ret);
/* dmarc_report_sender, expanded. */
int dmarc_report_sender(struct ctx *c, struct str *ret);

struct dmarc_report {
  struct str organization, email, id; /* ours */
  struct str domain;                  /* whose policy */
  int64_t until;                      /* results from before then */
  /* out */
  int64_t begin, end, last_row;       /* of the results that went in */
  int messages;
  struct str rua;                     /* of the newest record */
};
/* The XML of the report about a domain. False: there is nothing to report, or *ret_error. */
bool dmarc_report_write(struct arena *a, sqlite3 *db, struct dmarc_report *r, struct buf *out, struct str *ret_error);
