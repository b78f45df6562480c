"""Martlet under test: a configuration, the daemon, its logs, queue and mailboxes, and what must be clean at the end."""
import fcntl
import glob
import os
import pwd
import re
import shutil
import signal
import struct
import subprocess

from . import place, procs
from .util import free_port, listening, maildir, read, wait_for, write

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# A message id; Debian's Exim, which these tests can be checked with, still has short ones.
ID = r'\w{6}-\w{6,11}-\w{2,4}'

CONFIGURATION = '''
primary_hostname = mx.martlet.test
exim_user = {user}
exim_group = {group}
spool_directory = {d}/spool
log_file_path = {d}/log/%slog
pid_file_path = {d}/martlet.pid
local_interfaces = {interfaces}
daemon_smtp_ports = {port}
{tls}
domainlist local_domains = local.test
domainlist relay_to_domains = {relay_to}
hostlist relay_from_hosts = {relay_from}
acl_smtp_rcpt = acl_rcpt
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
check_spool_space = {space}
check_spool_inodes = 0
check_log_space = 0
check_log_inodes = 0
smtp_accept_max = 1000
{main}

begin acl

acl_rcpt:
{acl_rcpt}
  accept domains = +local_domains
         local_parts = lsearch;{d}/users
  deny   domains = +local_domains
         message = unknown user
  accept domains = +relay_to_domains
  accept hosts = +relay_from_hosts
  deny   message = relay not permitted

{acl}

begin routers

{routers}

relay:
  driver = manualroute
  domains = ! +local_domains
  transport = remote_smtp
  route_list = * {smarthost}
  self = send
  no_more

local_users:
  driver = accept
  local_parts = lsearch;{d}/users
  transport = maildir

begin transports

{transports}

remote_smtp:
  driver = smtp
  allow_localhost
  hosts_try_dane =
  {client}

maildir:
  driver = appendfile
  directory = {d}/mail/$local_part_data
  maildir_format
  create_directory
  envelope_to_add
  return_path_add
  {maildir}

begin retry

{retry}

begin authenticators

{authenticators}
'''

DEFAULTS = dict(main='', acl_rcpt='', acl='', routers='', transports='', client='', maildir='', relay_to='relay.test',
                relay_from=':', smarthost='127.0.0.1::1', retry='* * F,2m,1s; F,1h,10s', authenticators='', interfaces='127.0.0.1', space='0')


def binary(name='martlet'):
    path = os.environ.get('MARTLET_BINARY') or os.path.join(TOP, 'build', 'martlet')
    return os.path.join(os.path.dirname(path), name) if name != 'martlet' else path


class Martlet:
    """Accepts mail for the users named in `users` of local.test into Maildirs, relays mail for relay.test to `smarthost`.

    Runs unprivileged (as nobody, when the tests run as root), or with privileged=True as root in a place of its own, with
    system users u0 ... u9. `inside` (or privileged, resolver, tmpfs) makes a place; in it, nothing but its own users,
    resolver and file systems is seen. Other keywords fill the gaps of CONFIGURATION; `configuration` replaces it all.
    tls: (certificate, key). layers: unpacked packages in the place; etc: {name: text} of files there; built_in_paths: the
    configuration leaves logs where the program has them by default, and the spool in this directory of /var/spool. `allow_panic`, `allow_sanitizer`: patterns of what may be in the panic log or in reports.
    """

    def __init__(self, directory, configuration=None, users=('u0', 'u1', 'u2', 'u3', 'u4', 'u5', 'u6', 'u7', 'u8', 'u9'),
                 privileged=False, inside=False, resolver=None, hosts=None, tmpfs=None, arguments=('-q30m',), allow_panic=None, allow_sanitizer=None,
                 environment=None, daemon=True, program='martlet', tls=None, layers=(), etc=None, built_in_paths=None, **gaps):
        self.directory = d = str(directory)
        self.port = free_port()
        self.privileged, self.allow_panic, self.allow_sanitizer = privileged, allow_panic, allow_sanitizer
        self.arguments, self.daemon = list(arguments), daemon
        self.started = False
        os.makedirs(d, exist_ok=True)
        os.chmod(d, 0o755)
        self.place = None
        # $MARTLET_REFERENCE: the binary is Debian's Exim, to check the tests with; its user has a fixed name.
        reference = os.environ.get('MARTLET_REFERENCE')
        if privileged or inside or resolver or tmpfs or hosts is not None or reference or layers:
            self.user = self.group = 'Debian-exim' if reference else 'martlet'
            names = [self.user] + [(f'u{n}', f'/home/u{n}') for n in range(10)]
            self.place = place.Place(os.path.join(d, 'place'), layers, names, resolver, hosts)
            for name, text in (etc or {}).items():
                self.place.etc(name, text)
            for where, options in (tmpfs or {}).items():
                self.place.mount_tmpfs(where.format(d=d), options.format(uid=self.place.uid(self.user)))
            self.uid = self.place.uid(self.user)
            self.gid = self.uid
        else:
            account = pwd.getpwnam('nobody') if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
            self.user, self.uid, self.gid = account.pw_name, account.pw_uid, account.pw_gid
            self.group = str(self.gid)
            import grp
            self.group = grp.getgrgid(self.gid).gr_name
        self.spool_dir, self.log_dir = 'spool', 'log'
        if built_in_paths:
            self.spool_dir, self.log_dir = f'place/var/spool/{built_in_paths}', 'place/var/log/martlet'
            os.chown(self._own('place/run/martlet'), self.uid, self.gid)
        for sub in (self.spool_dir, self.log_dir, 'mail', 'reports'):
            self._own(sub)
        os.chmod(os.path.join(d, 'reports'), 0o1777)
        # A copy, since the checkout may be closed to the user it runs as.
        source = binary(program)
        if not os.path.exists(source):
            raise FileNotFoundError(f'{source} is not built')
        self.binary = os.path.join(d, 'martlet')
        try:
            os.link(source, self.binary)
        except OSError:
            shutil.copy(source, self.binary)
        write(os.path.join(d, 'users'), ''.join(f'{u}: {u}\n' for u in users))
        self.pidfile = os.path.join(d, 'martlet.pid')
        self.conf = os.path.join(d, 'conf')
        if privileged is False:
            os.chown(d, self.uid, self.gid) if os.geteuid() == 0 else None
        fill = dict(DEFAULTS, d=d, port=self.port, user=self.user, group=self.group)
        fill['tls'] = 'tls_advertise_hosts ='
        if tls:
            fill['tls'] = 'tls_advertise_hosts = *\ntls_certificate = {}\ntls_privatekey = {}'.format(*tls)
        fill.update(gaps)
        for key, value in gaps.items():
            assert key in DEFAULTS, f'no gap is called {key}'
            if isinstance(value, str):
                fill[key] = value.replace('@DIR@', d)
        if reference:
            # It starts itself for deliveries, and may not write a pid file.
            self.pidfile = '/dev/null'
            self.allow_panic = (allow_panic + '|' if allow_panic else '') + 'lost privilege'
            fill['main'] += f'\nexim_path = {self.binary}\n'
        text = CONFIGURATION.format(**fill) if configuration is None else configuration
        write(self.conf, text.replace('@DIR@', d).replace('@PORT@', str(self.port)))
        reports = f'log_path={d}/reports/san'
        self.environment = dict(
            {k: v for k, v in os.environ.items() if k in ('PATH', 'HOME', 'LANG', 'TZ')},
            # LeakSanitizer cannot look at processes in a namespace of their own.
            ASAN_OPTIONS=reports + ':detect_stack_use_after_return=0:strict_string_checks=1' + (':detect_leaks=0' if getattr(self, 'place', None) else ''),
            UBSAN_OPTIONS=reports + ':print_stacktrace=1:halt_on_error=1', **(environment or {}))

    def _own(self, sub):
        path = os.path.join(self.directory, sub)
        os.makedirs(path, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)
        return path

    def _command(self, args, user=None):
        """user: a name (in a place), or None for what the daemon runs as."""
        cmd = [self.binary, *map(str, args)]
        if self.place:
            return self.place.command(cmd, user or (None if self.privileged else self.user))
        if os.geteuid() == 0:
            return ['setpriv', '--reuid', str(self.uid), '--regid', str(self.gid), '--clear-groups'] + cmd
        return cmd

    # Daemon.

    def start(self, wait=True):
        if self.place and not self.place.keeper:
            self.place.start()
        self.started = True
        if not self.daemon:
            return self
        done = self.run('-bd', *[x.replace('@PORT@', str(self.port)) for x in self.arguments], '-oP', self.pidfile, check=False, tool=True)
        if wait:
            if done.returncode != 0:
                raise AssertionError(f'martlet -bd ended with status {done.returncode}: {done.stdout}{self.logs()}')
            wait_for(lambda: listening('127.0.0.1', self.port) and self.has_pid(),
                     lambda: 'Martlet to listen: ' + done.stdout + self.logs())
        return done if not wait else self

    def has_pid(self):
        """A daemon that was killed has left its own pid there."""
        try:
            return self.pidfile == '/dev/null' or procs.alive(self.master)
        except (AssertionError, ProcessLookupError, ValueError):
            return False

    @property
    def master(self):
        """The master's process id, as seen from the tests."""
        if self.pidfile == '/dev/null':
            return min(p for p in self.place.processes() if '\0-bd\0' in read(f'/proc/{p}/cmdline'))
        if not read(self.pidfile).strip():
            raise AssertionError('no master: it has ended' + self.logs())
        pid = int(read(self.pidfile))
        if not self.place:
            return pid
        for outer in self.place.processes():
            for line in read(f'/proc/{outer}/status').split('\n'):
                if line.startswith('NSpid:') and int(line.split()[-1]) == pid:
                    return outer
        raise ProcessLookupError(pid)

    def processes(self):
        return procs.tree(self.master)

    def workers(self):
        """Children that serve sessions: all of the master's that are not told apart by their title as something else."""
        master = self.master
        return [p for p in procs.tree(master) if p != master]

    def stop(self, check=True):
        try:
            if self.started and self.daemon and read(self.pidfile).strip():
                self.terminate()
        finally:
            if self.place:
                self.place.stop()
        if check and self.started:
            self.check_clean()

    def terminate(self, sig=signal.SIGTERM):
        try:
            pids = self.processes()
            os.kill(self.master, sig)
        except (ProcessLookupError, ValueError):
            return
        try:
            wait_for(lambda: not any(map(procs.alive, pids)), 'all processes to end')
        except AssertionError:
            for pid in filter(procs.alive, pids):
                procs.kill(pid, signal.SIGKILL)
            raise

    def reload(self):
        os.kill(self.master, signal.SIGHUP)

    def check_clean(self):
        # The leak checker says so of a thread that ends while it looks; that is no finding.
        reports = [r for r in glob.glob(os.path.join(self.directory, 'reports', 'san*'))
                   if re.sub(r'(?m)^==\d+==Unable to get registers from thread \d+\.$', '', read(r)).strip()
                   and not (self.allow_sanitizer and re.search(self.allow_sanitizer, read(r)))]
        assert not reports, 'sanitizer report: ' + read(reports[0])[:6000]
        panic = [line for line in read(self.outside(f'{self.log_dir}/paniclog')).split('\n') if line.strip()]
        if self.allow_panic:
            panic = [line for line in panic if not re.search(self.allow_panic, line)]
        assert not panic, 'panic log: ' + '\n'.join(panic[:20])

    # Commands.

    def run(self, *args, input=None, user=None, check=True, timeout=120, tool=False, environment=None, err=True):
        """martlet with our configuration and these arguments, to its end. err: standard error into the output."""
        env = dict(self.environment, **(environment or {}))
        done = subprocess.run(
            self._command(['-C', self.conf, *args], user), cwd='/', env=env, timeout=timeout,
            stdin=subprocess.DEVNULL if input is None else None,
            input=input.encode('latin-1') if isinstance(input, str) else input,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT if err else subprocess.DEVNULL)
        done.stdout = done.stdout.decode('latin-1')
        if os.environ.get('MARTLET_REFERENCE'):
            done.stdout = re.sub(r'^.*lost privilege for using -C option\n', '', done.stdout, flags=re.M)
        if check and done.returncode != 0:
            raise AssertionError(f'martlet {args} ended with status {done.returncode}: {done.stdout}')
        return done if tool or not check else done.stdout

    def popen(self, *args, user=None, **kw):
        kw.setdefault('stdin', subprocess.PIPE)
        return subprocess.Popen(self._command(['-C', self.conf, *args], user), cwd='/', env=self.environment,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)

    def expand(self, text):
        out = self.run('-be', text)
        return out[:-1] if out.endswith('\n') else out

    # What is there.

    def outside(self, path):
        """A path of ours as the tests see it (file systems mounted in the place are only seen through its processes)."""
        path = os.path.join(self.directory, path)
        if self.place and self.place.keeper:
            return f'/proc/{self.place.init}/root{path}'
        return path

    def log(self, kind='main'):
        return read(self.outside(f'{self.log_dir}/{kind}log'))

    def logs(self):
        return ''.join(f'\n--- {k}log\n{self.log(k)[-8000:]}' for k in ('main', 'reject', 'panic')) + ''.join(
            f'\n--- {p}\n{read(p)[:4000]}' for p in glob.glob(os.path.join(self.directory, 'reports', 'san*')))

    def wait_log(self, pattern, kind='main', count=1, patience=None):
        """Waits for a line (count lines) that matches; gives the matches."""
        def look():
            found = re.findall(pattern, self.log(kind), re.M)
            return found if len(found) >= count else None
        return wait_for(look, lambda: f'{pattern!r} in the {kind} log: {self.logs()}', patience)

    def mail(self, user='u0'):
        return maildir(self.outside(f'mail/{user}'))

    def wait_mail(self, user='u0', count=1, patience=None):
        def look():
            found = self.mail(user)
            return found if len(found) >= count else None
        return wait_for(look, lambda: f'{count} messages for {user}: {self.logs()}', patience)

    def queue(self):
        """The ids of the messages on the spool."""
        names = glob.glob(self.outside(f'{self.spool_dir}/input/*-H')) + glob.glob(self.outside(f'{self.spool_dir}/input/?/*-H'))
        return sorted(os.path.basename(n)[:-2] for n in names)

    def wait_empty(self, patience=None):
        wait_for(lambda: not self.queue(), lambda: f'an empty queue, still: {self.queue()} {self.logs()}', patience)

    def wait_rest(self):
        """Until no message is being handled: a command can have each. Its lines in the log, and its files, come before that."""
        def locked(path):
            try:
                with open(path, 'rb') as f:
                    flock = fcntl.fcntl(f, fcntl.F_GETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
            except FileNotFoundError:
                return False
            return struct.unpack('hhqqi4x', flock)[0] != fcntl.F_UNLCK

        wait_for(lambda: not any(locked(os.path.join(where, n)) for where, _, names in os.walk(self.outside(self.spool_dir))
                                 for n in names if n.endswith('-D')), lambda: 'messages to be at rest' + self.logs())

    def spool_files(self):
        found = []
        for where, _, names in os.walk(self.outside(f'{self.spool_dir}/input')):
            found += [os.path.join(where, n) for n in names]
        return sorted(found)

    def alive(self):
        """The master and its workers are those that were there: call it before and compare."""
        return sorted(self.processes())
