/* Random numbers of the kernel; good enough for secrets. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *to, size_t n);
uint64_t random_u64(void);
/* Evenly in [0, limit); 0 when limit is 0. */
uint64_t random_below(uint64_t limit);
