/* Policies by HTTPS (RFC 8461, section 3.3), with libcurl in a process of its own: what a web server says is read where it can
do no harm, and nobody waits for a library that blocks. It is a new program, not a fork: OpenSSL may be in use by a thread. */
#include "smtp/client/sts.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>

#include "core/ctx.h"
#include "loop/child.h"

#define SECONDS 60
#define PATH "/.well-known/mta-sts.txt"

struct body {
  char text[STS_POLICY_MAX];
  size_t n;
};

static size_t on_data(char *p, size_t size, size_t n, void *arg) {
  struct body *b = arg;
  if (size * n > sizeof b->text - b->n)
    return 0;
  memcpy(b->text + b->n, p, size * n);
  b->n += size * n;
  return size * n;
}

static int say(const char *text) {
  printf("!%s", text);
  return fflush(stdout) ? 1 : 0;
}

static bool is_plain_text(const char *type) {
  return type && !strncasecmp(type, "text/plain", 10) && (type[10] == '\0' || type[10] == ';' || type[10] == ' ');
}

int sts_fetch_run(const char *url, const char *resolve_text, const char *ca) {
  static struct body body;
  char error[CURL_ERROR_SIZE] = "", *type = NULL;
  long code = 0;
  if (curl_global_init(CURL_GLOBAL_DEFAULT))
    return say("libcurl does not start");
  CURL *h = curl_easy_init();
  struct curl_slist *resolve = curl_slist_append(NULL, resolve_text);
  if (!h || !resolve)
    return say("no memory");
  curl_easy_setopt(h, CURLOPT_URL, url);
  curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(h, CURLOPT_RESOLVE, resolve);
  curl_easy_setopt(h, CURLOPT_PROXY, "");
  curl_easy_setopt(h, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
  curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)SECONDS - 2);
  curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)SECONDS / 2);
  curl_easy_setopt(h, CURLOPT_MAXFILESIZE, (long)STS_POLICY_MAX);
  curl_easy_setopt(h, CURLOPT_USERAGENT, "Martlet");
  curl_easy_setopt(h, CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(h, CURLOPT_WRITEDATA, &body);
  if (ca[0])
    curl_easy_setopt(h, CURLOPT_CAINFO, ca);
  CURLcode e = curl_easy_perform(h);
  if (!e) {
    curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(h, CURLINFO_CONTENT_TYPE, &type);
  }
  int status = 0;
  if (e) {
    status = say(error[0] ? error : curl_easy_strerror(e));
  } else if (code != 200) {
    snprintf(error, sizeof error, "the web server said %ld", code);
    status = say(error);
  } else if (!is_plain_text(type)) {
    status = say("it is not text/plain");
  } else {
    putchar('=');
    status = fwrite(body.text, 1, body.n, stdout) != body.n || fflush(stdout);
  }
  curl_slist_free_all(resolve);
  curl_easy_cleanup(h);
  curl_global_cleanup();
  return status;
}

int sts_fetch(struct ctx *c, struct str host, struct str addresses, struct str ca, struct str *ret, struct str *ret_error) {
  struct arena *a = c->arena;
  char *argv[] = {(char *)"martlet", (char *)STS_FETCH_ARGUMENT, str_dup_c(a, str_printf(a, "https://%.*s" PATH, STRF(host))),
      str_dup_c(a, str_printf(a, "%.*s:443:%.*s", STRF(host), STRF(addresses))), str_eq_c(ca, "system") ? (char *)"" : str_dup_c(a, ca), NULL};
  struct child_spec spec = {.path = "/proc/self/exe", .argv = argv, .stdin_fd = -2, .stdout_fd = -1, .stderr_fd = -2, .umask = 077,
      .new_group = true};
  struct str answer = STR_EMPTY;
  int status = 0;
  int e = child_run(&spec, a, STR_EMPTY, STS_POLICY_MAX + CURL_ERROR_SIZE + 1, deadline_in(SECONDS), &answer, &status);
  if (!e && status)
    e = -ECHILD;
  answer = str_tainted(answer);
  *ret_error = e == -ETIMEDOUT ? STR("timed out") : e == -ECHILD ? STR("its process ended") : e ? str_c(strerror(-e)) : answer.len ? str_from(answer, 1) : STR("no answer");
  *ret = *ret_error;
  return e ? e : answer.len && answer.p[0] == '=' ? 0 : -EIO;
}

bool sts_fetch_available(void) { return true; }
