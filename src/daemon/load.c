#include "daemon/load.h"

#include "expand/expand.h"
#include "match/match.h"

/* For what must be known when the file has been read: spool_directory, lists of users and the like. */
static int expand_early(struct config *c, struct arena *a, struct str text, struct str *ret, struct str *ret_error) {
  struct ctx *ctx = ctx_new(a, c);
  int e = expand_text(ctx, text, ret);
  if (e)
    *ret_error = ctx->error;
  return e;
}

int load_config(const struct config_source *source, struct arena *a, struct config **ret, struct str *ret_errors) {
  struct config_source s = *source;
  if (s.expand == NULL)
    s.expand = expand_early;
  int e = config_read(&s, a, ret, ret_errors);
  if (e)
    return e;
  expand_compile_config(*ret);
  match_compile_config(*ret);
  return 0;
}
