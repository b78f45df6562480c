/* Where the daemon listens (Exim manual, chapter "Starting the daemon and the
use of network interfaces"). */
#pragma once

#include "base/arena.h"
#include "base/ip.h"
#include "base/str.h"

struct config;

struct listener {
  struct ip_addr ip;
  int port;
  int fd;                /* -1: not bound (or the partner in a dual-stack pair serves it) */
  bool tls_on_connect;
  bool both_families;    /* an IPv6 socket that takes IPv4 as well */
};

#define LISTENERS_MAX 256

struct listeners {
  struct listener v[LISTENERS_MAX];
  int n;
};

/* From local_interfaces, daemon_smtp_ports, tls_on_connect_ports and -oX (unset: none). 0, or -1 with *ret_error. */
int listen_plan(const struct config *c, struct arena *a, struct str oX, bool all_tls, struct listeners *ret, struct str *ret_error);
/* Binds and listens. 0, or -errno with *ret_error naming the socket; bound ones are closed again. */
int listen_bind(const struct config *c, struct arena *a, struct listeners *l, struct str *ret_error);
/* Binds those that have no socket yet (after a reload). */
int listen_bind_missing(const struct config *c, struct arena *a, struct listeners *l, struct str *ret_error);
void listen_close(struct listeners *l);
/* "SMTP on port 25 (IPv6 and IPv4)" for the start line of the log. */
struct str listen_describe(struct arena *a, const struct listeners *l);
/* A port by number or service name; -1: unknown. */
int listen_port(struct str text);
/* Is tls_on_connect_ports set for that port? */
bool listen_port_is_tls(const struct config *c, struct arena *a, int port);
