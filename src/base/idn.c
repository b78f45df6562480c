#include "base/idn.h"

#include <idn2.h>

#include "base/arena.h"
#include "base/punycode.h"

#define DOMAIN_MAX 1024u /* in UTF-8; the DNS's own limit is checked behind the conversion */

bool str_is_ascii(struct str s) {
  for (size_t i = 0; i < s.len; i++)
    if ((unsigned char)s.p[i] >= 0x80)
      return false;
  return true;
}

/* Length of the character at the start, 0: it is none. The second byte's range keeps out overlong forms, surrogates and
what is too large (RFC 3629 4). */
static size_t character(const unsigned char *p, size_t left) {
  unsigned char c = p[0];
  if (c < 0x80)
    return 1;
  size_t n = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
  if (n == 0 || n > left)
    return 0;
  unsigned char least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
  if (p[1] < least || p[1] > most)
    return 0;
  for (size_t i = 2; i < n; i++)
    if ((p[i] & 0xc0) != 0x80)
      return 0;
  return n;
}

bool utf8_valid(struct str s) {
  for (size_t i = 0, n; i < s.len; i += n) {
    n = character((const unsigned char *)s.p + i, s.len - i);
    if (n == 0)
      return false;
  }
  return true;
}

bool idn_domain_to_ascii(struct arena *a, struct str domain, struct str *ret, const char **ret_error) {
  uint8_t *text = NULL;
  *ret_error = NULL;
  *ret = domain;
  if (str_is_ascii(domain))
    return true;
  if (domain.len > DOMAIN_MAX || str_find_byte(domain, '\0') >= 0) {
    *ret_error = "domain name is too long";
    return false;
  }
  int rc = idn2_lookup_u8((const uint8_t *)str_dup_c(a, domain), &text, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
  if (rc != IDN2_OK) {
    *ret_error = idn2_strerror(rc);
    return false;
  }
  *ret = str_dup(a, str_c((char *)text));
  ret->taint = domain.taint;
  idn2_free(text);
  return true;
}

bool idn_local_part_to_ascii(struct arena *a, struct str local_part, struct str *ret) {
  struct str code;
  *ret = local_part;
  if (str_is_ascii(local_part))
    return true;
  if (!punycode_encode(a, local_part, &code))
    return false;
  *ret = str_cat(a, STR("xn--"), code);
  ret->taint = local_part.taint;
  return true;
}

bool idn_address_to_ascii(struct arena *a, struct str address, struct str *ret, const char **ret_error) {
  ptrdiff_t at = str_rfind_byte(address, '@');
  struct str local, domain = STR_EMPTY;
  *ret_error = NULL;
  *ret = address;
  if (str_is_ascii(address))
    return true;
  if (!idn_local_part_to_ascii(a, at < 0 ? address : str_slice(address, 0, (size_t)at), &local)) {
    *ret_error = "bad UTF-8 input";
    return false;
  }
  if (at >= 0 && !idn_domain_to_ascii(a, str_from(address, (size_t)at + 1), &domain, ret_error))
    return false;
  *ret = at < 0 ? local : str_cat(a, str_cat(a, local, STR("@")), domain);
  ret->taint = address.taint;
  return true;
}
