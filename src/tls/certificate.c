#include "tls/certificate.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <time.h>
#include "base/arena.h"
#include "base/buf.h"

#define FIELD_MAX (64u << 10)

/* What stands behind the field's name. */
struct modifiers {
  struct str tag; /* "CN", "int", "dns" … */
  char separator;
};

static bool read_modifiers(struct str text, struct modifiers *ret) {
  *ret = (struct modifiers){STR_UNSET, '\n'};
  while (str_is_set(text)) {
    struct str m = str_trim(str_cut(&text, ','));
    if (m.len == 0)
      continue;
    if (m.p[0] == '>') {
      /* The separator may itself be a comma. */
      if (m.len == 1 && str_is_set(text))
        ret->separator = ',';
      else if (m.len == 2)
        ret->separator = m.p[1];
      else
        return false;
    } else if (!str_is_set(ret->tag)) {
      ret->tag = m;
    } else {
      return false;
    }
  }
  return true;
}

/* The memory of a BIO as a string in `a`; frees the BIO. */
static struct str bio_text(struct arena *a, BIO *bio) {
  char *p;
  long n = BIO_get_mem_data(bio, &p);
  struct str s = str_tainted(str_dup(a, str_n(p, n > 0 ? (size_t)n : 0)));
  BIO_free(bio);
  return s;
}

/* Adds an element to a list; separators in it are doubled. */
static void list_add(struct buf *b, bool *first, char separator, const char *tag, struct str element) {
  if (!*first)
    buf_add_byte(b, separator);
  *first = false;
  if (tag)
    buf_printf(b, "%s=", tag);
  for (size_t i = 0; i < element.len; i++) {
    buf_add_byte(b, element.p[i]);
    if (element.p[i] == separator)
      buf_add_byte(b, separator);
  }
}

static enum tls_field_result list_end(struct buf *b, bool empty, struct str *ret) {
  *ret = str_tainted(buf_str(b));
  return empty || b->overflow ? TLS_FIELD_ABSENT : TLS_FIELD_OK;
}

/* The parts of a name as RFC 2253 writes it, as a list with another separator. */
static struct str name_list(struct arena *a, struct str text, char separator) {
  struct buf b;
  buf_init(&b, a, FIELD_MAX);
  for (size_t i = 0; i < text.len; i++) {
    bool escaped = text.p[i] == '\\' && i + 1 < text.len;
    if (escaped)
      buf_add_byte(&b, text.p[i++]);
    bool cut = !escaped && text.p[i] == ',';
    buf_add_byte(&b, cut ? separator : text.p[i]);
    if (!cut && text.p[i] == separator)
      buf_add_byte(&b, separator);
  }
  return str_tainted(buf_str(&b));
}

static enum tls_field_result name_field(struct arena *a, const X509_NAME *name, const struct modifiers *m,
    struct str *ret) {
  if (!str_is_set(m->tag)) {
    BIO *bio = BIO_new(BIO_s_mem());
    X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    *ret = bio_text(a, bio);
    if (m->separator != '\n' && m->separator != ',')
      *ret = name_list(a, *ret, m->separator);
    return TLS_FIELD_OK;
  }
  int nid = OBJ_txt2nid(str_dup_c(a, m->tag));
  if (nid == NID_undef)
    return TLS_FIELD_UNKNOWN;
  struct buf b;
  bool empty = true;
  buf_init(&b, a, FIELD_MAX);
  for (int i = -1; (i = X509_NAME_get_index_by_NID((X509_NAME *)(uintptr_t)name, nid, i)) >= 0;) {
    unsigned char *text = NULL;
    int n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)));
    if (n >= 0)
      list_add(&b, &empty, m->separator, NULL, str_n((char *)text, (size_t)n));
    OPENSSL_free(text);
  }
  return list_end(&b, empty, ret);
}

static enum tls_field_result time_field(struct arena *a, const ASN1_TIME *t, const struct modifiers *m,
    struct str *ret) {
  struct tm tm;
  if (!ASN1_TIME_to_tm(t, &tm))
    return TLS_FIELD_ABSENT;
  time_t seconds = timegm(&tm);
  if (str_eq_c(m->tag, "int")) {
    *ret = str_tainted(str_printf(a, "%lld", (long long)seconds));
    return TLS_FIELD_OK;
  }
  if (str_eq_c(m->tag, "raw")) {
    BIO *bio = BIO_new(BIO_s_mem());
    ASN1_TIME_print(bio, t);
    *ret = bio_text(a, bio);
    return TLS_FIELD_OK;
  }
  if (str_is_set(m->tag))
    return TLS_FIELD_UNKNOWN;
  char text[64];
  localtime_r(&seconds, &tm);
  strftime(text, sizeof text, "%b %e %T %Y %z", &tm);
  *ret = str_tainted(str_dup(a, str_c(text)));
  return TLS_FIELD_OK;
}

static struct str asn1_view(const ASN1_STRING *s) {
  return str_n((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static enum tls_field_result altname_field(struct arena *a, const X509 *cert, const struct modifiers *m,
    struct str *ret) {
  static const struct {
    int type;
    const char *tag, *modifier;
  } kinds[] = {{GEN_DNS, "DNS", "dns"}, {GEN_URI, "URI", "uri"}, {GEN_EMAIL, "MAIL", "mail"}};
  struct buf b;
  bool empty = true, known = !str_is_set(m->tag);
  buf_init(&b, a, FIELD_MAX);
  for (size_t k = 0; k < 3; k++)
    known |= str_ieq_c(m->tag, kinds[k].modifier);
  if (!known)
    return TLS_FIELD_UNKNOWN;
  GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
  for (int i = sk_GENERAL_NAME_num(names) - 1; i >= 0; i--) { /* Exim's order: the last one first */
    int type;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
    for (size_t k = 0; k < 3; k++) {
      if (kinds[k].type != type || (str_is_set(m->tag) && !str_ieq_c(m->tag, kinds[k].modifier)))
        continue;
      list_add(&b, &empty, m->separator, str_is_set(m->tag) ? NULL : kinds[k].tag, asn1_view(value));
    }
  }
  GENERAL_NAMES_free(names);
  return list_end(&b, empty, ret);
}

static enum tls_field_result ocsp_field(struct arena *a, const X509 *cert, const struct modifiers *m,
    struct str *ret) {
  struct buf b;
  bool empty = true;
  buf_init(&b, a, FIELD_MAX);
  AUTHORITY_INFO_ACCESS *info = X509_get_ext_d2i(cert, NID_info_access, NULL, NULL);
  for (int i = 0; i < sk_ACCESS_DESCRIPTION_num(info); i++) {
    const ACCESS_DESCRIPTION *d = sk_ACCESS_DESCRIPTION_value(info, i);
    if (OBJ_obj2nid(d->method) == NID_ad_OCSP && d->location->type == GEN_URI)
      list_add(&b, &empty, m->separator, NULL, asn1_view(d->location->d.uniformResourceIdentifier));
  }
  AUTHORITY_INFO_ACCESS_free(info);
  return list_end(&b, empty, ret);
}

static enum tls_field_result crl_field(struct arena *a, const X509 *cert, const struct modifiers *m,
    struct str *ret) {
  struct buf b;
  bool empty = true;
  buf_init(&b, a, FIELD_MAX);
  CRL_DIST_POINTS *points = X509_get_ext_d2i(cert, NID_crl_distribution_points, NULL, NULL);
  for (int i = 0; i < sk_DIST_POINT_num(points); i++) {
    const DIST_POINT *p = sk_DIST_POINT_value(points, i);
    const GENERAL_NAMES *names = p->distpoint && p->distpoint->type == 0 ? p->distpoint->name.fullname : NULL;
    for (int k = 0; k < sk_GENERAL_NAME_num(names); k++) {
      int type;
      const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, k), &type);
      if (type == GEN_URI)
        list_add(&b, &empty, m->separator, NULL, asn1_view(value));
    }
  }
  CRL_DIST_POINTS_free(points);
  return list_end(&b, empty, ret);
}

static enum tls_field_result serial_field(struct arena *a, const X509 *cert, struct str *ret) {
  BIO *bio = BIO_new(BIO_s_mem());
  i2a_ASN1_INTEGER(bio, X509_get0_serialNumber(cert));
  struct str s = bio_text(a, bio);
  while (s.len > 1 && s.p[0] == '0')
    s = str_from(s, 1);
  *ret = str_lower(a, s);
  return TLS_FIELD_OK;
}

static enum tls_field_result signature_field(struct arena *a, const X509 *cert, bool algorithm, struct str *ret) {
  const ASN1_BIT_STRING *signature;
  const X509_ALGOR *algor;
  X509_get0_signature(&signature, &algor, cert);
  if (algorithm) {
    BIO *bio = BIO_new(BIO_s_mem());
    i2a_ASN1_OBJECT(bio, algor->algorithm);
    *ret = bio_text(a, bio);
  } else {
    struct str raw = asn1_view(signature);
    struct buf b;
    buf_init(&b, a, FIELD_MAX);
    for (size_t i = 0; i < raw.len; i++)
      buf_printf(&b, "%s%02x", i ? ":" : "", (unsigned char)raw.p[i]);
    *ret = str_tainted(buf_str(&b));
  }
  return TLS_FIELD_OK;
}

enum tls_field_result tls_certificate_field(struct arena *a, struct x509_st *cert, struct str field, struct str *ret) {
  struct modifiers m;
  struct str name = str_trim(str_cut(&field, ','));
  if (!read_modifiers(field, &m))
    return TLS_FIELD_UNKNOWN;
  if (str_eq_c(name, "version")) {
    *ret = str_tainted(str_printf(a, "%ld", X509_get_version(cert)));
    return TLS_FIELD_OK;
  }
  if (str_eq_c(name, "serial_number"))
    return serial_field(a, cert, ret);
  if (str_eq_c(name, "subject"))
    return name_field(a, X509_get_subject_name(cert), &m, ret);
  if (str_eq_c(name, "issuer"))
    return name_field(a, X509_get_issuer_name(cert), &m, ret);
  if (str_eq_c(name, "notbefore"))
    return time_field(a, X509_get0_notBefore(cert), &m, ret);
  if (str_eq_c(name, "notafter"))
    return time_field(a, X509_get0_notAfter(cert), &m, ret);
  if (str_eq_c(name, "sig_algorithm") || str_eq_c(name, "signature"))
    return signature_field(a, cert, str_eq_c(name, "sig_algorithm"), ret);
  if (str_eq_c(name, "subj_altname"))
    return altname_field(a, cert, &m, ret);
  if (str_eq_c(name, "ocsp_uri"))
    return ocsp_field(a, cert, &m, ret);
  if (str_eq_c(name, "crl_uri"))
    return crl_field(a, cert, &m, ret);
  return TLS_FIELD_UNKNOWN;
}

struct str tls_certificate_der(struct arena *a, struct x509_st *cert) {
  unsigned char *der = NULL;
  int n = i2d_X509(cert, &der);
  struct str s = str_tainted(str_dup(a, str_n((char *)der, n > 0 ? (size_t)n : 0)));
  OPENSSL_free(der);
  return s;
}
