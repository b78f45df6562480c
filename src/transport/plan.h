/* Local delivery plans: what a local transport wants done, with everything
expanded and decided by policy, in a form that blocking code without any
policy can carry out - in an offload thread when Martlet runs as one user, in
a child under the recipient's uid when it runs as root, in the agent's
processes when the workers are unprivileged (DESIGN §4).

A plan is plain data: plan_encode/plan_decode carry it over a socket. */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "base/outcome.h"
#include "base/str.h"

#define PLAN_ARGS_MAX 1024

enum plan_kind {
  PLAN_FILE,    /* append to a file: mbox */
  PLAN_MAILDIR,
  PLAN_DIRECTORY, /* a new file in a directory, or two of them (mailstore) */
  PLAN_PIPE,
  PLAN_LMTP,
  PLAN_READ,    /* read a user's file (.forward), or a directory's existence */
  PLAN_ROOM,    /* is there room for message_size bytes more in the mailbox `path`, by its quotas? */
  PLAN_ONCE,    /* autoreply's `once` file `path`: `status` says whether `sender` was answered; or that is noted there */
  PLAN_EVALUATE, /* a user's filter: `transport` names the router, `head` is the request, the output the answer */
};

enum plan_create { PLAN_CREATE_ANYWHERE, PLAN_CREATE_BELOW_HOME, PLAN_CREATE_IN_HOME, PLAN_CREATE_BELOW_PATH };

/* A new field needs its place in plan_fields (plan.c), or it does not reach the agent. */
struct plan {
  int64_t kind;
  /* who */
  struct str transport;         /* the instance's name; the agent checks that it exists */
  int64_t uid, gid;             /* -1: as the process is */
  struct str initgroups_user;   /* set: supplementary groups of that login name */
  struct str cwd, home;
  /* what is written */
  struct str head;              /* prefix, header lines and the blank line, with LF ends */
  int64_t prefix_length;        /* how much of the head is the prefix, which no filter sees */
  struct str tail;              /* message_suffix */
  struct str *filter;           /* transport_filter: the command through which header and body go; none if filter_n is 0 */
  int64_t filter_n, filter_timeout;
  int64_t body_offset, body_length; /* of the body file descriptor that comes along; 0 length: no body */
  struct str check_string, escape_string;
  bool use_crlf;
  /* files */
  struct str path;              /* of a pipe: the command as it was configured, for what is said of it */
  int64_t create;               /* enum plan_create */
  struct str create_below;      /* of PLAN_CREATE_BELOW_PATH */
  int64_t mode, directory_mode, lockfile_mode;
  bool create_directory, file_must_exist, allow_symlink, allow_fifo, check_owner, check_group, mode_fail_narrower, mode_set;
  bool lock_fcntl, lock_flock, lock_file;
  int64_t lock_retries, lock_interval, lock_fcntl_timeout, lock_flock_timeout, lockfile_timeout;
  struct str maildir_tag, hostname;
  int64_t maildir_retries;
  int64_t quota, quota_filecount, message_size; /* 0: no quota */
  bool quota_is_inclusive, quota_no_check, filecount_no_check, maildir_size_file;
  struct str quota_size_regex, quota_directory;
  int64_t warn_threshold;                       /* 0: none; crossing it sets plan_result.warn */
  int64_t mailbox_size, mailbox_filecount;      /* what is there already as the configuration says; -1: it is to be found out */
  struct str maildirfolder_regex, maildir_directory_regex;
  bool mbx, lock_mbx;                           /* c-client's MBX format and its locks */
  struct str *file_formats;                     /* pairs: how the file begins, the transport for such a file */
  int64_t file_formats_n;
  struct str directory_file, inode_mark;        /* name of a new file; the mark in it stands for the inode's number */
  struct str mailstore_base, mailstore_envelope; /* mailstore: BASE.env has the envelope, BASE.msg the message */
  /* pipes */
  struct str *argv;
  int64_t argv_n;
  struct str *environment;      /* NAME=value */
  int64_t environment_n;
  int64_t umask, timeout, max_output;
  bool ignore_status, timeout_defer, freeze_exec_fail, freeze_signal, permit_coredump;
  struct str temp_errors;       /* colon list of numbers, or "*" */
  /* LMTP: to the command, or without one to the socket `path` */
  struct str sender, *recipients;
  int64_t recipients_n;
  bool ignore_quota;
  /* reads */
  int64_t max_read;
  /* once */
  int64_t once_repeat;          /* seconds for which an answer counts; 0: for ever */
  int64_t once_file_size;       /* beyond these bytes the oldest go; 0: no limit of its own */
  bool once_note;               /* `sender` has been answered now */
};

struct plan_result {
  int64_t outcome;              /* enum outcome */
  int64_t basic_errno;
  int64_t more_errno;
  bool freeze;
  struct str message;           /* reason, for logs */
  struct str output;            /* a pipe's output, or the file that was read */
  struct str path;              /* the file that was made (Maildir) */
  int64_t status;               /* wait status of a pipe's command */
  int64_t uid, gid, mode;       /* of the file that was read */
  bool quota_exceeded;
  bool warn;                    /* quota_warn_threshold was crossed */
  int64_t offset;               /* where in the file the message begins */
  struct str *recipients;       /* LMTP: outcome, error and text of each, three strings */
  int64_t recipients_n;
  struct str switch_to;         /* file_format: the transport that is to do it; nothing was written */
};

void plan_encode(const struct plan *p, struct buf *out);
/* false: malformed. Strings are copied into `a`. */
bool plan_decode(struct arena *a, struct str data, struct plan *ret);
void plan_result_encode(const struct plan_result *r, struct buf *out);
bool plan_result_decode(struct arena *a, struct str data, struct plan_result *ret);

/* Carries out a plan in this process, blocking, as the user it is. Results are allocated in `a`. body_fd may be -1. */
void plan_execute(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);
/* The kinds, one file each. */
void plan_execute_file(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);
void plan_execute_directory(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);
void plan_execute_maildir(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);
void plan_execute_lmtp(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);
void plan_execute_pipe(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);
void plan_execute_room(struct arena *a, const struct plan *p, struct plan_result *ret);
void plan_execute_read(struct arena *a, const struct plan *p, struct plan_result *ret);
void plan_execute_once(struct arena *a, const struct plan *p, struct plan_result *ret);

/* What a result says of a command that took too long. */
#define PLAN_PIPE_TIMED_OUT "pipe delivery process timed out"

/* plan_write_message's own errors: the filter took too long, or ended with this status (the exit code, or 128 and the signal). */
#define PLAN_FILTER_TIMEOUT (-100000)
#define PLAN_FILTER_FAILED(code) (-100001 - (code))
/* What an error of plan_write_message means for the delivery; `where` ("while writing to FILE") may be empty. */
void plan_write_failed(struct arena *a, struct plan_result *r, int error, const char *where);

/* Feeds header lines and body to the plan's filter and gives what it writes to put(arg, …), whose error ends it. 0 or an error
as above. */
int plan_run_filter(const struct plan *p, int body_fd, int (*put)(void *arg, const char *text, size_t n), void *arg);

/* PLAN_EVALUATE, by who knows what it is about: set where such plans may come. Runs in a process of the user. */
extern void (*plan_evaluate)(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);

/* Writes head, body (with escapes and line ends) and tail to fd, or with fd -1 only counts. 0 or -errno; *ret_size counts the
bytes. */
int plan_write_message(const struct plan *p, int body_fd, int fd, int64_t *ret_size);
/* Size and number of files in and below a directory: by the size in their names (quota_size_regex) or by stat. With
`directories` set only those subdirectories of the top that match it count, and their own tmp does not. */
int64_t plan_directory_usage(struct arena *a, const struct plan *p, const char *path, struct str directories, int64_t *ret_files);
/* Is there room for the message beside what is there? False: the result says why, for the file `writing`; `read` is when the
mailbox was last read. Notes in the result whether the warning threshold is crossed. */
bool plan_quota_allows(struct arena *a, const struct plan *p, int64_t used, int64_t files, const char *writing, int64_t read,
    struct plan_result *r);

/* The maildirsize file of Maildir++ in directory `top`: opens, reads and if need be recalculates it. Its descriptor, to be closed
by the caller, or -1: there is none, and used and files are from the directories. */
int plan_maildirsize_open(struct arena *a, const struct plan *p, const char *top, int64_t *ret_used, int64_t *ret_files);
void plan_maildirsize_add(int fd, int64_t size, int64_t files);

/* MBX mailboxes: the file's header if it is empty, then the message with its own. 0 or -errno. */
int plan_write_mbx(struct arena *a, const struct plan *p, int body_fd, int fd, int64_t *ret_size);
/* The lock file in /tmp that c-client knows, for an open mailbox: a descriptor that holds it, -EAGAIN (somebody else does) or
-errno. plan_mbx_unlock removes it when nobody else has the mailbox open. */
int plan_mbx_lock(int fd, char *ret_path, size_t size);
void plan_mbx_unlock(int fd, int lock_fd, const char *path);

/* Fills a result. */
void plan_fail(struct arena *a, struct plan_result *r, enum outcome o, int err, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Makes the directories above (or up to and including) path. 0 or -errno. */
int plan_make_directories(const struct plan *p, struct str directory, mode_t mode);
/* Is a file at `path` to be created allowed by `create`? */
bool plan_may_create(const struct plan *p, struct str path);

/* --- who carries it out --- */

/* How this process runs plans: chosen once at its start. The result is in `a`. [suspends] */
struct plan_runner {
  void (*run)(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);
};
extern const struct plan_runner plan_runner_offload; /* as we are, in an offload thread */
extern const struct plan_runner plan_runner_fork;    /* root: a child that becomes the user */
void plan_set_runner(const struct plan_runner *r);
void plan_run(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);

/* In a child: becomes the plan's user. 0 or -errno with what failed in *ret_what. */
int plan_become_user(const struct plan *p, const char **ret_what);
