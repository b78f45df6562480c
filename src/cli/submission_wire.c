/* A request as bytes: a version, the fields of the table in its order, the arguments. Numbers in network order; a string is
its length plus one and its bytes, 0 is "not given". */
#include <errno.h>

#include "base/cursor.h"
#include "cli/submission.h"
#include "daemon/local_wire.h"

enum field_kind { FIELD_STRING, FIELD_BOOL, FIELD_SECONDS, FIELD_ENUM };

struct field {
  enum field_kind kind;
  size_t at;
  int max; /* of FIELD_ENUM */
};

#define STRING(f) {FIELD_STRING, offsetof(struct cli, f), 0}
#define BOOL(f) {FIELD_BOOL, offsetof(struct cli, f), 0}

static const struct field fields[] = {
    {FIELD_ENUM, offsetof(struct cli, mode), MODE_UTILITY},
    {FIELD_ENUM, offsetof(struct cli, delivery), DELIVER_QUEUE_SMTP},
    {FIELD_ENUM, offsetof(struct cli, errors), ERRORS_WRITE},
    BOOL(delivery_given), BOOL(errors_given), BOOL(from_header_recipients), BOOL(dot_is_data), BOOL(dot_given), BOOL(sender_given),
    BOOL(no_delivery), BOOL(no_qualify), BOOL(mua_submission), BOOL(tls_on_connect), BOOL(select_recipient_regex),
    BOOL(select_sender_regex), STRING(mode_arg), STRING(sender), STRING(full_name), STRING(oMa), STRING(oMaa), STRING(oMai),
    STRING(oMas), STRING(oMi), STRING(oMm), STRING(oMr), STRING(oMs), STRING(oMt), STRING(bounce_id), STRING(select_recipient),
    STRING(select_sender), {FIELD_SECONDS, offsetof(struct cli, receive_timeout), 0},
    {FIELD_SECONDS, offsetof(struct cli, smtp_timeout), 0}, STRING(call),
};
#define FIELDS (sizeof fields / sizeof *fields)

static void put_u32(struct buf *b, uint32_t n) {
  const char bytes[4] = {(char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n};
  buf_add_n(b, bytes, sizeof bytes);
}

static void put_string(struct buf *b, struct str s) {
  put_u32(b, str_is_set(s) ? s.len + 1u : 0);
  if (str_is_set(s))
    buf_add(b, s);
}

static void put_field(struct buf *b, const struct field *f, const void *at) {
  uint64_t n;
  switch (f->kind) {
  case FIELD_STRING:
    put_string(b, *(const struct str *)at);
    break;
  case FIELD_BOOL:
    buf_add_byte(b, *(const bool *)at ? 1 : 0);
    break;
  case FIELD_ENUM:
    buf_add_byte(b, (char)*(const int *)at);
    break;
  case FIELD_SECONDS:
    n = (uint64_t) * (const int64_t *)at;
    put_u32(b, (uint32_t)(n >> 32));
    put_u32(b, (uint32_t)n);
    break;
  }
}

void submission_encode(const struct cli *c, struct buf *out) {
  put_u32(out, SUBMISSION_VERSION);
  put_string(out, str_c(c->program));
  for (size_t i = 0; i < FIELDS; i++)
    put_field(out, &fields[i], (const char *)c + fields[i].at);
  put_u32(out, (uint32_t)c->queue_runs.n);
  for (size_t i = 0; i < c->queue_runs.n; i++) {
    const struct cli_queue_run *q = &c->queue_runs.v[i];
    buf_add_byte(out, (char)(q->two_stage | q->first_only << 1 | q->force << 2 | q->force_frozen << 3 | q->local_only << 4));
    put_string(out, q->queue_name);
  }
  put_u32(out, (uint32_t)c->args.n);
  for (size_t i = 0; i < c->args.n; i++)
    put_string(out, c->args.v[i]);
}

/* A NUL in it, which no command line can hold, fails. */
static bool take_string(struct cursor *in, struct arena *a, struct str *ret) {
  uint32_t n = cursor_u32(in);
  *ret = STR_UNSET;
  if (n == 0)
    return !in->failed;
  struct str s = cursor_take(in, n - 1);
  if (in->failed || (s.len && memchr(s.p, 0, s.len)))
    return false;
  *ret = str_tainted(s.len ? str_dup(a, s) : STR_EMPTY);
  return true;
}

static bool take_field(struct cursor *in, struct arena *a, const struct field *f, void *at) {
  uint8_t n;
  switch (f->kind) {
  case FIELD_STRING:
    return take_string(in, a, at);
  case FIELD_BOOL:
    n = cursor_u8(in);
    *(bool *)at = n == 1;
    return n <= 1 && !in->failed;
  case FIELD_ENUM:
    n = cursor_u8(in);
    *(int *)at = n;
    return n <= f->max && !in->failed;
  default:
    *(int64_t *)at = (int64_t)cursor_u64(in);
    return !in->failed && *(int64_t *)at >= -1 && *(int64_t *)at <= SUBMISSION_SECONDS_MAX;
  }
}

static bool take_queue_runs(struct cursor *in, struct arena *a, struct cli *c) {
  uint32_t n = cursor_u32(in);
  for (uint32_t i = 0; i < n; i++) {
    uint8_t bits = cursor_u8(in);
    struct cli_queue_run q = {.two_stage = bits & 1, .first_only = bits >> 1 & 1, .force = bits >> 2 & 1, .force_frozen = bits >> 3 & 1,
        .local_only = bits >> 4 & 1};
    if (n > 16 || bits > 31 || !take_string(in, a, &q.queue_name) || !str_is_set(q.queue_name))
      return false;
    vec_push(a, &c->queue_runs, q);
  }
  return !in->failed;
}

static bool take_arguments(struct cursor *in, struct arena *a, struct cli *c) {
  uint32_t n = cursor_u32(in);
  for (uint32_t i = 0; i < n && n <= SUBMISSION_ARGS_MAX; i++) {
    struct str s;
    if (!take_string(in, a, &s) || !str_is_set(s))
      return false;
    vec_push(a, &c->args, s);
  }
  return n <= SUBMISSION_ARGS_MAX && !in->failed && cursor_at_end(in);
}

bool submission_decode(struct arena *a, struct str text, struct cli *ret, const char **ret_error) {
  struct cursor in = cursor_of(text);
  struct str program;
  *ret = (struct cli){.arena = a};
  *ret_error = "the daemon speaks another version of the submission protocol: restart it";
  if (cursor_u32(&in) != SUBMISSION_VERSION || in.failed)
    return false;
  *ret_error = "malformed request";
  if (!take_string(&in, a, &program) || !str_is_set(program) || program.len > 255)
    return false;
  ret->program = str_dup_c(a, program);
  for (size_t i = 0; i < FIELDS; i++)
    if (!take_field(&in, a, &fields[i], (char *)ret + fields[i].at))
      return false;
  return take_queue_runs(&in, a, ret) && take_arguments(&in, a, ret);
}
