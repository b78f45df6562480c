/* The cache of open handles: one a type and file, the least recently used
closed when there are more than lookup_open_max. */
#pragma once

#include "lookup/lookup.h"

struct lookup_handle;

/* An open handle, opened if need be. It stays valid until the release, whatever suspends in between. */
int lookup_handle_acquire(struct ctx *c, const struct lookup_def *def, struct str file, struct lookup_handle **ret) MUST_CHECK;
void *lookup_handle_data(const struct lookup_handle *h);
void lookup_handle_release(struct lookup_handle *h);
void lookup_handles_close(void);
