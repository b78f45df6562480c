#include "base/fd_pass.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/test.h"

#define HOSTILE 20

struct fixture {
  int pair[2], file;
  size_t before; /* descriptors that are open */
};

static size_t open_descriptors(void) {
  DIR *d = opendir("/proc/self/fd");
  size_t n = 0;
  assert_non_null(d);
  while (readdir(d))
    n++;
  closedir(d);
  return n;
}

static int setup(void **state) {
  static struct fixture f;
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f.pair), 0);
  f.file = open("/dev/null", O_RDONLY); /* inherited by programs: the receiver's is not */
  assert_true(f.file >= 0);
  f.before = open_descriptors();
  *state = &f;
  return 0;
}

static int teardown(void **state) {
  struct fixture *f = *state;
  close(f->pair[0]);
  close(f->pair[1]);
  close(f->file);
  return 0;
}

/* Another program's sendmsg: as many descriptors as it likes, in one control message. */
static void send_hostile(const struct fixture *f, const char *text, size_t len, size_t fds_n) {
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(int) * HOSTILE)];
  } control = {0};
  struct iovec iov = {(void *)(uintptr_t)text, len};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = CMSG_SPACE(sizeof(int) * fds_n)};
  struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int) * fds_n);
  for (size_t i = 0; i < fds_n; i++)
    memcpy(CMSG_DATA(c) + i * sizeof(int), &f->file, sizeof(int));
  assert_int_equal(sendmsg(f->pair[0], &msg, 0), (int)len);
}

static int send_text(const struct fixture *f, const char *text, const int *fds, size_t n) {
  struct iovec parts[2] = {{(void *)(uintptr_t)text, 1}, {(void *)(uintptr_t)(text + 1), strlen(text) - 1}};
  return fd_pass_send(f->pair[0], parts, 2, fds, n, MSG_DONTWAIT);
}

static ssize_t receive(const struct fixture *f, char to[9], int *fds, size_t max, size_t *ret_n) {
  struct iovec part = {to, 8};
  memset(to, 0, 9);
  fds[0] = fds[1] = -1;
  return fd_pass_receive(f->pair[1], &part, 1, fds, max, ret_n, MSG_DONTWAIT);
}

static void datagram_without_descriptor(void **state) {
  struct fixture *f = *state;
  char text[9];
  int fds[2];
  size_t n;
  assert_int_equal(receive(f, text, fds, 1, &n), -EAGAIN);
  assert_int_equal(n, 0);
  assert_int_equal(send_text(f, "hello", NULL, 0), 0);
  assert_int_equal(receive(f, text, fds, 1, &n), 5);
  assert_string_equal(text, "hello");
  assert_int_equal(n, 0);
  assert_int_equal(open_descriptors(), f->before);
}

static void descriptors_arrive_in_order_and_are_not_inherited(void **state) {
  struct fixture *f = *state;
  char text[9];
  int sent[2] = {f->file, f->pair[0]}, fds[2];
  size_t n;
  struct stat st;
  assert_int_equal(send_text(f, "two", sent, 2), 0);
  assert_int_equal(receive(f, text, fds, 2, &n), 3);
  assert_int_equal(n, 2);
  assert_int_equal(open_descriptors(), f->before + 2);
  assert_int_equal(fstat(fds[0], &st), 0);
  assert_true(S_ISCHR(st.st_mode));
  assert_int_equal(fstat(fds[1], &st), 0);
  assert_true(S_ISSOCK(st.st_mode));
  for (size_t i = 0; i < n; i++) {
    assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    close(fds[i]);
  }
  assert_int_equal(fcntl(f->file, F_GETFD) & FD_CLOEXEC, 0);
}

static void more_descriptors_than_asked_for_are_closed(void **state) {
  struct fixture *f = *state;
  char text[9];
  int fds[2];
  size_t n;
  for (size_t max = 0; max <= FD_PASS_MAX; max++)
    for (size_t sent = max + 1; sent <= HOSTILE; sent++) { /* 2 fit into the room for 1; of 20 most are cut off by the kernel */
      send_hostile(f, "x", 1, sent);
      assert_int_equal(receive(f, text, fds, max, &n), -EBADMSG);
      assert_int_equal(n, 0);
      assert_int_equal(open_descriptors(), f->before);
    }
  assert_int_equal(send_text(f, "good", &f->file, 1), 0); /* and the next is heard */
  assert_int_equal(receive(f, text, fds, 1, &n), 4);
  assert_int_equal(n, 1);
  close(fds[0]);
}

static void long_datagram_is_refused_with_its_descriptors(void **state) {
  struct fixture *f = *state;
  char text[9];
  int fds[2];
  size_t n;
  send_hostile(f, "123456789", 9, 1);
  assert_int_equal(receive(f, text, fds, 1, &n), -EBADMSG);
  assert_int_equal(n, 0);
  assert_int_equal(open_descriptors(), f->before);
}

/* On a SEQPACKET socket an empty datagram looks like the end. */
static void empty_datagram_leaves_no_descriptor(void **state) {
  struct fixture *f = *state;
  char text[9];
  int fds[2];
  size_t n;
  send_hostile(f, "", 0, 1);
  assert_int_equal(receive(f, text, fds, 1, &n), 0);
  assert_int_equal(n, 0);
  assert_int_equal(open_descriptors(), f->before);
}

static void end_and_errors(void **state) {
  struct fixture *f = *state;
  char text[9];
  int fds[3] = {f->file, f->file, f->file};
  size_t n;
  assert_int_equal(send_text(f, "much", fds, 3), -EINVAL);
  int closed = dup(f->file);
  close(closed);
  assert_int_equal(send_text(f, "bad", &closed, 1), -EBADF);
  assert_int_equal(receive(f, text, fds, 3, &n), -EINVAL);
  shutdown(f->pair[0], SHUT_WR);
  assert_int_equal(receive(f, text, fds, 1, &n), 0);
  close(f->pair[1]);
  f->pair[1] = dup(f->file);
  assert_int_equal(send_text(f, "gone", NULL, 0), -EPIPE);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(datagram_without_descriptor, setup, teardown),
      cmocka_unit_test_setup_teardown(descriptors_arrive_in_order_and_are_not_inherited, setup, teardown),
      cmocka_unit_test_setup_teardown(more_descriptors_than_asked_for_are_closed, setup, teardown),
      cmocka_unit_test_setup_teardown(long_datagram_is_refused_with_its_descriptors, setup, teardown),
      cmocka_unit_test_setup_teardown(empty_datagram_leaves_no_descriptor, setup, teardown),
      cmocka_unit_test_setup_teardown(end_and_errors, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
