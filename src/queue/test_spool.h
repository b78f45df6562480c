/* For unit tests: a spool of their own, and a context with a configuration that says next to nothing. */
#pragma once

#include <stdlib.h>
#include "base/test.h"
#include "base/test_tree.h"
#include "config/config.h"
#include "core/ctx.h"
#include "queue/spool_internal.h"

static char root[64];
static struct arena *arena;
static struct ctx *ctx;

static int test_spool_open(const char *name) {
  struct str errors;
  struct config *config;
  struct config_source s = {.paths = STR("test"), .text = STR("primary_hostname = me.test\n")};
  snprintf(root, sizeof root, "%s/%s.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
  if (!mkdtemp(root))
    return -1;
  arena = arena_new("test");
  if (config_read(&s, arena, &config, &errors))
    return -1;
  ctx = ctx_new(arena, config);
  return spool_open_root(str_c(root), false, false, 0, 0);
}

static int test_spool_remove(void **state) {
  spool_close();
  arena_free(arena);
  return test_tree_remove(root);
}
