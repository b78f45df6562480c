/* SPF's words: the ACL conditions `spf` and `spf_guess`, their variables, the
lookup (Exim manual, section "SPF (Sender Policy Framework)"). */
#include <time.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "lookup/lookup.h"
#include "mailauth/module.h"
#include "mailauth/results.h"
#include "mailauth/spf.h"
#include "mailauth/words.h"
#include "message/message.h"

#define SPF_INVALID (SPF_PERMERROR + 1) /* there is no client to ask about */
#define COMMENT_MAX 1500

static const struct result_word words[] = {
  {"pass", SPF_PASS, NULL}, {"fail", SPF_FAIL, NULL}, {"softfail", SPF_SOFTFAIL, NULL}, {"none", SPF_NONE, NULL},
  {"neutral", SPF_NEUTRAL, NULL}, {"permerror", SPF_PERMERROR, NULL}, {"temperror", SPF_TEMPERROR, NULL},
  {"err_perm", SPF_PERMERROR, "permerror"}, {"err_temp", SPF_TEMPERROR, "temperror"},
  {"invalid", SPF_INVALID, NULL}, {"(invalid)", SPF_INVALID, NULL}, {0},
};

struct spf_options {
  struct str guess;
  struct option_expr comment_template;
};

/* What is known of the message's sender; texts live in the message's arena. */
struct spf_state {
  bool done, guess_done;
  int result;             /* of the domain's own policy */
  bool local;             /* a loopback client: not asked */
  struct spf_answer answer, guess;
  bool guessed;           /* the variables speak of the guess */
};

static const char *result_name(int r) { return r == SPF_INVALID ? "(invalid)" : spf_result_name((enum spf_result)r); }

/* Macros make names of anything; what the DNS code reads and writes with a backslash gets one here. */
static struct str escaped(struct arena *a, struct str name) {
  struct buf b;
  size_t i = 0;
  while (i < name.len && name.p[i] > ' ' && name.p[i] != '\\' && name.p[i] != 127)
    i++;
  if (i == name.len)
    return name;
  buf_init(&b, a, 4 * name.len + 1);
  b.taint = name.taint;
  for (i = 0; i < name.len; i++) {
    unsigned char ch = (unsigned char)name.p[i];
    if (ch <= ' ' || ch == 127)
      buf_printf(&b, "\\%03u", ch);
    else if (ch == '\\')
      buf_add_c(&b, "\\\\");
    else
      buf_add_byte(&b, (char)ch);
  }
  return buf_str(&b);
}

static enum dns_result query(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  const struct dns_query_options o = {.any_name = true};
  return dns_query_with(arg, a, escaped(a, name), type, &o, ret);
}

static int64_t now(void *arg) { return time(NULL); }

static const struct spf_options *options_of(const struct ctx *c) { return config_block(c->config, &spf_module); }

static struct spf_state *state_of(struct ctx *c) { return c->message ? message_module_state(c->message, &spf_module) : NULL; }

static struct str sender_of(const struct message *m) {
  return str_is_set(m->reverse_path_before) ? m->reverse_path_before : m->reverse_path;
}

static void identify(struct ctx *c, struct spf_identity *who) {
  *who = (struct spf_identity){.ip = c->client->ip, .sender = sender_of(c->message), .helo = c->client->helo_name,
    .receiver = main_options(c->config)->primary_hostname};
}

/* The domain's own policy, once a message. [suspends] */
static void check_plain(struct ctx *c, struct spf_state *s) {
  struct spf_identity who;
  if (s->done)
    return;
  s->done = true;
  s->answer = (struct spf_answer){.mechanism = STR_UNSET, .problem = STR_UNSET, .explanation = STR_UNSET, .domain = STR_UNSET};
  if (c->client->ip.family == 0) {
    s->result = SPF_INVALID;
    return;
  }
  identify(c, &who);
  struct spf_dns dns = {query, now, c};
  if (ip_is_loopback(&c->client->ip)) {
    s->local = true;
    s->result = SPF_PASS;
    s->answer.domain = STR_EMPTY;
    return;
  }
  spf_check(c->message->arena, &dns, &who, &s->answer);
  s->result = s->answer.result;
  DEBUG(acl, "SPF: %s for domain \"%.*s\"%s%.*s\n", result_name(s->result), STRF(s->answer.domain),
      str_is_set(s->answer.problem) ? ": " : "", STRF(s->answer.problem));
}

/* The guess, where the domain publishes nothing. [suspends] */
static void check_guess(struct ctx *c, struct spf_state *s) {
  struct spf_identity who;
  if (s->guess_done)
    return;
  s->guess_done = true;
  identify(c, &who);
  struct spf_dns dns = {query, now, c};
  struct str record = options_of(c)->guess;
  if (spf_is_record(record)) {
    spf_check_record(c->message->arena, &dns, &who, record, &s->guess);
  } else {
    s->guess = s->answer;
    s->guess.result = SPF_PERMERROR;
    s->guess.problem = STR("the guess is not an SPF record");
  }
  if (s->guess.result == SPF_PERMERROR)
    log_write(LOG_MAIN, c->message, "spf_guess \"%.*s\": %.*s", STRF(record), STRF(log_printable(c->arena, s->guess.problem)));
}

static int eval_spf(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct spf_state *s = state_of(c);
  if (s == NULL)
    return result_words_match(c, "spf", arg, SPF_INVALID, words);
  check_plain(c, s);
  s->guessed = false;
  return result_words_match(c, "spf", arg, s->result, words);
}

static int eval_spf_guess(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct spf_state *s = state_of(c);
  if (s == NULL)
    return result_words_match(c, "spf_guess", arg, SPF_INVALID, words);
  check_plain(c, s);
  s->guessed = s->result == SPF_NONE;
  if (s->guessed)
    check_guess(c, s);
  return result_words_match(c, "spf_guess", arg, s->guessed ? (int)s->guess.result : s->result, words);
}

static int check_words(struct config_reader *r, struct acl_clause *clause) {
  return result_words_check(r, clause->condition->name, clause->arg.text, words);
}

bool spf_message_result(struct ctx *c, enum spf_result *ret, struct str *ret_domain) {
  struct spf_state *s = state_of(c);
  if (s == NULL)
    return false;
  check_plain(c, s);
  if (s->result == SPF_INVALID)
    return false;
  struct str sender = sender_of(c->message);
  ptrdiff_t at = str_rfind_byte(sender, '@');
  *ret = (enum spf_result)s->result;
  *ret_domain = at >= 0 ? str_from(sender, (size_t)at + 1) : str_is_set(c->client->helo_name) ? c->client->helo_name : STR_EMPTY;
  return true;
}

/* ---- variables ---- */

/* The state that a condition has filled, or NULL. */
static const struct spf_state *known(struct ctx *c) {
  const struct spf_state *s = state_of(c);
  return s != NULL && s->done ? s : NULL;
}

static int result_of(const struct spf_state *s) { return s->guessed ? (int)s->guess.result : s->result; }
static const struct spf_answer *answer_of(const struct spf_state *s) { return s->guessed ? &s->guess : &s->answer; }

static void add_parts(struct buf *b, const char *before, struct str x, const char *between, struct str y, const char *after) {
  buf_add_c(b, before);
  header_add_comment(b, x);
  buf_add_c(b, between);
  header_add_comment(b, y);
  buf_add_c(b, after);
}

static void add_comment(struct ctx *c, const struct spf_state *s, struct buf *b) {
  const struct spf_answer *a = answer_of(s);
  struct str ip = ip_text(c->arena, &c->client->ip), domain = str_slice(a->domain, 0, 253);
  buf_add(b, main_options(c->config)->primary_hostname);
  buf_add_c(b, ": ");
  if (s->local) {
    buf_add_c(b, "localhost is always allowed.");
    return;
  }
  switch (result_of(s)) {
    case SPF_PASS: add_parts(b, "domain of ", domain, " designates ", ip, " as permitted sender"); break;
    case SPF_FAIL: add_parts(b, "domain of ", domain, " does not designate ", ip, " as permitted sender"); break;
    case SPF_SOFTFAIL:
      add_parts(b, "transitioning domain of ", domain, " does not designate ", ip, " as permitted sender");
      break;
    case SPF_NEUTRAL: add_parts(b, "", ip, " is neither permitted nor denied by domain of ", domain, ""); break;
    case SPF_NONE: add_parts(b, "domain of ", domain, " does not provide an SPF record", STR_EMPTY, ""); break;
    default: add_parts(b, "error in processing during lookup of ", domain, ": ", str_slice(a->problem, 0, 500), "");
  }
}

static int get_comment(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct spf_state *s = known(c);
  struct buf b;
  if (s == NULL || s->result == SPF_INVALID)
    return 0;
  buf_init(&b, c->arena, COMMENT_MAX);
  add_comment(c, s, &b);
  *ret = str_tainted(buf_str(&b));
  return 0;
}

static int get_result(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct spf_state *s = known(c);
  if (s != NULL)
    *ret = str_c(result_name(result_of(s)));
  return 0;
}

static int get_guessed(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct spf_state *s = known(c);
  *ret = s != NULL && s->guessed ? STR("yes") : STR("no");
  return 0;
}

static int get_received(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct spf_state *s = known(c);
  struct buf b;
  if (s == NULL || s->result == SPF_INVALID)
    return 0;
  struct str sender = sender_of(c->message), helo = str_is_set(c->client->helo_name) ? c->client->helo_name : STR_EMPTY;
  if (sender.len == 0)
    sender = str_cat(c->arena, STR("postmaster@"), helo);
  buf_init(&b, c->arena, 3 * COMMENT_MAX);
  buf_printf(&b, "Received-SPF: %s (", result_name(result_of(s)));
  add_comment(c, s, &b);
  buf_add_c(&b, ") client-ip=");
  buf_add(&b, ip_text(c->arena, &c->client->ip));
  buf_add_c(&b, "; envelope-from=");
  header_add_value(&b, sender);
  buf_add_c(&b, "; helo=");
  header_add_value(&b, helo);
  buf_add_c(&b, ";");
  *ret = str_tainted(buf_str(&b));
  return 0;
}

/* The text for people: the domain's own, else spf_smtp_comment_template with its macros. [suspends] */
static int get_smtp_comment(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct spf_state *s = known(c);
  int r = s != NULL ? result_of(s) : SPF_NONE;
  if (r != SPF_FAIL && r != SPF_SOFTFAIL && r != SPF_NEUTRAL)
    return 0;
  if (str_is_set(answer_of(s)->explanation)) {
    *ret = answer_of(s)->explanation;
    return 0;
  }
  struct str template;
  struct spf_identity who;
  int rc = expand_option(c, &options_of(c)->comment_template, &template);
  if (rc != 0 && rc != OUTCOME_FORCED)
    return rc;
  if (rc != 0 || !spf_macro_check(template, SPF_EXPLANATION))
    template = STR("Please%_see%_http://www.open-spf.org/Why");
  identify(c, &who);
  struct spf_dns dns = {query, now, c};
  *ret = spf_explain(c->arena, &dns, &who, template);
  return 0;
}

static const struct variable_def variables[] = {
  {"spf_header_comment", get_comment}, {"spf_received", get_received}, {"spf_result", get_result},
  {"spf_result_guessed", get_guessed}, {"spf_smtp_comment", get_smtp_comment}, {0},
};

/* ---- the lookup: ${lookup{user@domain}spf{ip}} ---- */

static int spf_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str lookup_options, struct str *ret, int *ret_seconds) {
  struct spf_identity who = {.receiver = main_options(c->config)->primary_hostname};
  struct spf_answer answer;
  *ret_seconds = 0; /* the resolver has its own cache */
  if (!ip_parse(str_trim(file), &who.ip))
    return ctx_fail(c, OUTCOME_DEFER, "\"%.*s\" is not an IP address", STRF(file));
  ptrdiff_t at = str_rfind_byte(key, '@');
  who.sender = at >= 0 ? key : STR_EMPTY;
  who.helo = str_from(key, (size_t)(at + 1));
  if (ip_is_loopback(&who.ip)) {
    *ret = STR("pass");
    return OUTCOME_OK;
  }
  struct spf_dns dns = {query, now, c};
  spf_check(c->arena, &dns, &who, &answer);
  *ret = str_c(spf_result_name(answer.result));
  return OUTCOME_OK;
}

static const struct lookup_def spf_lookup = {.name = "spf", .find = spf_find};
static const struct lookup_def *const lookups[] = {&spf_lookup, NULL};

/* ---- log and header ---- */

static void log_item(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct spf_state *s = known(c);
  if (s == NULL)
    return;
  if (log_selected(LOGSEL_spf_verbose))
    add(arg, str_printf(c->arena, "SPF=%s", result_name(result_of(s))));
  else if (log_selected(LOGSEL_spf) && result_of(s) == SPF_PASS)
    add(arg, STR("SPF"));
}

static void add_authresults(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct spf_state *s = known(c);
  if (s == NULL || s->result == SPF_INVALID)
    return;
  struct buf b;
  struct str sender = sender_of(c->message);
  ptrdiff_t at = str_rfind_byte(sender, '@');
  buf_init(&b, c->arena, 2 * COMMENT_MAX);
  buf_printf(&b, "spf=%s", result_name(result_of(s)));
  if (s->guessed)
    buf_add_c(&b, " (best guess record for domain)");
  buf_add_c(&b, sender.len > 0 ? " smtp.mailfrom=" : " smtp.helo=");
  struct str helo = str_is_set(c->client->helo_name) ? c->client->helo_name : STR_EMPTY;
  header_add_value(&b, sender.len == 0 ? helo : str_from(sender, (size_t)(at + 1)));
  add(arg, buf_str(&b));
}

#define FORBIDDEN                                                                                                      \
  ~(ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA) | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_MIME) |              \
      ACL_BIT(ACL_DKIM) | ACL_BIT(ACL_PRDR))
static const struct acl_condition_def conditions[] = {
  {"spf", FORBIDDEN, true, 0, eval_spf, check_words},
  {"spf_guess", FORBIDDEN, true, 0, eval_spf_guess, check_words},
  {0},
};

#define AT(field) offsetof(struct spf_options, field)
static const struct option_def options[] = {
  {"spf_guess", OPTION_STRING, AT(guess), "v=spf1 a/24 mx/24 ptr ?all"},
  {"spf_smtp_comment_template", OPTION_EXPR, AT(comment_template), "Please%_see%_http://www.open-spf.org/Why"},
  OPTIONS_END,
};

static const char *const macros[] = {"_HAVE_SPF", NULL};

const struct module spf_module = {
  .name = "spf",
  .summary = "Sender Policy Framework",
  .support = "SPF",
  .main_options = options,
  .main_size = sizeof(struct spf_options),
  .acl_conditions = conditions,
  .variables = variables,
  .lookups = lookups,
  .macros = macros,
  .message_state = {.size = sizeof(struct spf_state)},
  .hooks = {.received_log = log_item, .rejected_log = log_item, .authresults = add_authresults},
};
