/* STARTTLS (RFC 3207). */
#include "smtp/server/internal.h"

/* Waits for the TLS room. */
bool smtp_tls_offered(struct smtp_session *s) { return false; }

enum smtp_next smtp_verb_starttls(struct smtp_session *s, struct str args) {
  if (!s->ad_tls)
    return smtp_synprot(s, true, 503, STR_UNSET, "STARTTLS command used when not advertised");
  smtp_say(s, "454 TLS currently unavailable");
  return SMTP_GO_ON;
}
