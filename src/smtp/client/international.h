/* Internationalised mail (RFC 6531; Exim manual, chapter
"Internationalisation"): what a message knows of it beyond message.smtputf8. */
#pragma once

struct message;
struct module;

/* Whether envelope addresses go out in ASCII (A-labels, and "xn--" local parts). */
enum utf8_downconvert {
  UTF8_KEEP = 0,            /* never */
  UTF8_CONVERT = 1,         /* always */
  UTF8_CONVERT_IF_NEEDED = -1, /* when the next hop does not know SMTPUTF8 */
};

/* What `control = utf8_downconvert` has set; UTF8_KEEP when it was not used. */
enum utf8_downconvert message_utf8_downconvert(const struct message *m);
void message_set_utf8_downconvert(struct message *m, enum utf8_downconvert how);

/* The control, $message_smtputf8, the lines of the -H file. */
extern const struct module smtp_utf8_module;
