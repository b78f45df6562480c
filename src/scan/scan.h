/* Content scanning (Exim manual, chapter "Content scanning at ACL time"; docs/internals/scanning.md): the modules, and what
they share: the message as scanners see it, its place on disk, connections to scanners. */
#pragma once

#include "base/str.h"
#include "loop/fiber.h"
#include "scan/source.h"

struct arena;
struct ctx;
struct module;
struct stream;

extern const struct module scan_module;   /* what the others share: registered first */
extern const struct module mime_module;
extern const struct module regex_module;
extern const struct module malware_module;
extern const struct module spam_module;
extern const struct module dcc_module;
extern const struct module bmi_module;
struct foreign_role; /* expand/foreign.h */
extern const struct foreign_role bmi_library_role;

/* The message as an mbox file would hold it: "From MAILER-DAEMON …", the envelope in X-Envelope- lines, header, body. */
struct scan_copy {
  struct str head;          /* up to the empty line, that included; in c->arena, tainted */
  struct scan_source body;
  uint64_t size;
};
/* 0 or -errno; scan_copy_close() when done. `envelope`: with the lines in front of the header. */
int scan_copy_open(struct ctx *c, bool envelope, struct scan_copy *ret);
void scan_copy_close(struct scan_copy *k);
/* Sends all of it. [suspends] 0 or -errno. */
int scan_copy_send(struct ctx *c, const struct scan_copy *k, struct stream *to);
/* The same in pieces of at most SCAN_WINDOW; piece() returns 0 or an error, which ends it and is returned. */
int scan_copy_each(struct ctx *c, const struct scan_copy *k, int (*piece)(void *arg, struct str data), void *arg);

/* The message's directory for scanners, spool/scan/ID, made when it is not there yet; removed with all that is in it when the
message's reception ends. 0 or -errno. *ret is not tainted. */
int scan_directory(struct ctx *c, struct str *ret);
/* The copy as a file there, ID.eml; written once. */
int scan_file(struct ctx *c, struct str *ret);
/* The header was changed: what scan_file() wrote is not up to date. */
void scan_file_forget(struct ctx *c);
/* Creates a file that must not be there yet (-EEXIST) and is only ours and our group's. fd or -errno. [suspends] */
int scan_create(struct str path);
/* A file without a name, for reading and writing. fd or -errno. [suspends] */
int scan_temporary(struct ctx *c);
/* All of it. [suspends] 0 or -errno. */
int scan_write(int fd, struct str data);

/* A connection to a scanner, "/path" or "host port" or "host first-last" (tried in this order); what follows is passed over.
$callout_address is set. [suspends] 0, or negative with *ret_error (in c->arena). */
int scan_connect(struct ctx *c, struct str spec, usec_t deadline, struct stream **ret, struct str *ret_error);
/* One line of an answer, without its end: 1, 0 at the end, -errno; -EMSGSIZE beyond `max`. Valid until the next call. [suspends] */
int scan_answer_line(struct stream *s, size_t max, usec_t deadline, struct str *ret);
/* Reads up to a NUL or LF, or the end, into b, which is bounded. 1; 0: nothing came; -errno; -EMSGSIZE. [suspends] */
struct buf;
int scan_answer(struct stream *s, usec_t deadline, struct buf *b);

/* -bmalware: scans a file as the condition `malware` would. OUTCOME_OK, *ret_found unset when there is nothing; or DEFER, logged. [suspends] */
int malware_test_file(struct ctx *c, struct str file, struct str *ret_found);

/* What ends with its NUL or LF only: -ECONNRESET when it ends without, after something. Else as scan_answer(). */
int scan_answer_whole(struct stream *s, usec_t deadline, struct buf *b);

/* $callout_address. */
void scan_set_callout_address(struct ctx *c, struct str text);
struct str scan_callout_address(const struct ctx *c);
