#include "smtp/server/fuzz_session.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/config.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "queue/spool.h"

#define CONFIG \
  "primary_hostname = mx.test\nqualify_domain = dom.test\nspool_directory = %s\nlog_file_path = %s/%%slog\nhost_lookup =\nhost_lookup_order =\n" \
  "rfc1413_hosts =\ntls_advertise_hosts =\nchunking_advertise_hosts = *\ncheck_spool_space = 0\nsmtp_enforce_sync = false\n" \
  "smtp_banner = hello\ndns_ipv4_lookup = *\nhelo_lookup_domains =\nhelo_allow_chars = _\nsmtp_accept_max_nonmail = 1000\n" \
  "header_maxsize = 8K\nheader_line_maxsize = 2K\nmessage_size_limit = 16K\nrecipients_max = 20\nreceived_headers_max = 5\n" \
  "smtp_max_synprot_errors = 50\nsmtp_max_unknown_commands = 50\npercent_hack_domains = *\nwrite_rejectlog = false\n" \
  "acl_smtp_helo = accept\nacl_smtp_mail = mail\nacl_smtp_rcpt = rcpt\nacl_smtp_predata = predata\nacl_smtp_data = data\n" \
  "acl_smtp_auth = accept\nacl_smtp_vrfy = accept\nacl_smtp_expn = accept\nacl_smtp_etrn = deny\nacl_smtp_quit = accept\n" \
  "acl_smtp_notquit = accept\nacl_not_smtp = data\ndsn_advertise_hosts = *\nprdr_enable\nacl_smtp_data_prdr = prdr\n" \
  "acl_smtp_wellknown = known\nwellknown_advertise_hosts = *\nacl_smtp_atrn = atrn\nhosts_proxy = 10.0.0.9\nhosts_xclient = 10.0.0.8\n" \
  "begin acl\n" \
  "mail:\n  deny senders = ^bad\n  discard senders = ^gone\n  accept set acl_c_from = ${lc:$sender_address}\n" \
  "rcpt:\n  require verify = recipient\n  drop local_parts = drop\n  defer local_parts = later\n    message = 451 4.3.0 wait\\nplease\n" \
  "  discard local_parts = gone\n  warn local_parts = head\n    add_header = X-Rcpt: $local_part\n  accept set acl_m_n = ${eval:0$acl_m_n+1}\n" \
  "predata:\n  deny condition = ${if eq{$acl_m_n}{7}}\n  accept\n" \
  "data:\n  accept condition = ${if eq{$sender_helo_name}{headers}}\n    acl = headers\n  deny !verify = header_syntax\n  deny condition = ${if match{$h_subject:}{spam}}\n    message = 550 5.7.1 $h_subject:\n" \
  "  discard condition = ${if def:h_x-gone:}\n  warn remove_header = x-remove\n    add_header = X-Body: ${substr{0}{20}{$message_body}}\n" \
  "  deny condition = ${if eq{$message_linecount}{13}}\n  accept\n" \
  "headers:\n  warn !verify = header_syntax\n  warn !verify = header_names_ascii\n  warn !verify = not_blind\n  warn !verify = header_sender\n" \
  "  accept set acl_m_x = $h_subject:$rh_from:$bh_to:$lh_received:${addresses:$h_to:}${rfc2047d:$rh_subject:}$recipients$message_headers\n" \
  "prdr:\n  deny local_parts = a\n  defer local_parts = b\n    message = 450 4.2.0 later\n  discard local_parts = c\n  accept\n" \
  "known:\n  deny condition = ${if eq{$smtp_command_argument}{no}}\n  accept control = wellknown/%s/known\n" \
  "atrn:\n  deny condition = ${if eq{$smtp_command_argument}{no}}\n  defer !atrn_domains = never.test\n    message = 453 no mail\n  accept\n" \
  "begin routers\nlist:\n  driver = redirect\n  local_parts = list\n  data = a@dom.test, b@dom.test\n" \
  "no:\n  driver = redirect\n  allow_fail\n  local_parts = no\n  data = :fail: 550 5.1.1 no\nall:\n  driver = accept\n  transport = null\n" \
  "begin transports\nnull:\n  driver = appendfile\n  file = /dev/null\n  user = nobody\n" \
  "begin rewrite\n^(.*)@old $1@new.test S\nhead@dom.test \"${lc:$0}\" Fh\n" \
  "begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n" \
  "  server_condition = ${if eq{$auth2}{u}}\n  server_set_id = $auth2\nlogin:\n  driver = plaintext\n  public_name = LOGIN\n" \
  "  server_prompts = User:: : Pass::\n  server_condition = ${if eq{$auth1}{u}}\n  server_set_id = $auth1\n"

static char root[64];
static struct config *config;

void fuzz_check(bool ok) {
  if (!ok)
    abort();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) { return remove(path); }
static void clean_up(void) { nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static void start(void) {
  /* In memory: nothing waits for a disk. */
  snprintf(root, sizeof root, "%s/session_fuzz.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  fuzz_check(mkdtemp(root) != NULL);
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
  fuzz_check(spool_open(config) == 0);
  char path[128];
  snprintf(path, sizeof path, "%s/known", root);
  FILE *known = fopen(path, "w");
  fuzz_check(known && fputs("Contact: mailto:a@b.test\n", known) >= 0 && fclose(known) == 0);
}

/* All but our own Received: line, which has the id in it. */
static void keep(struct fuzz_session *f, struct ctx *c, const struct message *m) {
  char piece[4096];
  ssize_t n;
  for (const struct header *h = m->headers; h; h = h->next) {
    fuzz_check(h->text.len > 1 && h->text.p[h->text.len - 1] == '\n' && h->name_len > 0 && h->name_len < h->text.len);
    fuzz_check(header_name_length(h->text) == h->name_len);
    if (h != m->headers)
      buf_add(&f->kept, h->text);
  }
  buf_add_byte(&f->kept, '\n');
  int fd = spool_open_body(c, m);
  fuzz_check(fd >= 0);
  while ((n = read(fd, piece, sizeof piece)) > 0)
    buf_add(&f->kept, str_n(piece, (size_t)n));
  close(fd);
}

static void on_accepted(void *arg, struct ctx *c, struct message *m, bool queue) {
  struct fuzz_session *f = arg;
  f->accepted++;
  fuzz_check(m->recipients.n > 0 && m->recipients.n <= 20 && m->headers);
  if (f->keep)
    keep(f, c, m);
  fuzz_check(spool_remove(c, m) == 0);
  message_free(m);
}

static void server_fiber(void *arg) {
  struct fuzz_session *f = arg;
  struct stream *s = stream_new(f->fd, f->fd);
  f->params.stream = s;
  smtp_server_run(&f->params);
  stream_free(s);
}

static void sender_fiber(void *arg) {
  struct fuzz_session *f = arg;
  int full = 0;
  for (size_t i = 0; i < f->script.len;) {
    size_t n = f->script.len - i < f->piece ? f->script.len - i : f->piece;
    ssize_t sent = send(f->client_fd, f->script.p + i, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno != EAGAIN || ++full > 10000))
      break; /* the session is over, or does not read on: that is a way to end, too */
    if (sent > 0)
      i += (size_t)sent;
    fiber_yield();
  }
  shutdown(f->client_fd, SHUT_WR);
}

static int main_fiber(void *arg) {
  struct fuzz_session *f = arg;
  int fds[2];
  fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  f->fd = fds[0];
  f->client_fd = fds[1];
  struct stream *s = stream_new(fds[1], fds[1]);
  struct fiber *server = fiber_spawn_joinable("server", server_fiber, f);
  struct fiber *sender = fiber_spawn_joinable("sender", sender_fiber, f);
  struct buf b;
  buf_init(&b, f->arena, 4 << 20);
  while (stream_fill(s, DEADLINE_NEVER) > 0) {
    buf_add(&b, stream_peek(s));
    stream_consume(s, stream_peek(s).len);
  }
  f->output = buf_str(&b);
  fiber_join(server);
  fiber_join(sender);
  stream_free(s);
  return 0;
}

void fuzz_session_check_replies(const struct fuzz_session *f) {
  size_t ids = 0;
  for (struct str rest = f->output; rest.len;) {
    ptrdiff_t lf = str_find_byte(rest, '\n');
    fuzz_check(lf >= 5 && rest.p[lf - 1] == '\r');
    struct str line = str_slice(rest, 0, (size_t)lf - 1);
    fuzz_check(line.p[0] >= '2' && line.p[0] <= '5' && line.p[1] >= '0' && line.p[1] <= '9' && line.p[2] >= '0' && line.p[2] <= '9');
    fuzz_check(line.p[3] == ' ' || line.p[3] == '-');
    ids += str_starts(line, STR("250 OK id=")) || str_starts(line, STR("250 id="));
    rest = str_from(rest, (size_t)lf + 1);
  }
  fuzz_check(f->accepted <= ids); /* one that was discarded has an id, too */
}

void fuzz_session_run(struct fuzz_session *f, enum session_kind kind, const char *peer) {
  static unsigned sessions;
  static const struct submitter me = {.login = {"me", 2, 0}, .name = {"Me", 2, 0}, .uid = 1000, .gid = 1000};
  if (!config)
    start();
  struct smtp_hooks hooks = {.arg = f, .accepted = on_accepted};
  buf_init(&f->kept, f->arena, 4 << 20);
  f->params = (struct smtp_params){.config = config, .kind = kind, .submitter = &me, .ident = STR("me"), .timeout = -1, .hooks = &hooks};
  if (kind == SESSION_SMTP) {
    ip_parse(str_c(peer), &f->params.peer);
    ip_parse(STR("10.0.0.2"), &f->params.local);
    f->params.peer_port = 1234;
    f->params.local_port = 25;
    f->params.ident = STR_UNSET;
    f->params.submitter = NULL;
  }
  loop_run(main_fiber, f);
  if (kind != SESSION_BATCH)
    fuzz_session_check_replies(f);
  if (++sessions % 1000 == 0) {
    char path[128];
    snprintf(path, sizeof path, "%s/mainlog", root);
    (void)!truncate(path, 0);
  }
}
