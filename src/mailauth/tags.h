/* Tag lists "a=b; c=d" of DKIM, DMARC and ARC (RFC 6376, section 3.2). */
#pragma once

#include "base/arena.h"
#include "base/str.h"

#define TAGS_MAX 100

struct tag {
  struct str name;
  struct str value;  /* without white space around it; what is folded inside is still there */
  struct str raw;    /* all between "=" and ";" */
};

struct tag_list {
  struct tag *v;
  size_t n;
};

/* Views into `text`; the array lives in `a`. false: it breaks the grammar, has a name twice or more than TAGS_MAX. */
bool tags_parse(struct arena *a, struct str text, struct tag_list *ret);
/* The tag of that name, or NULL. Names are compared with case. */
const struct tag *tags_find(const struct tag_list *l, const char *name);
/* Its value; unset if it is absent. */
struct str tags_value(const struct tag_list *l, const char *name);
/* The value without any white space (base64, lists). */
struct str tags_squeeze(struct arena *a, struct str value);
