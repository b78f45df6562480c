/* Connections to scanners whose protocol allows another question over the same connection (docs/internals/scanning.md). */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/arena.h"
#include "config/config.h"
#include "core/build.h"
#include "core/ctx.h"
#include "log/log.h"
#include "loop/kept.h"
#include "loop/stream.h"
#include "scan/pool.h"
#include "scan/scan.h"

#define IDLE_MAX 32        /* of a worker */
#define IDLE_EACH 4        /* with one scanner: it bounds its clients, and other workers have theirs */
#define IDLE_SECONDS 10    /* scanners wait for half a minute; who waits less is found to have closed */
#define LIFE_SECONDS 60    /* a scanner that reads its configuration again may serve new connections only */
#define LEARNT_MAX 32
#define LEARNT_SECONDS 600

static void say_goodbye(const struct scan_link *k) {
  /* Nobody waits for it: a scanner that does not hear it sees the end. */
  if (k->goodbye.len > 0)
    (void)!send(stream_fd(k->stream), k->goodbye.p, k->goodbye.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void free_link(struct scan_link *k) {
  stream_free(k->stream);
  free(k);
}

static void close_idle(void *conn) {
  say_goodbye(conn);
  free_link(conn);
}

static bool spoke(void *conn) { return stream_input_pending(((struct scan_link *)conn)->stream); }

static const struct kept_kind kind = {"scanner", IDLE_MAX, IDLE_EACH, IDLE_SECONDS, close_idle, spoke};

bool scan_links_kept(const struct ctx *c) {
  return !build.no_connection_pool && ((const struct scan_options *)config_block(c->config, &scan_module))->keep_scanner_connections;
}

static struct str key_of(struct ctx *c, const char *protocol, struct str spec) { return str_printf(c->arena, "%s %.*s", protocol, STRF(spec)); }

int scan_link_open(struct ctx *c, const char *protocol, struct str spec, usec_t deadline, bool anew, struct scan_link **ret, struct str *ret_error) {
  struct str key = key_of(c, protocol, spec), address;
  struct stream *stream;
  *ret = NULL;
  if (anew)
    kept_close_server(&kind, key);
  else if (!str_is_tainted(spec) && (*ret = kept_take(&kind, key)) != NULL) {
    scan_set_callout_address(c, str_c((*ret)->address));
    DEBUG(acl, "using the connection to %.*s again\n", STRF(spec));
    return 0;
  }
  int rc = scan_connect(c, spec, deadline, &stream, ret_error);
  if (rc < 0)
    return rc;
  struct scan_link *k = *ret = xcalloc(1, sizeof *k);
  address = scan_callout_address(c);
  k->stream = stream;
  k->protocol = protocol;
  k->born = loop_now_fresh();
  memcpy(k->address, address.p, address.len < sizeof k->address ? address.len : 0);
  return 0;
}

void scan_link_keep(struct ctx *c, struct scan_link *k, struct str spec) {
  if (!scan_links_kept(c) || loop_now_fresh() - k->born > LIFE_SECONDS * USEC_PER_SEC || stream_input_pending(k->stream) ||
      stream_output_pending(k->stream) > 0)
    close_idle(k);
  else
    kept_give(&kind, key_of(c, k->protocol, spec), k, stream_fd(k->stream));
}

void scan_link_close(struct scan_link *k) {
  if (k)
    free_link(k);
}

/* ---- who knows sessions ---- */

/* A scanner whose number is another's is asked twice, or in the older way. */
static struct {
  uint64_t scanner;
  usec_t until;
  enum scan_sessions what;
} learnt[LEARNT_MAX];

enum scan_sessions scan_sessions(struct ctx *c, struct str spec) {
  uint64_t n = str_hash(spec);
  usec_t now = loop_now_fresh();
  if (!scan_links_kept(c))
    return SESSIONS_NO;
  for (size_t i = 0; i < LEARNT_MAX; i++)
    if (learnt[i].scanner == n && learnt[i].until > now)
      return learnt[i].what;
  return SESSIONS_MAYBE;
}

void scan_learn_sessions(struct str spec, bool knows) {
  uint64_t n = str_hash(spec);
  size_t at = 0;
  for (size_t i = 1; i < LEARNT_MAX && learnt[at].scanner != n; i++)
    at = learnt[i].scanner == n || learnt[i].until < learnt[at].until ? i : at;
  learnt[at].scanner = n;
  learnt[at].until = loop_now_fresh() + LEARNT_SECONDS * USEC_PER_SEC;
  learnt[at].what = knows ? SESSIONS_YES : SESSIONS_NO;
}
