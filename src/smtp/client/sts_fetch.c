/* Policies by HTTPS (RFC 8461, section 3.3), with libcurl in a child of its own: what a web server says is read where it can do
no harm. */
#include "smtp/client/sts.h"

#include <curl/curl.h>
#include <errno.h>

#include "base/buf.h"
#include "core/ctx.h"
#include "expand/foreign.h"

#define SECONDS 60
#define PATH "/.well-known/mta-sts.txt"

struct request {
  char *url, *resolve, *ca;
};

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

static void say(int out, const char *text) {
  foreign_write(out, "!", 1);
  foreign_write(out, text, strlen(text));
}

static bool is_plain_text(const char *type) {
  return type && !strncasecmp(type, "text/plain", 10) && (type[10] == '\0' || type[10] == ';' || type[10] == ' ');
}

static void run(void *arg, int out) {
  static struct body body;
  const struct request *r = arg;
  char error[CURL_ERROR_SIZE] = "", *type = NULL;
  long code = 0;
  if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
    say(out, "libcurl does not start");
    return;
  }
  CURL *h = curl_easy_init();
  struct curl_slist *resolve = curl_slist_append(NULL, r->resolve);
  if (!h || !resolve) {
    say(out, "no memory");
    return;
  }
  curl_easy_setopt(h, CURLOPT_URL, r->url);
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
  if (r->ca)
    curl_easy_setopt(h, CURLOPT_CAINFO, r->ca);
  CURLcode e = curl_easy_perform(h);
  if (!e) {
    curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(h, CURLINFO_CONTENT_TYPE, &type);
  }
  if (e) {
    say(out, error[0] ? error : curl_easy_strerror(e));
  } else if (code != 200) {
    snprintf(error, sizeof error, "the web server said %ld", code);
    say(out, error);
  } else if (!is_plain_text(type)) {
    say(out, "it is not text/plain");
  } else {
    foreign_write(out, "=", 1);
    foreign_write(out, body.text, body.n);
  }
}

int sts_fetch(struct ctx *c, struct str host, struct str addresses, struct str ca, struct str *ret, struct str *ret_error) {
  struct request r = {
      .url = str_dup_c(c->arena, str_printf(c->arena, "https://%.*s" PATH, STRF(host))),
      .resolve = str_dup_c(c->arena, str_printf(c->arena, "%.*s:443:%.*s", STRF(host), STRF(addresses))),
      .ca = str_eq_c(ca, "system") || ca.len == 0 ? NULL : str_dup_c(c->arena, ca),
  };
  struct buf b;
  buf_init(&b, c->arena, STS_POLICY_MAX + CURL_ERROR_SIZE + 1);
  int e = foreign_call(run, &r, SECONDS, &b);
  struct str answer = str_tainted(buf_str(&b));
  *ret_error = e ? str_c(foreign_error(e)) : answer.len ? str_from(answer, 1) : STR("no answer");
  *ret = *ret_error;
  return e ? e : answer.len && answer.p[0] == '=' ? 0 : -EIO;
}

bool sts_fetch_available(void) { return true; }
