#include "lookup/redis_wire.h"

#include <errno.h>
#include "base/arena.h"
#include "base/ascii.h"

#define LINE_MAX_LENGTH 4096
#define DEPTH_MAX 8
#define CHUNK 8192
#define MORE_SECONDS 5 /* for each piece of a reply that has begun, */
#define ALL_SECONDS 60 /* and for all of them */

int redis_split(struct arena *a, struct str command, struct str *args) {
  int n = 0;
  for (size_t i = 0;;) {
    while (i < command.len && ascii_is_space(command.p[i]))
      i++;
    if (i >= command.len)
      return n;
    if (n == REDIS_ARGS_MAX)
      return -1;
    struct buf b;
    buf_init(&b, a, (size_t)command.len + 1);
    bool quoted = command.p[i] == '"', closed = !quoted;
    i += quoted;
    while (i < command.len) {
      char c = command.p[i];
      if (c == '\\' && i + 1 < command.len) {
        c = command.p[++i];
      } else if (!closed && c == '"') {
        closed = true;
        i++;
        continue;
      } else if (closed && ascii_is_space(c)) {
        break;
      }
      buf_add_byte(&b, c);
      i++;
    }
    if (!closed)
      return -1;
    args[n++] = buf_str(&b);
  }
}

void redis_command(struct buf *out, const struct str *args, int n) {
  buf_printf(out, "*%d\r\n", n);
  for (int i = 0; i < n; i++) {
    buf_printf(out, "$%u\r\n", args[i].len);
    buf_add(out, str_untainted(args[i]));
    buf_add_c(out, "\r\n");
  }
}

struct reader {
  struct stream *s;
  usec_t deadline, end;
  struct buf out;
  size_t elements; /* written, for the newlines between them */
};

/* Something came: a long reply takes its time. */
static void go_on(struct reader *r) {
  usec_t next = deadline_in(MORE_SECONDS);
  if (next > r->end)
    next = r->end;
  if (next > r->deadline)
    r->deadline = next;
}

static int read_line(struct reader *r, struct str *ret) {
  int eol, e = stream_read_line(r->s, LINE_MAX_LENGTH, r->deadline, ret, &eol);
  if (e < 0)
    return e;
  go_on(r);
  return e == 0 || eol != 2 || ret->len == 0 ? -EPROTO : 0;
}

static void begin_element(struct reader *r) {
  if (r->elements++ > 0)
    buf_add_byte(&r->out, '\n');
}

static int read_bulk(struct reader *r, uint64_t n) {
  char chunk[CHUNK];
  begin_element(r);
  if (n > REDIS_REPLY_MAX)
    return -EMSGSIZE;
  while (n > 0) {
    size_t k = n < sizeof chunk ? (size_t)n : sizeof chunk;
    int e = stream_read_exact(r->s, chunk, k, r->deadline);
    if (e < 0)
      return e;
    go_on(r);
    buf_add_n(&r->out, chunk, k);
    if (r->out.overflow)
      return -EMSGSIZE;
    n -= k;
  }
  int e = stream_read_exact(r->s, chunk, 2, r->deadline);
  return e < 0 ? e : chunk[0] == '\r' && chunk[1] == '\n' ? REDIS_TEXT : -EPROTO;
}

static int read_one(struct reader *r, int depth);

static int read_array(struct reader *r, uint64_t n, int depth) {
  if (n > REDIS_REPLY_MAX / 4)
    return -EMSGSIZE;
  for (uint64_t i = 0; i < n; i++) {
    int e = read_one(r, depth + 1);
    if (e < 0)
      return e;
    if (e == REDIS_NIL)
      begin_element(r);
    if (r->out.overflow)
      return -EMSGSIZE;
  }
  return n == 0 ? REDIS_NIL : REDIS_TEXT;
}

/* One element, at the end of `out`. An error inside of an array counts as its text. */
static int read_one(struct reader *r, int depth) {
  struct str line;
  uint64_t n = 0;
  if (depth > DEPTH_MAX)
    return -EPROTO;
  int e = read_line(r, &line);
  if (e < 0)
    return e;
  char type = line.p[0];
  struct str rest = str_from(line, 1);
  bool nil = str_eq_c(rest, "-1");
  if ((type == '$' || type == '*') && !nil && !str_to_u64(rest, &n))
    return -EPROTO;
  switch (type) {
  case '+': case ':': case '-':
    begin_element(r);
    buf_add_n(&r->out, rest.p, rest.len);
    return type == '-' ? REDIS_REFUSED : REDIS_TEXT;
  case '$':
    return nil ? REDIS_NIL : read_bulk(r, n);
  case '*':
    return nil ? REDIS_NIL : read_array(r, n, depth);
  default:
    return -EPROTO;
  }
}

int redis_read_reply(struct arena *a, struct stream *s, usec_t deadline, struct str *ret) {
  struct reader r = {.s = s, .deadline = deadline, .end = deadline_in(ALL_SECONDS)};
  buf_init(&r.out, a, REDIS_REPLY_MAX);
  int e = read_one(&r, 0);
  if (e < 0)
    return e;
  if (r.out.overflow)
    return -EMSGSIZE;
  *ret = buf_str(&r.out);
  return e;
}
