/* ${dlfunc…}: a function of a shared object, by the interface that the manual documents:

    int function(unsigned char **yield, int argc, unsigned char *argv[]);

It runs in a process of its own, so that it may crash or block without harm. The object is loaded anew each time. */
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "expand/foreign.h"
#include "expand/internal.h"
#include "expand/modules.h"
#include "log/log.h"

#define DLFUNC_MAX_RESULT (16u << 20)
#define DLFUNC_SECONDS 60
#define DLFUNC_MAX_ARGS 8

/* What a function returns, by number. */
enum dlfunc_code { DLFUNC_OK = 0, DLFUNC_FAIL = 2, DLFUNC_ERROR = 3, DLFUNC_FAIL_FORCED = 4 };
/* Which step it came to: the first byte of its answer. */
enum dlfunc_step { DLFUNC_LOAD = 'l', DLFUNC_FIND = 'f', DLFUNC_CALLED = 'c' };

struct dlfunc_answer {
  char step;
  bool has_text;
  int32_t code;
};

typedef int dlfunc_function(unsigned char **yield, int argc, unsigned char *argv[]);

/* --- in its process --- */

static void answer(int out, enum dlfunc_step step, int code, const char *text) {
  struct dlfunc_answer a = {.step = (char)step, .has_text = text != NULL, .code = code};
  foreign_write(out, (const char *)&a, sizeof a);
  if (text != NULL)
    foreign_write(out, text, strlen(text));
  _exit(0);
}

/* The texts: object, function, arguments. */
static void run_function(const struct str *v, int n, int out) {
  unsigned char *yield = NULL, *argv[DLFUNC_MAX_ARGS + 1] = {NULL};
  if (n < 2 || n - 2 > DLFUNC_MAX_ARGS)
    _exit(1);
  void *object = dlopen(v[0].p, RTLD_NOW | RTLD_GLOBAL);
  if (object == NULL)
    answer(out, DLFUNC_LOAD, 0, dlerror());
  dlfunc_function *f = NULL;
  void *symbol = dlsym(object, v[1].p);
  if (symbol == NULL)
    answer(out, DLFUNC_FIND, 0, dlerror());
  memcpy(&f, &symbol, sizeof f);
  for (int i = 2; i < n; i++)
    argv[i - 2] = (unsigned char *)(uintptr_t)v[i].p;
  int code = f(&yield, n - 2, argv);
  answer(out, DLFUNC_CALLED, code, (const char *)yield);
}

const struct foreign_role dlfunc_role = {.name = "dlfunc", .run = run_function};

/* --- our side --- */

static int fail_logged(struct ctx *c, struct str text) {
  log_write(LOG_MAIN | LOG_PANIC, NULL, "%.*s", STRF(text));
  return ctx_fail(c, OUTCOME_ERROR, "%.*s", STRF(text));
}

static int eval_dlfunc(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  if (expand_forbidden(c, EXPAND_FORBID_DLFUNC, "dynamically-loaded functions are not permitted"))
    return OUTCOME_ERROR;
  struct str file = args->value[0], function = args->value[1];
  if (str_is_tainted(file))
    return ctx_fail(c, OUTCOME_ERROR, "Tainted filename for dlfunc: '%.*s'", STRF(file));
  struct buf b;
  buf_init(&b, c->arena, DLFUNC_MAX_RESULT);
  int rc = foreign_call(dlfunc_role.name, args->value, args->n, DLFUNC_SECONDS, &b);
  struct dlfunc_answer a;
  if (rc < 0 || b.len < sizeof a)
    return fail_logged(c, str_printf(c->arena, "dlfunc{%.*s}{%.*s} failed: %s", STRF(file), STRF(function), foreign_error(rc)));
  memcpy(&a, b.p, sizeof a);
  struct str text = a.has_text ? str_from(buf_str(&b), sizeof a) : STR("(no message)");
  if (a.step == DLFUNC_LOAD)
    return fail_logged(c, str_printf(c->arena, "dlopen \"%.*s\" failed: %.*s", STRF(file), STRF(text)));
  if (a.step == DLFUNC_FIND)
    return fail_logged(c, str_printf(c->arena, "dlsym \"%.*s\" in \"%.*s\" failed: %.*s", STRF(function), STRF(file), STRF(text)));
  if (a.code == DLFUNC_OK) {
    if (a.has_text)
      buf_add(out, text);
    return 0;
  }
  if (a.code != DLFUNC_FAIL && a.code != DLFUNC_FAIL_FORCED)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "dlfunc{%.*s}{%.*s} failed (%d): %.*s", STRF(file), STRF(function), a.code, STRF(text));
  return ctx_fail(c, a.code == DLFUNC_FAIL_FORCED ? OUTCOME_FORCED : OUTCOME_ERROR, "%.*s", STRF(text));
}

static const struct expand_item_def items[] = {
  {"dlfunc", 2, DLFUNC_MAX_ARGS + 2, 0, NULL, eval_dlfunc},
  {0},
};

static const char *const macros[] = {"_HAVE_DLFUNC", NULL};

const struct module expand_dlfunc_module = {
  .name = "expand-dlfunc",
  .summary = "functions of shared objects in expansions",
  .support = "Expand_dlfunc",
  .items = items,
  .macros = macros,
};
