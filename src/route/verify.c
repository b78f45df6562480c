/* Verification of addresses by routing them, EXPN, and the listings of -bt
and -bv (Exim manual, sections "Processing an address for verification" and
"Address verification"). */

#include "route/verify.h"

#include "core/build.h"
#include "core/main_options.h"
#include "message/address.h"
#include "message/message.h"
#include "route/router.h"
#include "transport/transport.h"

#define ADDRESSES_MAX 5000

static struct address *first_address(struct ctx *c, struct str text, const struct verify_params *p) {
  struct address *a = address_new(c->arena, text, -1);
  a->topaddr = a->address;
  a->verify_sender = p->sender;
  a->verify_recipient = !p->sender;
  if (!p->sender && c->message)
    a->prop.utf8_msg = c->message->smtputf8;
  return a;
}

/* --- for ACLs --- */

static enum outcome answer(struct ctx *c, const struct address *a, enum outcome result) {
  if (result == OUTCOME_OK)
    return result;
  c->log_message = a->message;
  /* The client hears what the address is (unrouteable) or what an administrator wrote (:fail:); how it is routed
  and why that fails is nobody's business. */
  c->user_message = a->user_message;
  return result;
}

/* Follows an address as long as it leads to exactly one other; several are as good as a delivery (*ret_several, may be
NULL, has them). */
static enum outcome follow(struct ctx *c, struct address *a, const struct verify_params *p, struct address **last,
    struct address **ret_several) {
  for (size_t n = 0; n < ADDRESSES_MAX; n++) {
    struct route_lists lists = {.mode = p->expn ? ROUTE_FOR_EXPN : ROUTE_FOR_VERIFY};
    *last = a;
    enum route_result how = route_percent_hack(c, a);
    switch (how == ROUTE_OK ? route_address(c, a, &lists) : how) {
    case ROUTE_FAIL:
      return OUTCOME_FAIL;
    case ROUTE_DEFER:
    case ROUTE_ERROR:
      return OUTCOME_DEFER;
    case ROUTE_REROUTED:
      break;
    default:
      return OUTCOME_OK;
    }
    struct address *child = lists.children;
    if (!child || child->next || child->kind != ADDRESS_MAIL || p->success_on_redirect) {
      if (ret_several)
        *ret_several = child;
      return OUTCOME_OK;
    }
    a = child;
  }
  (*last)->message = STR("address is redirected too often");
  return OUTCOME_DEFER;
}

enum outcome verify_address(struct ctx *c, struct str address, const struct verify_params *p, struct address **ret) {
  struct str saved_mode = c->vars.verify_mode;
  struct address *last = NULL;
  c->vars.verify_mode = p->sender ? STR("S") : STR("R");
  enum outcome result = follow(c, first_address(c, address, p), p, &last, NULL);
  c->vars.verify_mode = saved_mode;
  c->vars.domain_data = last->prop.domain_data;
  c->vars.local_part_data = last->prop.local_part_data;
  if (p->sender)
    c->vars.sender_address_data = last->prop.address_data;
  else
    c->vars.address_data = last->prop.address_data;
  if (ret)
    *ret = last;
  return answer(c, last, result);
}

/* --- all that an address leads to --- */

struct expansion {
  struct ctx *c;
  enum route_mode mode;
  struct address *local, *remote, *discarded; /* what was taken, last first */
  struct address *special;                    /* files and pipes */
  struct address *todo;
  size_t handled;
  enum outcome result;                        /* the worst so far */
};

static void worse(struct expansion *e, enum outcome result) {
  if (result == OUTCOME_FAIL || (result == OUTCOME_DEFER && e->result == OUTCOME_OK))
    e->result = result;
}

/* Routes the next address with all that comes of it. False: nothing left. *ret is it, with *ret_how. */
static bool expand_next(struct expansion *e, struct address **ret, enum route_result *ret_how) {
  struct address *a = e->todo, **tail;
  if (!a || e->handled++ >= ADDRESSES_MAX)
    return false;
  e->todo = a->next;
  a->next = NULL;
  *ret = a;
  if (a->kind != ADDRESS_MAIL) {
    *ret_how = ROUTE_OK;
    return true;
  }
  struct route_lists lists = {.mode = e->mode};
  *ret_how = route_percent_hack(e->c, a);
  if (*ret_how == ROUTE_OK)
    *ret_how = route_address(e->c, a, &lists);
  for (tail = &lists.children; *tail;)
    tail = &(*tail)->next;
  *tail = e->todo;
  e->todo = lists.children;
  if (*ret_how == ROUTE_OK) {
    struct address **list = lists.local ? &e->local : &e->remote;
    a->next = *list;
    *list = a;
  }
  return true;
}

/* --- EXPN --- */

enum outcome route_expand(struct ctx *c, struct str address, void (*line)(void *arg, struct str text), void *arg) {
  struct verify_params p = {.expn = true};
  struct address *first = first_address(c, address, &p), *last, *several = NULL;
  first->verify_recipient = false;
  enum outcome result = follow(c, first, &p, &last, &several);
  if (result != OUTCOME_OK)
    line(arg, str_printf(c->arena, result == OUTCOME_FAIL ? "%.*s is undeliverable" : "%.*s cannot be resolved at this time",
        STRF(last->address)));
  else if (!several)
    line(arg, str_printf(c->arena, "<%.*s>", STRF(last->address)));
  /* Where the mail goes in the end, and to which files and commands, is nobody's business. */
  for (const struct address *a = several; a; a = a->next)
    line(arg, str_printf(c->arena, "<%.*s>", STRF(a->kind == ADDRESS_MAIL ? a->address : a->parent->address)));
  return result;
}

/* --- -bt and -bv --- */

struct listing {
  struct route_test *t;
  struct expansion e;
  const struct address *top;
};

static void print_ancestors(FILE *out, const struct address *a) {
  for (const struct address *up = a->parent; up; up = up->parent)
    fprintf(out, "\n    <-- %.*s", STRF(up->address));
}

static void print_hosts(FILE *out, const struct address *a, bool dnssec) {
  int name_width = 0, address_width = 0;
  for (const struct host *h = a->hosts; h; h = h->next) {
    if ((int)h->name.len > name_width)
      name_width = (int)h->name.len;
    int len = str_is_set(h->address) ? (int)h->address.len : 7; /* "unknown" */
    if (len > address_width)
      address_width = len;
  }
  bool local = ((const struct transport_def *)a->transport->driver)->local;
  for (const struct host *h = a->hosts; h; h = h->next) {
    fprintf(out, "  host %-*.*s ", name_width, STRF(h->name));
    if (str_is_set(h->address))
      fprintf(out, "[%.*s%-*c", STRF(h->address), address_width + 1 - (int)h->address.len, ']');
    else if (!local)
      fprintf(out, "[unknown] ");
    else
      fprintf(out, "%*s", address_width + 2, "");
    if (h->mx >= 0)
      fprintf(out, " MX=%d", h->mx);
    if (h->port)
      fprintf(out, " port=%d", h->port);
    if (dnssec && h->dnssec)
      fprintf(out, " AD");
    fputc('\n', out);
  }
}

static bool is_duplicate(struct listing *l, const struct address *a) {
  if (map_has(l->t->seen, a->unique))
    return true;
  map_set(l->t->seen, a->unique, (void *)a);
  return false;
}

static void print_taken(struct listing *l, const struct address *a) {
  FILE *out = l->t->out;
  fprintf(out, "%.*s", STRF(a->address));
  if (l->t->kind == ROUTE_TEST_BT || l->t->verbose)
    if (is_duplicate(l, a))
      fprintf(out, "   [duplicate, would not be delivered]");
  print_ancestors(out, a);
  fprintf(out, "\n  router = %.*s, transport = %.*s\n", STRF(a->router->name),
      STRF(a->transport ? a->transport->name : STR("unset")));
  if (!a->transport || !a->hosts)
    return;
  const struct transport_def *t = (const struct transport_def *)a->transport->driver;
  if (!t->overrides_hosts || !t->overrides_hosts(a->transport))
    print_hosts(out, a, build.fixed_random);
}

static void print_special(struct listing *l, const struct address *a) {
  FILE *out = l->t->out;
  bool allowed = a->kind == ADDRESS_PIPE ? a->af_allow_pipe : a->kind == ADDRESS_FILE ? a->af_allow_file : a->af_allow_reply;
  fprintf(out, "%.*s -> %.*s", STRF(a->parent->address), STRF(a->address));
  if (a->result == OUTCOME_DEFER)
    fprintf(out, "\n*** Error in setting up pipe, file, or autoreply:\n%.*s\n", STRF(a->message));
  else if (!allowed)
    fprintf(out, " *** forbidden ***\n");
  else
    fprintf(out, "\n  transport = %.*s\n", STRF(a->transport->name));
}

static void print_failed(struct listing *l, const struct address *a, enum outcome result) {
  FILE *out = l->t->out;
  fprintf(out, "%.*s ", STRF(a->address));
  if (result == OUTCOME_FAIL)
    fprintf(out, l->t->kind == ROUTE_TEST_BT ? "is undeliverable" : "failed to verify");
  else
    fprintf(out, "cannot be resolved at this time");
  fprintf(out, ": %.*s", STRF(a->message));
  print_ancestors(out, a);
  fputc('\n', out);
}

/* The short form of -bv: one line an address. */
static enum outcome test_briefly(struct ctx *c, struct route_test *t, struct address *a, const struct verify_params *p) {
  struct address *last = NULL;
  struct listing l = {.t = t};
  struct str asked = a->address; /* the percent hack may change the address itself */
  enum outcome result = follow(c, a, p, &last, NULL);
  if (result == OUTCOME_OK) {
    fprintf(t->out, "%.*s verified\n", STRF(asked));
    return result;
  }
  struct address shown = *last;
  shown.address = asked;
  shown.parent = NULL;
  print_failed(&l, &shown, result);
  return result;
}

static enum outcome test_fully(struct ctx *c, struct route_test *t, struct address *top) {
  struct listing l = {.t = t, .top = top,
      .e = {.c = c, .mode = t->kind == ROUTE_TEST_BT ? ROUTE_FOR_TEST : ROUTE_FOR_VERIFY, .result = OUTCOME_OK, .todo = top}};
  struct address *a;
  struct str asked = top->address;
  enum route_result how;
  bool shown = false;
  while (expand_next(&l.e, &a, &how)) {
    if (a->kind != ADDRESS_MAIL) {
      print_special(&l, a);
    } else if (how == ROUTE_FAIL || how == ROUTE_DEFER || how == ROUTE_ERROR) {
      enum outcome result = how == ROUTE_FAIL ? OUTCOME_FAIL : OUTCOME_DEFER;
      print_failed(&l, a, result);
      worse(&l.e, result);
    } else {
      continue;
    }
    shown = true;
  }
  if (!shown && !l.e.local && !l.e.remote)
    fprintf(t->out, "mail to %.*s is discarded\n", STRF(asked));
  for (const struct address *x = l.e.local; x; x = x->next)
    print_taken(&l, x);
  for (const struct address *x = l.e.remote; x; x = x->next)
    print_taken(&l, x);
  return l.e.result;
}

static enum outcome test_one(struct ctx *c, struct route_test *t, struct str text) {
  const struct main_options *m = main_options(c->config);
  struct mail_address parsed;
  struct str why;
  unsigned flags = (m->allow_domain_literals ? ADDRESS_ALLOW_DOMAIN_LITERAL : 0) |
                   (m->strip_trailing_dot ? ADDRESS_STRIP_TRAILING_DOT : 0) | (m->allow_utf8_domains ? ADDRESS_ALLOW_UTF8 : 0);
  if (address_parse(c->arena, text, flags, &parsed, &why)) {
    fprintf(t->out, "syntax error: %.*s\n", STRF(why));
    return OUTCOME_FAIL;
  }
  struct str full = parsed.address;
  if (!parsed.domain.len)
    full = str_printf(c->arena, "%.*s@%.*s", STRF(full),
        STRF(t->kind == ROUTE_TEST_BVS ? m->qualify_domain : m->qualify_recipient));
  full = str_tainted(full);
  struct verify_params p = {.sender = t->kind == ROUTE_TEST_BVS};
  struct address *a = first_address(c, full, &p);
  if (t->kind == ROUTE_TEST_BT)
    a->verify_recipient = false;
  else
    c->vars.verify_mode = p.sender ? STR("S") : STR("R");
  return t->kind == ROUTE_TEST_BT || t->verbose ? test_fully(c, t, a) : test_briefly(c, t, a, &p);
}

int route_test_addresses(struct ctx *c, struct route_test *t, struct str text) {
  struct address_walk w = {.text = text};
  if (!t->seen)
    t->seen = map_new(c->arena);
  while (address_walk_next(&w)) {
    struct str item = str_trim(str_slice(text, w.from, w.to));
    if (!item.len)
      continue;
    enum outcome result = test_one(c, t, item);
    int exit_code = result == OUTCOME_OK ? 0 : result == OUTCOME_FAIL ? 2 : 1;
    if (exit_code > t->exit_code)
      t->exit_code = exit_code;
    fflush(t->out);
  }
  return t->exit_code;
}
