#include "transport/plan.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/arena.h"

/* The wire form is a table of fields in order: numbers as 8 bytes, strings as
length and bytes, string arrays as count and strings. */
enum field_kind { FIELD_INT, FIELD_BOOL, FIELD_STR, FIELD_STRS };
struct field {
  enum field_kind kind;
  size_t offset;
  size_t count_offset; /* of FIELD_STRS */
};

#define P(f) offsetof(struct plan, f)
static const struct field plan_fields[] = {
    {FIELD_INT, P(kind)}, {FIELD_STR, P(transport)}, {FIELD_INT, P(uid)}, {FIELD_INT, P(gid)},
    {FIELD_STR, P(initgroups_user)}, {FIELD_STR, P(cwd)}, {FIELD_STR, P(home)}, {FIELD_STR, P(head)}, {FIELD_STR, P(tail)},
    {FIELD_INT, P(prefix_length)}, {FIELD_STRS, P(filter), P(filter_n)}, {FIELD_INT, P(filter_timeout)},
    {FIELD_INT, P(body_offset)}, {FIELD_INT, P(body_length)}, {FIELD_STR, P(check_string)}, {FIELD_STR, P(escape_string)},
    {FIELD_BOOL, P(use_crlf)}, {FIELD_STR, P(path)}, {FIELD_INT, P(create)}, {FIELD_STR, P(create_below)}, {FIELD_INT, P(mode)},
    {FIELD_INT, P(directory_mode)}, {FIELD_INT, P(lockfile_mode)}, {FIELD_BOOL, P(create_directory)},
    {FIELD_BOOL, P(file_must_exist)}, {FIELD_BOOL, P(allow_symlink)}, {FIELD_BOOL, P(allow_fifo)},
    {FIELD_BOOL, P(check_owner)}, {FIELD_BOOL, P(check_group)}, {FIELD_BOOL, P(mode_fail_narrower)}, {FIELD_BOOL, P(mode_set)},
    {FIELD_BOOL, P(lock_fcntl)}, {FIELD_BOOL, P(lock_flock)}, {FIELD_BOOL, P(lock_file)}, {FIELD_INT, P(lock_retries)},
    {FIELD_INT, P(lock_interval)}, {FIELD_INT, P(lock_fcntl_timeout)}, {FIELD_INT, P(lock_flock_timeout)},
    {FIELD_INT, P(lockfile_timeout)}, {FIELD_STR, P(maildir_tag)}, {FIELD_STR, P(hostname)}, {FIELD_INT, P(maildir_retries)},
    {FIELD_INT, P(quota)}, {FIELD_INT, P(quota_filecount)}, {FIELD_INT, P(message_size)}, {FIELD_BOOL, P(quota_is_inclusive)},
    {FIELD_BOOL, P(maildir_size_file)}, {FIELD_STR, P(quota_size_regex)}, {FIELD_STR, P(quota_directory)},
    {FIELD_STRS, P(argv), P(argv_n)}, {FIELD_STRS, P(environment), P(environment_n)}, {FIELD_INT, P(umask)},
    {FIELD_INT, P(timeout)}, {FIELD_INT, P(max_output)}, {FIELD_BOOL, P(ignore_status)}, {FIELD_BOOL, P(timeout_defer)},
    {FIELD_BOOL, P(freeze_exec_fail)}, {FIELD_BOOL, P(freeze_signal)}, {FIELD_BOOL, P(permit_coredump)}, {FIELD_STR, P(temp_errors)}, {FIELD_INT, P(max_read)},
    {FIELD_BOOL, P(quota_no_check)}, {FIELD_BOOL, P(filecount_no_check)}, {FIELD_INT, P(warn_threshold)}, {FIELD_INT, P(mailbox_size)},
    {FIELD_INT, P(mailbox_filecount)}, {FIELD_STR, P(maildirfolder_regex)}, {FIELD_STR, P(maildir_directory_regex)},
    {FIELD_BOOL, P(mbx)}, {FIELD_BOOL, P(lock_mbx)}, {FIELD_STRS, P(file_formats), P(file_formats_n)},
    {FIELD_STR, P(directory_file)}, {FIELD_STR, P(inode_mark)}, {FIELD_STR, P(mailstore_base)}, {FIELD_STR, P(mailstore_envelope)},
    {FIELD_STR, P(sender)}, {FIELD_STRS, P(recipients), P(recipients_n)}, {FIELD_BOOL, P(ignore_quota)},
    {FIELD_INT, P(once_repeat)}, {FIELD_INT, P(once_file_size)}, {FIELD_BOOL, P(once_note)},
};
#undef P
#define R(f) offsetof(struct plan_result, f)
static const struct field result_fields[] = {
    {FIELD_INT, R(outcome)}, {FIELD_INT, R(basic_errno)}, {FIELD_INT, R(more_errno)}, {FIELD_BOOL, R(freeze)},
    {FIELD_STR, R(message)}, {FIELD_STR, R(output)}, {FIELD_STR, R(path)}, {FIELD_INT, R(status)}, {FIELD_INT, R(uid)},
    {FIELD_INT, R(gid)}, {FIELD_INT, R(mode)}, {FIELD_BOOL, R(quota_exceeded)}, {FIELD_BOOL, R(warn)},
    {FIELD_INT, R(offset)}, {FIELD_STR, R(switch_to)}, {FIELD_STRS, R(recipients), R(recipients_n)},
};
#undef R
/* What is in no table does not reach the agent, and only there it is missed. */
#define ON_64_BIT(condition) (sizeof(void *) != 8 || (condition))
_Static_assert(ON_64_BIT(sizeof(struct plan) == 728), "struct plan has changed: is each field in plan_fields? Then say its new size here");
_Static_assert(ON_64_BIT(sizeof(struct plan_result) == 160), "struct plan_result has changed: is each field in result_fields? Then say its new size here");
#define COUNT(t) (sizeof(t) / sizeof *(t))

static void encode_str(struct buf *out, struct str s) {
  uint32_t n = str_is_set(s) ? s.len : UINT32_MAX;
  buf_add_n(out, (const char *)&n, sizeof n);
  if (str_is_set(s))
    buf_add_n(out, s.p, s.len);
}

static void encode(const void *block, const struct field *f, size_t n, struct buf *out) {
  for (size_t i = 0; i < n; i++) {
    const char *at = (const char *)block + f[i].offset;
    switch (f[i].kind) {
    case FIELD_INT:
      buf_add_n(out, at, sizeof(int64_t));
      break;
    case FIELD_BOOL:
      buf_add_byte(out, *(const bool *)at ? 1 : 0);
      break;
    case FIELD_STR:
      encode_str(out, *(const struct str *)at);
      break;
    case FIELD_STRS: {
      int64_t count = *(const int64_t *)((const char *)block + f[i].count_offset);
      buf_add_n(out, (const char *)&count, sizeof count);
      for (int64_t k = 0; k < count; k++)
        encode_str(out, (*(struct str *const *)at)[k]);
    }
    }
  }
}

static bool take(struct str *in, void *to, size_t n) {
  if (in->len < n)
    return false;
  memcpy(to, in->p, n);
  *in = str_from(*in, n);
  return true;
}

static bool decode_str(struct arena *a, struct str *in, struct str *ret) {
  uint32_t n;
  if (!take(in, &n, sizeof n))
    return false;
  if (n == UINT32_MAX) {
    *ret = STR_UNSET;
    return true;
  }
  if (in->len < n)
    return false;
  *ret = str_untainted(str_dup(a, str_slice(*in, 0, n)));
  *in = str_from(*in, n);
  return true;
}

static bool decode(struct arena *a, struct str in, const struct field *f, size_t n, void *block) {
  for (size_t i = 0; i < n; i++) {
    char *at = (char *)block + f[i].offset;
    unsigned char byte;
    switch (f[i].kind) {
    case FIELD_INT:
      if (!take(&in, at, sizeof(int64_t)))
        return false;
      break;
    case FIELD_BOOL:
      if (!take(&in, &byte, 1) || byte > 1)
        return false;
      *(bool *)at = byte;
      break;
    case FIELD_STR:
      if (!decode_str(a, &in, (struct str *)at))
        return false;
      break;
    case FIELD_STRS: {
      int64_t count;
      if (!take(&in, &count, sizeof count) || count < 0 || count > 3 * PLAN_ARGS_MAX)
        return false;
      struct str *v = arena_array(a, struct str, (size_t)count + 1);
      for (int64_t k = 0; k < count; k++)
        if (!decode_str(a, &in, &v[k]))
          return false;
      *(struct str **)at = v;
      *(int64_t *)((char *)block + f[i].count_offset) = count;
    }
    }
  }
  return in.len == 0;
}

void plan_encode(const struct plan *p, struct buf *out) { encode(p, plan_fields, COUNT(plan_fields), out); }

bool plan_decode(struct arena *a, struct str data, struct plan *ret) {
  *ret = (struct plan){0};
  return decode(a, data, plan_fields, COUNT(plan_fields), ret);
}

void plan_result_encode(const struct plan_result *r, struct buf *out) { encode(r, result_fields, COUNT(result_fields), out); }

bool plan_result_decode(struct arena *a, struct str data, struct plan_result *ret) {
  *ret = (struct plan_result){0};
  return decode(a, data, result_fields, COUNT(result_fields), ret);
}

void plan_fail(struct arena *a, struct plan_result *r, enum outcome o, int err, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  r->message = str_vprintf(a, fmt, ap);
  va_end(ap);
  r->outcome = o;
  r->basic_errno = err;
}

int plan_become_user(const struct plan *p, const char **ret_what) {
  if (p->uid < 0)
    return 0;
  /* A one-shot command works as the Martlet user and has root in reserve. */
  *ret_what = "regain root";
  if (geteuid() != 0 && seteuid(0) < 0)
    return -errno;
  char name[256] = "";
  if (str_is_set(p->initgroups_user) && p->initgroups_user.len < sizeof name)
    memcpy(name, p->initgroups_user.p, p->initgroups_user.len);
  gid_t gid = (gid_t)p->gid;
  *ret_what = "set groups";
  if (name[0] ? initgroups(name, gid) : setgroups(1, &gid))
    return -errno;
  *ret_what = "set gid";
  if (setresgid(gid, gid, gid))
    return -errno;
  *ret_what = "set uid";
  if (setresuid((uid_t)p->uid, (uid_t)p->uid, (uid_t)p->uid))
    return -errno;
  return 0;
}

void (*plan_evaluate)(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret);

void plan_execute(struct arena *a, const struct plan *p, int body_fd, struct plan_result *ret) {
  *ret = (struct plan_result){.outcome = OUTCOME_OK, .message = STR_UNSET, .output = STR_UNSET, .path = STR_UNSET,
      .switch_to = STR_UNSET};
  switch ((enum plan_kind)p->kind) {
  case PLAN_FILE:
    plan_execute_file(a, p, body_fd, ret);
    return;
  case PLAN_MAILDIR:
    plan_execute_maildir(a, p, body_fd, ret);
    return;
  case PLAN_DIRECTORY:
    plan_execute_directory(a, p, body_fd, ret);
    return;
  case PLAN_LMTP:
    plan_execute_lmtp(a, p, body_fd, ret);
    return;
  case PLAN_PIPE:
    plan_execute_pipe(a, p, body_fd, ret);
    return;
  case PLAN_ROOM:
    plan_execute_room(a, p, ret);
    return;
  case PLAN_READ:
    plan_execute_read(a, p, ret);
    return;
  case PLAN_ONCE:
    plan_execute_once(a, p, ret);
    return;
  case PLAN_EVALUATE:
    if (!plan_evaluate)
      break;
    plan_evaluate(a, p, body_fd, ret);
    return;
  }
  plan_fail(a, ret, OUTCOME_DEFER, EINVAL, "unknown kind of local delivery");
}
