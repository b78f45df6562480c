/* A message: envelope, header lines, and where its body is. In memory from
reception until it is delivered or put aside; the -H file holds the same. The
body is never in memory as a whole. */
#pragma once

#include <sys/time.h>
#include "base/arena.h"
#include "base/str.h"
#include "base/vec.h"
#include "core/session.h"

struct map;
struct smtp_connection;

#define MESSAGE_ID_LEN 23      /* 6-11-4 */
#define MESSAGE_ID_LEN_OLD 16  /* 6-6-2: still read */

enum header_type {
  HEADER_OTHER = ' ', HEADER_FROM = 'F', HEADER_TO = 'T', HEADER_CC = 'C', HEADER_BCC = 'B', HEADER_ID = 'I',
  HEADER_SENDER = 'S', HEADER_REPLY_TO = 'R', HEADER_RECEIVED = 'P', HEADER_DELETED = '*',
};

/* DSN flags of a recipient, as in the -H file (RFC 3461 NOTIFY). */
#define DSN_NOTIFY_NEVER 2u
#define DSN_NOTIFY_SUCCESS 4u
#define DSN_NOTIFY_FAILURE 8u
#define DSN_NOTIFY_DELAY 16u
#define DSN_NOTIFY_EMPTY 32u /* NOTIFY= with nothing: neither failures nor delays are told */
/* Values of dsn_ret. */
#define DSN_RET_FULL 1
#define DSN_RET_HDRS 2

/* A header line, with its final newline, continuation lines inside with LF. */
struct header {
  struct str text;     /* name, colon, value, "\n"; tainted unless made by us */
  uint32_t name_len;
  char type;           /* HEADER_…: the letter of the -H file */
  struct header *next;
};

struct recipient {
  struct str address;    /* in canonical form local@domain, qualified */
  struct str errors_to;
  struct str orcpt;      /* DSN */
  unsigned dsn_flags;
  int parent;            /* one_time: index of the original recipient, -1 */
  struct str given;      /* for the log: as it was given, when rewriting or qualification made another of it; else unset */
  void **module_state;
};

struct message {
  struct arena *arena;
  char id[24];                       /* "" until given */
  struct str reverse_path;           /* envelope sender, "" for a bounce */
  struct str reverse_path_before;    /* as it was before rewriting; unset: not yet rewritten */
  bool reverse_path_local, reverse_path_set_untrusted;
  struct str originator_login, originator_name;
  uint32_t originator_uid, originator_gid;
  VEC(struct recipient) recipients;
  struct header *headers, **headers_tail;
  struct client client;              /* copy */
  struct timeval received_time, received_complete;
  struct str arrival_text;           /* the log line of its reception, behind "<= "; unset when read from the spool */
  struct str parent_id;              /* of a bounce or the like: the message it is about; not in the spool */
  struct str queue_name;             /* named queue, "" */
  char spool_subdir[2];              /* split_spool_directory: the letter, or "" */
  int data_fd;                       /* open -D file or -1 */
  uint64_t body_size;                /* bytes of the body in the spool (LF line ends) */
  uint64_t size;                     /* $message_size */
  int64_t body_lines, body_zeros, lines, max_received_line_length;
  int received_count;
  bool sender_host_unknown;
  /* flags of the -H file */
  bool deliver_forced; /* this delivery is: retry times do not count. Not kept in the spool. */
  /* Of this delivery, not kept in the spool: the connection over which alone it delivers (made for an earlier message), and
  those that it leaves for others that wait for the same hosts (deliver/follow.h). */
  struct smtp_connection *over, *held;
  bool follows; /* somebody will look at `held` */
  bool deliver_bypassed; /* this delivery only pretends (-N): transports do all but deliver. Not kept in the spool. */
  bool frozen, manual_thaw, deliver_first_time, dont_deliver, submission, spool_file_wireformat, smtputf8;
  bool foreground;            /* -odi: it and what is written about it are delivered at once, queue_only or not */
  bool deliver_freeze, queue_only_policy, no_multiline, local_error_message;
  bool allow_unqualified_sender, allow_unqualified_recipient;
  bool local_submission, sender_local;
  int64_t frozen_time;
  int64_t next_attempt;              /* after a delivery attempt: when something is due, seconds; 0: unknown; negative: or in any queue run */
  int warnings_sent;                 /* warning_count */
  int dsn_ret;
  struct str dsn_envid;
  struct map *acl_m, *acl_c;         /* struct str * */
  struct map *nonrecipients;         /* addresses already delivered or discarded (key only) */
  struct str host_lookup_failed_text;
  struct str interface_text;
  struct str unknown_lines;          /* -H lines of modules we do not know, kept verbatim (features.md G8) */
  struct str body_start, body_end;   /* $message_body(_end): loaded on use */
  bool header_rewritten;
  void **module_state;
  void *received_state;              /* the receiving room's own */
  struct spool_state *spool;         /* the spool's own (queue/spool_internal.h) */
};

/* A message with an arena of its own; no -D file, received_time unset. */
struct message *message_new(const char *arena_name);
/* Releases the modules' states, closes data_fd, frees the arena. NULL is allowed. */
void message_free(struct message *m);

/* Adds a header line at the end; `text` ("Name: value\n", not copied) gets a newline when it has none. Type 0:
found from the name. */
struct header *message_add_header(struct message *m, char type, struct str text);
struct header *message_prepend_header(struct message *m, char type, struct str text);
/* Puts a line behind `after` (NULL: at the start). */
struct header *message_insert_header(struct message *m, struct header *after, char type, struct str text);
/* The type letter of a header's name (without the colon). Resent- names count as the plain ones. */
char header_type(struct str name);
/* Length of the name in front of the colon, blanks before the colon not counted; 0: not a header line. */
uint32_t header_name_length(struct str line);
/* Adds a value (RFC 8601, section 2.2) to a header field that is being made: a token or dot-atom as it is, else a quoted
string. Control characters become blanks. */
struct buf;
void header_add_value(struct buf *out, struct str value);
/* Adds foreign text inside a comment: what could end it, and control characters, become "_". */
void header_add_comment(struct buf *out, struct str text);
/* First header of that name from `after` (NULL: the first of all), deleted ones skipped. */
struct header *message_find_header(const struct message *m, struct str name, const struct header *after);
struct str header_value(const struct header *h); /* trimmed, newlines kept */

/* Adds a recipient with all fields but the address empty. */
struct recipient *message_add_recipient(struct message *m, struct str address);
/* Has the address (of a recipient or a child) already been dealt with? Marks it so. */
bool message_is_nonrecipient(const struct message *m, struct str address);
void message_add_nonrecipient(struct message *m, struct str address);

/* A new unique id for a message received now: unique in this process by its clock, among processes by the
process id, among hosts by localhost_number (-1: none; 0-16). Sets received_time to the moment named by the id
when it is unset. */
void message_make_id(struct message *m, int localhost_number);
/* Ids made in this process are only such as `accept` takes (of several workers each makes ids that it owns). */
void message_id_set_filter(bool (*accept)(const char *id, void *arg), void *arg);
bool message_id_valid(struct str s);
/* The time inside of a (valid) id, in seconds. */
int64_t message_id_time(struct str id);
