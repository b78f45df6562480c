/* Authenticated Received Chains (RFC 8617): sets of three fields, each set the
word of one system. Keys come through a function, so that tests and fuzzers
need no network. All texts are foreign. */
#pragma once

#include "mailauth/body_hash.h"
#include "mailauth/dkim.h"

#define ARC_SETS_MAX 50  /* RFC 8617, section 4.2.1 */
#define ARC_SECONDS_MAX 20

enum arc_state { ARC_UNCHECKED, ARC_NONE, ARC_FAIL, ARC_PASS };

struct arc_set {
  struct str results, message, seal;        /* the fields; unset: absent */
  struct dkim_signature *ams, *as;          /* taken apart; NULL: not even tags */
  struct str cv;                            /* of the seal: "none", "fail", "pass" */
};

struct arc_chain {
  struct arena *arena;
  int sets;                                 /* the highest instance, 0: none */
  struct arc_set set[ARC_SETS_MAX + 1];     /* by instance */
  struct str broken;                        /* why the structure alone makes it fail; unset: it does not */
  struct body_hashes hashes;
  int64_t now;                              /* for x= */
  enum arc_state state;
  struct str reason;                        /* of a failure; may quote foreign text */
  int oldest_pass;                          /* the lowest instance whose message signature, and all newer ones, hold; 0: none */
};

/* The instance i= of a field, 0: none that is legal. */
int arc_instance(struct arena *a, struct str field, bool results);
/* Gathers the sets of a header (its fields in their order), and says which body hashes are wanted. In `a`. */
struct arc_chain *arc_collect(struct arena *a, const struct str *fields, size_t n);
/* Gets the key of a signature into s->key, or says in its status and reason why not. [suspends] */
typedef void arc_key_fn(void *arg, struct dkim_signature *s);
/* Judges the chain (RFC 8617, section 5.2): sets state, reason and oldest_pass. The body hashes are finished; `now` is for signatures
that expire. [suspends] */
void arc_validate(struct arc_chain *c, struct header_index *index, int64_t now, arc_key_fn *key, void *arg);
/* What a seal of instance `n` covers but for itself: the fields of sets 1 to n - 1, or none of them (only_own), and the first two
of its own (section 5.1.1). */
void arc_seal_data(const struct arc_chain *c, int n, bool only_own, struct str results, struct str message, struct buf *out);
/* "none", "fail", "pass"; "" when unchecked. */
const char *arc_state_name(enum arc_state s);
/* What an Authentication-Results field says, if it is of that authserv-id: the text behind "id;", without ";" at the end. */
bool arc_results_of(struct arena *a, struct str field, struct str id, struct str *ret);
/* "arc=pass" in such a text: what reception found. ARC_UNCHECKED: it says nothing of ARC. */
enum arc_state arc_results_state(struct str results);
