/* The Cyrus SASL library as a server (Exim manual, chapter "The cyrus_sasl authenticator"). It asks databases and daemons and
waits for them: its steps run in offload threads, a few at a time. */
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "sasl/cyrus_call.h"
#include "sasl/drivers.h"
#include "tls/tls.h"

#define STEPS_AT_ONCE 4
#define PLACE_SECONDS 60 /* for one's turn */
#define ROUNDS_MAX 20

static bool is_server(const struct instance *i) { return true; }
static bool is_client(const struct instance *i) { return false; }

static struct str mechanism_of(const struct instance *i) {
  const struct cyrus_sasl_options *o = i->options;
  return str_is_set(o->server_mech) && o->server_mech.len > 0 ? o->server_mech : sasl_public_name(i);
}

struct step {
  struct cyrus_call *call;
  const char *mechanism;
  struct str in, out;
  enum cyrus_result result;
};

static int step_offloaded(void *arg) {
  struct step *s = arg;
  s->result = cyrus_step(s->call, s->mechanism, s->in, &s->out);
  return 0;
}

/* false: too many others wait for the library. */
static bool step(struct step *s) {
  static struct fiber_sem places;
  static bool ready;
  if (!ready)
    fiber_sem_init(&places, STEPS_AT_ONCE);
  ready = true;
  if (fiber_sem_acquire(&places, deadline_in(PLACE_SECONDS)) != 0)
    return false;
  fiber_offload(step_offloaded, s);
  fiber_sem_release(&places);
  return true;
}

struct opening {
  struct arena *arena;
  const struct cyrus_client *client;
  struct cyrus_call *call;
  struct str error;
};

/* The first time it loads plugins. */
static int open_offloaded(void *arg) {
  struct opening *o = arg;
  o->error = STR("Cyrus SASL could not be initialised");
  if (cyrus_there())
    o->call = cyrus_open(o->arena, o->client, &o->error);
  return 0;
}

static enum sasl_result converse(struct ctx *c, const struct instance *i, struct cyrus_call *call, struct str initial,
    const struct sasl_io *io, struct str *ret_text) {
  struct step s = {.call = call, .mechanism = str_dup_c(c->arena, mechanism_of(i)), .in = initial};
  for (int n = 0; n < ROUNDS_MAX; n++) {
    if (!step(&s)) {
      *ret_text = STR("Cyrus SASL is too busy");
      return SASL_UNAVAILABLE;
    }
    if (s.result == CYRUS_TROUBLE) {
      *ret_text = cyrus_why(c->arena, call);
      return SASL_UNAVAILABLE;
    }
    if (s.result != CYRUS_MORE)
      break;
    struct str response;
    int rc = io->challenge(io->arg, str_dup(c->arena, s.out), &response, ret_text);
    if (rc != 0)
      return rc == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
    s.mechanism = NULL;
    s.in = response;
  }
  struct str user = cyrus_user(c->arena, call);
  if (str_is_set(user))
    sasl_set_auth(c, 1, user);
  if (s.result == CYRUS_REFUSED) {
    DEBUG(auth, "%.*s authenticator: %.*s\n", STRF(i->name), STRF(cyrus_why(c->arena, call)));
    return SASL_FAIL;
  }
  return str_is_set(user) ? sasl_server_accept(c, i, ret_text) : SASL_FAIL;
}

static const char *place(struct arena *a, struct str address, int port) {
  return str_is_set(address) && address.len > 0 ? str_printf(a, "%.*s;%d", STRF(address), port).p : NULL;
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
  struct cyrus_client client = {.service = str_dup_c(c->arena, o->server_service), .hostname = str_dup_c(c->arena, hostname),
      .realm = realm.len > 0 ? str_dup_c(c->arena, realm) : NULL, .local = place(c->arena, cl->interface_address, cl->interface_port),
      .remote = place(c->arena, cl->host_address, cl->host_port), .tls_bits = cl->tls != NULL ? (unsigned)cl->tls->bits : 0};
  if (cl->tls != NULL && cl->tls->peer_verified && str_is_set(cl->tls->peer_dn))
    client.tls_name = str_dup_c(c->arena, cl->tls->peer_dn);
  struct opening opening = {.arena = c->arena, .client = &client};
  fiber_offload(open_offloaded, &opening);
  if (opening.call == NULL) {
    *ret_text = opening.error;
    return SASL_UNAVAILABLE;
  }
  r = converse(c, i, opening.call, initial, io, ret_text);
  cyrus_close(opening.call);
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
