/* cdb: constant databases (manual, "Single-key lookup types"). The format:
256 pairs (position, slots) of little-endian 32-bit words, then records, then
the hash tables. All positions come from the file and are checked by pread. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/fd_io.h"
#include "lookup/file.h"
#include "lookup/types.h"

#define HEADER_SIZE 2048u
#define DATA_MAX (16u << 20)
#define PURPOSE "cdb lookup"

struct cdb {
  int fd;
  uint32_t header[512];
  struct lookup_stamp stamp;
};

static uint32_t word(const unsigned char *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool read_at(int fd, void *to, size_t n, uint64_t at) { return fd_pread_all(fd, to, n, (off_t)at) == (ssize_t)n; }

static bool read_words(int fd, uint32_t *to, size_t n, uint64_t at) {
  unsigned char raw[HEADER_SIZE];
  if (n * 4 > sizeof raw || !read_at(fd, raw, n * 4, at))
    return false;
  for (size_t i = 0; i < n; i++)
    to[i] = word(raw + i * 4);
  return true;
}

static int cdb_open(struct ctx *c, const struct lookup_def *def, struct str file, void **ret) {
  struct stat st;
  int fd = lookup_file_open(c, file, PURPOSE, "cdb", &st);
  if (fd < 0)
    return fd;
  struct cdb *db = xcalloc(1, sizeof *db);
  db->fd = fd;
  if (!read_words(fd, db->header, 512, 0)) {
    close(fd);
    free(db);
    return ctx_fail(c, OUTCOME_ERROR, "cdb: file %.*s is too short", STRF(file));
  }
  lookup_stamp_set(&db->stamp, &st);
  *ret = db;
  return OUTCOME_OK;
}

static void cdb_close(void *handle) {
  struct cdb *db = handle;
  close(db->fd);
  free(db);
}

static bool cdb_stale(void *handle, struct str file) {
  struct cdb *db = handle;
  return lookup_stamp_changed(&db->stamp, file);
}

static uint32_t cdb_hash(struct str key) {
  uint32_t h = 5381;
  for (size_t i = 0; i < key.len; i++)
    h = (h + (h << 5)) ^ (unsigned char)key.p[i];
  return h;
}

/* The record at `at`, if its key is this one. OUTCOME_ERROR: the file is damaged. */
static int read_record(struct ctx *c, const struct cdb *db, uint64_t at, struct str key, struct str *ret) {
  uint32_t sizes[2];
  if (!read_words(db->fd, sizes, 2, at))
    return OUTCOME_ERROR;
  if (sizes[0] != key.len)
    return OUTCOME_FAIL;
  char *text = arena_bytes(c->arena, (size_t)key.len + 1);
  if (!read_at(db->fd, text, key.len, at + 8))
    return OUTCOME_ERROR;
  if (memcmp(text, key.p, key.len) != 0)
    return OUTCOME_FAIL;
  if (sizes[1] > DATA_MAX)
    return OUTCOME_ERROR;
  char *data = arena_bytes(c->arena, (size_t)sizes[1] + 1);
  if (!read_at(db->fd, data, sizes[1], at + 8 + key.len))
    return OUTCOME_ERROR;
  data[sizes[1]] = '\0';
  *ret = str_n(data, sizes[1]);
  return OUTCOME_OK;
}

static int cdb_find(struct ctx *c, const struct lookup_def *def, void *handle, struct str file, struct str key,
    struct str options, struct str *ret, int *ret_seconds) {
  const struct cdb *db = handle;
  uint32_t hash = cdb_hash(key);
  uint32_t table = db->header[(hash & 255) * 2], slots = db->header[(hash & 255) * 2 + 1];
  for (uint32_t i = 0; i < slots; i++) {
    uint32_t slot[2];
    uint32_t n = ((hash >> 8) + i) % slots;
    int r = read_words(db->fd, slot, 2, (uint64_t)table + (uint64_t)n * 8) ? OUTCOME_FAIL : OUTCOME_ERROR;
    if (r == OUTCOME_FAIL && slot[1] == 0)
      return OUTCOME_FAIL;
    if (r == OUTCOME_FAIL && slot[0] == hash)
      r = read_record(c, db, slot[1], key, ret);
    if (r == OUTCOME_OK)
      return r;
    if (r == OUTCOME_ERROR)
      return ctx_fail(c, OUTCOME_DEFER, "cdb: file %.*s is damaged", STRF(file));
  }
  return OUTCOME_FAIL;
}

const struct lookup_def lookup_cdb = {
  .name = "cdb", .flags = LOOKUP_FILE, .open = cdb_open, .close = cdb_close, .stale = cdb_stale, .find = cdb_find};
