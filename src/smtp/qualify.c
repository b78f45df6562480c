/* Qualification and rewriting of the envelope and of header addresses, at the
end of the header section (Exim manual, chapter "Address rewriting"). */
#include "acl/acl.h"
#include "base/buf.h"
#include "core/main_options.h"
#include "log/log.h"
#include "message/address.h"
#include "smtp/receive.h"

/* May unqualified addresses in this header line be completed? */
static bool may_qualify(const struct reception *r, char type) {
  if (!r->p.qualify_headers)
    return false;
  if (r->p.local)
    return true;
  bool sender = type == 'F' || type == 'R' || type == 'S';
  return sender ? r->m->allow_unqualified_sender : r->m->allow_unqualified_recipient;
}

/* Completes each unqualified address of the line; the rest of its text stays as it is. */
static void qualify_header(struct reception *r, struct header *h) {
  struct ctx *c = r->c;
  bool sender = h->type == 'F' || h->type == 'R' || h->type == 'S';
  struct str value = header_value(h);
  struct address_walk w = {.text = value};
  struct buf b;
  size_t done = 0;
  bool changed = false;
  buf_init(&b, r->m->arena, BUF_MAX_EXPANSION);
  while (address_walk_next(&w)) {
    struct mail_address address;
    struct str error;
    if (address_parse(c->arena, str_slice(value, w.from, w.to), ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8, &address, &error) < 0 ||
        address.address.len == 0 || address.domain.len > 0)
      continue;
    size_t end = w.from + address.end;
    if (!changed) {
      buf_add(&b, str_slice(h->text, 0, (size_t)(value.p - h->text.p)));
      changed = true;
    }
    const struct main_options *o = main_options(c->config);
    buf_add(&b, str_slice(value, done, end));
    buf_add_byte(&b, '@');
    buf_add(&b, sender ? o->qualify_domain : o->qualify_recipient);
    done = end;
  }
  if (!changed)
    return;
  buf_add(&b, str_from(value, done));
  buf_add_byte(&b, '\n');
  if (b.overflow)
    return;
  h->text = buf_str(&b);
  h->text.taint = STR_TAINTED;
}

int receive_rewrite(struct reception *r) {
  for (struct header *h = r->m->headers; h; h = h->next)
    if (h->type && strchr("TCBFSR", h->type) && may_qualify(r, h->type))
      qualify_header(r, h);
  return 0;
}
