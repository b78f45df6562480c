#include "deliver/submit.h"

#include <errno.h>
#include <pwd.h>
#include <unistd.h>
#include "base/idn.h"
#include "core/build.h"
#include "core/main_options.h"
#include "deliver/follow.h"
#include "expand/expand.h"
#include "log/log.h"
#include "loop/fiber.h"
#include "smtp/client/requiretls.h"
#include "smtp/receive.h"
#include "transport/identity.h"

#define TEXT_MAX (64u << 20)
#define PIECE (64u << 10)

void (*deliver_take_over)(struct ctx *c, struct message *m);

void submit_init(struct submit *s, struct arena *a, const struct message *parent) {
  memset(s, 0, sizeof *s);
  s->arena = a;
  s->sender = STR_EMPTY;
  s->parent = parent;
  s->body_fd = -1;
  buf_init(&s->header, a, TEXT_MAX);
  buf_init(&s->body, a, TEXT_MAX);
  buf_init(&s->tail, a, TEXT_MAX);
}

struct str submit_from(struct ctx *c) {
  const struct main_options *o = main_options(c->config);
  struct str from;
  if (!expand_option(c, &o->dsn_from, &from) && str_is_set(from) && from.len)
    return from;
  log_write(LOG_MAIN | LOG_PANIC, c->message, "Failed to expand dsn_from: %.*s", STRF(c->error));
  return str_printf(c->arena, "Mail Delivery System <Mailer-Daemon@%.*s>", STRF(o->qualify_domain));
}

/* Whose name stands in U= and Received:. */
static struct str our_name(struct ctx *c, struct arena *a) {
  const struct option_user *u = &main_options(c->config)->exim_user;
  if (u->set && str_is_set(u->text) && u->text.len && (u->text.p[0] < '0' || u->text.p[0] > '9'))
    return str_dup(a, u->text);
  uid_t uid = u->set ? u->id : geteuid();
  const struct passwd *p = !u->set && uid == 0 && build.user ? NULL : getpwuid(uid);
  return str_dup(a, str_c(p ? p->pw_name : build.user ? build.user : "nobody"));
}

struct account {
  uint32_t uid;
  struct arena *arena;
  struct str login, name;
};

static int find_account(void *arg) {
  struct account *w = arg;
  struct passwd pw, *found = NULL;
  char room[4096];
  if (getpwuid_r(w->uid, &pw, room, sizeof room, &found) || !found)
    return 0;
  w->login = str_dup(w->arena, str_c(found->pw_name));
  w->name = str_dup(w->arena, str_c(found->pw_gecos ? found->pw_gecos : ""));
  return 0;
}

static bool is_trusted(const struct main_options *o, uint32_t uid) {
  for (size_t i = 0; i < o->trusted_users.n; i++)
    if (o->trusted_users.v[i] == uid)
      return true;
  return uid == 0 || (o->exim_user.set && o->exim_user.id == uid);
}

struct piece {
  int fd;
  int64_t offset;
  char *p;
  size_t size;
  ssize_t n;
};

static int read_piece(void *arg) {
  struct piece *p = arg;
  p->n = pread(p->fd, p->p, p->size, p->offset);
  return p->n < 0 ? -errno : 0;
}

/* The body that is returned; what cannot be read any more is left out. */
static void push_file(struct reception *r, const struct submit *s, struct arena *a) {
  struct piece p = {.fd = s->body_fd, .offset = s->body_offset, .p = arena_bytes(a, PIECE)};
  int64_t left = s->body_length;
  if (!s->body_offset)
    p.offset = lseek(s->body_fd, 0, SEEK_CUR);
  while (left > 0) {
    p.size = left < (int64_t)PIECE ? (size_t)left : PIECE;
    if (fiber_offload(read_piece, &p) || p.n <= 0)
      return;
    receive_push(r, str_n(p.p, (size_t)p.n));
    p.offset += p.n;
    left -= p.n;
  }
}

static struct message *make_message(struct ctx *c, const struct submit *s, struct submitter *who) {
  struct message *m = message_new("message");
  struct client *cl = &m->client;
  cl->local = true;
  cl->ident = s->from_router && identity_can_switch() ? STR("root") : our_name(c, m->arena);
  cl->protocol = STR("local");
  m->reverse_path = str_dup(m->arena, s->sender);
  m->sender_local = true;
  struct account account = {.uid = s->uid, .arena = m->arena, .login = STR_UNSET, .name = STR_EMPTY};
  if (s->as_user)
    fiber_offload(find_account, &account);
  bool user = str_is_set(account.login);
  if (user)
    cl->ident = account.login;
  m->originator_login = cl->ident;
  m->originator_uid = user ? s->uid : geteuid();
  m->originator_gid = user ? s->gid : getegid();
  if (!s->sender.len && !user)
    cl->authenticated_sender = str_dup(m->arena, main_options(c->config)->bounce_sender_authentication);
  m->deliver_first_time = true;
  m->allow_unqualified_sender = m->allow_unqualified_recipient = true;
  m->local_error_message = !s->sender.len;
  if (s->parent && message_requires_tls(s->parent)) /* what it says of the message is as secret (RFC 8689, section 5) */
    message_set_requiretls(m);
  m->smtputf8 = s->smtputf8 || !str_is_ascii(s->sender);
  if (s->parent) {
    m->parent_id = str_dup(m->arena, str_c(s->parent->id));
    if (s->parent->queue_name.len)
      m->queue_name = str_dup(m->arena, s->parent->queue_name);
  }
  for (size_t i = 0; i < s->recipients.n; i++) {
    struct recipient r = {.address = str_dup(m->arena, s->recipients.v[i]), .errors_to = STR_UNSET, .orcpt = STR_UNSET, .parent = -1};
    vec_push(m->arena, &m->recipients, r);
    m->smtputf8 |= !str_is_ascii(r.address);
  }
  *who = (struct submitter){.login = cl->ident, .name = account.name, .uid = m->originator_uid, .gid = m->originator_gid,
      .trusted = !user || is_trusted(main_options(c->config), s->uid), .admin = !user};
  return m;
}

/* Through the ACLs for what comes in without SMTP, as all messages. */
static int receive(struct ctx *own, struct submit *s, struct message *m, const struct submitter *who, bool *ret_discarded) {
  struct receive_params p = {.dot = DOT_PLAIN, .local = true, .submitter = who, .full_name = STR_UNSET, .sender_forced = true, .qualify_headers = s->as_user,
      .bounced_id = m->parent_id};
  struct reception r;
  struct str why;
  bool discarded = false;
  receive_not_smtp_start(own);
  receive_begin(&r, own, m, &p);
  receive_push(&r, buf_str(&s->header));
  receive_push(&r, STR("\n"));
  receive_push(&r, buf_str(&s->body));
  if (s->body_fd >= 0)
    push_file(&r, s, own->arena);
  receive_push(&r, buf_str(&s->tail));
  int rc = receive_end(&r) ? -EIO : receive_not_smtp_acl(&r, &why, &discarded) ? 0 : -EPERM;
  if (!rc && !discarded) {
    receive_apply_controls(own, m);
    rc = receive_commit(&r) ? -EIO : 0;
  }
  if (rc || discarded)
    receive_abandon(&r);
  *ret_discarded = discarded;
  return rc;
}

int submit_message(struct ctx *c, struct submit *s) {
  struct submitter who;
  struct message *m = make_message(c, s, &who);
  struct ctx *own = ctx_new(m->arena, c->config);
  own->client = &m->client;
  own->message = m;
  bool discarded = false;
  int rc = s->header.overflow || s->body.overflow || s->tail.overflow ? -EMSGSIZE : receive(own, s, m, &who, &discarded);
  if (s->body_fd >= 0)
    close(s->body_fd);
  s->body_fd = -1;
  if (rc || discarded) {
    message_free(m);
    return rc;
  }
  memcpy(s->id, m->id, sizeof s->id);
  m->foreground = s->parent && s->parent->foreground;
  bool waits = main_options(c->config)->queue_only && !m->foreground && (!deliver_take_over || build.deliver_without_daemon);
  if (m->queue_only_policy)
    log_write(LOG_MAIN, m, "no immediate delivery: queued by ACL");
  if (waits || (m->queue_only_policy && !deliver_claims)) {
    message_free(m); /* it waits in the queue like all mail */
    return 0;
  }
  if (deliver_take_over && !build.deliver_without_daemon) {
    deliver_take_over(c, m);
    return 0;
  }
  struct deliver_how how = {.first = true};
  deliver_message(c, m, &how);
  message_free(m);
  return 0;
}
