#include "lookup/ldap_query.h"

#include "base/ascii.h"
#include "base/encode.h"
#include "config/value.h"

#define NUMBER_MAX 86400

static bool parse_number(struct str value, int64_t *ret) {
  return str_to_i64(value, ret) && *ret >= 0 && *ret <= NUMBER_MAX;
}

static int take_setting(struct ctx *c, struct str name, struct str value, struct ldap_query *q) {
  static const char *const words[] = {"", "never", "searching", "finding", "always"};
  if (str_ieq_c(name, "USER")) {
    /* quote_ldap_dn makes it ready for a URL, which it is not part of. */
    if (!url_decode(c->arena, value, &q->user))
      q->user = value;
    return OUTCOME_OK;
  }
  struct str *texts[] = {&q->password, &q->servers};
  int64_t *numbers[] = {&q->size, &q->time, &q->net_time, &q->net_time};
  static const char *const text_names[] = {"PASS", "SERVERS"}, *const number_names[] = {"SIZE", "TIME", "NETTIME", "CONNECT"};
  for (int i = 0; i < 2; i++)
    if (str_ieq_c(name, text_names[i])) {
      *texts[i] = value;
      return OUTCOME_OK;
    }
  for (int i = 0; i < 4; i++)
    if (str_ieq_c(name, number_names[i]))
      return parse_number(value, numbers[i]) ? OUTCOME_OK
        : ctx_fail(c, OUTCOME_DEFER, "LDAP option %s is not a number", number_names[i]);
  if (str_ieq_c(name, "DEREFERENCE")) {
    for (int i = 1; i < 5; i++)
      if (str_ieq_c(value, words[i])) {
        q->dereference = (enum ldap_dereference)i;
        return OUTCOME_OK;
      }
    return ctx_fail(c, OUTCOME_DEFER, "LDAP option DEREFERENCE is not \"never\", \"searching\", \"finding\" or \"always\"");
  }
  if (str_ieq_c(name, "REFERRALS")) {
    q->no_referrals = str_ieq_c(value, "nofollow");
    return q->no_referrals || str_ieq_c(value, "follow") ? OUTCOME_OK
      : ctx_fail(c, OUTCOME_DEFER, "LDAP option REFERRALS is not \"follow\" or \"nofollow\"");
  }
  return ctx_fail(c, OUTCOME_DEFER, "unknown parameter \"%.*s=\" precedes LDAP URL", STRF(name));
}

/* "ldap:", "ldaps:" or "ldapi:". */
static bool begins_url(struct str s, struct ldap_query *q) {
  if (!str_istarts(s, STR("ldap")) || s.len < 5)
    return false;
  char c = ascii_lower(s.p[4]);
  q->scheme = c == 's' ? LDAP_TLS : c == 'i' ? LDAP_LOCAL : LDAP_PLAIN;
  return c == ':' || ((c == 's' || c == 'i') && s.len > 5 && s.p[5] == ':');
}

/* ldap://HOST/… becomes ldap:///… and HOST. */
static void take_host(struct ctx *c, struct ldap_query *q) {
  ptrdiff_t at = str_find(q->url, STR("://"));
  if (at < 0)
    return;
  size_t from = (size_t)at + 3, to = from;
  while (to < q->url.len && q->url.p[to] != '/')
    to++;
  struct str host = str_slice(q->url, from, to);
  if (!url_decode(c->arena, host, &q->host))
    q->host = host;
  q->url = str_cat(c->arena, str_slice(q->url, 0, from), to < q->url.len ? str_from(q->url, to) : STR("/"));
}

int ldap_query_parse(struct ctx *c, struct str text, bool url_optional, struct ldap_query *q) {
  *q = (struct ldap_query){.url = STR_EMPTY, .host = STR_EMPTY};
  struct str s = str_trim(text);
  while (!begins_url(s, q)) {
    if (s.len == 0 && url_optional)
      return OUTCOME_OK;
    size_t n = 0;
    while (n < s.len && s.p[n] != '=' && !ascii_is_space(s.p[n]))
      n++;
    if (n == 0 || n >= s.len || s.p[n] != '=')
      return ctx_fail(c, OUTCOME_DEFER, "malformed parameter setting precedes LDAP URL");
    struct str name = str_slice(s, 0, n), value;
    s = str_from(s, n + 1);
    if (s.len > 0 && s.p[0] == '"') {
      if (value_unquote(c->arena, s, &value, &s) == VALUE_BAD)
        return ctx_fail(c, OUTCOME_DEFER, "malformed parameter setting precedes LDAP URL");
    } else {
      for (n = 0; n < s.len && !ascii_is_space(s.p[n]);)
        n++;
      value = str_slice(s, 0, n);
      s = str_from(s, n);
    }
    int r = take_setting(c, name, value, q);
    if (r != OUTCOME_OK)
      return r;
    s = str_ltrim(s);
  }
  q->url = s;
  take_host(c, q);
  return OUTCOME_OK;
}

/* URLs: all but letters, digits and a few others are percent-encoded. */
static void add_url(struct buf *out, char ch) {
  if (ascii_is_alnum(ch) || (ch && strchr("!$'-._()*+", ch)))
    buf_add_byte(out, ch);
  else
    buf_printf(out, "%%%02X", (unsigned char)ch);
}

static void add_hex(struct buf *out, char ch) { buf_printf(out, "%%5C%02X", (unsigned char)ch); }

int ldap_quote(struct ctx *c, struct str text, struct str option, struct buf *out) {
  bool dn = str_is_set(option) && str_eq_c(option, "dn");
  if (str_is_set(option) && !dn)
    return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" unrecognized after \"${quote_ldap\"", STRF(option));
  size_t lead = 0, tail = text.len;
  while (lead < text.len && (text.p[lead] == ' ' || text.p[lead] == '#'))
    lead++;
  while (tail > lead && text.p[tail - 1] == ' ')
    tail--;
  for (size_t i = 0; i < text.len; i++) {
    char ch = text.p[i];
    if (!dn && (ch == '\0' || strchr("*()\\", ch))) {
      add_hex(out, ch);
      continue;
    }
    if (dn && (i < lead || i >= tail || (ch && strchr(",+\"\\<>;", ch))))
      buf_add_c(out, "%5C");
    add_url(out, ch);
  }
  return OUTCOME_OK;
}
