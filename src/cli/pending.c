/* Retry rules are about to land: until then everything may be tried at any time. Weak, so that the real functions replace these. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define PENDING(name)                                                                                                  \
  __attribute__((weak)) int name(void);                                                                                \
  __attribute__((weak)) int name(void) {                                                                               \
    fprintf(stderr, "martlet: %s is not supported yet\n", #name);                                                      \
    exit(1);                                                                                                           \
  }
#define NOTHING(name, value)                                                                                           \
  __attribute__((weak)) int name(void);                                                                                \
  __attribute__((weak)) int name(void) { return value; }
PENDING(tls_server_start)
PENDING(tls_client_start)
NOTHING(retry_host_ok, 0)
NOTHING(retry_host_failed, 0)
NOTHING(retry_hosts_exhausted, 0)
NOTHING(retry_host_ready, 1)
NOTHING(retry_address_ready, 1)
NOTHING(retry_address_succeeded, 0)
NOTHING(retry_address_deferred, 0)
