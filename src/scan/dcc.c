#include "scan/dcc.h"

#include <string.h>

#include "base/arena.h"
#include "base/ip.h"
#include "message/message.h"

#define RECIPIENT_LETTERS "ARG"
#define RESULTS "ASRGT"

static bool is_one_of(char c, const char *letters) { return c != '\0' && strchr(letters, c) != NULL; }

bool dcc_header_text(struct arena *a, struct str text, struct str *ret) {
  text = str_rtrim(text);
  if (text.len == 0 || memchr(text.p, '\r', text.len) || memchr(text.p, '\0', text.len))
    return false;
  struct str rest = text;
  for (bool first = true; str_is_set(rest); first = false) {
    struct str line = str_cut(&rest, '\n');
    bool continued = !first && line.len > 0 && (line.p[0] == ' ' || line.p[0] == '\t');
    if (str_trim(line).len == 0 || (!continued && header_name_length(line) == 0))
      return false;
  }
  *ret = str_cat(a, text, STR("\n"));
  return true;
}

bool dcc_read_answer(struct arena *a, struct str text, struct dcc_answer *ret) {
  struct str rest = text, line = str_rtrim(str_cut(&rest, '\n'));
  *ret = (struct dcc_answer){.recipients = STR_EMPTY, .header = STR_EMPTY};
  if (line.len != 1 || !is_one_of(line.p[0], RESULTS))
    return false;
  ret->result = line.p[0];
  if (!str_is_set(rest))
    return true;
  ret->recipients = str_rtrim(str_cut(&rest, '\n'));
  for (size_t i = 0; i < ret->recipients.len; i++)
    if (!is_one_of(ret->recipients.p[i], RECIPIENT_LETTERS))
      return false;
  if (str_is_set(rest) && !dcc_header_text(a, rest, &ret->header))
    ret->header = STR_EMPTY;
  return true;
}

bool dcc_address_valid(struct str text) {
  struct str rest = str_trim(text), name = str_cut(&rest, ' ');
  struct ip_addr ip;
  uint64_t port;
  if (name.len > 0 && name.p[0] == '/')
    return !str_is_set(rest);
  return str_is_set(rest) && ip_parse(name, &ip) && str_to_u64(str_trim(rest), &port) && port > 0 && port < 65536;
}
