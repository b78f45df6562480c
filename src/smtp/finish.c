/* What every kind of reception does around the data: the non-SMTP ACLs, the
controls, the client as it is stored, who may set which sender. */
#include <pwd.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/map.h"
#include "core/main_options.h"
#include "core/module.h"
#include "log/log.h"
#include "match/match.h"
#include "smtp/receive.h"
#include "tls/tls.h"

bool receive_may_set_sender(struct ctx *c, struct str address) {
  if (address.len == 0)
    return true; /* anybody may send a message that wants no bounces */
  const struct option_expr *list = &main_options(c->config)->untrusted_set_sender;
  return str_is_set(list->text) && match_address(c, list, address, false, NULL) == OUTCOME_OK;
}

void receive_apply_controls(struct ctx *c, struct message *m) {
  const struct acl_message *am = acl_message(c);
  struct timeval now;
  if (am->freeze) {
    gettimeofday(&now, NULL);
    m->frozen = m->deliver_freeze = true;
    m->frozen_time = now.tv_sec;
  }
  m->queue_only_policy = am->queue_only;
  if (str_is_set(am->queue_name))
    m->queue_name = am->queue_name;
}

void receive_not_smtp_start(struct ctx *c) {
  const struct option_expr *o = &main_options(c->config)->acl_not_smtp_start;
  if (acl_is_set(o))
    acl_check(c, ACL_NOT_SMTP_START, o); /* its result is ignored */
}

enum acl_result receive_module_checks(struct ctx *c, int *ret_where, const char **ret_what) {
  enum acl_result r = ACL_OK;
  for (size_t i = 0; modules[i] && r == ACL_OK; i++)
    if (modules[i]->hooks.message_check)
      r = (enum acl_result)modules[i]->hooks.message_check(c, ret_where, ret_what);
  return r;
}

int receive_module_accepts(struct ctx *c) {
  int rc = OUTCOME_OK;
  for (size_t i = 0; modules[i] && rc == OUTCOME_OK; i++)
    if (modules[i]->hooks.message_accept)
      rc = modules[i]->hooks.message_accept(c);
  return rc;
}

bool receive_not_smtp_acl(struct reception *r, struct str *ret_why, bool *ret_discarded) {
  struct ctx *c = r->c;
  const struct option_expr *o = &main_options(c->config)->acl_not_smtp;
  *ret_discarded = false;
  *ret_why = STR_EMPTY;
  acl_apply_headers(c, "MAIL or RCPT");
  int where = ACL_NOT_SMTP;
  const char *what = "by non-SMTP ACL", *by = "non-SMTP";
  enum acl_result result = receive_module_checks(c, &where, &what);
  if (result != ACL_OK)
    by = "MIME";
  else if (!acl_is_set(o))
    result = ACL_OK;
  else
    result = acl_check(c, ACL_NOT_SMTP, o), what = "by non-SMTP ACL";
  acl_apply_headers(c, "non-SMTP");
  if (result == ACL_OK) {
    int rc = receive_module_accepts(c);
    if (rc == OUTCOME_OK)
      return true;
    result = rc == OUTCOME_FAIL ? ACL_FAIL : ACL_DEFER;
  }
  if (result == ACL_DISCARD) {
    bool why = str_is_set(c->log_message) && c->log_message.len > 0;
    receive_log_arrival(r);
    acl_log(c, LOG_MAIN, "=> blackhole (%s ACL discarded recipients)%s%.*s", by, why ? ": " : "",
        STRF(why ? c->log_message : STR_EMPTY));
    acl_log(c, LOG_MAIN, "Completed");
    *ret_discarded = true;
    return true;
  }
  struct str user = c->user_message, log = c->log_message;
  if (!str_is_set(log) || log.len == 0)
    log = str_is_set(user) && user.len > 0 ? user : STR("local configuration problem");
  if (!str_is_set(user) || user.len == 0)
    user = STR("local configuration problem");
  receive_log_rejection(c, acl_reject_logs(c),
      str_printf(c->arena, "F=<%.*s> rejected %s: %.*s", STRF(r->m->reverse_path), what, STRF(log_printable(c->arena, log))));
  *ret_why = user;
  return false;
}

/* The name of the user that we are, which programs that read the spool expect in each -H file. */
static struct str own_login(void) {
  static char login[64];
  if (!login[0]) {
    const struct passwd *pw = getpwuid(geteuid());
    if (pw)
      snprintf(login, sizeof login, "%s", pw->pw_name);
    else
      snprintf(login, sizeof login, "%u", (unsigned)geteuid());
  }
  return str_c(login);
}

/* Connection variables go with the message by value. */
static void copy_variables(struct message *m, const struct map *from) {
  size_t i = 0;
  struct str key;
  void *value;
  if (!m->acl_c)
    m->acl_c = map_new(m->arena);
  while (map_next(from, &i, &key, &value)) {
    struct str *copy = arena_new_of(m->arena, struct str);
    *copy = str_dup(m->arena, *(struct str *)value);
    copy->taint = ((struct str *)value)->taint;
    map_set(m->acl_c, key, copy);
  }
}

void receive_keep_client(struct ctx *c, struct message *m, const struct submitter *sub) {
  struct arena *a = m->arena;
  if (sub && sub->no_delivery)
    m->dont_deliver = true;
  m->client = *c->client;
  struct str *texts[] = {&m->client.host_address, &m->client.host_name, &m->client.host_aliases, &m->client.helo_name,
      &m->client.fullhost, &m->client.rcvhost, &m->client.ident, &m->client.interface_address, &m->client.authenticated_id,
      &m->client.authenticated_sender, &m->client.authenticated_fail_id, &m->client.host_authenticated,
      &m->client.host_auth_mechanism, &m->client.protocol, &m->client.connection_id};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (str_is_set(*texts[i])) {
      uint32_t taint = texts[i]->taint;
      *texts[i] = str_dup(a, *texts[i]);
      texts[i]->taint = taint;
    }
  if (m->client.proxy) {
    struct client_proxy *p = arena_new_of(a, struct client_proxy);
    *p = *m->client.proxy;
    m->client.proxy = p;
    p->local_address = str_dup(a, p->local_address);
    p->external_address = str_dup(a, p->external_address);
    p->unique_id = str_dup(a, p->unique_id);
  }
  m->client.tls = tls_info_copy(a, c->client->tls);
  if (sub) {
    m->originator_login = str_dup(a, sub->login);
    m->originator_name = str_is_set(sub->name) ? str_dup(a, sub->name) : STR_EMPTY;
    m->originator_uid = sub->uid;
    m->originator_gid = sub->gid;
  } else { /* from the network: we are it */
    m->originator_login = own_login();
    m->originator_uid = geteuid();
    m->originator_gid = getegid();
  }
  if (c->session && c->session->acl_c)
    copy_variables(m, c->session->acl_c);
}
