/* Built without libcurl: hosts_try_mta_sts is refused, and reports do not go to https: destinations. */
#include "smtp/client/https.h"

#include <errno.h>

int https_ask(struct ctx *c, const struct https_request *r, struct str *ret, struct str *ret_error) {
  *ret = *ret_error = STR("this program was built without libcurl");
  return -ENOSYS;
}

bool https_available(void) { return false; }
int https_run(const char *url, const char *resolve, const char *ca, const char *type) { return 1; }
