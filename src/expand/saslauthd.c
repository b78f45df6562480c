/* The condition saslauthd: asks the daemon of that name on its socket. Each string of the request stands behind its length
(two bytes, network order), and so does the answer, which begins with "OK" or "NO". */
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buf.h"
#include "config/config.h"
#include "expand/internal.h"
#include "expand/modules.h"
#include "log/log.h"
#include "loop/stream.h"

#define SASLAUTHD_SECONDS 30
#define SASLAUTHD_MAX_ANSWER 4096
#define SASLAUTHD_MAX_WORD 4096

struct saslauthd_options {
  struct str socket;
};

static const struct option_def options[] = {
  {"saslauthd_socket", OPTION_STRING, offsetof(struct saslauthd_options, socket), "/var/run/saslauthd/mux"},
  {0},
};

/* user, password, service, realm */
struct saslauthd_condition {
  const struct expr *word[4];
  int n;
};

/* {{user}{password}{service}{realm}} */
static const void *compile_saslauthd(struct expand_compiler *k, const struct expand_condition_def *def) {
  struct saslauthd_condition *s = arena_new_of(k->arena, struct saslauthd_condition);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing { after \"saslauthd\"");
  while (s->n < 4 && expand_accept(k, '{'))
    if ((s->word[s->n++] = expand_compile_string(k)) == NULL)
      return NULL;
  if (s->n == 4 && expand_peek(k) == '{')
    return expand_compile_error(k, "Too many arguments for 'saslauthd' (max is 4)");
  if (s->n < 2 || !expand_accept(k, '}'))
    return expand_compile_error(k, "too few arguments or bracketing error for saslauthd");
  return s;
}

static int connect_daemon(struct ctx *c, struct str name, usec_t deadline, struct stream **ret) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  int rc = -ENAMETOOLONG;
  if (name.len < sizeof to.sun_path) {
    memcpy(to.sun_path, name.p, name.len);
    rc = stream_connect((struct sockaddr *)&to, sizeof to, NULL, 0, deadline, ret);
  }
  if (rc < 0)
    return ctx_fail(c, OUTCOME_ERROR, "cannot connect to saslauthd daemon at %.*s: %s", STRF(name), strerror(-rc));
  return 0;
}

static int ask(struct stream *s, const struct str *word, usec_t deadline, struct arena *a, struct str *ret) {
  int rc = 0;
  for (int i = 0; i < 4 && rc >= 0; i++) {
    char length[2] = {(char)(word[i].len >> 8), (char)word[i].len};
    rc = stream_write(s, str_n(length, 2));
    if (rc >= 0)
      rc = stream_write(s, word[i]);
  }
  unsigned char length[2];
  if (rc >= 0)
    rc = stream_flush(s);
  if (rc >= 0)
    rc = stream_read_exact(s, (char *)length, 2, deadline);
  size_t n = rc >= 0 ? (size_t)length[0] << 8 | length[1] : 0;
  if (rc >= 0 && (n < 2 || n > SASLAUTHD_MAX_ANSWER))
    return -EPROTO;
  char *text = arena_alloc_raw(a, n + 1);
  if (rc >= 0)
    rc = stream_read_exact(s, text, n, deadline);
  *ret = str_n(text, n);
  return rc;
}

static int eval_saslauthd(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct saslauthd_condition *s = args->custom;
  const struct saslauthd_options *o = config_block(c->config, &expand_saslauthd_module);
  struct str word[4] = {STR_EMPTY, STR_EMPTY, STR_EMPTY, STR_EMPTY}, answer = STR_EMPTY;
  struct stream *stream = NULL;
  for (int i = 0; i < s->n; i++) {
    int rc = expand_arg(c, s->word[i], &word[i]);
    if (rc != 0)
      return rc;
    if (word[i].len > SASLAUTHD_MAX_WORD)
      return ctx_fail(c, OUTCOME_ERROR, "a string for saslauthd is too long");
  }
  if (word[0].len == 0 || word[1].len == 0)
    return *ret = false, 0; /* nobody; the daemon would complain */
  usec_t deadline = deadline_in(SASLAUTHD_SECONDS);
  int rc = connect_daemon(c, o->socket, deadline, &stream);
  if (rc != 0)
    return rc;
  stream_set_write_timeout(stream, SASLAUTHD_SECONDS);
  rc = ask(stream, word, deadline, c->arena, &answer);
  stream_free(stream);
  if (rc < 0)
    return ctx_fail(c, OUTCOME_ERROR, "saslauthd daemon at %.*s: %s", STRF(o->socket), strerror(-rc));
  DEBUG(auth, "saslauthd: %.*s\n", STRF(answer));
  *ret = str_starts(answer, STR("OK"));
  return 0;
}

static const struct expand_condition_def conditions[] = {
  {"saslauthd", 0, 0, EXPAND_LAZY, compile_saslauthd, eval_saslauthd},
  {0},
};

const struct module expand_saslauthd_module = {
  .name = "expand-saslauthd",
  .summary = "passwords checked by Cyrus saslauthd",
  .main_options = options,
  .main_size = sizeof(struct saslauthd_options),
  .conditions = conditions,
};
