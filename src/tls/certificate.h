/* Fields of certificates: ${certextract …}, and the md5, sha1 and sha256
operators on $tls_in_peercert. */
#pragma once

#include "base/str.h"

struct arena;
struct x509_st;

enum tls_field_result { TLS_FIELD_OK, TLS_FIELD_ABSENT, TLS_FIELD_UNKNOWN /* no such field or modifier */ };

/* A "time" may also have the modifier "raw": as the library prints it.
`field` is the name with its modifiers: "subject,CN", "notafter,int",
"subj_altname,dns,>;" (manual, "certextract"). *ret is in `a`, tainted. */
enum tls_field_result tls_certificate_field(struct arena *a, struct x509_st *cert, struct str field, struct str *ret);

/* The DER form; tainted. */
struct str tls_certificate_der(struct arena *a, struct x509_st *cert);
