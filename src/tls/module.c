#include "tls/module.h"

#include "config/config.h"
#include "core/main_options.h"
#include "core/module.h"
#include "tls/tls.h"

static int check(struct config_reader *r, void *block) {
  const struct main_options *o = main_options(config_reader_config(r));
  struct str ciphers = o->tls_require_ciphers.text, error, bad;
  uint64_t options;
  int rc = 0;
  if (!tls_options_parse(o->openssl_options, &options, &bad))
    rc = config_error(r, "openssl_options parse error: unknown item \"%.*s\"", STRF(bad));
  /* What is expanded is only known when it is used. */
  if (ciphers.len && str_find_byte(ciphers, '$') < 0 && !tls_ciphers_valid(config_reader_arena(r), ciphers, &error))
    rc = config_error(r, "tls_require_ciphers invalid: %.*s", STRF(error));
  return rc;
}

static const char *const macros[] = {"_HAVE_TLS", "_HAVE_OPENSSL", "_HAVE_TLS_ALPN", NULL};

const struct module tls_module = {
    .name = "tls",
    .summary = "TLS with OpenSSL",
    .support = "OpenSSL",
    .main_check = check,
    .macros = macros,
};
