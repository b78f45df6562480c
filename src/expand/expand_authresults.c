/* ${authresults…}: an Authentication-Results header (RFC 8601) of what has been checked so far. */
#include "expand/internal.h"
#include "expand/modules.h"
#include "message/message.h"
#include "sasl/authenticator.h"

static bool has(struct str s) { return str_is_set(s) && s.len > 0; }

static void add_iprev(const struct client *cl, struct buf *out) {
  if (!has(cl->host_address))
    return;
  if (has(cl->host_name)) {
    buf_add_c(out, ";\n\tiprev=pass (");
    buf_add(out, cl->host_name);
    buf_add_byte(out, ')');
  } else if (cl->host_lookup_deferred) {
    buf_add_c(out, ";\n\tiprev=temperror");
  } else if (cl->host_lookup_failed) {
    buf_add_c(out, ";\n\tiprev=fail");
  } else {
    return;
  }
  buf_add_c(out, " smtp.remote-ip=");
  buf_add(out, cl->host_address);
}

/* What the message's file says; a message of before that was kept, and -oMaa, have the name of an authenticator only. */
static struct str auth_mechanism(const struct ctx *c) {
  const struct client *cl = c->client;
  if (has(cl->host_auth_mechanism))
    return cl->host_auth_mechanism;
  const struct instance *i = config_driver(c->config, DRIVER_AUTHENTICATOR, cl->host_authenticated);
  return i != NULL ? sasl_public_name(i) : cl->host_authenticated;
}

static void add_auth(const struct ctx *c, struct buf *out) {
  const struct client *cl = c->client;
  if (!has(cl->host_authenticated)) {
    if (has(cl->authenticated_fail_id)) {
      buf_add_c(out, ";\n\tauth=fail smtp.auth=");
      header_add_value(out, cl->authenticated_fail_id);
    }
    return;
  }
  buf_add_c(out, ";\n\tauth=pass (");
  buf_add(out, auth_mechanism(c));
  buf_add_byte(out, ')');
  if (has(cl->authenticated_id)) {
    buf_add_c(out, " smtp.auth=");
    header_add_value(out, cl->authenticated_id);
  }
  if (has(cl->authenticated_sender)) {
    buf_add_c(out, " smtp.mailfrom=");
    header_add_value(out, cl->authenticated_sender);
  }
}

static void add_result(void *arg, struct str item) {
  buf_add_c(arg, ";\n\t");
  buf_add(arg, item);
}

static int eval_authresults(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  buf_add_c(out, "Authentication-Results: ");
  buf_add(out, args->value[0]);
  add_iprev(c->client, out);
  add_auth(c, out);
  for (size_t i = 0; modules[i] != NULL; i++)
    if (modules[i]->hooks.authresults != NULL)
      modules[i]->hooks.authresults(c, add_result, out);
  return 0;
}

static const struct expand_item_def items[] = {
  {"authresults", 1, 1, 0, NULL, eval_authresults},
  {0},
};

const struct module expand_authresults_module = {
  .name = "expand-authresults",
  .summary = "Authentication-Results headers made by expansions",
  .items = items,
};
