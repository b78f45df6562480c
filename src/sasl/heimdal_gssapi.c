/* Kerberos by Heimdal's GSSAPI (RFC 4752; Exim manual, chapter "The heimdal_gssapi authenticator"), a server only. The library
reads files and may ask a network: it is called in offload threads. It comes with many others that few need, so that it is
loaded when a configuration uses it. */
#include <dlfcn.h>
#include <gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <pthread.h>

#include "base/buf.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "sasl/drivers.h"

#define LIBRARY "libgssapi.so.3"

#define FUNCTIONS(F)                                                                                                   \
  F(gss_import_name) F(gss_acquire_cred) F(gss_release_name) \
  F(gss_accept_sec_context) F(gss_wrap) F(gss_unwrap) \
  F(gss_display_name) F(gss_display_status) F(gss_release_buffer) \
  F(gss_delete_sec_context) F(gss_release_cred) F(gsskrb5_register_acceptor_identity)

#define MEMBER(name) __typeof__(&(name)) name;
static struct {
  FUNCTIONS(MEMBER)
  gss_OID host_based_service, kerberos;
  bool there;
} gss;
#undef MEMBER

static bool load(void) {
  void *library;
  if (gss.there || (library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL)) == NULL)
    return gss.there;
#define FIND(name) (*(void **)&gss.name = dlsym(library, #name)) != NULL &&
  gss.there = FUNCTIONS(FIND)(gss.host_based_service = dlsym(library, "__gss_c_nt_hostbased_service_oid_desc")) != NULL &&
              (gss.kerberos = dlsym(library, "__gss_krb5_mechanism_oid_desc")) != NULL;
#undef FIND
  return gss.there;
}

#define NO_LAYER 1 /* of protection of GSSAPI's own: that is what TLS is for */
#define ROUNDS_MAX 20

static bool is_server(const struct instance *i) { return true; }
static bool is_client(const struct instance *i) { return false; }

/* One conversation. */
struct talk {
  struct arena *arena;
  const char *name, *keytab; /* "smtp@host"; NULL: the system's */
  gss_cred_id_t credentials;
  gss_ctx_id_t context;
  gss_name_t client;
  struct str in, out, why;
  bool complete;
};

static struct str taken(struct talk *t, gss_buffer_t b) {
  OM_uint32 minor;
  struct str s = str_dup(t->arena, str_n(b->value, b->length));
  gss.gss_release_buffer(&minor, b);
  return s;
}

static int failed(struct talk *t, OM_uint32 major, OM_uint32 minor) {
  gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
  OM_uint32 unused, more = 0;
  bool general = gss.gss_display_status(&unused, minor, GSS_C_MECH_CODE, gss.kerberos, &more, &text) != GSS_S_COMPLETE;
  if (general)
    gss.gss_display_status(&unused, major, GSS_C_GSS_CODE, GSS_C_NO_OID, &more, &text);
  t->why = taken(t, &text);
  return -1;
}

/* The functions from here on run in offload threads; the arena is not used by others meanwhile. */
static int acquire(void *arg) {
  static pthread_mutex_t one_keytab = PTHREAD_MUTEX_INITIALIZER;
  struct talk *t = arg;
  OM_uint32 minor, unused;
  gss_name_t name = GSS_C_NO_NAME;
  gss_buffer_desc text = {.value = (void *)(uintptr_t)t->name, .length = strlen(t->name)};
  OM_uint32 major = gss.gss_import_name(&minor, &text, gss.host_based_service, &name);
  if (major != GSS_S_COMPLETE)
    return failed(t, major, minor);
  pthread_mutex_lock(&one_keytab); /* the library's setting is for the process */
  gss.gsskrb5_register_acceptor_identity(t->keytab);
  gss_OID_set_desc kerberos = {.count = 1, .elements = gss.kerberos}; /* nothing else is this mechanism (RFC 4752) */
  major = gss.gss_acquire_cred(&minor, name, 0, &kerberos, GSS_C_ACCEPT, &t->credentials, NULL, NULL);
  pthread_mutex_unlock(&one_keytab);
  gss.gss_release_name(&unused, &name);
  return major == GSS_S_COMPLETE ? 0 : failed(t, major, minor);
}

static int accept_token(void *arg) {
  struct talk *t = arg;
  OM_uint32 minor;
  gss_buffer_desc in = {.value = (void *)(uintptr_t)t->in.p, .length = t->in.len}, out = GSS_C_EMPTY_BUFFER;
  OM_uint32 major = gss.gss_accept_sec_context(&minor, &t->context, t->credentials, &in, GSS_C_NO_CHANNEL_BINDINGS,
      t->client == GSS_C_NO_NAME ? &t->client : NULL, NULL, &out, NULL, NULL, NULL);
  t->out = taken(t, &out);
  t->complete = major == GSS_S_COMPLETE;
  return major == GSS_S_COMPLETE || major == GSS_S_CONTINUE_NEEDED ? 0 : failed(t, major, minor);
}

static int wrap_offer(void *arg) {
  struct talk *t = arg;
  OM_uint32 minor;
  char offer[4] = {NO_LAYER, 0, 0, 0};
  gss_buffer_desc in = {.value = offer, .length = sizeof offer}, out = GSS_C_EMPTY_BUFFER;
  OM_uint32 major = gss.gss_wrap(&minor, t->context, 0, GSS_C_QOP_DEFAULT, &in, NULL, &out);
  t->out = taken(t, &out);
  return major == GSS_S_COMPLETE ? 0 : failed(t, major, minor);
}

static int unwrap_choice(void *arg) {
  struct talk *t = arg;
  OM_uint32 minor;
  gss_buffer_desc in = {.value = (void *)(uintptr_t)t->in.p, .length = t->in.len}, out = GSS_C_EMPTY_BUFFER;
  OM_uint32 major = gss.gss_unwrap(&minor, t->context, &in, &out, NULL, NULL);
  t->out = taken(t, &out);
  return major == GSS_S_COMPLETE ? 0 : failed(t, major, minor);
}

static int display_name(void *arg) {
  struct talk *t = arg;
  OM_uint32 minor;
  gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
  OM_uint32 major = gss.gss_display_name(&minor, t->client, &out, NULL);
  t->out = taken(t, &out);
  return major == GSS_S_COMPLETE ? 0 : failed(t, major, minor);
}

/* --- on the fiber --- */

static enum sasl_result ask(struct talk *t, const struct sasl_io *io, struct str text, struct str *ret_text) {
  int rc = io->challenge(io->arg, text, &t->in, ret_text);
  return rc == 0 ? SASL_OK : rc == OUTCOME_FAIL ? SASL_CANCELLED : SASL_GONE;
}

static enum sasl_result no(struct talk *t, const struct instance *i) {
  DEBUG(auth, "%.*s authenticator: %.*s\n", STRF(i->name), STRF(t->why));
  return SASL_FAIL;
}

static enum sasl_result converse(struct ctx *c, struct talk *t, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  enum sasl_result r = SASL_OK;
  t->in = initial;
  if (!str_is_set(initial))
    r = ask(t, io, STR_EMPTY, ret_text);
  for (int n = 0; r == SASL_OK && !t->complete; n++) {
    if (n == ROUNDS_MAX || fiber_offload(accept_token, t) != 0)
      return no(t, i);
    if (!t->complete || t->out.len > 0)
      r = ask(t, io, t->out, ret_text);
  }
  if (r != SASL_OK)
    return r;
  if (fiber_offload(wrap_offer, t) != 0)
    return no(t, i);
  r = ask(t, io, t->out, ret_text);
  if (r != SASL_OK)
    return r;
  if (fiber_offload(unwrap_choice, t) != 0)
    return no(t, i);
  struct str choice = t->out;
  if (choice.len < 4 || choice.p[0] != NO_LAYER || fiber_offload(display_name, t) != 0)
    return no(t, i);
  struct str other = str_from(choice, 4);
  sasl_set_auth(c, 1, t->out);
  sasl_set_auth(c, 2, other.len > 0 ? other : t->out);
  return sasl_server_accept(c, i, ret_text);
}

static enum sasl_result server(struct ctx *c, const struct instance *i, struct str initial, const struct sasl_io *io,
    struct str *ret_text) {
  const struct heimdal_gssapi_options *o = i->options;
  struct str hostname, service, keytab;
  OM_uint32 unused;
  enum sasl_result r = sasl_server_value(c, &o->server_hostname, &hostname, ret_text);
  if (r == SASL_OK)
    r = sasl_server_value(c, &o->server_service, &service, ret_text);
  if (r == SASL_OK)
    r = sasl_server_value(c, &o->server_keytab, &keytab, ret_text);
  if (r != SASL_OK)
    return r;
  if (str_is_tainted(keytab)) {
    *ret_text = STR("server_keytab is tainted");
    return SASL_UNAVAILABLE;
  }
  struct talk t = {.arena = c->arena, .name = str_printf(c->arena, "%.*s@%.*s", STRF(service), STRF(hostname)).p,
      .keytab = keytab.len > 0 ? str_dup_c(c->arena, keytab) : NULL};
  if (fiber_offload(acquire, &t) != 0) {
    *ret_text = t.why;
    r = SASL_UNAVAILABLE;
  } else {
    r = converse(c, &t, i, initial, io, ret_text);
  }
  gss.gss_delete_sec_context(&unused, &t.context, GSS_C_NO_BUFFER);
  gss.gss_release_cred(&unused, &t.credentials);
  gss.gss_release_name(&unused, &t.client);
  return r;
}

static int init(struct config_reader *r, struct instance *i) {
  return load() ? 0 : config_error_at(r, i->where, "authenticator %.*s: %s of Heimdal cannot be loaded", STRF(i->name), LIBRARY);
}

const struct authenticator_def sasl_heimdal_gssapi = {
  .driver = {.name = "heimdal_gssapi", .class = DRIVER_AUTHENTICATOR, .options = sasl_heimdal_gssapi_options,
    .options_size = sizeof(struct heimdal_gssapi_options), .summary = "GSSAPI (Kerberos, by Heimdal)", .init = init},
  .is_server = is_server,
  .is_client = is_client,
  .server = server,
};
