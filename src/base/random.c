#include "base/random.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void random_bytes(void *to, size_t n) {
  char *p = to;
  while (n > 0) {
    ssize_t r = getrandom(p, n, 0);
    if (r < 0 && errno != EINTR)
      abort(); /* the kernel always has this call; nothing secret can be made without it */
    if (r > 0) {
      p += r;
      n -= (size_t)r;
    }
  }
}

uint64_t random_u64(void) {
  uint64_t v;
  random_bytes(&v, sizeof v);
  return v;
}

uint64_t random_below(uint64_t limit) {
  if (limit == 0)
    return 0;
  uint64_t v, reject = -limit % limit; /* so many values would make some results likelier */
  do
    v = random_u64();
  while (v < reject);
  return v % limit;
}
