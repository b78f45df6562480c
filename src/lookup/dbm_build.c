#include "lookup/dbm_build.h"

#include <db.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/ascii.h"
#include "base/buf.h"

/* As in Exim's tool. */
#define LINE_MAX_LENGTH 19999u
#define ITEM_MAX_LENGTH 99999u
#define KEY_MAX_LENGTH 256u

struct build {
  struct arena *arena;
  bool keep_case, no_zero, no_warning, last_wins, duplicates_are_fine;
  DB *db;
  struct buf key, data;
  bool any; /* an item is being read */
  int count, duplicates, status;
};

static int give_up(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int give_up(const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vfprintf(stderr, fmt, ap);
  va_end(ap);
  return 2;
}

static int abandon(const char *what, unsigned max) {
  printf("%s: max permitted length is %u\ndbmbuild abandoned\n", what, max);
  return 2;
}

/* The item that has been read, into the file. */
static int store(struct build *b) {
  if (!b->any)
    return 0;
  b->any = false;
  while (b->data.len > 0 && ascii_is_space(b->data.p[b->data.len - 1]))
    buf_truncate(&b->data, b->data.len - 1);
  if (!b->no_zero) {
    buf_add_byte(&b->key, '\0');
    buf_add_byte(&b->data, '\0');
  }
  DBT k = {.data = b->key.p, .size = (uint32_t)b->key.len}, v = {.data = b->data.p, .size = (uint32_t)b->data.len};
  int e = b->db->put(b->db, NULL, &k, &v, DB_NOOVERWRITE);
  if (e == DB_KEYEXIST) {
    if (!b->no_warning)
      fprintf(stderr, "** Duplicate key \"%.*s\"\n", (int)b->key.len - !b->no_zero, b->key.p);
    b->duplicates++;
    if (!b->duplicates_are_fine)
      b->status = 1;
    e = b->last_wins ? b->db->put(b->db, NULL, &k, &v, 0) : 0;
  } else if (e == 0) {
    b->count++;
  }
  return e ? give_up("Error while writing key %.*s: %s\n", (int)b->key.len, b->key.p, db_strerror(e)) : 0;
}

/* The first line of an item: its key, in quotes perhaps, up to a colon or white space; then data. */
static void begin_item(struct build *b, struct str line) {
  size_t i = 0;
  buf_truncate(&b->key, 0);
  buf_truncate(&b->data, 0);
  b->any = true;
  bool quoted = line.p[0] == '"';
  for (i = quoted; i < line.len && (quoted ? line.p[i] != '"' : line.p[i] != ':' && !ascii_is_space(line.p[i])); i++) {
    if (quoted && line.p[i] == '\\' && i + 1 < line.len)
      i++;
    buf_add_byte(&b->key, b->keep_case ? line.p[i] : ascii_lower(line.p[i]));
  }
  i += quoted && i < line.len;
  while (i < line.len && (ascii_is_space(line.p[i]) || line.p[i] == ':'))
    i++;
  buf_add(&b->data, str_from(line, i));
}

static int take_line(struct build *b, struct str line) {
  if (line.len > 0 && line.p[line.len - 1] == '\n')
    line.len--;
  struct str text = str_ltrim(line);
  if (text.len == 0 || line.p[0] == '#')
    return 0;
  if (text.p == line.p) {
    int e = store(b);
    if (e == 0)
      begin_item(b, line);
    return e;
  }
  if (!b->any)
    return give_up("Unexpected continuation line\n");
  /* Continuation lines begin with white space, of which one character is left. */
  while (b->data.len > 0 && ascii_is_space(b->data.p[b->data.len - 1]))
    buf_truncate(&b->data, b->data.len - 1);
  buf_add_byte(&b->data, ' ');
  buf_add(&b->data, text);
  return b->data.len > ITEM_MAX_LENGTH || b->data.overflow ? abandon("Continued set of lines is too long", ITEM_MAX_LENGTH) : 0;
}

static int read_items(struct build *b, FILE *in) {
  char *line = xmalloc(LINE_MAX_LENGTH + 2);
  int e = 0;
  while (e == 0 && fgets(line, (int)LINE_MAX_LENGTH + 2, in)) {
    size_t n = strlen(line);
    if (n > LINE_MAX_LENGTH)
      e = abandon("Overlong line read", LINE_MAX_LENGTH);
    else
      e = take_line(b, str_n(line, n));
  }
  if (e == 0 && ferror(in))
    e = give_up("Error while reading: %s\n", strerror(errno));
  free(line);
  return e ? e : store(b);
}

static bool take_options(struct build *b, const struct str **args, size_t *n) {
  const struct {
    const char *name;
    bool *flag;
  } words[] = {{"-nolc", &b->keep_case}, {"-nozero", &b->no_zero}, {"-nowarn", &b->no_warning}, {"-lastdup", &b->last_wins},
    {"-noduperr", &b->duplicates_are_fine}};
  for (; *n > 0 && (*args)->len > 1 && (*args)->p[0] == '-'; ++*args, --*n) {
    bool known = false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
      if (str_eq_c(**args, words[i].name))
        known = *words[i].flag = true;
    if (!known)
      return false;
  }
  return *n == 2;
}

int dbm_build(struct arena *a, const struct str *args, size_t n) {
  struct build b = {.arena = a};
  if (!take_options(&b, &args, &n))
    return give_up("usage: exim_dbmbuild [-nolc] [-nozero] [-noduperr] [-lastdup] [-nowarn] <source file> <dbm file>\n");
  const char *from = str_dup_c(a, args[0]), *to = str_dup_c(a, args[1]);
  if (strcmp(from, to) == 0)
    return give_up("exim_dbmbuild: input and output filenames are the same\n");
  bool standard = strcmp(from, "-") == 0;
  FILE *in = standard ? stdin : fopen(from, "r");
  if (in == NULL)
    return give_up("exim_dbmbuild: unable to open %s: %s\n", from, strerror(errno));
  const char *made = str_printf(a, "%s.dbmbuild_temp", to).p;
  buf_init(&b.key, a, LINE_MAX_LENGTH + 2);
  buf_init(&b.data, a, ITEM_MAX_LENGTH + LINE_MAX_LENGTH + 2);
  unlink(made);
  int e = db_create(&b.db, NULL, 0);
  if (e == 0 && (e = b.db->open(b.db, NULL, made, NULL, DB_HASH, DB_CREATE | DB_EXCL, 0640)) != 0)
    b.db->close(b.db, 0);
  int status;
  if (e != 0) {
    status = give_up("exim_dbmbuild: unable to create %s: %s\n", made, db_strerror(e));
  } else {
    status = read_items(&b, in);
    if ((e = b.db->close(b.db, 0)) != 0 && status == 0)
      status = give_up("exim_dbmbuild: unable to write %s: %s\n", made, db_strerror(e));
    if (status == 0 && rename(made, to) != 0)
      status = give_up("exim_dbmbuild: unable to rename %s: %s\n", made, strerror(errno));
    if (status != 0)
      unlink(made);
  }
  if (!standard)
    fclose(in);
  if (status != 0)
    return status;
  printf("%d entr%s written\n", b.count, b.count == 1 ? "y" : "ies");
  if (b.duplicates > 0)
    printf("%d duplicate key%s \n", b.duplicates, b.duplicates == 1 ? "" : "s");
  return b.status;
}

int dbm_list(const char *file) {
  DB *db;
  DBC *at = NULL;
  DBT k = {0}, v = {0};
  int e = db_create(&db, NULL, 0);
  if (e == 0 && (e = db->open(db, NULL, file, NULL, DB_UNKNOWN, DB_RDONLY, 0)) != 0)
    db->close(db, 0);
  if (e == 0) {
    e = db->cursor(db, NULL, &at, 0);
    while (e == 0 && (e = at->get(at, &k, &v, DB_NEXT)) == 0)
      printf("%.*s\t%.*s\n", (int)strnlen(k.data, k.size), (const char *)k.data, (int)strnlen(v.data, v.size), (const char *)v.data);
    if (at)
      at->close(at);
    db->close(db, 0);
  }
  return e == 0 || e == DB_NOTFOUND ? 0 : give_up("%s: %s\n", file, db_strerror(e));
}
