/* Variables of the message: envelope, header, sizes. */
#include "expand/variables.h"

#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "acl/acl.h"
#include "deliver/address.h"
#include "expand/internal.h"
#include "expand/rfc2047.h"
#include "message/address.h"
#include "message/message.h"

#define MESSAGE(member) offsetof(struct message, member)
#define HEADERS_MAX_TEXT (64u << 10)
#define RECIPIENTS_MAX_TEXT (16u << 20)

static int get_number(struct ctx *c, const struct variable_def *def, struct str *ret) {
  int64_t v = 0;
  if (c->message != NULL)
    memcpy(&v, (const char *)c->message + def->offset, sizeof v);
  return variable_number(c, v, ret);
}

static int get_received_count(struct ctx *c, const struct variable_def *def, struct str *ret) {
  return variable_number(c, c->message != NULL ? c->message->received_count : 0, ret);
}

static int get_id(struct ctx *c, const struct variable_def *def, struct str *ret) {
  if (c->message != NULL)
    *ret = str_c(c->message->id);
  return 0;
}

static int get_sender(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct str local_part, domain;
  if (c->message == NULL || !str_is_set(c->message->reverse_path))
    return 0;
  *ret = c->message->reverse_path;
  if (def->flags == 0)
    return 0;
  address_split(*ret, &local_part, &domain);
  *ret = def->flags == 'd' ? domain : local_part;
  return 0;
}

static int get_local_user(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct address *a = c->address;
  if (a == NULL || !a->local_user)
    return variable_number(c, (uid_t)-1, ret);
  return variable_number(c, def->flags == 'u' ? a->uid : a->gid, ret);
}

static int get_return_path(struct ctx *c, const struct variable_def *def, struct str *ret) {
  if (c->address != NULL && str_is_set(c->address->return_path))
    *ret = c->address->return_path;
  else if (c->address != NULL && str_is_set(c->address->prop.errors_address))
    *ret = c->address->prop.errors_address;
  else if (c->message != NULL && c->session == NULL)
    *ret = c->message->reverse_path; /* of deliveries only: not while it is being received */
  return 0;
}

/* Recipients are shown only where the manual says: not to users' filters, nor while they are still coming in. */
static bool recipients_visible(const struct ctx *c) {
  const uint32_t where = ACL_BIT(ACL_PREDATA) | ACL_BIT(ACL_MIME) | ACL_BIT(ACL_DATA) | ACL_BIT(ACL_PRDR) | ACL_BIT(ACL_DKIM) |
                         ACL_BIT(ACL_NOT_SMTP) | ACL_BIT(ACL_NOT_SMTP_START) | ACL_BIT(ACL_NOT_SMTP_MIME);
  return c->message != NULL && ((c->acl_where > 0 && (where & ACL_BIT(c->acl_where - 1)) != 0) || (c->filter != NULL ? c->filter->system : c->is_test));
}

static int get_recipients(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct buf b;
  if (!recipients_visible(c))
    return 0;
  buf_init(&b, c->arena, RECIPIENTS_MAX_TEXT);
  for (size_t i = 0; i < c->message->recipients.n; i++) {
    struct str address = c->message->recipients.v[i].address;
    if (i > 0)
      buf_add_c(&b, def->flags != 0 ? ":" : ", ");
    for (size_t k = 0; k < address.len; k++) {
      if (def->flags != 0 && address.p[k] == ':')
        buf_add_byte(&b, ':');
      buf_add(&b, str_slice(address, k, k + 1));
    }
  }
  *ret = buf_str(&b);
  return 0;
}

static int get_recipients_count(struct ctx *c, const struct variable_def *def, struct str *ret) {
  return variable_number(c, c->message != NULL ? (int64_t)c->message->recipients.n : 0, ret);
}

static int get_received_for(struct ctx *c, const struct variable_def *def, struct str *ret) {
  if (c->message != NULL && c->message->recipients.n == 1)
    *ret = c->message->recipients.v[0].address;
  return 0;
}

static int get_received_time(struct ctx *c, const struct variable_def *def, struct str *ret) {
  return variable_number(c, c->message != NULL ? (int64_t)c->message->received_time.tv_sec : 0, ret);
}

static int get_age(struct ctx *c, const struct variable_def *def, struct str *ret) {
  int64_t received = c->message != NULL ? c->message->received_time.tv_sec : 0;
  int64_t age = received > 0 ? time(NULL) - received : 0; /* this clock ticks coarser than the other: it can be behind */
  return variable_number(c, age > 0 ? age : 0, ret);
}

static int get_originator(struct ctx *c, const struct variable_def *def, struct str *ret) {
  bool user = def->flags == 'u';
  if (c->message == NULL)
    return variable_number(c, user ? getuid() : getgid(), ret);
  return variable_number(c, user ? c->message->originator_uid : c->message->originator_gid, ret);
}

static int get_reply_address(struct ctx *c, const struct variable_def *def, struct str *ret) {
  static const char *const names[] = {"reply-to", "from"};
  if (c->message == NULL)
    return 0;
  for (size_t i = 0; i < 2; i++) {
    const struct header *h = message_find_header(c->message, str_c(names[i]), NULL);
    if (h != NULL && header_value(h).len > 0) {
      *ret = header_value(h);
      return 0;
    }
  }
  return 0;
}

static int get_headers(struct ctx *c, const struct variable_def *def, struct str *ret) {
  struct buf b;
  if (c->message == NULL)
    return 0;
  buf_init(&b, c->arena, HEADERS_MAX_TEXT);
  for (const struct header *h = c->message->headers; h != NULL && b.len < HEADERS_MAX_TEXT; h = h->next)
    if (h->type != '*') {
      struct str text = def->flags == 0 ? rfc2047_decode(c, h->text, STR_UNSET) : h->text;
      buf_add(&b, str_slice(text, 0, HEADERS_MAX_TEXT - b.len));
    }
  *ret = buf_str(&b);
  if (def->flags == 0 && ret->len > 0 && ret->p[ret->len - 1] == '\n')
    *ret = str_slice(*ret, 0, ret->len - 1);
  return 0;
}

const struct variable_def message_variables[] = {
  {"body_linecount", get_number, MESSAGE(body_lines)},
  {"body_zerocount", get_number, MESSAGE(body_zeros)},
  {"local_user_gid", get_local_user, 0, 'g'},
  {"local_user_uid", get_local_user, 0, 'u'},
  {"max_received_linelength", get_number, MESSAGE(max_received_line_length)},
  {"message_age", get_age},
  {"message_body_size", get_number, MESSAGE(body_size)},
  {"message_exim_id", get_id},
  {"message_headers", get_headers},
  {"message_headers_raw", get_headers, 0, 1},
  {"message_id", get_id},
  {"message_linecount", get_number, MESSAGE(lines)},
  {"message_size", get_number, MESSAGE(size)},
  {"originator_gid", get_originator, 0, 'g'},
  {"originator_uid", get_originator, 0, 'u'},
  {"queue_name", variable_get_message, MESSAGE(queue_name)},
  {"received_count", get_received_count},
  {"received_for", get_received_for},
  {"received_time", get_received_time},
  {"recipients", get_recipients},
  {"recipients_count", get_recipients_count},
  {"recipients_list", get_recipients, 0, 1},
  {"reply_address", get_reply_address},
  {"return_path", get_return_path},
  {"sender_address", get_sender},
  {"sender_address_domain", get_sender, 0, 'd'},
  {"sender_address_local_part", get_sender, 0, 'l'},
  {0},
};
