/* Verdicts for recipients (features.md F01), as a library: a provider's answer in lines, and how a message keeps its verdicts. */
#pragma once

#include "base/str.h"
#include "base/vec.h"

struct arena;

#define BMI_VERDICTS_MAX 1000

enum bmi_action { BMI_DELIVER, BMI_ALTERNATE, BMI_DROP };

struct bmi_verdict {
  enum bmi_action action;
  struct str rules;     /* numbers that fired: a colon list */
  struct str location;  /* of an alternate delivery */
  struct str verdict, tracker; /* base64, as the provider gave them */
};

struct bmi_recipient {
  struct str address;
  size_t verdict;       /* in bmi_set.v */
};

struct bmi_set {
  VEC(struct bmi_verdict) v;
  VEC(struct bmi_recipient) recipients; /* those who have one */
};

/* The lines VERDICT …, and DONE. False: the answer is no good, and nothing of it counts. */
bool bmi_read_answer(struct arena *a, struct str text, const struct str *recipients, size_t n, struct bmi_set *ret);
/* Rspamd's answer (JSON of /checkv2) for these recipients, added to the set. */
bool bmi_read_rspamd(struct arena *a, struct str json, const struct str *recipients, size_t n, struct bmi_set *ret);

/* As one word, and back; false: it is none of ours. */
struct str bmi_encode(struct arena *a, const struct bmi_set *s);
bool bmi_decode(struct arena *a, struct str text, struct bmi_set *ret);

/* A recipient's verdict, or NULL. The local part's case counts. */
const struct bmi_verdict *bmi_find(const struct bmi_set *s, struct str address);
const char *bmi_action_name(enum bmi_action action);
/* Is one of the numbers in the colon list `wanted` among those that fired? */
bool bmi_rule_fired(const struct bmi_verdict *v, struct str wanted);
/* A colon list of numbers, blanks around them allowed? *ret_bad: what is none. */
bool bmi_rules_valid(struct str list, struct str *ret_bad);
