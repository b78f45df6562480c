/* The words of DomainKeys: `control = dk_verify`, the conditions dk_status …, their variables. */
#include "acl/acl.h"
#include "base/buf.h"
#include "base/vec.h"
#include "core/session.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/domainkeys.h"
#include "mailauth/module.h"
#include "mailauth/results.h"
#include "mailauth/words.h"
#include "match/match.h"
#include "message/message.h"

enum status { S_UNKNOWN, S_GOOD, S_BAD, S_NO_SIGNATURE, S_NO_KEY, S_BAD_FORMAT, S_NON_PARTICIPANT, S_REVOKED };
static const struct result_word status_words[] = {
  {"good", S_GOOD, NULL}, {"bad", S_BAD, NULL}, {"no signature", S_NO_SIGNATURE, NULL}, {"no key", S_NO_KEY, NULL},
  {"bad format", S_BAD_FORMAT, NULL}, {"non-participant", S_NON_PARTICIPANT, NULL}, {"revoked", S_REVOKED, NULL}, {0},
};
enum { FLAG_SIGNSALL = 1, FLAG_TESTING = 2 };
static const struct result_word policy_words[] = {{"signsall", FLAG_SIGNSALL, NULL}, {"testing", FLAG_TESTING, NULL}, {0}};
static const struct result_word source_words[] = {
  {"from", DK_SOURCE_FROM, NULL}, {"sender", DK_SOURCE_SENDER, NULL}, {"none", DK_SOURCE_NONE, NULL}, {0},
};

struct dk_state {
  bool wanted, done, any_signature, found, trouble;
  struct dk_author author;
  struct dk_signature signature;
  struct dk_stream *stream;  /* NULL: nothing to verify */
  enum status status;
  bool signs_all, testing;
  int bits;
};
struct dk_session {
  bool wanted;               /* said before there was a message */
};

static struct dk_state *state_of(const struct ctx *c) { return c->message ? message_module_state(c->message, &domainkeys_module) : NULL; }

static const char *status_name(enum status s) {
  for (const struct result_word *w = status_words; w->name; w++)
    if (w->value == (int)s)
      return w->name;
  return "";
}

void domainkeys_want(struct message *m) { ((struct dk_state *)message_module_state(m, &domainkeys_module))->wanted = true; }

static int control_verify(struct ctx *c, struct str option) {
  struct dk_session *session = c->session ? session_module_state(c->session, &domainkeys_module) : NULL;
  if (session && c->acl && (c->acl->where == ACL_CONNECT || c->acl->where == ACL_HELO))
    session->wanted = true;
  else if (c->message)
    domainkeys_want(c->message);
  return OUTCOME_OK;
}

/* ---- while the message comes in ---- */

static int start(struct ctx *c) {
  struct dk_state *s = state_of(c);
  const struct dk_session *session = c->session ? session_module_state(c->session, &domainkeys_module) : NULL;
  struct arena *a = c->message->arena;
  VEC(struct str) fields = {0};
  if (!s->wanted && !(session && session->wanted))
    return OUTCOME_OK;
  s->wanted = true;
  for (const struct header *h = c->message->headers; h; h = h->next)
    if (h->type != HEADER_DELETED)
      vec_push(a, &fields, h->text);
  dk_find_author(a, fields.v, fields.n, &s->author);
  s->found = dk_find_signature(a, fields.v, fields.n, &s->author, &s->signature, &s->any_signature);
  if (!s->found || (s->stream = dk_stream_new(a, s->signature.canon)) == NULL)
    return OUTCOME_OK;
  dk_stream_header(s->stream, a, fields.v, fields.n, s->signature.field + 1, s->signature.names);
  return OUTCOME_OK;
}

static void add_body(struct ctx *c, struct str data) {
  struct dk_state *s = state_of(c);
  if (s->stream)
    dk_stream_body(s->stream, data);
}

static enum dns_result query(struct ctx *c, struct str name, struct dns_answer *ret) {
  enum dns_result r = dns_query(c, c->message->arena, str_tainted(name), DNS_TXT, ret);
  return r == DNS_OK && ret->n == 0 ? DNS_NODATA : r;
}

static bool is_trouble(enum dns_result r) { return r == DNS_AGAIN || r == DNS_FAIL; }

/* What the domain says of itself. False: it says nothing. */
static bool fetch_policy(struct ctx *c, struct dk_state *s, bool *ret_trouble) {
  struct dns_answer answer;
  bool testing = false;
  *ret_trouble = false;
  if (s->author.source == DK_SOURCE_NONE)
    return false;
  enum dns_result r = query(c, str_printf(c->arena, "_domainkey.%.*s", STRF(s->author.domain)), &answer);
  *ret_trouble = is_trouble(r);
  for (size_t i = 0; r == DNS_OK && i < answer.n; i++)
    if (dk_policy_parse(c->message->arena, answer.v[i].text, &s->signs_all, &testing)) {
      s->testing = s->testing || testing;
      return true;
    }
  return r == DNS_OK;
}

static enum status verify(struct ctx *c, struct dk_state *s) {
  struct dns_answer answer;
  struct dk_key key;
  enum dk_key_state state = DK_KEY_BAD;
  dk_stream_end(s->stream);
  enum dns_result r = query(c, str_printf(c->arena, "%.*s._domainkey.%.*s", STRF(s->signature.selector), STRF(s->signature.domain)), &answer);
  s->trouble = is_trouble(r);
  if (s->trouble)
    return S_UNKNOWN;
  if (r != DNS_OK)
    return S_NO_KEY;
  for (size_t i = 0; i < answer.n && state == DK_KEY_BAD; i++)
    state = dk_key_parse(c->message->arena, answer.v[i].text, s->author.local_part, &key);
  if (state != DK_KEY_OK)
    return state == DK_KEY_REVOKED ? S_REVOKED : S_BAD_FORMAT;
  s->bits = key.bits;
  s->testing = key.testing;
  return dk_signature_holds(&key, &s->signature, s->stream) ? S_GOOD : S_BAD;
}

static int finish(struct ctx *c) {
  struct dk_state *s = state_of(c);
  bool trouble, participates;
  if (!s->wanted)
    return OUTCOME_OK;
  s->done = true;
  if (s->stream)
    s->status = verify(c, s);
  else if (s->any_signature)
    s->status = S_BAD_FORMAT;
  if (s->status == S_GOOD || s->trouble)
    return OUTCOME_OK;
  participates = fetch_policy(c, s, &trouble);
  if (s->status != S_UNKNOWN)
    return OUTCOME_OK;
  if (trouble)
    s->trouble = true;
  else
    s->status = participates || s->author.source == DK_SOURCE_NONE ? S_NO_SIGNATURE : S_NON_PARTICIPANT;
  return OUTCOME_OK;
}

/* ---- conditions ---- */

/* The state that is known; NULL with *ret_rc. */
static const struct dk_state *known(struct ctx *c, int *ret_rc) {
  const struct dk_state *s = state_of(c);
  *ret_rc = OUTCOME_FAIL;
  if (s == NULL || !s->done)
    return NULL;
  if (!s->trouble)
    return s;
  c->log_message = STR("DomainKeys: the DNS does not answer");
  *ret_rc = OUTCOME_DEFER;
  return NULL;
}

static int eval_status(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  int rc;
  const struct dk_state *s = known(c, &rc);
  return s ? result_words_match(c, "dk_status", arg, s->status, status_words) : rc;
}

static int eval_source(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  int rc;
  const struct dk_state *s = known(c, &rc);
  return s ? result_words_match(c, "dk_domain_source", arg, s->author.source, source_words) : rc;
}

/* True if one of the flags named is set. */
static int eval_policy(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct list_iter iter;
  struct str item;
  int rc;
  const struct dk_state *s = known(c, &rc);
  if (s == NULL)
    return rc;
  list_iter_init(&iter, c->arena, arg);
  while (list_next(&iter, &item)) {
    bool other = item.len > 0 && item.p[0] == '!';
    struct str word = other ? str_ltrim(str_from(item, 1)) : item;
    bool signs_all = str_ieq_c(word, "signsall"), testing = str_ieq_c(word, "testing"), any = str_eq_c(word, "*");
    if (!signs_all && !testing && !any)
      log_write(LOG_MAIN | LOG_PANIC, c->message, "\"%.*s\" is not a result of \"dk_policy\": it matches nothing",
          STRF(log_printable(c->arena, word)));
    else if ((any || (signs_all && s->signs_all) || (testing && s->testing)) != other)
      return OUTCOME_OK;
  }
  return OUTCOME_FAIL;
}

static int eval_author(struct ctx *c, const struct acl_clause *clause, enum list_kind kind, struct str (*part)(const struct dk_author *)) {
  struct str list;
  unsigned flags = 0;
  int rc;
  const struct dk_state *s = known(c, &rc);
  if (s == NULL || s->author.source == DK_SOURCE_NONE)
    return rc;
  if ((rc = match_expand(c, &clause->arg, &list, &flags)) != 0)
    return rc;
  return match_text(c, kind, list, part(&s->author), flags, NULL);
}

static struct str address_part(const struct dk_author *a) { return a->address; }
static struct str domain_part(const struct dk_author *a) { return a->domain; }
static struct str local_part(const struct dk_author *a) { return a->local_part; }

static int eval_senders(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  return eval_author(c, clause, LIST_ADDRESS, address_part);
}
static int eval_domains(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  return eval_author(c, clause, LIST_DOMAIN, domain_part);
}
static int eval_local_parts(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  return eval_author(c, clause, LIST_LOCAL_PART, local_part);
}

static int check_words(struct config_reader *r, struct acl_clause *clause) {
  const char *name = clause->condition->name;
  return result_words_check(r, name, clause->arg.text,
      strcmp(name, "dk_status") == 0 ? status_words : strcmp(name, "dk_policy") == 0 ? policy_words : source_words);
}

/* ---- variables ---- */

enum { V_SENDER, V_DOMAIN, V_LOCAL_PART, V_SOURCE, V_SIGNSALL, V_TESTING, V_SIGNED, V_STATUS, V_RESULT };

static struct str result_text(struct ctx *c, const struct dk_state *s) {
  const char *status = s->trouble ? "the DNS does not answer" : status_name(s->status);
  if (!s->found)
    return str_c(status);
  struct str bits = s->bits ? str_printf(c->arena, "%d-bit key, ", s->bits) : STR_EMPTY;
  return str_tainted(str_printf(c->arena, "%s: %.*ss=%.*s d=%.*s", status, STRF(bits), STRF(s->signature.selector), STRF(s->signature.domain)));
}

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  static const struct str sources[] = {{"0", 1, 0}, {"from", 4, 0}, {"sender", 6, 0}};
  const struct dk_state *s = state_of(c);
  bool known = s && s->done, numeric = def->flags >= V_SOURCE && def->flags <= V_SIGNED;
  *ret = numeric ? STR("0") : STR_EMPTY;
  if (!known)
    return 0;
  switch (def->flags) {
    case V_SENDER: *ret = s->author.address; break;
    case V_DOMAIN: *ret = s->author.domain; break;
    case V_LOCAL_PART: *ret = s->author.local_part; break;
    case V_SOURCE: *ret = sources[s->author.source]; break;
    case V_SIGNSALL: *ret = s->signs_all ? STR("1") : STR("0"); break;
    case V_TESTING: *ret = s->testing ? STR("1") : STR("0"); break;
    case V_SIGNED: *ret = s->any_signature ? STR("1") : STR("0"); break;
    case V_STATUS: *ret = str_c(status_name(s->status)); break;
    default: *ret = result_text(c, s);
  }
  return 0;
}

/* While the options for signing are expanded. */
static int get_domain(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_is_set(c->vars.signing_domain) ? c->vars.signing_domain : STR_EMPTY;
  return 0;
}
static int get_selector(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_is_set(c->vars.signing_selector) ? c->vars.signing_selector : STR_EMPTY;
  return 0;
}

#define V(name, what) {name, get, 0, what}
static const struct variable_def variables[] = {
  {"dk_domain", get_domain}, V("dk_is_signed", V_SIGNED), V("dk_result", V_RESULT), {"dk_selector", get_selector},
  V("dk_sender", V_SENDER), V("dk_sender_domain", V_DOMAIN), V("dk_sender_local_part", V_LOCAL_PART), V("dk_sender_source", V_SOURCE),
  V("dk_signsall", V_SIGNSALL), V("dk_status", V_STATUS), V("dk_testing", V_TESTING), {0},
};

bool domainkeys_message_result(struct ctx *c, struct str *ret_status, struct str *ret_text) {
  const struct dk_state *s = state_of(c);
  if (s == NULL || !s->done || !s->any_signature)
    return false;
  *ret_status = s->trouble ? STR("temperror") : str_c(status_name(s->status));
  *ret_text = result_text(c, s);
  return true;
}

/* RFC 8601, section 2.7.1 (the method as RFC 5451 registered it). */
static void add_authresults(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  static const char *const words[] = {[S_UNKNOWN] = "temperror", [S_GOOD] = "pass", [S_BAD] = "fail", [S_NO_SIGNATURE] = "none",
    [S_NO_KEY] = "permerror", [S_BAD_FORMAT] = "neutral", [S_NON_PARTICIPANT] = "none", [S_REVOKED] = "permerror"};
  const struct dk_state *s = state_of(c);
  struct buf b;
  if (s == NULL || !s->done)
    return;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_printf(&b, "domainkeys=%s", words[s->status]);
  if (s->status == S_BAD_FORMAT || s->status == S_NO_KEY || s->status == S_REVOKED)
    buf_printf(&b, " (%s)", status_name(s->status));
  if (s->author.source != DK_SOURCE_NONE) {
    buf_add_c(&b, s->author.source == DK_SOURCE_SENDER ? " header.sender=" : " header.from=");
    header_add_value(&b, s->author.domain);
  }
  add(arg, buf_str(&b));
}

#define ONLY_DATA ACL_ONLY(ACL_BIT(ACL_DATA))
static const struct acl_condition_def conditions[] = {
  {"dk_domain_source", ONLY_DATA, true, 0, eval_source, check_words}, {"dk_policy", ONLY_DATA, true, 0, eval_policy, check_words},
  {"dk_sender_domains", ONLY_DATA, false, 0, eval_domains, NULL}, {"dk_sender_local_parts", ONLY_DATA, false, 0, eval_local_parts, NULL},
  {"dk_senders", ONLY_DATA, false, 0, eval_senders, NULL}, {"dk_status", ONLY_DATA, true, 0, eval_status, check_words}, {0},
};
static const struct acl_control_def controls[] = {
  {"dk_verify", false,
    ACL_ONLY(ACL_BIT(ACL_CONNECT) | ACL_BIT(ACL_HELO) | ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA)), 0, control_verify},
  {0},
};

const struct module domainkeys_module = {
  .name = "domainkeys",
  .summary = "DomainKeys (historic): verification",
  .acl_conditions = conditions,
  .acl_controls = controls,
  .variables = variables,
  .message_state = {.size = sizeof(struct dk_state)},
  .session_state = {.size = sizeof(struct dk_session)},
  .hooks = {.header_end = start, .body_chunk = add_body, .message_end = finish, .authresults = add_authresults},
};
