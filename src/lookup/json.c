/* json: an element of a JSON file, chosen by a list of names and numbers (manual, "Single-key lookup types"). The file is
read once and kept until it changes. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/module.h"
#include "lookup/file.h"
#include "lookup/types.h"
#include "match/match.h"

#define PURPOSE "json lookup"
#define FILE_MAX (64 << 20)

struct json_file {
  json_t *root;
  struct lookup_stamp stamp;
};

struct source {
  int fd;
  int error;
  size_t left;
};

static size_t read_some(void *to, size_t n, void *arg) {
  struct source *s = arg;
  if (n > s->left)
    n = s->left;
  ssize_t k;
  do
    k = read(s->fd, to, n);
  while (k < 0 && errno == EINTR);
  if (k < 0) {
    s->error = errno;
    return (size_t)-1;
  }
  s->left -= (size_t)k;
  return (size_t)k;
}

static int json_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  int fd = lookup_file_open(c, file, PURPOSE, "json", &st);
  if (fd < 0)
    return fd;
  struct source source = {.fd = fd, .left = FILE_MAX};
  json_error_t error;
  json_t *root = json_load_callback(read_some, &source, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
  close(fd);
  if (root == NULL && source.error)
    return lookup_open_failed(c, file, PURPOSE, source.error);
  if (root == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "json: %.*s line %d: %s", STRF(file), error.line, error.text);
  struct json_file *h = xcalloc(1, sizeof *h);
  h->root = root;
  lookup_stamp_set(&h->stamp, &st);
  *ret = h;
  return OUTCOME_OK;
}

static void json_close(void *handle) {
  struct json_file *h = handle;
  json_decref(h->root);
  free(h);
}

static bool json_stale(void *handle, struct str file) {
  struct json_file *h = handle;
  return lookup_stamp_changed(&h->stamp, file);
}

/* A number chooses from an array, anything else from an object. */
static const json_t *select_element(const json_t *from, struct str selector) {
  uint64_t n;
  if (str_to_u64(selector, &n))
    return json_is_array(from) && n < json_array_size(from) ? json_array_get(from, (size_t)n) : NULL;
  return json_is_object(from) ? json_object_getn(from, selector.p, selector.len) : NULL;
}

static int json_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  const struct json_file *h = handle;
  const json_t *at = h->root;
  struct list_iter i;
  struct str selector;
  list_iter_init(&i, c->arena, key);
  while (list_next(&i, &selector))
    if ((at = select_element(at, selector)) == NULL)
      return OUTCOME_FAIL;
  if (json_is_string(at)) {
    *ret = str_dup(c->arena, str_n(json_string_value(at), json_string_length(at)));
    return OUTCOME_OK;
  }
  char *text = json_dumps(at, JSON_ENCODE_ANY);
  if (text == NULL)
    return ctx_fail(c, OUTCOME_DEFER, "json: element cannot be written");
  *ret = str_dup(c->arena, str_c(text));
  free(text);
  return OUTCOME_OK;
}

static const char *runtime_version(void) { return jansson_version_str(); }

static const struct library_def library = {"Jansson", JANSSON_VERSION, runtime_version};

const struct lookup_def lookup_json = {
  .name = "json", .flags = LOOKUP_FILE, .open = json_open, .close = json_close, .stale = json_stale, .find = json_find, .library = &library};
