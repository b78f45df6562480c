/* The vendor's client library, in a process of its own (expand/foreign.h): it is loaded there for each message, so that it may
crash, hang or leak without harm. The answer is in the lines of features.md F01, or "ERROR text". */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/encode.h"
#include "expand/foreign.h"
#include "scan/bmi_api.h"
#include "scan/bmi_provider.h"

#define LINE_MAX_BYTES (1u << 20)
#define PIECE (64u << 10)

#define CALLS(X)                                                                                                                       \
  X(bmiInitSystem) X(bmiInitMessage) X(bmiProcessConnection) X(bmiProcessFROM) X(bmiOptinInit) X(bmiOptinMset) X(bmiOptinFree)         \
  X(bmiAccumulateTO) X(bmiEndTO) X(bmiAccumulateHeaders) X(bmiEndHeaders) X(bmiAccumulateBody) X(bmiEndBody) X(bmiEndMessage)          \
  X(bmiAccessFirstVerdict) X(bmiAccessNextVerdict) X(bmiVerdictAccessFirstRecipient) X(bmiVerdictAccessNextRecipient)                  \
  X(bmiVerdictDestinationIsDefault) X(bmiVerdictAccessDestination) X(bmiVerdictAccessFiredRules) X(bmiCreateStrFromVerdict)            \
  X(bmiCreateTrackerStrFromVerdict) X(bmiFreeStr) X(bmiRecipientAccessLocalPart) X(bmiRecipientAccessDomain)

static struct {
#define MEMBER(name) __typeof__(name) *name;
  CALLS(MEMBER)
#undef MEMBER
} api;

static const struct {
  const char *name;
  size_t offset;
} calls[] = {
#define ENTRY(name) {#name, offsetof(__typeof__(api), name)},
  CALLS(ENTRY)
#undef ENTRY
};

struct run {
  struct arena *arena;
  int out;
  struct bmi_api_message *message;
  const struct str *recipients; /* "words address" */
  size_t n;
};

static _Noreturn void give_up(int out, const char *what, const char *why) {
  char text[1000];
  snprintf(text, sizeof text, "ERROR %s%s%s\n", what, why ? ": " : "", why ? why : "");
  foreign_write(out, text, strlen(text));
  _exit(0);
}

static void check(const struct run *r, int rc, const char *call) {
  char number[40];
  if (rc == 0)
    return;
  snprintf(number, sizeof number, "error %d", rc);
  give_up(r->out, call, number);
}
#define CALL(r, name, ...) check(r, api.name(__VA_ARGS__), #name)

static void load(int out, const struct str *libraries, size_t n) {
  void *object = NULL;
  for (size_t i = 0; i < n; i++)
    if (!(object = dlopen(libraries[i].p, RTLD_NOW | RTLD_GLOBAL)))
      give_up(out, "cannot load the client library", dlerror());
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    void *symbol = object ? dlsym(object, calls[i].name) : NULL;
    if (!symbol)
      give_up(out, "the client library lacks", calls[i].name);
    memcpy((char *)&api + calls[i].offset, &symbol, sizeof symbol);
  }
}

/* ---- the message goes in ---- */

static void split(struct arena *a, struct str address, const char **ret_local, const char **ret_domain) {
  ptrdiff_t at = str_rfind_byte(address, '@');
  *ret_local = str_dup_c(a, at < 0 ? address : str_slice(address, 0, (size_t)at));
  *ret_domain = at < 0 ? "" : str_dup_c(a, str_from(address, (size_t)at + 1));
}

static struct str address_of(struct str recipient, struct str *ret_words) {
  struct str rest = recipient;
  *ret_words = str_cut(&rest, ' ');
  return rest;
}

static void give_recipients(const struct run *r) {
  for (size_t i = 0; i < r->n; i++) {
    struct bmi_api_optin *o = NULL;
    const char *local, *domain;
    struct str words;
    split(r->arena, address_of(r->recipients[i], &words), &local, &domain);
    if (words.len > 0) {
      CALL(r, bmiOptinInit, &o);
      CALL(r, bmiOptinMset, o, str_dup_c(r->arena, words), ',');
    }
    CALL(r, bmiAccumulateTO, r->message, local, domain, o);
    if (o)
      CALL(r, bmiOptinFree, o);
  }
  CALL(r, bmiEndTO, r->message);
}

/* A field ends at a line end that no white space follows. */
static void give_header(const struct run *r, struct str head) {
  while (head.len > 0) {
    size_t end = 0;
    while (end < head.len && !(head.p[end] == '\n' && (end + 1 == head.len || (head.p[end + 1] != ' ' && head.p[end + 1] != '\t'))))
      end++;
    struct str value = str_slice(head, 0, end), name = str_cut(&value, ':');
    head = end < head.len ? str_from(head, end + 1) : STR_EMPTY;
    if (str_is_set(value))
      CALL(r, bmiAccumulateHeaders, r->message, str_dup_c(r->arena, str_trim(name)), str_dup_c(r->arena, str_trim(value)));
  }
  CALL(r, bmiEndHeaders, r->message);
}

static void give_body(const struct run *r) {
  char *piece = arena_alloc_raw(r->arena, PIECE);
  ssize_t n;
  while ((n = read(STDIN_FILENO, piece, PIECE)) != 0) {
    if (n < 0 && errno != EINTR)
      give_up(r->out, "cannot read the message", strerror(errno));
    if (n > 0)
      CALL(r, bmiAccumulateBody, r->message, piece, (size_t)n);
  }
  CALL(r, bmiEndBody, r->message);
}

/* ---- the verdicts come out ---- */

/* Base64 may come in lines. */
static void add_base64(struct buf *b, const char *text) {
  for (; text && *text; text++)
    if ((unsigned char)*text > ' ')
      buf_add_byte(b, *text);
}

/* Its number, from 1; 0: there is none of that name. */
static size_t number_of(const struct run *r, struct bmi_api_recipient *recipient) {
  const char *local = api.bmiRecipientAccessLocalPart(recipient), *domain = api.bmiRecipientAccessDomain(recipient);
  struct str words, address = str_printf(r->arena, "%s@%s", local ? local : "", domain ? domain : "");
  for (size_t i = 0; i < r->n; i++)
    if (str_eq(address_of(r->recipients[i], &words), address))
      return i + 1;
  return 0;
}

static void say_verdict(const struct run *r, struct bmi_api_verdict *v) {
  struct buf b;
  char *text = NULL;
  buf_init(&b, r->arena, LINE_MAX_BYTES);
  buf_add_c(&b, "VERDICT ");
  size_t start = b.len;
  for (struct bmi_api_recipient *p = api.bmiVerdictAccessFirstRecipient(r->message, v); p && !b.overflow;
       p = api.bmiVerdictAccessNextRecipient(r->message, v, p))
    buf_printf(&b, "%s%zu", b.len > start ? "," : "", number_of(r, p));
  if (b.len == start)
    return;
  bool normal = api.bmiVerdictDestinationIsDefault(v) != 0;
  const char *destination = normal ? NULL : api.bmiVerdictAccessDestination(v), *rules = api.bmiVerdictAccessFiredRules(v);
  bool alternate = destination && *destination;
  buf_printf(&b, " %s rules=", bmi_action_name(normal ? BMI_DELIVER : alternate ? BMI_ALTERNATE : BMI_DROP));
  add_base64(&b, rules);
  buf_printf(&b, " loc=%.*s verdict=", STRF(base64_encode(r->arena, alternate ? str_c(destination) : STR_EMPTY)));
  CALL(r, bmiCreateStrFromVerdict, v, &text);
  add_base64(&b, text);
  api.bmiFreeStr(text);
  buf_add_c(&b, " tracker=");
  text = NULL;
  CALL(r, bmiCreateTrackerStrFromVerdict, v, &text);
  add_base64(&b, text);
  api.bmiFreeStr(text);
  buf_add_byte(&b, '\n');
  if (b.overflow)
    give_up(r->out, "too long a verdict", NULL);
  foreign_write(r->out, b.p, b.len);
}

/* The texts: as bmi_provider.c sends them. */
static void run_library(const struct str *v, int n, int out) {
  uint64_t libraries = 0;
  if (n < BMI_TEXTS || !str_to_u64(v[BMI_TEXT_LIBRARIES], &libraries) || libraries > (uint64_t)(n - BMI_TEXTS))
    _exit(1);
  struct run r = {.arena = arena_new("bmi"), .out = out, .recipients = v + BMI_TEXTS + libraries, .n = (size_t)n - BMI_TEXTS - libraries};
  if (access(v[BMI_TEXT_FILE].p, R_OK) < 0)
    give_up(out, "cannot read bmi_config_file", strerror(errno));
  load(out, v + BMI_TEXTS, libraries);
  struct bmi_api_system *system = NULL;
  const char *local, *domain;
  CALL(&r, bmiInitSystem, v[BMI_TEXT_FILE].p, &system);
  CALL(&r, bmiInitMessage, system, &r.message);
  CALL(&r, bmiProcessConnection, r.message, v[BMI_TEXT_HELO].p, v[BMI_TEXT_CLIENT].p);
  split(r.arena, v[BMI_TEXT_SENDER], &local, &domain);
  CALL(&r, bmiProcessFROM, r.message, local, domain);
  give_recipients(&r);
  give_header(&r, v[BMI_TEXT_HEAD]);
  give_body(&r);
  CALL(&r, bmiEndMessage, r.message);
  for (struct bmi_api_verdict *p = api.bmiAccessFirstVerdict(r.message); p; p = api.bmiAccessNextVerdict(r.message, p))
    say_verdict(&r, p);
  foreign_write(out, "DONE\n", 5);
}

const struct foreign_role bmi_library_role = {.name = "bmi", .run = run_library, .reads_on = true};
