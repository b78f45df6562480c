#include "daemon/scoreboard.h"

#include <string.h>
#include <sys/mman.h>

struct scoreboard *scoreboard_new(int workers) {
  struct scoreboard *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED)
    return NULL;
  s->workers = workers;
  return s;
}

/* FNV-1a; never 0. Client addresses need no keyed hash here: a collision cannot make a limit looser. */
static uint32_t host_hash(const struct ip_addr *ip) {
  uint32_t h = 2166136261u;
  for (int i = 0; i < (ip->family == AF_INET ? 4 : 16); i++)
    h = (h ^ ip->bytes[i]) * 16777619u;
  return h ? h : 1;
}

int scoreboard_connect(struct worker_slot *w, const struct ip_addr *ip) {
  uint32_t h = host_hash(ip);
  int start = atomic_load_explicit(&w->sessions, memory_order_relaxed);
  for (int n = 0; n < WORKER_SESSIONS_MAX; n++) {
    int i = (start + n) % WORKER_SESSIONS_MAX;
    if (atomic_load_explicit(&w->host[i], memory_order_relaxed))
      continue;
    atomic_store_explicit(&w->host[i], h, memory_order_relaxed);
    atomic_fetch_add(&w->sessions, 1);
    return i;
  }
  return -1;
}

void scoreboard_disconnect(struct worker_slot *w, int place) {
  if (place < 0)
    return;
  atomic_store_explicit(&w->host[place], 0, memory_order_relaxed);
  atomic_fetch_sub(&w->sessions, 1);
}

int scoreboard_sessions(const struct scoreboard *s) {
  int n = 0;
  for (int i = 0; i < s->workers; i++)
    n += atomic_load(&s->worker[i].sessions);
  return n;
}

int scoreboard_sessions_of(const struct scoreboard *s, const struct ip_addr *ip) {
  uint32_t h = host_hash(ip);
  int n = 0;
  for (int i = 0; i < s->workers; i++) {
    int left = atomic_load(&s->worker[i].sessions);
    for (int k = 0; k < WORKER_SESSIONS_MAX && left > 0; k++) {
      uint32_t v = atomic_load_explicit(&s->worker[i].host[k], memory_order_relaxed);
      if (v) {
        left--;
        n += v == h;
      }
    }
  }
  return n;
}

void scoreboard_clear(struct worker_slot *w) { memset((void *)w, 0, sizeof *w); }
