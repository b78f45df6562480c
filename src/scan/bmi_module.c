/* Brightmail's words (features.md F01): control = bmi_run, bmi_optin, the routers' preconditions, the variables, the verdicts in the
spool. Who gives the verdicts is bmi_provider.c's business. */
#include <errno.h>
#include <string.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "core/module.h"
#include "deliver/address.h"
#include "expand/expand.h"
#include "log/log.h"
#include "message/message.h"
#include "queue/spool.h"
#include "scan/bmi_provider.h"
#include "scan/scan.h"

struct bmi_options {
  struct str file, library;
};

struct bmi_router {
  bool deliver_default, deliver_alternate, dont_deliver;
  struct option_expr rule;
};

struct bmi_state {
  bool run, defer_on_error, known;
  VEC(struct bmi_optin) optin;
  struct bmi_set set;
  struct str encoded;
};

static struct bmi_state *state_of(const struct message *m) {
  return m ? message_module_state((struct message *)(uintptr_t)m, &bmi_module) : NULL;
}

/* ---- reception ---- */

static int control_run(struct ctx *c, struct str option) {
  struct bmi_state *s = state_of(c->message);
  if (option.len > 0 && !str_eq_c(str_trim(option), "defer_on_error")) {
    c->log_message = str_printf(c->arena, "syntax error in \"control=bmi_run/%.*s\"", STRF(option));
    return OUTCOME_ERROR;
  }
  if (!s)
    return OUTCOME_OK;
  s->run = true;
  s->defer_on_error |= option.len > 0;
  /* Header and routing depend on a verdict that is not there yet. */
  acl_message(c)->cutthrough = false;
  acl_message(c)->cutthrough_never = true;
  return OUTCOME_OK;
}

static int apply_optin(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct bmi_state *s = state_of(c->message);
  const struct acl_session *session = acl_session(c);
  if (!s || !session || !session->recipient)
    return OUTCOME_OK;
  struct arena *a = c->message->arena;
  struct bmi_optin o = {str_dup(a, session->recipient->address), bmi_optin_words(a, str_trim(arg))};
  for (size_t i = 0; i < s->optin.n; i++)
    if (str_eq(s->optin.v[i].address, o.address)) {
      s->optin.v[i] = o;
      return OUTCOME_OK;
    }
  vec_push(a, &s->optin, o);
  return OUTCOME_OK;
}

/* The hook message_accept. */
static int accept_message(struct ctx *c) {
  const struct bmi_options *o = config_block(c->config, &bmi_module);
  struct bmi_state *s = state_of(c->message);
  struct str error = STR_EMPTY;
  if (!s->run || c->message->recipients.n == 0)
    return OUTCOME_OK;
  if (bmi_ask(c, o->file, o->library, s->optin.v, s->optin.n, &s->set, &error)) {
    s->known = true;
    s->encoded = bmi_encode(c->message->arena, &s->set);
    return OUTCOME_OK;
  }
  s->set = (struct bmi_set){0};
  acl_log(c, LOG_MAIN | LOG_PANIC, "BMI: %.*s: %s", STRF(log_printable(c->arena, error)),
      s->defer_on_error ? "message deferred" : "message accepted without verdicts");
  return s->defer_on_error ? OUTCOME_DEFER : OUTCOME_OK;
}

static void write_spool(struct spool_writer *w, const struct message *m, const void *state) {
  const struct bmi_state *s = state;
  if (str_is_set(s->encoded))
    spool_write_item(w, "bmi_verdicts", s->encoded);
}

static bool read_spool(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value) {
  struct bmi_state *s = state;
  if (!str_eq_c(name, "bmi_verdicts"))
    return false;
  s->encoded = str_untainted(str_dup(m->arena, spool_read_value(r, value)));
  s->known = bmi_decode(m->arena, s->encoded, &s->set);
  return true;
}

static void log_item(struct ctx *c, void (*add)(void *arg, struct str item), void *arg) {
  const struct bmi_state *s = state_of(c->message);
  struct buf b;
  if (!s->known || !log_selected_name(STR("bmi")))
    return;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  buf_add_c(&b, "BMI=");
  for (enum bmi_action k = BMI_DELIVER; k <= BMI_DROP; k++)
    for (size_t i = 0; i < s->set.v.n; i++)
      if (s->set.v.v[i].action == k) {
        buf_printf(&b, "%s%s", b.len > 4 ? "," : "", bmi_action_name(k));
        break;
      }
  if (b.len > 4)
    add(arg, buf_str(&b));
}

/* ---- routing ---- */

/* The verdict of the top-level recipient that the address came from, or NULL. */
static const struct bmi_verdict *verdict_of(const struct ctx *c, const struct address *a) {
  const struct bmi_state *s = state_of(c->message);
  if (!s || !s->known || !a)
    return NULL;
  while (a->parent)
    a = a->parent;
  const struct bmi_verdict *v = str_is_set(a->topaddr) ? bmi_find(&s->set, a->topaddr) : NULL;
  if (!v && a->recipient >= 0 && (size_t)a->recipient < c->message->recipients.n) {
    /* A child that became a recipient of its own (one_time) still is its parent's. */
    const struct recipient *r = &c->message->recipients.v[a->recipient];
    for (int hops = 0; r->parent >= 0 && (size_t)r->parent < c->message->recipients.n && hops < 100; hops++)
      r = &c->message->recipients.v[r->parent];
    v = bmi_find(&s->set, r->address);
  }
  return v ? v : bmi_find(&s->set, a->address);
}

static int before_router(struct ctx *c, struct address *a) {
  const struct instance *i = c->router;
  const struct bmi_router *r = i && i->extra ? i->extra[module_number(&bmi_module)] : NULL;
  if (!r)
    return OUTCOME_OK;
  const struct bmi_verdict *v = verdict_of(c, a);
  if ((r->deliver_default && v && v->action != BMI_DELIVER) || (r->deliver_alternate && (!v || v->action != BMI_ALTERNATE)) ||
      (r->dont_deliver && (!v || v->action != BMI_DROP)))
    return OUTCOME_FAIL;
  struct str rules, bad;
  int rc = expand_option(c, &r->rule, &rules);
  if (rc == OUTCOME_FORCED || (rc == 0 && (!str_is_set(rules) || str_trim(rules).len == 0)))
    return OUTCOME_OK;
  if (rc != 0 || !bmi_rules_valid(rules, &bad)) {
    a->message = rc != 0 ? str_printf(c->arena, "failed to expand bmi_rule in %.*s router: %.*s", STRF(i->name), STRF(c->error))
                         : str_printf(c->arena, "bmi_rule in %.*s router: \"%.*s\" is not a number", STRF(i->name), STRF(bad));
    return OUTCOME_DEFER;
  }
  return v && bmi_rule_fired(v, rules) ? OUTCOME_OK : OUTCOME_FAIL;
}

static int check_main(struct config_reader *r, void *block) {
  const struct bmi_options *o = block;
  const char *wrong = str_is_set(o->file) ? bmi_check_provider(o->file) : NULL;
  if (wrong)
    (void)config_error(r, "bmi_config_file: %s", wrong);
  for (const struct instance *i = config_reader_config(r)->drivers[DRIVER_ROUTER]; i; i = i->next) {
    const struct bmi_router *k = i->extra ? i->extra[module_number(&bmi_module)] : NULL;
    struct str bad;
    if (k && str_is_set(k->rule.text) && str_find_byte(k->rule.text, '$') < 0 && !bmi_rules_valid(k->rule.text, &bad))
      (void)config_error_at(r, k->rule.where, "bmi_rule in the %.*s router: \"%.*s\" is not a number", STRF(i->name), STRF(bad));
  }
  return wrong ? OUTCOME_ERROR : 0;
}

/* ---- variables, the module ---- */

enum { V_VERDICT, V_TRACKER, V_LOCATION, V_DELIVER, V_RULES };

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  static const struct bmi_verdict none;
  const struct bmi_verdict *v = verdict_of(c, c->address);
  if (!v)
    v = &none;
  switch (def->flags) {
    case V_VERDICT: *ret = v->verdict; break;
    case V_TRACKER: *ret = v->tracker; break;
    case V_LOCATION: *ret = v->action == BMI_ALTERNATE ? v->location : STR_EMPTY; break;
    case V_DELIVER: *ret = v->action == BMI_DROP ? STR("0") : STR("1"); break;
    default: *ret = v->rules;
  }
  if (!str_is_set(*ret))
    *ret = STR_EMPTY;
  return 0;
}

static const struct variable_def variables[] = {
  {"bmi_alt_location", get, 0, V_LOCATION}, {"bmi_base64_tracker_verdict", get, 0, V_TRACKER}, {"bmi_base64_verdict", get, 0, V_VERDICT},
  {"bmi_deliver", get, 0, V_DELIVER}, {"bmi_rules", get, 0, V_RULES}, {0},
};

#define MESSAGE_BITS                                                                                                                   \
  (ACL_BIT(ACL_MAIL) | ACL_BIT(ACL_RCPT) | ACL_BIT(ACL_PREDATA) | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_MIME) |          \
      ACL_BIT(ACL_DKIM) | ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START) | ACL_BIT(ACL_NOT_SMTP_MIME))
static const struct acl_control_def controls[] = {{"bmi_run", true, ACL_ONLY(MESSAGE_BITS), 0, control_run}, {0}};
static const struct acl_modifier_def modifiers[] = {{"bmi_optin", ACL_ONLY(ACL_BIT(ACL_RCPT)), true, 0, apply_optin, NULL}, {0}};

static const struct option_def options[] = {
  {"bmi_config_file", OPTION_STRING, offsetof(struct bmi_options, file), "/opt/brightmail/etc/brightmail.cfg"},
  {"bmi_library", OPTION_STRING, offsetof(struct bmi_options, library), "libbmiclient_single.so"}, OPTIONS_END,
};
static const struct option_def router_options_table[] = {
  {"bmi_deliver_alternate", OPTION_BOOL, offsetof(struct bmi_router, deliver_alternate), .flags = OPTION_HIDDEN},
  {"bmi_deliver_default", OPTION_BOOL, offsetof(struct bmi_router, deliver_default), .flags = OPTION_HIDDEN},
  {"bmi_dont_deliver", OPTION_BOOL, offsetof(struct bmi_router, dont_deliver), .flags = OPTION_HIDDEN},
  {"bmi_rule", OPTION_EXPR, offsetof(struct bmi_router, rule), .flags = OPTION_HIDDEN},
  OPTIONS_END,
};
static const struct module_driver_options driver_options[] = {{DRIVER_ROUTER, NULL, router_options_table, sizeof(struct bmi_router)}, {0}};
static const struct log_selector_def selectors[] = {{"bmi", false}, {0}};

const struct module bmi_module = {
  .name = "bmi",
  .summary = "Brightmail: verdicts for each recipient",
  .support = "Experimental_Brightmail",
  .main_options = options,
  .main_size = sizeof(struct bmi_options),
  .main_check = check_main,
  .acl_controls = controls,
  .acl_modifiers = modifiers,
  .variables = variables,
  .driver_options = driver_options,
  .log_selectors = selectors,
  .macros = (const char *const[]){"_HAVE_BRIGHTMAIL", NULL},
  .message_state = {.size = sizeof(struct bmi_state), .write_spool = write_spool, .read_spool = read_spool},
  .hooks = {.message_accept = accept_message, .before_router = before_router, .received_log = log_item},
};
