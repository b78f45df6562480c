/* XCLIENT (Postfix's XCLIENT_README): a proxy of hosts_xclient says whose commands follow. */
#include <ctype.h>

#include "base/encode.h"
#include "smtp/server/internal.h"

struct attributes {
  bool have_addr, have_port, have_name, have_login, have_destaddr, have_destport;
  struct ip_addr addr, destaddr;
  int port, destport;
  struct str name, login; /* unset: not available */
};

static bool take_address(struct str v, struct ip_addr *ret) {
  return ip_parse(str_istarts(v, STR("IPV6:")) ? str_from(v, 5) : v, ret) && !ret->scope;
}

static bool take_port(struct str v, int *ret) {
  uint64_t n;
  if (!str_to_u64(v, &n) || n > 65535)
    return false;
  *ret = (int)n;
  return true;
}

static bool host_name(struct str v) {
  for (uint32_t i = 0; i < v.len; i++)
    if (!isalnum((unsigned char)v.p[i]) && v.p[i] != '.' && v.p[i] != '-' && v.p[i] != '_')
      return false;
  return v.len <= 255;
}

static bool printable_text(struct str v) {
  for (uint32_t i = 0; i < v.len; i++)
    if ((unsigned char)v.p[i] < ' ' || v.p[i] == 0x7f)
      return false;
  return true;
}

/* One NAME=value. NULL, or what is wrong with it. */
static const char *take(struct smtp_session *s, struct str word, struct attributes *a) {
  ptrdiff_t equals = str_find_byte(word, '=');
  struct str name = equals < 0 ? word : str_slice(word, 0, (size_t)equals), v;
  static const char *const names[] = {"ADDR", "PORT", "NAME", "LOGIN", "DESTADDR", "DESTPORT"};
  size_t which = 0;
  while (which < 6 && !str_ieq_c(name, names[which]))
    which++;
  if (which == 6)
    return "unrecognised XCLIENT parameter";
  if (equals < 0 || (uint32_t)equals + 1 == word.len)
    return "missing value for XCLIENT parameter";
  if (!xtext_decode(s->arena, str_from(word, (size_t)equals + 1), &v) || !printable_text(v))
    return "malformed value for XCLIENT parameter";
  v.taint = STR_TAINTED;
  bool none = str_ieq_c(v, "[UNAVAILABLE]") || str_ieq_c(v, "[TEMPUNAVAIL]"), ok = true;
  switch (which) {
    case 0: ok = !none && take_address(v, &a->addr); a->have_addr = true; break;
    case 1: ok = !none && take_port(v, &a->port); a->have_port = true; break;
    case 2: ok = none || host_name(v); a->name = none ? STR_UNSET : v; a->have_name = true; break;
    case 3: a->login = none ? STR_UNSET : v; a->have_login = true; break;
    case 4: ok = !none && take_address(v, &a->destaddr); a->have_destaddr = true; break;
    default: ok = !none && take_port(v, &a->destport); a->have_destport = true;
  }
  return ok ? NULL : "malformed value for XCLIENT parameter";
}

static void apply(struct smtp_session *s, const struct attributes *a) {
  struct client *cl = s->c->client;
  struct client_proxy *p = cl->proxy;
  if (!p)
    p = cl->proxy = arena_new_of(s->arena, struct client_proxy);
  p->local_address = cl->host_address;
  p->local_port = cl->host_port;
  if (a->have_destaddr)
    p->external_address = ip_text(s->arena, &a->destaddr);
  if (a->have_destport)
    p->external_port = a->destport;
  smtp_set_client_address(s, a->have_addr ? &a->addr : &cl->ip, a->have_port ? a->port : s->xclient_done ? cl->host_port : 0);
  if (str_is_set(a->name)) {
    cl->host_name = str_dup(s->arena, a->name);
    cl->host_name_looked_up = true;
  } else if (a->have_name) {
    cl->host_lookup_failed = true;
  }
  cl->ident = STR_UNSET;
  cl->host_authenticated = str_is_set(a->login) ? STR("xclient") : STR_UNSET;
  cl->host_auth_mechanism = STR_UNSET;
  cl->authenticated_id = str_is_set(a->login) ? str_dup(s->arena, a->login) : STR_UNSET;
  cl->helo_verified = cl->helo_verify_failed = false;
  client_set_fullhost(s->arena, cl);
}

enum smtp_next smtp_verb_xclient(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  const char *why = NULL;
  if (!s->ad_xclient)
    return smtp_synprot(s, false, 501, STR_UNSET, "XCLIENT command used when not advertised");
  if (s->message) {
    smtp_say(s, "503 mail transaction in progress");
    acl_log(c, LOG_MAIN | LOG_REJECT, "rejected XCLIENT from %.*s: mail transaction in progress", STRF(smtp_sender_who(s)));
    return SMTP_GO_ON;
  }
  if (args.len == 0)
    return smtp_synprot(s, false, 501, STR_UNSET, "XCLIENT must have at least one operand");
  struct attributes a = {.name = STR_UNSET, .login = STR_UNSET};
  for (struct str rest = args; str_is_set(rest) && !why;) {
    struct str word = str_cut(&rest, ' ');
    if (word.len > 0)
      why = take(s, word, &a);
  }
  bool port_wanted = !smtp_server_options(s->c->config)->xclient_without_port;
  if (!why && !s->xclient_done && (!a.have_addr || (!a.have_port && port_wanted)))
    why = port_wanted ? "first XCLIENT must have ADDR and PORT" : "first XCLIENT must have ADDR";
  if (why)
    return smtp_synprot(s, false, 501, STR_UNSET, "%s", why);
  apply(s, &a);
  s->xclient_done = true;
  smtp_restart(s);
  return SMTP_GO_ON;
}
