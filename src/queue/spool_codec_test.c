#include "base/test.h"

#include <errno.h>
#include <stdlib.h>
#include "base/map.h"
#include "queue/spool_codec.h"
#include "tls/tls.h"

/* What Exim 4.96 wrote for a message of which three of seven recipients are done (names changed). */
static const char exim_file[] =
  "1xUaYw-0005ab-0n-H\n"
  "root 0 0\n"
  "<s@new.test>\n"
  "1795227046 2\n"
  "-received_time_usec .245819\n"
  "-received_time_complete 1795227046.246441\n"
  "--helo_name me\n"
  "--host_address [1.2.3.4]:555\n"
  "--host_name host.name\n"
  "--interface_address [5.6.7.8]:25\n"
  "--ident ident\n"
  "-received_protocol utf8esmtp\n"
  "-aclc 0 4\n"
  "conn\n"
  "--aclc _foo 7\n"
  "1.2.3.4\n"
  "-aclm _bar 9\n"
  "two\n"
  "lines\n"
  "-body_linecount 2\n"
  "-max_received_linelength 37\n"
  "-allow_unqualified_recipient\n"
  "-allow_unqualified_sender\n"
  "-frozen 1795227365\n"
  "-tls_resumption A\n"
  "-smtputf8\n"
  "-dsn_envid abc+20x\n"
  "-dsn_ret 2\n"
  "YY e@ok.test\n"
  "NN d@ok.test\n"
  "NN x@one.test\n"
  "7\n"
  "a@b rfc822;a+40b 12,12  0,-1#3\n"
  "c@new.test\n"
  "x@one.test\n"
  "d@ok.test\n"
  "e@ok.test\n"
  "three@three.test  0,0 errs@me.test 12,2#3\n"
  "old@one.test errs@me.test 12,2#1\n"
  "\n"
  "029P Received: from x\n\tby me.test\n"
  "017* From: s@old.test\n"
  "011  Subject: x\n";

static struct message *decode(const char *text, int *ret_rc) {
  struct message *m = message_new("test");
  int line;
  *ret_rc = spool_decode(str_c(text), m, &line);
  return m;
}

static void test_decode(void **state) {
  int rc;
  struct message *m = decode(exim_file, &rc);
  assert_int_equal(rc, 0);
  assert_string_equal(m->id, "1xUaYw-0005ab-0n");
  assert_str(m->reverse_path, "s@new.test");
  assert_int_equal(m->received_time.tv_usec, 245819);
  assert_int_equal(m->received_complete.tv_sec, 1795227046);
  assert_int_equal(m->warnings_sent, 2);
  assert_str(m->client.host_address, "1.2.3.4");
  assert_int_equal(m->client.host_port, 555);
  assert_true(str_is_tainted(m->client.helo_name));
  assert_false(str_is_tainted(m->client.protocol));
  assert_false(m->client.local);
  struct str *v = map_get(m->acl_m, STR("acl_m_bar"));
  assert_str(*v, "two\nlines");
  v = map_get(m->acl_c, STR("acl_c_foo"));
  assert_true(str_is_tainted(*v));
  assert_true(m->frozen && m->smtputf8 && m->allow_unqualified_sender);
  assert_int_equal(m->frozen_time, 1795227365);
  assert_str(m->unknown_lines, "-tls_resumption A\n");
  assert_int_equal(map_count(m->nonrecipients), 3);
  assert_true(message_is_nonrecipient(m, STR("x@one.test")));
  assert_int_equal(m->recipients.n, 7);
  assert_str(m->recipients.v[0].orcpt, "rfc822;a+40b");
  assert_int_equal(m->recipients.v[0].dsn_flags, DSN_NOTIFY_SUCCESS | DSN_NOTIFY_FAILURE);
  assert_int_equal(m->recipients.v[0].parent, -1);
  assert_str(m->recipients.v[5].address, "three@three.test");
  assert_str(m->recipients.v[5].errors_to, "errs@me.test");
  assert_int_equal(m->recipients.v[5].parent, 2);
  assert_str(m->recipients.v[6].address, "old@one.test");
  assert_int_equal(m->received_count, 1);
  assert_int_equal(m->headers->next->type, HEADER_DELETED);
  message_free(m);
}

/* What is kept of the TLS session; the text is written as it was read. */
static void test_tls_lines(void **state) {
  static const char lines[] = "-tls_certificate_verified\n-tls_cipher TLS1.3:TLS_AES_256_GCM_SHA384:256\n"
                              "--tls_peerdn /CN=client.example\n--tls_sni name.example\n-tls_resumption Q\n-tls_ver TLS1.3\n";
  struct arena *a = arena_new("test");
  const char *at = strstr(exim_file, "-tls_resumption A\n");
  struct str text = str_printf(a, "%.*s%s%s", (int)(at - exim_file), exim_file, lines, at + strlen("-tls_resumption A\n"));
  int rc;
  struct message *m = decode(text.p, &rc);
  assert_int_equal(rc, 0);
  const struct tls_info *t = m->client.tls;
  assert_true(t && t->peer_verified && t->bits == 256 && t->resumption == 16);
  assert_str(t->version, "TLS1.3");
  assert_str(t->cipher_std, "TLS_AES_256_GCM_SHA384");
  assert_str(t->peer_dn, "/CN=client.example");
  assert_true(str_is_tainted(t->sni));
  struct buf out;
  buf_init(&out, a, SPOOL_HEADER_MAX);
  assert_int_equal(spool_encode(m, &out), 0);
  assert_true(str_find(buf_str(&out), str_c(lines)) > 0);
  assert_str(m->unknown_lines, "");
  message_free(m);
  arena_free(a);
}

static void test_round_trip(void **state) {
  int rc;
  struct message *m = decode(exim_file, &rc);
  struct buf first, second;
  buf_init(&first, m->arena, SPOOL_HEADER_MAX);
  buf_init(&second, m->arena, SPOOL_HEADER_MAX);
  assert_int_equal(spool_encode(m, &first), 0);
  struct message *again = decode(str_dup_c(m->arena, buf_str(&first)), &rc);
  assert_int_equal(rc, 0);
  assert_int_equal(spool_encode(again, &second), 0);
  assert_str(buf_str(&second), buf_str(&first).p);
  /* The lines that Exim wrote come back as they were, but for the form of the old one_time line. */
  struct str rest = buf_str(&first), line;
  while (rest.len) {
    line = str_cut(&rest, '\n');
    if (!str_starts(line, STR("old@one.test")) && !strstr(exim_file, str_dup_c(m->arena, line)))
      fail_msg("'%.*s' is new", STRF(line));
  }
  assert_int_equal(buf_str(&first).len, sizeof exim_file - 1 + 5);
  message_free(again);
  message_free(m);
}

/* Every prefix, and every text with one byte gone, is either read or refused, with no read beyond its end. */
static void test_damaged(void **state) {
  char *copy = xmalloc(sizeof exim_file);
  for (size_t n = 0; n + 1 < sizeof exim_file; n++) {
    for (int cut = 0; cut < 2; cut++) {
      size_t len = cut ? n : sizeof exim_file - 2;
      char *exact = xmalloc(len ? len : 1);
      if (cut) {
        memcpy(exact, exim_file, n);
      } else {
        memcpy(exact, exim_file, n);
        memcpy(exact + n, exim_file + n + 1, len - n);
      }
      struct message *m = message_new("test");
      int line;
      int rc = spool_decode(str_n(exact, len), m, &line);
      assert_true(rc == 0 || rc == -EINVAL);
      message_free(m);
      free(exact);
    }
  }
  free(copy);
}

static const char *const bad[] = {
  "",
  "1xUaYw-0005ab-0n-H",
  "../../etc/passwd-H\nroot 0 0\n<>\n1 0\nXX\n0\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0\n<>\n1 0\nXX\n0\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<\n1 0\nXX\n0\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1\nXX\n0\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nYX a\n0\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nYN a\n0\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nXX\n2\na@b\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nXX\n4000000000\na@b\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nXX\n1\na@b  0,7#1\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nXX\n1\na@b x 9,0#1\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nXX\n0\n\n999  X: y\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nXX\n0\n\n004  X: y\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\n-aclm 0 99\nx\nXX\n0\n\n",
  "1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\n-frozen x\nXX\n0\n\n",
};

static void test_bad(void **state) {
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int rc;
    struct message *m = decode(bad[i], &rc);
    if (rc != -EINVAL)
      fail_msg("accepted: %s", bad[i]);
    message_free(m);
  }
  int rc;
  struct message *m = decode("1xUaYw-0005ab-0n-H\nroot 0 0\n<>\n1 0\nXX\n0\n\n", &rc);
  assert_int_equal(rc, 0);
  message_free(m);
}

static void test_unwritable(void **state) {
  struct message *m = message_new("test");
  struct buf out;
  message_make_id(m, -1);
  m->originator_login = STR("me");
  message_add_recipient(m, STR("a@b\nXX"));
  buf_init(&out, m->arena, SPOOL_HEADER_MAX);
  assert_int_equal(spool_encode(m, &out), -EINVAL);
  m->recipients.n = 0;
  m->client.helo_name = str_tainted(STR("a\n-frozen 0"));
  buf_init(&out, m->arena, SPOOL_HEADER_MAX);
  assert_int_equal(spool_encode(m, &out), 0);
  assert_true(str_find(buf_str(&out), STR("--helo_name a -frozen 0\n")) > 0);
  buf_init(&out, m->arena, 20);
  assert_int_equal(spool_encode(m, &out), -EMSGSIZE);
  message_free(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_decode),
    cmocka_unit_test(test_tls_lines),
    cmocka_unit_test(test_round_trip),
    cmocka_unit_test(test_damaged),
    cmocka_unit_test(test_bad),
    cmocka_unit_test(test_unwritable),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
