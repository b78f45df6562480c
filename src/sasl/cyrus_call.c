#include "sasl/cyrus_call.h"

#include <pthread.h>
#include <sasl/sasl.h>
#include <stdlib.h>

#include "base/arena.h"
#include "log/log.h"

struct cyrus_call {
  sasl_conn_t *connection;
  int last;
};

/* --- locks: libldap gives the library the same kind --- */

static void *lock_new(void) {
  pthread_mutex_t *m = xmalloc(sizeof *m);
  pthread_mutex_init(m, NULL);
  return m;
}

static int lock_take(void *m) { return pthread_mutex_lock(m) == 0 ? SASL_OK : SASL_FAIL; }

static int lock_release(void *m) { return pthread_mutex_unlock(m) == 0 ? SASL_OK : SASL_FAIL; }

static void lock_free(void *m) {
  pthread_mutex_destroy(m);
  free(m);
}

/* What it has to say is not for the system's log, and its debug levels show passwords. */
static int be_quiet(void *context, int level, const char *message) { return SASL_OK; }

static const sasl_callback_t callbacks[] = {
  {SASL_CB_LOG, (int (*)(void))(void (*)(void))be_quiet, NULL},
  {SASL_CB_LIST_END, NULL, NULL},
};

static enum { UNTRIED, THERE, FAILED } state;

bool cyrus_there(void) {
  static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&one_at_a_time);
  if (state == UNTRIED) {
    sasl_set_mutex(lock_new, lock_take, lock_release, lock_free);
    state = sasl_server_init(callbacks, "exim") == SASL_OK ? THERE : FAILED;
  }
  bool there = state == THERE;
  pthread_mutex_unlock(&one_at_a_time);
  return there;
}

void cyrus_forget(void) {
  if (state == THERE)
    sasl_server_done();
  state = UNTRIED;
}

bool cyrus_knows(struct arena *a, const char *service, const char *mechanism, struct str *ret_known) {
  struct cyrus_client nobody = {.service = service, .hostname = "localhost", .tls_bits = 256};
  struct cyrus_call *call = cyrus_open(a, &nobody, ret_known);
  const char *list = NULL;
  bool found = false;
  if (call == NULL)
    return false;
  if (sasl_listmech(call->connection, NULL, "", " ", "", &list, NULL, NULL) == SASL_OK) {
    *ret_known = str_dup(a, str_c(list));
    for (struct str rest = *ret_known; str_is_set(rest);)
      found |= str_ieq_c(str_cut(&rest, ' '), mechanism);
  }
  cyrus_close(call);
  return found;
}

struct cyrus_call *cyrus_open(struct arena *a, const struct cyrus_client *client, struct str *ret_error) {
  /* No layers of protection of its own: that is what TLS is for. */
  sasl_security_properties_t limits = {.max_ssf = 0};
  sasl_ssf_t bits = client->tls_bits;
  struct cyrus_call *call = xcalloc(1, sizeof *call);
  int rc = sasl_server_new(client->service, client->hostname, client->realm, client->local, client->remote, NULL, 0, &call->connection);
  if (rc == SASL_OK)
    rc = sasl_setprop(call->connection, SASL_SEC_PROPS, &limits);
  if (rc == SASL_OK && bits > 0)
    rc = sasl_setprop(call->connection, SASL_SSF_EXTERNAL, &bits);
  if (rc == SASL_OK && client->tls_name != NULL)
    rc = sasl_setprop(call->connection, SASL_AUTH_EXTERNAL, client->tls_name);
  if (rc == SASL_OK)
    return call;
  *ret_error = str_dup(a, str_c(sasl_errstring(rc, NULL, NULL)));
  cyrus_close(call);
  return NULL;
}

enum cyrus_result cyrus_step(struct cyrus_call *call, const char *mechanism, struct str in, struct str *ret_out) {
  const char *out = NULL, *given = str_is_set(in) ? in.p : NULL;
  unsigned n = 0;
  call->last = mechanism != NULL ? sasl_server_start(call->connection, mechanism, given, in.len, &out, &n)
                                 : sasl_server_step(call->connection, in.p, in.len, &out, &n);
  *ret_out = str_n(out, out != NULL ? n : 0);
  switch (call->last) {
  case SASL_OK: return CYRUS_DONE;
  case SASL_CONTINUE: return CYRUS_MORE;
  case SASL_BADAUTH: case SASL_NOAUTHZ: case SASL_NOUSER: case SASL_BADPROT: case SASL_TOOWEAK: case SASL_ENCRYPT: case SASL_EXPIRED:
  case SASL_DISABLED: case SASL_PWLOCK: case SASL_NOVERIFY: case SASL_BADPARAM: case SASL_NOUSERPASS: case SASL_BADBINDING:
    return CYRUS_REFUSED;
  default: return CYRUS_TROUBLE;
  }
}

struct str cyrus_user(struct arena *a, struct cyrus_call *call) {
  const void *name = NULL;
  if (sasl_getprop(call->connection, SASL_USERNAME, &name) != SASL_OK || name == NULL)
    return STR_UNSET;
  return str_tainted(str_dup(a, str_c(name)));
}

struct str cyrus_why(struct arena *a, struct cyrus_call *call) { return str_dup(a, str_c(sasl_errstring(call->last, NULL, NULL))); }

void cyrus_close(struct cyrus_call *call) {
  if (call == NULL)
    return;
  if (call->connection != NULL)
    sasl_dispose(&call->connection);
  free(call);
}
