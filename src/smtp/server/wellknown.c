/* WELLKNOWN (Internet Draft; acl_smtp_wellknown, control = wellknown/FILE): hands out small files such as security.txt. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/encode.h"
#include "base/fd_io.h"
#include "smtp/server/internal.h"
#include "smtp/server/wellknown.h"

#define FILE_MAX (64 << 10)
#define LINE_TEXT 70

static int read_all(struct ctx *c, int fd, struct str *ret) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  if (!S_ISREG(st.st_mode) || st.st_size == 0)
    return -EINVAL;
  if (st.st_size > FILE_MAX)
    return -EFBIG;
  char *p = arena_bytes(c->arena, (size_t)st.st_size);
  ssize_t n = fd_read_all(fd, p, (size_t)st.st_size);
  *ret = str_n(p, n > 0 ? (size_t)n : 0);
  return n < 0 ? (int)n : n == 0 ? -EINVAL : 0;
}

int smtp_control_wellknown(struct ctx *c, struct str option) {
  struct smtp_session *s = (struct smtp_session *)c->session;
  if (!s || option.len == 0)
    return ctx_fail(c, OUTCOME_ERROR, "wellknown control needs a file");
  if (str_is_tainted(option))
    return ctx_fail(c, OUTCOME_ERROR, "Tainted filename '%.*s' for wellknown", STRF(option));
  int fd = open(str_dup_c(c->arena, option), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  int rc = fd < 0 ? -errno : read_all(c, fd, &s->wellknown);
  if (fd >= 0)
    close(fd);
  return rc < 0 ? ctx_fail(c, OUTCOME_ERROR, "wellknown: cannot read \"%.*s\": %s", STRF(option), strerror(-rc)) : OUTCOME_OK;
}

enum smtp_next smtp_verb_wellknown(struct smtp_session *s, struct str args) {
  struct ctx *c = s->c;
  s->wellknown = STR_UNSET;
  enum acl_result r = smtp_acl(s, ACL_WELLKNOWN, &s->o->acl_smtp_wellknown, ACL_FAIL);
  if (r != ACL_OK)
    return smtp_acl_refused(s, ACL_WELLKNOWN, r, str_printf(c->arena, "WELLKNOWN %.*s", STRF(args)));
  if (!str_is_set(s->wellknown)) {
    smtp_say(s, "504 nothing is known by that name");
    return SMTP_GO_ON;
  }
  struct str text = xtext_encode(c->arena, s->wellknown);
  smtp_say(s, "250-SIZE=%u", (unsigned)s->wellknown.len);
  while (text.len > LINE_TEXT) {
    /* A line break inside of "+XX" would do no harm, but is ugly. */
    size_t n = LINE_TEXT;
    n -= text.p[n - 1] == '+' ? 1 : text.p[n - 2] == '+' ? 2 : 0;
    smtp_say(s, "250-%.*s", STRF(str_slice(text, 0, n)));
    text = str_from(text, n);
  }
  smtp_say(s, "250 %.*s", STRF(text));
  s->wellknown = STR_UNSET;
  return SMTP_GO_ON;
}
