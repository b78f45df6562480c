/* exim_dbmbuild (manual, "Making DBM files"), and listing such files. Run by the command line; they block. */
#pragma once

#include <stddef.h>

struct arena;
struct str;

/* Options and the names of the input (- for standard input) and of the file to make. The exit status: 0, 1 (duplicate keys),
2 (nothing was made; the reason is on standard error). */
int dbm_build(struct arena *a, const struct str *args, size_t n);
/* Writes "KEY<tab>DATA" lines of a file to standard output. The exit status. */
int dbm_list(const char *file);
