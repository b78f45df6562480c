/* A client library as Brightmail's SDK has it (src/scan/bmi_api.h), which judges as its configuration file says. Lines:
    trace FILE                        each call is written there
    fail CALL | crash CALL | hang CALL
    endless                           there is always another recipient
    verdict USERS ACTION RULES TEXT   users with commas, "?" somebody unknown; ACTION deliver, drop or alternate with TEXT; RULES or - */
#include "scan/bmi_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX 100

struct bmi_api_system { int unused; };
struct bmi_api_optin { char list[1000]; };
struct bmi_api_recipient { char local[1000], domain[1000]; };
struct bmi_api_verdict { char users[1000], action[40], rules[200], text[1000]; };
struct bmi_api_message { size_t body; };

static struct bmi_api_system the_system;
static struct bmi_api_message the_message;
static struct bmi_api_optin the_optin;
static char verdict_text[] = "dmVy\nZGljdA==\n", tracker_text[] = "dHJhY2tlcg=="; /* "verdict", in lines; "tracker" */
static struct bmi_api_verdict verdicts[MAX];
static struct bmi_api_recipient recipients[MAX], unknown = {"nobody", "unknown.test"};
static int verdicts_n, recipients_n, endless;
static FILE *trace;
static char trouble[40], at[100];

static int called(const char *name, const char *a, const char *b) {
  if (trace)
    fprintf(trace, "%s <%s> <%s>\n", name, a, b), fflush(trace);
  if (strcmp(at, name) != 0)
    return 0;
  if (!strcmp(trouble, "crash"))
    abort();
  while (!strcmp(trouble, "hang"))
    pause();
  return 7;
}

EXPORT int bmiInitSystem(const char *file, struct bmi_api_system **ret) {
  char line[4096], name[4000];
  FILE *f = fopen(file, "r");
  if (!f)
    return 1;
  while (fgets(line, sizeof line, f)) {
    struct bmi_api_verdict *v = &verdicts[verdicts_n];
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "trace %3999s", name) == 1)
      trace = fopen(name, "a");
    else if (!strcmp(line, "endless"))
      endless = 1;
    else if (verdicts_n < MAX && sscanf(line, "verdict %999s %39s %199s %999[^\n]", v->users, v->action, v->rules, v->text) >= 3)
      verdicts_n++;
    else
      sscanf(line, "%39s %99s", trouble, at);
  }
  fclose(f);
  puts("what the library prints is nobody's answer");
  *ret = &the_system;
  return called("bmiInitSystem", "", "");
}

EXPORT int bmiInitMessage(struct bmi_api_system *s, struct bmi_api_message **ret) {
  *ret = &the_message;
  return s != &the_system || called("bmiInitMessage", "", "");
}
EXPORT int bmiProcessConnection(struct bmi_api_message *m, const char *helo, const char *address) {
  return called("bmiProcessConnection", helo, address);
}
EXPORT int bmiProcessFROM(struct bmi_api_message *m, const char *local, const char *domain) { return called("bmiProcessFROM", local, domain); }

EXPORT int bmiOptinInit(struct bmi_api_optin **ret) {
  *ret = &the_optin;
  return 0;
}
EXPORT int bmiOptinMset(struct bmi_api_optin *o, const char *list, char separator) {
  snprintf(o->list, sizeof o->list, "%s", list);
  return separator != ',' || called("bmiOptinMset", list, "");
}
EXPORT int bmiOptinFree(struct bmi_api_optin *o) {
  return o != &the_optin || called("bmiOptinFree", "", "");
}
EXPORT int bmiAccumulateTO(struct bmi_api_message *m, const char *local, const char *domain, struct bmi_api_optin *o) {
  char address[2100];
  if (recipients_n == MAX)
    return 1;
  snprintf(recipients[recipients_n].local, sizeof recipients->local, "%s", local);
  snprintf(recipients[recipients_n++].domain, sizeof recipients->domain, "%s", domain);
  snprintf(address, sizeof address, "%s@%s", local, domain);
  return called("bmiAccumulateTO", address, o ? o->list : "");
}
EXPORT int bmiEndTO(struct bmi_api_message *m) { return called("bmiEndTO", "", ""); }

EXPORT int bmiAccumulateHeaders(struct bmi_api_message *m, const char *name, const char *value) {
  return called("bmiAccumulateHeaders", name, value);
}
EXPORT int bmiEndHeaders(struct bmi_api_message *m) { return called("bmiEndHeaders", "", ""); }
EXPORT int bmiAccumulateBody(struct bmi_api_message *m, const char *data, size_t n) {
  m->body += n;
  return called("bmiAccumulateBody", "", "");
}
EXPORT int bmiEndBody(struct bmi_api_message *m) {
  char size[40];
  snprintf(size, sizeof size, "%zu", m->body);
  return called("bmiEndBody", size, "");
}
EXPORT int bmiEndMessage(struct bmi_api_message *m) { return called("bmiEndMessage", "", ""); }

EXPORT struct bmi_api_verdict *bmiAccessFirstVerdict(struct bmi_api_message *m) { return verdicts_n ? verdicts : NULL; }
EXPORT struct bmi_api_verdict *bmiAccessNextVerdict(struct bmi_api_message *m, struct bmi_api_verdict *v) {
  return v + 1 < verdicts + verdicts_n ? v + 1 : NULL;
}

static int judged(const struct bmi_api_verdict *v, const char *local) {
  char list[1100], one[1100];
  snprintf(list, sizeof list, ",%s,", v->users);
  snprintf(one, sizeof one, ",%s,", local);
  return strstr(list, one) != NULL;
}
static struct bmi_api_recipient *from(struct bmi_api_verdict *v, struct bmi_api_recipient *r) {
  for (; r < recipients + recipients_n; r++)
    if (judged(v, r->local))
      return r;
  return endless ? recipients : NULL;
}
EXPORT struct bmi_api_recipient *bmiVerdictAccessFirstRecipient(struct bmi_api_message *m, struct bmi_api_verdict *v) {
  return !strcmp(v->users, "?") ? &unknown : from(v, recipients);
}
EXPORT struct bmi_api_recipient *bmiVerdictAccessNextRecipient(struct bmi_api_message *m, struct bmi_api_verdict *v, struct bmi_api_recipient *r) {
  return r == &unknown ? NULL : from(v, r + 1);
}

EXPORT int bmiVerdictDestinationIsDefault(struct bmi_api_verdict *v) { return !strcmp(v->action, "deliver"); }
EXPORT const char *bmiVerdictAccessDestination(struct bmi_api_verdict *v) { return !strcmp(v->action, "alternate") ? v->text : NULL; }
EXPORT const char *bmiVerdictAccessFiredRules(struct bmi_api_verdict *v) { return strcmp(v->rules, "-") != 0 ? v->rules : NULL; }
EXPORT int bmiCreateStrFromVerdict(struct bmi_api_verdict *v, char **ret) {
  *ret = verdict_text;
  return called("bmiCreateStrFromVerdict", "", "");
}
EXPORT int bmiCreateTrackerStrFromVerdict(struct bmi_api_verdict *v, char **ret) {
  *ret = tracker_text;
  return 0;
}
EXPORT void bmiFreeStr(char *text) {
  if (text != verdict_text && text != tracker_text)
    abort();
}
EXPORT const char *bmiRecipientAccessLocalPart(struct bmi_api_recipient *r) { return r->local; }
EXPORT const char *bmiRecipientAccessDomain(struct bmi_api_recipient *r) { return r->domain; }
