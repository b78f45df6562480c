/* What Dovecot's service says, and places in server_socket: whole conversations, a line each. */
#include <stdlib.h>

#include "base/arena.h"
#include "sasl/dovecot_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct arena *a = arena_new("fuzz");
  struct str rest = str_tainted(str_dup(a, str_n((const char *)data, size))), error = STR_UNSET;
  struct dovecot_hello h = {0};
  struct dovecot_place *places = NULL;
  bool greeting = true;
  if (dovecot_places(a, rest, &places, &error))
    for (; places != NULL; places = places->next)
      check(str_is_set(places->path) || (places->host.len > 0 && places->port > 0));
  else
    check(str_is_set(error));
  while (str_is_set(rest)) {
    struct str line = str_cut(&rest, '\n');
    if (line.len > DOVECOT_LINE_MAX)
      break;
    if (greeting) {
      if (!dovecot_hello_line(&h, line, &error))
        break;
      check(!h.done || (h.version_seen && h.major == 1));
      for (size_t i = 0; i < h.n; i++)
        check(dovecot_mechanism(&h, str_c(h.v[i].name)) == &h.v[i]);
      greeting = !h.done;
      continue;
    }
    struct dovecot_answer r = dovecot_answer_line(a, 1, line);
    check((r.kind == DOVECOT_BROKEN) == str_is_set(r.error));
    check(!str_is_set(r.user) || (str_is_tainted(r.user) && r.user.len <= line.len));
    struct str escaped = str_is_set(r.user) ? dovecot_escape(a, r.user) : STR_EMPTY;
    check(str_find_byte(escaped, '\t') < 0 && str_find_byte(escaped, '\n') < 0 && str_find_byte(escaped, '\0') < 0);
  }
  arena_free(a);
  return 0;
}
