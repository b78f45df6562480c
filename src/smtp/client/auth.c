/* AUTH as a client (RFC 4954): the authenticators in order of configuration,
as far as the server knows their mechanism, until one succeeds. */

#include <string.h>

#include "expand/expand.h"
#include "log/log.h"
#include "sasl/authenticator.h"
#include "smtp/client/client.h"
#include "transport/event.h"

struct conversation {
  struct ctx *c;
  struct smtp_connection *n;
  int64_t timeout;
};

/* The line with asterisks instead of what may be a secret. */
static struct str masked(struct arena *a, struct str line) {
  size_t open = 0;
  if (str_starts(line, STR("AUTH "))) {
    ptrdiff_t blank = str_find_byte(str_from(line, 5), ' ');
    open = blank < 0 ? line.len : 5 + (size_t)blank + 1;
  }
  struct str shown = str_dup(a, line);
  memset((char *)(uintptr_t)shown.p + open, '*', shown.len - open);
  return shown;
}

static int converse(void *arg, struct str line, int *ret_code, struct str *ret_text) {
  struct conversation *v = arg;
  bool first = str_starts(line, STR("AUTH "));
  struct str shown = masked(v->c->arena, line);
  if (first)
    smtp_note_step(v->n, 'a');
  if (!v->n->tls && smtp_early_settle(v->c, v->n)) /* no secrets in clear before we know who listens */
    return OUTCOME_ERROR;
  if (stream_write(v->n->stream, line) || stream_write(v->n->stream, STR("\r\n")) || stream_flush(v->n->stream))
    return OUTCOME_ERROR;
  v->n->command = shown; /* secrets stay out of messages and logs */
  v->n->command_pipelined = false;
  DEBUG(transport, "  SMTP>> %.*s\n", STRF(shown));
  if (smtp_early_settle(v->c, v->n) || smtp_read_reply(v->c, v->n, v->timeout))
    return OUTCOME_ERROR;
  *ret_code = v->n->reply.code;
  *ret_text = v->n->reply.text.len > 4 ? str_from(v->n->reply.text, 4) : STR_EMPTY;
  return 0;
}

static bool offered(struct smtp_connection *n, struct str name) {
  struct str rest = n->offers.auth_mechanisms;
  while (str_is_set(rest) && rest.len)
    if (str_ieq(str_cut(&rest, ' '), name))
      return true;
  return false;
}

/* client_condition; when it does not expand this one is skipped, too. */
static bool wanted(struct ctx *c, const struct instance *i) {
  const struct authenticator_options *g = i->generic;
  struct str value;
  int rc = expand_option(c, &g->client_condition, &value);
  if (rc == OUTCOME_ERROR)
    log_write(LOG_MAIN | LOG_PANIC, c->message, "failed to expand condition \"%.*s\" for %.*s client authenticator: %.*s",
        STRF(g->client_condition.text), STRF(i->name), STRF(c->error));
  if (rc != 0)
    return false;
  bool no = str_is_set(value) && (value.len == 0 || str_eq_c(value, "0") || str_ieq_c(value, "no") || str_ieq_c(value, "false"));
  return !no;
}

/* Nothing more can be done with this host for now. */
static enum smtp_auth_result give_up(struct smtp_connection *n, const struct instance *i, struct str why) {
  if (str_find(why, str_printf(n->arena, "in %.*s authenticator", STRF(i->name))) >= 0) /* it names itself */
    n->error_text = str_dup(n->arena, why);
  else
    n->error_text = str_printf(n->arena, "%.*s authenticator: %.*s", STRF(i->name), STRF(why));
  return SMTP_AUTH_ERROR;
}

static void note_success(struct ctx *c, struct smtp_connection *n, const struct instance *i) {
  const struct authenticator_options *g = i->generic;
  struct str id;
  n->auth_name = i->name;
  if (expand_option(c, &g->client_set_id, &id) == 0 && str_is_set(id))
    n->auth_id = str_dup(n->arena, id);
}

/* The event auth:fail, after a 5xx. What it says stands in the log instead of the usual line. */
static struct str event_text(struct ctx *c, struct smtp_connection *n, const struct instance *i) {
  struct str saved = c->client->host_authenticated, text = STR_EMPTY;
  if (n->reply.code / 100 != 5 || !event_wanted(c, n->transport))
    return STR_EMPTY;
  c->client->host_authenticated = i->name;
  (void)event_raise(c, n->transport, "auth:fail", n->reply.text, 0, &text);
  c->client->host_authenticated = saved;
  return text;
}

enum smtp_auth_result smtp_authenticate(struct ctx *c, struct smtp_connection *n) {
  struct conversation v = {.c = c, .n = n, .timeout = smtp_client_options(n->transport)->command_timeout};
  const struct sasl_io io = {.arg = &v, .converse = converse};
  enum smtp_auth_result result = SMTP_AUTH_NONE;
  for (const struct instance *i = c->config->drivers[DRIVER_AUTHENTICATOR]; i; i = i->next) {
    const struct authenticator_def *d = (const struct authenticator_def *)i->driver;
    if (d->not_smtp || !d->client || !d->is_client || !d->is_client(i) || !offered(n, sasl_public_name(i)) || !wanted(c, i))
      continue;
    struct str text = STR_EMPTY;
    const struct instance *saved = c->authenticator;
    c->authenticator = i;
    enum sasl_result r = d->client(c, i, &io, &text);
    if (r == SASL_OK)
      note_success(c, n, i);
    c->authenticator = saved;
    sasl_clear_auth(c);
    if (r == SASL_OK)
      return SMTP_AUTH_OK;
    if (r == SASL_GONE)
      return SMTP_AUTH_BROKEN;
    if (r == SASL_CANCELLED && !str_is_set(text)) {
      result = SMTP_AUTH_FAILED;
      continue;
    }
    if (r == SASL_ERROR)
      return give_up(n, i, text);
    if (r == SASL_DEFER)
      return SMTP_AUTH_TEMPORARY;
    result = SMTP_AUTH_FAILED;
    if (r == SASL_CANCELLED) {
      log_write(LOG_MAIN, c->message, "%.*s authenticator cancelled authentication H=%.*s [%.*s] %.*s", STRF(i->name), STRF(n->host_name),
          STRF(n->host_address), STRF(log_printable(c->arena, text)));
      continue;
    }
    struct str said = event_text(c, n, i);
    if (said.len) {
      log_write(LOG_MAIN, c->message, "%.*s", STRF(log_printable(c->arena, said)));
      continue;
    }
    log_write(LOG_MAIN, c->message, "%.*s authenticator failed H=%.*s [%.*s] %.*s", STRF(i->name), STRF(n->host_name),
        STRF(n->host_address), STRF(log_printable(c->arena, n->reply.text)));
  }
  return result;
}
