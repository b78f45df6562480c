/* Messages of NTLM (Microsoft's MS-NLMP): reading, writing, and what proves the password. No I/O. */
#pragma once

#include "base/str.h"

struct arena;

#define NTLM_UNICODE 0x1u
#define NTLM_OEM 0x2u
#define NTLM_REQUEST_TARGET 0x4u
#define NTLM_NTLM 0x200u
#define NTLM_ALWAYS_SIGN 0x8000u
#define NTLM_TARGET_TYPE_SERVER 0x20000u
#define NTLM_TARGET_INFO 0x800000u

#define NTLM_CHALLENGE 8
#define NTLM_HASH 16
#define NTLM_RESPONSE 24     /* of version 1; those of version 2 are longer */
#define NTLM_MESSAGE_MAX 16384

struct ntlm_challenge {
  uint32_t flags;
  unsigned char challenge[NTLM_CHALLENGE];
  struct str target;         /* as it came */
  struct str target_info;    /* pairs, as they came */
};

struct ntlm_response {
  uint32_t flags;
  struct str lm, nt;
  struct str domain, user;   /* UTF-8 */
};

/* Readers: false when it is no such message. Texts are views, or in `a`; tainted as the input. */
bool ntlm_read_negotiate(struct str message, uint32_t *ret_flags);
bool ntlm_read_challenge(struct str message, struct ntlm_challenge *ret);
bool ntlm_read_response(struct arena *a, struct str message, struct ntlm_response *ret);

struct str ntlm_write_negotiate(struct arena *a, uint32_t flags);
/* `name`: of the server, UTF-8. */
struct str ntlm_write_challenge(struct arena *a, uint32_t flags, const unsigned char *challenge, struct str name);
struct str ntlm_write_response(struct arena *a, const struct ntlm_response *r, bool unicode);

/* UTF-8 and UTF-16 (little endian); what is not valid becomes U+FFFD. */
struct str ntlm_utf16(struct arena *a, struct str utf8);
struct str ntlm_utf8(struct arena *a, struct str utf16);

/* --- ntlm_crypt.c: MD4 and DES are OpenSSL's --- */
/* Are they to be had (the legacy provider)? */
bool ntlm_crypt_there(void);
/* Does the response fit the password and our challenge, by either version? */
bool ntlm_verify(struct arena *a, const struct ntlm_response *r, const unsigned char *challenge, struct str password);
/* The response to a challenge: version 2 when the server has said who it is. false: the library fails. */
bool ntlm_answer(struct arena *a, const struct ntlm_challenge *to, struct str user, struct str domain, struct str password,
    struct ntlm_response *ret);
