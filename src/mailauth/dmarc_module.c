/* DMARC's words: the ACL condition dmarc_status, its control and variables, the history file for OpenDMARC's tools (Exim
manual, section "DMARC"). */
#include <errno.h>
#include <fcntl.h>
#include <libpsl.h>
#include <time.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "core/session.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/dmarc_state.h"
#include "mailauth/dmarc_store.h"
#include "mailauth/module.h"
#include "mailauth/results.h"
#include "mailauth/words.h"
#include "message/address.h"
#include "message/message.h"

#define ADDRESSES_MAX 100  /* of From: fields */

static const struct result_word words[] = {
  {"accept", DMARC_ACCEPT, NULL}, {"reject", DMARC_REJECT, NULL}, {"quarantine", DMARC_QUARANTINE, NULL}, {"none", DMARC_NONE, NULL},
  {"norecord", DMARC_NORECORD, NULL}, {"nofrom", DMARC_NOFROM, NULL}, {"temperror", DMARC_TEMPERROR, NULL}, {"off", DMARC_OFF, NULL}, {0},
};
static const char *const texts[] = {"", "Accept", "Reject", "Quarantine", "None", "No record", "No From: domain", "DNS or internal error",
  "DMARC is off for this message"};

struct dmarc_options {
  struct str discovery;
  struct option_expr store, sender;
};

static struct dmarc_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &dmarc_module) : NULL;
}

const char *dmarc_status_name(enum dmarc_status s) {
  for (const struct result_word *w = words; w->name; w++)
    if (w->value == (int)s)
      return w->name;
  return "";
}

/* ---- whose mail is it? ---- */

/* The one domain of all author addresses, in lower case. */
static bool author_domain(struct ctx *c, struct str *ret) {
  struct arena *a = c->message->arena;
  int n = 0;
  *ret = STR_UNSET;
  for (const struct header *h = c->message->headers; h; h = h->next) {
    if (h->type == HEADER_DELETED || !str_ieq_c(str_slice(h->text, 0, h->name_len), "From"))
      continue;
    struct address_walk w = {.text = header_value(h)};
    while (address_walk_next(&w)) {
      struct mail_address address;
      struct str error;
      if (++n > ADDRESSES_MAX || address_parse(a, str_slice(w.text, w.from, w.to), ADDRESS_ALLOW_UTF8, &address, &error) != 0 ||
          address.domain.len == 0)
        return false;
      struct str domain = dmarc_domain(a, address.domain);
      if (str_is_set(*ret) && !str_eq(*ret, domain))
        return false;
      *ret = domain;
    }
  }
  return str_is_set(*ret);
}

/* ---- discovery ---- */

static enum dns_result query(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  return dns_query(arg, a, name, type, ret);
}

/* The list, read once for a process and file. */
static psl_ctx_t *list_of(const char *file) {
  static psl_ctx_t *psl;
  static char name[512];
  if (psl != NULL && strcmp(file, name) == 0)
    return psl;
  size_t n = strlen(file);
  psl_ctx_t *other = n < sizeof name ? psl_load_file(file) : NULL;
  if (other == NULL || psl_suffix_count(other) == 0) {
    psl_free(other);
    return NULL;
  }
  psl_free(psl);
  memcpy(name, file, n + 1);
  return psl = other;
}

static enum dns_result ask(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  const struct dmarc_asker *k = arg;
  return query(k->c, a, name, type, ret);
}

static struct str organization(void *arg, struct arena *a, struct str domain) {
  const struct dmarc_asker *k = arg;
  const char *got = psl_registrable_domain(k->psl, str_dup_c(a, domain));
  struct str s = got ? str_dup(a, str_c(got)) : domain;
  s.taint = domain.taint;
  return s;
}

/* How policies are found. OUTCOME_OK; FAIL: DMARC is off; ERROR, which has been logged. */
int dmarc_choose_discovery(struct ctx *c, struct dmarc_asker *k, struct dmarc_dns *dns) {
  const struct dmarc_options *o = config_block(c->config, &dmarc_module);
  const struct main_options *m = main_options(c->config);
  struct str file = STR_UNSET;
  *k = (struct dmarc_asker){.c = c};
  *dns = (struct dmarc_dns){.query = ask, .arg = k};
  if (str_is_set(o->discovery) && str_eq_c(o->discovery, "tree_walk"))
    return OUTCOME_OK;
  if (expand_option(c, &m->dmarc_tld_file, &file) != 0) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand dmarc_tld_file: %.*s", STRF(c->error));
    return OUTCOME_ERROR;
  }
  bool named = str_is_set(file) && file.len > 0;
  if (str_is_set(o->discovery) && !named) {
    k->psl = psl_builtin();
  } else if (!str_is_set(m->dmarc_tld_file.text)) {
    return OUTCOME_OK;
  } else if (!named) {
    return OUTCOME_FAIL;
  } else if (!str_is_tainted(file)) {
    k->psl = list_of(str_dup_c(c->arena, file));
  }
  if (k->psl == NULL) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "DMARC: cannot load the list of public suffixes \"%.*s\"", STRF(file));
    return OUTCOME_ERROR;
  }
  dns->organization = organization;
  return OUTCOME_OK;
}

/* ---- evaluation ---- */

static void note_signer(void *arg, struct str domain, struct str selector, struct str status) {
  struct dmarc_state *s = arg;
  if (s->signers < DMARC_SIGNERS_MAX)
    s->signer[s->signers++] = (struct dmarc_signer){domain, selector, status, str_eq_c(status, "pass")};
}

static enum dmarc_status evaluate(struct ctx *c, struct dmarc_state *s, struct dmarc_asker *k, struct dmarc_dns *dns) {
  struct arena *a = c->message->arena;
  bool trouble = false;
  const struct session *session = c->session;
  if (session == NULL || session->kind == SESSION_STDIN || session->kind == SESSION_BATCH || s->disabled || c->client->local ||
      (str_is_set(c->client->host_authenticated) && c->client->host_authenticated.len > 0))
    return DMARC_OFF;
  int rc = dmarc_choose_discovery(c, k, dns);
  if (rc != OUTCOME_OK)
    return rc == OUTCOME_FAIL ? DMARC_OFF : DMARC_TEMPERROR;
  if (!author_domain(c, &s->from))
    return DMARC_NOFROM;
  s->spf_known = spf_message_result(c, &s->spf, &s->spf_domain);
  dkim_message_results(c, note_signer, s);
  dmarc_find(a, dns, s->from, &s->found);
  if (s->found.trouble)
    return DMARC_TEMPERROR;
  if (!s->found.any)
    return DMARC_NORECORD;
  const struct dmarc_record *r = &s->found.record;
  if (s->spf_known && s->spf == SPF_PASS)
    s->spf_aligned = dmarc_aligned(a, dns, &s->found, s->from, s->spf_domain, r->strict_spf, &trouble);
  for (int i = 0; i < s->signers && !s->dkim_aligned; i++)
    if (s->signer[i].pass)
      s->dkim_aligned = dmarc_aligned(a, dns, &s->found, s->from, s->signer[i].domain, r->strict_dkim, &trouble);
  if (s->spf_aligned || s->dkim_aligned)
    return DMARC_ACCEPT;
  if (trouble)
    return DMARC_TEMPERROR;
  return s->found.policy == DMARC_P_REJECT ? DMARC_REJECT : s->found.policy == DMARC_P_QUARANTINE ? DMARC_QUARANTINE : DMARC_NONE;
}

/* ---- the condition ---- */

static void check(struct ctx *c, struct dmarc_state *s) {
  if (s->status != DMARC_UNCHECKED)
    return;
  struct dmarc_asker k;
  struct dmarc_dns dns = {0};
  *s = (struct dmarc_state){.disabled = s->disabled, .forensic = s->forensic, .from = STR_UNSET, .spf_domain = STR_EMPTY};
  s->status = evaluate(c, s, &k, &dns);
  s->by_list = s->status != DMARC_OFF && dns.organization != NULL;
  if (log_selected(LOGSEL_dmarc_verbose) && s->status != DMARC_OFF)
    log_write(LOG_MAIN, c->message, "DMARC results: spf_domain=%.*s dmarc_domain=%.*s spf_align=%s dkim_align=%s enforcement='%s'",
        STRF(log_printable(c->arena, s->spf_domain)), STRF(str_is_set(s->from) ? log_printable(c->arena, s->from) : STR_EMPTY),
        s->spf_aligned ? "yes" : "no", s->dkim_aligned ? "yes" : "no", texts[s->status]);
  dmarc_history_write(c, s);
  dmarc_store_add(c, s);
  dmarc_failure_report(c, &dns, s);
}

static int eval_status(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct dmarc_state *s = state_of(c);
  if (s == NULL)
    return result_words_match(c, "dmarc_status", arg, DMARC_OFF, words);
  check(c, s);
  return result_words_match(c, "dmarc_status", arg, s->status, words);
}

static int check_words(struct config_reader *r, struct acl_clause *clause) {
  return result_words_check(r, "dmarc_status", clause->arg.text, words);
}

static int control_disable(struct ctx *c, struct str option) {
  struct dmarc_state *s = state_of(c);
  if (s)
    s->disabled = true;
  return OUTCOME_OK;
}

static int control_forensic(struct ctx *c, struct str option) {
  struct dmarc_state *s = state_of(c);
  if (s)
    s->forensic = true;
  return OUTCOME_OK;
}

static void received(struct ctx *c) {
  const struct dmarc_state *s = state_of(c);
  if (s)
    dmarc_store_accepted(c, s);
}

/* ---- variables, log, header ---- */

enum { V_STATUS, V_TEXT, V_DOMAIN, V_POLICY, V_SPF, V_DKIM };

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct dmarc_state *s = state_of(c);
  bool known = s && s->status != DMARC_UNCHECKED;
  switch (def->flags) {
    case V_STATUS: *ret = known ? str_c(dmarc_status_name(s->status)) : STR_EMPTY; break;
    case V_TEXT: *ret = known ? str_c(texts[s->status]) : STR_EMPTY; break;
    case V_DOMAIN: *ret = known && s->found.any ? s->found.domain : STR_EMPTY; break;
    case V_POLICY: *ret = known && s->found.any ? str_c(dmarc_policy_name(s->found.policy)) : STR_EMPTY; break;
    case V_SPF: *ret = known && s->spf_aligned ? STR("yes") : STR("no"); break;
    default: *ret = known && s->dkim_aligned ? STR("yes") : STR("no");
  }
  return 0;
}

static const struct variable_def variables[] = {
  {"dmarc_status", get, 0, V_STATUS}, {"dmarc_status_text", get, 0, V_TEXT}, {"dmarc_used_domain", get, 0, V_DOMAIN},
  {"dmarc_domain_policy", get, 0, V_POLICY}, {"dmarc_alignment_spf", get, 0, V_SPF}, {"dmarc_alignment_dkim", get, 0, V_DKIM}, {0},
};

static void log_item(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct dmarc_state *s = state_of(c);
  if (s == NULL || s->status == DMARC_UNCHECKED || s->status == DMARC_OFF || !log_selected(LOGSEL_dmarc))
    return;
  add(arg, s->status == DMARC_ACCEPT ? STR("DMARC") : str_printf(c->arena, "DMARC=%s", dmarc_status_name(s->status)));
}

/* RFC 7489, section 11.2. */
static void add_authresults(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct dmarc_state *s = state_of(c);
  struct buf b;
  if (s == NULL || s->status == DMARC_UNCHECKED || s->status == DMARC_OFF || s->status == DMARC_NOFROM)
    return;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_add_c(&b, s->status == DMARC_ACCEPT ? "dmarc=pass" : s->status == DMARC_NORECORD ? "dmarc=none" : s->status == DMARC_TEMPERROR ? "dmarc=temperror"
                                                                                                                  : "dmarc=fail");
  buf_add_c(&b, " header.from=");
  header_add_value(&b, s->from);
  add(arg, buf_str(&b));
}

static int expand_setting(struct ctx *c, const struct option_expr *o, const char *name, struct str *ret) {
  *ret = STR_UNSET;
  int rc = expand_option(c, o, ret);
  if (rc != 0 && rc != OUTCOME_FORCED)
    return ctx_fail(c, OUTCOME_ERROR, "failed to expand %s: %.*s", name, STRF(c->error));
  if (rc != 0 || (str_is_set(*ret) && ret->len == 0))
    *ret = STR_UNSET;
  return 0;
}

int dmarc_store_file(struct ctx *c, struct str *ret) {
  const struct dmarc_options *o = config_block(c->config, &dmarc_module);
  int rc = expand_setting(c, &o->store, "dmarc_report_store", ret);
  if (rc == 0 && str_is_set(*ret) && str_is_tainted(*ret))
    return ctx_fail(c, OUTCOME_ERROR, "dmarc_report_store \"%.*s\" is tainted", STRF(*ret));
  return rc;
}

int dmarc_report_sender(struct ctx *c, struct str *ret) {
  const struct dmarc_options *o = config_block(c->config, &dmarc_module);
  return expand_setting(c, &o->sender, "dmarc_report_sender", ret);
}

static int parse_discovery(struct config_reader *r, void *block) {
  const struct dmarc_options *o = block;
  if (str_is_set(o->discovery) && !str_eq_c(o->discovery, "psl") && !str_eq_c(o->discovery, "tree_walk"))
    return config_error(r, "dmarc_policy_discovery is \"psl\" or \"tree_walk\", not \"%.*s\"", STRF(o->discovery));
  return 0;
}

static const struct option_def options[] = {
  {"dmarc_policy_discovery", OPTION_STRING, offsetof(struct dmarc_options, discovery)},
  {"dmarc_report_sender", OPTION_EXPR, offsetof(struct dmarc_options, sender), "DMARC reports <postmaster@$primary_hostname>"},
  {"dmarc_report_store", OPTION_EXPR, offsetof(struct dmarc_options, store)},
  OPTIONS_END,
};

static const struct acl_condition_def conditions[] = {
  {"dmarc_status", ACL_ONLY(ACL_BIT(ACL_DATA)), true, 0, eval_status, check_words}, {0},
};
#define NOT_HERE (ACL_BIT(ACL_DATA) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START))
static const struct acl_control_def controls[] = {
  {"dmarc_disable_verify", false, NOT_HERE, 0, control_disable},
  {"dmarc_enable_forensic", false, NOT_HERE, 0, control_forensic},
  {"dmarc_forensic_enable", false, NOT_HERE, ACL_ALIAS, control_forensic}, {0},
};

const struct module dmarc_module = {
  .name = "dmarc",
  .summary = "DMARC: the policies of authors' domains",
  .support = "DMARC",
  .main_options = options,
  .main_size = sizeof(struct dmarc_options),
  .main_check = parse_discovery,
  .acl_conditions = conditions,
  .acl_controls = controls,
  .variables = variables,
  .macros = (const char *const[]){"_HAVE_DMARC", NULL},
  .message_state = {.size = sizeof(struct dmarc_state)},
  .hooks = {.message_received = received, .received_log = log_item, .authresults = add_authresults},
};
