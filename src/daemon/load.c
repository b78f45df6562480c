#include "daemon/load.h"

#include "expand/expand.h"
#include "match/match.h"

int load_config(const struct config_source *source, struct arena *a, struct config **ret, struct str *ret_errors) {
  int e = config_read(source, a, ret, ret_errors);
  if (e)
    return e;
  expand_compile_config(*ret);
  match_compile_config(*ret);
  return 0;
}
