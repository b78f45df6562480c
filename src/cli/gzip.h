#pragma once

#include "base/arena.h"
#include "base/str.h"

/* `text` as a gzip file (RFC 1952), in the arena: what DMARC and TLS reports are sent as. false: zlib could not. */
bool gzip_text(struct arena *a, struct str text, struct str *ret);
