/* How logs and Received: lines name the client. */
#include "acl/acl.h"
#include "log/log.h"

/* "[1.2.3.4]", with ":port" if that is logged. */
static struct str address_text(struct arena *a, const struct client *c, bool port) {
  if (port && c->host_port > 0 && log_selected(LOGSEL_incoming_port))
    return str_printf(a, "[%.*s]:%d", STRF(c->host_address), c->host_port);
  return str_printf(a, "[%.*s]", STRF(c->host_address));
}

/* Is HELO just the client's own address in brackets? Then Received: need not say it again. */
static bool helo_is_address(const struct client *c) {
  struct str h = c->helo_name;
  if (h.len < 2 || h.p[0] != '[' || h.p[h.len - 1] != ']')
    return false;
  struct str inner = str_slice(h, 1, h.len - 1);
  if (str_istarts(inner, STR("IPv6:")) || str_istarts(inner, STR("IPv4:")))
    inner = str_from(inner, 5);
  return str_ieq(inner, c->host_address);
}

void client_set_fullhost(struct arena *a, struct client *c) {
  if (!str_is_set(c->host_address) || c->host_address.len == 0) {
    c->fullhost = STR_UNSET;
    c->rcvhost = STR_UNSET;
    return;
  }
  struct str address = address_text(a, c, true);
  bool helo = str_is_set(c->helo_name) && c->helo_name.len > 0;
  bool ident = str_is_set(c->ident) && c->ident.len > 0;
  bool name = str_is_set(c->host_name) && c->host_name.len > 0;
  struct str extra = STR_EMPTY; /* " helo=x ident=y" */
  bool show_helo = helo && !(name && str_ieq(c->helo_name, c->host_name));
  if (show_helo && (name || !helo_is_address(c)))
    extra = str_printf(a, " helo=%.*s", STRF(c->helo_name));
  if (ident)
    extra = str_printf(a, "%.*s ident=%.*s", STRF(extra), STRF(c->ident));
  if (name) {
    c->fullhost = show_helo ? str_printf(a, "%.*s (%.*s) %.*s", STRF(c->host_name), STRF(c->helo_name), STRF(address))
                            : str_printf(a, "%.*s %.*s", STRF(c->host_name), STRF(address));
    c->rcvhost = str_printf(a, "%.*s (%.*s%.*s)", STRF(c->host_name), STRF(address), STRF(extra));
  } else {
    c->fullhost = show_helo ? str_printf(a, "(%.*s) %.*s", STRF(c->helo_name), STRF(address)) : address;
    struct str bare = str_printf(a, "[%.*s]", STRF(c->host_address));
    if (c->host_port > 0 && log_selected(LOGSEL_incoming_port))
      extra = str_printf(a, " port=%d%.*s", c->host_port, STRF(extra));
    c->rcvhost = extra.len ? str_printf(a, "%.*s (%.*s)", STRF(bare), STRF(str_from(extra, 1))) : bare;
  }
  c->fullhost.taint = c->rcvhost.taint = STR_TAINTED;
}

struct str client_log_text(struct arena *a, const struct client *c, bool tags) {
  if (!str_is_set(c->fullhost)) {
    bool ident = str_is_set(c->ident) && c->ident.len > 0;
    return str_printf(a, "%s%.*s", tags ? "U=" : "", STRF(ident ? c->ident : STR("UNKNOWN")));
  }
  struct str interface = STR_EMPTY, ident = STR_EMPTY, ci = STR_EMPTY;
  if (log_selected(LOGSEL_connection_id) && str_is_set(c->connection_id) && c->connection_id.len > 0)
    ci = str_printf(a, " Ci=%.*s", STRF(c->connection_id));
  if (log_selected(LOGSEL_incoming_interface) && str_is_set(c->interface_address) && c->interface_address.len > 0)
    interface = str_printf(a, " I=[%.*s]:%d", STRF(c->interface_address), c->interface_port);
  if (str_is_set(c->ident) && c->ident.len > 0)
    ident = str_printf(a, " U=%.*s", STRF(c->ident));
  struct str text = str_printf(a, "%s%.*s%.*s%.*s%.*s", tags ? "H=" : "", STRF(c->fullhost), STRF(interface), STRF(ci), STRF(ident));
  text.taint = STR_TAINTED;
  return text;
}
