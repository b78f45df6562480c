/* The structure of a message, met from its start to its end: no tree is made of it. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/vec.h"
#include "core/ctx.h"
#include "message/message.h"
#include "scan/mime_part.h"

/* Attached messages with a transfer encoding are decoded into a file without a name; all of them may take this many times the
room of the message itself. */
#define DECODED_TIMES 4
#define DECODED_LEAST (1u << 20)
#define BUDGET_TIMES 40
#define BUDGET_LEAST (64 << 20)
#define DECODE_PIECE (64u << 10)

/* A message to be looked at: a range of a source. */
struct job {
  const struct scan_source *source;
  uint64_t from, to;
};

struct walk {
  struct mime_walk *w;
  VEC(struct job) jobs;
  size_t job;                 /* the one that is walked through */
  struct mime_level levels[MIME_LEVELS_MAX];
  struct scan_source decoded;
  uint64_t decoded_max;
  int parts;
  bool open_rfc822;           /* the last job's end is not known yet */
  struct buf field;           /* of the header that is read */
};

/* ---- delimiters ---- */

size_t mime_level_of(const struct mime_level *levels, size_t n, struct str line, bool *ret_end) {
  size_t near = 0;
  bool near_end = false, end;
  if (line.len < 2 || line.p[0] != '-' || line.p[1] != '-')
    return 0;
  for (size_t i = n; i > 0; i--) {
    int how = mime_delimiter(line, levels[i - 1].boundary, &end);
    if (how == 2) {
      *ret_end = end;
      return i;
    }
    if (how == 1 && (near == 0 || levels[i - 1].boundary.len > levels[near - 1].boundary.len)) {
      near = i;
      near_end = end;
    }
  }
  *ret_end = near_end;
  return near;
}

void mime_content_init(struct mime_content *k, struct mime_walk *w) {
  *k = (struct mime_content){.walk = w};
  scan_reader_seek(&w->reader, w->part.body, w->part.end);
}

static int content(struct mime_content *k, int (*read)(struct scan_reader *r, struct str *ret, bool *ret_first), struct str *ret) {
  struct mime_walk *w = k->walk;
  uint64_t at = w->reader.at;
  bool first, end;
  int rc = read(&w->reader, ret, &first);
  if (rc > 0 && k->budget && (*k->budget -= ret->len) < 0)
    return -EFBIG;
  if (rc > 0 && first && mime_level_of(w->levels, w->depth, *ret, &end))
    rc = 0;
  if (rc == 0)
    w->part.next = at;
  return rc;
}

int mime_content_line(struct mime_content *k, struct str *ret) { return content(k, scan_reader_line, ret); }

int mime_content_lines(struct mime_content *k, struct str *ret) { return content(k, scan_reader_lines, ret); }

/* ---- headers ---- */

static void take_field(struct walk *k) {
  if (k->field.len > 0)
    mime_header_field(&k->w->part.header, k->w->part_arena, buf_str(&k->field));
  buf_truncate(&k->field, 0);
}

static void header_line(struct walk *k, struct str line, bool first) {
  bool goes_on = !first || line.p[0] == ' ' || line.p[0] == '\t';
  if (!goes_on)
    take_field(k);
  size_t room = MIME_FIELD_MAX - k->field.len;
  if ((goes_on && k->field.len > 0) || (!goes_on && mime_header_wanted(line)))
    buf_add(&k->field, str_slice(line, 0, room));
}

/* Reads a part's header. 1: its content follows; 0: a delimiter (of *ret_level) or the end came first; -errno. */
static int read_header(struct walk *k, size_t *ret_level, bool *ret_end) {
  struct scan_reader *r = &k->w->reader;
  struct str line;
  bool first;
  int rc;
  *ret_level = 0;
  while (k->w->part.body = r->at, (rc = scan_reader_line(r, &line, &first)) > 0) {
    if (first && str_trim(line).len == 0)
      break;
    if (first && (*ret_level = mime_level_of(k->levels, k->w->depth, line, ret_end)) != 0) {
      rc = 0;
      break;
    }
    header_line(k, line, first);
  }
  if (rc > 0)
    k->w->part.body = r->at;
  if (rc >= 0)
    take_field(k);
  return rc;
}

static bool read_message_header(struct walk *k, const struct message *m) {
  bool any = false;
  for (const struct header *h = m->headers; h; h = h->next)
    if (h->type != HEADER_DELETED) {
      any |= str_ieq_c(str_slice(h->text, 0, h->name_len), "Content-Type");
      mime_header_field(&k->w->part.header, k->w->part_arena, h->text);
    }
  return any;
}

/* ---- attached messages ---- */

static int decode_attached(struct walk *k) {
  struct mime_walk *w = k->w;
  struct scan_source *to = &k->decoded;
  struct mime_decoder d = {.encoding = mime_encoding_of(&w->part.header)};
  struct arena *a = arena_new("attached message");
  struct mime_content content;
  struct str data;
  uint64_t from = to->size;
  int rc = to->fd >= 0 ? 0 : (to->fd = w->temporary ? w->temporary(w->c) : scan_temporary(w->c)) < 0 ? to->fd : 0;
  char *out = arena_bytes(a, MIME_DECODED_MAX(SCAN_WINDOW) + DECODE_PIECE);
  size_t n = 0;
  mime_content_init(&content, w);
  while (rc == 0 && (rc = mime_content_lines(&content, &data)) > 0) {
    n += mime_decode(&d, data, out + n);
    rc = 0;
    if (n >= DECODE_PIECE) {
      rc = to->size + n > k->decoded_max ? MIME_TOO_COMPLEX : scan_write(to->fd, str_n(out, n));
      to->size += n;
      n = 0;
    }
  }
  if (rc == 0 && n > 0) {
    rc = to->size + n > k->decoded_max ? MIME_TOO_COMPLEX : scan_write(to->fd, str_n(out, n));
    to->size += n;
  }
  arena_free(a);
  if (rc == 0)
    vec_push(w->arena, &k->jobs, ((struct job){to, from, to->size}));
  return rc;
}

static int attach(struct walk *k) {
  struct mime_part *p = &k->w->part;
  if (k->jobs.n > MIME_MESSAGES_MAX)
    return MIME_TOO_COMPLEX;
  if (mime_encoding_of(&p->header) != MIME_IDENTITY)
    return decode_attached(k);
  vec_push(k->w->arena, &k->jobs, ((struct job){p->source, p->body, k->jobs.v[k->job].to}));
  k->open_rfc822 = true;
  return 0;
}

/* ---- the walk ---- */

static bool is_cover(const struct walk *k) {
  if (k->w->depth == 0)
    return true;
  const struct mime_level *l = &k->levels[k->w->depth - 1];
  return l->cover && (l->all_cover || l->parts == 1);
}

/* The part's header has been read: it is visited; what it opens is entered. */
static int meet_part(struct walk *k) {
  struct mime_walk *w = k->w;
  struct mime_part *p = &w->part;
  if (w->depth > 0)
    k->levels[w->depth - 1].parts++;
  p->cover = is_cover(k);
  if (++k->parts > MIME_PARTS_MAX)
    return MIME_TOO_COMPLEX;
  int rc = w->visit(w);
  if (rc)
    return rc;
  if (mime_is_rfc822(&p->header))
    return attach(k);
  if (!mime_is_multipart(&p->header) || !str_is_set(p->header.boundary) || p->header.boundary.len == 0)
    return 0;
  if (w->depth == MIME_LEVELS_MAX)
    return MIME_TOO_COMPLEX;
  struct str type = p->header.content_type;
  k->levels[w->depth++] = (struct mime_level){.boundary = str_dup(w->arena, p->header.boundary), .cover = p->cover,
    .all_cover = str_eq_c(type, "multipart/alternative") || str_eq_c(type, "multipart/related")};
  return 0;
}

/* Then the walk goes on where it was, or behind the content when it has been read to its end and there is nothing in it to enter. */
static int meet(struct walk *k, bool content) {
  struct mime_walk *w = k->w;
  uint64_t at = w->reader.at;
  size_t depth = w->depth;
  int rc = meet_part(k);
  bool past = content && rc == 0 && w->depth == depth && w->part.next > at;
  scan_reader_seek(&w->reader, past ? w->part.next : at, k->jobs.v[k->job].to);
  return rc;
}

static void next_part(struct walk *k) {
  struct mime_part *p = &k->w->part;
  arena_reset(k->w->part_arena);
  *p = (struct mime_part){.count = p->count + 1, .rfc822 = p->rfc822, .source = p->source, .end = k->jobs.v[k->job].to};
  buf_init(&k->field, k->w->part_arena, 2 * MIME_FIELD_MAX);
}

/* Goes on behind a delimiter: parts, until a line that is none of their business. 0 or as mime_walk(). */
static int parts_of(struct walk *k, size_t level, bool end) {
  while (level > 0) {
    k->w->depth = level;
    if (end) {
      k->w->depth--;
      return 0;
    }
    next_part(k);
    int rc = read_header(k, &level, &end);
    if (rc < 0)
      return rc;
    int met = meet(k, rc > 0);
    if (met)
      return met;
    if (rc > 0)
      return 0;
    if (k->open_rfc822) /* it has no content */
      k->jobs.v[k->jobs.n - 1].to = k->jobs.v[k->jobs.n - 1].from;
    k->open_rfc822 = false;
  }
  return 0;
}

static int walk_job(struct walk *k, bool top, int *ret_last) {
  struct mime_walk *w = k->w;
  struct job job = k->jobs.v[k->job];
  struct scan_reader *r = &w->reader;
  struct arena *a = arena_new("MIME");
  struct str line;
  size_t level;
  bool first, end;
  int rc = 1;
  w->depth = 0;
  w->part = (struct mime_part){.count = -1, .rfc822 = !top, .source = job.source};
  scan_reader_init(r, a, job.source, job.from, job.to);
  next_part(k);
  if (top ? !read_message_header(k, w->c->message) : (rc = read_header(k, &level, &end)) < 0) {
    arena_free(a);
    return rc < 0 ? rc : 0;
  }
  rc = meet(k, true);
  uint64_t at = r->at;
  while (rc == 0 && w->depth > 0 && (rc = scan_reader_lines(r, &line, &first)) > 0) {
    level = first ? mime_level_of(k->levels, w->depth, line, &end) : 0;
    rc = 0;
    if (level > 0) {
      if (k->open_rfc822)
        k->jobs.v[k->jobs.n - 1].to = at;
      k->open_rfc822 = false;
      rc = parts_of(k, level, end);
    }
    at = r->at;
  }
  k->open_rfc822 = false;
  *ret_last = w->part.count;
  arena_free(a);
  return rc;
}

int mime_walk_source(struct mime_walk *w, const struct scan_source *body, int *ret_last) {
  w->arena = arena_new("MIME structure");
  w->part_arena = arena_new("MIME part");
  struct walk *k = arena_new_of(w->arena, struct walk);
  k->w = w;
  k->decoded.fd = -1;
  w->levels = k->levels;
  *ret_last = -1;
  int rc = 0, ignored;
  k->decoded_max = body->size * DECODED_TIMES + DECODED_LEAST;
  w->budget = (int64_t)body->size * BUDGET_TIMES + BUDGET_LEAST;
  vec_push(w->arena, &k->jobs, ((struct job){body, 0, body->size}));
  for (k->job = 0; rc == 0 && k->job < k->jobs.n; k->job++)
    rc = walk_job(k, k->job == 0, k->job == 0 ? ret_last : &ignored);
  if (k->decoded.fd >= 0)
    close(k->decoded.fd);
  arena_free(w->part_arena);
  arena_free(w->arena);
  return rc;
}

int mime_walk(struct mime_walk *w, int *ret_last) {
  struct scan_source body;
  *ret_last = -1;
  int rc = scan_source_body(w->c, &body);
  if (rc == 0)
    rc = mime_walk_source(w, &body, ret_last);
  scan_source_close(&body);
  return rc;
}
