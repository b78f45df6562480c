/* Whole reads and writes of files, pipes and memory files: short ones go on, so do those that a signal interrupts.
They block: in a worker only through fiber_offload. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Writes all of it. 0, or -errno (-EIO: nothing was taken). */
int fd_write_all(int fd, const void *p, size_t n);
/* Reads until n bytes are there or the file ends. How many were read, or -errno. */
ssize_t fd_read_all(int fd, void *to, size_t n);
/* The same from offset `at` on; the descriptor's own offset is left alone. */
ssize_t fd_pread_all(int fd, void *to, size_t n, off_t at);
