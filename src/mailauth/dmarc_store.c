#include "mailauth/dmarc_store.h"

#include <time.h>

#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "mailauth/dmarc_state.h"
#include "message/message.h"

#define BUSY_MS 5000
#define SIGNATURES_BYTES_MAX 8192

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS results (id INTEGER PRIMARY KEY, received INTEGER, ip TEXT, from_domain TEXT, policy_domain TEXT,"
    " adkim TEXT, aspf TEXT, p TEXT, sp TEXT, np TEXT, testing INTEGER, fo TEXT, rua TEXT, discovery TEXT, disposition TEXT, reason TEXT,"
    " dkim TEXT, spf TEXT, envelope_from TEXT, spf_domain TEXT, spf_scope TEXT, spf_result TEXT, signatures TEXT);"
    "CREATE INDEX IF NOT EXISTS by_domain ON results (policy_domain, received)";

sqlite3 *dmarc_store_open(struct arena *a, const char *file, bool create, struct str *ret_error) {
  sqlite3 *db = NULL;
  int rc = sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0), NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_busy_timeout(db, BUSY_MS);
  if (rc == SQLITE_OK) /* statistics: a power cut may cost some */
    rc = sqlite3_exec(db, "PRAGMA synchronous=OFF", NULL, NULL, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_exec(db, schema, NULL, NULL, NULL);
  if (rc == SQLITE_OK)
    return db;
  *ret_error = str_printf(a, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
  sqlite3_close(db);
  return NULL;
}

/* ---- writing ---- */

struct job {
  struct arena *arena;  /* the thread's */
  const char *file;
  const char *sql;
  struct str value[22]; /* unset: a number, or NULL */
  int64_t number[22];
  int values;
  int64_t row;
  struct str error;
};

static int run_job(void *arg) {
  struct job *j = arg;
  sqlite3_stmt *s = NULL;
  sqlite3 *db = dmarc_store_open(j->arena, j->file, true, &j->error);
  if (db == NULL)
    return -1;
  int rc = sqlite3_prepare_v2(db, j->sql, -1, &s, NULL);
  for (int i = 0; i < j->values && rc == SQLITE_OK; i++)
    rc = str_is_set(j->value[i]) ? sqlite3_bind_text(s, i + 1, j->value[i].p, (int)j->value[i].len, SQLITE_STATIC)
                                 : sqlite3_bind_int64(s, i + 1, j->number[i]);
  if (rc == SQLITE_OK)
    rc = sqlite3_step(s);
  if (rc == SQLITE_DONE)
    j->row = sqlite3_last_insert_rowid(db);
  else
    j->error = str_printf(j->arena, "%s", sqlite3_errmsg(db));
  sqlite3_finalize(s);
  sqlite3_close(db);
  return rc == SQLITE_DONE ? 0 : -1;
}

static void text(struct job *j, struct str s) { j->value[j->values++] = str_is_set(s) ? s : STR_EMPTY; }
static void number(struct job *j, int64_t n) {
  j->value[j->values] = STR_UNSET;
  j->number[j->values++] = n;
}

/* The row, or 0 after a line in the log. */
static int64_t run(struct ctx *c, struct job *j) {
  struct str file;
  int64_t row = 0;
  if (dmarc_store_file(c, &file) != 0) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
    return 0;
  }
  j->file = str_dup_c(c->arena, file);
  j->arena = arena_new("dmarc store");
  if (fiber_offload(run_job, j) == 0)
    row = j->row;
  else
    log_write(LOG_MAIN | LOG_PANIC, c->message, "DMARC: result not stored in %.*s: %.*s", STRF(file), STRF(j->error));
  arena_free(j->arena);
  return row;
}

static bool has_store(struct ctx *c) {
  struct str file;
  return dmarc_store_file(c, &file) != 0 || str_is_set(file);
}

static struct str signatures(struct ctx *c, const struct dmarc_state *s) {
  struct buf b;
  buf_init(&b, c->arena, SIGNATURES_BYTES_MAX);
  for (int i = 0; i < s->signers; i++) {
    static const char *const words[] = {"none", "pass", "fail", "policy", "neutral", "temperror", "permerror"};
    const struct dmarc_signer *g = &s->signer[i];
    const char *word = str_eq_c(g->result, "invalid") ? "permerror" : "policy";
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
      if (str_eq_c(g->result, words[k]))
        word = words[k];
    buf_printf(&b, "%.*s %.*s %s\n", STRF(g->domain), STRF(g->selector), word);
  }
  return buf_str(&b);
}

void dmarc_store_add(struct ctx *c, struct dmarc_state *s) {
  const struct dmarc_record *r = &s->found.record;
  struct str rua = r->rua, address;
  bool judged = s->status >= DMARC_ACCEPT && s->status <= DMARC_NONE;
  if (!judged || c->is_test || !str_is_set(rua) || !dmarc_next_address(c->arena, &rua, &address) || !has_store(c))
    return;
  struct job j = {.sql = "INSERT INTO results (received, ip, from_domain, policy_domain, adkim, aspf, p, sp, np, testing, fo, rua, discovery,"
                         " disposition, reason, dkim, spf, envelope_from, spf_domain, spf_scope, spf_result, signatures)"
                         " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"};
  struct str sender = c->message->reverse_path;
  ptrdiff_t at = str_rfind_byte(sender, '@');
  number(&j, time(NULL));
  text(&j, c->client->host_address);
  text(&j, s->from);
  text(&j, s->found.domain);
  text(&j, r->strict_dkim ? STR("s") : STR("r"));
  text(&j, r->strict_spf ? STR("s") : STR("r"));
  text(&j, str_c(dmarc_policy_name(r->p)));
  text(&j, str_c(dmarc_policy_name(r->sp)));
  text(&j, str_c(dmarc_policy_name(r->np)));
  number(&j, r->testing);
  text(&j, str_is_set(r->fo) ? r->fo : STR("0"));
  text(&j, r->rua);
  text(&j, s->by_list ? STR("psl") : STR("treewalk"));
  text(&j, s->status == DMARC_REJECT ? STR("reject") : s->status == DMARC_QUARANTINE ? STR("quarantine") : STR("none"));
  text(&j, STR_EMPTY);
  text(&j, s->dkim_aligned ? STR("pass") : STR("fail"));
  text(&j, s->spf_aligned ? STR("pass") : STR("fail"));
  text(&j, at < 0 ? STR_EMPTY : str_from(sender, (size_t)at + 1));
  text(&j, s->spf_known ? s->spf_domain : STR_EMPTY);
  text(&j, sender.len ? STR("mfrom") : STR("helo"));
  text(&j, s->spf_known ? str_c(spf_result_name(s->spf)) : STR("none"));
  text(&j, signatures(c, s));
  s->stored = run(c, &j);
}

void dmarc_store_accepted(struct ctx *c, const struct dmarc_state *s) {
  if (s->stored == 0 || s->status != DMARC_REJECT)
    return;
  struct job j = {.sql = "UPDATE results SET disposition = 'none', reason = 'local_policy' WHERE id = ?"};
  number(&j, s->stored);
  (void)run(c, &j);
}

/* ---- the report ---- */

static void escape(struct buf *b, const unsigned char *text) {
  for (; text && *text; text++) {
    if (*text == '<')
      buf_add_c(b, "&lt;");
    else if (*text == '>')
      buf_add_c(b, "&gt;");
    else if (*text == '&')
      buf_add_c(b, "&amp;");
    else if (*text >= ' ' && *text < 127)
      buf_add_byte(b, (char)*text);
    else
      buf_add_byte(b, '?');
  }
}

static void element(struct buf *b, int depth, const char *name, const unsigned char *text) {
  buf_printf(b, "%*s<%s>", 2 * depth, "", name);
  escape(b, text);
  buf_printf(b, "</%s>\n", name);
}

static void element_str(struct arena *a, struct buf *b, int depth, const char *name, struct str s) {
  element(b, depth, name, (const unsigned char *)str_dup_c(a, s));
}

static void optional(struct buf *b, int depth, const char *name, const unsigned char *text) {
  if (text && *text)
    element(b, depth, name, text);
}

/* Lines "domain selector result". */
static void add_signatures(struct arena *a, struct buf *b, const unsigned char *lines) {
  struct str rest = str_c((const char *)lines);
  while (str_is_set(rest) && rest.len > 0) {
    struct str result = str_cut(&rest, '\n'), domain = str_cut(&result, ' '), selector = str_is_set(result) ? str_cut(&result, ' ') : STR_UNSET;
    if (!str_is_set(result))
      continue;
    buf_add_c(b, "      <dkim>\n");
    element_str(a, b, 4, "domain", domain);
    element_str(a, b, 4, "selector", selector);
    element_str(a, b, 4, "result", result);
    buf_add_c(b, "      </dkim>\n");
  }
}

#define COLUMN(n) sqlite3_column_text(s, n)
static void add_policy(struct buf *b, sqlite3_stmt *s) {
  buf_add_c(b, "  <policy_published>\n");
  element(b, 2, "domain", COLUMN(0));
  element(b, 2, "discovery_method", COLUMN(1));
  element(b, 2, "p", COLUMN(2));
  optional(b, 2, "sp", COLUMN(3));
  optional(b, 2, "np", COLUMN(4));
  element(b, 2, "testing", sqlite3_column_int(s, 5) ? (const unsigned char *)"y" : (const unsigned char *)"n");
  element(b, 2, "adkim", COLUMN(6));
  element(b, 2, "aspf", COLUMN(7));
  optional(b, 2, "fo", COLUMN(8));
  buf_add_c(b, "  </policy_published>\n");
}

static void add_record(struct arena *a, struct buf *b, sqlite3_stmt *s) {
  const unsigned char *reason = COLUMN(5);
  buf_add_c(b, "  <record>\n    <row>\n");
  element(b, 3, "source_ip", COLUMN(1));
  element(b, 3, "count", COLUMN(0));
  buf_add_c(b, "      <policy_evaluated>\n");
  element(b, 4, "disposition", COLUMN(2));
  element(b, 4, "dkim", COLUMN(3));
  element(b, 4, "spf", COLUMN(4));
  if (reason && *reason) {
    buf_add_c(b, "        <reason>\n");
    element(b, 5, "type", reason);
    buf_add_c(b, "        </reason>\n");
  }
  buf_add_c(b, "      </policy_evaluated>\n    </row>\n    <identifiers>\n");
  element(b, 3, "header_from", COLUMN(6));
  element(b, 3, "envelope_from", COLUMN(7));
  buf_add_c(b, "    </identifiers>\n    <auth_results>\n");
  add_signatures(a, b, COLUMN(11));
  buf_add_c(b, "      <spf>\n");
  element(b, 4, "domain", COLUMN(8));
  element(b, 4, "scope", COLUMN(9));
  element(b, 4, "result", COLUMN(10));
  buf_add_c(b, "      </spf>\n    </auth_results>\n  </record>\n");
}

static bool select_rows(struct arena *a, sqlite3 *db, const char *sql, const struct dmarc_report *r, sqlite3_stmt **ret, struct str *ret_error) {
  *ret = NULL;
  if (sqlite3_prepare_v2(db, sql, -1, ret, NULL) == SQLITE_OK && sqlite3_bind_text(*ret, 1, r->domain.p, (int)r->domain.len, SQLITE_STATIC) == SQLITE_OK &&
      sqlite3_bind_int64(*ret, 2, r->until) == SQLITE_OK && (sqlite3_bind_parameter_count(*ret) < 3 || sqlite3_bind_int64(*ret, 3, r->last_row) == SQLITE_OK))
    return true;
  *ret_error = str_printf(a, "%s", sqlite3_errmsg(db));
  sqlite3_finalize(*ret);
  return false;
}

/* How much there is. */
static bool measure(struct arena *a, sqlite3 *db, struct dmarc_report *r, struct str *ret_error) {
  sqlite3_stmt *s;
  if (!select_rows(a, db, "SELECT count(*), min(received), max(received), max(id) FROM results WHERE policy_domain = ? AND received < ?", r, &s, ret_error))
    return false;
  if (sqlite3_step(s) == SQLITE_ROW) {
    r->messages = sqlite3_column_int(s, 0);
    r->begin = sqlite3_column_int64(s, 1);
    r->end = sqlite3_column_int64(s, 2);
    r->last_row = sqlite3_column_int64(s, 3);
  }
  sqlite3_finalize(s);
  return r->messages > 0;
}

static void add_metadata(struct arena *a, struct buf *b, const struct dmarc_report *r, const char *generator) {
  buf_add_c(b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n  <version>1.0</version>\n"
               "  <report_metadata>\n");
  element_str(a, b, 2, "org_name", r->organization);
  element_str(a, b, 2, "email", r->email);
  element_str(a, b, 2, "report_id", r->id);
  buf_printf(b, "    <date_range>\n      <begin>%lld</begin>\n      <end>%lld</end>\n    </date_range>\n", (long long)r->begin, (long long)r->end);
  element(b, 2, "generator", (const unsigned char *)generator);
  buf_add_c(b, "  </report_metadata>\n");
}

bool dmarc_report_write(struct arena *a, sqlite3 *db, struct dmarc_report *r, struct buf *out, struct str *ret_error) {
  sqlite3_stmt *s;
  *ret_error = STR_UNSET;
  if (!measure(a, db, r, ret_error))
    return false;
  add_metadata(a, out, r, "Martlet");
  if (!select_rows(a, db, "SELECT policy_domain, discovery, p, sp, np, testing, adkim, aspf, fo, rua FROM results"
                          " WHERE policy_domain = ? AND received < ? AND id <= ? ORDER BY id DESC LIMIT 1", r, &s, ret_error))
    return false;
  if (sqlite3_step(s) == SQLITE_ROW) {
    add_policy(out, s);
    r->rua = str_tainted(str_dup(a, str_c((const char *)COLUMN(9))));
  }
  sqlite3_finalize(s);
  if (!select_rows(a, db, "SELECT count(*), ip, disposition, dkim, spf, reason, from_domain, envelope_from, spf_domain, spf_scope, spf_result, signatures"
                          " FROM results WHERE policy_domain = ? AND received < ? AND id <= ? GROUP BY 2,3,4,5,6,7,8,9,10,11,12 ORDER BY 1 DESC, 2", r, &s, ret_error))
    return false;
  while (sqlite3_step(s) == SQLITE_ROW)
    add_record(a, out, s);
  sqlite3_finalize(s);
  buf_add_c(out, "</feedback>\n");
  if (out->overflow)
    *ret_error = STR("the report is too large");
  return !out->overflow;
}
