/* TXT records that ask for TLS reports, and what the hints keep about connections. */
#include "smtp/client/tlsrpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct str text = str_n((const char *)data, size), uris[TLSRPT_URIS_MAX], value = text, key = str_cut(&value, '\n');
  struct tlsrpt_result r;
  int n = tlsrpt_record_parse(text, uris);
  for (int i = 0; i < n; i++)
    if (uris[i].len < 6 || uris[i].p < text.p || uris[i].p + uris[i].len > text.p + text.len)
      __builtin_trap();
  if (tlsrpt_decode(key, str_is_set(value) ? value : STR_EMPTY, &r) && (r.count <= 0 || r.domain.len == 0))
    __builtin_trap();
  struct tlsrpt_uri uri;
  if (tlsrpt_https_parse(text, &uri) && (uri.port < 1 || uri.port > 65535 || uri.host.len == 0 || uri.host.p < text.p ||
                                         uri.host.p + uri.host.len > text.p + text.len || str_find_byte(uri.host, ',') >= 0))
    __builtin_trap();
  return 0;
}
