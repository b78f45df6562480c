/* SPF: the input is a table of lines "TYPE name value"; every question is answered from it. The first lines are the
client's address, the sender and the HELO name. */
#include <string.h>

#include "mailauth/spf.h"

#define LINES_MAX 60

struct table {
  struct str line[LINES_MAX];
  int n;
};

static enum dns_result query(void *arg, struct arena *a, struct str name, enum dns_type type, struct dns_answer *ret) {
  const struct table *t = arg;
  char letter = type == DNS_A ? 'A' : type == DNS_AAAA ? 'Q' : type == DNS_MX ? 'M' : type == DNS_PTR ? 'P' : 'T';
  *ret = (struct dns_answer){.v = arena_array(a, struct dns_record, LINES_MAX)};
  for (int i = 3; i < t->n; i++) {
    struct str value = t->line[i], kind = str_cut(&value, ' '), owner = str_is_set(value) ? str_cut(&value, ' ') : STR_EMPTY;
    if (kind.len != 1 || !str_ieq(owner, name) || !str_is_set(value))
      continue;
    if (kind.p[0] == 'E')
      return DNS_AGAIN;
    if (kind.p[0] != letter)
      continue;
    struct dns_record *r = &ret->v[ret->n];
    r->text = str_tainted(value);
    if ((type == DNS_A || type == DNS_AAAA) && (!ip_parse(value, &r->ip) || (r->ip.family == AF_INET) != (type == DNS_A)))
      continue;
    ret->n++;
  }
  return ret->n > 0 ? DNS_OK : DNS_NOMATCH;
}

static int64_t now(void *arg) { return 1000000000; }

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  if (size > 32768)
    return 0;
  struct arena *a = arena_new("fuzz");
  struct table t = {0};
  struct str rest = str_dup(a, str_n((const char *)data, size));
  while (str_is_set(rest) && t.n < LINES_MAX)
    t.line[t.n++] = str_cut(&rest, '\n');
  struct spf_identity who = {.receiver = STR("mx.test")};
  if (t.n >= 3 && ip_parse(t.line[0], &who.ip)) {
    struct spf_dns dns = {query, now, &t};
    struct spf_answer answer;
    who.sender = t.line[1];
    who.helo = t.line[2];
    spf_check(a, &dns, &who, &answer);
    if (answer.result > SPF_PERMERROR)
      __builtin_trap();
    for (size_t i = 0; str_is_set(answer.explanation) && i < answer.explanation.len; i++)
      if ((unsigned char)answer.explanation.p[i] < ' ' || (unsigned char)answer.explanation.p[i] > 126)
        __builtin_trap();
  }
  arena_free(a);
  return 0;
}
