/* Keys are in memory that processes share with those they fork: the daemon's workers, of this generation and the next. Each
daemon makes its own, or (tls_ticket_servers) agrees about them with others: then a key belongs to one period of time, counted
from 1970, and whoever needs it first makes it and puts it where the others find it. Never is one in a file of ours. */
#include "tls/ticket_keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/arena.h"
#include "base/encode.h"
#include "core/build.h"
#include "core/ctx.h"
#include "hints/shared.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "tls/module.h"
#include "tls/tls.h"

#define PERIOD_DEFAULT 3600
#define RETRY_SECONDS 60 /* until servers that did not answer are asked again */

static int64_t configured_period; /* tls_ticket_period; 0: not known in this process */

int64_t ticket_period(void) {
  return build.tls_ticket_period ? build.tls_ticket_period : configured_period ? configured_period : PERIOD_DEFAULT;
}

struct own_key {
  struct ticket_key key;
  int64_t made; /* seconds since 1970; 0: there is none */
};

#define COMMON_KEYS 3 /* of the period before, this one and the next: clocks differ a little */

static struct shared {
  pthread_mutex_t lock;
  struct own_key now, before;
  struct common_key {
    struct ticket_key key;
    int64_t period; /* its number; 0: there is none */
  } common[COMMON_KEYS];
  uint64_t source;  /* which servers and which length of a period the common keys are of; 0: there are none */
  int64_t again_at; /* the servers did not answer: not asked before then */
} *shared;

__attribute__((constructor)) static void make_shared(void) {
  pthread_mutexattr_t attr;
  void *p = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return;
  (void)madvise(p, sizeof *shared, MADV_DONTDUMP);
  shared = p;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&shared->lock, &attr);
  pthread_mutexattr_destroy(&attr);
}

static void forget_common(void) {
  OPENSSL_cleanse(shared->common, sizeof shared->common);
  shared->source = 0;
  shared->again_at = 0;
}

static void lock(void) {
  if (pthread_mutex_lock(&shared->lock) != EOWNERDEAD)
    return;
  /* A process died in here: what it left may be half a key. */
  OPENSSL_cleanse(&shared->now, sizeof shared->now);
  OPENSSL_cleanse(&shared->before, sizeof shared->before);
  forget_common();
  pthread_mutex_consistent(&shared->lock);
}

static void unlock(void) { pthread_mutex_unlock(&shared->lock); }

static bool make_key(struct ticket_key *k) {
  return RAND_bytes(k->name, sizeof k->name) == 1 && RAND_bytes(k->cipher, sizeof k->cipher) == 1 &&
         RAND_bytes(k->mac, sizeof k->mac) == 1;
}

/* A clock that was set back makes a new key, too. */
static bool rotate(int64_t now) {
  struct own_key fresh = {.made = now};
  int64_t age = now - shared->now.made;
  if (shared->now.made && age >= 0 && age < ticket_period())
    return true;
  if (!make_key(&fresh.key))
    return false;
  if (shared->now.made && age >= 0 && age < 3 * ticket_period()) /* no ticket lives longer */
    shared->before = shared->now;
  else
    OPENSSL_cleanse(&shared->before, sizeof shared->before);
  shared->now = fresh;
  OPENSSL_cleanse(&fresh, sizeof fresh);
  return true;
}

static bool is_named(const struct ticket_key *k, const unsigned char *name) { return memcmp(name, k->name, sizeof k->name) == 0; }

static int own_key(const unsigned char *name, int64_t now, struct ticket_key *ret) {
  if (!rotate(now))
    return 0;
  bool old = name && !is_named(&shared->now.key, name);
  if (old && (!shared->before.made || !is_named(&shared->before.key, name)))
    return 0;
  *ret = old ? shared->before.key : shared->now.key;
  return old ? 2 : 1;
}

static struct common_key *common_slot(int64_t number) { return &shared->common[number % COMMON_KEYS]; }

static bool has_common(int64_t number) { return number > 0 && common_slot(number)->period == number; }

static int common_key(const unsigned char *name, int64_t now, struct ticket_key *ret) {
  int64_t number = now / ticket_period();
  if (!shared->source)
    return 0;
  for (int64_t n = name ? number - 1 : number; n <= (name ? number + 1 : number); n++)
    if (has_common(n) && (!name || is_named(&common_slot(n)->key, name))) {
      *ret = common_slot(n)->key;
      return n < number ? 2 : 1;
    }
  return 0;
}

int ticket_key_get(const unsigned char *name, struct ticket_key *ret) {
  if (!shared)
    return 0;
  int64_t now = (int64_t)time(NULL);
  lock();
  int r = common_key(name, now, ret);
  if (r == 0)
    r = own_key(name, now, ret);
  unlock();
  return r;
}

/* --- keys that several daemons agree about --- */

/* A period, or the words of another version, must not become a key: the length is exact. */
static bool decode(struct arena *a, struct str text, struct ticket_key *ret) {
  struct str bytes;
  if (!hex_decode(a, text, &bytes) || bytes.len != sizeof *ret)
    return false;
  memcpy(ret, bytes.p, sizeof *ret);
  return true;
}

static void keep(int64_t number, const struct ticket_key *k) {
  lock();
  *common_slot(number) = (struct common_key){*k, number};
  unlock();
}

/* The key of that period: made, if nobody has yet. OUTCOME_DEFER: c->error. [suspends] */
static int agree(struct ctx *c, struct str servers, int64_t number, bool make) {
  struct ticket_key k;
  struct str name = str_printf(c->arena, "tickets:%lld:%lld", (long long)ticket_period(), (long long)number), text;
  int r;
  if (!make) {
    r = hints_shared_get(c, servers, name, &text);
  } else if (!make_key(&k)) {
    return ctx_fail(c, OUTCOME_DEFER, "no random bytes");
  } else {
    struct str mine = hex_encode(c->arena, str_n((const char *)&k, sizeof k));
    r = hints_shared_agree(c, servers, name, mine, 4 * ticket_period(), &text);
  }
  if (r == OUTCOME_OK && !decode(c->arena, text, &k))
    r = ctx_fail(c, OUTCOME_DEFER, "%.*s is not a key", STRF(name));
  if (r == OUTCOME_OK)
    keep(number, &k);
  OPENSSL_cleanse(&k, sizeof k);
  return r == OUTCOME_FAIL ? OUTCOME_OK : r;
}

static uint64_t source_of(struct str servers) {
  uint64_t h = 0xcbf29ce484222325u ^ (uint64_t)ticket_period();
  for (size_t i = 0; i < servers.len; i++)
    h = (h ^ (unsigned char)servers.p[i]) * 0x100000001b3u;
  return h ? h : 1;
}

/* Is there something to ask for? The key of the next period is wanted before it begins. */
static bool lacks(uint64_t source, int64_t now) {
  int64_t number = now / ticket_period();
  lock();
  if (shared->source != source)
    forget_common();
  bool r = now >= shared->again_at && (!has_common(number) || !has_common(number + 1));
  unlock();
  return r;
}

static void ask(struct ctx *c, struct str servers, uint64_t source) {
  int64_t now = (int64_t)time(NULL), number = now / ticket_period();
  int r = agree(c, servers, number, true);
  if (r == OUTCOME_OK)
    r = agree(c, servers, number + 1, true);
  if (r == OUTCOME_OK && !has_common(number - 1))
    r = agree(c, servers, number - 1, false);
  lock();
  shared->source = source;
  shared->again_at = r == OUTCOME_OK ? 0 : now + RETRY_SECONDS;
  unlock();
  if (r != OUTCOME_OK)
    log_write(LOG_MAIN | LOG_PANIC, NULL, "tls_ticket_servers: %.*s; tickets are for this host alone for now", STRF(c->error));
}

void tls_tickets_prepare(struct ctx *c) {
  static struct fiber_sem one;
  static bool ready;
  const struct tls_main_options *o = tls_main_options(c->config);
  struct str servers = o->tls_ticket_servers;
  configured_period = o->tls_ticket_period;
  if (!shared || !str_is_set(servers) || servers.len == 0 || !lacks(source_of(servers), (int64_t)time(NULL)))
    return;
  if (!ready)
    fiber_sem_init(&one, 1);
  ready = true;
  if (fiber_sem_acquire(&one, deadline_in(RETRY_SECONDS)) < 0)
    return;
  struct arena *a = arena_new_secret("ticket keys");
  struct ctx *own = ctx_new(a, c->config);
  if (lacks(source_of(servers), (int64_t)time(NULL)))
    ask(own, servers, source_of(servers));
  arena_free(a);
  fiber_sem_release(&one);
}
