#include "base/arena.h"
#include "base/encode.h"
#include "base/hash.h"
#include "base/test.h"
#include "core/module.h"
#include "sasl/drivers.h"


static struct arena *a;
static struct ctx *c;
static struct instance *instance;

static void start(const char *options) {
  struct config_source s = {.paths = STR("test")};
  struct config *config;
  struct str errors;
  s.text = str_printf(a, "primary_hostname = h.example\nbegin authenticators\ncram:\n driver = cram_md5\n"
                         " public_name = CRAM-MD5\n%s", options);
  if (config_read(&s, a, &config, &errors) != 0)
    fail_msg("%.*s", STRF(errors));
  c = ctx_new(a, config);
  instance = config_driver(config, DRIVER_AUTHENTICATOR, STR("cram"));
}

static int setup(void **state) {
  a = arena_new("test");
  return 0;
}

static int teardown(void **state) {
  arena_free(a);
  return 0;
}

/* --- the server: a client that answers as told --- */

struct answer {
  const char *user, *secret;
  bool upper, raw; /* raw: `secret` is sent as it is, without a digest */
  int result;
  struct str challenge;
};

static int answer_challenge(void *arg, struct str challenge, struct str *ret, struct str *ret_reply) {
  struct answer *w = arg;
  w->challenge = challenge;
  if (w->result != 0)
    return w->result;
  struct str digest = w->raw ? str_c(w->secret) : hmac_hex(a, "md5", str_c(w->secret), challenge);
  if (w->upper)
    digest = str_upper(a, digest);
  *ret = str_printf(a, "%s %.*s", w->user, STRF(digest));
  return 0;
}

static enum sasl_result serve(struct answer *w, struct str initial, struct str *ret_text) {
  const struct sasl_io io = {.arg = w, .challenge = answer_challenge};
  *ret_text = STR_EMPTY;
  return sasl_cram_md5.server(c, instance, initial, &io, ret_text);
}

static void server_accepts(void **state) {
  struct str text;
  start(" server_secret = ${if eq{$auth1}{tim o}{tanstaaf}fail}\n");
  assert_true(sasl_cram_md5.is_server(instance));
  assert_false(sasl_cram_md5.is_client(instance));
  struct answer w = {.user = "tim o", .secret = "tanstaaf"};
  assert_int_equal(serve(&w, STR_UNSET, &text), SASL_OK);
  assert_int_equal(w.challenge.p[0], '<');
  assert_true(str_ends(w.challenge, STR("@h.example>")));
  assert_str(c->auth[0], "tim o");
  assert_true(str_is_tainted(c->auth[0]));
  struct str first = w.challenge;
  w.upper = true;
  assert_int_equal(serve(&w, STR_UNSET, &text), SASL_OK);
  assert_false(str_eq(first, w.challenge));
}

static void server_refuses(void **state) {
  struct str text;
  start(" server_secret = ${if eq{$auth1}{tim}{tanstaaf}fail}\n");
  struct answer wrong = {.user = "tim", .secret = "other"}, unknown = {.user = "tom", .secret = "tanstaaf"},
                short_one = {.user = "tim", .secret = "abc", .raw = true},
                no_digest = {.user = "", .secret = "", .raw = true}, gone = {.result = OUTCOME_ERROR},
                cancelled = {.result = OUTCOME_FAIL}, good = {.user = "tim", .secret = "tanstaaf"};
  assert_int_equal(serve(&wrong, STR_UNSET, &text), SASL_FAIL);
  assert_int_equal(serve(&unknown, STR_UNSET, &text), SASL_FAIL);
  assert_int_equal(serve(&short_one, STR_UNSET, &text), SASL_FAIL);
  assert_int_equal(serve(&no_digest, STR_UNSET, &text), SASL_FAIL);
  assert_int_equal(serve(&gone, STR_UNSET, &text), SASL_GONE);
  assert_int_equal(serve(&cancelled, STR_UNSET, &text), SASL_CANCELLED);
  assert_int_equal(serve(&good, STR("initial"), &text), SASL_UNEXPECTED);
}

static void server_condition_and_errors(void **state) {
  struct str text;
  struct answer w = {.user = "tim", .secret = "s"};
  start(" server_secret = s\n server_condition = ${if eq{$auth1}{tim}{no}{yes}}\n");
  assert_int_equal(serve(&w, STR_UNSET, &text), SASL_FAIL);
  start(" server_secret = ${nosuchitem{x}}\n");
  assert_int_equal(serve(&w, STR_UNSET, &text), SASL_DEFER);
  assert_true(text.len > 0);
}

/* --- the client: the server of RFC 2195's example --- */

struct dialogue {
  const char *challenge; /* base64 */
  int final;
  struct str last;
  int n;
};

static int converse(void *arg, struct str line, int *ret_code, struct str *ret_text) {
  struct dialogue *d = arg;
  d->last = line;
  *ret_code = d->n == 0 ? 334 : d->final;
  *ret_text = d->n == 0 ? str_c(d->challenge) : STR("text");
  d->n++;
  return 0;
}

static enum sasl_result talk(struct dialogue *d, struct str *ret_text) {
  const struct sasl_io io = {.arg = d, .converse = converse};
  return sasl_cram_md5.client(c, instance, &io, ret_text);
}

#define RFC_CHALLENGE "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"

static void client_answers(void **state) {
  struct str text;
  start(" client_name = tim\n client_secret = tanstaaftanstaaf\n");
  assert_true(sasl_cram_md5.is_client(instance));
  struct dialogue d = {.challenge = RFC_CHALLENGE, .final = 235};
  assert_int_equal(talk(&d, &text), SASL_OK);
  assert_str(d.last, "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw");
  d = (struct dialogue){.challenge = RFC_CHALLENGE, .final = 535};
  assert_int_equal(talk(&d, &text), SASL_FAIL);
  d = (struct dialogue){.challenge = RFC_CHALLENGE, .final = 454};
  assert_int_equal(talk(&d, &text), SASL_DEFER);
  d = (struct dialogue){.challenge = "!!", .final = 501};
  assert_int_equal(talk(&d, &text), SASL_CANCELLED);
  assert_str(d.last, "*");
  assert_str(text, "bad challenge: !!");
}

static void client_declines(void **state) {
  struct str text;
  struct dialogue d = {.challenge = RFC_CHALLENGE, .final = 235};
  start(" client_secret = ${if eq{a}{b}{c}fail}\n");
  assert_int_equal(talk(&d, &text), SASL_CANCELLED);
  assert_false(str_is_set(text));
  assert_int_equal(d.n, 0);
  start(" client_secret = ${nosuchitem{x}}\n");
  assert_int_equal(talk(&d, &text), SASL_ERROR);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
  const struct CMUnitTest all[] = {
    TEST(server_accepts), TEST(server_refuses), TEST(server_condition_and_errors), TEST(client_answers),
    TEST(client_declines),
  };
  return cmocka_run_group_tests(all, NULL, NULL);
}
