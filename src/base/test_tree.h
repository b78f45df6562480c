/* For tests: removes a directory with all that is in it. */
#pragma once

#include <ftw.h>
#include <stdio.h>

static inline int test_tree_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) { return remove(path); }

static inline int test_tree_remove(const char *root) { return nftw(root, test_tree_remove_one, 16, FTW_DEPTH | FTW_PHYS); }
