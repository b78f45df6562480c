/* Compiled lists: what the match room works on. */
#pragma once

#include "base/ip.h"
#include "base/pcre.h"
#include "lookup/lookup.h"
#include "match/match.h"

#define LIST_MAX_DEPTH 20 /* named lists in named lists */

enum item_type {
  ITEM_ERROR,       /* does not compile: arg is the text of the error */
  ITEM_LITERAL,     /* the whole subject */
  ITEM_ANY,         /* "*" */
  ITEM_SUFFIX,      /* "*x" */
  ITEM_REGEX,
  ITEM_LOOKUP,      /* type;file or type;query */
  ITEM_NAMED,       /* +name */
  ITEM_FILE,        /* /path */
  ITEM_CASEFUL,     /* +caseful */
  /* domains */
  ITEM_PRIMARY,     /* "@": primary_hostname */
  ITEM_LOCAL_IP,    /* "@[]" */
  ITEM_MX_ANY,      /* "@mx_any"; arg: the list behind /ignore= */
  ITEM_MX_PRIMARY,
  ITEM_MX_SECONDARY,
  /* hosts */
  ITEM_EMPTY,       /* no host; in address lists: the empty address */
  ITEM_IP,          /* address with a mask */
  ITEM_BAD_IP,      /* looks like one and is none: never matches */
  ITEM_NET_LOOKUP,  /* net24-type;file; bits -1: unmasked */
  ITEM_HOSTNAME,    /* a name whose addresses are looked up */
  ITEM_INCLUDE_UNKNOWN,
  ITEM_IGNORE_UNKNOWN,
  ITEM_INCLUDE_DEFER,
  ITEM_IGNORE_DEFER,
  /* addresses */
  ITEM_ATAT,        /* @@lookup */
  ITEM_SPLIT,       /* local@domain, or a domain alone */
};

struct item {
  enum item_type type;
  bool negate;
  struct str text;              /* as in the list, without `!` */
  struct str arg;               /* suffix, name, file, query, … */
  struct lookup_spec lookup;
  const struct pcre *re;        /* letters' case ignored; NULL: transient, ask the cache */
  struct ip_addr ip;
  int bits;
  struct str local;             /* ITEM_SPLIT: pattern of the local part; unset: any */
  const struct item *domain;    /* ITEM_SPLIT */
};

struct list {
  enum list_kind kind;
  struct item *v;
  size_t n;
  bool quick; /* walking it costs less than to remember what came of it */
  struct str text; /* for debugging and errors */
};

#define LIST_TRANSIENT 8u /* for one use: regular expressions come from the process's cache */
#define LIST_IN_FILE 4u /* lines of a file: no further files, no named lists */

/* Never NULL; what cannot be understood becomes an ITEM_ERROR. Everything lives in `a`. */
const struct list *list_compile(struct arena *a, enum list_kind kind, struct str text, unsigned flags);
/* A file's lines as items. */
const struct list *list_compile_lines(struct arena *a, enum list_kind kind, struct str text, struct str name);
void item_compile(struct arena *a, enum list_kind kind, struct str text, unsigned flags, struct item *ret);

/* Compiled texts and files, kept by the process. A returned list stays valid until the release. */
struct list_ref;
const struct list *list_cache_text(enum list_kind kind, struct str text, unsigned flags, struct list_ref **ret);
/* OUTCOME_OK or OUTCOME_ERROR with c->error ("failed to open … when checking …"). */
int list_cache_file(struct ctx *c, enum list_kind kind, struct str path, struct list_ref **ref, const struct list **ret);
void list_cache_release(struct list_ref *r);

/* One check of a subject against a list. */
struct match {
  struct ctx *c;
  enum list_kind kind;
  struct str subject;        /* the form to compare: domain, local part, address; hosts: unused */
  struct str original;       /* local part or address with its case */
  bool caseful;
  bool captures;             /* set $0…: not for addresses and hosts */
  bool dynamic;              /* something was expanded on the way: the result is not to be remembered */
  int depth;
  struct str value;
  /* hosts */
  struct str host_name, host_address;
  struct ip_addr ip;
  bool is_client, ip_only, name_failed;
  bool include_unknown, ignore_unknown, include_defer, ignore_defer;
  bool file_ends_negated; /* the last line of the file just walked through began with "!" */
};

/* Each: OUTCOME_OK, FAIL, DEFER, ERROR; m->value is set on a match. MATCH_UNKNOWN: a host's name or address cannot be found. */
#define MATCH_UNKNOWN (-100)
#define MATCH_NOT_IN (-101) /* a negative line of a file matched: the item does not, and the search is over */
int match_list(struct match *m, const struct list *l);
int match_item_string(struct match *m, const struct item *i, struct str subject, bool caseful);
int match_item_domain(struct match *m, const struct item *i, struct str domain);
int match_item_host(struct match *m, const struct item *i);
int match_item_address(struct match *m, const struct item *i);
int match_named(struct match *m, enum list_kind kind, struct str name);
int match_file(struct match *m, const struct item *i);
int match_lookup(struct match *m, const struct item *i, struct str key, bool captures, struct str *ret);
/* The kind's name in error texts: "domain", "host", "address", "local part". */
const char *match_kind_name(enum list_kind kind);
