/* Where libdb was not there at build time. */
#include <stdio.h>
#include "expand/foreign.h"
#include "lookup/dbm_build.h"
#include "lookup/types.h"

const struct foreign_role dbm_verify_role = {.name = "dbm"};

int dbm_build(struct arena *a, const struct str *args, size_t n) {
  fprintf(stderr, "exim_dbmbuild: this program was built without libdb\n");
  return 2;
}

int dbm_list(const char *file) { return dbm_build(NULL, NULL, 0); }
