#include "core/load.h"

#include <stdlib.h>
#include "core/build.h"

int64_t load_average(void) {
  static int64_t fake;
  double v[1];
  if (build.fake_load_average) {
    fake += 10;
    return fake - 10;
  }
  return getloadavg(v, 1) == 1 ? (int64_t)(v[0] * 1000) : 0;
}
