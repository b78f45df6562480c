/* What bounces and delay warnings have in common: RFC 3464 reports in Exim's
words (RFC 6522 multipart/report; Exim manual, chapter "Customizing bounce and
warning messages"). */
#pragma once

#include "base/buf.h"
#include "base/vec.h"
#include "core/ctx.h"
#include "deliver/address.h"
#include "deliver/submit.h"

struct report {
  struct ctx *c;
  struct message *m;           /* the message that is reported about */
  struct str recipient;        /* of the report */
  struct str boundary;
  VEC(struct address *) addresses;
  struct submit submit;        /* what is being written */
  bool global;                 /* it shows addresses in UTF-8 (RFC 6533) */
  bool global_header;          /* the original's header has UTF-8 */
};

void report_init(struct report *r, struct ctx *c, struct message *m, struct str recipient);
/* Auto-Submitted … MIME-Version; decides about the form (report_choose_form): all addresses must be known. */
void report_header(struct report *r);
/* "  a@b" and where it was generated from. False: nothing more may be told about it. */
bool report_address(const struct report *r, struct buf *out, const struct address *a, const char *before, const char *between);
/* The start of the part that people read. */
void report_text_part(struct report *r);
/* May the report be internationalised, and need it be? (report_global.c) */
void report_choose_form(struct report *r);
/* What stands behind "utf-8;" in ORCPT, in UTF-8. In `a`, untouched where it is not well-formed. */
struct str report_unitext(struct arena *a, struct str address);
/* The reason under an address: `title` stands before it. */
void report_reason(struct buf *out, const struct address *a, const char *title);
/* The message/delivery-status part. `action` NULL: what each address says (dsn_action). */
void report_status(struct report *r, const char *action, const char *status);
/* The returned message or its header, and the closing boundary. */
void report_original(struct report *r, bool headers_only);

/* The items of bounce_message_file or warn_message_file, each expanded. Unset ones have default text. `what`, "error" or "warning", is for
log lines. [suspends] */
struct report_template {
  struct str items[3];
};
void report_template_read(struct ctx *c, const struct option_expr *file, const char *what, struct report_template *ret);

/* Text of a References: header for a reply to the message; unset: none. */
struct str report_references(struct ctx *c, const struct message *m);
/* Sends it. False: it could not be spooled. */
bool report_submit(struct report *r);
