/* What all signatures that are made share: private keys, the signature itself,
folded tag lists, and which fields of a header are covered. */
#pragma once

#include <openssl/evp.h>

#include "core/ctx.h"
#include "core/module.h"
#include "mailauth/canon.h"
#include "mailauth/dkim.h"

#define SIGN_DEFAULT_HEADERS \
  "From:Sender:Reply-To:Subject:Date:Message-ID:To:Cc:MIME-Version:Content-Type:Content-Transfer-Encoding:Content-ID:" \
  "Content-Description:Resent-Date:Resent-From:Resent-Sender:Resent-To:Resent-Cc:Resent-Message-ID:In-Reply-To:References:" \
  "List-Id:List-Help:List-Unsubscribe:List-Subscribe:List-Post:List-Owner:List-Archive"
#define SIGN_OVERSIGN_HEADERS \
  "+From:+Sender:+Reply-To:+Subject:+Date:+Message-ID:+To:+Cc:+MIME-Version:+Content-Type:" \
  "+Content-Transfer-Encoding:+Content-ID:+Content-Description:+Resent-Date:+Resent-From:+Resent-Sender:" \
  "+Resent-To:+Resent-Cc:+Resent-Message-ID:+In-Reply-To:+References:+List-Id:+List-Help:" \
  "+List-Unsubscribe:+List-Subscribe:+List-Post:+List-Owner:+List-Archive"

/* Options of a transport that hold private keys or name their files. Their number. */
#define SIGN_KEY_OPTIONS 3
struct sign_key_option {
  const char *name;
  const struct option_expr *expr;
};
size_t sign_key_options(const struct instance *t, struct sign_key_option ret[SIGN_KEY_OPTIONS]);

struct sign_key {
  EVP_PKEY *pkey; /* freed with the arena */
  enum dkim_key_type type;
};
/* A private key (RSA or Ed25519) as options give it: PEM text, base64 of its DER form, or the absolute name of a file with
either; with key_isolation a file only, which another process has read. Lives in c->arena. [suspends] OUTCOME_FAIL: "0", "false" or empty, which ask for no signature; OUTCOME_ERROR with c->error. */
int sign_key_load(struct ctx *c, struct str text, struct sign_key *ret) MUST_CHECK;
/* The signature of the data, in base64; unset when the library (or the keys process) fails. [suspends] */
struct str sign_make(struct arena *a, const struct sign_key *key, const EVP_MD *md, struct str data);

/* The same of a digest that is there. */
struct str sign_make_digest(struct arena *a, const struct sign_key *key, const EVP_MD *md, const unsigned char *digest, unsigned n);

/* Header fields of a header with LF line ends, in their order: views of it. */
struct sign_fields {
  struct str *v;
  size_t n;
};
struct sign_fields sign_fields(struct arena *a, struct str head);
/* The names for h=, in Exim's order: fields that are there from the last to the first, each as it is spelt; then names that no
field is there for. In the list (colons between) "=Name" takes all fields of that name, "+Name" all and one more that must not
come later. `missing`: are names without a field wanted at all? */
struct str sign_header_names(struct arena *a, const struct sign_fields *f, struct str list, bool missing);

/* A tag list under construction, folded at column 78; line ends are LF. */
struct sign_text {
  struct buf *out;
  size_t column;
};
/* A tag, its value and ";". `between`: NULL, the value is never broken; "", anywhere, if no line can hold it; else only behind
one of these, and it begins where the line is. */
void sign_text_tag(struct sign_text *t, const char *tag, struct str value, const char *between);
/* The same in steps, for what is computed over the text before it; `with` more bytes have to go on the tag's line. */
void sign_text_open(struct sign_text *t, const char *tag, size_t with);
void sign_text_fill(struct sign_text *t, struct str value, const char *between);
void sign_text_end(struct sign_text *t);

/* What goes out, while modules' parts are made (sign_module.c). */
struct sign_job {
  struct ctx *c;
  struct message_signing *s;
  struct body_hashes hashes;
  struct str label;     /* for the log line: "dom:sel:dom:sel" */
};

/* ---- DomainKeys (domainkeys_sign.c) ---- */

struct dk_sign_options {
  struct option_expr canon, domain, private_key, selector, strict;
};
struct dk_sign;
/* Once the header is ready: expands the options. *ret is NULL when nothing is to be signed. OUTCOME_OK; OUTCOME_ERROR: it
cannot be signed, which has been logged. [suspends] */
int dk_sign_prepare(struct sign_job *j, const struct dk_sign_options *o, struct dk_sign **ret) MUST_CHECK;
void dk_sign_body(struct dk_sign *d, struct str piece);
/* The field; unset after a failure, which has been logged. */
struct str dk_sign_field(struct sign_job *j, struct dk_sign *d);
bool dk_sign_is_strict(struct ctx *c, const struct dk_sign_options *o);

/* ---- DKIM (dkim_sign.c) ---- */

struct dkim_sign_options {
  struct option_expr domain, selector, private_key, canon, strict, sign_headers, hash, identity, timestamps;
};
struct dkim_sign;
/* Expands the options for all domains and selectors, and says which hashes are wanted. *ret is NULL when nothing is to be
signed. OUTCOME_OK; OUTCOME_ERROR with c->error: the message cannot be signed, which has been logged. [suspends] */
int dkim_sign_prepare(struct sign_job *j, const struct dkim_sign_options *o, struct dkim_sign **ret) MUST_CHECK;
/* The signature fields, first listed first, once the hashes are done. Unset after a failure, which has been logged. */
struct str dkim_sign_fields(struct sign_job *j, const struct dkim_sign *first, const struct sign_fields *f);
/* Does the option dkim_strict ask for a deferment? [suspends] */
bool dkim_sign_is_strict(struct ctx *c, const struct dkim_sign_options *o);
