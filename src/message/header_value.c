#include <string.h>

#include "base/ascii.h"
#include "base/buf.h"
#include "message/message.h"

void header_add_value(struct buf *out, struct str s) {
  bool plain = s.len > 0;
  for (size_t i = 0; i < s.len; i++)
    plain = plain && (ascii_is_alnum(s.p[i]) || (unsigned char)s.p[i] >= 128 ||
                      (s.p[i] != 0 && strchr("-._+@!#$&'*/?^`{|}~%", s.p[i]) != NULL));
  out->taint = str_taint_join(out->taint, s.taint);
  if (plain) {
    buf_add(out, s);
    return;
  }
  buf_add_byte(out, '"');
  for (size_t i = 0; i < s.len; i++) {
    if (s.p[i] == '"' || s.p[i] == '\\')
      buf_add_byte(out, '\\');
    buf_add_byte(out, (unsigned char)s.p[i] < 32 || s.p[i] == 127 ? ' ' : s.p[i]);
  }
  buf_add_byte(out, '"');
}

void header_add_comment(struct buf *out, struct str s) {
  out->taint = str_taint_join(out->taint, s.taint);
  for (size_t i = 0; i < s.len; i++) {
    char ch = s.p[i];
    buf_add_byte(out, (unsigned char)ch < 32 || ch == 127 || ch == '(' || ch == ')' || ch == '\\' ? '_' : ch);
  }
}
