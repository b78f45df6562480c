#include "base/pcre.h"

#include <pthread.h>
#include <stdlib.h>

#include <pcre2.h>

#include "base/arena.h"

#define CACHE_SIZE 256
#define MATCH_LIMIT 10000000u
#define DEPTH_LIMIT 250000u
#define HEAP_LIMIT_KIB 20000u

struct pcre {
  pcre2_code *code;
  int captures;
  bool jit;
  /* cache only */
  struct str pattern;
  unsigned flags;
  uint64_t used;
  char *text;
};

static struct pcre *cache[CACHE_SIZE];
static uint64_t use_counter;

static pcre2_match_context *limits_ctx; /* matching only reads it, in any thread */

static void limits_make(void) {
  pcre2_match_context *made = pcre2_match_context_create(NULL);
  if (!made)
    abort();
  pcre2_set_match_limit(made, MATCH_LIMIT);
  pcre2_set_depth_limit(made, DEPTH_LIMIT);
  pcre2_set_heap_limit(made, HEAP_LIMIT_KIB);
  __atomic_store_n(&limits_ctx, made, __ATOMIC_RELEASE);
}

static pcre2_match_context *limits(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (!__atomic_load_n(&limits_ctx, __ATOMIC_ACQUIRE))
    pthread_once(&once, limits_make);
  return limits_ctx;
}

/* Fills in the code and what is asked of it at each match. False: it does not compile. */
static bool compile(struct arena *a, struct str pattern, unsigned flags, struct pcre *ret, struct str *ret_error) {
  int err;
  size_t at;
  uint32_t o = (flags & PCRE_CASELESS ? PCRE2_CASELESS : 0) | (flags & PCRE_ANCHORED ? PCRE2_ANCHORED : 0);
  pcre2_code *code = pcre2_compile((PCRE2_SPTR)(pattern.p ? pattern.p : ""), pattern.len, o, &err, &at, NULL);
  if (!code) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(err, text, sizeof text);
    if (ret_error)
      *ret_error = str_printf(a, "regular expression error in \"%.*s\": %s at offset %zu", STRF(pattern), (char *)text, at);
    return false;
  }
  uint32_t captures = 0;
  pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &captures);
  ret->code = code;
  ret->captures = (int)captures;
  ret->jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0; /* without JIT the interpreter does the same */
  return true;
}

static void free_code(void *arg) { pcre2_code_free(arg); }

const struct pcre *pcre_compile(struct arena *a, struct str pattern, unsigned flags, struct str *ret_error) {
  struct pcre *p = arena_new_of(a, struct pcre);
  if (!compile(a, pattern, flags, p, ret_error))
    return NULL;
  arena_cleanup(a, free_code, p->code);
  return p;
}

/* The texts of most patterns stay where they are, in compiled configuration: their address finds them without a hash. What
is found is compared all the same, since memory is used again. */
#define RECENT_SIZE 64
static struct pcre *recent[RECENT_SIZE];

static struct pcre **recent_place(struct str pattern) {
  uintptr_t at = (uintptr_t)pattern.p;
  return &recent[(at ^ at >> 6 ^ pattern.len) % RECENT_SIZE];
}

static size_t slot_of(struct str pattern, unsigned flags) { return (str_hash(pattern) ^ flags) % (CACHE_SIZE / 4) * 4; }

const struct pcre *pcre_get(struct arena *a, struct str pattern, unsigned flags, struct str *ret_error) {
  struct pcre **known = recent_place(pattern);
  if (*known && (*known)->flags == flags && str_eq((*known)->pattern, pattern)) {
    (*known)->used = ++use_counter;
    return *known;
  }
  size_t base = slot_of(pattern, flags);
  struct pcre **victim = &cache[base];
  for (size_t i = 0; i < 4; i++) {
    struct pcre **s = &cache[base + i];
    if (*s && (*s)->flags == flags && str_eq((*s)->pattern, pattern)) {
      (*s)->used = ++use_counter;
      return *known = *s;
    }
    if (!*s || (*victim && (*s)->used < (*victim)->used))
      victim = s;
  }
  struct pcre made = {.flags = flags};
  if (!compile(a, pattern, flags, &made, ret_error))
    return NULL;
  struct pcre *p = *victim;
  if (p) {
    pcre2_code_free(p->code);
    free(p->text);
  } else {
    p = *victim = xcalloc(1, sizeof *p);
  }
  made.text = xmalloc(pattern.len + 1);
  memcpy(made.text, pattern.p ? pattern.p : "", pattern.len);
  made.pattern = str_n(made.text, pattern.len);
  made.used = ++use_counter;
  *p = made;
  return *known = p;
}

#define KEPT_PAIRS 32

static pthread_key_t kept_key;

static void kept_free(void *md) { pcre2_match_data_free(md); }
static void kept_make(void) {
  if (pthread_key_create(&kept_key, kept_free) != 0)
    abort();
}

/* Room for the result: each thread keeps one that nearly all patterns can do with. */
static pcre2_match_data *result_room(const struct pcre *p) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  static _Thread_local pcre2_match_data *kept;
  if (p->captures >= KEPT_PAIRS)
    return pcre2_match_data_create((uint32_t)p->captures + 1, NULL);
  if (kept == NULL) {
    pthread_once(&once, kept_make);
    kept = pcre2_match_data_create(KEPT_PAIRS, NULL);
    pthread_setspecific(kept_key, kept);
  }
  return kept;
}

/* The result is in `md`. JIT code is called directly where it can be: the checks on the way there cost as much as most matches. */
static int run(const struct pcre *p, struct str subject, size_t offset, uint32_t options, pcre2_match_data *md) {
  PCRE2_SPTR text = (PCRE2_SPTR)(subject.p ? subject.p : "");
  int n;
  if (p->jit && options == 0 && offset <= subject.len)
    n = pcre2_jit_match(p->code, text, subject.len, offset, 0, md, limits());
  else
    n = pcre2_match(p->code, text, subject.len, offset, options, md, limits());
  /* JIT code has 32 KiB of stack; the interpreter has the heap, up to its limit. */
  if (n == PCRE2_ERROR_JIT_STACKLIMIT)
    n = pcre2_match(p->code, text, subject.len, offset, options | PCRE2_NO_JIT, md, limits());
  return n;
}

static int end(const struct pcre *p, pcre2_match_data *md, int n) {
  if (p->captures >= KEPT_PAIRS)
    pcre2_match_data_free(md);
  return n > 0 ? n : n == PCRE2_ERROR_NOMATCH ? 0 : -1;
}

int pcre_match_at(const struct pcre *p, struct str subject, size_t offset, bool not_empty_at_start, size_t *ovector, int max_pairs) {
  pcre2_match_data *md = result_room(p);
  int n = run(p, subject, offset, not_empty_at_start ? PCRE2_NOTEMPTY_ATSTART | PCRE2_ANCHORED : 0, md);
  const PCRE2_SIZE *v = pcre2_get_ovector_pointer(md);
  if (n > 0)
    memcpy(ovector, v, 2 * sizeof *v * (size_t)(n < max_pairs ? n : max_pairs));
  return end(p, md, n);
}

int pcre_match(const struct pcre *p, struct str subject, struct str *groups, int max_groups) {
  pcre2_match_data *md = result_room(p);
  int n = run(p, subject, 0, 0, md);
  const PCRE2_SIZE *v = pcre2_get_ovector_pointer(md);
  for (int i = 0; i < n && i < max_groups; i++) {
    bool in = v[2 * i] != PCRE2_UNSET;
    /* \K can put the end before the start. */
    groups[i] = in ? str_slice(subject, v[2 * i], v[2 * i + 1] < v[2 * i] ? v[2 * i] : v[2 * i + 1]) : STR_EMPTY;
    groups[i].taint = subject.taint;
  }
  return end(p, md, n);
}

int pcre_capture_count(const struct pcre *p) { return p->captures; }

void pcre_names(const struct pcre *p, void (*fn)(void *arg, struct str name, int number), void *arg) {
  uint32_t n = 0, size = 0;
  PCRE2_SPTR table = NULL;
  pcre2_pattern_info(p->code, PCRE2_INFO_NAMECOUNT, &n);
  if (!n)
    return;
  pcre2_pattern_info(p->code, PCRE2_INFO_NAMEENTRYSIZE, &size);
  pcre2_pattern_info(p->code, PCRE2_INFO_NAMETABLE, &table);
  for (uint32_t i = 0; i < n; i++, table += size)
    fn(arg, str_c((const char *)table + 2), table[0] << 8 | table[1]);
}

int pcre_match_text(struct arena *a, struct str pattern, struct str subject, struct str *groups, int max_groups) {
  const struct pcre *p = pcre_compile(a, pattern, 0, NULL);
  return p ? pcre_match(p, subject, groups, max_groups) : -2;
}
