/* Connections to scanners that can be asked again: bounded in number, idle time and age; the bounds are a worker's. Whoever asks
over one that was used before must expect that the scanner has gone meanwhile: what ends before any answer to the question is asked
again over a new one, once. After any trouble, a time-out above all, a connection is closed: what would come late is for nobody. */
#pragma once

#include "base/str.h"
#include "loop/fiber.h"

struct ctx;
struct stream;

struct scan_link {
  struct stream *stream;
  const char *protocol;  /* a literal: connections of different protocols are never mixed */
  uint32_t asked;        /* questions so far; the caller counts */
  struct str goodbye;    /* a literal that is said when an idle one is closed */
  usec_t born;
  char address[128];     /* $callout_address */
};

/* Main options of what the scanners share. */
struct scan_options {
  bool keep_scanner_connections;
};

/* An idle connection, or with `anew` a new one (all idle ones to this scanner are closed then: it has been gone). As scan_connect(). [suspends] */
int scan_link_open(struct ctx *c, const char *protocol, struct str spec, usec_t deadline, bool anew, struct scan_link **ret, struct str *ret_error);
/* The answer was whole and nothing went wrong: keeps it, or closes it. */
void scan_link_keep(struct ctx *c, struct scan_link *k, struct str spec);
/* NULL is allowed. */
void scan_link_close(struct scan_link *k);

/* Are connections kept at all? */
bool scan_links_kept(const struct ctx *c);

/* Does this scanner know sessions? NO also when they are not wanted. What is learnt holds for some minutes. */
enum scan_sessions { SESSIONS_MAYBE, SESSIONS_NO, SESSIONS_YES };
enum scan_sessions scan_sessions(struct ctx *c, struct str spec);
void scan_learn_sessions(struct str spec, bool knows);
