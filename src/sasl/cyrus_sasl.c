/* The Cyrus SASL library as a server (Exim manual, chapter "The cyrus_sasl authenticator"). It asks databases and daemons and
waits for them, for ever if need be: each attempt has a process of its own, which can be killed. */
#include <errno.h>

#include "base/buf.h"
#include "expand/expand.h"
#include "expand/foreign.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "sasl/cyrus_call.h"
#include "sasl/drivers.h"
#include "tls/tls.h"

#define STEP_SECONDS 60
#define ATTEMPT_SECONDS 3600 /* the client has its own limits */
#define ANSWER_MAX (64u << 10)
#define ROUNDS_MAX 20

static bool is_server(const struct instance *i) { return true; }
static bool is_client(const struct instance *i) { return false; }

static struct str mechanism_of(const struct instance *i) {
  const struct cyrus_sasl_options *o = i->options;
  return str_is_set(o->server_mech) && o->server_mech.len > 0 ? o->server_mech : sasl_public_name(i);
}

/* Any bytes behind a letter. */
static struct str with_letter(struct arena *a, char letter, struct str text) {
  char *p = arena_alloc_raw(a, text.len + 1);
  p[0] = letter;
  if (text.len > 0)
    memcpy(p + 1, text.p, text.len);
  return str_n(p, text.len + 1);
}

/* --- in the process --- */

/* The texts, by number. The first text of the conversation is NO_INITIAL, or INITIAL and the client's response; others are responses
behind INITIAL. Each answer is an enum cyrus_result as a letter, then the challenge, or user, NUL and reason. */
enum { TEXT_MECHANISM, TEXT_SERVICE, TEXT_HOSTNAME, TEXT_REALM, TEXT_LOCAL, TEXT_REMOTE, TEXT_TLS_BITS, TEXT_TLS_NAME, TEXTS };
#define NO_INITIAL '-'
#define INITIAL '+'

static const char *or_null(struct str s) { return s.len > 0 ? s.p : NULL; }

static void reply(int out, struct arena *a, enum cyrus_result result, struct str text) {
  foreign_reply(out, with_letter(a, (char)('a' + (int)result), text));
}

static void reply_end(int out, struct arena *a, enum cyrus_result result, struct str user, struct str why) {
  struct buf b;
  buf_init(&b, a, ANSWER_MAX);
  if (str_is_set(user))
    buf_add(&b, user);
  buf_add_byte(&b, '\0');
  buf_add(&b, why);
  reply(out, a, result, buf_str(&b));
}

static void run_cyrus(const struct str *v, int n, int out) {
  struct arena *a = arena_new("cyrus");
  struct str error = STR("Cyrus SASL could not be initialised"), challenge;
  uint64_t bits = 0;
  if (n != TEXTS || !str_to_u64(v[TEXT_TLS_BITS], &bits))
    return;
  struct cyrus_client client = {.service = v[TEXT_SERVICE].p, .hostname = v[TEXT_HOSTNAME].p, .realm = or_null(v[TEXT_REALM]),
      .local = or_null(v[TEXT_LOCAL]), .remote = or_null(v[TEXT_REMOTE]), .tls_bits = (unsigned)bits, .tls_name = or_null(v[TEXT_TLS_NAME])};
  struct cyrus_call *call = cyrus_there() ? cyrus_open(a, &client, &error) : NULL;
  const char *mechanism = v[TEXT_MECHANISM].p;
  for (;;) {
    struct str in = foreign_receive(a);
    if (call == NULL) {
      reply_end(out, a, CYRUS_TROUBLE, STR_UNSET, error);
      return;
    }
    in = in.len > 0 && in.p[0] == INITIAL ? str_from(in, 1) : STR_UNSET;
    enum cyrus_result result = cyrus_step(call, mechanism, in, &challenge);
    mechanism = NULL;
    if (result != CYRUS_MORE) {
      reply_end(out, a, result, cyrus_user(a, call), cyrus_why(a, call));
      return;
    }
    reply(out, a, result, challenge);
  }
}

const struct foreign_role sasl_cyrus_sasl_role = {.name = "cyrus_sasl", .run = run_cyrus, .reads_on = true};

/* --- our side --- */

struct answer {
  enum cyrus_result result;
  struct str text; /* challenge, or the reason */
  struct str user;
};

static int ask(struct ctx *c, struct foreign_session *s, struct str response, struct answer *ret) {
  struct str text, in = with_letter(c->arena, str_is_set(response) ? INITIAL : NO_INITIAL, response);
  int rc = foreign_exchange(s, c->arena, in, ANSWER_MAX, deadline_in(STEP_SECONDS), &text);
  if (rc < 0)
    return rc;
  if (text.len == 0 || text.p[0] < 'a' || text.p[0] > 'a' + (int)CYRUS_TROUBLE)
    return -EPROTO;
  *ret = (struct answer){.result = (enum cyrus_result)(text.p[0] - 'a'), .text = str_from(text, 1), .user = STR_UNSET};
  if (ret->result != CYRUS_MORE) {
    struct str user = str_cut(&ret->text, '\0');
    ret->user = user.len > 0 ? user : STR_UNSET;
  }
  return 0;
}

static enum sasl_result converse(struct ctx *c, const struct instance *i, struct foreign_session *s, struct str initial,
    const struct sasl_io *io, struct str *ret_text) {
  struct answer a = {.result = CYRUS_TROUBLE};
  struct str response = initial;
  for (int n = 0; n < ROUNDS_MAX; n++) {
    int rc = ask(c, s, response, &a);
    if (rc < 0) {
      *ret_text = str_printf(c->arena, "Cyrus SASL: %s", rc == -EPIPE ? foreign_error(-ECHILD) : foreign_error(rc));
      return SASL_UNAVAILABLE;
    }
    if (a.result == CYRUS_TROUBLE) {
      *ret_text = a.text;
      return SASL_UNAVAILABLE;
    }
    if (a.result != CYRUS_MORE)
      break;
    rc = io->challenge(io->arg, a.text, &response, ret_text);
    if (rc != 0)
      return rc == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
  }
  if (str_is_set(a.user))
    sasl_set_auth(c, 1, a.user);
  if (a.result == CYRUS_REFUSED) {
    DEBUG(auth, "%.*s authenticator: %.*s\n", STRF(i->name), STRF(a.text));
    return SASL_FAIL;
  }
  return a.result == CYRUS_DONE && str_is_set(a.user) ? sasl_server_accept(c, i, ret_text) : SASL_FAIL;
}

static struct str place(struct arena *a, struct str address, int port) {
  return str_is_set(address) && address.len > 0 ? str_printf(a, "%.*s;%d", STRF(address), port) : STR_EMPTY;
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  const struct cyrus_sasl_options *o = i->options;
  const struct client *cl = c->client;
  struct str hostname, realm;
  enum sasl_result r = sasl_server_value(c, &o->server_hostname, &hostname, ret_text);
  if (r == SASL_OK)
    r = sasl_server_value(c, &o->server_realm, &realm, ret_text);
  if (r != SASL_OK)
    return r;
  const struct tls_info *tls = cl->tls;
  struct str v[TEXTS] = {[TEXT_MECHANISM] = mechanism_of(i), [TEXT_SERVICE] = o->server_service, [TEXT_HOSTNAME] = hostname,
      [TEXT_REALM] = realm, [TEXT_LOCAL] = place(c->arena, cl->interface_address, cl->interface_port),
      [TEXT_REMOTE] = place(c->arena, cl->host_address, cl->host_port), [TEXT_TLS_BITS] = str_printf(c->arena, "%d", tls ? (int)tls->bits : 0),
      [TEXT_TLS_NAME] = tls && tls->peer_verified && str_is_set(tls->peer_dn) ? tls->peer_dn : STR_EMPTY};
  struct foreign_session *s = NULL;
  int rc = foreign_open(sasl_cyrus_sasl_role.name, v, TEXTS, ATTEMPT_SECONDS, &s);
  if (rc < 0) {
    *ret_text = rc == -ETIMEDOUT ? STR("Cyrus SASL is too busy") : str_printf(c->arena, "Cyrus SASL: %s", foreign_error(rc));
    return SASL_UNAVAILABLE;
  }
  r = converse(c, i, s, initial, io, ret_text);
  foreign_close(s);
  return r;
}

static int init(struct config_reader *r, struct instance *i) {
  const struct cyrus_sasl_options *o = i->options;
  struct arena *a = config_reader_arena(r);
  struct str known = STR_EMPTY;
  if (!cyrus_there())
    return config_error_at(r, i->where, "authenticator %.*s: Cyrus SASL could not be initialised", STRF(i->name));
  if (!sasl_mechanism_allowed(config_reader_config(r), mechanism_of(i)))
    return config_error_at(r, i->where, "authenticator %.*s: DIGEST-MD5 is historic (RFC 6331): it needs sasl_allow_digest_md5",
        STRF(i->name));
  bool knows = cyrus_knows(a, str_dup_c(a, o->server_service), str_dup_c(a, mechanism_of(i)), &known);
  cyrus_forget(); /* the environment, which may say where its configuration is, is set later */
  if (!knows)
    return config_error_at(r, i->where, "authenticator %.*s: Cyrus SASL does not know the mechanism \"%.*s\" (it knows: %.*s)",
        STRF(i->name), STRF(mechanism_of(i)), STRF(known));
  return 0;
}

const struct authenticator_def sasl_cyrus_sasl = {
  .driver = {.name = "cyrus_sasl", .class = DRIVER_AUTHENTICATOR, .options = sasl_cyrus_sasl_options,
    .options_size = sizeof(struct cyrus_sasl_options), .summary = "mechanisms of Cyrus SASL", .init = init},
  .is_server = is_server,
  .is_client = is_client,
  .server = server,
};
