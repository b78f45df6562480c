/* A pool of threads for calls that block. A thread takes jobs until none came
for a while; results go back through a list and the loop's eventfd. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include "loop/loop_internal.h"

#define THREADS_MAX 16
#define IDLE_SECONDS 10
/* PAM and NSS modules are not frugal. */
#define THREAD_STACK (1u << 20)

struct job {
  int (*fn)(void *arg);
  void *arg;
  int result;
  struct fiber *fiber;
  struct job *next;
};

enum thread_state { THREAD_NONE, THREAD_RUNNING, THREAD_ENDED };

static struct pool {
  pthread_mutex_t mutex;
  pthread_cond_t more;
  struct job *queue, **queue_tail;
  struct job *done;
  int queued, idle;
  bool stopping;
  struct {
    pthread_t id;
    enum thread_state state;
  } threads[THREADS_MAX];
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .queue_tail = &pool.queue};

/* With the mutex held: the next job, or NULL when the thread shall end. */
static struct job *next_job(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += IDLE_SECONDS;
  while (!pool.queue && !pool.stopping) {
    pool.idle++;
    int r = pthread_cond_timedwait(&pool.more, &pool.mutex, &until);
    pool.idle--;
    if (r && !pool.queue)
      return NULL;
  }
  struct job *job = pool.queue;
  if (!job)
    return NULL;
  pool.queue = job->next;
  if (!pool.queue)
    pool.queue_tail = &pool.queue;
  pool.queued--;
  return job;
}

static void *thread_main(void *arg) {
  size_t number = (size_t)(uintptr_t)arg;
  struct job *job;
  pthread_mutex_lock(&pool.mutex);
  while ((job = next_job())) {
    pthread_mutex_unlock(&pool.mutex);
    job->result = job->fn(job->arg);
    pthread_mutex_lock(&pool.mutex);
    bool first = !pool.done;
    job->next = pool.done;
    pool.done = job;
    if (first)
      loop_wake();
  }
  pool.threads[number].state = THREAD_ENDED;
  pthread_mutex_unlock(&pool.mutex);
  return NULL;
}

/* With the mutex held. No thread at all is no error as long as one runs. */
static bool thread_start(void) {
  for (size_t i = 0; i < THREADS_MAX; i++) {
    if (pool.threads[i].state == THREAD_RUNNING)
      continue;
    if (pool.threads[i].state == THREAD_ENDED)
      pthread_join(pool.threads[i].id, NULL);
    pthread_attr_t attr;
    sigset_t all, old;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the loop's thread */
    int r = pthread_create(&pool.threads[i].id, &attr, thread_main, (void *)(uintptr_t)i);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    pool.threads[i].state = r == 0 ? THREAD_RUNNING : THREAD_NONE;
    return r == 0;
  }
  return false;
}

static bool any_thread(void) {
  for (size_t i = 0; i < THREADS_MAX; i++)
    if (pool.threads[i].state == THREAD_RUNNING)
      return true;
  return false;
}

int fiber_offload(int (*fn)(void *arg), void *arg) {
  struct job job = {.fn = fn, .arg = arg, .fiber = fiber_self()};
  if (!job.fiber)
    return fn(arg);
  pthread_mutex_lock(&pool.mutex);
  if (pool.queued >= pool.idle && !thread_start() && !any_thread()) {
    pthread_mutex_unlock(&pool.mutex);
    return fn(arg); /* the machine gives us no thread: slow is better than never */
  }
  *pool.queue_tail = &job;
  pool.queue_tail = &job.next;
  pool.queued++;
  pthread_mutex_unlock(&pool.mutex);
  pthread_cond_signal(&pool.more); /* not before: the thread would wake up only to wait for the mutex */
  fiber_park_internal(DEADLINE_NEVER, false, false);
  return job.result;
}

void offload_reap(void) {
  pthread_mutex_lock(&pool.mutex);
  struct job *done = pool.done;
  pool.done = NULL;
  pthread_mutex_unlock(&pool.mutex);
  while (done) {
    struct job *job = done;
    done = job->next; /* the job lies on the fiber's stack: read it first */
    fiber_resume(job->fiber, 0);
  }
}

void offload_forget(void) {
  /* Only the forking thread lives on; whoever held the mutex is gone. */
  memset(&pool, 0, sizeof pool);
  pool.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  pool.more = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
  pool.queue_tail = &pool.queue;
}

void offload_done(void) {
  pthread_mutex_lock(&pool.mutex);
  pool.stopping = true;
  pthread_cond_broadcast(&pool.more);
  pthread_mutex_unlock(&pool.mutex);
  for (size_t i = 0; i < THREADS_MAX; i++) {
    if (pool.threads[i].state != THREAD_NONE)
      pthread_join(pool.threads[i].id, NULL);
  }
  offload_forget();
}
