/* The keys of session tickets. Of this room only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct ticket_key {
  unsigned char name[16], cipher[32], mac[32];
};

/* A copy of the key of this name, or with NULL of the one in use. 0: unknown; 1; 2: it is an old one. */
int ticket_key_get(const unsigned char *name, struct ticket_key *ret);
/* Seconds for which a key makes tickets (tls_ticket_period). */
int64_t ticket_period(void);
