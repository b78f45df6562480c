/* Answers of spamd and of Rspamd's older protocol, as a library: foreign input. */
#pragma once

#include "base/str.h"

struct arena;

struct spam_answer {
  double score, threshold;
  struct str action;  /* Rspamd's; unset: none */
  struct str report;  /* lines behind the first continued with a blank, without CR */
};
/* False: it cannot be understood. The report lies in `a`. */
bool spam_read_answer(struct arena *a, struct str text, bool rspamd, struct spam_answer *ret);

struct spam_server {
  struct str address;      /* as scan_connect() takes it */
  int64_t priority, weight;
  int64_t retry, seconds;
  int64_t from, to;        /* seconds of the day; from -1: always */
  bool rspamd;
};
/* One item of spamd_address. NULL, or what is wrong; options that are not understood are told to warn(). */
const char *spam_read_server(struct str item, struct spam_server *ret, void (*warn)(void *arg, const char *what, struct str option), void *arg);
