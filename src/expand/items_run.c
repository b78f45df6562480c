/* ${run …}: a command, without a shell. */
#include "expand/items.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ascii.h"
#include "expand/internal.h"
#include "log/log.h"
#include "loop/child.h"

#define RUN_MAX_OUTPUT (16u << 20)
#define RUN_MAX_ARGS 1000
#define RUN_SECONDS 60

/* One word of the command. Without preexpand each is a string of its own. */
struct run_word {
  struct str source;
  const struct expr *tree;
};

struct run_item {
  bool preexpand;
  const struct expr *command; /* with preexpand */
  struct str source;
  VEC(struct run_word) words;
  const struct expand_branches *branches;
};

/* Takes a word off the command: "…" with backslash escapes, '…' as it is, else up to white space outside of ${…}.
False: there is none. */
static bool next_word(struct arena *a, struct str *command, struct str *ret) {
  struct str s = str_ltrim(*command);
  if (s.len == 0)
    return false;
  char quote = s.p[0];
  if (quote != '"' && quote != '\'') {
    size_t n = 0, depth = 0;
    while (n < s.len && (depth > 0 || !ascii_is_space(s.p[n]))) {
      depth += s.p[n] == '{' && (depth > 0 || (n > 0 && s.p[n - 1] == '$'));
      depth -= s.p[n] == '}' && depth > 0;
      n++;
    }
    *ret = str_slice(s, 0, n);
    *command = str_from(s, n);
    return true;
  }
  size_t i = 1;
  while (i < s.len && s.p[i] != quote)
    i += quote == '"' && s.p[i] == '\\' ? 2 : 1;
  *ret = str_slice(s, 1, i);
  if (quote == '"' && str_find_byte(*ret, '\\') >= 0) {
    struct expand_compiler k = {.arena = a, .p = ret->p, .end = ret->p + ret->len};
    expr_is_constant(compile_sequence(&k, false, true), ret);
    ret->taint = s.taint;
  }
  *command = str_from(s, i + 1);
  return true;
}

/* The command as written, up to the brace that closes it. What is in it is read word by word, and its errors count only when
it runs. */
static bool raw_command(struct expand_compiler *k, struct str *ret) {
  struct str rest = expand_rest(k);
  size_t depth = 0, i = 0;
  for (; i < rest.len && (depth > 0 || rest.p[i] != '}'); i++) {
    depth += rest.p[i] == '{';
    depth -= rest.p[i] == '}';
    i += rest.p[i] == '\\';
  }
  if (i >= rest.len)
    return expand_compile_error(k, "missing '}' closing command arg of run");
  *ret = str_slice(rest, 0, i);
  expand_advance(k, i + 1);
  return true;
}

static const void *compile_run(struct expand_compiler *k, const struct expand_item_def *def) {
  struct run_item *r = arena_new_of(k->arena, struct run_item);
  if (k->p < k->end && *k->p == ',') {
    k->p++;
    struct str option = compile_name(k, "_");
    if (!str_eq_c(option, "preexpand"))
      return expand_compile_error(k, "bad option '%.*s' for run",
          STRF(option.len > 0 ? option : str_slice(expand_rest(k), 0, 1)));
    r->preexpand = true;
  }
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for command arg of run");
  if (r->preexpand ? (r->command = expand_compile_string(k)) == NULL : !raw_command(k, &r->source))
    return NULL;
  struct str rest = r->source, word;
  while (!r->preexpand && r->words.n < RUN_MAX_ARGS && next_word(k->arena, &rest, &word))
    vec_push(k->arena, &r->words, ((struct run_word){word, expr_compile(k->arena, word, NULL)}));
  r->branches = expand_compile_branches(k, def->name);
  return r->branches == NULL ? NULL : r;
}

typedef VEC(struct str) str_list;

static int run_arguments(struct ctx *c, const struct run_item *r, str_list *argv) {
  struct str command, word;
  if (r->preexpand) {
    int rc = expand_arg(c, r->command, &command);
    if (rc != 0)
      return rc;
    while (argv->n < RUN_MAX_ARGS && next_word(c->arena, &command, &word))
      vec_push(c->arena, argv, word);
    return 0;
  }
  for (size_t i = 0; i < r->words.n; i++) {
    int rc = expand_arg(c, r->words.v[i].tree, &word);
    if (rc != 0)
      return ctx_fail(c, rc, "Expansion of \"%.*s\" from command \"%.*s\" in ${run} expansion failed: %.*s",
          STRF(r->words.v[i].source), STRF(r->source), STRF(c->error));
    vec_push(c->arena, argv, word);
  }
  return 0;
}

/* Runs it: *ret_code as a shell gives it, 127 when it cannot be started. */
static int run_command(struct ctx *c, const str_list *words, struct str *ret_output, int *ret_code) {
  char **argv = arena_array(c->arena, char *, words->n + 1);
  for (size_t i = 0; i < words->n; i++)
    argv[i] = str_dup_c(c->arena, words->v[i]);
  struct child_spec spec = {
      .path = argv[0], .argv = argv, .envp = environ, .cwd = "/", .stdin_fd = -2, .stdout_fd = -1, .stderr_fd = -3, .umask = 077,
      .new_group = true};
  int status = 0;
  int rc = child_run(&spec, c->arena, STR_EMPTY, RUN_MAX_OUTPUT, deadline_in(RUN_SECONDS), ret_output, &status);
  if (rc == -ETIMEDOUT)
    return ctx_fail(c, OUTCOME_ERROR, "command timed out");
  if (rc == -EMSGSIZE)
    return ctx_fail(c, OUTCOME_ERROR, "command output is too long");
  if (rc == -ECANCELED)
    return ctx_fail(c, OUTCOME_ERROR, "command was cancelled");
  if (rc < 0) {
    *ret_output = STR_EMPTY;
    *ret_code = 127;
  } else if (WIFSIGNALED(status)) {
    c->expand.runrc = -WTERMSIG(status);
    return ctx_fail(c, OUTCOME_ERROR, "command killed by signal %d", WTERMSIG(status));
  } else {
    *ret_code = WEXITSTATUS(status);
  }
  DEBUG(expand, "command exited with %d\n", *ret_code);
  return 0;
}

static int eval_run(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  if (expand_forbidden(c, EXPAND_FORBID_RUN, "running a command is not permitted"))
    return OUTCOME_ERROR;
  const struct run_item *r = args->custom;
  str_list words = {0};
  struct str output = STR_EMPTY;
  int code = 127;
  int rc = run_arguments(c, r, &words);
  for (size_t i = 0; rc == 0 && i < words.n; i++)
    if (str_is_tainted(words.v[i]) && (i == 0 || r->preexpand))
      rc = ctx_fail(c, OUTCOME_ERROR, "Tainted %s for command: '%.*s'", i == 0 ? "path" : "argument", STRF(words.v[i]));
  if (rc == 0 && words.n > 0)
    rc = run_command(c, &words, &output, &code);
  if (rc != 0)
    return rc;
  /* The output stays in $value behind the item. */
  c->expand.value = output;
  c->expand.runrc = code;
  struct expand_args branches = {.branches = r->branches};
  return expand_yes_no(c, &branches, "run", code == 0, output, out);
}

const struct expand_item_def run_items[] = {
  {"run", 0, 0, 0, compile_run, eval_run},
  {0},
};
