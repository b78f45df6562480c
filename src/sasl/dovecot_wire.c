#include "sasl/dovecot_wire.h"

#include "base/buf.h"
#include "base/encode.h"
#include "base/ip.h"
#include "match/match.h"

#define PLACES_MAX 20

const struct dovecot_mechanism *dovecot_mechanism(const struct dovecot_hello *h, struct str name) {
  for (size_t i = 0; i < h->n; i++)
    if (str_ieq_c(name, h->v[i].name))
      return &h->v[i];
  return NULL;
}

static void add_mechanism(struct dovecot_hello *h, struct str name, struct str words) {
  struct dovecot_mechanism *m = (struct dovecot_mechanism *)(uintptr_t)dovecot_mechanism(h, name);
  if (m == NULL) {
    if (h->n == DOVECOT_MECHANISMS_MAX || name.len > DOVECOT_MECHANISM_MAX || memchr(name.p, 0, name.len) != NULL)
      return;
    m = &h->v[h->n++];
    memcpy(m->name, name.p, name.len);
    m->name[name.len] = '\0';
    m->plaintext = false;
  }
  while (str_is_set(words))
    m->plaintext |= str_eq_c(str_cut(&words, '\t'), "plaintext");
}

bool dovecot_hello_line(struct dovecot_hello *h, struct str line, struct str *ret_error) {
  struct str rest = line, word = str_cut(&rest, '\t');
  struct str first = str_is_set(rest) ? str_cut(&rest, '\t') : STR_EMPTY;
  if (str_eq_c(word, "VERSION")) {
    struct str minor = str_is_set(rest) ? str_cut(&rest, '\t') : STR_EMPTY;
    h->version_seen = true;
    if (!str_to_u64(first, &h->major) || h->major != 1) {
      *ret_error = STR("authentication socket protocol version mismatch");
      return false;
    }
    if (!str_to_u64(minor, &h->minor))
      h->minor = 0;
  } else if (str_eq_c(word, "MECH")) {
    add_mechanism(h, first, rest);
  } else if (str_eq_c(word, "DONE")) {
    h->done = true;
    if (!h->version_seen) {
      *ret_error = STR("authentication socket protocol error (no version)");
      return false;
    }
  }
  return true;
}

/* Escapes begin with \001: 0 NUL, 1 itself, t tab, r and n line ends. */
static struct str unescape(struct arena *a, struct str s) {
  struct buf b;
  buf_init(&b, a, DOVECOT_LINE_MAX + 1);
  for (uint32_t i = 0; i < s.len; i++) {
    if (s.p[i] != '\001' || i + 1 == s.len) {
      buf_add_byte(&b, s.p[i]);
      continue;
    }
    char c = s.p[++i];
    buf_add_byte(&b, c == '0' ? '\0' : c == '1' ? '\001' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'n' ? '\n' : c);
  }
  return str_tainted(buf_str(&b));
}

struct str dovecot_escape(struct arena *a, struct str s) {
  static const char from[] = {'\0', '\001', '\t', '\r', '\n'}, to[] = {'0', '1', 't', 'r', 'n'};
  struct buf b;
  buf_init(&b, a, DOVECOT_LINE_MAX);
  for (uint32_t i = 0; i < s.len; i++) {
    const char *p = memchr(from, s.p[i], sizeof from);
    if (p)
      buf_add_byte(&b, '\001');
    buf_add_byte(&b, p ? to[p - from] : s.p[i]);
  }
  return b.overflow ? STR_EMPTY : buf_str(&b);
}

static struct dovecot_answer broken(const char *why) {
  return (struct dovecot_answer){.kind = DOVECOT_BROKEN, .error = str_c(why)};
}

static void read_fields(struct arena *a, struct str rest, struct dovecot_answer *to) {
  bool disabled = false, proxied = false;
  while (str_is_set(rest)) {
    struct str field = str_cut(&rest, '\t');
    if (str_starts(field, STR("user=")))
      to->user = unescape(a, str_from(field, 5));
    else if (to->kind == DOVECOT_FAIL && (str_eq_c(field, "temp") || str_eq_c(field, "code=temp_fail")))
      to->kind = DOVECOT_FAIL_TEMPORARY;
    disabled |= str_eq_c(field, "nologin") || str_starts(field, STR("nologin="));
    proxied |= str_eq_c(field, "proxy") || str_starts(field, STR("proxy="));
  }
  /* The password is right, but nobody may use it. (With proxy it says where else.) */
  if (to->kind == DOVECOT_OK && disabled && !proxied)
    to->kind = DOVECOT_FAIL;
}

struct dovecot_answer dovecot_answer_line(struct arena *a, uint32_t request, struct str line) {
  struct dovecot_answer r = {.kind = DOVECOT_IGNORED, .user = STR_UNSET};
  struct str rest = line, word = str_cut(&rest, '\t');
  bool cont = str_eq_c(word, "CONT"), ok = str_eq_c(word, "OK"), fail = str_eq_c(word, "FAIL");
  if (!cont && !ok && !fail)
    return r;
  if (memchr(line.p, 0, line.len))
    return broken("authentication socket protocol error (NUL byte)");
  uint64_t id;
  if (!str_is_set(rest) || !str_to_u64(str_cut(&rest, '\t'), &id) || id != request)
    return broken("authentication socket protocol error (incorrect id)");
  if (cont) {
    r.kind = DOVECOT_CONTINUE;
    struct str text = str_is_set(rest) ? str_cut(&rest, '\t') : STR_EMPTY;
    if (!base64_decode(a, text, false, &r.data))
      return broken("authentication socket protocol error (challenge is not base64)");
    return r;
  }
  r.kind = ok ? DOVECOT_OK : DOVECOT_FAIL;
  read_fields(a, rest, &r);
  return r;
}

/* --- server_socket --- */

static bool host_port(struct arena *a, struct str text, struct dovecot_place *p) {
  uint32_t i = 0;
  uint64_t port;
  struct ip_addr ip;
  while (i < text.len && text.p[i] != ' ' && text.p[i] != '\t')
    i++;
  struct str host = str_slice(text, 0, i);
  if (host.len > 2 && host.p[0] == '[' && host.p[host.len - 1] == ']')
    host = str_slice(host, 1, host.len - 1);
  if (host.len == 0 || (str_find_byte(host, ':') >= 0 && !ip_parse(host, &ip)) || str_find_byte(host, '/') >= 0 ||
      !str_to_u64(str_trim(str_from(text, i)), &port) || port < 1 || port > 65535)
    return false;
  p->host = str_dup(a, host);
  p->port = (int)port;
  return true;
}

static bool one_place(struct arena *a, struct str text, struct dovecot_place *p) {
  if (text.len > 0 && text.p[0] == '/') {
    p->path = str_dup(a, text);
    return true;
  }
  return host_port(a, text, p);
}

static bool read_list(struct arena *a, struct str text, struct dovecot_place **ret, struct str *ret_bad) {
  struct list_iter iter;
  struct str item;
  int n = 0;
  *ret = NULL;
  list_iter_init(&iter, a, text);
  for (struct dovecot_place **end = ret; list_next(&iter, &item); end = &(*end)->next) {
    *end = arena_new_of(a, struct dovecot_place);
    if (++n > PLACES_MAX || !one_place(a, item, *end)) {
      *ret_bad = item;
      return false;
    }
  }
  *ret_bad = text;
  return n > 0;
}

bool dovecot_places(struct arena *a, struct str text, struct dovecot_place **ret, struct str *ret_error) {
  struct dovecot_place *whole = arena_new_of(a, struct dovecot_place);
  struct str bad;
  text = str_trim(text);
  /* One address of IPv6 has colons of its own, and so may have a path. */
  if (text.len > 0 && text.p[0] != '<' && text.p[0] != '/' && host_port(a, text, whole)) {
    *ret = whole;
    return true;
  }
  if (read_list(a, text, ret, &bad))
    return true;
  if (text.len > 0 && text.p[0] == '/') {
    one_place(a, text, whole);
    *ret = whole;
    return true;
  }
  *ret_error = str_printf(a, "\"%.*s\" is neither the path of a socket nor a host and a port", STRF(bad));
  return false;
}

bool dovecot_is_near(const struct dovecot_place *p) {
  struct ip_addr ip;
  if (str_is_set(p->path) || str_ieq_c(p->host, "localhost"))
    return true;
  return ip_parse(p->host, &ip) && ip_is_loopback(&ip);
}
