/* What a message in the queue still knows of the TLS session it came by: the
-tls_… lines of its -H file (manual, "Format of the -H file"). */
#include "core/module.h"
#include "message/message.h"
#include "queue/spool.h"
#include "queue/spool_codec.h"
#include "tls/module.h"
#include "tls/tls.h"

static void write_text(struct spool_writer *w, const char *name, struct str value) {
  if (value.len)
    spool_write_item(w, name, value);
}

void tls_spool_write(struct spool_writer *w, const struct message *m, const void *state) {
  const struct tls_info *t = m->client.tls;
  if (!t)
    return;
  const char letter = (char)('A' + t->resumption);
  const char digit = (char)('0' + t->ocsp);
  if (t->peer_verified)
    spool_write_item(w, "tls_certificate_verified", STR_EMPTY);
  write_text(w, "tls_cipher", t->cipher);
  if (t->ocsp)
    spool_write_item(w, "tls_ocsp", str_n(&digit, 1));
  write_text(w, "tls_peerdn", t->peer_dn);
  write_text(w, "tls_sni", t->sni);
  if (t->resumption)
    spool_write_item(w, "tls_resumption", str_n(&letter, 1));
  write_text(w, "tls_ver", t->version);
}

/* "TLS1.3:TLS_AES_256_GCM_SHA384:256" holds the version and the bits too; the names of TLS 1.3 are the standard ones. */
static void split_cipher(struct tls_info *t) {
  struct str rest = t->cipher;
  uint64_t bits;
  t->version = str_cut(&rest, ':');
  struct str name = str_cut(&rest, ':');
  if (str_is_set(rest) && str_to_u64(rest, &bits) && bits < 10000)
    t->bits = (int)bits;
  if (str_starts(name, STR("TLS_")))
    t->cipher_std = name;
}

bool tls_spool_read(struct spool_reader *r, struct message *m, void *state, struct str name, struct str value) {
  struct tls_info *t = m->client.tls;
  bool verified = str_eq_c(name, "tls_certificate_verified"), cipher = str_eq_c(name, "tls_cipher");
  if (!t && !verified && !cipher)
    return false;
  if (!t) {
    t = m->client.tls = arena_new_of(m->arena, struct tls_info);
    t->server = true;
  }
  struct str text = str_dup(m->arena, value);
  text.taint = r->tainted ? STR_TAINTED : 0;
  if (verified) {
    t->verify_wanted = t->peer_verified = true;
  } else if (cipher) {
    t->cipher = text;
    split_cipher(t);
  } else if (str_eq_c(name, "tls_peerdn")) {
    t->peer_dn = str_tainted(text);
  } else if (str_eq_c(name, "tls_sni")) {
    t->sni = str_tainted(text);
  } else if (str_eq_c(name, "tls_ocsp") && value.len == 1 && value.p[0] >= '0' && value.p[0] <= '4') {
    t->ocsp = value.p[0] - '0';
  } else if (str_eq_c(name, "tls_ver")) {
    t->version = text;
  } else if (str_eq_c(name, "tls_resumption") && value.len == 1 && value.p[0] >= 'A' && value.p[0] < 'A' + 32) {
    t->resumption = value.p[0] - 'A';
  } else {
    return false;
  }
  return true;
}
