/* Lists of database servers (manual, "Specifying the server in the query"): the main option's, or `servers=…` of one
query, tried in turn. Each item is HOST/…/PASSWORD; one without slashes names an item of the main option by its host. */
#pragma once

#include "lookup/lookup.h"

#define SERVER_FIELDS_MAX 3

struct db_server {
  struct str host;                      /* as written: host, host:port, (socket), host(socket)[group] … */
  struct str fields[SERVER_FIELDS_MAX]; /* what stands between and behind the slashes */
  struct str key;                       /* the whole item: names a connection that can be used again */
  struct str shown;                     /* for texts: without the password */
};

struct db_servers {
  const char *title;  /* "MySQL", for texts */
  const char *option; /* "mysql_servers" */
  int fields;         /* behind the host; the last may hold slashes */
  struct str list;    /* the main option's value */
  /* One server: OUTCOME_OK, FAIL (not found) or ERROR (no other server can do better; c->error; told as DEFER) end the
  search; with DEFER (c->error) the next is tried. [suspends] */
  int (*ask)(struct ctx *c, const struct db_server *server, void *arg);
};

/* Takes an old-style "servers=…;" off the front of the query: the list's text, or unset. Logs a warning. */
struct str db_servers_prefix(struct ctx *c, struct str *query);
/* `only`: the list of this query, or unset. OUTCOME_OK, FAIL, DEFER (c->error). [suspends] */
int db_servers_ask(struct ctx *c, const struct db_servers *s, struct str only, void *arg) MUST_CHECK;
/* The first server of the list that db_servers_ask would use whose host `is_it`. false: there is none. */
bool db_servers_find(struct ctx *c, const struct db_servers *s, struct str only, bool (*is_it)(struct str host, struct str wanted),
    struct str wanted, struct db_server *ret);
/* "name:port", "1.2.3.4:port", "::1.port", "[::1]:port": taken apart. *ret_port is unset if there is none. */
void db_host_port(struct str text, struct str *ret_host, struct str *ret_port);
