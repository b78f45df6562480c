/* AUTH (RFC 4954). */
#include <ctype.h>
#include <errno.h>

#include "base/encode.h"
#include "expand/expand.h"
#include "log/log.h"
#include "sasl/authenticator.h"
#include "smtp/server/internal.h"
#include "transport/event.h"

#define AUTH_DATA_MAX 12288 /* of a response, in base64 (RFC 4954, section 4) */

/* A text goes out, the response comes in decoded. */
static int prompt(void *arg, struct str text, struct str *ret_response, struct str *ret_reply) {
  struct smtp_session *s = arg;
  struct str line;
  smtp_say(s, "334 %.*s", STRF(text));
  int rc = smtp_flush(s) < 0 ? -EPIPE : smtp_read_line(s, &line);
  if (rc == -EMSGSIZE) {
    *ret_reply = STR("501 Invalid base64 data");
    return OUTCOME_FAIL;
  }
  if (rc <= 0) {
    smtp_input_ended(s, rc);
    return OUTCOME_ERROR;
  }
  line = str_trim(line);
  if (str_eq_c(line, "*")) {
    *ret_reply = STR("501 Authentication cancelled");
    return OUTCOME_FAIL;
  }
  if (line.len > AUTH_DATA_MAX || str_find_byte(line, '\t') >= 0 || !base64_decode(s->c->arena, line, false, ret_response)) {
    *ret_reply = STR("501 Invalid base64 data");
    return OUTCOME_FAIL;
  }
  ret_response->taint = STR_TAINTED;
  return 0;
}

static int challenge(void *arg, struct str text, struct str *ret_response, struct str *ret_reply) {
  struct smtp_session *s = arg;
  return prompt(arg, base64_encode(s->c->arena, text), ret_response, ret_reply);
}

static bool was_offered(struct smtp_session *s, struct str name) {
  struct str rest = s->auth_advertised;
  while (str_is_set(rest))
    if (str_ieq(str_trim(str_cut(&rest, ' ')), name))
      return true;
  return false;
}

/* The event auth:fail. What it says stands in the log instead of the usual line. */
static bool told_by_event(struct smtp_session *s, const struct instance *i, struct str reply, struct str set_id) {
  struct client *cl = s->c->client;
  struct str name = cl->host_authenticated, id = cl->authenticated_fail_id, text = STR_EMPTY;
  if (!event_wanted(s->c, NULL))
    return false;
  cl->host_authenticated = i->name;
  cl->authenticated_fail_id = set_id;
  (void)event_raise(s->c, NULL, "auth:fail", reply, 0, &text);
  cl->host_authenticated = name;
  cl->authenticated_fail_id = id;
  if (text.len)
    acl_log(s->c, LOG_MAIN | LOG_REJECT, "%.*s", STRF(log_printable(s->c->arena, text)));
  return text.len > 0;
}

/* An error text for the log: it may quote a query, and that a password. What server_set_id shows is none. */
static struct str without_secrets(struct ctx *c, struct str text, struct str id) {
  for (size_t n = 0; n < sizeof c->auth / sizeof *c->auth; n++) {
    struct str secret = c->auth[n], out = STR_EMPTY;
    ptrdiff_t at;
    if (!str_is_set(secret) || secret.len < 4 || str_find(id, secret) >= 0)
      continue;
    for (; (at = str_find(text, secret)) >= 0; text = str_from(text, (size_t)at + secret.len))
      out = str_printf(c->arena, "%.*s%.*s$auth%zu", STRF(out), STRF(str_slice(text, 0, (size_t)at)), n + 1);
    if (out.len > 0)
      text = str_printf(c->arena, "%.*s%.*s", STRF(out), STRF(text));
  }
  return text;
}

static enum smtp_next result(struct smtp_session *s, const struct instance *i, enum sasl_result r, struct str text) {
  struct ctx *c = s->c;
  struct str name = i->name, id = c->client->authenticated_fail_id, log = STR_EMPTY, set_id = STR_EMPTY, reply = STR_UNSET;
  bool has = str_is_set(text) && text.len > 0;
  if (str_is_set(id) && id.len > 0)
    set_id = str_printf(c->arena, " (set_id=%.*s)", STRF(log_printable(c->arena, id)));
  s->auth_failed = r != SASL_OK;
  switch (r) {
    case SASL_OK:
      smtp_set_protocol(s);
      s->auth_free = false;
      smtp_say(s, "235 Authentication succeeded");
      return SMTP_GO_ON;
    case SASL_FAIL:
      smtp_say(s, "535 Incorrect authentication data");
      reply = STR("535 Incorrect authentication data");
      log = str_printf(c->arena, "%.*s%.*s", STRF(reply), STRF(set_id));
      break;
    case SASL_DEFER:
      /* Why an expansion of ours failed is not for the client. */
      if (has && text.p == c->error.p)
        smtp_say(s, "435 Unable to authenticate at present");
      else
        smtp_say(s, "435 Unable to authenticate at present%s%.*s", has ? ": " : "", STRF(has ? text : STR_EMPTY));
      log = str_printf(c->arena, "435 Unable to authenticate at present%.*s%s%.*s", STRF(set_id), has ? ": " : "",
          STRF(has ? without_secrets(c, text, str_is_set(id) ? id : STR_EMPTY) : STR_EMPTY));
      break;
    case SASL_UNAVAILABLE:
      reply = STR("454 4.7.0 Temporary authentication failure");
      smtp_say(s, "%.*s", STRF(reply));
      log = str_printf(c->arena, "%.*s%.*s%s%.*s", STRF(reply), STRF(set_id), has ? ": " : "", STRF(has ? text : STR_EMPTY));
      break;
    case SASL_CANCELLED:
      smtp_say(s, "%.*s", STRF(text));
      log = text;
      break;
    case SASL_UNEXPECTED:
      log = STR("553 Initial data not expected");
      smtp_say(s, "%.*s", STRF(log));
      break;
    case SASL_GONE: return smtp_notquit(s, "connection-lost", "421", "%.*s lost input connection", STRF(s->hostname));
    default:
      log = str_printf(c->arena, "435 Internal error%.*s", STRF(set_id));
      smtp_say(s, "435 Internal error");
      break;
  }
  if (told_by_event(s, i, str_is_set(reply) ? reply : log, set_id))
    return SMTP_GO_ON;
  acl_log(c, LOG_MAIN | LOG_REJECT, "%.*s authenticator failed for %.*s: %.*s", STRF(name), STRF(client_log_text(c->arena, c->client, true)),
      STRF(log_printable(c->arena, log)));
  return SMTP_GO_ON;
}

enum smtp_next smtp_verb_auth(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  const struct acl_session *as = acl_session(c);
  s->auth_failed = true; /* until it succeeds */
  if (!s->ad_auth && !as->allow_auth_unadvertised)
    return smtp_synprot(s, true, 503, STR_UNSET, "AUTH command used when not advertised");
  if (str_is_set(c->client->host_authenticated) && c->client->host_authenticated.len > 0)
    return smtp_synprot(s, true, 503, STR_UNSET, "already authenticated");
  if (s->message)
    return smtp_synprot(s, true, 503, STR_UNSET, "not permitted in mail transaction");
  enum acl_result acl = smtp_acl(s, ACL_AUTH, &s->o->acl_smtp_auth, ACL_OK);
  if (acl != ACL_OK) { /* only the mechanism: what follows may be a password */
    struct str line = args, mechanism = str_cut(&line, ' ');
    return smtp_acl_refused(s, ACL_AUTH, acl, str_printf(c->arena, "AUTH %.*s", STRF(mechanism)));
  }
  struct str rest = args, name = str_cut(&rest, ' '), initial = STR_UNSET, text = STR_UNSET;
  for (uint32_t i = 0; i < name.len; i++)
    if (!isalnum((unsigned char)name.p[i]) && name.p[i] != '-' && name.p[i] != '_')
      return smtp_synprot(s, false, 501, STR_UNSET, "invalid character in authentication mechanism name");
  const struct instance *i = sasl_server_find(c, name);
  if (!i || (!was_offered(s, sasl_public_name(i)) && !as->allow_auth_unadvertised))
    return smtp_synprot(s, true, 504, STR_UNSET, "%.*s authentication mechanism not supported", STRF(name));
  if (str_is_set(rest) && str_trim(rest).len > 0) {
    rest = str_trim(rest);
    /* "=" stands for an empty initial response. */
    if (str_eq_c(rest, "="))
      initial = STR_EMPTY;
    else if (rest.len > AUTH_DATA_MAX || str_find_byte(rest, '\t') >= 0 || !base64_decode(c->arena, rest, false, &initial))
      return result(s, i, SASL_CANCELLED, STR("501 Invalid base64 data"));
    initial.taint = STR_TAINTED;
  }
  const struct sasl_io io = {.arg = s, .challenge = challenge, .prompt = prompt};
  enum sasl_result r = sasl_server_run(c, i, initial, &io, &text);
  return result(s, i, r, text);
}

/* --- the driver "tls": nobody asks for it, and nobody is told --- */

static int no_challenge(void *arg, struct str text, struct str *ret_response, struct str *ret_reply) { return OUTCOME_ERROR; }

void smtp_tls_authenticate(struct smtp_session *s) {
  struct ctx *c = s->c;
  const struct instance *i = sasl_server_tls(c);
  const struct sasl_io io = {.challenge = no_challenge, .prompt = no_challenge};
  struct str text = STR_UNSET;
  if (!i || !c->client->tls || (str_is_set(c->client->host_authenticated) && c->client->host_authenticated.len > 0))
    return;
  if (smtp_acl(s, ACL_AUTH, &s->o->acl_smtp_auth, ACL_OK) != ACL_OK)
    return;
  enum sasl_result r = sasl_server_run(c, i, STR_UNSET, &io, &text);
  if (r == SASL_OK) {
    smtp_set_protocol(s);
    return;
  }
  DEBUG(auth, "tls authenticator %.*s: not authenticated\n", STRF(i->name));
  struct str id = c->client->authenticated_fail_id, reply = STR("535 Incorrect authentication data");
  if (r == SASL_DEFER)
    acl_log(c, LOG_MAIN, "%.*s authenticator failed for %.*s: 435 Unable to authenticate at present%s%.*s", STRF(i->name),
        STRF(client_log_text(c->arena, c->client, true)), text.len ? ": " : "", STRF(log_printable(c->arena, text)));
  (void)told_by_event(s, i, reply, str_is_set(id) && id.len > 0 ? str_printf(c->arena, " (set_id=%.*s)", STRF(id)) : STR_EMPTY);
}
