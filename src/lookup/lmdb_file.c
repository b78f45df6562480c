#include "lookup/lmdb_file.h"

#include <stddef.h>
#include <string.h>
#include "base/arena.h"

#define MAGIC 0xBEEFC0DEu
#define VERSION 1u
#define PAGE_MIN 256u
#define PAGE_MAX 65536u
#define DEPTH_MAX 32
#define TRIES 20
#define NO_ROOT ((size_t)-1)

enum page_flag { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_FIXED = 0x20 };
enum node_flag { NODE_BIG = 1, NODE_DATABASE = 2, NODE_MANY = 4 };
enum db_flag { DB_REVERSE_KEYS = 2, DB_INTEGER_KEYS = 8 };

/* What is on disk, in the machine's own sizes and byte order. */
struct header {
  size_t number;
  uint16_t pad, flags, lower, upper;
};

struct database {
  uint32_t pad;
  uint16_t flags, depth;
  size_t pages[3], entries, root;
};

struct meta {
  uint32_t magic, version;
  uintptr_t address;
  size_t map_size;
  struct database free, main;
  size_t last_page, transaction;
};

#define HEADER_SIZE sizeof(struct header)
#define NODE_SIZE 8u

struct node {
  struct str key;
  uint32_t low;   /* length of the data; of a branch, with `flags` its page */
  unsigned flags;
  const char *data; /* as much of it as the page holds, which is at least `room` */
  size_t room;
};

struct reader {
  const struct lmdb_source *source;
  struct arena *arena;
  struct meta meta;
  size_t page_size;
  char *page; /* the one read last */
};

static enum lmdb_result read_meta(const struct lmdb_source *s, uint64_t page, struct meta *ret) {
  if (!s->read(s->arg, ret, sizeof *ret, page + HEADER_SIZE))
    return LMDB_TRUNCATED;
  return ret->magic != MAGIC ? LMDB_FOREIGN : ret->version != VERSION ? LMDB_OTHER_VERSION : LMDB_FOUND;
}

/* The younger one of the two. */
static enum lmdb_result read_metas(const struct lmdb_source *s, struct meta *ret) {
  struct meta second;
  enum lmdb_result r = s->size(s->arg) < HEADER_SIZE + sizeof *ret ? LMDB_FOREIGN : read_meta(s, 0, ret);
  if (r != LMDB_FOUND)
    return r;
  size_t page_size = ret->free.pad;
  if (page_size < PAGE_MIN || page_size > PAGE_MAX || (page_size & (page_size - 1)) != 0)
    return LMDB_DAMAGED;
  if ((r = read_meta(s, page_size, &second)) != LMDB_FOUND)
    return r == LMDB_FOREIGN ? LMDB_DAMAGED : r;
  if (second.free.pad != page_size)
    return LMDB_DAMAGED;
  if (second.transaction > ret->transaction)
    *ret = second;
  return s->size(s->arg) / page_size <= ret->last_page ? LMDB_TRUNCATED : LMDB_FOUND;
}

static enum lmdb_result read_page(struct reader *r, size_t number, struct header *h) {
  if (number > r->meta.last_page)
    return LMDB_DAMAGED;
  if (!r->source->read(r->source->arg, r->page, r->page_size, (uint64_t)number * r->page_size))
    return LMDB_TRUNCATED;
  memcpy(h, r->page, sizeof *h);
  return h->number == number ? LMDB_FOUND : LMDB_DAMAGED;
}

/* The number of nodes of a page (or of one inside of a node) of this size; -1: it cannot be. */
static int count_nodes(const struct header *h, size_t size) {
  return h->lower < HEADER_SIZE || h->lower > size || h->upper < h->lower || h->upper > size ? -1
    : (int)((h->lower - HEADER_SIZE) / 2);
}

static bool take_node(const char *page, size_t size, int i, struct node *ret) {
  uint16_t at, words[4];
  memcpy(&at, page + HEADER_SIZE + (size_t)i * 2, sizeof at);
  if (at < HEADER_SIZE || at + NODE_SIZE > size)
    return false;
  memcpy(words, page + at, sizeof words);
  size_t key = words[3], left = size - at - NODE_SIZE;
  if (key > left)
    return false;
  ret->key = str_n(page + at + NODE_SIZE, key);
  ret->low = words[0] | (uint32_t)words[1] << 16;
  ret->flags = words[2];
  ret->data = ret->key.p + key;
  ret->room = left - key;
  return true;
}

static int compare(unsigned flags, struct str a, struct str b) {
  size_t n = a.len < b.len ? a.len : b.len;
  int d = 0;
  if (!(flags & DB_REVERSE_KEYS))
    d = memcmp(a.p, b.p, n);
  for (size_t i = 1; i <= n && d == 0 && (flags & DB_REVERSE_KEYS); i++)
    d = (unsigned char)a.p[a.len - i] - (unsigned char)b.p[b.len - i];
  return d ? d : a.len < b.len ? -1 : a.len > b.len;
}

/* The last node whose key is not behind this one, -1: there is none, -2: damaged. A branch's first key counts as the lowest. */
static int search(struct reader *r, unsigned flags, struct str key, int nodes, bool branch, struct node *ret) {
  int low = branch ? 1 : 0, high = nodes - 1;
  while (low <= high) {
    int middle = (low + high) / 2;
    if (!take_node(r->page, r->page_size, middle, ret))
      return -2;
    if (compare(flags, ret->key, key) <= 0)
      low = middle + 1;
    else
      high = middle - 1;
  }
  if (high < 0)
    return -1;
  return take_node(r->page, r->page_size, high, ret) ? high : -2;
}

/* The leaf's node with this key (unset: its first one), in the page that was read last. */
static enum lmdb_result descend(struct reader *r, const struct database *db, struct str key, struct node *ret) {
  size_t number = db->root;
  if (number == NO_ROOT)
    return LMDB_NOT_FOUND;
  for (int depth = 0; depth < DEPTH_MAX; depth++) {
    struct header h;
    enum lmdb_result e = read_page(r, number, &h);
    if (e != LMDB_FOUND)
      return e;
    int nodes = count_nodes(&h, r->page_size);
    bool branch = h.flags & PAGE_BRANCH;
    if (nodes < 1 || branch == (bool)(h.flags & PAGE_LEAF))
      return LMDB_DAMAGED;
    if (h.flags & PAGE_FIXED) { /* values of one length, without nodes */
      if (str_is_set(key) || branch || h.pad > r->page_size - HEADER_SIZE)
        return LMDB_DAMAGED;
      *ret = (struct node){.key = str_n(r->page + HEADER_SIZE, h.pad)};
      return LMDB_FOUND;
    }
    int at = !str_is_set(key) ? (take_node(r->page, r->page_size, 0, ret) ? 0 : -2)
      : search(r, db->flags, key, nodes, branch, ret);
    if (at == -2)
      return LMDB_DAMAGED;
    if (!branch)
      return at < 0 || (str_is_set(key) && !str_eq(ret->key, key)) ? LMDB_NOT_FOUND : LMDB_FOUND;
    number = (size_t)ret->low | (sizeof number > 4 ? (size_t)((uint64_t)ret->flags << 32) : 0);
  }
  return LMDB_DAMAGED;
}

static bool take_database(const struct node *n, struct database *ret) {
  if (n->low < sizeof *ret || n->room < sizeof *ret)
    return false;
  memcpy(ret, n->data, sizeof *ret);
  return true;
}

/* In the text a NUL would end what others see of it. */
static enum lmdb_result finish(struct reader *r, char *p, size_t n, struct str *ret) {
  for (size_t i = 0; i < n; i++)
    p[i] = p[i] ? p[i] : '?';
  p[n] = '\0';
  *ret = str_n(p, n);
  return LMDB_FOUND;
}

static enum lmdb_result copy(struct reader *r, struct str value, size_t max, struct str *ret) {
  if (value.len > max)
    return LMDB_TOO_LONG;
  char *p = arena_bytes(r->arena, (size_t)value.len + 1);
  memcpy(p, value.p, value.len);
  return finish(r, p, value.len, ret);
}

/* Data that fills pages of its own, behind the header of the first. */
static enum lmdb_result copy_big(struct reader *r, const struct node *n, size_t max, struct str *ret) {
  size_t number;
  if (n->room < sizeof number)
    return LMDB_DAMAGED;
  if (n->low > max)
    return LMDB_TOO_LONG;
  memcpy(&number, n->data, sizeof number);
  size_t length = n->low;
  struct header h;
  enum lmdb_result e = read_page(r, number, &h);
  if (e != LMDB_FOUND)
    return e;
  uint64_t at = (uint64_t)number * r->page_size + HEADER_SIZE;
  if (!(h.flags & PAGE_OVERFLOW) || at + length > ((uint64_t)r->meta.last_page + 1) * r->page_size)
    return LMDB_DAMAGED;
  char *p = arena_bytes(r->arena, length + 1);
  if (!r->source->read(r->source->arg, p, length, at))
    return LMDB_TRUNCATED;
  return finish(r, p, length, ret);
}

/* The first of several values: they are the keys of a page inside of the node, or of a tree. */
static enum lmdb_result copy_first(struct reader *r, const struct node *n, size_t max, struct str *ret) {
  struct node first;
  if (n->flags & NODE_DATABASE) {
    struct database tree;
    if (!take_database(n, &tree))
      return LMDB_DAMAGED;
    enum lmdb_result e = descend(r, &tree, STR_UNSET, &first);
    return e == LMDB_FOUND ? copy(r, first.key, max, ret) : LMDB_DAMAGED;
  }
  struct header h;
  if (n->low < sizeof h || n->low > n->room)
    return LMDB_DAMAGED;
  memcpy(&h, n->data, sizeof h);
  if (count_nodes(&h, n->low) < 1)
    return LMDB_DAMAGED;
  if (h.flags & PAGE_FIXED)
    return h.pad > n->low - HEADER_SIZE ? LMDB_DAMAGED : copy(r, str_n(n->data + HEADER_SIZE, h.pad), max, ret);
  return take_node(n->data, n->low, 0, &first) ? copy(r, first.key, max, ret) : LMDB_DAMAGED;
}

static enum lmdb_result get(struct reader *r, struct str name, struct str key, size_t max, struct str *ret) {
  struct database db = r->meta.main;
  struct node n;
  enum lmdb_result e;
  if (str_is_set(name)) {
    e = name.len == 0 || name.len > LMDB_KEY_MAX ? LMDB_NOT_FOUND : descend(r, &db, name, &n);
    if (e == LMDB_NOT_FOUND || (e == LMDB_FOUND && (n.flags & (NODE_DATABASE | NODE_MANY)) != NODE_DATABASE))
      return LMDB_NO_DATABASE;
    if (e != LMDB_FOUND)
      return e;
    if (!take_database(&n, &db))
      return LMDB_DAMAGED;
  }
  if (db.flags & DB_INTEGER_KEYS)
    return LMDB_INTEGER_KEYS;
  if ((e = descend(r, &db, key, &n)) != LMDB_FOUND)
    return e;
  if (n.flags & NODE_MANY)
    return copy_first(r, &n, max, ret);
  if (n.flags & NODE_DATABASE)
    return LMDB_NOT_FOUND; /* the key is the name of a database */
  if (n.flags & NODE_BIG)
    return copy_big(r, &n, max, ret);
  return n.low > n.room ? LMDB_DAMAGED : copy(r, str_n(n.data, n.low), max, ret);
}

enum lmdb_result lmdb_file_check(struct arena *a, const struct lmdb_source *s) {
  struct meta meta;
  return read_metas(s, &meta);
}

/* Pages of a transaction are not written again before the next one is complete: what was read is right if it still is the
last one, and is read again if not. */
enum lmdb_result lmdb_file_get(struct arena *a, const struct lmdb_source *s, struct str db, struct str key, size_t max,
    struct str *ret) {
  struct reader r = {.source = s, .arena = a};
  if (key.len == 0 || key.len > LMDB_KEY_MAX)
    return LMDB_NOT_FOUND;
  for (int i = 0; i < TRIES; i++) {
    struct meta after;
    enum lmdb_result e = read_metas(s, &r.meta);
    if (e != LMDB_FOUND)
      return e;
    if (r.page == NULL || r.page_size != r.meta.free.pad) {
      r.page_size = r.meta.free.pad;
      r.page = arena_bytes(a, r.page_size);
    }
    e = get(&r, db, key, max, ret);
    if (read_metas(s, &after) == LMDB_FOUND && after.transaction == r.meta.transaction)
      return e;
  }
  return LMDB_CHANGING;
}

const char *lmdb_file_text(enum lmdb_result r) {
  static const char *const texts[] = {
    [LMDB_NO_DATABASE] = "no such database", [LMDB_FOREIGN] = "not an LMDB file",
    [LMDB_OTHER_VERSION] = "another version of LMDB's format", [LMDB_TRUNCATED] = "file is truncated",
    [LMDB_DAMAGED] = "file is damaged", [LMDB_CHANGING] = "file keeps changing", [LMDB_TOO_LONG] = "data too long",
    [LMDB_INTEGER_KEYS] = "its keys are integers"};
  return texts[r];
}
