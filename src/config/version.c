#include "config/version.h"

#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>
#include "base/buf.h"
#include "config/config.h"
#include "core/build.h"
#include "core/module.h"
#include "lookup/lookup.h"

struct str config_version_support(struct arena *a) {
  struct buf b;
  buf_init(&b, a, 16u << 10);
  for (size_t m = 0; modules[m] != NULL; m++)
    if (modules[m]->support != NULL && *modules[m]->support != 0)
      buf_printf(&b, " %s", modules[m]->support);
  return buf_str(&b);
}

static void print_lookups(FILE *out) {
  fputs("Lookups (built-in):", out);
  for (size_t m = 0; modules[m] != NULL; m++)
    for (const struct lookup_def *const *d = modules[m]->lookups; d != NULL && *d != NULL; d++)
      if (!((*d)->flags & LOOKUP_LATER))
        fprintf(out, " %s", (*d)->name);
  fputc('\n', out);
}

static int compare_drivers(const void *a, const void *b) {
  return strcmp((*(const struct driver_def *const *)a)->name, (*(const struct driver_def *const *)b)->name);
}

static void print_drivers(FILE *out, const char *title, enum driver_class class) {
  const struct driver_def *found[200];
  size_t n = 0;
  for (size_t m = 0; modules[m] != NULL; m++)
    for (const struct driver_def *const *d = modules[m]->drivers; d != NULL && *d != NULL && n < 200; d++)
      if ((*d)->class == class && !(*d)->later)
        found[n++] = *d;
  qsort(found, n, sizeof *found, compare_drivers);
  fprintf(out, "%s (built-in):", title);
  for (size_t i = 0; i < n; i++)
    fprintf(out, " %s%s%s", found[i]->name, found[i]->subtypes == NULL ? "" : "/",
        found[i]->subtypes == NULL ? "" : found[i]->subtypes);
  fputc('\n', out);
}

static void print_scanners(FILE *out) {
  fputs("Malware:", out);
  for (size_t m = 0; modules[m] != NULL; m++)
    for (const char *const *name = modules[m]->scanners; name != NULL && *name != NULL; name++)
      fprintf(out, " %s", *name);
  fputc('\n', out);
}

static void print_library(FILE *out, const struct library_def *l) {
  const char *runtime = l->runtime();
  int indent = (int)(strlen("Library version: ") + strlen(l->name));
  fprintf(out, "Library version: %s: Compile: %s\n%*s  Runtime: %s\n", l->name, l->compile, indent, "",
      runtime == NULL ? "not found" : runtime);
}

static void print_libraries(FILE *out) {
  for (size_t m = 0; modules[m] != NULL; m++) {
    for (const struct library_def *l = modules[m]->libraries; l != NULL && l->name != NULL; l++)
      print_library(out, l);
    for (const struct lookup_def *const *d = modules[m]->lookups; d != NULL && *d != NULL; d++)
      if ((*d)->library != NULL)
        print_library(out, (*d)->library);
  }
}

void config_version_print(FILE *out, bool process) {
  struct arena *a = arena_new("version");
  struct str support = config_version_support(a);
  fprintf(out, "Martlet version %s%s%s", build.version, *build.variant != 0 ? " " : "", build.variant);
  if (process)
    fprintf(out, " uid=%ld gid=%ld pid=%ld", (long)getuid(), (long)getgid(), (long)getpid());
  fprintf(out, "\n");
  fprintf(out, "Support for:%.*s\n", STRF(support));
  print_lookups(out);
  print_drivers(out, "Authenticators", DRIVER_AUTHENTICATOR);
  print_drivers(out, "Routers", DRIVER_ROUTER);
  print_drivers(out, "Transports", DRIVER_TRANSPORT);
  print_scanners(out);
  fputs("Fixed never_users: 0\n", out);
  fprintf(out, "Size of off_t: %zu\n", sizeof(off_t));
  if (process)
    print_libraries(out);
  arena_free(a);
}

void config_version_print_file(FILE *out, const struct config *c) {
  struct str rest = str_c(build.config_path);
  bool searched = false; /* a file of -C was not searched for */
  while (str_is_set(rest) && c->files.n > 0)
    searched |= str_eq(str_cut(&rest, ':'), c->files.v[0]);
  if (searched && strchr(build.config_path, ':') != NULL)
    fprintf(out, "Configuration file search path is %s\n", build.config_path);
  if (c->files.n > 0)
    fprintf(out, "Configuration file is %.*s\n", STRF(c->files.v[0]));
}
