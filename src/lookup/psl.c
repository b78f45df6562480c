/* psl and regdom: the public suffix of a domain, and the registered domain (the suffix and one label), from a file in the
format of the Public Suffix List. A name that is itself a suffix has no registered domain. Both results are parts of the
key in lower case, so they have its form (A-labels or U-labels). */
#include <errno.h>
#include <libpsl.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/module.h"
#include "lookup/file.h"
#include "lookup/types.h"

#define DOMAIN_MAX 1024

struct psl_file {
  psl_ctx_t *psl;
  struct lookup_stamp stamp;
};

static int psl_file_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  struct str purpose = str_printf(c->arena, "%s lookup", def->name);
  int fd = lookup_file_open(c, file, purpose.p, def->name, &st);
  if (fd < 0)
    return fd;
  close(fd);
  psl_ctx_t *psl = psl_load_file(file.p);
  if (psl == NULL || psl_suffix_count(psl) == 0) {
    psl_free(psl);
    return ctx_fail(c, OUTCOME_ERROR, "%s: %.*s is no public suffix list", def->name, STRF(file));
  }
  struct psl_file *h = xcalloc(1, sizeof *h);
  h->psl = psl;
  lookup_stamp_set(&h->stamp, &st);
  *ret = h;
  return OUTCOME_OK;
}

static void psl_file_close(void *handle) {
  struct psl_file *h = handle;
  psl_free(h->psl);
  free(h);
}

static bool psl_file_stale(void *handle, struct str file) {
  struct psl_file *h = handle;
  return lookup_stamp_changed(&h->stamp, file);
}

static int find(struct ctx *c, const struct psl_file *h, struct str key, bool registered, struct str *ret) {
  if (key.len > 0 && key.p[key.len - 1] == '.')
    key = str_slice(key, 0, key.len - 1);
  if (key.len == 0 || key.len > DOMAIN_MAX || key.p[0] == '.' || memchr(key.p, '\0', key.len))
    return OUTCOME_FAIL;
  char *lower = NULL;
  if (psl_str_to_utf8lower(str_dup_c(c->arena, key), "utf-8", NULL, &lower) != PSL_SUCCESS)
    return OUTCOME_FAIL; /* not UTF-8: no domain */
  const char *found = registered ? psl_registrable_domain(h->psl, lower) : psl_unregistrable_domain(h->psl, lower);
  if (found)
    *ret = str_dup(c->arena, str_c(found));
  psl_free_string(lower);
  return found ? OUTCOME_OK : OUTCOME_FAIL;
}

static int psl_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  return find(c, handle, key, false, ret);
}

static int regdom_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  return find(c, handle, key, true, ret);
}

static const char *runtime_version(void) { return psl_get_version(); }

static const struct library_def library = {"libpsl", PSL_VERSION, runtime_version};

const struct lookup_def lookup_psl = {.name = "psl", .flags = LOOKUP_FILE, .open = psl_file_open, .close = psl_file_close,
  .stale = psl_file_stale, .find = psl_find, .library = &library};
const struct lookup_def lookup_regdom = {.name = "regdom", .flags = LOOKUP_FILE, .open = psl_file_open,
  .close = psl_file_close, .stale = psl_file_stale, .find = regdom_find};
