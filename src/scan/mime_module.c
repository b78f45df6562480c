/* The MIME ACLs, `decode`, and the variables of a part (Exim manual, section "Scanning MIME parts"). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "base/fd_io.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/expand.h"
#include "expand/rfc2047.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "message/message.h"
#include "scan/mime_part.h"

#define OUT_PIECE (128u << 10)
#define FILES_MAX 100000 /* numbers that are tried for a file's name */

struct mime_options {
  struct option_expr smtp, not_smtp;
};

struct mime_state {
  struct mime_walk *walk; /* while the ACL runs */
  bool done;
  int last;               /* $mime_part_count when none is looked at */
  unsigned files;         /* names given in the default directory */
  struct str directory;   /* of `decode = /directory`, when it is one */
  struct mime_part part;  /* for those who ask behind the ACL: nothing is set */
};

static struct mime_state *state_of(const struct ctx *c) {
  return c->message ? message_module_state(c->message, &mime_module) : NULL;
}

struct mime_part *mime_current(struct ctx *c) {
  struct mime_state *s = state_of(c);
  return s && s->walk ? &s->walk->part : NULL;
}

bool mime_current_content(struct ctx *c, struct mime_content *ret) {
  struct mime_state *s = state_of(c);
  if (!s || !s->walk)
    return false;
  mime_content_init(ret, s->walk);
  ret->budget = &s->walk->budget;
  return true;
}

/* ---- the ACL ---- */

struct acl_walk {
  struct mime_walk walk;
  enum acl_where where;
  const struct option_expr *acl;
  enum acl_result result;
};

/* In headers_charset, without zeros. */
static void convert_filename(struct ctx *c, struct mime_walk *w) {
  struct mime_header *h = &w->part.header;
  struct str charset = main_options(c->config)->headers_charset, error = c->error;
  struct buf b;
  if (!str_is_set(h->filename))
    return;
  buf_init(&b, w->part_arena, 4 * MIME_FIELD_MAX);
  b.taint = STR_TAINTED;
  if (str_is_set(h->filename_charset))
    rfc2047_convert(c, &b, h->filename, h->filename_charset, charset.len ? charset : STR("ISO-8859-1"));
  else
    buf_add(&b, rfc2047_decode(c, h->filename, charset.len ? charset : STR("ISO-8859-1")));
  c->error = error; /* an unknown charset is not our trouble */
  for (size_t i = 0; i < b.len; i++)
    if (b.p[i] == '\0')
      b.p[i] = '?';
  h->filename = buf_str(&b);
}

static int visit(struct mime_walk *w) {
  struct acl_walk *k = (struct acl_walk *)w;
  struct ctx *c = w->c;
  convert_filename(c, w);
  k->result = acl_check(c, k->where, k->acl);
  return k->result == ACL_OK ? 0 : 1;
}

static enum acl_result trouble(struct ctx *c, int rc) {
  if (rc == MIME_TOO_COMPLEX) {
    c->user_message = STR("the MIME structure of this message is too complex");
    c->log_message = STR("MIME structure too complex");
    return ACL_FAIL;
  }
  c->log_message = str_printf(c->arena, "MIME ACL: the message cannot be read: %s", strerror(-rc));
  log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->log_message));
  return ACL_DEFER;
}

/* The hook message_check. */
static int check_message(struct ctx *c, int *ret_where, const char **ret_what) {
  const struct mime_options *o = config_block(c->config, &mime_module);
  bool smtp = c->session && c->session->kind != SESSION_STDIN && c->session->kind != SESSION_BATCH;
  const struct option_expr *acl = smtp ? &o->smtp : &o->not_smtp;
  struct mime_state *s = state_of(c);
  s->done = true;
  s->last = -1;
  *ret_where = smtp ? ACL_MIME : ACL_NOT_SMTP_MIME;
  *ret_what = "during MIME ACL checks";
  if (!acl_is_set(acl))
    return ACL_OK;
  struct acl_walk k = {.walk = {.c = c, .visit = visit}, .acl = acl, .where = (enum acl_where)*ret_where};
  s->walk = &k.walk;
  int rc = mime_walk(&k.walk, &s->last);
  s->walk = NULL;
  return rc < 0 ? trouble(c, rc) : rc > 0 ? k.result : ACL_OK;
}

/* ---- decoding ---- */

/* The file is made with the first piece that is written: small parts cost one call to a thread. */
struct decoding {
  struct ctx *c;
  struct mime_decoder decoder;
  struct str path;        /* of the file; numbered: of its directory, until it is made */
  bool numbered;
  char *out;
  size_t n;
  int fd;
  uint64_t size;
};

struct piece_call {
  const char *path;
  struct str data;
  int fd;
  bool anew, last;
};

/* A name of our own must be new; one that the ACL gives is overwritten, for other parts may have the same. */
static int piece_offloaded(void *arg) {
  struct piece_call *k = arg;
  int how = k->anew ? O_EXCL : O_TRUNC;
  if (k->fd < 0 && (k->fd = open(k->path, O_WRONLY | O_CREAT | how | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640)) < 0)
    return -errno;
  int rc = fd_write_all(k->fd, k->data.p, k->data.len);
  if (k->last || rc < 0) {
    if (close(k->fd) < 0 && rc == 0)
      rc = -errno;
    k->fd = -1;
  }
  return rc;
}

static int flush(struct decoding *d, bool last) {
  struct mime_state *s = state_of(d->c);
  struct str directory = d->path;
  bool made = d->fd >= 0;
  int rc = -EEXIST;
  for (int i = 0; rc == -EEXIST && i < (d->numbered && !made ? FILES_MAX : 1); i++) {
    if (d->numbered && !made)
      d->path = str_printf(s->walk->part_arena, "%.*s/%s-%05u", STRF(directory), d->c->message->id, s->files++);
    struct piece_call k = {.path = d->path.p, .data = str_n(d->out, d->n), .fd = d->fd, .anew = d->numbered, .last = last};
    rc = fiber_offload(piece_offloaded, &k);
    d->fd = k.fd;
  }
  d->size += d->n;
  d->n = 0;
  return rc;
}

/* What has been decoded up to here is about to go from d->out. */
static void keep_start(struct decoding *d, struct mime_part *p, bool last) {
  if (str_is_set(p->start))
    return;
  p->start = str_tainted(str_n(d->out, d->n < MIME_START_MAX ? d->n : MIME_START_MAX));
  if (!last)
    p->start = str_dup(state_of(d->c)->walk->part_arena, p->start);
}

static int decode_into(struct decoding *d, struct mime_part *p) {
  struct mime_walk *w = state_of(d->c)->walk;
  struct mime_content content;
  struct str data;
  int rc = mime_current_content(d->c, &content) ? 0 : -EINVAL;
  d->fd = -1;
  d->decoder.encoding = mime_encoding_of(&p->header);
  if (!w->out)
    w->out = arena_bytes(w->arena, OUT_PIECE + MIME_DECODED_MAX(SCAN_WINDOW));
  d->out = w->out;
  p->start = STR_UNSET;
  while (rc == 0 && (rc = mime_content_lines(&content, &data)) > 0) {
    d->n += mime_decode(&d->decoder, data, d->out + d->n);
    rc = 0;
    if (d->n >= OUT_PIECE) {
      keep_start(d, p, false);
      rc = flush(d, false);
    }
  }
  mime_decode_end(&d->decoder);
  keep_start(d, p, true);
  if (rc == 0)
    rc = flush(d, true);
  if (d->fd >= 0)
    close(d->fd);
  p->decoded_size = d->size;
  p->anomaly = !d->decoder.broken ? 0 : d->decoder.encoding == MIME_BASE64 ? 2 : 1;
  return rc;
}

static int directory_offloaded(void *arg) {
  struct stat st;
  return stat(arg, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Asked once for all parts of a message. */
static bool is_directory(struct ctx *c, struct str path) {
  struct mime_state *s = state_of(c);
  if (str_is_set(s->directory) && str_eq(s->directory, path))
    return true;
  struct str name = str_c(str_dup_c(c->message->arena, path));
  bool found = fiber_offload(directory_offloaded, (void *)(uintptr_t)name.p);
  if (found)
    s->directory = name;
  return found;
}

/* Where `decode` puts it. 0, or negative. */
static int choose_place(struct decoding *d, struct arena *a, struct str how) {
  struct str directory;
  bool standard = how.len == 0 || str_eq_c(how, "default");
  if (!standard && str_is_tainted(how))
    return -EPERM;
  if (how.len > 0 && how.p[0] == '/') {
    d->path = str_dup(a, how);
    d->numbered = is_directory(d->c, how);
    return 0;
  }
  int rc = scan_directory(d->c, &directory);
  if (rc < 0)
    return rc;
  d->numbered = standard;
  d->path = standard ? directory : str_printf(a, "%.*s/%.*s", STRF(directory), STRF(how));
  return 0;
}

int mime_decode_part(struct ctx *c, struct str how) {
  struct mime_state *s = state_of(c);
  struct mime_part *p = mime_current(c);
  struct decoding d = {.c = c, .path = STR_EMPTY};
  if (!p)
    return OUTCOME_FAIL;
  how = str_is_set(how) ? how : STR_EMPTY;
  int rc = choose_place(&d, s->walk->part_arena, how);
  if (rc == 0)
    rc = decode_into(&d, p);
  if (rc < 0) {
    c->log_message = rc == -EPERM && str_is_tainted(how) ? str_printf(c->arena, "Tainted filename for decode: '%.*s'", STRF(how))
                                                         : str_printf(c->arena, "decode: cannot write %.*s: %s", STRF(d.path), strerror(-rc));
    log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(log_printable(c->arena, c->log_message)));
    return OUTCOME_DEFER;
  }
  p->decoded = d.path;
  return OUTCOME_OK;
}

static int eval_decode(struct ctx *c, const struct acl_clause *clause, struct str arg) {
  struct str how = str_trim(arg);
  if (str_eq_c(how, "0") || str_ieq_c(how, "false"))
    return OUTCOME_FAIL;
  return mime_decode_part(c, how);
}

/* ---- variables ---- */

enum { V_COUNT, V_MULTIPART, V_COVER, V_RFC822, V_SIZE, V_DECODED, V_ANOMALY, V_ANOMALY_TEXT, V_TEXT };

static struct str flag(bool b) { return b ? STR("1") : STR("0"); }

static int get(struct ctx *c, const struct variable_def *def, struct str *ret) {
  static const struct mime_part none;
  static const char *const anomalies[] = {"", "Broken Quoted-Printable encoding detected", "Broken BASE64 encoding detected"};
  const struct mime_state *s = state_of(c);
  const struct mime_part *p = s && s->walk ? &s->walk->part : &none;
  switch (def->flags) {
    case V_COUNT: *ret = str_printf(c->arena, "%d", s && s->walk ? p->count : s && s->done ? s->last : -1); break;
    case V_MULTIPART: *ret = flag(mime_is_multipart(&p->header)); break;
    case V_COVER: *ret = flag(p->cover); break;
    case V_RFC822: *ret = flag(p->rfc822); break;
    case V_SIZE: *ret = str_printf(c->arena, "%llu", (unsigned long long)((p->decoded_size + 1023) / 1024)); break;
    case V_DECODED: *ret = p->decoded; break;
    case V_ANOMALY: *ret = str_printf(c->arena, "%d", p->anomaly); break;
    case V_ANOMALY_TEXT: *ret = str_c(anomalies[p->anomaly]); break;
    default: *ret = *(const struct str *)(const void *)((const char *)&p->header + def->offset);
  }
  *ret = str_is_set(*ret) ? str_dup(c->arena, *ret) : STR_EMPTY; /* the part's arena is emptied before the ACL's values go */
  return 0;
}

#define TEXT(name, member) {"mime_" name, get, offsetof(struct mime_header, member), V_TEXT}
static const struct variable_def variables[] = {
  {"mime_anomaly_level", get, 0, V_ANOMALY}, {"mime_anomaly_text", get, 0, V_ANOMALY_TEXT}, TEXT("boundary", boundary),
  TEXT("charset", charset), TEXT("content_description", content_description), TEXT("content_disposition", content_disposition),
  TEXT("content_id", content_id), {"mime_content_size", get, 0, V_SIZE},
  TEXT("content_transfer_encoding", transfer_encoding), TEXT("content_type", content_type),
  {"mime_decoded_filename", get, 0, V_DECODED}, TEXT("filename", filename), {"mime_is_coverletter", get, 0, V_COVER},
  {"mime_is_multipart", get, 0, V_MULTIPART}, {"mime_is_rfc822", get, 0, V_RFC822}, {"mime_part_count", get, 0, V_COUNT}, {0},
};

static const struct acl_condition_def conditions[] = {
  {"decode", ACL_ONLY(ACL_BIT(ACL_MIME) | ACL_BIT(ACL_NOT_SMTP_MIME)), true, 0, eval_decode, NULL}, {0},
};

static const struct option_def options[] = {
  {"acl_not_smtp_mime", OPTION_EXPR, offsetof(struct mime_options, not_smtp)},
  {"acl_smtp_mime", OPTION_EXPR, offsetof(struct mime_options, smtp)},
  OPTIONS_END,
};

const struct module mime_module = {
  .name = "mime",
  .summary = "MIME ACLs",
  .main_options = options,
  .main_size = sizeof(struct mime_options),
  .acl_conditions = conditions,
  .variables = variables,
  .message_state = {.size = sizeof(struct mime_state)},
  .hooks = {.message_check = check_message},
};
