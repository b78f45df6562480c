#include "dns/packet.h"

#include "base/ascii.h"
#include "base/buf.h"
#include "base/vec.h"

#define CLASS_IN 1
#define TYPE_OPT 41
#define CHAIN_MAX 16
#define JUMPS_MAX 64

struct reader {
  const unsigned char *p;
  size_t n, at;
  bool bad;
};

static unsigned read_u8(struct reader *r) {
  if (r->at >= r->n) {
    r->bad = true;
    return 0;
  }
  return r->p[r->at++];
}

static unsigned read_u16(struct reader *r) {
  unsigned hi = read_u8(r);
  return hi << 8 | read_u8(r);
}

static uint32_t read_u32(struct reader *r) {
  uint32_t hi = read_u16(r);
  return hi << 16 | read_u16(r);
}

static void skip(struct reader *r, size_t n) {
  if (n > r->n - r->at)
    r->bad = true;
  else
    r->at += n;
}

/* Bytes that would be misread in a name's text are escaped as in zone files. */
static void add_label_byte(struct buf *b, unsigned char c) {
  if (c == '.' || c == '\\') {
    buf_add_byte(b, '\\');
    buf_add_byte(b, (char)c);
  } else if (c <= ' ' || c >= 127) {
    buf_printf(b, "\\%03u", c);
  } else {
    buf_add_byte(b, (char)c);
  }
}

/* A name at r->at, compressed or not; the root is ".". */
static struct str read_name(struct reader *r, struct arena *a) {
  struct buf b;
  buf_init(&b, a, DNS_NAME_MAX * 4);
  size_t at = r->at, used = 0, limit = r->at;
  int jumps = 0;
  bool jumped = false;
  while (!r->bad) {
    if (at >= r->n)
      break;
    unsigned c = r->p[at];
    if (c == 0) {
      if (!jumped)
        r->at = at + 1;
      struct str s = b.len ? buf_str(&b) : STR(".");
      s.taint = STR_TAINTED;
      return s;
    }
    if ((c & 0xc0) == 0xc0) {
      if (at + 1 >= r->n || ++jumps > JUMPS_MAX)
        break;
      size_t to = (size_t)(c & 0x3f) << 8 | r->p[at + 1];
      if (!jumped)
        r->at = at + 2;
      jumped = true;
      /* Only backwards: otherwise a pointer could lead into a loop. */
      if (to >= limit)
        break;
      at = limit = to;
      continue;
    }
    if ((c & 0xc0) != 0 || at + 1 + c > r->n || (used += c + 1) > DNS_NAME_MAX)
      break;
    if (b.len)
      buf_add_byte(&b, '.');
    for (unsigned k = 0; k < c; k++)
      add_label_byte(&b, r->p[at + 1 + k]);
    at += c + 1;
  }
  r->bad = true;
  return STR_EMPTY;
}

static struct str read_bytes(struct reader *r, struct arena *a, size_t n) {
  if (n > r->n - r->at) {
    r->bad = true;
    return STR_EMPTY;
  }
  struct str s = str_tainted(str_dup(a, str_n((const char *)r->p + r->at, n)));
  r->at += n;
  return s;
}

static void read_txt(struct reader *r, struct arena *a, size_t end, struct dns_record *rec) {
  VEC(struct str) chunks = {0};
  struct buf b;
  buf_init(&b, a, 65536);
  while (r->at < end && !r->bad) {
    unsigned n = read_u8(r);
    if (n > end - r->at) {
      r->bad = true;
      return;
    }
    struct str s = read_bytes(r, a, n);
    buf_add(&b, s);
    vec_push(a, &chunks, s);
  }
  rec->chunks = chunks.v;
  rec->chunks_n = chunks.n;
  rec->text = str_tainted(buf_str(&b));
}

/* SOA as text: "primary contact serial refresh retry expire minimum"; chunks hold the fields. */
static void read_soa(struct reader *r, struct arena *a, struct dns_record *rec, uint32_t *ret_minimum) {
  rec->chunks = arena_array(a, struct str, 7);
  rec->chunks_n = 7;
  rec->chunks[0] = read_name(r, a);
  rec->chunks[1] = read_name(r, a);
  uint32_t value = 0;
  for (int i = 2; i < 7; i++) {
    value = read_u32(r);
    rec->chunks[i] = str_tainted(str_printf(a, "%u", value));
  }
  *ret_minimum = value;
  rec->text = rec->chunks[0];
}

static void read_data(struct reader *r, struct arena *a, size_t length, struct dns_record *rec, uint32_t *ret_minimum) {
  size_t end = r->at + length;
  switch (rec->type) {
  case DNS_A:
    rec->ip.family = AF_INET;
    if (length != 4)
      r->bad = true;
    else
      memcpy(rec->ip.bytes, r->p + r->at, 4);
    break;
  case DNS_AAAA:
    rec->ip.family = AF_INET6;
    if (length != 16)
      r->bad = true;
    else
      memcpy(rec->ip.bytes, r->p + r->at, 16);
    break;
  case DNS_MX:
    rec->preference = (uint16_t)read_u16(r);
    rec->text = read_name(r, a);
    break;
  case DNS_SRV:
    rec->preference = (uint16_t)read_u16(r);
    rec->weight = (uint16_t)read_u16(r);
    rec->port = (uint16_t)read_u16(r);
    rec->text = read_name(r, a);
    break;
  case DNS_NS: case DNS_CNAME: case DNS_PTR:
    rec->text = read_name(r, a);
    break;
  case DNS_TXT: case DNS_SPF:
    read_txt(r, a, end, rec);
    break;
  case DNS_SOA:
    read_soa(r, a, rec, ret_minimum);
    break;
  default:
    rec->text = read_bytes(r, a, length);
    break;
  }
  if (r->at > end)
    r->bad = true;
  if (!r->bad)
    r->at = end;
  if (rec->ip.family)
    rec->text = ip_text(a, &rec->ip);
}


/* One record; false: malformed. OPT and other classes are skipped (type 0). */
static bool read_record(struct reader *r, struct arena *a, struct dns_record *rec, uint32_t *ret_minimum) {
  *rec = (struct dns_record){0};
  rec->name = read_name(r, a);
  unsigned type = read_u16(r), class = read_u16(r);
  rec->ttl = read_u32(r);
  if (rec->ttl & 0x80000000u)
    rec->ttl = 0; /* RFC 2181, section 8 */
  size_t length = read_u16(r);
  if (r->bad || length > r->n - r->at)
    return false;
  if (class != CLASS_IN || type == TYPE_OPT) {
    skip(r, length);
    return !r->bad;
  }
  rec->type = (enum dns_type)type;
  read_data(r, a, length, rec, ret_minimum);
  return !r->bad;
}

static void use_ttl(struct dns_reply *ret, uint32_t ttl) {
  if (!ret->has_ttl || ttl < ret->min_ttl)
    ret->min_ttl = ttl;
  ret->has_ttl = true;
}

/* A server may complete a name of one component; the owner then begins with it. */
static bool is_completed(struct str owner, struct str name) {
  return str_find_byte(name, '.') < 0 && owner.len > name.len + 1 && owner.p[name.len] == '.' && str_istarts(owner, name);
}

/* Follows CNAMEs from the name asked and picks the records of the type wanted. */
static void follow(struct arena *a, const struct dns_record *v, size_t n, struct str name, enum dns_type type,
    struct dns_reply *ret) {
  struct str at = name;
  if (n > 0 && (is_completed(v[0].name, name) || str_ieq(v[0].name, name)))
    at = v[0].name; /* as the zone spells it */
  ret->qualified = at;
  for (int hops = 0; hops < CHAIN_MAX && type != DNS_CNAME; hops++) {
    const struct dns_record *found = NULL;
    for (size_t i = 0; i < n && !found; i++)
      if (v[i].type == DNS_CNAME && str_ieq(v[i].name, at))
        found = &v[i];
    if (!found)
      break;
    use_ttl(ret, found->ttl);
    ret->cname = at = found->text;
  }
  ret->canonical = at;
  VEC(struct dns_record) out = {0};
  for (size_t i = 0; i < n; i++)
    if (v[i].type == type && str_ieq(v[i].name, at)) {
      use_ttl(ret, v[i].ttl);
      vec_push(a, &out, v[i]);
    }
  ret->v = out.v;
  ret->n = out.n;
}

static void read_authority(struct reader *r, struct arena *a, unsigned count, struct dns_reply *ret) {
  bool found = ret->n > 0 || str_is_set(ret->cname);
  for (unsigned i = 0; i < count && i < DNS_RECORDS_MAX; i++) {
    struct dns_record rec;
    uint32_t minimum = 0;
    if (!read_record(r, a, &rec, &minimum))
      return; /* the answer section was good: that is what was asked for */
    if (rec.type == (found ? DNS_NS : DNS_SOA) && !str_is_set(ret->authority))
      ret->authority = rec.name;
    if (ret->n == 0 && rec.type == DNS_SOA) /* RFC 2308, section 5 */
      use_ttl(ret, rec.ttl < minimum ? rec.ttl : minimum);
  }
}

static struct str without_dot(struct str name) {
  return name.len > 1 && name.p[name.len - 1] == '.' ? str_slice(name, 0, name.len - 1) : name;
}

int dns_packet_read(struct arena *a, const unsigned char *p, size_t n, struct str name, enum dns_type type,
    struct dns_reply *ret) {
  struct reader r = {.p = p, .n = n};
  *ret = (struct dns_reply){0};
  name = without_dot(name);
  read_u16(&r);
  unsigned flags = read_u16(&r), questions = read_u16(&r), answers = read_u16(&r), authority = read_u16(&r);
  read_u16(&r);
  if (r.bad || !(flags & 0x8000) || questions != 1)
    return -1;
  ret->rcode = (enum dns_rcode)(flags & 15);
  ret->aa = flags & 0x0400;
  ret->ad = flags & 0x0020;
  ret->truncated = flags & 0x0200;
  struct str asked = read_name(&r, a);
  unsigned asked_type = read_u16(&r);
  read_u16(&r);
  if (r.bad || asked_type != (unsigned)type || !str_ieq(asked, name))
    return -1;
  VEC(struct dns_record) records = {0};
  for (unsigned i = 0; i < answers && i < DNS_RECORDS_MAX; i++) {
    struct dns_record rec;
    uint32_t minimum;
    if (!read_record(&r, a, &rec, &minimum))
      return -1;
    vec_push(a, &records, rec);
  }
  follow(a, records.v, records.n, name, type, ret);
  ret->stray = records.n > 0 && !str_is_set(ret->cname);
  for (size_t i = 0; i < records.n && ret->stray; i++)
    ret->stray = !str_ieq(records.v[i].name, ret->canonical);
  read_authority(&r, a, authority, ret);
  return 0;
}

/* A label's text with its escapes (\. \\ \ddd) undone. */
static int encode_label(unsigned char *to, struct str label) {
  int n = 0;
  for (size_t i = 0; i < label.len; i++) {
    unsigned char c = (unsigned char)label.p[i];
    if (c == '\\' && i + 1 < label.len) {
      const char *p = label.p + i + 1;
      if (i + 3 < label.len && ascii_is_digit(p[0]) && ascii_is_digit(p[1]) && ascii_is_digit(p[2])) {
        int v = (p[0] - '0') * 100 + (p[1] - '0') * 10 + (p[2] - '0');
        if (v > 255)
          return -1;
        c = (unsigned char)v;
        i += 3;
      } else {
        c = (unsigned char)p[0];
        i++;
      }
    }
    if (n >= 63)
      return -1;
    to[n++] = c;
  }
  return n;
}

static int encode_name(unsigned char *to, struct str name) {
  int n = 0;
  name = without_dot(name);
  size_t from = 0;
  if (str_eq_c(name, "."))
    from = name.len + 1;
  while (from <= name.len) {
    size_t end = from;
    while (end < name.len && name.p[end] != '.')
      end += name.p[end] == '\\' ? 2 : 1;
    unsigned char label[64];
    int len = encode_label(label, str_slice(name, from, end));
    if (len <= 0 || n + len + 2 > DNS_NAME_MAX)
      return -1;
    to[n++] = (unsigned char)len;
    memcpy(to + n, label, (size_t)len);
    n += len;
    from = end + 1;
  }
  to[n++] = 0;
  return n;
}

int dns_packet_query(unsigned char *to, uint16_t id, struct str name, enum dns_type type, bool edns, bool dnssec) {
  /* RD, and AD to ask for the AD bit of the reply (RFC 6840, section 5.7). */
  const unsigned char head[12] = {(unsigned char)(id >> 8), (unsigned char)id, 0x01, dnssec ? 0x20 : 0, 0, 1, 0, 0, 0, 0, 0,
    edns ? 1 : 0};
  memcpy(to, head, sizeof head);
  int n = encode_name(to + 12, name);
  if (n < 0)
    return -1;
  n += 12;
  to[n++] = (unsigned char)(type >> 8);
  to[n++] = (unsigned char)type;
  to[n++] = 0;
  to[n++] = CLASS_IN;
  if (edns) {
    const unsigned char opt[11] = {0, 0, TYPE_OPT, DNS_EDNS_SIZE >> 8, DNS_EDNS_SIZE & 255, 0, 0, dnssec ? 0x80 : 0, 0, 0, 0};
    memcpy(to + n, opt, sizeof opt);
    n += (int)sizeof opt;
  }
  return n;
}
