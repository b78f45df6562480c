#include "base/fd_io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"

static void reads_until_the_end(void **state) {
  char text[16] = "";
  int fd = memfd_create("text", MFD_CLOEXEC);
  assert_int_equal(fd_write_all(fd, "0123456789", 10), 0);
  assert_int_equal(fd_pread_all(fd, text, 4, 3), 4);
  assert_memory_equal(text, "3456", 4);
  assert_int_equal(fd_pread_all(fd, text, sizeof text, 8), 2);
  assert_int_equal(fd_pread_all(fd, text, sizeof text, 10), 0);
  assert_int_equal(lseek(fd, 5, SEEK_SET), 5);
  assert_int_equal(fd_read_all(fd, text, sizeof text), 5);
  assert_memory_equal(text, "56789", 5);
  close(fd);
}

static void on_signal(int n) { (void)n; }

/* A pipe takes and gives pieces; signals come in between. */
static void pieces_and_signals(void **state) {
  enum { SIZE = 1 << 20 };
  static char sent[SIZE], got[SIZE];
  struct sigaction act = {.sa_handler = on_signal}; /* without SA_RESTART */
  int ends[2];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  sigaction(SIGUSR1, &act, NULL);
  for (int i = 0; i < SIZE; i++)
    sent[i] = (char)(i * 7);
  pid_t parent = getpid(), pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    for (int i = 0; i < 16; i++) {
      kill(parent, SIGUSR1);
      if (fd_write_all(ends[1], sent + i * (SIZE / 16), SIZE / 16) != 0)
        _exit(1);
    }
    _exit(0);
  }
  close(ends[1]);
  assert_int_equal(fd_read_all(ends[0], got, SIZE), SIZE);
  assert_memory_equal(got, sent, SIZE);
  assert_int_equal(fd_read_all(ends[0], got, SIZE), 0);
  int status;
  while (waitpid(pid, &status, 0) < 0)
    assert_int_equal(errno, EINTR);
  assert_int_equal(status, 0);
  close(ends[0]);
}

static void errors_are_told(void **state) {
  char c = 'x';
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC), full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  assert_int_equal(fd_write_all(null, &c, 1), -EBADF);
  assert_int_equal(fd_write_all(full, &c, 1), -ENOSPC);
  assert_int_equal(fd_read_all(full, &c, 1), -EBADF);
  assert_int_equal(fd_pread_all(full, &c, 1, 0), -EBADF);
  assert_int_equal(fd_write_all(null, &c, 0), 0);
  close(null);
  close(full);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_until_the_end),
      cmocka_unit_test(pieces_and_signals),
      cmocka_unit_test(errors_are_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
