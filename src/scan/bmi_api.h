/* The calls of Brightmail's client library that Martlet makes, in this order (features.md F01). The names are the SDK's; the SDK is
not to be had, so that the parameters are ours where its documents do not say them. Where a vendor's header differs, an object
that has these calls and makes the vendor's goes in between (bmi_library).

Calls that return int return 0 when they succeeded. Texts end with NUL. Handles and texts of the library stay its own, but
for those that bmiCreate… gives, which go back to bmiFreeStr. */
#pragma once

#include <stddef.h>

struct bmi_api_system;
struct bmi_api_message;
struct bmi_api_optin;
struct bmi_api_verdict;
struct bmi_api_recipient;

int bmiInitSystem(const char *config_file, struct bmi_api_system **ret);
int bmiInitMessage(struct bmi_api_system *system, struct bmi_api_message **ret);
int bmiProcessConnection(struct bmi_api_message *m, const char *helo_name, const char *client_address);
int bmiProcessFROM(struct bmi_api_message *m, const char *local_part, const char *domain); /* both "": the empty sender */

/* For each recipient; without opt-in data only the fourth, with NULL. */
int bmiOptinInit(struct bmi_api_optin **ret);
int bmiOptinMset(struct bmi_api_optin *o, const char *list, char separator);
int bmiAccumulateTO(struct bmi_api_message *m, const char *local_part, const char *domain, struct bmi_api_optin *o);
int bmiOptinFree(struct bmi_api_optin *o);
int bmiEndTO(struct bmi_api_message *m);

/* A field's value is what stands behind the colon and blanks, folded as it came. */
int bmiAccumulateHeaders(struct bmi_api_message *m, const char *name, const char *value);
int bmiEndHeaders(struct bmi_api_message *m);
int bmiAccumulateBody(struct bmi_api_message *m, const char *data, size_t n); /* as often as it takes; LF line ends */
int bmiEndBody(struct bmi_api_message *m);
int bmiEndMessage(struct bmi_api_message *m);

/* NULL: there are no more. */
struct bmi_api_verdict *bmiAccessFirstVerdict(struct bmi_api_message *m);
struct bmi_api_verdict *bmiAccessNextVerdict(struct bmi_api_message *m, struct bmi_api_verdict *v);
struct bmi_api_recipient *bmiVerdictAccessFirstRecipient(struct bmi_api_message *m, struct bmi_api_verdict *v);
struct bmi_api_recipient *bmiVerdictAccessNextRecipient(struct bmi_api_message *m, struct bmi_api_verdict *v, struct bmi_api_recipient *r);

int bmiVerdictDestinationIsDefault(struct bmi_api_verdict *v);         /* not 0: deliver normally */
const char *bmiVerdictAccessDestination(struct bmi_api_verdict *v);    /* else: where to; NULL or "": nowhere */
const char *bmiVerdictAccessFiredRules(struct bmi_api_verdict *v);     /* numbers and commas; NULL or "": none */
int bmiCreateStrFromVerdict(struct bmi_api_verdict *v, char **ret);    /* base64 */
int bmiCreateTrackerStrFromVerdict(struct bmi_api_verdict *v, char **ret);
void bmiFreeStr(char *text);
const char *bmiRecipientAccessLocalPart(struct bmi_api_recipient *r);  /* as bmiAccumulateTO got it */
const char *bmiRecipientAccessDomain(struct bmi_api_recipient *r);
