/* Applying rules to one address, and to the envelope. */
#include "message/rewrite.h"

#include "base/pcre.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/address.h"
#include "message/rewrite_internal.h"
#include "message/rewrite_rules.h"

#define REPEAT_MAX 10

/* Where the address stands, for the log. */
static const char *place_name(unsigned type) {
  static const char *const names[] = {"sender:", "from:", "to:", "cc:", "bcc:", "reply-to:", "env-from", "env-to"};
  if (type & REWRITE_SMTP)
    return type & REWRITE_SMTP_SENDER ? "smtp sender" : "smtp recipient";
  return names[__builtin_ctz(type & (REWRITE_HEADERS | REWRITE_ENVELOPE))];
}

/* Text with a name, as the w flag puts it into a header line. */
static struct str encode_whole(struct ctx *c, struct str text, const struct mail_address *m) {
  ptrdiff_t angle = m->start > 0 ? str_rfind_byte(str_slice(text, 0, m->start), '<') : -1;
  if (angle < 0)
    return text;
  struct str phrase = str_slice(text, 0, (size_t)angle);
  struct str name = str_trim(phrase);
  for (uint32_t i = 0; i < name.len; i++) {
    unsigned char b = (unsigned char)name.p[i];
    if (b == '\t' || (b >= 32 && b <= 126))
      continue;
    struct str encoded = rewrite_encode(c, name);
    return str_cat(c->arena, str_cat(c->arena, encoded, STR(" ")), str_from(text, (size_t)angle));
  }
  return text;
}

/* The expansion's result as a new address, and what the log shows of it. False: it is none (logged). */
static bool take_result(struct ctx *c, const struct rewrite_rule *rule, unsigned type, struct str subject,
    struct str text, struct str *ret_address, struct str *ret_whole, struct str *ret_shown) {
  struct mail_address m;
  struct str error;
  unsigned flags = address_flags(c, ADDRESS_ALLOW_DOMAIN_LITERAL);
  if (type & REWRITE_ENV_FROM)
    flags |= ADDRESS_ALLOW_EMPTY;
  if (address_parse(c->arena, text, flags, &m, &error)) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "Rewrite of %.*s yielded unparseable address: %.*s in address %.*s",
      STRF(subject), STRF(error), STRF(text));
    return false;
  }
  struct str address = m.address;
  *ret_shown = text;
  if (address.len && !m.domain.len) {
    if (!(rule->flags & REWRITE_QUALIFY)) {
      log_write(LOG_MAIN | LOG_PANIC, c->message, "Rewrite of %.*s yielded unqualified address \"%.*s\"", STRF(subject),
        STRF(address));
      return false;
    }
    *ret_shown = address = rewrite_qualify(c, address, false);
  }
  bool as_a_whole = (rule->flags & REWRITE_WHOLE) && (type & REWRITE_HEADERS);
  if (as_a_whole) {
    *ret_whole = encode_whole(c, text, &m);
  } else if (str_is_set(*ret_whole)) { /* of an earlier rule: the new address stands where that rule's did */
    struct mail_address old;
    struct str whole = *ret_whole;
    if (address_parse(c->arena, whole, flags, &old, &error) == 0)
      *ret_whole = str_cat(c->arena, str_cat(c->arena, str_slice(whole, 0, old.start), address), str_from(whole, old.end));
  }
  *ret_address = address;
  return true;
}

enum step { STEP_NO_MATCH, STEP_DONE, STEP_KEPT /* matched, forced failure */, STEP_STOP };

static int matches(struct ctx *c, const struct rewrite_rule *rule, unsigned type, struct str subject) {
  if (!(type & REWRITE_SMTP))
    return match_address_pattern(c, &rule->pattern, subject);
  struct str pattern;
  if (expand_option(c, &rule->pattern, &pattern)) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand \"%.*s\" while checking for SMTP rewriting: %.*s",
      STRF(rule->pattern.text), STRF(c->error));
    return OUTCOME_FAIL;
  }
  return match_item(c, pattern, subject, true);
}

static enum step apply_rule(struct ctx *c, const struct rewrite_rule *rule, size_t number, unsigned type,
    struct str *subject, struct str *whole) {
  if (matches(c, rule, type, *subject) != OUTCOME_OK)
    return STEP_NO_MATCH;
  if (str_eq_c(rule->replacement.text, "*") && !(type & REWRITE_SMTP))
    return STEP_STOP;
  struct str local_part = c->vars.local_part, domain = c->vars.domain, text, address, item = *whole, shown;
  if (!(type & REWRITE_SMTP))
    address_split(*subject, &c->vars.local_part, &c->vars.domain);
  int rc = expand(c, rule->replacement.tree, &text);
  c->vars.local_part = local_part;
  c->vars.domain = domain;
  if (rc == OUTCOME_FORCED)
    return STEP_KEPT;
  if (rc) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "Expansion of %.*s failed while rewriting: %.*s",
      STRF(rule->replacement.text), STRF(c->error));
    return STEP_STOP;
  }
  if (!take_result(c, rule, type, *subject, text, &address, &item, &shown))
    return STEP_STOP;
  if (type & REWRITE_SMTP) /* with all that stands around the address */
    address = shown;
  DEBUG(rewrite, "\"%.*s\" from %s rewritten as \"%.*s\" by rule %zu\n", STRF(*subject), place_name(type), STRF(shown),
    number);
  /* EXPN rewrites, too, but no message's addresses. */
  if (log_selected(LOGSEL_address_rewrite) && !(type & REWRITE_QUIET) && (c->message || !c->session || (type & REWRITE_SMTP)))
    log_write(LOG_MAIN, c->message, "\"%.*s\" from %s rewritten as \"%.*s\" by rule %zu", STRF(*subject),
      place_name(type), STRF(shown), number);
  *subject = address;
  *whole = item;
  return STEP_DONE;
}

bool rewrite_one(struct ctx *c, const struct rewrite_rules *rules, unsigned type, struct str *address,
    struct str *ret_whole) {
  if (!rules || !(rules->flags & type & (REWRITE_HEADERS | REWRITE_ENVELOPE | REWRITE_SMTP)))
    return false;
  struct expand_vars saved = ctx_save(c);
  struct str subject = *address, whole = STR_UNSET;
  bool done = false, stop = false;
  for (size_t i = 0; i < rules->n && !stop; i++) {
    const struct rewrite_rule *rule = &rules->v[i];
    if (!(rule->flags & type & (REWRITE_HEADERS | REWRITE_ENVELOPE | REWRITE_SMTP)))
      continue;
    enum step step = apply_rule(c, rule, i + 1, type, &subject, &whole);
    bool applied = step == STEP_DONE;
    for (int n = 0; step == STEP_DONE && (rule->flags & REWRITE_REPEAT); n++) {
      if (n == REPEAT_MAX) {
        log_write(LOG_MAIN | LOG_PANIC, c->message, "rewrite rule repeat ignored after 10 times");
        break;
      }
      step = apply_rule(c, rule, i + 1, type, &subject, &whole);
    }
    done |= applied;
    stop = step == STEP_STOP || ((rule->flags & REWRITE_QUIT) && (applied || step == STEP_KEPT));
  }
  ctx_restore(c, &saved);
  *ret_whole = whole;
  if (done)
    *address = subject;
  return done;
}

struct str rewrite_qualify(struct ctx *c, struct str local_part, bool sender) {
  const struct main_options *o = main_options(c->config);
  struct str domain = sender ? o->qualify_domain : o->qualify_recipient;
  return str_cat(c->arena, str_cat(c->arena, local_part, STR("@")), domain);
}

bool rewrite_smtp(struct ctx *c, bool sender, struct str *text) {
  struct str whole, before = *text;
  unsigned type = REWRITE_SMTP | (sender ? REWRITE_SMTP_SENDER : 0);
  return rewrite_one(c, rewrite_rules(c->config), type, text, &whole) && !str_eq(before, *text);
}

static bool rewrite_envelope(struct ctx *c, unsigned type, struct str *address) {
  struct str whole, before = *address;
  return rewrite_one(c, rewrite_rules(c->config), type, address, &whole) && !str_eq(before, *address);
}

bool rewrite_envelope_sender(struct ctx *c, struct str *address) {
  return address->len && rewrite_envelope(c, REWRITE_ENV_FROM, address);
}

bool rewrite_envelope_recipient(struct ctx *c, struct str *address) {
  return rewrite_envelope(c, REWRITE_ENV_TO, address);
}

bool rewrite_envelope_recipient_quietly(struct ctx *c, struct str *address) {
  return rewrite_envelope(c, REWRITE_ENV_TO | REWRITE_QUIET, address);
}

void rewrite_message_sender(struct ctx *c, struct message *m) {
  if (str_is_set(m->reverse_path_before))
    return;
  m->reverse_path_before = m->reverse_path;
  struct str address = m->reverse_path;
  if (rewrite_envelope_sender(c, &address))
    m->reverse_path = str_dup(m->arena, address);
}

static void note_rewritten(struct message *m, const char *what, struct str before) {
  struct str text = str_printf(m->arena, "X-rewrote-%s: %.*s\n", what, STRF(before));
  text.taint = before.taint;
  message_add_header(m, HEADER_DELETED, text);
}

void rewrite_received(struct ctx *c, struct message *m) {
  const struct rewrite_rules *rules = rewrite_rules(c->config);
  VEC(struct str) before = {0};
  for (size_t i = 0; rules && i < m->recipients.n; i++) {
    struct str address = m->recipients.v[i].address;
    if (!rewrite_envelope_recipient(c, &address))
      continue;
    vec_push(c->arena, &before, m->recipients.v[i].address);
    if (!str_is_set(m->recipients.v[i].given))
      m->recipients.v[i].given = m->recipients.v[i].address;
    m->recipients.v[i].address = str_dup(m->arena, address);
  }
  rewrite_message_sender(c, m);
  rewrite_message_headers(c, m, rules);
  for (size_t i = 0; i < before.n; i++)
    note_rewritten(m, "original-recipient", before.v[i]);
  if (!str_eq(m->reverse_path, m->reverse_path_before))
    note_rewritten(m, "sender", m->reverse_path_before);
}
