/* ARC's words: `verify = arc`, its variables, and the result of reception that a later seal passes on. */
#include <time.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "base/vec.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/arc.h"
#include "mailauth/arc_sign.h"
#include "mailauth/module.h"
#include "mailauth/words.h"
#include "message/message.h"
#include "queue/spool.h"

static const struct result_word state_words[] = {
  {"none", ARC_NONE, NULL}, {"fail", ARC_FAIL, NULL}, {"pass", ARC_PASS, NULL}, {0},
};

struct arc_message_state {
  struct arc_chain *chain;       /* NULL: the message has none */
  struct header_index *index;
  struct arc_verdict verdict;    /* in the spool, too */
};

static struct arc_message_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &arc_module) : NULL;
}

const struct arc_verdict *arc_verdict_of(const struct ctx *c) {
  const struct arc_message_state *s = state_of(c);
  return s ? &s->verdict : NULL;
}

bool arc_seal_names(const struct ctx *c, int i, struct str *ret_domain, struct str *ret_selector) {
  const struct arc_message_state *s = state_of(c);
  const struct dkim_signature *as = s && s->chain && i <= s->chain->sets ? s->chain->set[i].as : NULL;
  if (as == NULL || as->status == DKIM_INVALID)
    return false;
  *ret_domain = as->domain;
  *ret_selector = as->selector;
  return true;
}

/* ---- while the message comes in ---- */

static int start(struct ctx *c) {
  struct arc_message_state *s = state_of(c);
  VEC(struct str) fields = {0};
  bool any = false;
  *s = (struct arc_message_state){0};
  for (const struct header *h = c->message->headers; h; h = h->next) {
    if (h->type == HEADER_DELETED)
      continue;
    vec_push(c->message->arena, &fields, h->text);
    any = any || str_istarts(h->text, STR("ARC-"));
  }
  if (!any)
    return OUTCOME_OK;
  struct arc_chain *chain = arc_collect(c->message->arena, fields.v, fields.n);
  if (chain->sets > 0 || str_is_set(chain->broken)) {
    s->chain = chain;
    s->index = header_index_new(c->message->arena, fields.v, fields.n);
  }
  return OUTCOME_OK;
}

static void add_body(struct ctx *c, struct str data) {
  struct arc_message_state *s = state_of(c);
  if (s->chain)
    body_hashes_add(&s->chain->hashes, data);
}

static int finish(struct ctx *c) {
  struct arc_message_state *s = state_of(c);
  if (s->chain)
    body_hashes_end(&s->chain->hashes);
  return OUTCOME_OK;
}

/* ---- verifying ---- */

struct fetcher {
  struct ctx *c;
  int64_t deadline;
};

static void fetch(void *arg, struct dkim_signature *sig) {
  struct fetcher *f = arg;
  if (time(NULL) <= f->deadline) {
    dkim_fetch_key(f->c, f->c->message->arena, sig);
    return;
  }
  sig->status = DKIM_INVALID;
  sig->reason = DKIM_KEY_UNAVAILABLE;
}

static void check(struct ctx *c, struct arc_message_state *s) {
  struct arc_verdict *v = &s->verdict;
  if (v->state != ARC_UNCHECKED)
    return;
  *v = (struct arc_verdict){.state = ARC_NONE, .reason = STR_EMPTY};
  if (s->chain == NULL)
    return;
  struct fetcher f = {c, time(NULL) + ARC_SECONDS_MAX};
  arc_validate(s->chain, s->index, time(NULL), fetch, &f);
  *v = (struct arc_verdict){s->chain->state, s->chain->sets, s->chain->oldest_pass, s->chain->reason};
}

static int eval_verify(struct ctx *c, struct str options) {
  struct arc_message_state *s = state_of(c);
  if (s == NULL)
    return OUTCOME_FAIL;
  check(c, s);
  struct str list = str_is_set(options) ? options : STR("none:pass");
  return result_words_match(c, "verify = arc", list, s->verdict.state, state_words);
}

/* control = remove_authresults[/ID]: nobody else may have spoken in our name. */
static int control_remove(struct ctx *c, struct str option) {
  struct str id = str_trim(option), results;
  if (c->message == NULL)
    return OUTCOME_OK;
  if (id.len == 0)
    id = main_options(c->config)->primary_hostname;
  for (struct header *h = c->message->headers; h; h = h->next)
    if (h->type != HEADER_DELETED && arc_results_of(c->arena, h->text, id, &results))
      h->type = HEADER_DELETED;
  return OUTCOME_OK;
}

/* ---- variables ---- */

enum { V_STATE, V_REASON, V_DOMAINS, V_OLDEST };

static struct str domains(struct ctx *c, const struct arc_chain *chain) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  for (int i = 1; i <= chain->sets; i++) {
    if (i > 1)
      buf_add_byte(&b, ':');
    if (chain->set[i].as && chain->set[i].as->status != DKIM_INVALID)
      buf_add(&b, chain->set[i].as->domain);
  }
  return buf_str(&b);
}

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct arc_message_state *s = state_of(c);
  struct arc_verdict none = {.reason = STR_EMPTY}, v = s ? s->verdict : none;
  switch (def->flags) {
    case V_STATE: *ret = str_c(arc_state_name(v.state)); break;
    case V_REASON: *ret = str_is_set(v.reason) ? v.reason : STR_EMPTY; break;
    case V_OLDEST: *ret = str_printf(c->arena, "%d", v.oldest_pass); break;
    default: *ret = s && s->chain && v.state != ARC_UNCHECKED ? domains(c, s->chain) : STR_EMPTY;
  }
  return 0;
}

static const struct variable_def variables[] = {
  {"arc_state", get, 0, V_STATE}, {"arc_state_reason", get, 0, V_REASON}, {"arc_domains", get, 0, V_DOMAINS},
  {"arc_oldest_pass", get, 0, V_OLDEST}, {0},
};

/* ---- log, header, spool ---- */

static void log_item(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct arc_message_state *s = state_of(c);
  if (s && s->verdict.state == ARC_PASS)
    add(arg, STR("ARC"));
}

static void add_authresults(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct arc_message_state *s = state_of(c);
  struct buf b;
  if (s == NULL || s->verdict.state == ARC_UNCHECKED)
    return;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_printf(&b, "arc=%s", arc_state_name(s->verdict.state));
  if (s->verdict.state == ARC_FAIL && (str_starts(s->verdict.reason, STR("i=")) || s->chain->sets == 0)) {
    buf_printf(&b, " (%.*s)", STRF(s->verdict.reason)); /* words of ours, with pairs of parentheses */
  } else if (s->chain && s->chain->sets > 0) {
    const struct dkim_signature *top = s->chain->set[s->chain->sets].ams;
    buf_printf(&b, " (i=%d)", s->chain->sets);
    if (s->verdict.state == ARC_FAIL)
      buf_printf(&b, "(%.*s)", STRF(s->verdict.reason));
    if (top && top->selector.len > 0) {
      buf_add_c(&b, " header.s=");
      header_add_value(&b, top->selector);
    }
    buf_printf(&b, " arc.oldest-pass=%d", s->verdict.oldest_pass);
    if (str_is_set(c->client->host_address) && c->client->host_address.len > 0)
      buf_printf(&b, " smtp.remote-ip=%.*s", STRF(c->client->host_address));
  }
  add(arg, buf_str(&b));
}

static void write_spool(struct spool_writer *w, const struct message *m, const void *state) {
  const struct arc_message_state *s = state;
  char text[40];
  if (s->verdict.state == ARC_UNCHECKED)
    return;
  int n = snprintf(text, sizeof text, "%s %d %d", arc_state_name(s->verdict.state), s->verdict.sets, s->verdict.oldest_pass);
  spool_write_item(w, "arc_state", str_n(text, (size_t)n));
}

static bool read_spool(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value) {
  struct arc_message_state *s = state;
  uint64_t sets = 0, oldest = 0;
  if (!str_eq_c(name, "arc_state"))
    return false;
  struct str word = str_cut(&value, ' '), second = str_is_set(value) ? str_cut(&value, ' ') : STR_EMPTY;
  for (const struct result_word *w = state_words; w->name; w++)
    if (str_eq_c(word, w->name) && str_to_u64(second, &sets) && str_is_set(value) && str_to_u64(value, &oldest) &&
        sets <= ARC_SETS_MAX && oldest <= sets)
      s->verdict = (struct arc_verdict){(enum arc_state)w->value, (int)sets, (int)oldest, STR_EMPTY};
  return true;
}

#define AFTER_DATA \
  ACL_ONLY(ACL_BIT(ACL_DATA) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_MIME) | ACL_BIT(ACL_NOT_SMTP_MIME))
static const struct acl_verify_def verifies[] = {{"arc", AFTER_DATA, eval_verify}, {0}};

static const struct acl_control_def controls[] = {{"remove_authresults", true, AFTER_DATA, 0, control_remove}, {0}};

const struct module arc_module = {
  .name = "arc",
  .summary = "Authenticated Received Chains",
  .support = "Experimental_ARC",
  .acl_verifies = verifies,
  .acl_controls = controls,
  .variables = variables,
  .macros = (const char *const[]){"_EXP_ARC", "_HAVE_ARC", NULL},
  .message_state = {.size = sizeof(struct arc_message_state), .write_spool = write_spool, .read_spool = read_spool},
  .hooks = {.header_end = start, .body_chunk = add_body, .message_end = finish, .received_log = log_item,
    .authresults = add_authresults},
};
