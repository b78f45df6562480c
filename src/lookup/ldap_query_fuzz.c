/* Queries for LDAP with their settings, which may hold anything that was put into them; quoting; and passwords in texts. */
#include <stdlib.h>
#include "base/arena.h"
#include "base/ascii.h"
#include "log/mask.h"
#include "lookup/ldap_query.h"
#include "lookup/lookup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok)
    abort();
}

/* Nothing may be left that ends a value in a URL or a filter. */
static void check_quoted(struct ctx *c, struct str text, struct str option) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  check(ldap_quote(c, text, option, &b) == OUTCOME_OK);
  bool dn = str_is_set(option);
  for (size_t i = 0; i < b.len; i++) {
    char ch = b.p[i];
    check(ascii_is_alnum(ch) || (ch && strchr("!$'-._+%", ch)) || (dn && ch && strchr("()*", ch)));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct str text = str_n((const char *)data, size);
  struct arena *a = arena_new("fuzz");
  struct ctx *c = ctx_new(a, NULL);
  struct ldap_query q;
  for (int optional = 0; optional < 2; optional++)
    if (ldap_query_parse(c, text, optional, &q) == OUTCOME_OK) {
      check(optional || str_istarts(q.url, STR("ldap")));
      check(q.url.len <= text.len + 1 && q.host.len <= text.len);
      check(q.size >= 0 && q.time >= 0 && q.net_time >= 0);
      /* What is parsed as the password of a whole query does not show. */
      ptrdiff_t at = q.password.len > 8 && (str_is_set(q.user) || q.url.len > 0) ? str_find(text, q.password) : -1;
      if (at >= 0 && str_find(str_from(text, (size_t)at + 1), q.password) < 0)
        check(str_find(log_masked(a, text), q.password) < 0);
    }
  check_quoted(c, text, STR_UNSET);
  check_quoted(c, text, STR("dn"));
  check(log_masked(a, text).len <= 2 * text.len + 16);
  arena_free(a);
  return 0;
}
