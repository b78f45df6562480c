/* ldap, ldapdn, ldapm, and the condition ldapauth (manual, "More about LDAP"). libldap connects, speaks TLS and follows
referrals inside of its calls, which block: a query runs in an offload thread, with time limits on all that it does. */
#define LDAP_DEPRECATED 0
#include <errno.h>
#include <ldap.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/ascii.h"
#include "base/encode.h"
#include "core/main_options.h"
#include "core/module.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "loop/kept.h"
#include "lookup/ldap_query.h"
#include "lookup/types.h"
#include "match/match.h"

#define RESULT_MAX (32u << 20)
#define NETWORK_SECONDS 30 /* for each step, unless NETTIME says something else */
#define ENTRIES_MAX 100000

enum kind { ONE_ENTRY, MANY_ENTRIES, NAME_ONLY, PASSWORD_ONLY };

/* What the thread works with; it must not see the context. */
struct request {
  const struct ldap_query *query;
  enum kind kind;
  const struct main_options *options; /* may be NULL */
  struct arena *arena;                /* the thread's while it runs */
  const char *uri, *server;           /* server: for texts */
  LDAP *ld;
  LDAPURLDesc *url;
  bool bound, broken;
  int outcome;
  bool other_server; /* with OUTCOME_DEFER: the next of the list is to be asked */
  struct str error;
  struct buf result;
  char *dn;
  int entries;
};

static int fail(struct request *q, int outcome, bool other_server, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static int fail(struct request *q, int outcome, bool other_server, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  q->error = str_vprintf(q->arena, fmt, ap);
  va_end(ap);
  q->other_server = other_server;
  q->broken |= other_server;
  return outcome;
}

/* --- in the thread --- */

static const char *text_of(struct request *q, struct str s) { return str_is_set(s) && s.len ? str_dup_c(q->arena, s) : NULL; }

static int requirement(struct str text) {
  static const struct {
    const char *name;
    int value;
  } words[] = {{"hard", LDAP_OPT_X_TLS_HARD}, {"demand", LDAP_OPT_X_TLS_DEMAND}, {"allow", LDAP_OPT_X_TLS_ALLOW},
    {"try", LDAP_OPT_X_TLS_TRY}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (str_ieq_c(text, words[i].name))
      return words[i].value;
  return LDAP_OPT_X_TLS_NEVER;
}

static void set_tls_options(struct request *q) {
  const struct main_options *o = q->options;
  if (o == NULL)
    return;
  const struct {
    int option;
    struct str value;
  } texts[] = {{LDAP_OPT_X_TLS_CACERTFILE, o->ldap_ca_cert_file}, {LDAP_OPT_X_TLS_CACERTDIR, o->ldap_ca_cert_dir},
    {LDAP_OPT_X_TLS_CERTFILE, o->ldap_cert_file}, {LDAP_OPT_X_TLS_KEYFILE, o->ldap_cert_key},
    {LDAP_OPT_X_TLS_CIPHER_SUITE, o->ldap_cipher_suite}};
  bool any = false;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    const char *value = text_of(q, texts[i].value);
    if (value)
      ldap_set_option(q->ld, texts[i].option, value);
    any |= value != NULL;
  }
  if (str_is_set(o->ldap_require_cert) && o->ldap_require_cert.len) {
    int value = requirement(o->ldap_require_cert);
    ldap_set_option(q->ld, LDAP_OPT_X_TLS_REQUIRE_CERT, &value);
    any = true;
  }
  int as_client = 0;
  if (any)
    ldap_set_option(q->ld, LDAP_OPT_X_TLS_NEWCTX, &as_client);
}

/* Those that a query may change, on a connection that an earlier one may have used. */
static void set_query_options(struct request *q) {
  static const int dereferences[] = {LDAP_DEREF_NEVER, LDAP_DEREF_NEVER, LDAP_DEREF_SEARCHING, LDAP_DEREF_FINDING,
    LDAP_DEREF_ALWAYS};
  const struct ldap_query *o = q->query;
  struct timeval network = {.tv_sec = o->net_time ? o->net_time : NETWORK_SECONDS};
  int size = o->size ? (int)o->size : LDAP_NO_LIMIT, limit = o->time ? (int)o->time : LDAP_NO_LIMIT;
  ldap_set_option(q->ld, LDAP_OPT_NETWORK_TIMEOUT, &network);
  ldap_set_option(q->ld, LDAP_OPT_TIMEOUT, &network);
  ldap_set_option(q->ld, LDAP_OPT_SIZELIMIT, &size);
  ldap_set_option(q->ld, LDAP_OPT_TIMELIMIT, &limit);
  ldap_set_option(q->ld, LDAP_OPT_DEREF, &dereferences[o->dereference]);
  ldap_set_option(q->ld, LDAP_OPT_REFERRALS, o->no_referrals ? LDAP_OPT_OFF : LDAP_OPT_ON);
}

static int connect_and_bind(struct request *q) {
  int e = ldap_initialize(&q->ld, q->uri);
  if (e != LDAP_SUCCESS)
    return fail(q, OUTCOME_DEFER, true, "failed to initialize for LDAP server %s - %s", q->server, ldap_err2string(e));
  int version = q->options && q->options->ldap_version > 0 ? (int)q->options->ldap_version : LDAP_VERSION3;
  ldap_set_option(q->ld, LDAP_OPT_PROTOCOL_VERSION, &version);
  ldap_set_option(q->ld, LDAP_OPT_RESTART, LDAP_OPT_ON);
  set_query_options(q);
  set_tls_options(q);
  bool local = strncmp(q->uri ? q->uri : "", "ldapi:", 6) == 0;
  if (q->options && q->options->ldap_start_tls && q->query->scheme == LDAP_PLAIN && !local &&
      (e = ldap_start_tls_s(q->ld, NULL, NULL)) != LDAP_SUCCESS)
    return fail(q, OUTCOME_DEFER, true, "failed to initiate TLS processing on an LDAP session to server %s - ldap_start_tls_s() "
      "returned %d: %s", q->server, e, ldap_err2string(e));
  const char *user = text_of(q, q->query->user), *password = text_of(q, q->query->password);
  struct berval secret = {.bv_len = password ? strlen(password) : 0, .bv_val = (char *)(password ? password : "")};
  e = ldap_sasl_bind_s(q->ld, user, LDAP_SASL_SIMPLE, &secret, NULL, NULL, NULL);
  if (e == LDAP_SUCCESS)
    q->bound = true;
  else if (e == LDAP_INVALID_CREDENTIALS && q->kind == PASSWORD_ONLY)
    return OUTCOME_FAIL;
  else if (e < 0)
    return fail(q, OUTCOME_DEFER, true, "failed to bind the LDAP connection to server %s - ldap_bind() returned %d", q->server, e);
  else
    return fail(q, OUTCOME_DEFER, true, "failed to bind the LDAP connection to server %s - LDAP error %d: %s", q->server, e,
      ldap_err2string(e));
  return OUTCOME_OK;
}

/* Commas are doubled; within quotes, quotes, backslashes and newlines are escaped. */
static void add_value(struct buf *b, const struct berval *v, bool quoted) {
  for (size_t i = 0; i < v->bv_len; i++) {
    char ch = v->bv_val[i];
    if (quoted && ch == '\n') {
      buf_add_c(b, "\\n");
      continue;
    }
    if (ch == ',' || (quoted && (ch == '"' || ch == '\\')))
      buf_add_byte(b, ch == ',' ? ',' : '\\');
    buf_add_byte(b, ch);
  }
}

static void add_attribute(struct request *q, LDAPMessage *entry, const char *name, bool alone, bool first) {
  struct buf *b = &q->result;
  struct berval **values = ldap_get_values_len(q->ld, entry, name);
  if (!first)
    buf_add_byte(b, alone ? ',' : ' ');
  if (!alone)
    buf_printf(b, "%s=\"", name);
  for (int i = 0; values && values[i]; i++) {
    if (i > 0)
      buf_add_byte(b, ',');
    add_value(b, values[i], !alone);
  }
  if (!alone)
    buf_add_byte(b, '"');
  ldap_value_free_len(values);
}

static void add_entry(struct request *q, LDAPMessage *entry, bool *any) {
  char *dn = ldap_get_dn(q->ld, entry);
  ldap_memfree(q->dn);
  q->dn = dn;
  q->entries++;
  struct buf *b = &q->result;
  if (b->len > 0)
    buf_add_byte(b, '\n');
  if (q->kind == NAME_ONLY) {
    buf_add_c(b, dn ? dn : "");
    *any = true;
    return;
  }
  char **wanted = q->url->lud_attrs;
  bool alone = wanted && wanted[0] && !wanted[1], first = true;
  BerElement *position = NULL;
  for (char *name = ldap_first_attribute(q->ld, entry, &position); name; name = ldap_next_attribute(q->ld, entry, position)) {
    add_attribute(q, entry, name, alone, first);
    first = false;
    *any = true;
    ldap_memfree(name);
  }
  ber_free(position, 0);
}

static int take_end(struct request *q, LDAPMessage *end) {
  int code = LDAP_OTHER;
  char *text = NULL;
  int e = ldap_parse_result(q->ld, end, &code, NULL, &text, NULL, NULL, 0);
  int r = OUTCOME_OK;
  if (e != LDAP_SUCCESS)
    r = fail(q, OUTCOME_DEFER, true, "LDAP: ldap_parse_result failed: %d, %s", e, ldap_err2string(e));
  else if (code == LDAP_NO_SUCH_OBJECT)
    r = OUTCOME_FAIL;
  else if (code != LDAP_SUCCESS && code != LDAP_SIZELIMIT_EXCEEDED)
    r = fail(q, OUTCOME_DEFER, false, "LDAP search failed - error %d: %s%s%s", code, ldap_err2string(code),
      text && *text ? "/" : "", text ? text : "");
  ldap_memfree(text);
  return r;
}

static int take_message(struct request *q, LDAPMessage *message, bool *any, bool *ended) {
  LDAPMessage *m = ldap_first_message(q->ld, message);
  switch (ldap_msgtype(m)) {
  case LDAP_RES_SEARCH_ENTRY:
    if (q->entries >= ENTRIES_MAX)
      q->result.overflow = true;
    else
      add_entry(q, m, any);
    return q->result.overflow ? fail(q, OUTCOME_DEFER, false, "LDAP: result too long") : OUTCOME_OK;
  case LDAP_RES_SEARCH_RESULT:
    *ended = true;
    return take_end(q, m);
  default: /* a reference to another server, when they are not followed */
    return OUTCOME_OK;
  }
}

static int search(struct request *q) {
  int id = -1;
  struct timeval patience = {.tv_sec = q->query->net_time ? q->query->net_time : NETWORK_SECONDS};
  set_query_options(q);
  int e = ldap_search_ext(q->ld, q->url->lud_dn, q->url->lud_scope, q->url->lud_filter, q->url->lud_attrs, 0, NULL, NULL, NULL,
    LDAP_NO_LIMIT, &id);
  if (e != LDAP_SUCCESS)
    return fail(q, OUTCOME_DEFER, e == LDAP_SERVER_DOWN || e == LDAP_TIMEOUT, "ldap_search failed: %d, %s", e, ldap_err2string(e));
  bool any = false, ended = false;
  int r = OUTCOME_OK;
  while (r == OUTCOME_OK && !ended) {
    LDAPMessage *message = NULL;
    e = ldap_result(q->ld, id, LDAP_MSG_ONE, &patience, &message);
    if (e > 0)
      r = take_message(q, message, &any, &ended);
    else if (e == 0)
      r = fail(q, OUTCOME_DEFER, true, "ldap_result timed out");
    else
      r = fail(q, OUTCOME_DEFER, true, "ldap_result failed: server %s is gone", q->server);
    ldap_msgfree(message);
  }
  if (!ended)
    q->broken = true;
  if (r != OUTCOME_OK)
    return r;
  if (q->kind != MANY_ENTRIES && q->entries > 1)
    return fail(q, OUTCOME_DEFER, false, "LDAP search: more than one entry (%d) was returned (filter not specific enough?)", q->entries);
  return any ? OUTCOME_OK : OUTCOME_FAIL;
}

static int run_query(void *arg) {
  struct request *q = arg;
  q->outcome = q->ld ? OUTCOME_OK : connect_and_bind(q);
  if (q->outcome == OUTCOME_OK && q->kind != PASSWORD_ONLY)
    q->outcome = search(q);
  return 0;
}

/* --- in the fiber --- */

static int run_close(void *conn) { return ldap_unbind_ext(conn, NULL, NULL); }

static void close_connection(void *conn) { run_close(conn); }
static const struct kept_kind kept_kind = {"ldap", 64, 64, 60, close_connection, NULL};

static int socket_of(LDAP *ld) {
  int fd = -1;
  ldap_get_option(ld, LDAP_OPT_DESC, &fd);
  return fd;
}

/* *ret_uri: NULL, the library's default. */
static int make_uri(struct ctx *c, const struct ldap_query *query, struct str server, const char **ret_uri, const char **ret_name) {
  static const char *const schemes[] = {"ldap", "ldaps", "ldapi"};
  struct arena *a = c->arena;
  if (server.len > 0 && server.p[0] == '/') {
    *ret_name = str_dup_c(a, server);
    *ret_uri = str_printf(a, "ldapi://%.*s/", STRF(url_encode(a, server))).p;
    return OUTCOME_OK;
  }
  if (server.len == 0) {
    *ret_uri = NULL;
    *ret_name = "NULL:389";
    return OUTCOME_OK;
  }
  if (query->scheme == LDAP_LOCAL)
    return ctx_fail(c, OUTCOME_ERROR, "ldapi requires an absolute path (\"%.*s\" given)", STRF(server));
  ptrdiff_t colon = str_rfind_byte(server, ':'), bracket = str_rfind_byte(server, ']');
  bool port = colon >= 0 && colon > bracket;
  *ret_name = str_printf(a, "%.*s%s", STRF(server), port ? "" : query->scheme == LDAP_TLS ? ":636" : ":389").p;
  *ret_uri = str_printf(a, "%s://%s/", schemes[query->scheme], *ret_name).p;
  return OUTCOME_OK;
}

/* Connections are told apart by all that went into them. */
static struct str pool_key(struct ctx *c, const struct request *q) {
  return str_printf(c->arena, "%s\n%.*s\n%.*s", q->uri ? q->uri : "", STRF(q->query->user), STRF(q->query->password));
}

static int ask(struct ctx *c, struct request *q, struct str server, struct str *ret) {
  int r = make_uri(c, q->query, server, &q->uri, &q->server);
  if (r != OUTCOME_OK)
    return r;
  struct str key = pool_key(c, q);
  q->arena = arena_new("ldap");
  q->ld = q->kind == PASSWORD_ONLY ? NULL : kept_take(&kept_kind, key);
  q->bound = q->ld != NULL;
  q->broken = false;
  q->entries = 0;
  q->dn = NULL;
  DEBUG(lookup, "LDAP %s connection: %s\n", q->ld ? "using cached" : "new", q->server);
  buf_init(&q->result, q->arena, RESULT_MAX);
  fiber_offload(run_query, q);
  r = q->outcome;
  if (r == OUTCOME_OK) {
    *ret = str_dup(c->arena, buf_str(&q->result));
    if (q->kind != PASSWORD_ONLY)
      c->vars.ldap_dn = str_dup(c->arena, str_c(q->dn ? q->dn : ""));
  } else if (r != OUTCOME_FAIL) {
    c->error = str_dup(c->arena, q->error);
    r = q->other_server ? OUTCOME_DEFER : OUTCOME_ERROR;
  }
  ldap_memfree(q->dn);
  if (q->ld && q->bound && !q->broken && q->kind != PASSWORD_ONLY)
    kept_give(&kept_kind, key, q->ld, socket_of(q->ld));
  else if (q->ld)
    fiber_offload(run_close, q->ld);
  arena_free(q->arena);
  return r;
}

/* The servers in turn: the URL's own, SERVERS of the query, the main option's, the library's. */
static int ask_all(struct ctx *c, struct request *q, struct str *ret) {
  struct str list = str_is_set(q->query->servers) ? q->query->servers
    : q->options ? q->options->ldap_default_servers : STR_UNSET;
  if (q->query->host.len > 0 || !str_is_set(list) || list.len == 0)
    return ask(c, q, q->query->host, ret);
  struct list_iter i;
  struct str server;
  int r = OUTCOME_DEFER;
  list_iter_init(&i, c->arena, list);
  ctx_fail(c, r, "no LDAP server");
  while (list_next(&i, &server)) {
    r = ask(c, q, server, ret);
    bool local = q->query->scheme == LDAP_LOCAL && r == OUTCOME_ERROR && (server.len == 0 || server.p[0] != '/');
    if (r != OUTCOME_DEFER && !local)
      break;
  }
  return r;
}

static int find(struct ctx *c, struct str key, enum kind kind, struct str *ret) {
  struct ldap_query query;
  struct request q = {.query = &query, .kind = kind, .options = c->config ? main_options(c->config) : NULL};
  int version;
  ldap_get_option(NULL, LDAP_OPT_PROTOCOL_VERSION, &version); /* the library sets itself up here, not in several threads */
  key = str_untainted(key);
  if (memchr(key.p, '\0', key.len))
    return ctx_fail(c, OUTCOME_DEFER, "LDAP: NUL in the query");
  int r = ldap_query_parse(c, key, kind == PASSWORD_ONLY, &query);
  if (r != OUTCOME_OK)
    return r;
  if (kind == PASSWORD_ONLY) {
    if (!str_is_set(query.user) || !str_is_set(query.password))
      return ctx_fail(c, OUTCOME_ERROR, "ldapauth lookups must specify the username and password");
    if (query.password.len == 0)
      return OUTCOME_FAIL; /* the server would take it for an anonymous one */
  } else {
    int e = ldap_url_parse(str_dup_c(c->arena, query.url), &q.url);
    if (e != LDAP_URL_SUCCESS)
      return ctx_fail(c, OUTCOME_DEFER, "ldap_url_parse: (error %d) parsing \"%.*s\"", e, STRF(query.url));
  }
  r = ask_all(c, &q, ret);
  ldap_free_urldesc(q.url);
  return r == OUTCOME_ERROR && kind != PASSWORD_ONLY ? OUTCOME_DEFER : r;
}

static int ldap_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  return find(c, key, ONE_ENTRY, ret);
}

static int ldapm_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  return find(c, key, MANY_ENTRIES, ret);
}

static int ldapdn_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  return find(c, key, NAME_ONLY, ret);
}

static int ldap_auth(struct ctx *c, struct str query) {
  struct str none;
  return find(c, query, PASSWORD_ONLY, &none);
}

static void ldap_tidy(void) { kept_close(&kept_kind); }

static const char *runtime_version(void) {
  static char text[24];
  LDAPAPIInfo info = {.ldapai_info_version = LDAP_API_INFO_VERSION};
  if (ldap_get_option(NULL, LDAP_OPT_API_INFO, &info) != LDAP_OPT_SUCCESS)
    return NULL;
  snprintf(text, sizeof text, "%d", info.ldapai_vendor_version);
  ldap_memfree(info.ldapai_vendor_name);
  ldap_memvfree((void **)info.ldapai_extensions);
  return text;
}

#define NUMBER_TEXT(n) #n
#define NUMBER(n) NUMBER_TEXT(n)

static const struct library_def library = {"OpenLDAP", NUMBER(LDAP_VENDOR_VERSION), runtime_version};

const struct lookup_def lookup_ldap = {
  .name = "ldap", .flags = LOOKUP_QUERY, .find = ldap_find, .quote = ldap_quote, .tidy = ldap_tidy, .auth = ldap_auth, .library = &library};
const struct lookup_def lookup_ldapdn = {.name = "ldapdn", .flags = LOOKUP_QUERY, .find = ldapdn_find, .quote = ldap_quote};
const struct lookup_def lookup_ldapm = {.name = "ldapm", .flags = LOOKUP_QUERY, .find = ldapm_find, .quote = ldap_quote};
