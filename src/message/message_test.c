#include "base/test.h"

#include "message/message.h"

static void test_headers(void **state) {
  struct message *m = message_new("test");
  message_add_header(m, 0, STR("Subject: a\n b \n"));
  message_add_header(m, 0, STR("resent-TO : x@y"));
  message_prepend_header(m, 0, STR("Received: x\n"));
  struct header *h = message_insert_header(m, m->headers, 0, STR("From: a\n"));
  assert_ptr_equal(m->headers->next, h);
  assert_int_equal(m->headers->type, HEADER_RECEIVED);
  h = message_find_header(m, STR("subject"), NULL);
  assert_str(header_value(h), "a\n b");
  assert_int_equal(h->type, HEADER_OTHER);
  h = message_find_header(m, STR("Resent-To"), NULL);
  assert_int_equal(h->type, HEADER_TO);
  assert_str(h->text, "resent-TO : x@y\n");
  assert_str(header_value(h), "x@y");
  h->type = HEADER_DELETED;
  assert_null(message_find_header(m, STR("Resent-To"), NULL));
  h = message_insert_header(m, h, 0, STR("X: last\n"));
  message_add_header(m, 0, STR("Y: behind\n"));
  assert_str(h->next->text, "Y: behind\n");
  assert_int_equal(header_name_length(STR("no colon here: x")), 0);
  assert_int_equal(header_name_length(STR("a\t :x")), 1);
  message_free(m);
}

static void test_recipients(void **state) {
  struct message *m = message_new("test");
  message_add_recipient(m, STR("a@b"));
  assert_int_equal(m->recipients.v[0].parent, -1);
  assert_false(message_is_nonrecipient(m, STR("a@b")));
  message_add_nonrecipient(m, STR("a@b"));
  assert_true(message_is_nonrecipient(m, STR("a@b")));
  assert_false(message_is_nonrecipient(m, STR("A@b")));
  message_free(m);
}

static void test_ids(void **state) {
  struct message *m = message_new("test");
  m->received_time = (struct timeval){1800000000, 999999};
  char first[24];
  message_make_id(m, -1);
  assert_true(message_id_valid(str_c(m->id)));
  assert_int_equal(strlen(m->id), MESSAGE_ID_LEN);
  assert_int_equal(message_id_time(str_c(m->id)), 1800000000);
  assert_string_equal(m->id + 18, "-4C91");
  memcpy(first, m->id, sizeof first);
  message_make_id(m, -1);
  assert_true(strcmp(first, m->id) < 0);
  assert_int_equal(message_id_time(str_c(m->id)), 1800000001);
  message_free(m);
  assert_true(message_id_valid(STR("10HmaX-0005vi-00")));
  assert_false(message_id_valid(STR("10HmaX-0005vi-00x")));
  assert_false(message_id_valid(STR("10HmaX-0005vi_00")));
  assert_false(message_id_valid(STR("10HmaX-../../-00")));
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_headers),
    cmocka_unit_test(test_recipients),
    cmocka_unit_test(test_ids),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
