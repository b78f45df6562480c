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
};

void report_init(struct report *r, struct ctx *c, struct message *m, struct str recipient);
/* Auto-Submitted … MIME-Version. */
void report_header(struct report *r);
/* "  a@b" and where it was generated from. False: nothing more may be told about it. */
bool report_address(const struct report *r, struct buf *out, const struct address *a, const char *before, const char *between);
/* The reason under an address: `title` stands before it. */
void report_reason(struct buf *out, const struct address *a, const char *title);
/* The message/delivery-status part. `action` NULL: what each address says (dsn_action). */
void report_status(struct report *r, const char *action, const char *status);
/* The returned message or its header, and the closing boundary. */
void report_original(struct report *r, bool headers_only);

/* The items of bounce_message_file or warn_message_file, each expanded. Unset ones have default text. [suspends] */
struct report_template {
  struct str items[3];
};
void report_template_read(struct ctx *c, const struct option_expr *file, const char *what, struct report_template *ret);

/* Text of a References: header for a reply to the message; unset: none. */
struct str report_references(struct ctx *c, const struct message *m);
/* Sends it. False: it could not be spooled. */
bool report_submit(struct report *r);
