#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/arena.h"
#include "loop/child.h"
#include "tls/certificate.h"
#include "tls/tls.h"
#include "tls/tls_internal.h"

static struct arena *a;
static char dir[64];

/* --- certificates made for the tests --- */

static struct str path(const char *name) { return str_printf(a, "%s/%s", dir, name); }

static void write_pem(const char *name, X509 *cert, EVP_PKEY *key) {
  FILE *f = fopen(path(name).p, "w");
  assert_non_null(f);
  if (cert)
    assert_true(PEM_write_X509(f, cert));
  if (key)
    assert_true(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
  fclose(f);
}

static X509 *make_cert(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key, const char *altnames) {
  static long serial = 1000;
  X509 *c = X509_new();
  X509_set_version(c, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(c), serial++);
  X509_gmtime_adj(X509_getm_notBefore(c), -3600);
  X509_gmtime_adj(X509_getm_notAfter(c), 86400);
  X509_NAME *n = X509_get_subject_name(c);
  X509_NAME_add_entry_by_txt(n, "O", MBSTRING_ASC, (const unsigned char *)"Test, Inc", -1, -1, 0);
  X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
  X509_set_issuer_name(c, X509_get_subject_name(issuer ? issuer : c));
  X509_set_pubkey(c, key);
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer ? issuer : c, c, NULL, NULL, 0);
  X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
  X509_add_ext(c, e, -1);
  X509_EXTENSION_free(e);
  if (altnames) {
    e = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, altnames);
    X509_add_ext(c, e, -1);
    X509_EXTENSION_free(e);
  }
  assert_true(X509_sign(c, issuer_key ? issuer_key : key, EVP_sha256()));
  return c;
}

static int setup(void **state) {
  a = arena_new("test");
  snprintf(dir, sizeof dir, "/tmp/tls_test.XXXXXX");
  assert_non_null(mkdtemp(dir));
  EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048);
  X509 *ca = make_cert("Test CA", ca_key, NULL, NULL, NULL);
  X509 *server = make_cert("mail.example", key, ca, ca_key, "DNS:mail.example,DNS:*.wild.example,email:x@mail.example");
  X509 *rsa_server = make_cert("rsa.example", rsa, ca, ca_key, "DNS:rsa.example");
  X509 *client = make_cert("client.example", key, ca, ca_key, NULL);
  write_pem("ca.pem", ca, NULL);
  write_pem("server.pem", server, key);
  write_pem("cert_only.pem", server, NULL);
  write_pem("key.pem", NULL, key);
  write_pem("rsa.pem", rsa_server, rsa);
  write_pem("rsa_key.pem", NULL, rsa);
  write_pem("client.pem", client, key);
  X509_free(ca);
  X509_free(server);
  X509_free(rsa_server);
  X509_free(client);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(key);
  EVP_PKEY_free(rsa);
  return 0;
}

static int group_teardown(void **state) {
  static const char *const names[] = {"ca.pem", "server.pem", "cert_only.pem", "key.pem", "rsa.pem", "rsa_key.pem",
      "client.pem", "changing.pem"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    unlink(path(names[i]).p);
  rmdir(dir);
  arena_free(a);
  return 0;
}

static int teardown(void **state) {
  tls_cache_clear();
  loop_done();
  return 0;
}

/* --- a server and a client on a socket pair --- */

static struct side {
  struct stream *stream;
  struct tls_params p;
  struct tls_info *info;
  struct str error;
  int result;
} server, client;

static char verify_text[2000];
static void note_verify(void *arg, struct str text) {
  assert_true(str_is_tainted(text));
  size_t n = strlen(verify_text);
  snprintf(verify_text + n, sizeof verify_text - n, "%.*s|", STRF(text));
}

static void serve(void *arg) {
  server.result = tls_server_start(server.stream, &server.p, deadline_in(60), a, &server.info, &server.error);
  if (server.result < 0) {
    stream_free(server.stream);
    server.stream = NULL;
  }
}

static void begin(void) {
  int fds[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  server = (struct side){.stream = stream_new(fds[0], -1), .result = 1};
  client = (struct side){.stream = stream_new(fds[1], -1), .result = 1};
  server.p.certificate = path("server.pem");
  verify_text[0] = '\0';
}

/* Runs both handshakes. */
static void shake(void) {
  struct fiber *f = fiber_spawn_joinable("server", serve, NULL);
  client.result = tls_client_start(client.stream, &client.p, deadline_in(60), a, &client.info, &client.error);
  struct str line;
  int eol;
  if (client.result < 0) { /* the server learns it from the closed connection */
    stream_free(client.stream);
    client.stream = NULL;
  } else if (server.p.verify == TLS_VERIFY_REQUIRED || server.p.require_alpn) {
    /* With TLS 1.3 a client is ready before the server has judged it. */
    while (server.result == 1 && stream_read_line(client.stream, 10, loop_now_fresh() + 1000, &line, &eol) == -ETIMEDOUT)
      ;
  }
  fiber_join(f);
}

static void end(void) {
  stream_free(server.stream);
  stream_free(client.stream);
}

static void talk(void *arg) {
  for (int i = 0; i < 20000; i++)
    assert_int_equal(stream_printf(server.stream, "line %d\r\n", i), 0);
  assert_int_equal(stream_flush(server.stream), 0);
}

static int pair_main(void *arg) {
  struct str line;
  int eol;
  begin();
  client.p.sni = STR("some.example");
  shake();
  assert_int_equal(server.result, 0);
  assert_int_equal(client.result, 0);
  assert_str(server.info->version, "TLS1.3");
  assert_true(str_eq(server.info->cipher, client.info->cipher));
  assert_str(server.info->cipher, "TLS1.3:TLS_AES_256_GCM_SHA384:256");
  assert_str(server.info->cipher_std, "TLS_AES_256_GCM_SHA384");
  assert_int_equal(server.info->bits, 256);
  assert_str(server.info->sni, "some.example");
  assert_true(str_is_tainted(server.info->sni));
  assert_false(str_is_set(server.info->peer_dn));
  assert_str(client.info->peer_dn, "/O=Test, Inc/CN=mail.example");
  assert_true(client.info->peer_cert && server.info->own_cert && !server.info->peer_cert);
  assert_false(client.info->peer_verified || client.info->verify_wanted);
  assert_true(str_eq(client.info->channel_binding, server.info->channel_binding));
  assert_int_equal(client.info->channel_binding.len, 32);
  assert_string_equal(client.info->channel_binding_type, "tls-exporter");
  assert_false(stream_input_pending(client.stream));
  struct arena *longer = arena_new("test");
  struct tls_info *copy = tls_info_copy(longer, client.info);
  assert_true(copy != client.info && copy->peer_cert == client.info->peer_cert && copy->peer_dn.p != client.info->peer_dn.p);
  assert_true(str_eq(copy->peer_dn, client.info->peer_dn) && !str_is_set(copy->alpn));
  arena_free(longer);
  fiber_spawn("talk", talk, NULL);
  for (int i = 0; i < 20000; i++) {
    char want[32];
    snprintf(want, sizeof want, "line %d", i);
    assert_int_equal(stream_read_line(client.stream, 100, deadline_in(60), &line, &eol), 1);
    assert_str(line, want);
  }
  assert_int_equal(stream_read_line(client.stream, 100, loop_now_fresh() + 1000, &line, &eol), -ETIMEDOUT);
  assert_int_equal(stream_write(client.stream, STR("x")), 0);
  assert_int_equal(stream_flush(client.stream), 0);
  assert_int_equal(fiber_wait_fd(stream_fd(server.stream), FIBER_READ, deadline_in(60)), FIBER_READ);
  assert_true(stream_input_pending(server.stream));
  stream_free(client.stream);
  assert_int_equal(stream_read_line(server.stream, 100, deadline_in(60), &line, &eol), 1);
  assert_int_equal(stream_read_line(server.stream, 100, deadline_in(60), &line, &eol), 0);
  stream_free(server.stream);
  return 0;
}

static int verify_main(void *arg) {
  /* All good. */
  begin();
  client.p.verify_certificates = path("ca.pem");
  client.p.verify = TLS_VERIFY_REQUIRED;
  client.p.verify_host = STR("a.wild.example");
  client.p.on_verify_error = note_verify;
  shake();
  assert_int_equal(client.result, 0);
  assert_true(client.info->peer_verified);
  assert_string_equal(verify_text, "");
  end();
  /* The wrong name. */
  begin();
  client.p.verify_certificates = path("ca.pem");
  client.p.verify = TLS_VERIFY_OPTIONAL;
  client.p.verify_host = STR("other.example");
  client.p.on_verify_error = note_verify;
  shake();
  assert_int_equal(client.result, 0);
  assert_true(client.info->verify_wanted && !client.info->peer_verified);
  assert_string_equal(verify_text,
      "SSL verify error: certificate name mismatch: DN=\"/O=Test, Inc/CN=mail.example\" H=\"other.example\"|");
  end();
  begin();
  client.p.verify_certificates = path("ca.pem");
  client.p.verify = TLS_VERIFY_REQUIRED;
  client.p.verify_host = STR("other.example");
  shake();
  assert_int_equal(client.result, -EPROTO);
  assert_str(client.error, "(SSL_connect): error:0A000086:SSL routines::certificate verify failed");
  assert_true(server.result < 0);
  assert_true(str_starts(server.error, STR("(SSL_accept): error:")));
  end();
  /* An authority that is not known. */
  begin();
  client.p.verify_certificates = STR("system");
  client.p.verify = TLS_VERIFY_REQUIRED;
  client.p.on_verify_error = note_verify;
  shake();
  assert_int_equal(client.result, -EPROTO);
  assert_string_equal(verify_text,
      "SSL verify error: depth=0 error=unable to get local issuer certificate cert=/O=Test, Inc/CN=mail.example|");
  end();
  return 0;
}

static int client_certificate_main(void *arg) {
  for (int with = 0; with < 2; with++)
    for (int required = 0; required < 2; required++) {
      begin();
      server.p.verify_certificates = path("ca.pem");
      server.p.verify = required ? TLS_VERIFY_REQUIRED : TLS_VERIFY_OPTIONAL;
      if (with)
        client.p.certificate = path("client.pem");
      shake();
      if (required && !with) {
        assert_int_equal(server.result, -EPROTO);
        assert_str(server.error, "(SSL_accept): error:0A0000C7:SSL routines::peer did not return a certificate");
      } else {
        assert_int_equal(server.result, 0);
        assert_int_equal(server.info->peer_verified, with);
        if (with)
          assert_str(server.info->peer_dn, "/O=Test, Inc/CN=client.example");
      }
      end();
    }
  return 0;
}

static int other_certificate(void *arg, struct str sni, struct tls_params *p) {
  assert_str(sni, "rsa.example");
  assert_int_equal(fiber_sleep(1000), 0);
  p->certificate = path((const char *)arg);
  return 1;
}

static void note_error(void *arg, struct str text) {
  size_t n = strlen(verify_text);
  snprintf(verify_text + n, sizeof verify_text - n, "%.*s|", STRF(text));
}

static int names_main(void *arg) {
  char rsa[] = "rsa.pem", missing[] = "missing.pem";
  begin();
  server.p.on_sni = other_certificate;
  server.p.arg = rsa;
  client.p.sni = STR("rsa.example");
  shake();
  assert_int_equal(client.result, 0);
  assert_str(client.info->peer_dn, "/O=Test, Inc/CN=rsa.example");
  end();
  begin();
  server.p.on_sni = other_certificate;
  server.p.arg = missing;
  server.p.on_config_error = note_error;
  client.p.sni = STR("rsa.example");
  shake();
  assert_int_equal(client.result, -EPROTO);
  assert_true(server.result < 0);
  assert_true(str_starts(server.error, STR("(SSL_accept): error:")));
  assert_non_null(strstr(verify_text, "missing.pem): error:80000002:system library::No such file or directory|"));
  end();
  return 0;
}

static int alpn_main(void *arg) {
  begin();
  server.p.alpn = STR("smtp : esmtp");
  client.p.alpn = STR("esmtp");
  server.p.require_alpn = client.p.require_alpn = true;
  shake();
  assert_int_equal(client.result, 0);
  assert_int_equal(server.result, 0);
  assert_str(server.info->alpn, "esmtp");
  end();
  static const char *const bad[][2] = {{"http/1.1", "(handshake): Bad ALPN presented (http/1.1)"},
      {"smtp:esmtp", "(handshake): Bad ALPN presented (smtp:esmtp)"}};
  for (int i = 0; i < 2; i++) {
    begin();
    server.p.alpn = STR("smtp : esmtp");
    client.p.alpn = str_c(bad[i][0]);
    shake();
    assert_true(client.result < 0);
    assert_str(server.error, bad[i][1]);
    end();
  }
  begin();
  server.p.alpn = STR("smtp");
  server.p.require_alpn = true;
  shake();
  assert_str(server.error, "(handshake): ALPN required but not negotiated");
  end();
  return 0;
}

/* What can be set, and its errors. */
static int options_main(void *arg) {
  begin(); /* RSA and ECDSA, TLS 1.2, a cipher, a group */
  server.p.certificate = str_printf(a, "%s : %s", path("cert_only.pem").p, path("rsa.pem").p);
  server.p.private_key = str_printf(a, "%s:%s", path("key.pem").p, path("rsa_key.pem").p);
  server.p.openssl_options = STR("+no_tlsv1_3");
  server.p.ciphers = STR("ECDHE-RSA-AES128-GCM-SHA256");
  server.p.groups = STR("secp384r1 : prime256v1");
  shake();
  assert_int_equal(client.result, 0);
  assert_str(client.info->cipher, "TLS1.2:ECDHE-RSA-AES128-GCM-SHA256:128");
  assert_str(client.info->cipher_std, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
  assert_str(client.info->peer_dn, "/O=Test, Inc/CN=rsa.example");
  assert_string_equal(client.info->channel_binding_type, "tls-unique");
  assert_true(str_eq(client.info->channel_binding, server.info->channel_binding));
  end();
  begin(); /* nothing in common */
  server.p.ciphers = STR("ECDHE-RSA-AES128-GCM-SHA256");
  client.p.ciphers = STR("ECDHE-RSA-AES256-GCM-SHA384");
  server.p.openssl_options = STR("+no_tlsv1_3");
  shake();
  assert_str(server.error, "(SSL_accept): error:0A0000C1:SSL routines::no shared cipher");
  end();
  begin(); /* finite-field Diffie-Hellman */
  server.p.certificate = path("rsa.pem");
  server.p.dhparam = STR("ffdhe2048");
  server.p.ciphers = STR("DHE-RSA-AES128-GCM-SHA256");
  server.p.openssl_options = STR("+no_tlsv1_3");
  shake();
  assert_str(client.info->cipher, "TLS1.2:DHE-RSA-AES128-GCM-SHA256:128");
  end();
  static const struct {
    const char *certificate, *key, *groups, *dhparam, *ciphers, *verify, *want;
    int result;
  } bad[] = {
      {"missing.pem", NULL, NULL, NULL, NULL, NULL, "No such file or directory", -ENOENT},
      {"server.pem", "rsa_key.pem", NULL, NULL, NULL, NULL, "(SSL_CTX_use_PrivateKey_file file=", -EINVAL},
      {"key.pem", NULL, NULL, NULL, NULL, NULL, "(SSL_CTX_use_certificate_chain_file file=", -EINVAL},
      {"server.pem", NULL, "bogus", NULL, NULL, NULL, "Unknown curve name in tls_eccurve 'bogus'", -EINVAL},
      {"server.pem", NULL, NULL, "ike99", NULL, NULL, "ike99", -EINVAL},
      {"server.pem", NULL, NULL, "/nonexistent/dh", NULL, NULL, "/nonexistent/dh", -EINVAL},
      {"server.pem", NULL, NULL, NULL, "NONSENSE", NULL, "no cipher match", -EINVAL},
      {"server.pem", NULL, NULL, NULL, NULL, "/nonexistent/ca", "failed to stat /nonexistent/ca", -ENOENT},
      {"server.pem", NULL, NULL, NULL, NULL, "relative", "\"relative\"", -EINVAL},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct str error = STR_EMPTY;
    struct tls_params p = {.certificate = path(bad[i].certificate), .groups = str_c(bad[i].groups),
        .dhparam = str_c(bad[i].dhparam), .ciphers = str_c(bad[i].ciphers), .verify_certificates = str_c(bad[i].verify)};
    if (bad[i].key)
      p.private_key = path(bad[i].key);
    if (tls_server_check(&p, a, &error) != bad[i].result || str_find(error, str_c(bad[i].want)) < 0)
      fail_msg("'%.*s' lacks '%s'", STRF(error), bad[i].want);
  }
  struct tls_params tainted = {.certificate = str_tainted(path("server.pem"))};
  struct str error;
  assert_int_equal(tls_server_check(&tainted, a, &error), -EINVAL);
  return 0;
}

static int self_signed_main(void *arg) {
  begin();
  server.p.certificate = STR_UNSET;
  server.p.self_signed_name = STR("/C=UK/O=Some Organisation/CN=made.example");
  client.p.verify = TLS_VERIFY_OPTIONAL;
  client.p.verify_certificates = STR("system");
  client.p.on_verify_error = note_verify;
  shake();
  assert_int_equal(client.result, 0);
  assert_str(client.info->peer_dn, "/C=UK/O=Some Organisation/CN=made.example");
  assert_string_equal(verify_text,
      "SSL verify error: depth=0 error=self signed certificate cert=/C=UK/O=Some Organisation/CN=made.example|");
  struct str first, second, end_time;
  tls_certificate_field(a, client.info->peer_cert, STR("serial_number"), &first);
  end();
  /* The same one serves as long as it is good; a short one is made again. */
  for (int i = 0; i < 3; i++) {
    begin();
    server.p.certificate = STR_EMPTY;
    server.p.self_signed_name = i ? STR("short.example") : STR("/C=UK/O=Some Organisation/CN=made.example");
    server.p.self_signed_lifetime = i ? 1 : 0;
    shake();
    tls_certificate_field(a, client.info->peer_cert, STR("serial_number"), &second);
    if (i != 1)
      assert_int_equal(str_eq(first, second), i == 0);
    first = second;
    tls_certificate_field(a, client.info->peer_cert, STR("notafter,int"), &end_time);
    end();
    if (i == 1)
      fiber_sleep(600000); /* half of its life */
  }
  return 0;
}

static void copy_file(const char *from, const char *to) {
  char text[10000];
  int in = open(path(from).p, O_RDONLY), out = open(path(to).p, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ssize_t n = read(in, text, sizeof text);
  assert_true(n > 0);
  assert_int_equal(write(out, text, (size_t)n), n);
  close(in);
  close(out);
}

static int reload_main(void *arg) {
  copy_file("server.pem", "changing.pem");
  for (int i = 0; i < 2; i++) {
    begin();
    server.p.certificate = path("changing.pem");
    shake();
    assert_int_equal(client.result, 0);
    assert_str(client.info->peer_dn, i ? "/O=Test, Inc/CN=rsa.example" : "/O=Test, Inc/CN=mail.example");
    end();
    copy_file("rsa.pem", "changing.pem");
    fiber_sleep(1100000); /* files are looked at once a second */
  }
  return 0;
}

static void closing_peer(void *arg) {
  fiber_yield();
  stream_free(client.stream);
  client.stream = NULL;
}

static int broken_main(void *arg) {
  begin(); /* closed in the middle */
  fiber_spawn("close", closing_peer, NULL);
  serve(NULL);
  assert_int_equal(server.result, -ECONNRESET);
  assert_str(server.error, "(SSL_accept): TCP connection closed by peer");
  begin(); /* silence */
  server.result = tls_server_start(server.stream, &server.p, loop_now_fresh() + 1000, a, &server.info, &server.error);
  assert_int_equal(server.result, -ETIMEDOUT);
  assert_str(server.error, "(SSL_accept): timed out");
  end();
  begin(); /* not TLS at all */
  stream_write(client.stream, STR("HELO there\r\nthis is no handshake\r\n"));
  stream_flush(client.stream);
  serve(NULL);
  assert_int_equal(server.result, -EPROTO);
  assert_true(str_starts(server.error, STR("(SSL_accept): error:0A00010B:SSL routines::wrong version number")));
  end();
  begin(); /* garbage inside of a session */
  shake();
  assert_int_equal(client.result, 0);
  int fd = dup(stream_fd(client.stream));
  assert_int_equal(write(fd, "garbage garbage garbage", 23), 23);
  struct str line;
  int eol;
  assert_int_equal(stream_read_line(server.stream, 100, deadline_in(60), &line, &eol), -EPROTO);
  assert_true(str_starts(stream_error(server.stream), STR("(SSL_read): error:")));
  close(fd);
  end();
  return 0;
}

/* Our server with OpenSSL's own client. */
static int s_client_main(void *arg) {
  static const char *const programs[] = {"/usr/bin/openssl", "/usr/local/bin/openssl", "/bin/openssl"};
  const char *program = NULL;
  for (size_t i = 0; i < 3 && !program; i++)
    if (access(programs[i], X_OK) == 0)
      program = programs[i];
  if (!program)
    return 0;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
  listen(listener, 1);
  getsockname(listener, (struct sockaddr *)&address, &len);
  char *target = str_dup_c(a, str_printf(a, "127.0.0.1:%d", ntohs(address.sin_port)));
#define C(literal) ((char[]){literal})
  char *argv[] = {C("openssl"), C("s_client"), C("-quiet"), C("-verify_return_error"), C("-no_ign_eof"), C("-connect"), target,
      C("-servername"), C("mail.example"), C("-verify_hostname"), C("mail.example"), C("-CAfile"),
      str_dup_c(a, path("ca.pem")), NULL};
  const struct child_spec spec = {.path = program, .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -2,
      .umask = -1};
  struct child c;
  assert_int_equal(child_start(&spec, &c), 0);
  assert_true(fiber_wait_fd(listener, FIBER_READ, deadline_in(60)) > 0);
  begin();
  stream_free(server.stream);
  stream_free(client.stream);
  client.stream = NULL;
  server.stream = stream_new(accept(listener, NULL, NULL), -1);
  serve(NULL);
  assert_int_equal(server.result, 0);
  assert_str(server.info->sni, "mail.example");
  struct stream *io = stream_new(c.out, c.in);
  c.in = c.out = -1;
  struct str line;
  int eol;
  stream_write(server.stream, STR("220 hello\r\n"));
  stream_flush(server.stream);
  assert_int_equal(stream_read_line(io, 100, deadline_in(60), &line, &eol), 1);
  assert_str(line, "220 hello");
  stream_write(io, STR("answer\n"));
  stream_flush(io);
  assert_int_equal(stream_read_line(server.stream, 100, deadline_in(60), &line, &eol), 1);
  assert_str(line, "answer");
  stream_free(server.stream);
  stream_free(io);
  int status;
  assert_int_equal(child_wait(&c, deadline_in(60), &status), 0);
  close(listener);
  return 0;
}

static void take_context(void *arg) {
  char error[TLS_ERROR_MAX];
  assert_int_equal(tls_context_get(true, &server.p, arg, error), 0);
}

/* However many sessions begin at one time, the files are read once. */
static int together_main(void *arg) {
  struct tls_context got[20];
  struct fiber *fibers[20];
  begin();
  tls_cache_clear();
  for (size_t i = 0; i < 20; i++)
    fibers[i] = fiber_spawn_joinable("session", take_context, &got[i]);
  for (size_t i = 0; i < 20; i++) {
    fiber_join(fibers[i]);
    assert_ptr_equal(got[i].ctx, got[0].ctx);
  }
  for (size_t i = 0; i < 20; i++)
    tls_context_release(&got[i]);
  end();
  return 0;
}

static void parses_options(void **state) {
  uint64_t o;
  struct str bad;
  assert_true(tls_options_parse(STR_UNSET, &o, &bad));
  uint64_t standard = o;
  assert_true(tls_options_parse(STR(" -no_ticket  +NO_TLSv1_3 "), &o, &bad));
  assert_true(o != standard && o != 0);
  assert_false(tls_options_parse(STR("+no_ticket +wrong"), &o, &bad));
  assert_str(bad, "+wrong");
  assert_false(tls_options_parse(STR("no_ticket"), &o, &bad));
  struct str error;
  assert_true(tls_ciphers_valid(a, STR("HIGH:!MD5"), &error));
  assert_true(tls_ciphers_valid(a, STR("ECDHE_RSA_AES256_SHA"), &error));
  assert_false(tls_ciphers_valid(a, STR("NONSENSE"), &error));
  assert_str(error, "(SSL_CTX_set_cipher_list): error:0A0000B9:SSL routines::no cipher match");
}

static void shows_certificates(void **state) {
  FILE *f = fopen(path("server.pem").p, "r");
  X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
  fclose(f);
  assert_non_null(cert);
  static const char *const fields[][2] = {{"version", "2"}, {"subject", "CN=mail.example,O=Test\\, Inc"},
      {"subject,CN", "mail.example"}, {"issuer,O,>,", "Test,, Inc"}, {"serial_number", "3e9"},
      {"subj_altname", "MAIL=x@mail.example\nDNS=*.wild.example\nDNS=mail.example"},
      {"subj_altname,dns,>;", "*.wild.example;mail.example"}, {"subj_altname,>:,mail", "x@mail.example"},
      {"sig_algorithm", "ecdsa-with-SHA256"}};
  struct str out;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    assert_int_equal(tls_certificate_field(a, cert, str_c(fields[i][0]), &out), TLS_FIELD_OK);
    assert_str(out, fields[i][1]);
    assert_true(str_is_tainted(out));
  }
  assert_int_equal(tls_certificate_field(a, cert, STR("nosuch"), &out), TLS_FIELD_UNKNOWN);
  assert_int_equal(tls_certificate_field(a, cert, STR("subj_altname,what"), &out), TLS_FIELD_UNKNOWN);
  assert_int_equal(tls_certificate_field(a, cert, STR("ocsp_uri"), &out), TLS_FIELD_ABSENT);
  assert_int_equal(tls_certificate_field(a, cert, STR("crl_uri"), &out), TLS_FIELD_ABSENT);
  assert_int_equal(tls_certificate_field(a, cert, STR("subject,DC"), &out), TLS_FIELD_ABSENT);
  assert_int_equal(tls_certificate_field(a, cert, STR("notafter,int"), &out), TLS_FIELD_OK);
  int64_t t;
  assert_true(str_to_i64(out, &t) && t > time(NULL) && t <= time(NULL) + 86400);
  assert_true(tls_certificate_der(a, cert).len > 100);
  X509_free(cert);
}

#define TEST(name)                                                                                                     \
  static void name(void **state) { loop_run(name##_main, NULL); }
TEST(pair)
TEST(verify)
TEST(client_certificate)
TEST(names)
TEST(alpn)
TEST(options)
TEST(self_signed)
TEST(reload)
TEST(broken)
TEST(s_client)
TEST(together)

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, teardown)
  const struct CMUnitTest all[] = {T(shows_certificates), T(parses_options), T(pair), T(verify), T(client_certificate),
      T(names), T(alpn), T(options), T(self_signed), T(reload), T(broken), T(s_client), T(together)};
  return cmocka_run_group_tests(all, setup, group_teardown);
}
