#include "dns/resolver.h"

#include <ares.h>
#include <event2/event.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/build.h"
#include "log/log.h"
#include "loop/fiber.h"

#define CHANNELS_MAX 4      /* of different time-outs */
#define FDS_MAX 64
#define OVERALL_SECONDS 120 /* no query takes longer, whatever the options say */
#define DOMAINS_MAX 8
#define TRUST_LOOK 60       /* seconds after which resolv.conf is looked at again */

struct watch {
  struct channel *channel;
  int fd;
  struct event *event;
};

struct channel {
  ares_channel ares;
  struct resolver_options options;
  struct watch watches[FDS_MAX];
  struct loop_timer *timer;
  int64_t used;
  int pending;
};

static struct {
  struct channel *channels[CHANNELS_MAX];
  struct event_base *base;
  pid_t pid;
  bool started;
  struct str domains[DOMAINS_MAX];
  size_t domains_n;
  char *domains_text;
  char server[80]; /* instead of the system's */
} state;

struct request {
  struct fiber *fiber; /* NULL: nobody waits any more */
  struct arena *arena;
  struct channel *channel;
  bool done, sending;
  int status;
  unsigned char *reply;
  int reply_n;
};

static void set_timer(struct channel *ch);

void dns_use_server(const char *address) { snprintf(state.server, sizeof state.server, "%s", address); }

/* The one server for all queries, or NULL: those of the system. */
static const char *fixed_server(void) {
  const char *server = build.dns_server_env ? getenv(build.dns_server_env) : NULL;
  return state.server[0] ? state.server : server;
}

static void on_fd(evutil_socket_t fd, short what, void *arg) {
  struct watch *w = arg;
  struct channel *ch = w->channel;
  ares_process_fd(ch->ares, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
  set_timer(ch);
}

static void on_timer(void *arg) {
  struct channel *ch = arg;
  ch->timer = NULL;
  ares_process_fd(ch->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  set_timer(ch);
}

bool resolver_dns_only(void) { return build.hosts_from_dns_only || state.server[0]; }

static void set_timer(struct channel *ch) {
  struct timeval tv, *t = ares_timeout(ch->ares, NULL, &tv);
  if (ch->timer)
    loop_timer_stop(ch->timer);
  ch->timer = NULL;
  if (t) {
    /* Never early: c-ares would find nothing to do and be asked again at once. */
    usec_t delay = (usec_t)t->tv_sec * USEC_PER_SEC + t->tv_usec + 1000;
    ch->timer = loop_timer_start(delay, on_timer, ch);
  }
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable) {
  struct channel *ch = arg;
  struct watch *w = NULL, *spare = NULL;
  for (int i = 0; i < FDS_MAX; i++) {
    if (ch->watches[i].event && ch->watches[i].fd == fd)
      w = &ch->watches[i];
    else if (!ch->watches[i].event && !spare)
      spare = &ch->watches[i];
  }
  if (w) {
    event_free(w->event);
    w->event = NULL;
  } else {
    w = spare;
  }
  if (!readable && !writable)
    return;
  if (w == NULL)
    return; /* the query times out and is tried again */
  w->channel = ch;
  w->fd = fd;
  w->event = event_new(state.base, fd, (short)(EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0)), on_fd, w);
  if (w->event)
    event_add(w->event, NULL);
}

/* What is not given is as resolv.conf has it, of which c-ares knows other words and tries for much longer. */
static struct resolver_options of_the_system(const struct resolver_options *o) {
  struct resolver_options r = *o;
  struct __res_state system = {0};
  if (res_ninit(&system) != 0)
    return r;
  if (r.retrans <= 0)
    r.retrans = system.retrans;
  if (r.retry <= 0)
    r.retry = system.retry;
  res_nclose(&system);
  return r;
}

static struct channel *channel_new(const struct resolver_options *asked) {
  struct resolver_options system = of_the_system(asked), *o = &system;
  struct channel *ch = xcalloc(1, sizeof *ch);
  struct ares_options ao = {0};
  int mask = ARES_OPT_SOCK_STATE_CB | ARES_OPT_FLAGS;
  ao.flags = ARES_FLAG_NOCHECKRESP | ARES_FLAG_NOSEARCH;
  ao.sock_state_cb = on_socket_state;
  ao.sock_state_cb_data = ch;
  if (o->retrans > 0) {
    ao.timeout = (int)(o->retrans > 3600 ? 3600 : o->retrans) * 1000;
    mask |= ARES_OPT_TIMEOUTMS;
  }
  if (o->retry > 0) {
    ao.tries = (int)(o->retry > 20 ? 20 : o->retry);
    mask |= ARES_OPT_TRIES;
  }
  ch->options = *asked;
  if (ares_init_options(&ch->ares, &ao, mask) != ARES_SUCCESS) {
    free(ch);
    return NULL;
  }
  const char *server = fixed_server();
  if (server && ares_set_servers_ports_csv(ch->ares, server) != ARES_SUCCESS)
    DEBUG(resolver, "DNS server \"%s\" is not understood\n", server);
  return ch;
}

static void channel_free(struct channel *ch) {
  ares_destroy(ch->ares);
  for (int i = 0; i < FDS_MAX; i++)
    if (ch->watches[i].event)
      event_free(ch->watches[i].event);
  if (ch->timer)
    loop_timer_stop(ch->timer);
  free(ch);
}

/* After a fork the parent's sockets and events are not ours to touch: they are left behind. */
static void check_process(void) {
  if (state.pid == getpid() && state.base == loop_event_base())
    return;
  memset(state.channels, 0, sizeof state.channels);
  state.pid = getpid();
  state.base = loop_event_base();
  if (!state.started)
    ares_library_init(ARES_LIB_INIT_ALL);
  state.started = true;
}

static struct channel *channel_get(const struct resolver_options *o) {
  check_process();
  static int64_t uses;
  struct channel **slot = NULL;
  for (int i = 0; i < CHANNELS_MAX; i++) {
    struct channel *ch = state.channels[i];
    if (ch && ch->options.retrans == o->retrans && ch->options.retry == o->retry) {
      ch->used = ++uses;
      return ch;
    }
    if (!ch || (ch->pending == 0 && (!slot || (*slot && (*slot)->used > ch->used))))
      slot = &state.channels[i];
  }
  if (!slot) /* all are busy: the first one's time-outs have to do */
    return state.channels[0];
  if (*slot)
    channel_free(*slot);
  *slot = channel_new(o);
  if (*slot)
    (*slot)->used = ++uses;
  return *slot;
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *p, int n) {
  struct request *r = arg;
  r->channel->pending--;
  if (r->fiber == NULL && !r->sending) {
    free(r);
    return;
  }
  r->status = status;
  if (status == ARES_SUCCESS && n > 0) {
    r->reply = arena_memdup(r->arena, p, (size_t)n);
    r->reply_n = n;
  }
  r->done = true;
  if (!r->sending)
    fiber_wake(r->fiber);
}

int resolver_exchange(struct arena *a, const unsigned char *query, int query_n, const struct resolver_options *o,
    const unsigned char **ret, size_t *ret_n) {
  struct channel *ch = fiber_self() ? channel_get(o) : NULL;
  if (ch == NULL)
    return -1;
  struct request *r = xcalloc(1, sizeof *r);
  r->fiber = fiber_self();
  r->arena = a;
  r->channel = ch;
  r->sending = true;
  ch->pending++;
  ares_send(ch->ares, query, query_n, on_reply, r);
  r->sending = false;
  set_timer(ch);
  usec_t deadline = deadline_in(OVERALL_SECONDS);
  while (!r->done) {
    int w = fiber_park(deadline);
    if (w < 0 && !r->done) {
      r->fiber = NULL; /* freed by the callback */
      return -1;
    }
  }
  int status = r->status;
  *ret = r->reply;
  *ret_n = (size_t)r->reply_n;
  bool good = r->reply != NULL;
  free(r);
  if (!good)
    DEBUG(resolver, "no reply from the name servers: %s\n", ares_strerror(status));
  return good ? 0 : -1;
}

static void find_domains(void) {
  struct resolver_options o = {0};
  struct channel *ch = channel_get(&o);
  struct ares_options ao;
  int mask;
  if (state.domains_text || ch == NULL || fixed_server())
    return;
  if (ares_save_options(ch->ares, &ao, &mask) != ARES_SUCCESS)
    return;
  size_t total = 1;
  for (int i = 0; i < ao.ndomains; i++)
    total += strlen(ao.domains[i]) + 1;
  char *p = state.domains_text = xcalloc(1, total);
  for (int i = 0; i < ao.ndomains && state.domains_n < DOMAINS_MAX; i++) {
    size_t n = strlen(ao.domains[i]);
    memcpy(p, ao.domains[i], n);
    state.domains[state.domains_n++] = str_n(p, n);
    p += n + 1;
  }
  ares_destroy_options(&ao);
}

const struct str *resolver_search(size_t *ret_n) {
  if (fiber_self())
    find_domains();
  *ret_n = state.domains_n;
  return state.domains;
}

static bool listed(struct str list, const struct ip_addr *ip) {
  struct str rest = list;
  while (str_is_set(rest)) {
    struct str item = str_cut(&rest, ' ');
    struct ip_addr one;
    if (ip_parse(str_trim(item), &one) && ip_eq(&one, ip))
      return true;
  }
  return false;
}

static bool is_loopback(const struct ip_addr *ip) {
  static const unsigned char one[16] = {[15] = 1};
  return ip->family == AF_INET ? ip->bytes[0] == 127 : !memcmp(ip->bytes, one, 16);
}

static bool trust_ad_said(void) {
#ifdef RES_TRUSTAD
  struct __res_state rs = {0};
  bool said = res_ninit(&rs) == 0 && rs.options & RES_TRUSTAD;
  res_nclose(&rs);
  return said;
#else
  return false;
#endif
}

static bool all_trusted(struct str list) {
  const struct resolver_options o = {0};
  struct channel *ch = channel_get(&o);
  struct ares_addr_port_node *servers = NULL;
  if (ch == NULL || ares_get_servers_ports(ch->ares, &servers) != ARES_SUCCESS)
    return false;
  bool all = servers != NULL;
  for (const struct ares_addr_port_node *s = servers; s && all; s = s->next) {
    struct ip_addr ip = {.family = s->family};
    memcpy(ip.bytes, &s->addr, s->family == AF_INET ? 4 : 16);
    all = is_loopback(&ip) || listed(list, &ip);
  }
  ares_free_data(servers);
  return all || trust_ad_said();
}

bool resolver_trusted(struct str list) {
  static usec_t checked;
  static bool trusted;
  usec_t now = loop_now();
  if (resolver_dns_only()) /* whoever named the server trusts it */
    return true;
  if (!checked || state.pid != getpid() || now - checked > TRUST_LOOK * USEC_PER_SEC) {
    trusted = fiber_self() && all_trusted(list);
    checked = now;
  }
  return trusted;
}

void resolver_done(void) {
  if (state.started && state.pid == getpid() && state.base == loop_event_base())
    for (int i = 0; i < CHANNELS_MAX; i++)
      if (state.channels[i])
        channel_free(state.channels[i]);
  free(state.domains_text);
  if (state.started)
    ares_library_cleanup();
  memset(&state, 0, sizeof state);
}
