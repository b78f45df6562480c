#include "mailauth/body_hash.h"

#include "base/arena.h"

static void sink(void *arg, const char *p, size_t n) {
  struct body_hash *h = arg;
  EVP_DigestUpdate(h->ctx, p, n);
}

static void free_context(void *arg) { EVP_MD_CTX_free(arg); }

struct body_hash *body_hash_want(struct body_hashes *all, const EVP_MD *md, enum canon how, uint64_t limit) {
  struct body_hash **p = &all->first;
  for (; *p; p = &(*p)->next)
    if ((*p)->md == md && (*p)->body.how == how && (*p)->body.limit == limit)
      return *p;
  if (all->n >= BODY_HASHES_MAX)
    return NULL;
  struct body_hash *h = arena_new_of(all->arena, struct body_hash);
  h->ctx = EVP_MD_CTX_new();
  if (h->ctx == NULL)
    return NULL;
  arena_cleanup(all->arena, free_context, h->ctx);
  if (EVP_DigestInit_ex(h->ctx, md, NULL) != 1)
    return NULL;
  h->md = md;
  canon_body_begin(&h->body, how, limit, sink, h);
  all->n++;
  return *p = h;
}

void body_hashes_add(struct body_hashes *all, struct str data) {
  for (struct body_hash *h = all->first; h; h = h->next)
    canon_body_add(&h->body, data);
}

void body_hashes_end(struct body_hashes *all) {
  for (struct body_hash *h = all->first; h; h = h->next) {
    canon_body_end(&h->body);
    if (EVP_DigestFinal_ex(h->ctx, h->digest, &h->digest_n) != 1)
      h->digest_n = 0;
  }
}

/* Looks for the last line end within what one line may have, then for the next such. */
void line_watch_add(struct line_watch *w, struct str data) {
  while (data.len > 0 && !w->too_long) {
    size_t room = BODY_LINE_MAX - 2 - w->length, n = data.len <= room ? data.len : room + 1;
    const char *nl = memrchr(data.p, '\n', n);
    if (nl == NULL) {
      w->too_long = n > room;
      w->length += n;
      return;
    }
    w->length = 0;
    data = str_from(data, (size_t)(nl - data.p) + 1);
  }
}
