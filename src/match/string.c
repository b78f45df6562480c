/* Items of domain, local part and string lists. */
#include "core/main_options.h"
#include "dns/dns.h"
#include "log/log.h"
#include "match/list.h"

static void set_captures(struct match *m, const struct str *groups, int n) {
  if (m->captures)
    captures_set(&m->c->expand, groups, n);
}

static int match_regex(struct match *m, const struct item *i, struct str subject, bool caseful) {
  struct str groups[CAPTURES_MAX];
  const struct pcre *re = i->re;
  if (caseful || re == NULL) {
    struct str error = STR_EMPTY;
    re = pcre_get(m->c->arena, i->text, caseful ? 0 : PCRE_CASELESS, &error);
    if (re == NULL)
      return ctx_fail(m->c, OUTCOME_ERROR, "%.*s", STRF(error));
  }
  int n = pcre_match(re, subject, groups, CAPTURES_MAX);
  if (n <= 0)
    return OUTCOME_FAIL;
  groups[0] = subject; /* in lists Exim gives the whole subject, not what the expression matched of it */
  set_captures(m, groups, n);
  return OUTCOME_OK;
}

int match_lookup(struct match *m, const struct item *i, struct str key, bool captures, struct str *ret) {
  struct ctx *c = m->c;
  bool query = i->lookup.def->flags & LOOKUP_QUERY;
  int r = lookup_find(c, &i->lookup, query ? STR_UNSET : i->arg, query ? i->arg : key, captures, ret);
  if (r != OUTCOME_ERROR)
    return r;
  /* A list that cannot be checked stops Exim's process; here it puts the work off, with the same line in the log. */
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
  return OUTCOME_DEFER;
}

static int match_local_literal(struct match *m, struct str domain) {
  struct ip_addr ip;
  if (domain.len < 3 || domain.p[0] != '[' || domain.p[domain.len - 1] != ']')
    return OUTCOME_FAIL;
  struct str s = str_slice(domain, 1, domain.len - 1);
  if (str_istarts(s, STR("IPv6:")))
    s = str_from(s, 5);
  else if (str_istarts(s, STR("IPv4:")))
    s = str_from(s, 5);
  if (!ip_parse(s, &ip))
    return OUTCOME_FAIL;
  return host_is_local(m->c, &ip) ? OUTCOME_OK : OUTCOME_FAIL;
}

static int match_mx(struct match *m, const struct item *i, struct str domain) {
  bool primary;
  int r = host_mx_local(m->c, domain, i->arg, &primary);
  if (r != OUTCOME_OK || i->type == ITEM_MX_ANY)
    return r;
  return primary == (i->type == ITEM_MX_PRIMARY) ? OUTCOME_OK : OUTCOME_FAIL;
}

static bool equal(struct str a, struct str b, bool caseful) { return caseful ? str_eq(a, b) : str_ieq(a, b); }

/* $0 is what matched, $1 what the asterisk stood for. */
static int matched(struct match *m, const struct item *i, struct str subject, int groups_n, struct str wild) {
  struct str groups[2] = {subject, wild};
  set_captures(m, groups, groups_n);
  m->value = i->text;
  return OUTCOME_OK;
}

int match_item_string(struct match *m, const struct item *i, struct str subject, bool caseful) {
  struct str primary = m->c->config ? main_options(m->c->config)->primary_hostname : STR_UNSET;
  int r = OUTCOME_FAIL;
  switch (i->type) {
  case ITEM_ERROR:
    log_write(LOG_MAIN | LOG_PANIC, m->c->message, "%.*s", STRF(i->arg));
    return ctx_fail(m->c, OUTCOME_DEFER, "%.*s", STRF(i->arg));
  case ITEM_LITERAL:
    return equal(subject, i->text, caseful) ? matched(m, i, subject, 1, STR_UNSET) : OUTCOME_FAIL;
  case ITEM_ANY:
    return matched(m, i, subject, 2, subject);
  case ITEM_SUFFIX: {
    if (subject.len < i->arg.len || !equal(str_from(subject, subject.len - i->arg.len), i->arg, caseful))
      return OUTCOME_FAIL;
    return matched(m, i, subject, 2, str_slice(subject, 0, subject.len - i->arg.len));
  }
  case ITEM_REGEX:
    r = match_regex(m, i, subject, caseful);
    break;
  case ITEM_PRIMARY:
    if (!str_is_set(primary) || !str_ieq(subject, primary))
      return OUTCOME_FAIL;
    matched(m, i, subject, 1, STR_UNSET);
    m->value = primary;
    return OUTCOME_OK;
  case ITEM_LOCAL_IP:
    r = match_local_literal(m, subject);
    break;
  case ITEM_MX_ANY: case ITEM_MX_PRIMARY: case ITEM_MX_SECONDARY:
    r = match_mx(m, i, subject);
    break;
  case ITEM_LOOKUP: {
    struct str value, groups[1] = {subject};
    struct expand_vars saved = ctx_save(m->c);
    set_captures(m, groups, 1);
    r = match_lookup(m, i, subject, m->captures, &value);
    if (r == OUTCOME_OK)
      m->value = value;
    else
      ctx_restore(m->c, &saved);
    return r;
  }
  default:
    return OUTCOME_FAIL;
  }
  if (r == OUTCOME_OK)
    m->value = i->text;
  return r;
}

int match_item_domain(struct match *m, const struct item *i, struct str domain) {
  if (i->type == ITEM_NAMED || i->type == ITEM_FILE) {
    struct match sub = *m;
    sub.kind = LIST_DOMAIN;
    sub.subject = sub.original = domain;
    sub.caseful = false;
    int r = i->type == ITEM_NAMED ? match_named(&sub, LIST_DOMAIN, i->arg) : match_file(&sub, i);
    m->dynamic |= sub.dynamic;
    m->value = sub.value;
    return r == MATCH_NOT_IN ? OUTCOME_FAIL : r;
  }
  /* In address lists +caseful reaches the domain as well; the subject's is in lower case by then. */
  return match_item_string(m, i, domain, m->kind == LIST_ADDRESS && m->caseful);
}
