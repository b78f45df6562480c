#include "tls/keys_wire.h"

#include <openssl/evp.h>
#include <string.h>

static const char *const digests[KEYS_DIGESTS] = {NULL, "SHA1", "SHA224", "SHA256", "SHA384", "SHA512"};

const char *keys_digest_name(enum keys_digest d) { return digests[d]; }

enum keys_digest keys_digest_of(const char *name) {
  const EVP_MD *md = name && name[0] ? EVP_get_digestbyname(name) : NULL;
  for (int i = 1; md && i < KEYS_DIGESTS; i++)
    if (EVP_MD_is_a(md, digests[i]))
      return (enum keys_digest)i;
  return KEYS_NO_DIGEST;
}

size_t keys_request_write(const struct keys_request *r, unsigned char to[KEYS_REQUEST_MAX]) {
  struct keys_head h = {.number = r->number, .op = (uint16_t)r->op, .digest = (uint16_t)r->digest, .padding = (uint16_t)r->padding,
      .salt = (int16_t)r->salt, .file_n = (uint16_t)r->file.len, .data_n = (uint16_t)r->data.len};
  if (r->file.len > KEYS_NAME_MAX || r->data.len > KEYS_DATA_MAX || r->salt < INT16_MIN || r->salt > INT16_MAX)
    return 0;
  memcpy(h.id, r->id, sizeof h.id);
  memcpy(to, &h, sizeof h);
  if (r->file.len)
    memcpy(to + sizeof h, r->file.p, r->file.len);
  if (r->data.len)
    memcpy(to + sizeof h + r->file.len, r->data.p, r->data.len);
  return sizeof h + r->file.len + r->data.len;
}

bool keys_request_read(const unsigned char *p, size_t n, struct keys_request *ret) {
  struct keys_head h;
  if (n < sizeof h)
    return false;
  memcpy(&h, p, sizeof h);
  if (h.file_n > KEYS_NAME_MAX || h.data_n > KEYS_DATA_MAX || n != sizeof h + h.file_n + h.data_n)
    return false;
  if ((h.op != KEYS_LOAD && h.op != KEYS_SIGN) || h.digest >= KEYS_DIGESTS || h.padding >= KEYS_PADDINGS)
    return false;
  if (h.salt < -1 || (h.op == KEYS_LOAD && h.data_n) || (h.op == KEYS_SIGN && !h.data_n))
    return false;
  struct str file = str_tainted(str_n((const char *)p + sizeof h, h.file_n));
  if (file.len == 0 || memchr(file.p, 0, file.len))
    return false;
  *ret = (struct keys_request){.number = h.number, .op = (enum keys_op)h.op, .digest = (enum keys_digest)h.digest,
      .padding = (enum keys_padding)h.padding, .salt = h.salt, .file = file,
      .data = str_tainted(str_n((const char *)p + sizeof h + h.file_n, h.data_n))};
  memcpy(ret->id, h.id, sizeof ret->id);
  return true;
}
