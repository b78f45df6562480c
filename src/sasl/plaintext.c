/* The plaintext authenticator: PLAIN and LOGIN (Exim manual, chapter "The
plaintext authenticator"). */
#include "base/encode.h"
#include "base/buf.h"
#include "core/module.h"
#include "expand/expand.h"
#include "match/match.h"
#include "sasl/drivers.h"

#define ITEMS_MAX 4

struct plaintext_options {
  struct option_expr server_prompts;
  struct str client_send;
  bool client_ignore_invalid_base64;
};

#define AT(field) offsetof(struct plaintext_options, field)
static const struct option_def options[] = {
    {"client_ignore_invalid_base64", OPTION_BOOL, AT(client_ignore_invalid_base64)},
    {"client_send", OPTION_STRING, AT(client_send)},
    {"server_prompts", OPTION_EXPR, AT(server_prompts)},
    OPTIONS_END,
};

static bool is_server(const struct instance *i) {
  const struct authenticator_options *g = i->generic;
  return str_is_set(g->server_condition.text);
}

static bool is_client(const struct instance *i) {
  const struct plaintext_options *o = i->options;
  return str_is_set(o->client_send);
}

/* Takes NUL-separated strings apart into $auth<n>. */
static int take_strings(struct ctx *c, struct str data, int n) {
  struct str rest = data;
  do {
    struct str item = str_cut(&rest, 0);
    if (n < ITEMS_MAX)
      sasl_set_auth(c, ++n, item);
  } while (str_is_set(rest));
  return n;
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io, struct str *ret_text) {
  const struct plaintext_options *o = i->options;
  const struct authenticator_options *g = i->generic;
  struct str prompts = STR_EMPTY;
  int have = 0, asked = 0;
  if (str_is_set(o->server_prompts.text)) {
    int rc = expand_option(c, &o->server_prompts, &prompts);
    if (rc) {
      *ret_text = c->error;
      return SASL_DEFER;
    }
  }
  if (str_is_set(initial)) /* "=" is an empty string */
    have = take_strings(c, initial, 0);
  struct list_iter iter;
  struct str prompt;
  list_iter_init(&iter, c->arena, prompts);
  while (list_next(&iter, &prompt)) {
    /* A prompt whose answer came already is not asked. */
    if (asked++ < have)
      continue;
    struct str response;
    int rc = io->challenge(io->arg, prompt, &response, ret_text);
    if (rc == OUTCOME_FAIL)
      return SASL_CANCELLED;
    if (rc)
      return SASL_GONE;
    have = take_strings(c, response, have);
  }
  return sasl_condition(c, &g->server_condition, "server_condition", ret_text);
}

/* ---- client ---- */

/* "^" becomes NUL, "^^" a circumflex. */
static struct str carets(struct ctx *c, struct str s) {
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_LINE);
  for (uint32_t i = 0; i < s.len; i++) {
    if (s.p[i] != '^')
      buf_add_n(&b, s.p + i, 1);
    else if (i + 1 < s.len && s.p[i + 1] == '^')
      buf_add_n(&b, s.p + i++, 1);
    else
      buf_add_byte(&b, 0);
  }
  b.taint = str_taint_join(b.taint, s.taint);
  return buf_str(&b);
}

static enum sasl_result client(struct ctx *c, const struct instance *i, const struct sasl_io *io, struct str *ret_text) {
  const struct plaintext_options *o = i->options;
  struct list_iter iter;
  struct str item;
  bool first = true;
  int code = 0, n = 0;
  *ret_text = STR_UNSET;
  sasl_clear_auth(c);
  list_iter_init(&iter, c->arena, o->client_send);
  while (list_next(&iter, &item)) {
    struct str text, challenge;
    if (!first && code != 334)
      break; /* the server wants no more */
    int rc = expand_text(c, item, &text);
    if (rc) {
      *ret_text = rc == OUTCOME_FORCED ? STR_UNSET : sasl_client_expansion_failed(c, item);
      if (!first && io->converse(io->arg, STR("*"), &code, &challenge))
        return SASL_GONE;
      return rc == OUTCOME_FORCED ? SASL_CANCELLED : SASL_ERROR;
    }
    struct str data = base64_encode(c->arena, carets(c, text));
    struct str line = data;
    if (first)
      line = str_printf(c->arena, "AUTH %.*s%s%.*s", STRF(sasl_public_name(i)), data.len ? " " : "", STRF(data));
    first = false;
    rc = io->converse(io->arg, line, &code, &challenge);
    if (rc)
      return SASL_GONE;
    *ret_text = challenge;
    if (code / 100 == 2)
      return SASL_OK;
    if (code != 334)
      return code / 100 == 4 ? SASL_DEFER : SASL_FAIL;
    struct str decoded;
    if (!base64_decode(c->arena, challenge, false, &decoded)) {
      if (!o->client_ignore_invalid_base64) {
        io->converse(io->arg, STR("*"), &code, &challenge);
        *ret_text = str_printf(c->arena, "Invalid base64 string in server response \"334 %.*s\"", STRF(*ret_text));
        return SASL_CANCELLED;
      }
      decoded = STR_EMPTY;
    }
    sasl_set_auth(c, ++n, decoded);
  }
  /* The server still asks, but there is nothing more to say: with a text that is a strange server, without one it did not
  take what came with AUTH. */
  if (str_is_set(*ret_text) && ret_text->len > 0)
    return SASL_DEFER;
  return sasl_client_cancel(c, io, STR("Invalid base64 string in server response \"334\""), ret_text);
}

const struct authenticator_def sasl_plaintext = {
    .driver = {.name = "plaintext", .class = DRIVER_AUTHENTICATOR, .options = options, .options_size = sizeof(struct plaintext_options),
        .summary = "PLAIN and LOGIN"},
    .is_server = is_server,
    .is_client = is_client,
    .server = server,
    .client = client,
};
