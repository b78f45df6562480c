/* The condition radius: {user:password}, asked of RADIUS servers. Own code, since Debian's client library (radcli 1.2.11) takes
an answer whose authenticator is wrong, which anybody can send. radius_config_file has that library's format: of its settings
authserver, servers, radius_timeout, radius_retries, bindaddr, nas-identifier and require-message-authenticator count. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ascii.h"
#include "base/ip.h"
#include "base/random.h"
#include "config/config.h"
#include "core/main_options.h"
#include "expand/internal.h"
#include "expand/modules.h"
#include "expand/radius_wire.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "lookup/servers.h"
#include "match/match.h"

#define DEFAULT_PORT "1812"
#define FILE_MAX (64u << 10)
#define SERVERS_MAX 8
#define ALL_SECONDS 60
#define TRIES_MAX 10

struct radius_options {
  struct str config_file;
};

static const struct option_def options[] = {
  {"radius_config_file", OPTION_STRING, offsetof(struct radius_options, config_file), "/etc/radcli/radiusclient.conf"},
  {0},
};

struct radius_client {
  struct str server[SERVERS_MAX], secrets, nas, bind;
  int servers;
  uint64_t timeout, tries;
  bool strict;
};

/* --- its configuration --- */

static int read_file(struct ctx *c, struct str name, struct str *ret) {
  struct buf b;
  char piece[4096];
  ssize_t n = 0;
  buf_init(&b, c->arena, FILE_MAX);
  int fd = open(str_dup_c(c->arena, name), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  while (fd >= 0 && (n = read(fd, piece, sizeof piece)) > 0)
    buf_add_n(&b, piece, (size_t)n);
  int e = fd < 0 || n < 0 ? errno : b.overflow ? EFBIG : 0;
  if (fd >= 0)
    close(fd);
  if (e)
    return ctx_fail(c, OUTCOME_ERROR, "radius: cannot read %.*s: %s", STRF(name), strerror(e));
  *ret = buf_str(&b);
  return OUTCOME_OK;
}

/* The next line that says something: its first word, and the rest. */
static bool next_line(struct str *text, struct str *word, struct str *rest) {
  while (text->len > 0) {
    struct str line = str_trim(str_cut(text, '\n'));
    if (line.len == 0 || line.p[0] == '#')
      continue;
    size_t n = 0;
    while (n < line.len && !ascii_is_space(line.p[n]))
      n++;
    *word = str_slice(line, 0, n);
    *rest = str_trim(str_from(line, n));
    return true;
  }
  return false;
}

static int take_number(struct ctx *c, struct str word, struct str text, uint64_t max, uint64_t *ret) {
  if (!str_to_u64(text, ret) || *ret == 0)
    return ctx_fail(c, OUTCOME_ERROR, "radius: %.*s \"%.*s\" is not a number above 0", STRF(word), STRF(text));
  if (*ret > max)
    *ret = max;
  return OUTCOME_OK;
}

static int take_setting(struct ctx *c, struct radius_client *k, struct str word, struct str text) {
  if (str_eq_c(word, "authserver")) {
    while (text.len > 0) {
      struct str one = str_trim(str_cut(&text, ','));
      if (one.len > 0 && k->servers < SERVERS_MAX)
        k->server[k->servers++] = one;
    }
  } else if (str_eq_c(word, "servers")) {
    k->secrets = text;
  } else if (str_eq_c(word, "nas-identifier")) {
    k->nas = text;
  } else if (str_eq_c(word, "bindaddr")) {
    k->bind = str_eq_c(text, "*") ? STR_UNSET : text;
  } else if (str_eq_c(word, "radius_timeout")) {
    return take_number(c, word, text, ALL_SECONDS, &k->timeout);
  } else if (str_eq_c(word, "radius_retries")) {
    return take_number(c, word, text, TRIES_MAX, &k->tries);
  } else if (str_eq_c(word, "require-message-authenticator")) {
    k->strict = str_ieq_c(text, "yes");
  } else if (str_eq_c(word, "serv-type") && !str_ieq_c(text, "udp")) {
    return ctx_fail(c, OUTCOME_ERROR, "radius: serv-type \"%.*s\" is not supported, only udp", STRF(text));
  }
  return OUTCOME_OK;
}

static int read_client(struct ctx *c, struct str file, struct radius_client *k) {
  struct str text, word, rest;
  int r = read_file(c, file, &text);
  *k = (struct radius_client){.secrets = STR_UNSET, .nas = STR_UNSET, .bind = STR_UNSET, .timeout = 10, .tries = 3};
  while (r == OUTCOME_OK && next_line(&text, &word, &rest))
    r = take_setting(c, k, word, rest);
  if (r == OUTCOME_OK && (k->servers == 0 || !str_is_set(k->secrets)))
    r = ctx_fail(c, OUTCOME_ERROR, "radius: no %s in %.*s", k->servers ? "servers" : "authserver", STRF(file));
  return r == OUTCOME_OK ? read_file(c, k->secrets, &k->secrets) : r;
}

/* The line of the server as it is named, with its port, or without. */
static struct str secret_of(const struct radius_client *k, struct str server, struct str host) {
  struct str text = k->secrets, word, rest;
  while (next_line(&text, &word, &rest))
    if (str_ieq(word, server) || str_ieq(word, host)) {
      size_t n = 0;
      while (n < rest.len && !ascii_is_space(rest.p[n]))
        n++;
      return str_slice(rest, 0, n);
    }
  return STR_EMPTY;
}

/* --- asking --- */

struct resolution {
  const char *name, *port;
  struct addrinfo *found;
};

static int run_resolve(void *arg) {
  struct resolution *r = arg;
  struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
  return getaddrinfo(r->name, r->port, &hints, &r->found);
}

/* A connected socket hears this server only. */
static int open_socket(const struct radius_client *k, const struct addrinfo *to) {
  struct ip_addr ip;
  struct sockaddr_storage from;
  int fd = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  bool bound = !str_is_set(k->bind);
  if (!bound && ip_parse(k->bind, &ip)) {
    socklen_t n = ip_to_sockaddr(&ip, 0, &from);
    bound = bind(fd, (struct sockaddr *)&from, n) == 0;
  }
  if (bound && connect(fd, to->ai_addr, to->ai_addrlen) == 0)
    return fd;
  int e = errno;
  close(fd);
  return -e;
}

/* The code of the answer, -ETIMEDOUT, -EBADMSG (only such answers came), another -errno. */
static int converse(const struct radius_client *k, int fd, const struct radius_request *q, struct str packet, usec_t end) {
  char answer[RADIUS_PACKET_MAX];
  int seen = -ETIMEDOUT;
  for (uint64_t i = 0; i < k->tries; i++) {
    usec_t deadline = deadline_in((int64_t)k->timeout);
    if (deadline > end)
      deadline = end;
    if (send(fd, packet.p, packet.len, MSG_NOSIGNAL) < 0)
      return -errno;
    for (;;) {
      int e = fiber_wait_fd(fd, FIBER_READ, deadline);
      if (e == -ETIMEDOUT)
        break;
      ssize_t n = e < 0 ? -1 : recv(fd, answer, sizeof answer, 0);
      if (e < 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        return e < 0 ? e : -errno;
      if (n < 0)
        continue;
      e = radius_check(q, str_n(answer, (size_t)n), k->strict);
      if (e >= 0)
        return e;
      if (e == -EBADMSG)
        seen = e; /* the right answer may still come */
    }
  }
  return seen;
}

static int ask_server(struct ctx *c, const struct radius_client *k, struct str server, struct radius_request *q, usec_t end, bool *ret) {
  struct str host, port;
  db_host_port(server, &host, &port);
  q->secret = secret_of(k, server, host);
  if (q->secret.len == 0)
    return ctx_fail(c, OUTCOME_ERROR, "radius: no secret for server %.*s", STRF(server));
  struct resolution r = {.name = str_dup_c(c->arena, host), .port = str_is_set(port) ? str_dup_c(c->arena, port) : DEFAULT_PORT};
  struct ip_addr ip;
  int e = ip_parse(host, &ip) ? run_resolve(&r) : fiber_offload(run_resolve, &r);
  if (e != 0)
    return ctx_fail(c, OUTCOME_DEFER, "radius: server %.*s: %s", STRF(server), gai_strerror(e));
  struct buf packet;
  buf_init(&packet, c->arena, RADIUS_PACKET_MAX);
  random_bytes(&q->id, sizeof q->id);
  random_bytes(q->authenticator, sizeof q->authenticator);
  radius_build(q, &packet);
  int fd = open_socket(k, r.found);
  freeaddrinfo(r.found);
  e = fd;
  if (fd >= 0) {
    e = converse(k, fd, q, buf_str(&packet), end);
    close(fd);
  }
  *ret = e == RADIUS_ACCEPT;
  if (e >= 0)
    return OUTCOME_OK;
  return ctx_fail(c, OUTCOME_DEFER, "radius: server %.*s: %s", STRF(server),
      e == -EBADMSG ? "its answer is not authentic (is the secret right?)" : strerror(-e));
}

static int eval_radius(struct ctx *c, const struct expand_condition_def *def, const struct expand_args *args, bool *ret) {
  const struct radius_options *o = config_block(c->config, &expand_radius_module);
  struct radius_request q = {.password = STR_EMPTY};
  struct radius_client k;
  struct list_iter i;
  *ret = false;
  list_iter_init(&i, c->arena, args->value[0]);
  if (!list_next(&i, &q.user) || q.user.len == 0 || q.user.len > RADIUS_USER_MAX || !list_next(&i, &q.password) ||
      q.password.len == 0 || q.password.len > RADIUS_PASSWORD_MAX)
    return OUTCOME_OK; /* not what a server can know */
  int r = read_client(c, o->config_file, &k);
  q.nas = str_is_set(k.nas) ? k.nas : main_options(c->config)->primary_hostname;
  if (q.nas.len > RADIUS_USER_MAX)
    q.nas = str_slice(q.nas, 0, RADIUS_USER_MAX);
  usec_t end = deadline_in(ALL_SECONDS);
  if (r == OUTCOME_OK)
    r = OUTCOME_DEFER;
  for (int n = 0; r == OUTCOME_DEFER && n < k.servers; n++) {
    r = ask_server(c, &k, k.server[n], &q, end, ret);
    DEBUG(auth, "radius: user %.*s at %.*s: %s\n", STRF(q.user), STRF(k.server[n]), r != OUTCOME_OK ? "no answer" : *ret ? "yes" : "no");
  }
  return r;
}

static const struct expand_condition_def conditions[] = {
  {"radius", 1, 1, 0, NULL, eval_radius},
  {0},
};

static const char *const macros[] = {"_HAVE_RADIUS", NULL};

const struct module expand_radius_module = {
  .name = "expand-radius",
  .summary = "passwords checked by a RADIUS server",
  .support = "Radius",
  .main_options = options,
  .main_size = sizeof(struct radius_options),
  .conditions = conditions,
  .macros = macros,
};
