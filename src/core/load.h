/* The load average of the system, which some options compare with. */
#pragma once

#include <stdint.h>

/* In thousandths, as the options are. 0 when it is not known. */
int64_t load_average(void);
