/* Whole sessions over a socket pair, against a configuration text and a real
spool in a temporary directory. The client's side is written at once: replies
come back in order whatever the timing. */
#include "base/test.h"
#include "base/test_tree.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "config/config.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "match/match.h"
#include "queue/spool.h"
#include "smtp/local.h"
#include "smtp/server/server.h"

#define BASE_CONFIG \
  "primary_hostname = mx.test\nqualify_domain = dom.test\nspool_directory = %s\n" \
  "log_file_path = %s/%%slog\nhost_lookup =\nrfc1413_hosts =\ntls_advertise_hosts =\n" \
  "limits_advertise_hosts =\npipelining_connect_advertise_hosts =\nchunking_advertise_hosts = *\ncheck_spool_space = 0\n" \
  "smtp_enforce_sync = false\nhosts_require_helo =\nsmtp_banner = hello\ndns_ipv4_lookup = *\nhelo_lookup_domains =\n"

static char root[64];
static struct arena *arena;
static struct config *config;
static struct buf logged;
static int accepted;
static struct str last_header, last_sender, last_recipients, last_body;

static void on_log(unsigned logs, struct str line, void *arg) {
  if (!(logs & LOG_MAIN))
    return;
  buf_add(&logged, line);
  buf_add_byte(&logged, '\n');
}

static void read_config(const char *main, const char *acls) {
  struct str errors = STR_EMPTY;
  struct buf b;
  buf_init(&b, arena, 1 << 20);
  buf_add(&b, str_printf(arena, BASE_CONFIG, root, root));
  buf_printf(&b, "%s\nbegin acl\n%s\n", main, acls);
  struct config_source source = {.text = buf_str(&b), .paths = STR("test")};
  if (config_read(&source, arena, &config, &errors) != 0)
    fail_msg("%.*s", STRF(errors));
  expand_compile_config(config);
  match_compile_config(config);
  log_init(config);
  assert_int_equal(spool_open(config), 0);
  log_tap(on_log, NULL);
}

static int setup(void **state) {
  snprintf(root, sizeof root, "%s/server_test.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
  if (!mkdtemp(root))
    return -1;
  arena = arena_new("test");
  buf_init(&logged, arena, 1 << 20);
  accepted = 0;
  last_header = last_sender = last_recipients = last_body = STR_EMPTY;
  return 0;
}

static int teardown(void **state) {
  log_tap(NULL, NULL);
  log_done();
  spool_close();
  arena_free(arena);
  return test_tree_remove(root);
}

static void on_accepted(void *arg, struct ctx *c, struct message *m, bool queue) {
  struct buf b;
  accepted++;
  buf_init(&b, arena, 1 << 20);
  for (const struct header *h = m->headers; h; h = h->next)
    if (h->type != '*' && h->type != 'P')
      buf_add(&b, h->text);
  last_header = buf_str(&b);
  last_sender = str_dup(arena, m->reverse_path);
  buf_init(&b, arena, 1 << 20);
  for (size_t i = 0; i < m->recipients.n; i++)
    buf_printf(&b, "%s%.*s", i ? " " : "", STRF(m->recipients.v[i].address));
  last_recipients = buf_str(&b);
  int fd = spool_open_body(c, m);
  assert_true(fd >= 0);
  char body[4096];
  ssize_t n = read(fd, body, sizeof body);
  close(fd);
  last_body = str_dup(arena, str_n(body, n > 0 ? (size_t)n : 0));
  message_free(m);
}

static const struct smtp_hooks hooks = {.accepted = on_accepted};
static const struct submitter me = {.login = {"me", 2, 0}, .name = {"My Name", 7, 0}, .uid = 1000, .gid = 1000};

struct run {
  struct smtp_params p;
  struct local_params l;
  bool local;
  int fd, status;
  struct str script, output;
};

static void server_fiber(void *arg) {
  struct run *r = arg;
  struct stream *s = stream_new(r->fd, r->fd);
  if (r->local) {
    r->l.in = s;
    r->status = receive_local(&r->l);
  } else {
    r->p.stream = s;
    r->status = smtp_server_run(&r->p);
  }
  stream_free(s);
}

static int main_fiber(void *arg) {
  struct run *r = arg;
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
    return -1;
  r->fd = fds[0];
  struct fiber *f = fiber_spawn_joinable("server", server_fiber, r);
  struct stream *s = stream_new(fds[1], fds[1]);
  if (r->p.kind == SESSION_SMTP && !r->local)
    stream_fill(s, DEADLINE_NEVER); /* the greeting, as a client that waits */
  stream_write(s, r->script);
  stream_flush(s);
  shutdown(fds[1], SHUT_WR);
  struct buf b;
  buf_init(&b, arena, 1 << 20);
  while (stream_fill(s, DEADLINE_NEVER) > 0) {
    buf_add(&b, stream_peek(s));
    stream_consume(s, stream_peek(s).len);
  }
  r->output = buf_str(&b);
  fiber_join(f);
  stream_free(s);
  return 0;
}

static struct str run_kind(enum session_kind kind, struct str script) {
  struct run r = {.script = script,
      .p = {.config = config, .kind = kind, .submitter = &me, .ident = STR("me"), .timeout = -1, .hooks = &hooks}};
  if (kind == SESSION_SMTP) {
    ip_parse(STR("10.0.0.1"), &r.p.peer);
    ip_parse(STR("10.0.0.2"), &r.p.local);
    r.p.peer_port = 1234;
    r.p.local_port = 25;
    r.p.ident = STR_UNSET;
    r.p.submitter = NULL;
  }
  loop_init();
  assert_int_equal(loop_run(main_fiber, &r), 0);
  loop_done();
  return r.output;
}

#define SESSION(kind, text) run_kind(kind, STR(text))

static void assert_has(struct str s, const char *what) {
  if (str_find(s, str_c(what)) < 0)
    fail_msg("no '%s' in:\n%.*s", what, STRF(s));
}
static void assert_not(struct str s, const char *what) {
  if (str_find(s, str_c(what)) >= 0)
    fail_msg("'%s' in:\n%.*s", what, STRF(s));
}

static void test_simple(void **state) {
  read_config("acl_smtp_rcpt = accept", "");
  struct str out = SESSION(SESSION_SMTP, "EHLO client\r\nMAIL FROM:<a@b.test> SIZE=100\r\nRCPT TO:<c@dom.test>\r\nDATA\r\n"
                                         "Subject: x\r\nFrom: a@b.test\r\n\r\nhello\r\n..dot\r\n.\r\nQUIT\r\n");
  assert_has(out, "250-mx.test Hello client [10.0.0.1]\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SMTPUTF8\r\n250 HELP\r\n");
  assert_has(out, "250 OK\r\n250 Accepted\r\n354 Enter message, ending with \".\" on a line by itself\r\n250 OK id=");
  assert_has(out, "221 mx.test closing connection\r\n");
  assert_int_equal(accepted, 1);
  assert_str(last_sender, "a@b.test");
  assert_str(last_recipients, "c@dom.test");
  assert_str(last_header, "Subject: x\nFrom: a@b.test\n");
  assert_str(last_body, "hello\n.dot\n");
  assert_has(buf_str(&logged), " <= a@b.test H=(client) [10.0.0.1] P=esmtp S=");
}

static void test_sequence_errors(void **state) {
  read_config("acl_smtp_rcpt = accept\nsmtp_max_synprot_errors = 20\nsmtp_max_unknown_commands = 1", "");
  struct str out = SESSION(SESSION_LOCAL_SMTP, "RCPT TO:<c@dom.test>\nDATA\nMAIL FROM:<a@b\nMAIL FROM:<a@b>\nMAIL FROM:<a@b>\nfoo\nbar\nbaz\n");
  assert_has(out, "503 sender not yet given\r\n");
  assert_has(out, "503 valid RCPT command must precede DATA\r\n");
  assert_has(out, "501 <a@b: ");
  assert_has(out, "250 OK\r\n503 sender already given\r\n500 unrecognized command\r\n500 Too many unrecognized commands\r\n");
}

static void test_given_up(void **state) {
  read_config("acl_smtp_rcpt = accept\nlog_selector = +smtp_incomplete_transaction +smtp_syntax_error\nsmtp_max_unknown_commands = 1\n"
              "smtp_max_synprot_errors = 20", "");
  struct str out = SESSION(SESSION_LOCAL_SMTP, "HELO a_b c\nHELO\nMAIL FROM:<a@b>\nRCPT TO:<c@d>\nRCPT TO:<e@f>\nRSET\nRSET now\nMAIL FROM:<a@b>\n"
                                               "DATA now\nfoo\nbar\n");
  assert_has(out, "501 Syntactically invalid HELO argument(s)\r\n501 Syntactically invalid HELO argument(s)\r\n250 OK\r\n");
  assert_has(out, "250 Reset OK\r\n501 unexpected argument data\r\n250 OK\r\n501 unexpected argument data\r\n");
  assert_has(buf_str(&logged), "U=me incomplete transaction (RSET) from <a@b> for c@d e@f\n");
  assert_has(buf_str(&logged), "SMTP syntax error in \"bar\" U=me unrecognized command\n");
  assert_has(buf_str(&logged), "U=me incomplete transaction (unrecognized command) from <a@b>\n");
}

static void test_acl_messages(void **state) {
  read_config("acl_smtp_rcpt = check",
      "check:\n  deny local_parts = no\n       message = 551 5.7.1 not here\n       log_message = refused it\n"
      "  defer local_parts = later\n  accept local_parts = ok : yes\n         message = fine\n  warn set acl_m_x = $local_part\n"
      "  deny condition = ${if eq{$acl_m_x}{drop}}\n       message = one\\ntwo\n  drop local_parts = gone\n");
  struct str out = SESSION(SESSION_LOCAL_SMTP, "MAIL FROM:<a@b>\nRCPT TO:<no@x>\nRCPT TO:<later@x>\nRCPT TO:<OK@x>\nRCPT TO:<drop@x>\n"
                                               "RCPT TO:<other@x>\nRCPT TO:<gone@x>\nNOOP\n");
  assert_has(out, "551 5.7.1 not here\r\n451 Temporary local problem - please try later\r\n250 fine\r\n550-one\r\n550 two\r\n"
                  "550 Administrative prohibition\r\n");
  assert_not(out, "250 OK\r\n250 OK");
  assert_has(buf_str(&logged), "U=me F=<a@b> rejected RCPT <no@x>: refused it\n");
  assert_has(buf_str(&logged), "U=me F=<a@b> temporarily rejected RCPT <later@x>\n");
  assert_has(buf_str(&logged), "U=me F=<a@b> rejected RCPT <drop@x>: one\n");
}

static void test_all_rejected(void **state) {
  read_config("acl_smtp_rcpt = deny message = go away", "");
  struct str out = SESSION(SESSION_LOCAL_SMTP, "EHLO x\nMAIL FROM:<a@b>\nRCPT TO:<no@x>\nRCPT TO:<no2@x>\nDATA\nQUIT\n");
  assert_has(out, "503-All RCPT commands were rejected with this error:\r\n503-go away\r\n503 Valid RCPT command must precede DATA\r\n");
}

static void test_untrusted_local(void **state) {
  read_config("acl_smtp_rcpt = accept", "");
  SESSION(SESSION_LOCAL_SMTP, "HELO x\nMAIL FROM:<a@b>\nRCPT TO:<c>\nDATA\nSubject: y\n\nbody\n.\nQUIT\n");
  assert_int_equal(accepted, 1);
  assert_str(last_sender, "me@dom.test");
  assert_str(last_recipients, "c@dom.test");
  assert_has(last_header, "From: My Name <me@dom.test>\n");
  assert_has(last_header, "Message-Id: <E");
  assert_has(buf_str(&logged), "<= me@dom.test U=me P=local-smtp S=");
}

static void test_bdat(void **state) {
  read_config("acl_smtp_rcpt = accept", "");
  struct str out = SESSION(SESSION_SMTP, "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 12\r\nSubject: x\r\nBDAT 7 LAST\r\n\r\n.\r\nx\nQUIT\r\n");
  assert_has(out, "250 12 byte chunk received\r\n250- 7 byte chunk, total 21\r\n250 OK id=");
  assert_int_equal(accepted, 1);
  assert_str(last_body, ".\nx \n");
}

static void test_data_acl(void **state) {
  read_config("acl_smtp_rcpt = accept\nacl_smtp_data = check",
      "check:\n  deny !verify = header_syntax\n  warn add_header = X-Added: yes\n  accept condition = ${if eq{$h_subject:}{good}}\n"
      "  deny message = bad subject\n");
  struct str out = SESSION(SESSION_LOCAL_SMTP,
      "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\nSubject: good\n\nb\n.\nMAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\nSubject: x\n\nb\n.\n"
      "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\nTo: @\n\nb\n.\nQUIT\n");
  assert_int_equal(accepted, 1);
  assert_has(last_header, "X-Added: yes\n");
  assert_has(out, "550 bad subject\r\n");
  assert_has(buf_str(&logged), " U=me F=<me@dom.test> rejected after DATA: bad subject\n");
  assert_has(buf_str(&logged), "failing address in \"To:\" header is: @");
}

static void test_sync(void **state) {
  read_config("acl_smtp_connect = accept control = enforce_sync\npipelining_advertise_hosts =", "");
  struct str out = SESSION(SESSION_SMTP, "HELO x\r\nMAIL FROM:<a@b>\r\n");
  assert_has(out, "554 SMTP synchronization error\r\n");
  assert_has(buf_str(&logged), "SMTP protocol synchronization error (next input sent too soon: pipelining was not advertised): rejected"
                               " \"HELO x\" H=[10.0.0.1] next input=\"MAIL FROM:<a@b>\\r\\n\"");
}

static void test_size_limit(void **state) {
  read_config("acl_smtp_rcpt = accept\nmessage_size_limit = 100", "");
  struct buf b;
  buf_init(&b, arena, 1 << 16);
  buf_add_c(&b, "EHLO x\r\nMAIL FROM:<a@b> SIZE=101\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nA: b\r\n\r\n");
  for (int i = 0; i < 100; i++)
    buf_add_c(&b, "0123456789\r\n");
  buf_add_c(&b, ".\r\nNOOP\r\nQUIT\r\n");
  struct str out = run_kind(SESSION_SMTP, buf_str(&b));
  assert_has(out, "552 Message size exceeds maximum permitted\r\n250 OK\r\n250 Accepted\r\n354 ");
  assert_has(out, "itself\r\n552 Message size exceeds maximum permitted\r\n250 OK\r\n221 ");
  assert_int_equal(accepted, 0);
  assert_has(buf_str(&logged), "rejected MAIL FROM:<a@b> H=(x) [10.0.0.1]: message too big: size=101 max=100\n");
  assert_has(buf_str(&logged), "rejected from <a@b> H=(x) [10.0.0.1]: message too big: read=");
}

static void test_lost(void **state) {
  read_config("acl_smtp_rcpt = accept", "");
  SESSION(SESSION_SMTP, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\nbody");
  assert_int_equal(accepted, 0);
  assert_has(buf_str(&logged), "SMTP connection from (x) [10.0.0.1] lost while reading message data\n");
}

static int run_stdin(struct run *r) {
  loop_init();
  assert_int_equal(loop_run(main_fiber, r), 0);
  loop_done();
  return r->status;
}

static void test_local(void **state) {
  read_config("", "");
  struct str args[] = {STR("x, y@z.test")};
  struct run r = {.local = true, .script = STR("To: t@u.test\n\nhello\n.\nnot read\n"),
      .l = {.config = config, .program = "test", .submitter = &me, .recipients = args, .recipients_n = 1, .timeout = -1, .hooks = &hooks}};
  assert_int_equal(run_stdin(&r), 0);
  assert_int_equal(accepted, 1);
  assert_str(last_recipients, "x@dom.test y@z.test");
  assert_str(last_body, "hello\n");
  assert_has(buf_str(&logged), "<= me@dom.test U=me P=local S=");
}

static void test_local_t(void **state) {
  read_config("", "");
  struct run r = {.local = true, .script = STR("To: (a) t@u.test\nBcc: b@u.test\n\n.\nx\n"),
      .l = {.config = config, .program = "test", .submitter = &me, .extract_recipients = true, .dot_is_data = true, .timeout = -1,
          .hooks = &hooks}};
  assert_int_equal(run_stdin(&r), 0);
  assert_str(last_recipients, "t@u.test b@u.test");
  assert_not(last_header, "Bcc:");
  assert_str(last_body, ".\nx\n");
}

/* SMTPUTF8 (RFC 6531): the addresses of one transaction, and what is said to MAIL and RCPT. */
static void test_smtputf8(void **state) {
  static const struct {
    const char *options, *mail, *rcpt, *replies, *protocol; /* protocol NULL: no message */
  } cases[] = {
      {"", "<j\u00f6@\u00fcb.test> SMTPUTF8", "<k\u00e4@\u00fcd.test>", "250 OK\r\n250 Accepted\r\n354", "P=utf8esmtp "},
      {"", "<a@b.test> SMTPUTF8", "<c@dom.test>", "250 OK\r\n250 Accepted\r\n354", "P=utf8esmtp "},
      {"", "<a@b.test>", "<c@dom.test>", "250 OK\r\n250 Accepted\r\n354", "P=esmtp "},
      {"", "<> smtputf8 BODY=8BITMIME", "<\u4ed6@dom.test>", "250 OK\r\n250 Accepted\r\n354", "P=utf8esmtp "},
      {"", "<\"j\u00f6 x\"@b.test> SMTPUTF8", "<c@dom.test>", "250 OK\r\n250 Accepted\r\n354", "P=utf8esmtp "},
      /* without it domains are ASCII; local parts may be anything, as they always could */
      {"", "<a@\u00fcb.test>", "<c@dom.test>", "501 <a@\u00fcb.test>: domain missing or malformed\r\n503", NULL},
      {"", "<a@b.test>", "<c@\u00fcd.test>", "250 OK\r\n501 <c@\u00fcd.test>: domain missing or malformed\r\n503", NULL},
      {"", "<\u00e4@b.test>", "<c@dom.test>", "250 OK\r\n250 Accepted\r\n354", "P=esmtp "},
      {"allow_utf8_domains", "<a@\u00fcb.test>", "<c@\u00fcd.test>", "250 OK\r\n250 Accepted\r\n354", "P=esmtp "},
      {"allow_utf8_domains", "<a@b\xff.test>", "<c@\u00fcd.test>", "501 <a@b\xff.test>: invalid UTF-8 byte sequence\r\n503", NULL},
      /* with it nothing may only look like UTF-8 */
      {"", "<a@b\xff.test> SMTPUTF8", "<c@dom.test>", "501 <a@b\xff.test> SMTPUTF8: invalid UTF-8 byte sequence\r\n503", NULL},
      {"", "<a\xc3@b.test> SMTPUTF8", "<c@dom.test>", "501 <a\xc3@b.test> SMTPUTF8: invalid UTF-8 byte sequence\r\n503", NULL},
      {"", "<a@b.test> SMTPUTF8", "<c\xed\xa0\x80@dom.test>", "250 OK\r\n501 <c\xed\xa0\x80@dom.test>: invalid UTF-8 byte sequence\r\n503", NULL},
      {"", "<a@b.test> SMTPUTF8=1", "<c@dom.test>", "501 <a@b.test> SMTPUTF8=1: malformed address: SMTPUTF8=1 may not follow <a@b.test> \r\n503",
          NULL},
      {"smtputf8_advertise_hosts =", "<a@b.test> SMTPUTF8", "<c@dom.test>", "501 SMTPUTF8 used when not advertised\r\n503", NULL},
      {"no_accept_8bitmime", "<a@b.test> SMTPUTF8", "<c@dom.test>", "501 SMTPUTF8 used when not advertised\r\n503", NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct str options = str_printf(arena, "%s\nacl_smtp_rcpt = accept", cases[i].options);
    read_config(str_dup_c(arena, options), "");
    buf_truncate(&logged, 0);
    accepted = 0;
    /* The second message shows that nothing of the first is left. */
    struct str out = run_kind(SESSION_SMTP, str_printf(arena, "EHLO c\r\nMAIL FROM:%s\r\nRCPT TO:%s\r\nDATA\r\n%sRSET\r\nMAIL FROM:<a@b.test>\r\n"
        "RCPT TO:<z@\u00fc.test>\r\nQUIT\r\n", cases[i].mail, cases[i].rcpt, cases[i].protocol ? "Subject: x\r\n\r\n.\r\n" : ""));
    assert_has(out, str_dup_c(arena, str_printf(arena, "250 HELP\r\n%s", cases[i].replies)));
    if (*cases[i].options != 'a')
      assert_has(out, "501 <z@\u00fc.test>: domain missing or malformed");
    assert_int_equal(accepted, cases[i].protocol != NULL);
    if (cases[i].protocol)
      assert_has(buf_str(&logged), cases[i].protocol);
  }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest t[] = {
      T(test_simple), T(test_sequence_errors), T(test_given_up), T(test_acl_messages), T(test_all_rejected), T(test_untrusted_local), T(test_bdat),
      T(test_data_acl), T(test_sync), T(test_size_limit), T(test_lost), T(test_local), T(test_local_t), T(test_smtputf8),
  };
  return cmocka_run_group_tests(t, NULL, NULL);
}
