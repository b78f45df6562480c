#include "transport/module.h"

#include "core/module.h"
#include "message/rewrite.h"
#include "transport/options.h"

extern const struct transport_def transport_appendfile, transport_autoreply, transport_lmtp, transport_pipe, transport_queuefile;

static const struct driver_def *const drivers[] = {&transport_appendfile.driver, &transport_autoreply.driver, &transport_lmtp.driver,
    &transport_pipe.driver, &transport_queuefile.driver, NULL};

static int init(struct config_reader *r, struct instance *i) {
  struct transport_options *o = i->generic;
  if (o->retry_use_local_part < 0)
    o->retry_use_local_part = ((const struct transport_def *)i->driver)->local;
  if (o->body_only && o->headers_only)
    return config_error_at(r, i->where, "%.*s transport: body_only and headers_only are mutually exclusive", STRF(i->name));
  return 0;
}

static const struct driver_class_def class_def = {.class = DRIVER_TRANSPORT, .options = transport_generic_options,
    .options_size = sizeof(struct transport_options), .init = init};

static int check_shadow(struct config_reader *r, const struct instance *t) {
  struct str name = transport_options(t)->shadow_transport;
  if (!str_is_set(name))
    return 0;
  if (!((const struct transport_def *)t->driver)->local)
    return config_error_at(r, t->where, "shadow transport not allowed on non-local transport %.*s", STRF(t->name));
  const struct instance *shadow = config_driver(config_reader_config(r), DRIVER_TRANSPORT, name);
  if (!shadow)
    return 0; /* the delivery says so, and is made */
  if (!((const struct transport_def *)shadow->driver)->local)
    return config_error_at(r, t->where, "shadow transport \"%.*s\" of %.*s transport is not a local transport", STRF(name), STRF(t->name));
  return 0;
}

/* Rules and other transports are known only when all sections are read. */
static int check(struct config_reader *r, void *block) {
  int rc = 0;
  for (const struct instance *t = config_reader_config(r)->drivers[DRIVER_TRANSPORT]; t; t = t->next) {
    if (transport_options(t)->headers_rewrite.len)
      rc |= rewrite_check_option(r, t->where, transport_options(t)->headers_rewrite);
    rc |= check_shadow(r, t);
  }
  return rc ? OUTCOME_ERROR : 0;
}

static const char *const macros[] = {"_HAVE_EVENT", "_HAVE_QUEUEFILE", "_HAVE_TRANSPORT_APPEND_MAILDIR",
  "_HAVE_TRANSPORT_APPEND_MAILSTORE", "_HAVE_TRANSPORT_APPEND_MBX", NULL};

const struct module transport_module = {
    .name = "transports",
    .summary = "generic transport options, appendfile, autoreply, lmtp, pipe and queuefile",
    .support = "Event Experimental_QUEUEFILE",
    .main_check = check,
    .driver_class = &class_def,
    .drivers = drivers,
    .macros = macros,
};
