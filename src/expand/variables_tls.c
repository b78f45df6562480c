/* $tls_in_…, $tls_out_… and the old names for either. */
#include "expand/internal.h"
#include "expand/variables.h"

#include <stddef.h>

#include "core/session.h"
#include "deliver/address.h"
#include "expand/modules.h"
#include "tls/certificate.h"
#include "tls/tls.h"

#define SIDE_OUT 256u /* flags: the side; both bits clear is the side that is in use: out while a host is being delivered to */
#define SIDE_IN 512u

static const struct tls_info *side(const struct ctx *c, unsigned flags) {
  if ((flags & SIDE_IN) || (!(flags & SIDE_OUT) && c->host == NULL))
    return c->client->tls;
  return c->address != NULL && c->address->tls_out != NULL ? c->address->tls_out : c->tls_out;
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
  case 'o': n = t->ocsp; break;
  case 'r': n = t->resumption; break;
  case 'u': n = t->tlsa_usage; break;
  default: break;
  }
  return variable_number(c, n, ret);
}

/* $tls_out_dane */
static int get_dane(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct tls_info *t = side(c, def->flags);
  *ret = t != NULL && t->dane ? STR("yes") : STR("no");
  return 0;
}

static struct x509_st *certificate(const struct ctx *c, const struct variable_def *def) {
  const struct tls_info *t = side(c, def->flags);
  return t == NULL ? NULL : (def->flags & 255) == 'o' ? t->own_cert : t->peer_cert;
}

/* The DER form. */
static int get_certificate(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct x509_st *cert = certificate(c, def);
  *ret = cert != NULL ? tls_certificate_der(c->arena, cert) : STR_EMPTY;
  return 0;
}

/* {field} {$variable} {yes} {no}: the second is a name, not a string. */
struct certextract_item {
  const struct expr *field;
  struct str name;
  const struct variable_def *variable;
  const struct expand_branches *branches;
};

static const void *compile_certextract(struct expand_compiler *k, const struct expand_item_def *def) {
  struct certextract_item *x = arena_new_of(k->arena, struct certextract_item);
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for field arg of certextract");
  if ((x->field = expand_compile_string(k)) == NULL)
    return NULL;
  if (!expand_accept(k, '{'))
    return expand_compile_error(k, "missing '{' for cert variable arg of certextract");
  struct str rest = expand_rest(k);
  if (rest.len == 0 || rest.p[0] != '$')
    return expand_compile_error(k, "second argument of \"certextract\" must be a certificate variable");
  ptrdiff_t close = str_find_byte(rest, '}');
  if (close < 0)
    return expand_compile_error(k, "missing '}' closing cert variable arg of certextract");
  x->name = str_slice(rest, 1, (size_t)close);
  x->variable = find_variable(x->name);
  expand_advance(k, (size_t)close + 1);
  x->branches = expand_compile_branches(k, def->name);
  return x->branches == NULL ? NULL : x;
}

static const struct variable_def *variable_of(const struct expr *e) {
  return e->n == 1 && e->nodes[0].kind == NODE_VARIABLE ? e->nodes[0].variable : NULL;
}

bool variable_is_certificate(const struct expr *e) {
  const struct variable_def *v = variable_of(e);
  return v != NULL && v->get == get_certificate;
}

static int eval_certextract(struct ctx *c, const struct expand_item_def *def, const struct expand_args *args, struct buf *out) {
  const struct certextract_item *x = args->custom;
  struct str field, value = STR_EMPTY;
  int rc = expand_arg(c, x->field, &field);
  if (rc != 0)
    return rc;
  const struct variable_def *v = x->variable;
  if (v == NULL)
    return ctx_fail(c, OUTCOME_ERROR, "no variable named \"%.*s\"", STRF(x->name));
  if (v->get != get_certificate)
    return ctx_fail(c, OUTCOME_ERROR, "\"%s\" is not a certificate", v->name);
  struct x509_st *cert = certificate(c, v);
  bool found = false;
  if (cert != NULL) {
    enum tls_field_result result = tls_certificate_field(c->arena, cert, str_trim(field), &value);
    if (result == TLS_FIELD_UNKNOWN)
      return ctx_fail(c, OUTCOME_ERROR, "bad field selector \"%.*s\" for certextract", STRF(field));
    found = result == TLS_FIELD_OK;
  }
  struct expand_scope *saved = expand_scope_begin(c);
  c->expand.value = value;
  struct expand_args branches = {.branches = x->branches};
  rc = expand_yes_no(c, &branches, def->name, found, value, out);
  expand_scope_end(c, saved);
  return rc;
}

#define TEXT(name, member)                                                                                             \
  {"tls_in_" name, get_text, offsetof(struct tls_info, member), SIDE_IN},                                              \
  {"tls_out_" name, get_text, offsetof(struct tls_info, member), SIDE_OUT}
#define NUMBER(name, letter)                                                                                           \
  {"tls_in_" name, get_number, 0, SIDE_IN | letter}, {"tls_out_" name, get_number, 0, SIDE_OUT | letter}

#define CERTIFICATE(name, letter)                                                                                      \
  {"tls_in_" name, get_certificate, 0, SIDE_IN | letter}, {"tls_out_" name, get_certificate, 0, SIDE_OUT | letter}

static const struct variable_def variables[] = {
  CERTIFICATE("ourcert", 'o'),
  CERTIFICATE("peercert", 'p'),
  NUMBER("bits", 'b'),
  NUMBER("certificate_verified", 'v'),
  NUMBER("ocsp", 'o'),
  NUMBER("resumption", 'r'),
  TEXT("cipher", cipher),
  TEXT("cipher_std", cipher_std),
  TEXT("peerdn", peer_dn),
  TEXT("sni", sni),
  TEXT("ver", version),
  {"tls_out_dane", get_dane, 0, SIDE_OUT},
  {"tls_out_tlsa_usage", get_number, 0, SIDE_OUT | 'u'},
  {"tls_bits", get_number, 0, 'b'},
  {"tls_certificate_verified", get_number, 0, 'v'},
  {"tls_cipher", get_text, offsetof(struct tls_info, cipher)},
  {"tls_peerdn", get_text, offsetof(struct tls_info, peer_dn)},
  {"tls_sni", get_text, offsetof(struct tls_info, sni)},
  {0},
};

static const struct expand_item_def items[] = {
  {"certextract", 0, 0, 0, compile_certextract, eval_certextract},
  {0},
};

const struct module expand_tls_module = {
  .name = "expand-tls",
  .summary = "TLS in expansions",
  .variables = variables,
  .items = items,
};
