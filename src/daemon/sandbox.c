#include "daemon/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define LEAK_CHECKER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAK_CHECKER 1
#endif
#endif

#define NOBODY 65534

/* By name, since some are not there on every architecture or in older headers. */
static const char *const refused[] = {
    /* other processes */
#ifndef LEAK_CHECKER /* which looks at its own process through it */
    "ptrace",
#endif
    "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd",
    /* the kernel's less trodden paths */
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "keyctl",
    "request_key", "fanotify_init", "lookup_dcookie", "modify_ldt", "vmsplice", "uselib", "nfsservctl", "vm86", "vm86old",
    /* name spaces and mounts */
    "unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig",
    "fsmount", "fspick", "mount_setattr", "name_to_handle_at", "open_by_handle_at", "mknod", "mknodat",
    /* the machine */
    "reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module", "swapon", "swapoff",
    "sethostname", "setdomainname", "iopl", "ioperm", "acct", "quotactl", "quotactl_fd", "settimeofday", "clock_settime",
    "clock_adjtime", "adjtimex", "stime", "syslog", "vhangup",
};

#define NAME_SPACES (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)

static int refuse_calls(scmp_filter_ctx f) {
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    int number = seccomp_syscall_resolve_name(refused[i]);
    int e = number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), number, 0);
    if (e && e != -EDOM && e != -EACCES) /* not on this architecture */
      return e;
  }
  return 0;
}

/* New processes and threads, but none in name spaces of their own. What clone3 asks for lies in memory, where the filter
cannot look: the C library then takes clone. */
static int refuse_name_spaces(scmp_filter_ctx f) {
  for (unsigned bit = 1u << 7; bit; bit <<= 1) {
    int e = !(bit & NAME_SPACES) ? 0 : seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, bit, bit));
    if (e)
      return e;
  }
  int clone3 = seccomp_syscall_resolve_name("clone3");
  return clone3 == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), clone3, 0);
}

/* Local sockets, the internet and what the C library asks for addresses and interfaces. */
static int refuse_sockets(scmp_filter_ctx f) {
  for (int family = 0; family <= AF_NETLINK; family++) {
    bool wanted = family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK;
    int e = wanted ? 0 : seccomp_rule_add(f, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_MAX, (scmp_datum_t)family));
    if (e)
      return e;
  }
  return seccomp_rule_add(f, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GT, AF_NETLINK));
}

int sandbox_enter(void) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return -errno;
  scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
  if (f == NULL)
    return -ENOMEM;
  int e = 0;
#ifdef __x86_64__
  /* Programs of 32 bits may be started; calls in any other form are no way around. */
  e = seccomp_arch_add(f, SCMP_ARCH_X86);
#endif
  if (!e)
    e = refuse_calls(f);
  if (!e)
    e = refuse_name_spaces(f);
  if (!e)
    e = refuse_sockets(f);
  if (!e)
    e = seccomp_load(f);
  seccomp_release(f);
  return e;
}

#define LANDLOCK_ALL ((1u << 13) - 1) /* the rights of the first version */
#define LANDLOCK_READ_FILE (1u << 2)

/* These of the file system's rights are handled, and none is granted. */
static void refuse_files(uint64_t rights) {
#ifdef SYS_landlock_create_ruleset
  const struct { uint64_t handled; } attr = {rights};
  int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
  if (fd < 0)
    return;
  (void)syscall(SYS_landlock_restrict_self, fd, 0);
  close(fd);
#endif
}

#ifndef LEAK_CHECKER /* which looks at the process from another one */
/* Threads, but no processes. */
static int refuse_processes(scmp_filter_ctx f) {
  return seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
}
#else
static int refuse_processes(scmp_filter_ctx f) { return 0; }
#endif

static int enter_alone(const char *const more[], bool threads_only) {
  static const char *const alone[] = {"execve", "execveat", "fork", "vfork", "kill", "tkill", "tgkill", "pidfd_open", "pidfd_send_signal",
      "setuid", "setgid", "setreuid", "setresuid", "setfsuid", "shmget", "shmat", "msgget", "semget", NULL};
  scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
  if (f == NULL)
    return -ENOMEM;
  int e = threads_only ? refuse_processes(f) : 0;
  const char *const *lists[] = {alone, more};
  for (size_t i = 0; i < 2; i++)
    for (const char *const *name = lists[i]; *name && !e; name++) {
      int number = seccomp_syscall_resolve_name(*name);
      e = number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), number, 0);
      if (e == -EDOM || e == -EACCES)
        e = 0;
    }
  if (!e)
    e = seccomp_load(f);
  seccomp_release(f);
  return e;
}

int sandbox_enter_alone(void) {
  static const char *const nothing[] = {NULL};
  int e = sandbox_enter();
  if (e)
    return e;
  refuse_files(LANDLOCK_ALL);
  return enter_alone(nothing, false);
}

int sandbox_enter_reader(void) {
  static const char *const more[] = {"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "chmod", "fchmod", "fchmodat",
      "fchmodat2", "chown", "lchown", "fchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr", "truncate", "utimensat", "inotify_init1", NULL};
  int e = sandbox_enter();
  if (e)
    return e;
  refuse_files(LANDLOCK_ALL & ~LANDLOCK_READ_FILE);
  return enter_alone(more, true);
}

/* Of the capabilities only these two, one of them; 0: there are none of them. */
static uint32_t reading_right(uint32_t permitted) {
  uint32_t search = 1u << CAP_DAC_READ_SEARCH, all = 1u << CAP_DAC_OVERRIDE;
  return permitted & search ? search : permitted & all;
}

void sandbox_drop_root_but_reading(void) {
  uid_t real = getuid();
  gid_t gid = getgid();
  if (real != 0) { /* an ordinary user's, whatever the file is installed as: what it is told to read is that user's wish */
    if ((geteuid() == 0 && setgroups(0, NULL)) || setresgid(gid, gid, gid) || setresuid(real, real, real) || geteuid() != real)
      _exit(1);
    return;
  }
  if (seteuid(0)) /* set aside, but not given up */
    _exit(1);
  struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{0}, {0}};
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY) ||
      syscall(SYS_capget, &head, data))
    _exit(1);
  uint32_t right = reading_right(data[0].permitted);
  memset(data, 0, sizeof data);
  data[0].effective = data[0].permitted = right;
  if (syscall(SYS_capset, &head, data) || geteuid() == 0)
    _exit(1);
}

void sandbox_drop_root(void) {
  uid_t real = getuid(), uid = geteuid() != 0 ? geteuid() : real != 0 ? real : NOBODY;
  gid_t real_gid = getgid(), gid = getegid() != 0 ? getegid() : real_gid != 0 ? real_gid : NOBODY;
  bool root = geteuid() == 0;
  if (root && setgroups(0, NULL))
    _exit(1);
  if (setresgid(gid, gid, gid) && root)
    _exit(1);
  if (setresuid(uid, uid, uid) || geteuid() == 0)
    _exit(1);
}
