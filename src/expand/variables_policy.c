/* Variables of where we are: address, router, transport, host; and of the client. */
#include "expand/variables.h"

#include <stddef.h>

#include "config/config.h"
#include "deliver/address.h"
#include "dns/dns.h"
#include "message/message.h"

#define VARS(member) offsetof(struct ctx, vars.member)
#define CLIENT(member) offsetof(struct client, member)

int variable_number(struct ctx *c, int64_t n, struct str *ret) {
  *ret = str_printf(c->arena, "%lld", (long long)n);
  return 0;
}

static int get_event_errno(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_is_set(c->vars.event_defer_errno) ? c->vars.event_defer_errno : STR("0");
  return 0;
}

static int get_instance(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct instance *i = def->flags == DRIVER_ROUTER ? c->router : c->transport;
  *ret = i != NULL ? i->name : STR_EMPTY;
  return 0;
}

static int get_host(struct ctx *c, const struct variable_def *def, struct str *ret) {
  if (c->host == NULL)
    return 0;
  if (def->flags == 'p')
    return variable_number(c, c->host->port, ret);
  *ret = def->flags == 'a' ? c->host->address : c->host->name;
  return 0;
}

static int get_host_port(struct ctx *c, const struct variable_def *def, struct str *ret) {
  return variable_number(c, c->host != NULL ? c->host->port : 0, ret);
}

static int get_client_number(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct client *client = c->client;
  switch (def->flags) {
  case 'p':
    return variable_number(c, client->host_port, ret);
  case 'i':
    return variable_number(c, client->interface_port == 0 ? -1 : client->interface_port, ret);
  case 'f':
    return variable_number(c, client->host_lookup_failed, ret);
  case 'd':
    return variable_number(c, client->host_lookup_deferred, ret);
  case 'h':
    *ret = client->helo_dnssec ? STR("yes") : STR("no");
    return 0;
  default:
    *ret = client->host_dnssec ? STR("yes") : STR("no");
    return 0;
  }
}

static int get_expand(struct ctx *c, const struct variable_def *def, struct str *ret) {
  if (def->flags == 'r')
    return variable_number(c, c->expand.runrc, ret);
  *ret = def->flags == 'i' ? c->expand.item : c->expand.value;
  return 0;
}

static int get_auth(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = c->auth[def->flags - 1];
  return 0;
}

static int get_rcpt_count(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_is_set(c->vars.rcpt_count_text) ? c->vars.rcpt_count_text : STR("0");
  return 0;
}

static int get_inode(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_is_set(c->vars.inode) ? c->vars.inode : STR("0");
  return 0;
}

const struct variable_def policy_variables[] = {
  {"acl_verify_message", variable_get_ctx, VARS(acl_verify_message)},
  {"address_data", variable_get_ctx, VARS(address_data)},
  {"address_file", variable_get_ctx, VARS(address_file)},
  {"address_pipe", variable_get_ctx, VARS(address_pipe)},
  {"auth1", get_auth, 0, 1},
  {"auth2", get_auth, 0, 2},
  {"auth3", get_auth, 0, 3},
  {"auth4", get_auth, 0, 4},
  {"authenticated_fail_id", variable_get_client, CLIENT(authenticated_fail_id)},
  {"authenticated_id", variable_get_client, CLIENT(authenticated_id)},
  {"authenticated_sender", variable_get_client, CLIENT(authenticated_sender)},
  {"connection_id", variable_get_client, CLIENT(connection_id)},
  {"bounce_recipient", variable_get_ctx, VARS(bounce_recipient)},
  {"dnslist_domain", variable_get_ctx, VARS(dnslist_domain)},
  {"dnslist_matched", variable_get_ctx, VARS(dnslist_matched)},
  {"dnslist_text", variable_get_ctx, VARS(dnslist_text)},
  {"dnslist_value", variable_get_ctx, VARS(dnslist_value)},
  {"domain", variable_get_ctx, VARS(domain)},
  {"domain_data", variable_get_ctx, VARS(domain_data)},
  {"event_data", variable_get_ctx, VARS(event_data)},
  {"inode", get_inode},
  {"mailstore_basename", variable_get_ctx, VARS(mailstore_basename)},
  {"event_defer_errno", get_event_errno},
  {"event_name", variable_get_ctx, VARS(event_name)},
  {"home", variable_get_ctx, VARS(home)},
  {"host", get_host, 0, 'n'},
  {"host_address", get_host, 0, 'a'},
  {"host_data", variable_get_ctx, VARS(host_data)},
  {"host_lookup_deferred", get_client_number, 0, 'd'},
  {"host_lookup_failed", get_client_number, 0, 'f'},
  {"host_port", get_host_port},
  {"interface_address", variable_get_client, CLIENT(interface_address)},
  {"interface_port", get_client_number, 0, 'i'},
  {"item", get_expand, 0, 'i'},
  {"local_part", variable_get_ctx, VARS(local_part)},
  {"local_part_data", variable_get_ctx, VARS(local_part_data)},
  {"local_part_prefix", variable_get_ctx, VARS(local_part_prefix)},
  {"local_part_prefix_v", variable_get_ctx, VARS(local_part_prefix_v)},
  {"local_part_suffix", variable_get_ctx, VARS(local_part_suffix)},
  {"local_part_suffix_v", variable_get_ctx, VARS(local_part_suffix_v)},
  {"local_part_verified", variable_get_ctx, VARS(local_part_verified)},
  {"ldap_dn", variable_get_ctx, VARS(ldap_dn)},
  {"lookup_dnssec_authenticated", variable_get_ctx, VARS(lookup_dnssec_authenticated)},
  {"original_domain", variable_get_ctx, VARS(original_domain)},
  {"original_local_part", variable_get_ctx, VARS(original_local_part)},
  {"parent_domain", variable_get_ctx, VARS(parent_domain)},
  {"parent_local_part", variable_get_ctx, VARS(parent_local_part)},
  {"prvscheck_address", variable_get_ctx, VARS(prvscheck_address)},
  {"prvscheck_keynum", variable_get_ctx, VARS(prvscheck_keynum)},
  {"prvscheck_result", variable_get_ctx, VARS(prvscheck_result)},
  {"srs_recipient", variable_get_ctx, VARS(srs_recipient)},
  {"rcpt_count", get_rcpt_count},
  {"received_ip_address", variable_get_client, CLIENT(interface_address)},
  {"received_port", get_client_number, 0, 'i'},
  {"received_protocol", variable_get_client, CLIENT(protocol)},
  {"recipient_verify_failure", variable_get_ctx, VARS(recipient_verify_failure)},
  {"router_name", get_instance, 0, DRIVER_ROUTER},
  {"runrc", get_expand, 0, 'r'},
  {"self_hostname", variable_get_ctx, VARS(self_hostname)},
  {"sender_address_data", variable_get_ctx, VARS(sender_address_data)},
  {"sender_data", variable_get_ctx, VARS(sender_data)},
  {"sender_fullhost", variable_get_client, CLIENT(fullhost)},
  {"sender_helo_dnssec", get_client_number, 0, 'h'},
  {"sender_helo_name", variable_get_client, CLIENT(helo_name)},
  {"sender_host_address", variable_get_client, CLIENT(host_address)},
  {"sender_host_authenticated", variable_get_client, CLIENT(host_authenticated)},
  {"sender_host_dnssec", get_client_number, 0, 's'},
  {"sender_host_name", variable_get_client, CLIENT(host_name)},
  {"sender_host_port", get_client_number, 0, 'p'},
  {"sender_ident", variable_get_client, CLIENT(ident)},
  {"sender_rate", variable_get_ctx, VARS(sender_rate)},
  {"sender_rate_limit", variable_get_ctx, VARS(sender_rate_limit)},
  {"sender_rate_period", variable_get_ctx, VARS(sender_rate_period)},
  {"sender_rcvhost", variable_get_client, CLIENT(rcvhost)},
  {"sender_verify_failure", variable_get_ctx, VARS(sender_verify_failure)},
  {"smtp_command", variable_get_ctx, VARS(smtp_command)},
  {"smtp_command_argument", variable_get_ctx, VARS(smtp_command_argument)},
  {"smtp_notquit_reason", variable_get_ctx, VARS(smtp_notquit_reason)},
  {"tpda_data", variable_get_ctx, VARS(event_data)},
  {"tpda_defer_errno", get_event_errno},
  {"tpda_event", variable_get_ctx, VARS(event_name)},
  {"transport_name", get_instance, 0, DRIVER_TRANSPORT},
  {"value", get_expand, 0, 'v'},
  {"verify_mode", variable_get_ctx, VARS(verify_mode)},
  {"warn_message_delay", variable_get_ctx, VARS(warn_message_delay)},
  {"warn_message_recipient", variable_get_ctx, VARS(warn_message_recipients)},
  {"warn_message_recipients", variable_get_ctx, VARS(warn_message_recipients)},
  {"warnmsg_delay", variable_get_ctx, VARS(warn_message_delay)},
  {"warnmsg_recipient", variable_get_ctx, VARS(warn_message_recipients)},
  {"warnmsg_recipients", variable_get_ctx, VARS(warn_message_recipients)},
  {0},
};
