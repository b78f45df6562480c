/* From files to logical lines: inclusion, macros, conditionals, continuation
and comments (Exim manual, sections 6.2 to 6.10). */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/ascii.h"
#include "config/reader.h"
#include "core/build.h"

#define FILE_MAX (16u << 20)

/* --- files --- */

/* All of a file. 0 or -errno; -EISDIR for what is no file. */
static int read_whole(struct config_reader *r, int fd, struct str *ret) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  if (S_ISDIR(st.st_mode))
    return -EISDIR;
  struct buf b;
  buf_init(&b, r->arena, FILE_MAX);
  for (;;) {
    char piece[16384];
    ssize_t n = read(fd, piece, sizeof piece);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -errno;
    if (n == 0)
      break;
    buf_add_n(&b, piece, (size_t)n);
    if (b.overflow)
      return -EFBIG;
  }
  *ret = str_dup(r->arena, buf_str(&b));
  return 0;
}

/* "# 12 "/etc/file"", as -bP config shows where its lines come from. */
static void mark(struct config_reader *r) {
  struct str name = r->config->files.v[r->file->number];
  vec_push(r->arena, &r->config->text, str_printf(r->arena, "# %u \"%.*s\"", r->file->line, STRF(name)));
}

static void push_text(struct config_reader *r, struct str name, struct str text) {
  if (r->file != NULL)
    mark(r);
  struct config_file *f = arena_new_of(r->arena, struct config_file);
  f->rest = text;
  f->number = (uint32_t)r->config->files.n;
  f->parent = r->file;
  vec_push(r->arena, &r->config->files, str_dup(r->arena, name));
  r->file = f;
  r->files_read++;
  r->text_read += text.len;
  f->line = 1;
  mark(r);
  f->line = 0;
}

/* Owner and mode, as the manual's chapter 6 asks for the file that root acts on. */
static bool is_trustworthy(const struct stat *st) {
  if (st->st_uid != 0 && st->st_uid != geteuid())
    return false;
  return !(st->st_mode & S_IWOTH) && (!(st->st_mode & S_IWGRP) || st->st_gid == 0);
}

/* The first file of the colon list that exists, or that cannot be opened for another reason than being absent. */
int config_open(struct config_reader *r) {
  const struct config_source *source = r->source;
  if (str_is_set(source->text)) {
    push_text(r, str_is_set(source->paths) ? source->paths : STR("built-in configuration"), source->text);
    return 0;
  }
  struct str rest = str_is_set(source->paths) ? source->paths : str_c(build.config_path), name = STR_EMPTY;
  int fd = -1, error = ENOENT;
  while (fd < 0 && error == ENOENT && str_is_set(rest)) {
    name = str_trim(str_cut(&rest, ':'));
    fd = open(str_dup_c(r->arena, name), O_RDONLY | O_CLOEXEC);
    error = errno;
  }
  if (fd < 0) {
    r->stop = true;
    if (error == ENOENT && !str_is_set(source->paths))
      return config_error(r, "non-existent configuration file(s): %s (-C FILE names another; martlet --demo DIR shows a server without any)",
          build.config_path);
    return config_error(r, "failed to open configuration file %.*s: %s", STRF(name), strerror(error));
  }
  struct stat st;
  if (build.check_config_owner && source->check_owner && fstat(fd, &st) == 0 && !is_trustworthy(&st)) {
    close(fd);
    r->stop = true;
    return config_error(r, "Exim configuration file %.*s has the wrong owner, group, or mode", STRF(name));
  }
  struct str text = STR_EMPTY;
  int rc = read_whole(r, fd, &text);
  close(fd);
  if (rc < 0) {
    r->stop = true;
    return config_error(r, "failed to read configuration file %.*s: %s", STRF(name), strerror(-rc));
  }
  push_text(r, name, text);
  return 0;
}

/* The name behind .include: quotes may stand around it; a relative one belongs beside the including file. */
static int include_name(struct config_reader *r, struct str arg, bool if_exists, struct str *ret) {
  arg = str_trim(arg);
  if (arg.len >= 2 && arg.p[0] == '"' && arg.p[arg.len - 1] == '"')
    arg = str_slice(arg, 1, arg.len - 1);
  if (str_is_empty(arg))
    return config_error(r, "file name missing after .include");
  if (memchr(arg.p, 0, arg.len) != NULL)
    return config_error(r, "NUL byte in the name of an included file");
  *ret = arg;
  if (arg.p[0] == '/')
    return 0;
  if (if_exists)
    return config_error(r, ".include specifies a non-absolute path \"%.*s\"", STRF(arg));
  struct str parent = r->config->files.v[r->file->number];
  ptrdiff_t slash = str_rfind_byte(parent, '/');
  *ret = str_cat(r->arena, str_slice(parent, 0, (size_t)(slash + 1)), arg);
  return 0;
}

static int include_file(struct config_reader *r, struct str arg, bool if_exists) {
  struct str name;
  if (include_name(r, arg, if_exists, &name) < 0)
    return OUTCOME_ERROR;
  if (r->source->no_files)
    return config_error(r, ".include is not possible here");
  int depth = 0;
  for (struct config_file *f = r->file; f != NULL; f = f->parent)
    depth++;
  if (depth >= CONFIG_DEPTH_MAX || r->files_read >= CONFIG_FILES_MAX || r->text_read > CONFIG_TEXT_MAX) {
    r->stop = true;
    return config_error(r, "too many .include files: \"%.*s\" was not read", STRF(name));
  }
  int fd = open(str_dup_c(r->arena, name), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (if_exists && errno == ENOENT)
      return 0;
    return config_error(r, "failed to open included configuration file %.*s", STRF(name));
  }
  struct str text = STR_EMPTY;
  int rc = read_whole(r, fd, &text);
  close(fd);
  if (rc < 0)
    return config_error(r, "failed to read included configuration file %.*s: %s", STRF(name), strerror(-rc));
  push_text(r, name, text);
  return 0;
}

/* --- physical lines --- */

static void end_of_file(struct config_reader *r) {
  r->end_file = r->file->number;
  r->end_line = r->file->line;
  r->file = r->file->parent;
  if (r->file != NULL)
    mark(r);
}

/* One line of the innermost file, without white space at both ends. False at the end of all. */
static bool physical_line(struct config_reader *r, struct str *ret) {
  while (r->file != NULL) {
    struct config_file *f = r->file;
    if (str_is_empty(f->rest)) {
      end_of_file(r);
      continue;
    }
    struct str line = str_cut(&f->rest, '\n');
    if (!str_is_set(f->rest))
      f->rest = STR_EMPTY;
    if (f->line++ == 0 && str_starts(line, STR("\xef\xbb\xbf"))) {
      (void)config_error(r, "found unexpected BOM (Byte Order Mark)");
      r->stop = true;
      return false;
    }
    *ret = str_trim(line);
    return true;
  }
  return false;
}

/* --- conditionals --- */

enum directive {
  NO_DIRECTIVE, D_IFDEF, D_IFNDEF, D_ELIFDEF, D_ELIFNDEF, D_ELSE, D_ENDIF, D_INCLUDE, D_INCLUDE_IF_EXISTS
};

static enum directive directive_of(struct str line, struct str *ret_arg) {
  static const struct {
    const char *name;
    enum directive d;
  } names[] = {
    {".ifdef", D_IFDEF}, {".ifndef", D_IFNDEF}, {".elifdef", D_ELIFDEF}, {".elifndef", D_ELIFNDEF}, {".else", D_ELSE},
    {".endif", D_ENDIF}, {".include", D_INCLUDE}, {".include_if_exists", D_INCLUDE_IF_EXISTS},
  };
  if (line.len == 0 || line.p[0] != '.')
    return NO_DIRECTIVE;
  size_t n = 1;
  while (n < line.len && !ascii_is_space(line.p[n]))
    n++;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (!str_eq_c(str_slice(line, 0, n), names[i].name))
      continue;
    *ret_arg = str_ltrim(str_from(line, n));
    return names[i].d;
  }
  return NO_DIRECTIVE;
}

static bool is_skipping(const struct config_reader *r) {
  return r->n_skipped > 0 || (r->n_conditionals > 0 && r->conditionals[r->n_conditionals - 1] != COND_TRUE);
}

static int open_conditional(struct config_reader *r, bool truth) {
  if (is_skipping(r)) {
    r->n_skipped++;
    return 0;
  }
  if (r->n_conditionals == CONFIG_DEPTH_MAX) {
    r->stop = true;
    return config_error(r, ".ifdef nested too deeply");
  }
  r->conditionals[r->n_conditionals++] = truth ? COND_TRUE : COND_NOT_YET;
  return 0;
}

static int do_conditional(struct config_reader *r, enum directive d, struct str word, bool replaced) {
  if (d == D_IFDEF || d == D_IFNDEF)
    return open_conditional(r, replaced == (d == D_IFDEF));
  if (r->n_conditionals == 0) {
    size_t n = 0;
    while (n < word.len && !ascii_is_space(word.p[n]))
      n++;
    return config_error(r, "%.*s without matching .ifdef", (int)n, word.p);
  }
  if (d == D_ENDIF) {
    if (r->n_skipped > 0)
      r->n_skipped--;
    else
      r->n_conditionals--;
    return 0;
  }
  if (r->n_skipped > 0)
    return 0;
  enum conditional *c = &r->conditionals[r->n_conditionals - 1];
  bool truth = d == D_ELSE || replaced == (d == D_ELIFDEF);
  *c = *c != COND_NOT_YET ? COND_DONE : truth ? COND_TRUE : COND_NOT_YET;
  return 0;
}

/* --- logical lines --- */

/* The next line that counts, after macros. False at the end. *ret is empty for an empty line, which ends a continued one. */
static bool effective_line(struct config_reader *r, struct str *ret) {
  struct str line, arg;
  while (!r->stop && physical_line(r, &line)) {
    bool replaced = false;
    if (line.len > 0 && line.p[0] == '#')
      continue;
    if (config_macros_replace(r, line, &line, &replaced) < 0)
      continue;
    line = str_trim(line);
    enum directive d = directive_of(line, &arg);
    if (d != NO_DIRECTIVE && d < D_INCLUDE) {
      (void)do_conditional(r, d, line, replaced);
      continue;
    }
    if (is_skipping(r) || (line.len > 0 && line.p[0] == '#'))
      continue;
    if (d != NO_DIRECTIVE) {
      (void)include_file(r, arg, d == D_INCLUDE_IF_EXISTS);
      continue;
    }
    *ret = line;
    return true;
  }
  return false;
}

/* Joins what follows a line that ends with a backslash. */
static struct str continued_line(struct config_reader *r, struct str line) {
  struct buf b;
  buf_init(&b, r->arena, CONFIG_LINE_MAX);
  for (;;) {
    bool more = line.len > 0 && line.p[line.len - 1] == '\\';
    buf_add(&b, str_slice(line, 0, line.len - (more ? 1 : 0)));
    if (!more || !effective_line(r, &line))
      break;
  }
  if (b.overflow)
    (void)config_error(r, "line too long");
  return str_trim(buf_str(&b));
}

bool config_next_line(struct config_reader *r, struct str *ret) {
  struct str line = STR_EMPTY;
  if (r->held) {
    r->held = false;
    *ret = r->line;
    return true;
  }
  while (str_is_empty(line)) {
    if (!effective_line(r, &line)) {
      if (!r->stop && r->n_conditionals > 0)
        (void)config_error(r, "Unexpected end of configuration file: .endif missing");
      r->n_conditionals = r->n_skipped = 0;
      return false;
    }
    if (line.len > 0 && line.p[line.len - 1] == '\\')
      line = continued_line(r, line);
  }
  if (memchr(line.p, 0, line.len) != NULL)
    (void)config_error(r, "NUL byte in the line");
  *ret = r->line = line;
  vec_push(r->arena, &r->config->text, line);
  return true;
}

void config_hold_line(struct config_reader *r) { r->held = true; }
