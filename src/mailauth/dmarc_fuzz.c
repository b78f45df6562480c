/* DMARC: the first line of the input is the author's domain, the second one that is to be aligned; each further line is the answer to
one query, round and round ("!" no such name, "-" no data, "?" trouble, "=" a TXT record before it as well). */
#include <string.h>

#include "mailauth/dmarc.h"

struct answers {
  struct str all, rest;
  int queries;
};

static enum dns_result query(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  struct answers *k = arg;
  if (++k->queries > 100)
    __builtin_trap();
  if (!str_is_set(k->rest))
    k->rest = k->all;
  struct str line = str_is_set(k->rest) ? str_cut(&k->rest, '\n') : STR_EMPTY;
  *ret = (struct dns_answer){.v = arena_array(a, struct dns_record, 2), .n = 1};
  ret->v[0] = (struct dns_record){.type = type, .text = line};
  if (line.len == 0 || line.p[0] == '-')
    return DNS_NODATA;
  if (line.p[0] == '!')
    return DNS_NOMATCH;
  if (line.p[0] == '?')
    return DNS_AGAIN;
  if (line.p[0] == '=') {
    ret->v[1] = (struct dns_record){.type = type, .text = str_from(line, 1)};
    ret->n = 2;
  }
  return DNS_OK;
}

static struct str organization(void *arg, struct arena *a, struct str domain) {
  ptrdiff_t dot = str_find_byte(domain, '.');
  return dot < 0 ? domain : str_from(domain, (size_t)dot + 1);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size > 8192)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct str text = str_tainted(str_dup(a, str_n((const char *)data, size)));
  struct str author = str_lower(a, str_cut(&text, '\n')), other = str_is_set(text) ? str_cut(&text, '\n') : STR_EMPTY;
  for (int list = 0; list < 2; list++) {
    struct answers k = {.all = text, .rest = text};
    struct dmarc_dns dns = {query, list ? organization : NULL, &k};
    struct dmarc_found found;
    bool trouble = false;
    dmarc_find(a, &dns, author, &found);
    if (found.any && (found.record.p == DMARC_P_UNSET || found.policy == DMARC_P_UNSET || found.trouble))
      __builtin_trap();
    (void)dmarc_aligned(a, &dns, &found, author, other, false, &trouble);
    (void)dmarc_aligned(a, &dns, &found, author, other, true, &trouble);
  }
  arena_free(a);
  return 0;
}
