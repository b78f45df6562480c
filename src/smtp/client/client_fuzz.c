/* A hostile server: what it says to one message over one connection. The first byte chooses the transport, the second the size of
the pieces in which it comes, the third the number of recipients. Its replies up to the one to EHLO are read first. */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "config/config.h"
#include "core/ctx.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"
#include "queue/spool.h"
#include "smtp/client/client.h"
#include "transport/transport.h"

#define CONFIG \
  "primary_hostname = mx.test\nspool_directory = %s\nlog_file_path = %s/%%slog\nrecipients_max = 20\n" \
  "begin routers\nall:\n  driver = manualroute\n  route_list = * 127.0.0.1\n  transport = plain\nbegin transports\n" \
  "plain:\n  driver = smtp\n  hosts_try_prdr =\n  hosts_try_chunking =\n" COMMON \
  "all:\n  driver = smtp\n  hosts_try_prdr = *\n  hosts_try_chunking = *\n" COMMON \
  "alone:\n  driver = smtp\n  hosts_avoid_pipelining = *\n  hosts_try_prdr = *\n" COMMON \
  "some:\n  driver = smtp\n  max_rcpt = 2\n  connection_max_messages = 2\n" COMMON \
  "local:\n  driver = smtp\n  protocol = lmtp\n" COMMON
#define COMMON "  port = 1\n  allow_localhost\n  hosts_try_dane =\n  hosts_try_auth =\n  command_timeout = 5s\n  final_timeout = 5s\n  data_timeout = 5s\n"
#define BODY_MARK "the body of the message"

struct run {
  struct arena *arena;
  const struct instance *transport;
  struct str script;
  size_t piece;
  unsigned recipients;
  int server_fd;
  struct str said; /* by the client */
};

static char root[64];
static struct config *config;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok)
    abort();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) { return remove(path); }
static void clean_up(void) { nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static void start(void) {
  snprintf(root, sizeof root, "%s/client_fuzz.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  check(mkdtemp(root) != NULL);
  atexit(clean_up);
  static struct arena *arena;
  arena = arena_new("fuzz config");
  struct str errors = STR_EMPTY;
  struct config_source source = {.text = str_printf(arena, CONFIG, root, root), .paths = STR("fuzz")};
  if (config_read(&source, arena, &config, &errors) != 0) {
    fprintf(stderr, "%.*s\n", STRF(errors));
    abort();
  }
  expand_compile_config(config);
  match_compile_config(config);
  log_init(config);
  check(spool_open(config) == 0);
}

static const struct instance *transport_number(unsigned n) {
  const struct instance *t = config->drivers[DRIVER_TRANSPORT];
  unsigned count = 0;
  for (const struct instance *i = t; i; i = i->next)
    count++;
  for (n %= count; n; n--)
    t = t->next;
  return t;
}

static void say_fiber(void *arg) {
  struct run *r = arg;
  for (size_t i = 0; i < r->script.len;) {
    size_t n = r->script.len - i < r->piece ? r->script.len - i : r->piece;
    ssize_t sent = send(r->server_fd, r->script.p + i, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
      break; /* the client has left, or does not read on */
    i += (size_t)sent;
    fiber_yield();
  }
  shutdown(r->server_fd, SHUT_WR);
}

static void listen_fiber(void *arg) {
  struct run *r = arg;
  struct stream *s = stream_new(r->server_fd, -1);
  struct buf b;
  buf_init(&b, r->arena, 1 << 20);
  while (stream_fill(s, DEADLINE_NEVER) > 0) {
    buf_add(&b, stream_peek(s));
    stream_consume(s, stream_peek(s).len);
  }
  r->said = buf_str(&b);
  stream_free(s);
}

static struct message *message_to_send(struct ctx *c) {
  struct message *m = message_new("fuzz message");
  c->message = m;
  m->reverse_path = STR("s@mx.test");
  (void)message_add_header(m, 0, STR("Subject: fuzz\n"));
  check(spool_data_open(c, m) == 0);
  check(spool_data_write(c, m, STR(BODY_MARK "\n.dot\n")) == 0);
  check(spool_data_end(c, m) == 0);
  return m;
}

static struct smtp_connection *connection(struct ctx *c, const struct run *r, struct host *h, int fd) {
  struct arena *a = arena_new("smtp connection");
  struct smtp_connection *n = arena_new_of(a, struct smtp_connection);
  *n = (struct smtp_connection){.arena = a, .user = c, .stream = stream_new(fd, fd), .transport = r->transport, .host_name = h->name,
      .host_address = h->address, .ip = h->ip, .port = 1, .error_text = STR_EMPTY, .command = STR_EMPTY, .key = STR_EMPTY,
      .esmtp = true, .offers = {.auth_mechanisms = STR_EMPTY}};
  stream_set_write_timeout(n->stream, 5);
  return n;
}

/* What holds whatever the server says. */
static void check_outcome(const struct run *r, const struct address *chain) {
  bool marked = str_find(r->said, STR(BODY_MARK)) >= 0;
  for (const struct address *a = chain; a; a = a->next) {
    check(!(a->result == OUTCOME_DEFER && a->basic_errno == SMTP_PENDING));
    check(a->result == OUTCOME_OK || a->result == OUTCOME_DEFER || a->result == OUTCOME_FAIL);
    if (a->result == OUTCOME_OK) {
      check(marked && str_is_tainted(a->confirmation));
      check(a->confirmation.len >= 3 && a->confirmation.p[0] == '2');
    }
    if (a->result == OUTCOME_FAIL) /* nothing else that a server says is for good */
      check(str_find(r->script, STR("5")) >= 0 || str_ifind(r->script, STR("SIZE")) >= 0);
  }
  if (marked) /* the text goes only where DATA was answered by 3xx, or BDAT was offered */
    check(str_find(r->script, STR("3")) >= 0 || str_ifind(r->script, STR("CHUNKING")) >= 0);
}

static int main_fiber(void *arg) {
  struct run *r = arg;
  struct ctx *c = ctx_new(r->arena, config);
  struct host *h = arena_new_of(r->arena, struct host);
  struct address *chain = NULL;
  int fds[2];
  *h = (struct host){.name = STR("server.test"), .address = STR("127.0.0.1"), .port = 1, .mx = -1, .certname = STR_EMPTY};
  check(ip_parse(h->address, &h->ip));
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
  r->server_fd = fds[1];
  c->host = h;
  c->transport = r->transport;
  struct message *m = message_to_send(c);
  for (unsigned i = r->recipients; i-- > 0;) {
    struct address *a = address_new(r->arena, str_printf(r->arena, "r%u@d%u.test", i, i % 2), (int)i);
    a->transport = (struct instance *)(uintptr_t)r->transport;
    a->hosts = h;
    a->next = chain;
    chain = a;
  }
  struct fiber *listener = fiber_spawn_joinable("listener", listen_fiber, r);
  struct fiber *speaker = fiber_spawn_joinable("speaker", say_fiber, r);
  struct smtp_connection *n = connection(c, r, h, fds[0]);
  n->key = str_dup(n->arena, smtp_pool_key(c, r->transport, 1, STR_EMPTY));
  if (smtp_expect(c, n, 5, '2') == SMTP_OK && smtp_expect(c, n, 5, '2') == SMTP_OK) {
    smtp_note_offers(c, n, n->reply.text);
    m->over = n;
    ((const struct transport_def *)r->transport->driver)->deliver(c, r->transport, chain);
  } else {
    smtp_disconnect(n, true);
    chain = NULL;
  }
  smtp_pool_close_all();
  fiber_join(speaker);
  fiber_join(listener);
  check_outcome(r, chain);
  spool_abandon(c, m);
  message_free(m);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static unsigned runs;
  if (size < 3 || size > 1 << 16)
    return 0;
  if (!config)
    start();
  struct run r = {.arena = arena_new("fuzz"), .transport = transport_number(data[0]), .piece = data[1] ? data[1] : 4096u,
      .recipients = data[2] % 5u + 1, .script = str_n((const char *)data + 3, size - 3), .said = STR_EMPTY};
  loop_run(main_fiber, &r);
  arena_free(r.arena);
  if (++runs % 1000 == 0) {
    char path[128];
    snprintf(path, sizeof path, "%s/mainlog", root);
    (void)!truncate(path, 0);
  }
  return 0;
}
