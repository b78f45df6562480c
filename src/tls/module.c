#include "tls/module.h"

#include <openssl/crypto.h>
#include <openssl/opensslv.h>
#include <stdio.h>

#include "config/config.h"
#include "core/main_options.h"
#include "core/module.h"
#include "tls/tls.h"

#define PERIOD_MIN 2
#define PERIOD_MAX (7 * 86400) /* RFC 8446, section 4.6.1 */

static const struct option_def main_table[] = {
    {"tls_ocsp_refresh", OPTION_STRING, offsetof(struct tls_main_options, tls_ocsp_refresh)},
    {"tls_ticket_period", OPTION_TIME, offsetof(struct tls_main_options, tls_ticket_period), "1h"},
    {"tls_ticket_servers", OPTION_STRING, offsetof(struct tls_main_options, tls_ticket_servers)},
    {0},
};

const struct tls_main_options *tls_main_options(const struct config *config) { return config_block(config, &tls_module); }

static int check(struct config_reader *r, void *block) {
  const struct tls_main_options *own = block;
  const struct main_options *o = main_options(config_reader_config(r));
  struct str ciphers = o->tls_require_ciphers.text, error, bad;
  uint64_t options;
  int rc = 0;
  if (str_find_byte(o->openssl_options.text, '$') < 0 && !tls_options_parse(o->openssl_options.text, &options, &bad))
    rc = config_error(r, "openssl_options parse error: unknown item \"%.*s\"", STRF(bad));
  /* What is expanded is only known when it is used. */
  if (ciphers.len && str_find_byte(ciphers, '$') < 0 && !tls_ciphers_valid(config_reader_arena(r), ciphers, &error))
    rc = config_error(r, "tls_require_ciphers invalid: %.*s", STRF(error));
  if (own->tls_ocsp_refresh.len && own->tls_ocsp_refresh.p[0] != '/')
    rc = config_error(r, "tls_ocsp_refresh is not the absolute path of a program");
  if (own->tls_ocsp_refresh.len && (o->tls_ocsp_file.text.len == 0 || str_find_byte(o->tls_ocsp_file.text, '$') >= 0))
    rc = config_error(r, "tls_ocsp_refresh needs a tls_ocsp_file that is not expanded");
  if (own->tls_ticket_period < PERIOD_MIN || own->tls_ticket_period > PERIOD_MAX)
    rc = config_error(r, "tls_ticket_period must be between %d seconds and %d days", PERIOD_MIN, PERIOD_MAX / 86400);
  return rc;
}

#define MACROS_MAX 128

static const char *macros[MACROS_MAX + 1] = {"_HAVE_TLS", "_HAVE_OPENSSL", "_HAVE_TLS_ALPN", "_HAVE_TLS1_3", "_HAVE_OCSP", "_HAVE_TLS_OCSP",
    "_HAVE_TLS_OCSP_LIST", "_HAVE_TLS_CA_CACHE", "_HAVE_TLS_RESUME",
    /* Element N of the list is what the value N of $tls_in_resumption means. */
    "_RESUME_DECODE=not requested or offered : 0x02 :client requested, no server ticket: 0x04 : 0x05 : 0x06 "
    ":client offered session, no server action: 0x08 :no client request: 0x0A :client requested new ticket, server provided"
    ": 0x0C :client offered session, not used: 0x0E :client offered session, server only provided new ticket"
    ": 0x10 :session resumed unasked: 0x12 :session resumed unasked: 0x14 : 0x15 : 0x16 :session resumed"
    ": 0x18 :session resumed unasked: 0x1A :session resumed unasked: 0x1C :session resumed: 0x1E :session resumed, also new ticket"};

/* One for each item of openssl_options: _OPT_OPENSSL_NO_TICKET_X. */
__attribute__((constructor)) static void make_macros(void) {
  static char texts[MACROS_MAX][96];
  char name[64];
  size_t n = 10;
  for (size_t i = 0; n < MACROS_MAX && tls_option_macro_name(i, name); i++, n++) {
    snprintf(texts[i], sizeof texts[i], "_OPT_OPENSSL_%s_X", name);
    macros[n] = texts[i];
  }
}

static const char *runtime_version(void) { return OpenSSL_version(OPENSSL_VERSION); }

static const struct library_def libraries[] = {{"OpenSSL", OPENSSL_VERSION_TEXT, runtime_version}, {0}};

const struct module tls_module = {
    .name = "tls",
    .summary = "TLS with OpenSSL",
    .support = "OpenSSL OCSP TLS_resume",
    .main_options = main_table,
    .main_size = sizeof(struct tls_main_options),
    .main_check = check,
    .macros = macros,
    .libraries = libraries,
    .message_state = {.write_spool = tls_spool_write, .read_spool = tls_spool_read},
};
