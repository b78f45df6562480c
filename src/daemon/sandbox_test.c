#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/asan.h"
#include "daemon/sandbox.h"

#define NO_SANDBOX 77

/* Runs fn behind the filter, in a child: its number, 0 for good. */
static int behind(int (*fn)(void)) {
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    int e = sandbox_enter();
    _exit(e ? NO_SANDBOX : fn());
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == NO_SANDBOX)
    skip();
  return WEXITSTATUS(status);
}

static int forbidden(void) {
  if (unshare(CLONE_NEWUSER) == 0 || errno != EPERM)
    return 1;
  if (syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL) != -1 || errno != EPERM)
    return 2;
  if (syscall(SYS_bpf, 0, NULL, 0) != -1 || errno != EPERM)
    return 3;
  if (socket(AF_VSOCK, SOCK_STREAM, 0) != -1 || errno != EAFNOSUPPORT)
    return 4;
  if (socket(AF_PACKET, SOCK_RAW, 0) != -1 || errno != EAFNOSUPPORT)
    return 5;
  /* The kernel looks at 32 bits of it only. */
  if (syscall(SYS_socket, 0x100000000 | AF_PACKET, SOCK_RAW, 0) != -1 || errno != EAFNOSUPPORT)
    return 6;
  if (syscall(SYS_reboot, 0, 0, 0, NULL) != -1 || errno != EPERM)
    return 7;
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
    return 8;
#if !defined(__SANITIZE_ADDRESS__)
  if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != -1 || errno != EPERM)
    return 9;
#endif
  if (syscall(SYS_keyctl, 0, 0) != -1 || errno != EPERM)
    return 10;
  return 0;
}

static void *thread(void *arg) { return arg; }

static int allowed(void) {
  static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
  pthread_t t;
  void *got;
  int x, status;
  if (pthread_create(&t, NULL, thread, &x) || pthread_join(t, &got) || got != &x)
    return 1;
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    int fd = socket(families[i], SOCK_DGRAM, 0);
    if (fd < 0 && errno != EAFNOSUPPORT)
      return 2;
    if (fd < 0 && families[i] != AF_INET6)
      return 3;
    close(fd);
  }
  pid_t pid;
  char name[] = "true", *const argv[] = {name, NULL}, *const envp[] = {NULL};
  if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, envp) || waitpid(pid, &status, 0) != pid || status)
    return 4;
  pid = fork();
  if (pid == 0)
    _exit(unshare(CLONE_NEWUSER) < 0 && errno == EPERM ? 0 : 1); /* children are held to it as well */
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
    return 5;
  return 0;
}

/* A process that reads files, makes threads, and nothing more. */
static int reader(void) {
  pthread_t t;
  void *got;
  int x, e = sandbox_enter_reader();
  if (e)
    return e == -EPERM || e == -EINVAL ? 0 : 1; /* a container that has no filters */
  if (pthread_create(&t, NULL, thread, &x) || pthread_join(t, &got) || got != &x)
    return 2;
  int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return 3;
  if (socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || socket(AF_INET, SOCK_STREAM, 0) >= 0)
    return 4;
  if (!MARTLET_ASAN && fork() >= 0) /* its leak checker needs another process */
    return 5;
  if (kill(getppid(), 0) == 0 || fchmod(fd, 0644) == 0)
    return 6;
  char name[] = "true", *const argv[] = {name, NULL}, *const envp[] = {NULL};
  execve("/bin/true", argv, envp);
  return errno == EPERM ? 0 : 7;
}

static void test_reader(void **state) { assert_int_equal(behind(reader), 0); }
static void test_forbidden(void **state) { assert_int_equal(behind(forbidden), 0); }
static void test_allowed(void **state) { assert_int_equal(behind(allowed), 0); }

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_forbidden), cmocka_unit_test(test_allowed), cmocka_unit_test(test_reader)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
