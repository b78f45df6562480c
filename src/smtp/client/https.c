#include "smtp/client/https.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/ctx.h"
#include "loop/child.h"

/* The answer's first byte. */
#define GOOD '='
#define TROUBLE '!'
#define NOT_VERIFIED '~'

struct body {
  char text[HTTPS_ANSWER_MAX];
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

/* Of what a web server says to a report nothing is wanted. */
static size_t on_nothing(char *p, size_t size, size_t n, void *arg) { return size * n; }

static int say(char kind, const char *text) {
  printf("%c%s", kind, text);
  return fflush(stdout) ? 1 : 0;
}

static bool is_plain_text(const char *type) {
  return type && !strncasecmp(type, "text/plain", 10) && (type[10] == '\0' || type[10] == ';' || type[10] == ' ');
}

static char *read_all(size_t *ret_n) {
  size_t room = 1 << 16;
  char *text = xmalloc(room);
  for (*ret_n = 0;;) {
    ssize_t n = read(0, text + *ret_n, room - *ret_n);
    if (n <= 0)
      return text;
    *ret_n += (size_t)n;
    if (*ret_n == room)
      text = xrealloc(text, room *= 2);
  }
}

static void set_common(CURL *h, const char *url, struct curl_slist *resolve, const char *ca, char *error) {
  curl_easy_setopt(h, CURLOPT_URL, url);
  curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(h, CURLOPT_RESOLVE, resolve);
  curl_easy_setopt(h, CURLOPT_PROXY, "");
  curl_easy_setopt(h, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
  curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)HTTPS_SECONDS - 2);
  curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)HTTPS_SECONDS / 2);
  curl_easy_setopt(h, CURLOPT_MAXFILESIZE, (long)HTTPS_ANSWER_MAX);
  curl_easy_setopt(h, CURLOPT_USERAGENT, "Martlet");
  curl_easy_setopt(h, CURLOPT_ERRORBUFFER, error);
  if (ca[0])
    curl_easy_setopt(h, CURLOPT_CAINFO, ca);
}

/* *ret_headers and *ret_text live until the request is done. */
static void set_post(CURL *h, const char *type, struct curl_slist **ret_headers, char **ret_text) {
  char header[256];
  size_t n;
  snprintf(header, sizeof header, "Content-Type: %s", type);
  *ret_text = read_all(&n);
  *ret_headers = curl_slist_append(curl_slist_append(NULL, header), "Expect:");
  curl_easy_setopt(h, CURLOPT_HTTPHEADER, *ret_headers);
  curl_easy_setopt(h, CURLOPT_POSTFIELDS, *ret_text);
  curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE, (long)n);
}

static int judge(CURL *h, CURLcode e, const struct body *body, char *error, bool post) {
  char *type = NULL;
  long code = 0;
  if (e)
    return say(e == CURLE_PEER_FAILED_VERIFICATION ? NOT_VERIFIED : TROUBLE, error[0] ? error : curl_easy_strerror(e));
  curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &code);
  curl_easy_getinfo(h, CURLINFO_CONTENT_TYPE, &type);
  if (post ? code / 100 != 2 : code != 200) {
    snprintf(error, CURL_ERROR_SIZE, "the web server said %ld", code);
    return say(TROUBLE, error);
  }
  if (!post && !is_plain_text(type))
    return say(TROUBLE, "it is not text/plain");
  putchar(GOOD);
  return fwrite(body->text, 1, body->n, stdout) != body->n || fflush(stdout);
}

int https_run(const char *url, const char *resolve_text, const char *ca, const char *type) {
  static struct body body;
  char error[CURL_ERROR_SIZE] = "", *text = NULL;
  struct curl_slist *headers = NULL;
  if (curl_global_init(CURL_GLOBAL_DEFAULT))
    return say(TROUBLE, "libcurl does not start");
  CURL *h = curl_easy_init();
  struct curl_slist *resolve = curl_slist_append(NULL, resolve_text);
  if (!h || !resolve)
    return say(TROUBLE, "no memory");
  set_common(h, url, resolve, ca, error);
  curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, type[0] ? on_nothing : on_data);
  curl_easy_setopt(h, CURLOPT_WRITEDATA, &body);
  if (type[0])
    set_post(h, type, &headers, &text);
  int status = judge(h, curl_easy_perform(h), &body, error, type[0] != '\0');
  curl_slist_free_all(headers);
  curl_slist_free_all(resolve);
  curl_easy_cleanup(h);
  curl_global_cleanup();
  free(text);
  return status;
}

int https_ask(struct ctx *c, const struct https_request *r, struct str *ret, struct str *ret_error) {
  struct arena *a = c->arena;
  /* A new program, not a fork: OpenSSL may be in use by a thread. */
  char *argv[] = {(char *)"martlet", (char *)HTTPS_ARGUMENT, str_dup_c(a, r->url),
      str_dup_c(a, str_printf(a, "%.*s:%d:%.*s", STRF(r->host), r->port, STRF(r->addresses))),
      str_eq_c(r->ca, "system") ? (char *)"" : str_dup_c(a, r->ca), str_dup_c(a, r->type), NULL};
  struct child_spec spec = {.path = "/proc/self/exe", .argv = argv, .stdin_fd = r->type.len ? -1 : -2, .stdout_fd = -1, .stderr_fd = -2,
      .umask = 077, .new_group = true};
  struct str answer = STR_EMPTY;
  int status = 0;
  int e = child_run(&spec, a, r->body, HTTPS_ANSWER_MAX + CURL_ERROR_SIZE + 1, deadline_in(HTTPS_SECONDS), &answer, &status);
  if (!e && status)
    e = -ECHILD;
  answer = str_tainted(answer);
  *ret_error = e == -ETIMEDOUT ? STR("timed out") : e == -ECHILD ? STR("its process ended") : e ? str_c(strerror(-e))
               : answer.len ? str_from(answer, 1) : STR("no answer");
  *ret = *ret_error;
  if (e || answer.len == 0)
    return e ? e : -EIO;
  return answer.p[0] == GOOD ? 0 : answer.p[0] == NOT_VERIFIED ? -EKEYREJECTED : -EIO;
}

bool https_available(void) { return true; }
