/* Operators on IP addresses and files. */
#include "expand/items.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/ascii.h"
#include "base/ip.h"
#include "expand/internal.h"
#include "loop/fiber.h"

static unsigned ip_group(const struct ip_addr *ip, int i) { return (unsigned)ip->bytes[2 * i] << 8 | ip->bytes[2 * i + 1]; }

/* As canonical text: the longest run of zero groups, even a single one, as "::". */
static void add_ipv6_norm(struct buf *out, const struct ip_addr *ip) {
  int from = -1, n = 0;
  for (int i = 0; i < 8; i++) {
    int run = 0;
    while (i + run < 8 && ip_group(ip, i + run) == 0)
      run++;
    if (run > n) {
      n = run;
      from = i;
    }
    i += run;
  }
  for (int i = 0; i < 8; i++) {
    if (i == from) {
      buf_add_c(out, "::");
      i += n - 1;
      continue;
    }
    buf_printf(out, "%s%x", i > 0 && i != from + n ? ":" : from >= 0 || i == 0 ? "" : ":", ip_group(ip, i));
  }
}

static void add_ipv6_full(struct buf *out, const struct ip_addr *ip, char separator) {
  for (int i = 0; i < 8; i++) {
    if (i > 0)
      buf_add_byte(out, separator);
    buf_printf(out, "%04x", ip_group(ip, i));
  }
}

static struct ip_addr mapped(const struct ip_addr *ip) {
  struct ip_addr r = {.family = AF_INET6};
  if (ip->family == AF_INET6)
    return *ip;
  r.bytes[10] = r.bytes[11] = 0xff;
  memcpy(r.bytes + 12, ip->bytes, 4);
  return r;
}

static int not_an_ip(struct ctx *c, struct str s) {
  return ctx_fail(c, OUTCOME_ERROR, "\"%.*s\" is not an IP address", STRF(s));
}

static int eval_ipv6(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct ip_addr ip;
  if (!ip_parse(s, &ip))
    return not_an_ip(c, s);
  ip = mapped(&ip);
  if (def->name[4] == 'd')
    add_ipv6_full(out, &ip, ':');
  else
    add_ipv6_norm(out, &ip);
  out->taint = str_taint_join(out->taint, s.taint);
  return 0;
}

static int eval_mask(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct ip_addr ip;
  ptrdiff_t slash = str_find_byte(s, '/');
  uint64_t bits = 0;
  struct str number = slash < 0 ? STR_EMPTY : str_from(s, (size_t)slash + 1);
  if (!ip_parse(slash < 0 ? s : str_slice(s, 0, (size_t)slash), &ip) || (number.len > 0 && !str_to_u64(number, &bits)))
    return not_an_ip(c, s);
  if (slash < 0)
    return ctx_fail(c, OUTCOME_ERROR, "missing mask value in \"%.*s\"", STRF(s));
  if (bits > (uint64_t)ip_bits(&ip))
    return ctx_fail(c, OUTCOME_ERROR, "mask value too big in \"%.*s\"", STRF(s));
  ip_mask(&ip, (int)bits);
  if (ip.family == AF_INET)
    buf_add(out, ip_text(c->arena, &ip));
  else if (str_eq_c(arg, "n"))
    add_ipv6_norm(out, &ip);
  else
    add_ipv6_full(out, &ip, '.');
  buf_printf(out, "/%llu", (unsigned long long)bits);
  out->taint = str_taint_join(out->taint, s.taint);
  return 0;
}

static int eval_reverse_ip(
    struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  struct ip_addr ip;
  int bits;
  if (!ip_parse_masked(s, &ip, &bits))
    return ctx_fail(c, OUTCOME_ERROR, "reverse_ip() not given an IP address [%.*s]", STRF(s));
  if (ip.family == AF_INET) {
    buf_printf(out, "%d.%d.%d.%d", ip.bytes[3], ip.bytes[2], ip.bytes[1], ip.bytes[0]);
  } else {
    for (int i = 15; i >= 0; i--)
      buf_printf(out, "%s%x.%x", i < 15 ? "." : "", ip.bytes[i] & 15, ip.bytes[i] >> 4);
  }
  out->taint = str_taint_join(out->taint, s.taint);
  return 0;
}

struct stat_call {
  const char *path;
  struct stat st;
  int error;
};

static int stat_offloaded(void *arg) {
  struct stat_call *call = arg;
  call->error = stat(call->path, &call->st) < 0 ? errno : 0;
  return 0;
}

static void add_mode_text(struct buf *out, mode_t mode) {
  char type = S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : S_ISCHR(mode) ? 'c' : S_ISBLK(mode) ? 'b' : S_ISFIFO(mode) ? 'p'
              : S_ISSOCK(mode) ? 's' : '-';
  char text[10];
  for (int i = 0; i < 9; i++)
    text[i] = mode >> (8 - i) & 1 ? "rwx"[i % 3] : '-';
  if (mode & S_ISUID)
    text[2] = mode & S_IXUSR ? 's' : 'S';
  if (mode & S_ISGID)
    text[5] = mode & S_IXGRP ? 's' : 'S';
  if (mode & S_ISVTX)
    text[8] = mode & S_IXOTH ? 't' : 'T';
  buf_add_byte(out, type);
  buf_add_n(out, text, 9);
}

static int eval_stat(struct ctx *c, const struct expand_operator_def *def, struct str arg, struct str s, struct buf *out) {
  if (expand_forbidden(c, EXPAND_FORBID_EXISTS, "Use of the stat() expansion is not permitted"))
    return OUTCOME_ERROR;
  struct stat_call call = {.path = str_dup_c(c->arena, s)};
  fiber_offload(stat_offloaded, &call);
  if (call.error != 0)
    return ctx_fail(c, OUTCOME_ERROR, "stat(%.*s) failed: %s", STRF(s), strerror(call.error));
  const struct stat *st = &call.st;
  buf_printf(out, "mode=%04lo smode=", (unsigned long)(st->st_mode & ~(mode_t)S_IFREG));
  add_mode_text(out, st->st_mode);
  buf_printf(out, " inode=%ld device=%ld links=%ld uid=%ld gid=%ld size=%lld atime=%ld mtime=%ld ctime=%ld",
      (long)st->st_ino, (long)st->st_dev, (long)st->st_nlink, (long)st->st_uid, (long)st->st_gid, (long long)st->st_size,
      (long)st->st_atime, (long)st->st_mtime, (long)st->st_ctime);
  return 0;
}

const struct expand_operator_def net_operators[] = {
  {"ipv6denorm", 0, false, eval_ipv6},
  {"ipv6norm", 0, false, eval_ipv6},
  {"mask", 0, true, eval_mask},
  {"reverse_ip", 0, false, eval_reverse_ip},
  {"stat", 0, false, eval_stat},
  {0},
};
