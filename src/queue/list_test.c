#include "queue/test_spool.h"

#include <time.h>
#include "expand/expand.h"
#include "queue/list.h"

static char first[24], second[24];

static void new_message(char *id, uint32_t uid, bool frozen) {
  struct message *m = message_new("test");
  m->originator_login = STR("user");
  m->originator_uid = uid;
  m->reverse_path = STR("s@q.test");
  m->received_time.tv_sec = time(NULL) - 25 * 60;
  m->reverse_path_set_untrusted = uid != 0;
  m->frozen = frozen;
  message_add_recipient(m, STR("a@b"));
  message_add_recipient(m, STR("c@d"));
  message_add_nonrecipient(m, STR("c@d"));
  message_add_nonrecipient(m, STR("child@d"));
  message_add_header(m, 0, STR("Subject: x\n"));
  message_add_header(m, HEADER_DELETED, STR("To: old\n"));
  assert_int_equal(spool_data_open(ctx, m), 0);
  assert_int_equal(spool_data_write(ctx, m, STR("line\n")), 0);
  assert_int_equal(spool_commit(ctx, m), 0);
  memcpy(id, m->id, 24);
  message_free(m);
}

static int setup(void **state) {
  if (test_spool_open("list_test"))
    return -1;
  new_message(first, 0, false);
  new_message(second, 77, true);
  return 0;
}

/* What is printed, with the ids as FIRST and SECOND. */
static struct str shown(char *text) {
  struct buf b;
  buf_init(&b, arena, 1 << 20);
  for (char *p = text; *p;) {
    bool is_first = strncmp(p, first, 23) == 0;
    if (is_first || strncmp(p, second, 23) == 0) {
      buf_add_c(&b, is_first ? "FIRST" : "SECOND");
      p += 23;
    } else {
      buf_add_byte(&b, *p++);
    }
  }
  free(text);
  return buf_str(&b);
}

static struct str list(struct queue_list l) {
  char *text;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  assert_int_equal(queue_list(ctx, &l, out), 0);
  fclose(out);
  return shown(text);
}

static struct str manage(const char *id, struct queue_manage q, bool expected) {
  char *text;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  q.login = "tester";
  bool done = queue_manage(ctx, str_c(id), &q, out);
  fclose(out);
  if (done != expected)
    fail_msg("%s", text);
  return shown(text);
}

static void test_list(void **state) {
  assert_str(list((struct queue_list){0}), "25m    16 FIRST <s@q.test>\n          a@b\n        D c@d\n\n"
                                           "25m    16 SECOND (user) <s@q.test> *** frozen ***\n"
                                           "          a@b\n        D c@d\n\n");
  struct str id = str_c(first);
  assert_str(list((struct queue_list){.with_generated = true, .ids = &id, .n = 1}),
    "25m    16 FIRST <s@q.test>\n          a@b\n        D c@d\n       +D child@d\n\n");
  assert_str(list((struct queue_list){.undelivered_only = true, .own_only = true, .uid = 77}),
    "25m    16 SECOND (user) <s@q.test> *** frozen ***\n          a@b\n\n");
  assert_str(list((struct queue_list){.ids_only = true}), "FIRST\nSECOND\n");
  assert_str(list((struct queue_list){.queue_name = STR("other")}), "");
}

#define MANY 150 /* more than are read in one go, and enough for summaries */

/* Without a text the file goes. */
static void put(const char *name, const char *text) {
  char path[200];
  snprintf(path, sizeof path, "%s/many/%s", root, name);
  FILE *f = text ? fopen(path, "w") : NULL;
  if (f) {
    fputs(text, f);
    fclose(f);
  } else {
    assert_int_equal(unlink(path), 0);
  }
}

/* As others have put them there. Those that cannot be read are not in the way of the rest; the second time most come from
their summaries. */
static void test_many(void **state) {
  struct buf wanted;
  buf_init(&wanted, arena, 1 << 20);
  for (int i = 0; i < MANY; i++) {
    struct message *m = message_new("test");
    m->queue_name = STR("many");
    m->reverse_path = str_printf(m->arena, "s%d@q.test", i);
    m->received_time.tv_sec = time(NULL) - 25 * 60;
    message_add_recipient(m, STR("a@b"));
    assert_int_equal(spool_data_open(ctx, m), 0);
    assert_int_equal(spool_commit(ctx, m), 0);
    if (i == 70)
      put(str_printf(m->arena, "input/%s-H", m->id).p, "no spool file\n");
    if (i == 100)
      put(str_printf(m->arena, "input/%s-D", m->id).p, NULL);
    if (i == 70)
      buf_printf(&wanted, "      %s\n    *** spool format error: size=14 ***\n\n", m->id);
    else if (i != 100)
      buf_printf(&wanted, "25m       %s <s%d@q.test>\n          a@b\n\n", m->id, i);
    message_free(m);
  }
  put("summary/messages", NULL);
  buf_add_byte(&wanted, 0);
  for (int i = 0; i < 2; i++)
    assert_str(list((struct queue_list){.queue_name = STR("many")}), buf_str(&wanted).p);
}

static void test_freeze(void **state) {
  struct queue_manage f = {.action = QUEUE_FREEZE, .admin = true}, t = {.action = QUEUE_THAW, .admin = true};
  assert_str(manage(first, f, true), "Message FIRST is now frozen\n");
  assert_str(manage(first, f, false), "Message FIRST is already frozen\n");
  assert_str(manage(first, t, true), "Message FIRST is no longer frozen\n");
  assert_str(manage(first, t, false), "Message FIRST is not frozen\n");
  t.admin = false;
  assert_str(manage(second, t, false), "Permission denied\n");
}

static void test_remove(void **state) {
  struct queue_manage r = {.action = QUEUE_REMOVE, .uid = 77};
  assert_str(manage(first, r, false), "Permission denied\n");
  assert_str(manage(second, r, true), "Message SECOND has been removed\n");
  r.admin = true;
  assert_str(manage(second, r, false),
    "Spool data file for SECOND does not exist\nContinuing, to ensure all files removed\n"
    "Spool read error for SECOND-H: No such file or directory\nContinuing to ensure all files removed\n"
    "Message SECOND has been removed or did not exist\n");
  struct message *m;
  assert_int_equal(spool_read_message(ctx, STR_EMPTY, str_c(first), true, &m), SPOOL_OK);
  assert_str(manage(first, r, false), "Message FIRST is locked\n");
  message_free(m);
  assert_str(manage(first, r, true), "Message FIRST has been removed\n");
  assert_str(list((struct queue_list){0}), "");
}

static void test_edit(void **state) {
  struct str a[] = {STR("new@x.test"), STR("Fred <new2@x.test>")}, bad[] = {STR("x@@y")}, unqualified[] = {STR("x")};
  struct queue_manage q = {.action = QUEUE_ADD_RECIPIENT, .admin = true, .addresses = a, .n = 2};
  assert_str(manage(first, q, true), "Message FIRST has been modified\n");
  q.addresses = bad;
  q.n = 1;
  assert_str(manage(first, q, false),
    "Message FIRST - error while adding recipient:\n  bad address x@@y: domain missing or malformed\n");
  q.addresses = unqualified;
  assert_str(manage(first, q, false), "Message FIRST - error while adding recipient:\n  bad address x: domain missing\n");
  q.n = 0;
  assert_str(manage(first, q, false), "Message FIRST - error while adding recipient: no address given\n");
  struct str mark[] = {STR("new@x.test")}, nobody[] = {STR("nobody@x")}, empty[] = {STR("<>"), STR("a@b")};
  q = (struct queue_manage){.action = QUEUE_MARK, .admin = true, .addresses = mark, .n = 1};
  assert_str(manage(first, q, true), "Message FIRST has been modified\n");
  q.addresses = nobody;
  assert_str(manage(first, q, false),
    "Message FIRST - error while marking as delivered:\n  nobody@x is not a recipient: message not updated\n");
  q = (struct queue_manage){.action = QUEUE_EDIT_SENDER, .admin = true, .addresses = empty, .n = 2};
  assert_str(manage(first, q, false), "Message FIRST - only one sender address can be specified\n");
  q.n = 1;
  assert_str(manage(first, q, true), "Message FIRST has been modified\n");
  struct str id = str_c(first);
  assert_str(list((struct queue_list){.ids = &id, .n = 1}),
    "25m    16 FIRST <>\n          a@b\n        D c@d\n        D new@x.test\n          new2@x.test\n\n");
  q = (struct queue_manage){.action = QUEUE_MARK_ALL, .admin = true};
  assert_str(manage(first, q, true), "Message FIRST has been modified\n");
  assert_str(list((struct queue_list){.ids = &id, .n = 1, .undelivered_only = true}), "25m    16 FIRST <>\n\n");
}

static void test_show(void **state) {
  assert_str(manage(first, (struct queue_manage){.action = QUEUE_SHOW_BODY, .admin = true}, true), "FIRST-D\nline\n");
  assert_str(manage(first, (struct queue_manage){.action = QUEUE_SHOW_COPY, .admin = true}, true),
    "Subject: x\n\nline\n");
  struct str h = manage(first, (struct queue_manage){.action = QUEUE_SHOW_HEADER, .admin = true}, true);
  assert_true(str_starts(h, STR("FIRST-H\nuser 0 0\n<s@q.test>\n")));
  assert_str(manage(first, (struct queue_manage){.action = QUEUE_SHOW_LOG, .admin = true}, false),
    "Failed to open msglog file for FIRST: No such file or directory\n");
  assert_str(manage(first, (struct queue_manage){.action = QUEUE_SHOW_BODY}, false), "Permission denied\n");
}

static void test_move(void **state) {
  struct queue_manage q = {.action = QUEUE_MOVE, .admin = true, .to_queue = STR("slow")};
  assert_str(manage(first, q, true), "Message FIRST \n");
  assert_str(list((struct queue_list){.ids_only = true}), "SECOND\n");
  assert_str(list((struct queue_list){.queue_name = STR("slow"), .ids_only = true}), "FIRST\n");
  q.queue_name = STR("slow");
  q.to_queue = STR_EMPTY;
  assert_str(manage(first, q, true), "Message FIRST \n");
  assert_str(list((struct queue_list){.ids_only = true}), "FIRST\nSECOND\n");
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, test_spool_remove)
  const struct CMUnitTest tests[] = {TEST(test_list), TEST(test_many), TEST(test_freeze), TEST(test_remove),
    TEST(test_edit), TEST(test_show), TEST(test_move)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
