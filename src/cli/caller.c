/* Who calls, and what he may: trusted users may set the sender, admins may look
at and change the queue (Exim manual, chapter "Security considerations"). */

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/process.h"
#include "core/build.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "loop/fiber.h"
#include "message/address.h"
#include "transport/identity.h"
#include "transport/plan.h"

#define GROUPS_MAX 1024

static bool has_id(const struct option_ids *ids, uint32_t id) {
  for (size_t i = 0; i < ids->n; i++)
    if (ids->v[i] == id)
      return true;
  return false;
}

static bool in_groups(const struct option_ids *ids, const gid_t *groups, int n, uint32_t gid) {
  if (has_id(ids, gid))
    return true;
  for (int i = 0; i < n; i++)
    if (has_id(ids, groups[i]))
      return true;
  return false;
}

struct account {
  uint32_t uid;
  int64_t retries;
  struct passwd entry;
  bool found;
  char text[16384];
};

/* A service of names that is not there is asked again, finduser_retries times. */
static int find_account(void *arg) {
  struct account *k = arg;
  for (int64_t i = 0;; i++) {
    struct passwd *found = NULL;
    int e = getpwuid_r(k->uid, &k->entry, k->text, sizeof k->text, &found);
    k->found = found != NULL;
    if (k->found || e == 0 || e == ERANGE || i >= k->retries)
      return 0;
    sleep(1);
  }
}

/* unknown_login and unknown_username name a caller without an account; in the harness they name every caller. */
static bool name_unknown(struct process *p, const struct passwd *pw) {
  const struct main_options *o = main_options(p->config);
  struct str login;
  if (!str_is_set(o->unknown_login.text) || (pw != NULL && !build.unknown_login_overrides))
    return false;
  struct ctx *c = ctx_new(p->arena, p->config);
  if (expand_option(c, &o->unknown_login, &login) != 0 || str_is_empty(login))
    return false;
  p->login = login;
  p->real_name = str_is_set(o->unknown_username) ? o->unknown_username : STR_EMPTY;
  return true;
}

static void name_caller(struct process *p) {
  struct account *k = arena_new_of(p->arena, struct account);
  k->uid = p->real_uid;
  k->retries = main_options(p->config)->finduser_retries;
  (void)fiber_offload(find_account, k);
  const struct passwd *pw = k->found ? &k->entry : NULL;
  if (name_unknown(p, pw))
    return;
  p->login = pw ? str_dup(p->arena, str_c(pw->pw_name)) : STR_EMPTY;
  struct str gecos = pw ? str_dup(p->arena, str_c(pw->pw_gecos)) : STR_EMPTY;
  p->real_name = str_cut(&gecos, ',');
}

/* A set-uid program works as the Martlet user; root stays in reserve for the children that deliver. */
static int become_martlet(struct process *p) {
  const struct main_options *o = main_options(p->config);
  if (geteuid() != 0 || !o->exim_user.set)
    return 0;
  gid_t gid = o->exim_group.set ? o->exim_group.id : o->exim_user.gid;
  if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid((uid_t)-1, o->exim_user.id, 0) < 0) {
    perror("martlet: cannot become exim_user");
    return -1;
  }
  return 0;
}

void process_identify(struct process *p, const gid_t *groups, int n) {
  const struct main_options *o = main_options(p->config);
  uint32_t exim_uid = o->exim_user.set ? o->exim_user.id : geteuid();
  uint32_t exim_gid = o->exim_group.set ? o->exim_group.id : o->exim_user.gid_set ? o->exim_user.gid : getegid();
  struct option_ids exim_group = {.v = &exim_gid, .n = 1};
  name_caller(p);
  bool super = p->real_uid == 0 || p->real_uid == exim_uid;
  p->trusted = super || has_id(&o->trusted_users, p->real_uid) || in_groups(&o->trusted_groups, groups, n < 0 ? 0 : n, p->real_gid);
  p->admin = super || in_groups(&exim_group, groups, n < 0 ? 0 : n, p->real_gid) ||
             in_groups(&o->admin_groups, groups, n < 0 ? 0 : n, p->real_gid);
}

int process_check_sender(struct process *p) {
  struct mail_address address;
  struct str error;
  unsigned flags = ADDRESS_ALLOW_EMPTY | ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8;
  if (!p->cli.sender_given || p->cli.sender.len == 0)
    return 0;
  if (address_parse(p->arena, p->cli.sender, address_flags(p->ctx, flags), &address, &error)) {
    fprintf(p->err, "exim: bad -f address \"%.*s\": %.*s\n", STRF(p->cli.sender), STRF(error));
    return 1;
  }
  p->cli.sender = address.address;
  return 0;
}

int process_settle(struct process *p) {
  gid_t groups[GROUPS_MAX];
  process_identify(p, groups, getgroups(GROUPS_MAX, groups));
  p->ctx = ctx_new(p->arena, p->config);
  if (main_options(p->config)->deliver_drop_privilege || main_options(p->config)->mua_wrapper)
    p->can_switch = false;
  identity_set_can_switch(p->can_switch);
  if (p->can_switch)
    plan_set_runner(&plan_runner_fork);
  bool daemon = p->cli.mode == MODE_DAEMON || p->cli.mode == MODE_QUEUE_DAEMON || p->cli.mode == MODE_INETD_WAIT;
  return daemon ? 0 : become_martlet(p) || process_check_sender(p);
}

bool process_require_admin(struct process *p) {
  if (p->admin)
    return true;
  fprintf(p->err, "exim: permission denied\n");
  return false;
}

static bool client_address(struct process *p, struct str text, struct ip_addr *ip, int *port, struct str *ret) {
  if (!str_is_set(text) || text.len == 0)
    return true;
  if (!ip_parse_port(text, ip, port)) {
    fprintf(stderr, "martlet: \"%.*s\" is not an IP address\n", STRF(text));
    return false;
  }
  *ret = ip_text(p->arena, ip);
  return true;
}

static struct str or_unset(struct str s) { return str_is_set(s) && s.len > 0 ? s : STR_UNSET; }

bool process_set_client(struct process *p) {
  const struct cli *o = &p->cli;
  struct client *client = p->ctx->client;
  struct ip_addr ours;
  if (!client_address(p, o->oMa, &client->ip, &client->host_port, &client->host_address) ||
      !client_address(p, o->oMi, &ours, &client->interface_port, &client->interface_address))
    return false;
  client->local = !str_is_set(client->host_address);
  client->host_name = or_unset(o->oMs);
  client->protocol = or_unset(o->oMr);
  client->host_authenticated = or_unset(o->oMaa);
  client->authenticated_id = or_unset(o->oMai);
  client->authenticated_sender = or_unset(o->oMas);
  client->ident = or_unset(o->oMt);
  if (!client->local)
    return true;
  if (!str_is_set(client->ident))
    client->ident = p->login;
  if (!str_is_set(client->authenticated_id))
    client->authenticated_id = p->login;
  if (!str_is_set(client->authenticated_sender))
    client->authenticated_sender = str_printf(
        p->arena, "%.*s@%.*s", STRF(p->login), STRF(main_options(p->config)->qualify_domain));
  return true;
}
