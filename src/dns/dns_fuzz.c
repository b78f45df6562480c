/* A reply from a name server: any bytes. The first two choose the type asked. */
#include <stdlib.h>
#include "dns/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const enum dns_type types[] = {DNS_A, DNS_NS, DNS_CNAME, DNS_SOA, DNS_PTR, DNS_MX, DNS_TXT, DNS_AAAA, DNS_SRV,
    DNS_TLSA, DNS_SPF, DNS_CAA};
  if (size < 1)
    return 0;
  enum dns_type type = types[data[0] % (sizeof types / sizeof *types)];
  struct arena *a = arena_new("fuzz");
  size_t n = size - 1;
  unsigned char *p = xmalloc(n + 1);
  memcpy(p, data + 1, n);
  /* The type in the question is made to fit, so that the rest is reached. */
  if (n >= 19)
    p[15] = (unsigned char)(type >> 8), p[16] = (unsigned char)type;
  struct dns_reply reply;
  if (dns_packet_read(a, p, n, STR("a"), type, &reply) == 0)
    for (size_t i = 0; i < reply.n; i++) {
      unsigned char query[DNS_QUERY_MAX];
      if (reply.v[i].text.len <= DNS_NAME_MAX * 4)
        dns_packet_query(query, 1, reply.v[i].text, type, true, true);
    }
  arena_free(a);
  free(p);
  return 0;
}
