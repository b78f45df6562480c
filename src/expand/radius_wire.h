/* RADIUS packets for checking a password (RFC 2865, with the Message-Authenticator of RFC 3579 section 3.2). */
#pragma once

#include "base/buf.h"

#define RADIUS_PACKET_MAX 4096u
#define RADIUS_USER_MAX 253u
#define RADIUS_PASSWORD_MAX 128u
#define RADIUS_AUTHENTICATOR 16u

enum radius_code { RADIUS_REQUEST = 1, RADIUS_ACCEPT = 2, RADIUS_REJECT = 3, RADIUS_CHALLENGE = 11 };

struct radius_request {
  unsigned char id, authenticator[RADIUS_AUTHENTICATOR];
  struct str secret, user, password, nas; /* user and password of at most their lengths, nas of at most RADIUS_USER_MAX */
};

/* The Access-Request into `out` (RADIUS_PACKET_MAX). */
void radius_build(const struct radius_request *q, struct buf *out);
/* Is `packet` an answer to this request, by somebody who knows the secret? Its code, -EPROTO (no RADIUS packet, or another
request's), or -EBADMSG (an authenticator is wrong, or the Message-Authenticator is missing and `strict`). */
int radius_check(const struct radius_request *q, struct str packet, bool strict);
