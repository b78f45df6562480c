/* A pipe's command: words first, then each is expanded (filter specification,
"The pipe command"), so that inserted text never makes arguments. */

#include "base/ascii.h"
#include "base/vec.h"
#include "filter/internal.h"

#define ARGS_MAX 1000

/* Cuts the next word off *rest: blanks separate, "…" has escapes, '…' has none. False at the end. */
static bool next_word(struct arena *a, struct str *rest, struct str *ret) {
  struct str s = str_ltrim(*rest);
  struct buf b;
  size_t i = 0;
  if (!s.len)
    return false;
  buf_init(&b, a, FILTER_WORD_MAX);
  b.taint = s.taint;
  /* A word that begins with an item may have blanks inside of its braces. */
  for (size_t depth = 0; i < s.len && (depth || !ascii_is_space(s.p[i]));) {
    char quote = s.p[i];
    if (depth || (quote != '"' && quote != '\'')) {
      depth += s.p[i] == '{' && (depth || (i > 0 && s.p[i - 1] == '$'));
      depth -= s.p[i] == '}' && depth;
      buf_add_byte(&b, s.p[i++]);
      continue;
    }
    for (i++; i < s.len && s.p[i] != quote; i++) {
      if (quote == '"' && s.p[i] == '\\' && i + 1 < s.len)
        i++;
      buf_add_byte(&b, s.p[i]);
    }
    i += i < s.len;
  }
  *ret = buf_str(&b);
  *rest = str_from(s, i);
  return true;
}

void filter_expand_command(struct filter_runner *r, struct str command, struct filter_item *item) {
  struct arena *a = r->c->arena;
  VEC(struct str) args = {0};
  struct str rest = command, word, value;
  while (next_word(a, &rest, &word)) {
    if (args.n == ARGS_MAX) {
      item->pipe_error = str_printf(a, "more than %d arguments in command \"%.*s\"", ARGS_MAX, STRF(command));
      return;
    }
    if (str_eq_c(word, "$pipe_addresses")) { /* the transport's own */
      vec_push(a, &args, word);
      continue;
    }
    if (expand_text(r->c, word, &value)) {
      item->pipe_error = str_printf(a, "Expansion of \"%.*s\" from command \"%.*s\" failed: %.*s", STRF(word), STRF(command), STRF(r->c->error));
      return;
    }
    vec_push(a, &args, value);
  }
  item->argv = args.v;
  item->argv_n = (int64_t)args.n;
  if (expand_text(r->c, command, &item->shell_command))
    item->shell_command = STR_UNSET;
}
