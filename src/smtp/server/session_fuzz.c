/* Whole sessions of a hostile client: bytes over a socket pair, in pieces of any size, against a configuration that lets
every verb do something. The first byte chooses the kind of session, the second the size of the pieces.

Checked: each line that comes back is a reply; a message is handed over for each "250 OK id=" and no other; all of it is
freed (leaks are the sanitizer's business). */
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "config/config.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "queue/spool.h"
#include "smtp/server/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CONFIG \
  "primary_hostname = mx.test\nqualify_domain = dom.test\nspool_directory = %s\nlog_file_path = %s/%%slog\nhost_lookup =\n" \
  "rfc1413_hosts =\ntls_advertise_hosts =\nchunking_advertise_hosts = *\ncheck_spool_space = 0\nsmtp_enforce_sync = false\n" \
  "smtp_banner = hello\ndns_ipv4_lookup = *\nhelo_lookup_domains =\nhelo_allow_chars = _\nsmtp_accept_max_nonmail = 1000\n" \
  "header_maxsize = 8K\nheader_line_maxsize = 2K\nmessage_size_limit = 16K\nrecipients_max = 20\nreceived_headers_max = 5\n" \
  "smtp_max_synprot_errors = 50\nsmtp_max_unknown_commands = 50\npercent_hack_domains = *\nwrite_rejectlog = false\n" \
  "acl_smtp_helo = accept\nacl_smtp_mail = mail\nacl_smtp_rcpt = rcpt\nacl_smtp_predata = predata\nacl_smtp_data = data\n" \
  "acl_smtp_auth = accept\nacl_smtp_vrfy = accept\nacl_smtp_expn = accept\nacl_smtp_etrn = deny\nacl_smtp_quit = accept\n" \
  "acl_smtp_notquit = accept\nacl_not_smtp = data\ndsn_advertise_hosts = *\nprdr_enable\nacl_smtp_data_prdr = prdr\n" \
  "acl_smtp_wellknown = known\nwellknown_advertise_hosts = *\nhosts_proxy = 10.0.0.9\nhosts_xclient = 10.0.0.8\n" \
  "begin acl\n" \
  "mail:\n  deny senders = ^bad\n  discard senders = ^gone\n  accept set acl_c_from = ${lc:$sender_address}\n" \
  "rcpt:\n  require verify = recipient\n  drop local_parts = drop\n  defer local_parts = later\n    message = 451 4.3.0 wait\\nplease\n" \
  "  discard local_parts = gone\n  warn local_parts = head\n    add_header = X-Rcpt: $local_part\n  accept set acl_m_n = ${eval:0$acl_m_n+1}\n" \
  "predata:\n  deny condition = ${if eq{$acl_m_n}{7}}\n  accept\n" \
  "data:\n  deny !verify = header_syntax\n  deny condition = ${if match{$h_subject:}{spam}}\n    message = 550 5.7.1 $h_subject:\n" \
  "  discard condition = ${if def:h_x-gone:}\n  warn remove_header = x-remove\n    add_header = X-Body: ${substr{0}{20}{$message_body}}\n" \
  "  deny condition = ${if eq{$message_linecount}{13}}\n  accept\n" \
  "prdr:\n  deny local_parts = a\n  defer local_parts = b\n    message = 450 4.2.0 later\n  discard local_parts = c\n  accept\n" \
  "known:\n  deny condition = ${if eq{$smtp_command_argument}{no}}\n  accept control = wellknown/%s/known\n" \
  "begin routers\nlist:\n  driver = redirect\n  local_parts = list\n  data = a@dom.test, b@dom.test\n" \
  "no:\n  driver = redirect\n  allow_fail\n  local_parts = no\n  data = :fail: 550 5.1.1 no\nall:\n  driver = accept\n  transport = null\n" \
  "begin transports\nnull:\n  driver = appendfile\n  file = /dev/null\n  user = nobody\n" \
  "begin rewrite\n^(.*)@old $1@new.test S\nhead@dom.test \"${lc:$0}\" Fh\n" \
  "begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n" \
  "  server_condition = ${if eq{$auth2}{u}}\n  server_set_id = $auth2\nlogin:\n  driver = plaintext\n  public_name = LOGIN\n" \
  "  server_prompts = User:: : Pass::\n  server_condition = ${if eq{$auth1}{u}}\n  server_set_id = $auth1\n"

static char root[64];
static struct config *config;

struct run {
  struct smtp_params p;
  int fd, client_fd;
  size_t piece, accepted;
  struct str script, output;
  struct arena *arena;
};

static void check(bool ok) {
  if (!ok)
    abort();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) { return remove(path); }
static void clean_up(void) { nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static void start(void) {
  /* In memory: nothing waits for a disk. */
  snprintf(root, sizeof root, "%s/session_fuzz.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  check(mkdtemp(root) != NULL);
  atexit(clean_up);
  static struct arena *arena;
  arena = arena_new("fuzz config");
  struct str errors = STR_EMPTY;
  struct config_source source = {.text = str_printf(arena, CONFIG, root, root, root), .paths = STR("fuzz")};
  if (config_read(&source, arena, &config, &errors) != 0) {
    fprintf(stderr, "%.*s\n", STRF(errors));
    abort();
  }
  expand_compile_config(config);
  match_compile_config(config);
  log_init(config);
  check(spool_open(config) == 0);
  char path[128];
  snprintf(path, sizeof path, "%s/known", root);
  FILE *known = fopen(path, "w");
  check(known && fputs("Contact: mailto:a@b.test\n", known) >= 0 && fclose(known) == 0);
}

static void on_accepted(void *arg, struct ctx *c, struct message *m, bool queue) {
  ((struct run *)arg)->accepted++;
  check(m->recipients.n > 0 && m->recipients.n <= 20 && m->headers);
  check(spool_remove(c, m) == 0);
  message_free(m);
}

static void server_fiber(void *arg) {
  struct run *r = arg;
  struct stream *s = stream_new(r->fd, r->fd);
  r->p.stream = s;
  smtp_server_run(&r->p);
  stream_free(s);
}

static void sender_fiber(void *arg) {
  struct run *r = arg;
  for (size_t i = 0; i < r->script.len;) {
    size_t n = r->script.len - i < r->piece ? r->script.len - i : r->piece;
    ssize_t sent = send(r->client_fd, r->script.p + i, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
      break; /* the session is over, or does not read on: that is a way to end, too */
    i += (size_t)sent;
    fiber_yield();
  }
  shutdown(r->client_fd, SHUT_WR);
}

static int main_fiber(void *arg) {
  struct run *r = arg;
  int fds[2];
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  r->fd = fds[0];
  r->client_fd = fds[1];
  struct stream *s = stream_new(fds[1], fds[1]);
  struct fiber *server = fiber_spawn_joinable("server", server_fiber, r);
  struct fiber *sender = fiber_spawn_joinable("sender", sender_fiber, r);
  struct buf b;
  buf_init(&b, r->arena, 4 << 20);
  while (stream_fill(s, DEADLINE_NEVER) > 0) {
    buf_add(&b, stream_peek(s));
    stream_consume(s, stream_peek(s).len);
  }
  r->output = buf_str(&b);
  fiber_join(server);
  fiber_join(sender);
  stream_free(s);
  return 0;
}

static void check_replies(const struct run *r) {
  size_t ids = 0;
  for (struct str rest = r->output; rest.len;) {
    ptrdiff_t lf = str_find_byte(rest, '\n');
    check(lf >= 5 && rest.p[lf - 1] == '\r');
    struct str line = str_slice(rest, 0, (size_t)lf - 1);
    check(line.p[0] >= '2' && line.p[0] <= '5' && line.p[1] >= '0' && line.p[1] <= '9' && line.p[2] >= '0' && line.p[2] <= '9');
    check(line.p[3] == ' ' || line.p[3] == '-');
    ids += str_starts(line, STR("250 OK id=")) || str_starts(line, STR("250 id="));
    rest = str_from(rest, (size_t)lf + 1);
  }
  check(r->accepted <= ids); /* one that was discarded has an id, too */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static unsigned inputs;
  if (!config)
    start();
  if (size < 2 || size > 1 << 16)
    return 0;
  static const enum session_kind kinds[] = {SESSION_SMTP, SESSION_SMTP, SESSION_LOCAL_SMTP, SESSION_BATCH,
      SESSION_SMTP, SESSION_SMTP};
  static const struct submitter me = {.login = {"me", 2, 0}, .name = {"Me", 2, 0}, .uid = 1000, .gid = 1000};
  struct run r = {.arena = arena_new("fuzz"), .piece = data[1] ? data[1] : 4096u, .script = str_n((const char *)data + 2, size - 2)};
  struct smtp_hooks hooks = {.arg = &r, .accepted = on_accepted};
  r.p = (struct smtp_params){.config = config, .kind = kinds[data[0] % 6], .submitter = &me, .ident = STR("me"), .timeout = -1,
      .hooks = &hooks};
  if (r.p.kind == SESSION_SMTP) {
    /* One who must send a PROXY header, one who may send XCLIENT, and others. */
    ip_parse(data[0] % 6 == 4 ? STR("10.0.0.9") : data[0] % 6 == 5 ? STR("10.0.0.8") : STR("10.0.0.1"), &r.p.peer);
    ip_parse(STR("10.0.0.2"), &r.p.local);
    r.p.peer_port = 1234;
    r.p.local_port = 25;
    r.p.ident = STR_UNSET;
    r.p.submitter = NULL;
  }
  loop_run(main_fiber, &r);
  if (r.p.kind != SESSION_BATCH)
    check_replies(&r);
  arena_free(r.arena);
  if (++inputs % 1000 == 0) {
    char path[128];
    snprintf(path, sizeof path, "%s/mainlog", root);
    (void)!truncate(path, 0);
  }
  return 0;
}
