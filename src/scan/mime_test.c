#include "scan/mime.h"

#include "base/arena.h"
#include "base/test.h"

static struct arena *arena;

static struct mime_header parse(const char *field) {
  struct mime_header h = {0};
  mime_header_field(&h, arena, str_c(field));
  return h;
}

static void assert_text(struct str got, const char *want) {
  assert_true(str_is_set(got));
  assert_string_equal(str_dup_c(arena, got), want);
}

static void test_fields(void **state) {
  struct mime_header h = parse("Content-Type: Text/PLAIN ; charset = \"UTF-8\" (comment); name=a\n");
  assert_text(h.content_type, "text/plain");
  assert_text(h.charset, "UTF-8 (comment)");
  assert_text(h.filename, "a");
  h = parse("content-type : text/plain; charset=\"utf-8\"\"\n");
  assert_text(h.charset, "utf-8;");
  h = parse("Content-Type: multipart/mixed;\n\tboundary=\"a b  c\"\n");
  assert_text(h.boundary, "a b  c");
  assert_true(mime_is_multipart(&h));
  h = parse("Content-ID: <A b>\n");
  assert_text(h.content_id, "<ab>");
  h = parse("Content-Disposition: (x) inline; filename=a\tb\"c\td\"e\n");
  assert_text(h.content_disposition, "inline");
  assert_text(h.filename, "abcde");
  h = parse("X-Content-Type: text/plain\n");
  assert_false(str_is_set(h.content_type));
}

static void test_names(void **state) {
  struct mime_header h = parse("Content-Disposition: attachment; filename*0=\"a\"; filename*2=c; filename*1*=%62%c3\n");
  assert_text(h.filename, "ab\xc3" "c");
  h = parse("Content-Disposition: attachment; filename*0*=utf-8'en'a%C3%A9; filename*1=b%41; filename*2*=%41\n");
  assert_text(h.filename, "a\xc3\xa9" "b%41A");
  assert_text(h.filename_charset, "utf-8");
  h = parse("Content-Type: a/b; name*=''x%20y%2\n");
  assert_text(h.filename, "x y%2");
  assert_text(h.filename_charset, "");
  h = parse("Content-Type: a/b; name*1=x; name*100=y\n");
  assert_false(str_is_set(h.filename));
}

static void test_delimiters(void **state) {
  bool end = true;
  assert_int_equal(mime_delimiter(str_c("--ab\n"), str_c("ab"), &end), 2);
  assert_false(end);
  assert_int_equal(mime_delimiter(str_c("--ab-- \r\n"), str_c("ab"), &end), 2);
  assert_true(end);
  assert_int_equal(mime_delimiter(str_c("--abc\n"), str_c("ab"), &end), 1);
  assert_int_equal(mime_delimiter(str_c("--a"), str_c("ab"), &end), 0);
  assert_int_equal(mime_delimiter(str_c(" --ab\n"), str_c("ab"), &end), 0);
}

static void assert_decodes(enum mime_encoding encoding, const char *text, const char *want, bool broken) {
  struct mime_decoder d = {.encoding = encoding}, whole = d;
  struct str rest = str_c(text);
  char out[1000];
  size_t all = mime_decode(&whole, rest, out);
  mime_decode_end(&whole);
  out[all] = '\0';
  assert_string_equal(out, want);
  assert_int_equal(whole.broken, broken);
  size_t n = 0;
  while (str_is_set(rest) && rest.len > 0) {
    ptrdiff_t lf = str_find_byte(rest, '\n');
    struct str line = str_slice(rest, 0, lf < 0 ? rest.len : (size_t)lf + 1);
    rest = str_from(rest, line.len);
    n += mime_decode(&d, line, out + n);
  }
  mime_decode_end(&d);
  out[n] = '\0';
  assert_string_equal(out, want);
  assert_int_equal(d.broken, broken);
}

static void test_decoding(void **state) {
  assert_decodes(MIME_BASE64, "aGVs\nbG8g\nd29ybGQ=\n", "hello world", false);
  assert_decodes(MIME_BASE64, "aGVs bG8gd29y\r\nbG\nQ=", "hello world", false);
  assert_decodes(MIME_BASE64, "aGVsbA==", "hell", false);
  assert_decodes(MIME_BASE64, "aGVs!!bA==", "hell", true);
  assert_decodes(MIME_BASE64, "aGVsbA==aGVs", "hellhel", true);
  assert_decodes(MIME_BASE64, "aGVsbA", "hell", true);
  assert_decodes(MIME_BASE64, "====", "", true);
  assert_decodes(MIME_QUOTED, "a=41=\nb =   \nc  \n", "aAb c\n", false);
  assert_decodes(MIME_QUOTED, "=zz=4\n", "=zz=4\n", true);
  assert_decodes(MIME_QUOTED, "=c3=A9", "\xc3\xa9", false);
  assert_decodes(MIME_IDENTITY, "=41\n", "=41\n", false);
}

int main(void) {
  arena = arena_new("test");
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_fields), cmocka_unit_test(test_names), cmocka_unit_test(test_delimiters), cmocka_unit_test(test_decoding),
  };
  int rc = cmocka_run_group_tests(tests, NULL, NULL);
  arena_free(arena);
  return rc;
}
