/* -bV: what this program is and can do, in Exim's form (Exim manual, chapter
"The Exim command line"; docs/: the support words of the features). Made from
the modules' tables, so that it tells what is really there. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include "base/arena.h"
#include "base/str.h"

struct config;

/* "Martlet version 0.1.0 #1 built 14-Feb-2026 12:00:00" and what follows it, up to "Size of off_t". `process`: the first line
tells user, group and process id, too, and the libraries' versions follow. */
void config_version_print(FILE *out, bool process);
/* "Configuration file is …". */
void config_version_print_file(FILE *out, const struct config *c);
/* The words behind "Support for:", with a blank before each. */
struct str config_version_support(struct arena *a);
