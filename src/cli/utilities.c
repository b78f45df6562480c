/* Exim's small tools as options of the one program: --dumpdb, --fixdb, --tidydb, --dbmbuild
(Exim manual, chapter "Exim utilities"). They need no configuration
but the spool directory they are given. */

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "cli/fixdb.h"
#include "cli/id_update.h"
#include "cli/process.h"
#include "core/ctx.h"
#include "hints/hints.h"
#include "hints/records.h"
#include "lookup/dbm_build.h"
#include "message/message.h"

static void write_line(struct str line, void *arg) { printf("%.*s%s", STRF(line), str_ends(line, STR("\n")) ? "" : "\n"); }

static bool open_store(struct process *p, struct str *ret_db) {
  if (p->cli.args.n != 2) {
    fprintf(stderr, "usage: %s <spool-directory> <database>\n", p->cli.program);
    return false;
  }
  *ret_db = p->cli.args.v[1];
  p->ctx = ctx_new(p->arena, p->config);
  return hints_open_directory(p->cli.args.v[0]) == OUTCOME_OK;
}

static int dump_database(struct process *p) {
  struct hints_dump_options o = {0};
  struct str db;
  size_t keep = 0;
  if (p->cli.args.n == 2 && str_eq_c(p->cli.args.v[0], "-L")) /* a DBM file, by its name */
    return dbm_list(str_dup_c(p->arena, p->cli.args.v[1]));
  for (size_t i = 0; i < p->cli.args.n; i++) {
    if (str_eq_c(p->cli.args.v[i], "-z"))
      o.utc = true;
    else if (str_eq_c(p->cli.args.v[i], "-k"))
      o.keys_only = true;
    else
      p->cli.args.v[keep++] = p->cli.args.v[i];
  }
  p->cli.args.n = keep;
  if (!open_store(p, &db))
    return 1;
  int e = hints_dump(p->ctx, str_dup_c(p->arena, db), &o, write_line, NULL);
  hints_close();
  return e == OUTCOME_OK || e == OUTCOME_FAIL ? 0 : 1;
}

static int fix_database(struct process *p) {
  struct str db;
  bool utc = p->cli.args.n > 2 && str_eq_c(p->cli.args.v[0], "-z");
  if (utc) {
    p->cli.args.v++;
    p->cli.args.n--;
  }
  if (!open_store(p, &db))
    return 1;
  int status = fixdb_run(p->ctx, p->cli.args.v[0], db, utc);
  hints_close();
  return status;
}

static int update_ids(struct process *p) {
  bool up = p->cli.args.n == 2 && str_eq_c(p->cli.args.v[0], "-u");
  if (p->cli.args.n != 2 || (!up && !str_eq_c(p->cli.args.v[0], "-d"))) {
    fputs("usage: exim_id_update -u|-d <spool-directory>\n", stderr);
    return 1;
  }
  return id_update_run(str_dup_c(p->arena, p->cli.args.v[1]), up);
}

static int build_dbm(struct process *p) { return dbm_build(p->arena, p->cli.args.v, p->cli.args.n); }

static bool message_exists(struct str id, void *arg) {
  struct process *p = arg;
  struct str name = str_printf(p->arena, "%.*s/input/%.*s-H", STRF(p->cli.args.v[0]), STRF(id));
  if (access(name.p, F_OK) == 0)
    return true;
  name = str_printf(p->arena, "%.*s/input/%c/%.*s-H", STRF(p->cli.args.v[0]), id.len > 5 ? id.p[5] : '0', STRF(id));
  return access(name.p, F_OK) == 0;
}

static int tidy_database(struct process *p) {
  struct str db;
  int64_t max_age = 30 * 86400;
  if (p->cli.args.n > 2 && str_eq_c(p->cli.args.v[0], "-t")) {
    if ((max_age = time_parse_interval(p->cli.args.v[1])) < 0) {
      fprintf(stderr, "%.*s is not a time\n", STRF(p->cli.args.v[1]));
      return 1;
    }
    p->cli.args.v += 2;
    p->cli.args.n -= 2;
  }
  if (!open_store(p, &db))
    return 1;
  int e = hints_tidy(p->ctx, str_dup_c(p->arena, db), max_age, message_exists, write_line, p);
  hints_close();
  return e == OUTCOME_OK || e == OUTCOME_FAIL ? 0 : 1;
}

int mode_utility(struct process *p) {
  static const struct {
    const char *name;
    int (*run)(struct process *p);
  } tools[] = {{"dumpdb", dump_database}, {"fixdb", fix_database}, {"id_update", update_ids}, {"id-update", update_ids}, {"tidydb", tidy_database}, {"dbmbuild", build_dbm}};
  struct str name = p->cli.mode_arg;
  if (str_starts(name, STR("-")))
    name = str_from(name, 1);
  for (size_t i = 0; i < sizeof tools / sizeof *tools; i++)
    if (str_eq_c(name, tools[i].name))
      return tools[i].run(p);
  fprintf(stderr, "martlet: --%.*s is not supported yet\n", STRF(name));
  return 1;
}
