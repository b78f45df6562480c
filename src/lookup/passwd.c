/* passwd: the system's user data (manual, "Query-style lookup types"). */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include "loop/fiber.h"
#include "lookup/types.h"

#define BUFFER_SIZE 65536

struct request {
  char *name;
  struct passwd pw, *result;
  char *buffer;
};

static int run(void *arg) {
  struct request *r = arg;
  return getpwnam_r(r->name, &r->pw, r->buffer, BUFFER_SIZE, &r->result);
}

static int passwd_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  if (key.len == 0 || memchr(key.p, '\0', key.len))
    return OUTCOME_FAIL;
  struct request r = {.name = str_dup_c(c->arena, key), .buffer = xmalloc(BUFFER_SIZE)};
  int e = fiber_offload(run, &r);
  int outcome = OUTCOME_FAIL;
  if (r.result) {
    *ret = str_printf(c->arena, "*:%ld:%ld:%s:%s:%s", (long)r.pw.pw_uid, (long)r.pw.pw_gid, r.pw.pw_gecos, r.pw.pw_dir,
      r.pw.pw_shell);
    outcome = OUTCOME_OK;
  } else if (e == EIO || e == EMFILE || e == ENFILE || e == ENOMEM || e == ERANGE) {
    outcome = ctx_fail(c, OUTCOME_DEFER, "user data for \"%.*s\": %s", STRF(key), strerror(e));
  }
  free(r.buffer);
  return outcome;
}

const struct lookup_def lookup_passwd = {.name = "passwd", .flags = LOOKUP_QUERY, .find = passwd_find};
