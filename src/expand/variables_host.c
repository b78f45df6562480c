/* $sender_host_name, whose first use looks the name up. */
#include "dns/dns.h"
#include "expand/modules.h"
#include "expand/variables.h"

static int get_host_name(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct client *client = c->client;
  bool known = str_is_set(client->host_name) || client->host_lookup_failed;
  if (!known && str_is_set(client->host_address))
    (void)host_name_lookup(c); /* how it ended is in host_lookup_failed and host_lookup_deferred */
  *ret = client->host_name;
  return 0;
}

static const struct variable_def variables[] = {
  {"sender_host_name", get_host_name},
  {0},
};

const struct module expand_host_module = {
  .name = "expand-host",
  .summary = "the client's name in expansions",
  .variables = variables,
};
