/* Who may be asked for: the names of private keys' files in a configuration. And the ends of the keys process's sockets. */
#include "daemon/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd_pass.h"
#include "core/main_options.h"
#include "daemon/options.h"
#include "loop/child.h"
#include "mailauth/sign.h"
#include "smtp/client/options.h"
#include "tls/keys.h"
#include "tls/keys_store.h"

#define SOCKET_BYTES (1 << 20)

struct teller {
  int control, error;
};

static int say(int control, char what, struct str name, int fd, int flags) {
  struct iovec parts[2] = {{&what, 1}, {(void *)(uintptr_t)name.p, name.len}};
  return fd_pass_send(control, parts, 2, &fd, fd >= 0, flags);
}

static void tell(void *arg, struct str name, bool prefix) {
  struct teller *t = arg;
  if (t->error == 0 && name.len <= KEYS_NAME_MAX)
    t->error = say(t->control, prefix ? KEYS_ALLOW_PREFIX : KEYS_ALLOW_FILE, name, -1, 0);
}

static void tell_list(struct teller *t, struct str list) {
  while (str_is_set(list)) {
    struct str item = str_trim(str_cut(&list, ':'));
    if (item.len)
      tell(t, item, item.p[item.len - 1] == '/');
  }
}

/* Calls fn for the text of each option that names private keys. */
static void each_option(const struct config *c, void (*fn)(void *arg, const struct instance *i, const char *name, const struct option_expr *e),
    void *arg) {
  fn(arg, NULL, "tls_privatekey", &main_options(c)->tls_privatekey);
  for (const struct instance *i = c->drivers[DRIVER_TRANSPORT]; i; i = i->next) {
    if (!str_eq_c(str_c(i->driver->name), "smtp"))
      continue;
    fn(arg, i, "tls_privatekey", &smtp_client_options(i)->tls_privatekey);
    struct sign_key_option v[SIGN_KEY_OPTIONS];
    size_t n = sign_key_options(i, v);
    for (size_t k = 0; k < n; k++)
      fn(arg, i, v[k].name, v[k].expr);
  }
}

static void tell_option(void *arg, const struct instance *i, const char *name, const struct option_expr *e) { keys_names_in(e->text, tell, arg); }

int keys_tell_names(const struct config *c, int control) {
  struct teller t = {.control = control};
  each_option(c, tell_option, &t);
  tell_list(&t, daemon_options(c)->key_isolation_files);
  return t.error ? t.error : say(control, KEYS_BEGIN, STR_EMPTY, -1, 0);
}

int keys_make_channel(int control) {
  int pair[2], size = SOCKET_BYTES;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return -errno;
  for (int i = 0; i < 2; i++)
    setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  int e = say(control, KEYS_CHANNEL, STR_EMPTY, pair[1], MSG_DONTWAIT);
  close(pair[1]);
  if (e) {
    close(pair[0]);
    return e;
  }
  return pair[0];
}

/* --- a one-shot command's own --- */

static int start_own(void *arg) {
  const struct config *c = arg;
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return -errno;
  char *argv[] = {(char *)"martlet", (char *)KEYS_ARGUMENT, NULL};
  struct child_spec spec = {.path = "/proc/self/exe", .argv = argv, .envp = NULL, .stdin_fd = pair[1], .stdout_fd = -2, .stderr_fd = -2, .umask = 077};
  struct child child;
  int e = child_start(&spec, &child), fd = -EPIPE;
  close(pair[1]);
  if (e == 0) {
    child_release(&child);
    e = keys_tell_names(c, pair[0]);
  }
  if (e == 0)
    fd = keys_make_channel(pair[0]);
  close(pair[0]);
  return e ? e : fd;
}

void keys_use_own(const struct config *c) { keys_isolate(start_own, (void *)(uintptr_t)c); }

/* --- the configuration --- */

static void check_option(void *arg, const struct instance *i, const char *name, const struct option_expr *e) {
  struct config_reader *r = arg;
  struct str text = str_trim(e->text);
  bool off = !str_is_set(e->text) || text.len == 0 || str_eq_c(text, "0") || str_ieq_c(text, "false");
  bool file = str_find_byte(text, '/') >= 0 || str_find_byte(text, '$') >= 0;
  if (off || (file && str_find(text, STR("-----BEGIN")) < 0))
    return;
  (void)config_error_at(r, e->where, "%s%s%.*s: with key_isolation a private key must be in a file", name, i ? " of transport " : "",
      i ? (int)i->name.len : 0, i ? i->name.p : "");
}

int keys_check_config(struct config_reader *r) {
  const struct config *c = config_reader_config(r);
  const struct main_options *o = main_options(c);
  each_option(c, check_option, r);
  if (str_trim(o->tls_certificate.text).len && !str_trim(o->tls_privatekey.text).len)
    return config_error_at(r, o->tls_certificate.where, "key_isolation needs tls_privatekey: the file of tls_certificate is read by workers");
  for (const struct instance *i = c->drivers[DRIVER_TRANSPORT]; i; i = i->next) {
    const struct smtp_client_options *s = str_eq_c(str_c(i->driver->name), "smtp") ? smtp_client_options(i) : NULL;
    if (s && str_trim(s->tls_certificate.text).len && !str_trim(s->tls_privatekey.text).len)
      return config_error_at(r, i->where, "key_isolation needs tls_privatekey in the %.*s transport: the file of tls_certificate is read by workers",
          STRF(i->name));
  }
  return 0;
}
