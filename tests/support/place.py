"""A place: private mounts and processes, in which a mail server finds its own /usr, /etc and /var.

Debian's servers have paths and users built in. A place lays their unpacked packages over /usr and /etc (overlayfs, in
a mount namespace of its own, so nothing of the machine changes), brings its own passwd, group and resolv.conf, and ends
all processes in it (pid namespace) when it is stopped, or when the program that made it ends. Needs root.
"""
import os
import shlex
import subprocess

from .util import wait_for, write

FIRST_UID = 61000


def available():
    return os.geteuid() == 0


class Place:
    def __init__(self, directory, layers=(), users=(), resolver=None, hosts=None):
        """layers: unpacked packages, the first on top. users: (name, home) or names."""
        self.directory = str(directory)
        self.layers = [os.path.abspath(str(p)) for p in layers]
        self.users = {}
        self.binds = []
        self.tmpfs = []
        self.keeper = None
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o755)
        for sub in ('etc', 'var/spool', 'var/log', 'var/mail', 'var/tmp', 'run', 'home'):
            os.makedirs(os.path.join(self.directory, sub), exist_ok=True)
        os.chmod(os.path.join(self.directory, 'var/tmp'), 0o1777)
        os.chmod(os.path.join(self.directory, 'var/mail'), 0o1777)
        for n, user in enumerate(users):
            name, home = user if isinstance(user, tuple) else (user, '/nonexistent')
            self.users[name] = (FIRST_UID + n, home)
        self._accounts()
        if resolver:
            self.etc('resolv.conf', f'nameserver {resolver}\noptions timeout:2 attempts:2\n')
        if hosts is not None:
            self.etc('hosts', hosts)

    def _accounts(self):
        with open('/etc/passwd') as f:
            passwd = [line for line in f if line.split(':')[0] not in self.users]
        with open('/etc/group') as f:
            group = [line for line in f if line.split(':')[0] not in self.users]
        for name, (uid, home) in self.users.items():
            passwd.append(f'{name}:x:{uid}:{uid}:{name} of the tests:{home}:/bin/sh\n')
            group.append(f'{name}:x:{uid}:\n')
            if home.startswith('/home/'):
                path = os.path.join(self.directory, home[1:])
                os.makedirs(path, exist_ok=True)
                os.chown(path, uid, uid)
        self.etc('passwd', ''.join(passwd))
        self.etc('group', ''.join(group))

    def uid(self, name):
        return self.users[name][0]

    def etc(self, name, text, mode=0o644):
        return write(os.path.join(self.directory, 'etc', name), text, mode)

    def path(self, inside):
        """Where a file of /var, /run, /home or /etc (as seen inside) lies outside."""
        return os.path.join(self.directory, inside.lstrip('/'))

    def mount_tmpfs(self, inside, options):
        """A file system of limited size on a directory of /var, /run or /home."""
        self.tmpfs.append((inside, options))

    def bind(self, outside, inside):
        self.binds.append((str(outside), inside))

    def start(self, group=None):
        """group: a procs.Group that all processes of the place join."""
        d = self.directory
        usr = [p + '/usr' for p in self.layers if os.path.isdir(p + '/usr')]
        etc = [d + '/etc'] + [p + '/etc' for p in self.layers if os.path.isdir(p + '/etc')]
        script = ['set -e', 'mount --make-rprivate /']
        if usr:
            script.append(overlay(usr, '/usr'))
        script.append(overlay(etc, '/etc'))
        for sub in ('var/spool', 'var/log', 'var/mail', 'home'):
            script.append(f'mount --bind {shlex.quote(d)}/{sub} /{sub}')
        script.append(f'mount --bind {shlex.quote(d)}/run /run')
        for inside, options in self.tmpfs:
            script.append(f'mkdir -p {inside} && mount -t tmpfs -o {options} tmpfs {inside}')
        for outside, inside in self.binds:
            script.append(f'mount --bind {shlex.quote(outside)} {shlex.quote(inside)}')
        # bash, since it reaps the orphans; it ends, and with it the namespace, when our end of the pipe is closed.
        script += ['echo ready', 'read nothing || true']
        self.keeper = subprocess.Popen(
            ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '-c', '\n'.join(script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd='/')
        self.group = group
        if self.keeper.stdout.readline() != b'ready\n':
            raise RuntimeError('cannot make a place: ' + self.keeper.stderr.read().decode())
        with open(f'/proc/{self.keeper.pid}/task/{self.keeper.pid}/children') as f:
            self.init = int(f.read().split()[0])
        if group:
            group.add(self.init)
        return self

    def command(self, cmd, user=None):
        enter = self.group.command() if self.group else []
        enter += ['nsenter', '-t', str(self.init), '-m', '-p', '-r', '-w']
        if user:
            uid = str(self.uid(user))
            enter += ['setpriv', '--reuid', uid, '--regid', uid, '--clear-groups']
        return enter + [str(c) for c in cmd]

    def popen(self, cmd, user=None, **kw):
        kw.setdefault('stdin', subprocess.DEVNULL)
        kw.setdefault('cwd', '/')
        return subprocess.Popen(self.command(cmd, user), **kw)

    def run(self, cmd, user=None, check=True, timeout=120, input=None, **kw):
        """Runs a command inside; gives its standard output and error together, as text."""
        if input is None:
            kw.setdefault('stdin', subprocess.DEVNULL)
        kw.setdefault('cwd', '/')
        done = subprocess.run(self.command(cmd, user), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                              input=input.encode() if isinstance(input, str) else input, **kw)
        text = done.stdout.decode('utf-8', 'replace')
        if check and done.returncode != 0:
            raise RuntimeError(f'{cmd} ended with status {done.returncode}: {text}')
        return text

    def processes(self):
        """The process ids (as seen outside) of all that runs inside, but for the keeper."""
        ours, found = os.readlink(f'/proc/{self.init}/ns/pid'), []
        for name in os.listdir('/proc'):
            if name.isdigit() and int(name) != self.init:
                try:
                    if os.readlink(f'/proc/{name}/ns/pid') == ours:
                        found.append(int(name))
                except OSError:
                    pass
        return found

    def stop(self):
        if self.keeper is None:
            return
        self.keeper.stdin.close()
        try:
            self.keeper.wait(10)
        except subprocess.TimeoutExpired:
            self.keeper.kill()
            self.keeper.wait()
        self.keeper.stdout.close()
        self.keeper.stderr.close()
        self.keeper = None

    def wait_gone(self, pattern):
        """Waits until no process inside has the pattern in its command line."""
        def gone():
            for pid in self.processes():
                try:
                    with open(f'/proc/{pid}/cmdline', 'rb') as f:
                        if pattern.encode() in f.read():
                            return False
                except OSError:
                    pass
            return True
        wait_for(gone, 'end of ' + pattern)


def overlay(lower, upper):
    layers = ':'.join(shlex.quote(p) for p in lower + [upper])
    return f'mount -t overlay overlay -o ro,lowerdir={layers} {upper}'
