#include "lookup/lsearch_file.h"

#include "base/ascii.h"
#include "base/buf.h"
#include "base/vec.h"

#define DATA_MAX (16u << 20)

static size_t line_end(struct str t, size_t at) {
  const char *nl = memchr(t.p + at, '\n', t.len - at);
  return nl ? (size_t)(nl - t.p) : t.len;
}

/* The escapes of quoted strings in the configuration (manual, "String values"). */
static size_t unescape(const char *p, size_t n, char *ret) {
  static const char from[] = "nrt", to[] = "\n\r\t";
  const char *hit = memchr(from, p[0], 3);
  if (hit && p[0]) {
    *ret = to[hit - from];
    return 1;
  }
  if (p[0] >= '0' && p[0] <= '7') {
    int v = 0;
    size_t k = 0;
    for (; k < 3 && k < n && p[k] >= '0' && p[k] <= '7'; k++)
      v = v * 8 + (p[k] - '0');
    *ret = (char)v;
    return k;
  }
  if (p[0] == 'x') {
    int v = 0;
    size_t k = 1;
    for (; k < 3 && k < n && ascii_is_xdigit(p[k]); k++)
      v = v * 16 + ascii_hex_value(p[k]);
    *ret = (char)v;
    return k;
  }
  *ret = p[0];
  return 1;
}

/* A quoted key; returns the offset behind its closing quote. */
static size_t quoted_key(struct arena *a, struct str t, size_t at, size_t end, struct str *ret) {
  char *out = arena_bytes(a, end - at + 1);
  size_t n = 0, k = at + 1;
  while (k < end && t.p[k] != '"') {
    if (t.p[k] == '\\' && k + 1 < end) {
      k++;
      k += unescape(t.p + k, end - k, &out[n++]);
    } else {
      out[n++] = t.p[k++];
    }
  }
  *ret = str_n(out, n);
  return k < end ? k + 1 : k;
}

static size_t plain_key(struct str t, size_t at, size_t end, struct str *ret) {
  size_t k = at;
  while (k < end && t.p[k] != ':' && !ascii_is_space(t.p[k]))
    k++;
  *ret = str_slice(t, at, k);
  return k;
}

static void index_items(struct lsearch_file *f) {
  f->buckets_n = 16;
  while (f->buckets_n < f->n * 2)
    f->buckets_n *= 2;
  f->buckets = arena_array(f->arena, uint32_t, f->buckets_n);
  /* From the end, so that the first of equal keys is found first. */
  for (size_t i = f->n; i-- > 0;) {
    struct lsearch_item *item = &f->v[i];
    item->hash = str_ihash(item->key);
    uint32_t *b = &f->buckets[item->hash & (f->buckets_n - 1)];
    item->next = *b;
    *b = (uint32_t)(i + 1);
  }
}

struct lsearch_file *lsearch_new(struct arena *a, struct str text) {
  if (text.len >= UINT32_MAX / 2)
    return NULL;
  struct lsearch_file *f = arena_new_of(a, struct lsearch_file);
  f->arena = a;
  f->text = text;
  return f;
}

static uint32_t read_key(struct arena *a, struct str t, size_t at, size_t end, struct str *ret) {
  return (uint32_t)(t.p[at] == '"' ? quoted_key(a, t, at, end, ret) : plain_key(t, at, end, ret));
}

static void read_items(struct lsearch_file *f) {
  struct arena *a = f->arena;
  struct str text = f->text;
  VEC(struct lsearch_item) items = {0};
  for (size_t at = 0, end; at < text.len; at = end + 1) {
    end = line_end(text, at);
    char c = at < end ? text.p[at] : '#';
    if (c == '#')
      continue;
    if (ascii_is_space(c)) {
      if (items.n > 0)
        items.v[items.n - 1].end = (uint32_t)end;
      continue;
    }
    struct lsearch_item item = {.line = (uint32_t)at, .end = (uint32_t)end};
    item.rest = read_key(a, text, at, end, &item.key);
    vec_push(a, &items, item);
  }
  f->v = items.v;
  f->n = items.n;
  index_items(f);
}

struct lsearch_file *lsearch_parse(struct arena *a, struct str text) {
  struct lsearch_file *f = lsearch_new(a, text);
  if (f != NULL)
    read_items(f);
  return f;
}

/* Can a line that begins so have this key? Most cannot. */
static bool may_be_key(struct str t, size_t at, size_t end, struct str key) {
  return t.p[at] == '"' || (end - at >= key.len && ascii_lower(t.p[at]) == ascii_lower(key.p[0]) &&
                               str_ieq(str_slice(t, at, at + key.len), key));
}

static const struct lsearch_item *scan(struct lsearch_file *f, struct str key) {
  struct str t = f->text;
  struct lsearch_item *found = NULL;
  for (size_t at = 0, end; at < t.len && key.len > 0; at = end + 1) {
    end = line_end(t, at);
    if (at == end || t.p[at] == '#')
      continue;
    if (found != NULL && !ascii_is_space(t.p[at]))
      break;
    if (found != NULL) {
      found->end = (uint32_t)end;
    } else if (!ascii_is_space(t.p[at]) && may_be_key(t, at, end, key)) {
      struct lsearch_item item = {.line = (uint32_t)at, .end = (uint32_t)end};
      item.rest = read_key(f->arena, t, at, end, &item.key);
      if (str_ieq(item.key, key))
        found = arena_memdup(f->arena, &item, sizeof item);
    }
  }
  return found;
}

const struct lsearch_item *lsearch_find(struct lsearch_file *f, struct str key) {
  if (f->buckets == NULL && !f->searched) {
    f->searched = true;
    return scan(f, key);
  }
  if (f->buckets == NULL)
    read_items(f);
  uint64_t hash = str_ihash(key);
  for (uint32_t i = f->buckets[hash & (f->buckets_n - 1)]; i; i = f->v[i - 1].next)
    if (f->v[i - 1].hash == hash && str_ieq(f->v[i - 1].key, key))
      return &f->v[i - 1];
  return NULL;
}

struct str lsearch_data(const struct lsearch_file *f, const struct lsearch_item *i, struct arena *a, bool full) {
  struct buf b;
  buf_init(&b, a, DATA_MAX);
  size_t end = line_end(f->text, i->rest);
  struct str first = str_slice(f->text, i->rest, end);
  if (full) {
    buf_add(&b, i->key);
    buf_add(&b, str_rtrim(first));
  } else {
    first = str_ltrim(first);
    if (first.len > 0 && first.p[0] == ':')
      first = str_ltrim(str_from(first, 1));
    buf_add(&b, str_rtrim(first));
  }
  while (end < i->end) {
    size_t at = end + 1;
    end = line_end(f->text, at);
    struct str line = str_slice(f->text, at, end);
    struct str trimmed = str_trim(line);
    if (trimmed.len == 0 || line.p[0] == '#')
      continue;
    buf_add_byte(&b, ' ');
    buf_add(&b, trimmed);
  }
  return str_untainted(buf_str(&b));
}
