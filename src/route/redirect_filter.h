/* Inside of the redirect router: what its files share. */
#pragma once

#include "filter/filter.h"
#include "route/redirect.h"
#include "route/redirect_srs.h"
#include "route/redirect_parse.h"

struct redirect_run {
  struct ctx *c;
  const struct instance *r;
  const struct redirect_options *o;
  struct address *a;
  struct redirect_srs srs;
  bool sieve;       /* the filter is a Sieve script */
  int64_t uid, gid; /* to read files as; -1: as we are */
};

/* The data are a filter: runs it. [suspends] */
enum route_result redirect_filter(struct redirect_run *run, struct str data, enum filter_kind kind, struct route_lists *lists);

/* --- redirect.c --- */
/* A child for an address; a->prop is what it inherits. [suspends] */
enum route_result redirect_address(struct redirect_run *run, const struct redirect_item *item, struct address **ret);
/* A child for a file, directory, pipe or reply, with its transport or the reason why not. [suspends] */
struct address *redirect_special(struct redirect_run *run, enum address_kind kind, struct str text);
/* :fail: and :defer:, with the text that whoever gave us the address may see. */
enum route_result redirect_forced(struct redirect_run *run, struct str text, enum route_result result);
/* Logs the errors that skip_syntax_errors passes over, and reports them to syntax_errors_to. [suspends] */
void redirect_report_skipped(struct redirect_run *run, const struct redirect_parsed *p);
