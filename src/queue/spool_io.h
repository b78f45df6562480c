/* The system calls of the spool. Each may be made to fail: unit and crash
tests set spool_fault. No function here suspends; callers offload what may
block. All return -errno. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Asked before each call that changes the disk, with a name such as "fdatasync": 0 goes on, else -errno is its
result; may also end the process. NULL: no faults. */
extern int (*spool_fault)(const char *operation);
/* Ready-made: fails the nth next operation (1: the next) with -`code`; 0 switches off. Counts are process-wide. */
void spool_fault_at(int n, int code);
/* How many operations were asked about since spool_fault_at. */
int spool_fault_count(void);

int spool_io_open(int dir, const char *name, int flags, mode_t mode);
int spool_io_write(int fd, const char *p, size_t n);                 /* all of it */
int spool_io_pwrite(int fd, const char *p, size_t n, off_t offset);  /* all of it */
int spool_io_datasync(int fd);
int spool_io_sync_dir(int fd);
int spool_io_sync_fs(int fd);
int spool_io_rename(int from_dir, const char *from, int to_dir, const char *to);
int spool_io_unlink(int dir, const char *name);
/* Write lock on byte 0, bound to the open file: 0, -EAGAIN if another has it. */
int spool_io_lock(int fd);
