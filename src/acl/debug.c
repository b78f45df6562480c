/* `control = debug`: a debug log of its own for the connection, or for the
local message; deliveries of messages that came by it go on with it, after
their time in the spool, too. */
#include "acl/internal.h"
#include "core/module.h"
#include "log/debug_file.h"
#include "loop/fiber.h"
#include "queue/spool_codec.h"

#define PRETRIGGER_DEFAULT 16384
#define TAG_MAX 200

struct request {
  struct str tag, areas;
  bool stop, kill, now, panic;
  uint32_t pretrigger;
};

static int parse(struct ctx *c, struct str option, struct request *q) {
  *q = (struct request){.tag = STR_EMPTY, .areas = STR_EMPTY};
  for (struct str rest = option; str_is_set(rest) && rest.len > 0;) {
    struct str item = str_cut(&rest, '/'), value = item, name = str_cut(&value, '=');
    uint64_t n;
    if (str_eq_c(name, "tag") && str_is_set(value))
      q->tag = value;
    else if (str_eq_c(name, "opts") && str_is_set(value))
      q->areas = value;
    else if (str_eq_c(item, "stop"))
      q->stop = true;
    else if (str_eq_c(item, "kill"))
      q->stop = q->kill = true;
    else if (str_eq_c(name, "pretrigger") && str_is_set(value) && str_to_u64(value, &n) && n <= DEBUG_FILE_PRETRIGGER_MAX)
      q->pretrigger = (uint32_t)n;
    else if (str_eq_c(item, "trigger=now"))
      q->now = true;
    else if (str_eq_c(item, "trigger=paniclog"))
      q->panic = true;
    else
      return acl_fail(c, OUTCOME_ERROR, "syntax error in \"control=debug/%.*s\"", STRF(option));
  }
  if (q->panic && q->pretrigger == 0)
    q->pretrigger = PRETRIGGER_DEFAULT;
  return OUTCOME_OK;
}

/* The tag is part of a file's name. */
static int check_tag(struct ctx *c, struct str tag) {
  if (str_is_tainted(tag))
    return acl_fail(c, OUTCOME_ERROR, "attempt to use tainted tag \"%.*s\" for a debug log", STRF(tag));
  for (size_t i = 0; i < tag.len; i++)
    if (tag.p[i] <= ' ' || tag.p[i] == '/' || tag.p[i] == 127)
      return acl_fail(c, OUTCOME_ERROR, "a debug log's tag may not hold blanks or slashes");
  if (tag.len > TAG_MAX)
    return acl_fail(c, OUTCOME_ERROR, "a debug log's tag is too long");
  return OUTCOME_OK;
}

static unsigned start(struct acl_debug *d) {
  char name[1024];
  if (log_debug_name(d->tag, name, sizeof name) < 0)
    return 0;
  struct debug_file_how how = {.path = str_c(name), .mask = d->mask, .pretrigger = d->pretrigger, .on_panic = d->on_panic};
  return d->number = debug_file_open(&how);
}

static void stop(struct acl_debug *d, bool kill) {
  debug_file_close(d->number, kill);
  *d = (struct acl_debug){0};
}

int acl_control_debug(struct ctx *c, struct str option) {
  struct request q;
  int rc = parse(c, option, &q);
  if (rc == OUTCOME_OK)
    rc = check_tag(c, q.tag);
  if (rc != OUTCOME_OK)
    return rc;
  struct acl_session *s = acl_session(c);
  struct acl_message *m = acl_message(c);
  struct acl_debug *d = s ? &s->debug : m ? &m->debug : NULL;
  if (!d || c->is_test) {
    DEBUG(acl, "no debug log is written here\n");
    return OUTCOME_OK;
  }
  if (q.stop) {
    stop(d, q.kill);
    if (m)
      m->debug = (struct acl_debug){0};
    return OUTCOME_OK;
  }
  uint64_t mask;
  struct str error;
  if (debug_select(c->arena, q.areas, &mask, &error) < 0)
    return acl_fail(c, OUTCOME_ERROR, "%.*s in \"control=debug/%.*s\"", STRF(error), STRF(option));
  struct arena *a = s ? c->session->arena : c->message->arena;
  if (d->number == 0) {
    *d = (struct acl_debug){.tag = str_dup(a, q.tag), .mask = mask, .pretrigger = q.pretrigger, .on_panic = q.panic};
    if (start(d) == 0)
      acl_log(c, LOG_MAIN, "no debug log is written for control=debug: there are too many, or logs are not in files");
  } else if (q.areas.len > 0) {
    d->mask = mask;
    debug_file_select(d->number, mask);
  }
  if (q.now)
    debug_file_trigger(d->number);
  return OUTCOME_OK;
}

void acl_debug_keep(struct ctx *c) {
  struct acl_session *s = acl_session(c);
  struct acl_message *m = acl_message(c);
  if (!s || !m || s->debug.number == 0)
    return;
  m->debug = s->debug;
  m->debug.number = 0; /* the session's, which ends it */
  m->debug.tag = str_dup(c->message->arena, s->debug.tag);
}

void acl_debug_session_end(struct session *s, void *state) {
  stop(&((struct acl_session *)state)->debug, false);
  fiber_set_tag(0);
}

void acl_debug_message_end(struct message *m, void *state) { stop(&((struct acl_message *)state)->debug, false); }

unsigned acl_debug_resume(struct message *m, unsigned *ret_outer) {
  size_t n = module_number(&acl_module);
  struct acl_message *am = m->module_state ? m->module_state[n] : NULL;
  *ret_outer = fiber_tag();
  fiber_set_tag(0);
  if (!am || am->debug.mask == 0)
    return 0;
  struct acl_debug again = am->debug;
  return start(&again);
}

void acl_debug_pause(unsigned number, unsigned outer) {
  debug_file_close(number, false);
  fiber_set_tag(outer);
}

/* Exim's two lines; and one of our own, of which it knows nothing. */
void acl_debug_write(struct spool_writer *w, const struct message *m, const void *state) {
  const struct acl_debug *d = &((const struct acl_message *)state)->debug;
  if (d->mask == 0)
    return;
  buf_printf(w->out, "-debug_selector 0x%llx\n", (unsigned long long)d->mask);
  if (d->tag.len)
    spool_write_item(w, "debuglog_name", d->tag);
  if (d->pretrigger > 0)
    buf_printf(w->out, "-debug_pretrigger %u%s\n", d->pretrigger, d->on_panic ? " paniclog" : "");
}

static bool parse_hex(struct str text, uint64_t *ret) {
  if (!str_istarts(text, STR("0x")) || text.len < 3 || text.len > 18)
    return false;
  *ret = 0;
  for (size_t i = 2; i < text.len; i++) {
    int digit = text.p[i] | 32;
    digit = digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : 16;
    if (digit > 15)
      return false;
    *ret = *ret * 16 + (uint64_t)digit;
  }
  return true;
}

bool acl_debug_read(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value) {
  struct acl_debug *d = &((struct acl_message *)state)->debug;
  uint64_t n;
  if (str_eq_c(name, "debug_selector")) {
    if (parse_hex(value, &n))
      d->mask = n & ((1ull << DEBUG_COUNT) - 1);
    return true;
  }
  if (str_eq_c(name, "debuglog_name")) {
    /* A name with a directory is another program's. */
    if (!r->tainted && str_find_byte(value, '/') < 0 && value.len <= TAG_MAX)
      d->tag = str_untainted(str_dup(m->arena, value));
    return true;
  }
  if (str_eq_c(name, "debug_pretrigger")) {
    struct str rest = value, size = str_cut(&rest, ' ');
    if (str_to_u64(size, &n) && n <= DEBUG_FILE_PRETRIGGER_MAX)
      d->pretrigger = (uint32_t)n;
    d->on_panic = str_is_set(rest) && str_eq_c(rest, "paniclog");
    return true;
  }
  return false;
}
