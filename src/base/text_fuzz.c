/* All readers of single texts in base: no crash, and what one writes the other reads. */
#include <stdlib.h>
#include "base/arena.h"
#include "base/encode.h"
#include "base/ip.h"
#include "base/time.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct arena *a = arena_new("fuzz");
  struct str s = str_n((const char *)data, size), out;
  struct ip_addr ip, again;
  int n;
  uint64_t v;
  if (ip_parse(s, &ip) && !ip.scope)
    check(ip_parse(ip_text(a, &ip), &again) && ip_eq(&ip, &again));
  ip_parse_masked(s, &ip, &n);
  ip_parse_port(s, &ip, &n);
  int64_t seconds = time_parse_interval(s);
  if (seconds >= 0)
    check(time_parse_interval(time_format_interval(a, seconds)) == seconds);
  base64_decode(a, s, false, &out);
  base64_decode(a, s, true, &out);
  check(base64_decode(a, base64_encode(a, s), false, &out) && str_eq(out, s));
  hex_decode(a, s, &out);
  check(hex_decode(a, hex_encode(a, s), &out) && str_eq(out, s));
  xtext_decode(a, s, &out);
  check(xtext_decode(a, xtext_encode(a, s), &out) && str_eq(out, s));
  url_decode(a, s, &out);
  check(url_decode(a, url_encode(a, s), &out) && str_eq(out, s));
  if (base62_read(s, &v)) {
    char text[64];
    uint64_t back;
    check(base62_read(str_n(text, base62_write(text, v, 6)), &back) && back == v);
  }
  base32_read(s, &v);
  printable(a, s, false);
  arena_free(a);
  return 0;
}
