/* Answers of scanners: the first byte says whose. */
#include <stdlib.h>

#include "base/arena.h"
#include "scan/bmi.h"
#include "scan/dcc.h"
#include "scan/http.h"
#include "scan/malware.h"
#include "scan/spam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void warn(void *arg, const char *what, struct str option) {}

static void check_set(struct arena *a, const struct bmi_set *s) {
  struct bmi_set again;
  struct str encoded = bmi_encode(a, s);
  if (!bmi_decode(a, encoded, &again) || again.v.n != s->v.n || again.recipients.n != s->recipients.n)
    abort();
  for (size_t i = 0; i < s->v.n; i++)
    if (again.v.v[i].action != s->v.v[i].action || !str_eq(again.v.v[i].location, s->v.v[i].location))
      abort();
}

static void bmi(struct arena *a, struct str text, bool rspamd) {
  static const struct str recipients[] = {{"a@b", 3, 0}, {"c d@e", 5, 0}, {"f@g", 3, 0}};
  struct bmi_set set = {0};
  if (rspamd ? bmi_read_rspamd(a, text, recipients, 3, &set) : bmi_read_answer(a, text, recipients, 3, &set))
    check_set(a, &set);
}

/* One that may be kept ends with its last byte, not before. */
static void http(struct arena *a, struct str text, bool ended) {
  struct http_answer r, again;
  enum http_state state = http_read_answer(a, text, ended, &r);
  if (state == HTTP_MORE && ended)
    abort();
  if (state == HTTP_DONE && (r.body.len > text.len || !str_is_tainted(r.line) || (r.body.len > 0 && !str_is_tainted(r.body))))
    abort();
  if (state == HTTP_DONE && r.keep && (ended || http_read_answer(a, str_slice(text, 0, text.len - 1), false, &again) != HTTP_MORE))
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  struct spam_answer spam;
  struct spam_server server;
  struct dcc_answer dcc;
  struct bmi_set set;
  struct str header;
  if (n == 0 || n > 100000)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str text = str_tainted(str_n((const char *)data + 1, n - 1));
  switch (data[0]) {
    case 's': (void)spam_read_answer(a, text, false, &spam); break;
    case 'r': (void)spam_read_answer(a, text, true, &spam); break;
    case 'l': (void)spam_read_server(text, &server, warn, NULL); break;
    case 'd':
      if (dcc_read_answer(a, text, &dcc) && dcc.header.len > 0 && !dcc_header_text(a, dcc.header, &header))
        abort();
      break;
    case 'c':
      if (malware_clamd_read(text, &header) == CLAMD_FOUND && (header.len == 0 || header.p < text.p || header.p + header.len > text.p + text.len))
        abort();
      break;
    case 'n':
      header = text;
      if (malware_clamd_numbered(&header, 1) ? header.p < text.p + 3 || header.p + header.len != text.p + text.len : !str_eq(header, text))
        abort();
      break;
    case 'h': http(a, text, false); break;
    case 'H': http(a, text, true); break;
    case 'b': bmi(a, text, false); break;
    case 'j': bmi(a, text, true); break;
    case 'e': (void)bmi_decode(a, text, &set); break;
    default: (void)dcc_address_valid(text);
  }
  arena_free(a);
  return 0;
}
