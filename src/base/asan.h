/* Marks memory as not to be touched when AddressSanitizer is in use, so that
it sees errors inside arenas and on fiber stacks; else nothing. */
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define MARTLET_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MARTLET_ASAN 1
#endif
#endif
#ifndef MARTLET_ASAN
#define MARTLET_ASAN 0
#endif

#if MARTLET_ASAN
#include <sanitizer/asan_interface.h>
#define asan_poison(p, n) __asan_poison_memory_region((p), (n))
#define asan_unpoison(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define asan_poison(p, n) ((void)(p), (void)(n))
#define asan_unpoison(p, n) ((void)(p), (void)(n))
#endif
