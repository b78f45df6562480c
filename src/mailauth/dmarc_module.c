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
#include "mailauth/dmarc.h"
#include "mailauth/arc_sign.h"
#include "mailauth/module.h"
#include "mailauth/results.h"
#include "mailauth/words.h"
#include "message/address.h"
#include "message/message.h"

#define ADDRESSES_MAX 100  /* of From: fields */
#define SIGNATURES_MAX 20

enum status { S_UNCHECKED, S_ACCEPT, S_REJECT, S_QUARANTINE, S_NONE, S_NORECORD, S_NOFROM, S_TEMPERROR, S_OFF };
static const struct result_word words[] = {
  {"accept", S_ACCEPT, NULL}, {"reject", S_REJECT, NULL}, {"quarantine", S_QUARANTINE, NULL}, {"none", S_NONE, NULL},
  {"norecord", S_NORECORD, NULL}, {"nofrom", S_NOFROM, NULL}, {"temperror", S_TEMPERROR, NULL}, {"off", S_OFF, NULL}, {0},
};
static const char *const texts[] = {"", "Accept", "Reject", "Quarantine", "None", "No record", "No From: domain", "DNS or internal error",
  "DMARC is off for this message"};

struct dmarc_options {
  struct str discovery;
};

struct signer {
  struct str domain, selector;
  bool pass;
};

struct dmarc_state {
  bool disabled;
  enum status status;
  struct str from;
  struct dmarc_found found;
  bool spf_known, spf_aligned, dkim_aligned;
  enum spf_result spf;
  struct str spf_domain;
  struct signer signer[SIGNATURES_MAX];
  int signers;
};

static struct dmarc_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &dmarc_module) : NULL;
}

static const char *status_name(enum status s) {
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
      if (str_is_set(*ret) && !str_ieq(*ret, address.domain))
        return false;
      *ret = str_lower(a, address.domain);
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

struct asker {
  struct ctx *c;
  const psl_ctx_t *psl;
};

static enum dns_result ask(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  const struct asker *k = arg;
  return query(k->c, a, name, type, ret);
}

static struct str organization(void *arg, struct arena *a, struct str domain) {
  const struct asker *k = arg;
  const char *got = psl_registrable_domain(k->psl, str_dup_c(a, domain));
  struct str s = got ? str_dup(a, str_c(got)) : domain;
  s.taint = domain.taint;
  return s;
}

/* How policies are found. OUTCOME_OK; FAIL: DMARC is off; ERROR, which has been logged. */
static int choose_discovery(struct ctx *c, struct asker *k, struct dmarc_dns *dns) {
  const struct dmarc_options *o = config_block(c->config, &dmarc_module);
  const struct main_options *m = main_options(c->config);
  struct str file = STR_UNSET;
  *k = (struct asker){.c = c};
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
  if (s->signers < SIGNATURES_MAX)
    s->signer[s->signers++] = (struct signer){domain, selector, str_eq_c(status, "pass")};
}

static enum status evaluate(struct ctx *c, struct dmarc_state *s) {
  struct arena *a = c->message->arena;
  struct asker k;
  struct dmarc_dns dns;
  bool trouble = false;
  const struct session *session = c->session;
  if (session == NULL || session->kind == SESSION_STDIN || session->kind == SESSION_BATCH || s->disabled || c->client->local ||
      (str_is_set(c->client->host_authenticated) && c->client->host_authenticated.len > 0))
    return S_OFF;
  int rc = choose_discovery(c, &k, &dns);
  if (rc != OUTCOME_OK)
    return rc == OUTCOME_FAIL ? S_OFF : S_TEMPERROR;
  if (!author_domain(c, &s->from))
    return S_NOFROM;
  s->spf_known = spf_message_result(c, &s->spf, &s->spf_domain);
  dkim_message_results(c, note_signer, s);
  dmarc_find(a, &dns, s->from, &s->found);
  if (s->found.trouble)
    return S_TEMPERROR;
  if (!s->found.any)
    return S_NORECORD;
  const struct dmarc_record *r = &s->found.record;
  if (s->spf_known && s->spf == SPF_PASS)
    s->spf_aligned = dmarc_aligned(a, &dns, &s->found, s->from, s->spf_domain, r->strict_spf, &trouble);
  for (int i = 0; i < s->signers && !s->dkim_aligned; i++)
    if (s->signer[i].pass)
      s->dkim_aligned = dmarc_aligned(a, &dns, &s->found, s->from, s->signer[i].domain, r->strict_dkim, &trouble);
  if (s->spf_aligned || s->dkim_aligned)
    return S_ACCEPT;
  if (trouble)
    return S_TEMPERROR;
  return s->found.policy == DMARC_P_REJECT ? S_REJECT : s->found.policy == DMARC_P_QUARANTINE ? S_QUARANTINE : S_NONE;
}

/* ---- the history file ---- */

static int spf_code(const struct dmarc_state *s) {
  static const int codes[] = {[SPF_NONE] = 6, [SPF_NEUTRAL] = 3, [SPF_PASS] = 0, [SPF_FAIL] = 7, [SPF_SOFTFAIL] = 2, [SPF_TEMPERROR] = 4,
    [SPF_PERMERROR] = 5};
  return s->spf_known ? codes[s->spf] : -1;
}

static int letter(enum dmarc_policy p) { return p == DMARC_P_UNSET ? 0 : dmarc_policy_name(p)[0]; }

static void add_uris(struct buf *b, struct str list) {
  bool any = false;
  while (str_is_set(list)) {
    struct str item = str_trim(str_cut(&list, ','));
    if (item.len == 0 || str_find_byte(item, '\n') >= 0)
      continue;
    buf_printf(b, "rua %.*s\n", STRF(item));
    any = true;
  }
  if (!any)
    buf_add_c(b, "rua -\n");
}

static void add_record(struct buf *b, const struct dmarc_state *s) {
  static const int policies[] = {[S_ACCEPT] = 15, [S_REJECT] = 16, [S_QUARANTINE] = 17, [S_NONE] = 18, [S_NORECORD] = 14, [S_TEMPERROR] = 14};
  const struct dmarc_record *r = &s->found.record;
  if (s->found.any) {
    buf_printf(b, "pdomain %.*s\npolicy %d\n", STRF(s->found.domain), policies[s->status]);
    add_uris(b, r->rua);
    buf_printf(b, "pct %d\nadkim %d\naspf %d\np %d\nsp %d\n", r->pct, r->strict_dkim ? 's' : 'r', r->strict_spf ? 's' : 'r',
        letter(r->p), letter(r->sp));
  } else {
    buf_printf(b, "pdomain %.*s\npolicy %d\nrua -\npct 0\nadkim 0\naspf 0\np 0\nsp 0\n", STRF(s->found.organization), policies[s->status]);
  }
  buf_printf(b, "align_dkim %d\nalign_spf %d\n", s->dkim_aligned ? 4 : 5, s->spf_aligned ? 4 : 5);
}

static void write_history(struct ctx *c, const struct dmarc_state *s) {
  struct str file = STR_UNSET;
  struct buf b;
  if (expand_option(c, &main_options(c->config)->dmarc_history_file, &file) != 0 || !str_is_set(file) || file.len == 0)
    return;
  if (s->status == S_OFF || s->status == S_NOFROM || c->is_test)
    return;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_printf(&b, "job %s\nreporter %.*s\nreceived %lld\nipaddr %.*s\nfrom %.*s\nmfrom %.*s\n", c->message->id,
      STRF(main_options(c->config)->primary_hostname), (long long)time(NULL), STRF(c->client->host_address), STRF(s->from),
      STRF(str_is_set(s->spf_domain) && s->spf_domain.len ? log_printable(c->arena, s->spf_domain) : STR_EMPTY));
  for (int i = 0; i < s->signers; i++)
    buf_printf(&b, "dkim %.*s %.*s %d\n", STRF(s->signer[i].domain), STRF(s->signer[i].selector), s->signer[i].pass ? 0 : 7);
  buf_printf(&b, "spf %d\n", spf_code(s));
  add_record(&b, s);
  const struct arc_verdict *arc = arc_verdict_of(c);
  if (arc && arc->state != ARC_UNCHECKED)
    buf_printf(&b, "arc %d\narc_policy %d json:[]\n", arc->state == ARC_PASS ? 0 : arc->state == ARC_FAIL ? 7 : 6, arc->state == ARC_PASS ? 0 : 1);
  buf_printf(&b, "action %d\n", s->status == S_REJECT ? 0 : s->status == S_QUARANTINE ? 4 : s->status == S_TEMPERROR ? 3 : 2);
  int fd = str_is_tainted(file) ? -1 : open(str_dup_c(c->arena, file), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
  struct str text = buf_str(&b);
  if (b.overflow || fd < 0 || write(fd, text.p, text.len) != (ssize_t)text.len)
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failure to write DMARC history file %.*s: %s", STRF(file), strerror(errno));
  if (fd >= 0)
    close(fd);
}

/* ---- the condition ---- */

static void check(struct ctx *c, struct dmarc_state *s) {
  if (s->status != S_UNCHECKED)
    return;
  bool disabled = s->disabled;
  *s = (struct dmarc_state){.disabled = disabled, .from = STR_UNSET, .spf_domain = STR_EMPTY};
  s->status = evaluate(c, s);
  if (log_selected(LOGSEL_dmarc_verbose) && s->status != S_OFF)
    log_write(LOG_MAIN, c->message, "DMARC results: spf_domain=%.*s dmarc_domain=%.*s spf_align=%s dkim_align=%s enforcement='%s'",
        STRF(log_printable(c->arena, s->spf_domain)), STRF(str_is_set(s->from) ? log_printable(c->arena, s->from) : STR_EMPTY),
        s->spf_aligned ? "yes" : "no", s->dkim_aligned ? "yes" : "no", texts[s->status]);
  write_history(c, s);
}

static int eval_status(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct dmarc_state *s = state_of(c);
  if (s == NULL)
    return result_words_match(c, "dmarc_status", arg, S_OFF, words);
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

/* ---- variables, log, header ---- */

enum { V_STATUS, V_TEXT, V_DOMAIN, V_POLICY, V_SPF, V_DKIM };

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct dmarc_state *s = state_of(c);
  bool known = s && s->status != S_UNCHECKED;
  switch (def->flags) {
    case V_STATUS: *ret = known ? str_c(status_name(s->status)) : STR_EMPTY; break;
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
  if (s == NULL || s->status == S_UNCHECKED || s->status == S_OFF || !log_selected(LOGSEL_dmarc))
    return;
  add(arg, s->status == S_ACCEPT ? STR("DMARC") : str_printf(c->arena, "DMARC=%s", status_name(s->status)));
}

/* RFC 7489, section 11.2. */
static void add_authresults(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct dmarc_state *s = state_of(c);
  struct buf b;
  if (s == NULL || s->status == S_UNCHECKED || s->status == S_OFF || s->status == S_NOFROM)
    return;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_add_c(&b, s->status == S_ACCEPT ? "dmarc=pass" : s->status == S_NORECORD ? "dmarc=none" : s->status == S_TEMPERROR ? "dmarc=temperror"
                                                                                                                  : "dmarc=fail");
  buf_add_c(&b, " header.from=");
  header_add_value(&b, s->from);
  add(arg, buf_str(&b));
}

static int parse_discovery(struct config_reader *r, void *block) {
  const struct dmarc_options *o = block;
  if (str_is_set(o->discovery) && !str_eq_c(o->discovery, "psl") && !str_eq_c(o->discovery, "tree_walk"))
    return config_error(r, "dmarc_policy_discovery is \"psl\" or \"tree_walk\", not \"%.*s\"", STRF(o->discovery));
  return 0;
}

static const struct option_def options[] = {
  {"dmarc_policy_discovery", OPTION_STRING, offsetof(struct dmarc_options, discovery)},
  OPTIONS_END,
};

static const struct acl_condition_def conditions[] = {
  {"dmarc_status", ACL_ONLY(ACL_BIT(ACL_DATA)), true, 0, eval_status, check_words}, {0},
};
static const struct acl_control_def controls[] = {
  {"dmarc_disable_verify", false, ACL_BIT(ACL_DATA) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START), 0, control_disable}, {0},
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
  .hooks = {.received_log = log_item, .authresults = add_authresults},
};
