/* The reader on arbitrary text; what it accepts is printed back too. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include "base/arena.h"
#include "config/config.h"
#include "config/print.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In place of the C library's: the machine's accounts have no part in this, and asking for them takes longer than all else. */
int getpwnam_r(const char *name, struct passwd *pw, char *buffer, size_t size, struct passwd **ret) {
  *pw = (struct passwd){.pw_name = buffer, .pw_dir = buffer, .pw_shell = buffer, .pw_gecos = buffer, .pw_passwd = buffer, .pw_uid = 8,
      .pw_gid = 8};
  buffer[0] = 0;
  *ret = name[0] == 'x' ? NULL : pw;
  return *ret ? 0 : ENOENT;
}

int getgrnam_r(const char *name, struct group *gr, char *buffer, size_t size, struct group **ret) {
  *gr = (struct group){.gr_name = buffer, .gr_passwd = buffer, .gr_gid = 8};
  buffer[0] = 0;
  *ret = name[0] == 'x' ? NULL : gr;
  return *ret ? 0 : ENOENT;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static FILE *null;
  if (null == NULL)
    null = fopen("/dev/null", "w");
  struct arena *a = arena_new("fuzz");
  /* A copy of its own, so that reading past the end is noticed. */
  struct str text = {arena_memdup(a, data, size), (uint32_t)size, 0};
  struct config_source source = {.paths = STR("fuzz"), .text = text, .no_files = true};
  struct config *c;
  struct str errors = STR_EMPTY;
  if (config_read(&source, a, &c, &errors) == 0) {
    const struct config_print p = {.out = null, .admin = true};
    const struct str names[] = {STR("all"), STR("config"), STR("routers"), STR("transports"), STR("macros")};
    (void)config_print(&p, c, names, sizeof names / sizeof *names);
  }
  arena_free(a);
  return 0;
}
