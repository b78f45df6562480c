/* $tls_in_…, $tls_out_… and the old names for either. */
#include "expand/variables.h"

#include <stddef.h>

#include "core/session.h"
#include "deliver/address.h"
#include "expand/modules.h"
#include "tls/tls.h"

#define SIDE_OUT 256u /* flags: the side; both bits clear is the side that is in use: out while a host is being delivered to */
#define SIDE_IN 512u

static const struct tls_info *side(const struct ctx *c, unsigned flags) {
  if ((flags & SIDE_IN) || (!(flags & SIDE_OUT) && c->host == NULL))
    return c->client->tls;
  return c->address != NULL ? c->address->tls_out : NULL;
}

static int get_text(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct tls_info *t = side(c, def->flags);
  *ret = STR_EMPTY;
  if (t != NULL)
    memcpy(ret, (const char *)t + def->offset, sizeof *ret);
  return 0;
}

static int get_number(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct tls_info *t = side(c, def->flags);
  int n = 0;
  switch (t == NULL ? 0 : def->flags & 255) {
  case 'b': n = t->bits; break;
  case 'v': n = t->peer_verified; break;
  case 'r': n = t->resumption; break;
  default: break;
  }
  return variable_number(c, n, ret);
}

#define TEXT(name, member)                                                                                             \
  {"tls_in_" name, get_text, offsetof(struct tls_info, member), SIDE_IN},                                              \
  {"tls_out_" name, get_text, offsetof(struct tls_info, member), SIDE_OUT}
#define NUMBER(name, letter)                                                                                           \
  {"tls_in_" name, get_number, 0, SIDE_IN | letter}, {"tls_out_" name, get_number, 0, SIDE_OUT | letter}

static const struct variable_def variables[] = {
  NUMBER("bits", 'b'),
  NUMBER("certificate_verified", 'v'),
  NUMBER("resumption", 'r'),
  TEXT("cipher", cipher),
  TEXT("cipher_std", cipher_std),
  TEXT("peerdn", peer_dn),
  TEXT("sni", sni),
  TEXT("ver", version),
  {"tls_bits", get_number, 0, 'b'},
  {"tls_certificate_verified", get_number, 0, 'v'},
  {"tls_cipher", get_text, offsetof(struct tls_info, cipher)},
  {"tls_peerdn", get_text, offsetof(struct tls_info, peer_dn)},
  {"tls_sni", get_text, offsetof(struct tls_info, sni)},
  {0},
};

const struct module expand_tls_module = {
  .name = "expand-tls",
  .summary = "TLS in expansions",
  .variables = variables,
};
