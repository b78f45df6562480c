/* The DSCP value of a connection: in the TOS byte of IPv4, the traffic class of IPv6 (RFC 2474). */
#pragma once

#include <stdbool.h>
#include "base/str.h"

/* A name ("ef", "af41", "throughput" …) or a number from 0 to 0x3f. *ret is the value of the whole byte. */
bool dscp_parse(struct str text, int *ret);
/* The names in order, until NULL. */
const char *dscp_name(size_t i);
/* Marks what the socket sends. 0 or -errno; -EAFNOSUPPORT when it is no IP socket. */
int dscp_set(int fd, int value);
