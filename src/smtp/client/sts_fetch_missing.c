/* Built without libcurl: hosts_try_mta_sts is refused. */
#include "smtp/client/sts.h"

#include <errno.h>

int sts_fetch(struct ctx *c, struct str host, struct str addresses, struct str ca, struct str *ret, struct str *ret_error) {
  *ret_error = STR("this program was built without libcurl");
  return -ENOSYS;
}

bool sts_fetch_available(void) { return false; }
int sts_fetch_run(const char *url, const char *resolve, const char *ca) { return 1; }
