/* What a signature covers, and whether it holds (RFC 6376, sections 3.7, 5.4.2 and 6.1). */
#include <openssl/rsa.h>

#include "base/map.h"
#include "base/vec.h"
#include "mailauth/dkim.h"

struct named {
  VEC(struct str) fields; /* of one name, in their order */
  size_t used;            /* from the end, by the selection that goes on */
  unsigned selection;
};

struct header_index {
  struct arena *arena;
  struct map *names;
  unsigned selection;
  struct buf signed_data; /* used again by each signature: a message may have fifty over a large header */
};

static struct str name_of(struct str field) {
  ptrdiff_t colon = str_find_byte(field, ':');
  return str_rtrim(str_slice(field, 0, colon < 0 ? 0 : (size_t)colon));
}

struct header_index *header_index_new(struct arena *a, const struct str *fields, size_t n) {
  struct header_index *x = arena_new_of(a, struct header_index);
  x->arena = a;
  x->names = map_new_caseless(a);
  buf_init(&x->signed_data, a, BUF_MAX_EXPANSION);
  for (size_t i = 0; i < n; i++) {
    struct str name = name_of(fields[i]);
    struct named *e = map_get(x->names, name);
    if (e == NULL) {
      e = arena_new_of(a, struct named);
      map_set(x->names, name, e);
    }
    vec_push(a, &e->fields, fields[i]);
  }
  return x;
}

void header_index_select(struct header_index *x, struct str names, enum canon how, struct buf *out) {
  x->selection++;
  while (str_is_set(names)) {
    struct named *e = map_get(x->names, str_trim(str_cut(&names, ':')));
    if (e == NULL)
      continue;
    if (e->selection != x->selection) {
      e->selection = x->selection;
      e->used = 0;
    }
    if (e->used < e->fields.n)
      canon_header(how, e->fields.v[e->fields.n - ++e->used], true, out);
  }
}

void dkim_add_own_field(const struct dkim_signature *s, struct buf *out) {
  struct str raw = tags_find(&s->tags, "b")->raw;
  size_t from = (size_t)(raw.p - s->field.p);
  struct str field = str_cat(out->arena, str_slice(s->field, 0, from), str_from(s->field, from + raw.len));
  canon_header(s->header_canon, field, false, out);
}

static bool holds(const struct dkim_signature *s, struct str data) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n;
  const unsigned char *sig = (const unsigned char *)s->signature.p;
  if (EVP_Digest(data.p, data.len, digest, &n, s->md, NULL) != 1)
    return false;
  int good = 0;
  if (s->key_type == DKIM_ED25519) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    good = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, s->key->pkey) == 1 &&
           EVP_DigestVerify(ctx, sig, s->signature.len, digest, n) == 1;
    EVP_MD_CTX_free(ctx);
  } else {
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(s->key->pkey, NULL);
    good = ctx != NULL && EVP_PKEY_verify_init(ctx) == 1 && EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1 &&
           EVP_PKEY_CTX_set_signature_md(ctx, s->md) == 1 && EVP_PKEY_verify(ctx, sig, s->signature.len, digest, n) == 1;
    EVP_PKEY_CTX_free(ctx);
  }
  return good == 1;
}

static void judge(struct dkim_signature *s, enum dkim_status status, enum dkim_reason reason) {
  s->status = status;
  s->reason = reason;
}

bool dkim_body_holds(const struct dkim_signature *s) {
  const struct body_hash *h = s->hash;
  return h != NULL && h->digest_n > 0 && h->digest_n == s->body_digest.len &&
         memcmp(h->digest, s->body_digest.p, h->digest_n) == 0 &&
         (s->body_length == DKIM_BODY_ALL || h->body.total >= s->body_length);
}

void dkim_verify_data(struct dkim_signature *s, struct buf *data, int min_bits) {
  if (!dkim_key_fits(s->key, s))
    judge(s, DKIM_FAIL, DKIM_KEY_UNFIT);
  else if (data->overflow || !holds(s, buf_str(data)))
    judge(s, DKIM_FAIL, DKIM_SIGNATURE);
  else if (s->key->bits < min_bits)
    judge(s, DKIM_FAIL, DKIM_KEY_SIZE);
  else
    judge(s, DKIM_PASS, DKIM_OK);
}

struct buf *header_index_data(struct header_index *x) {
  buf_truncate(&x->signed_data, 0);
  x->signed_data.overflow = false;
  return &x->signed_data;
}

void dkim_verify(struct header_index *x, struct dkim_signature *s, int min_bits) {
  struct buf *data = header_index_data(x);
  header_index_select(x, s->header_names, s->header_canon, data);
  dkim_add_own_field(s, data);
  dkim_verify_data(s, data, min_bits);
}
