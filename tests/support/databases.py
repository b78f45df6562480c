"""Database servers of the tests' own: each in its directory, on a free loopback port, as an unprivileged user, ended by
its process id. The machine's own services are neither used nor touched."""
import atexit
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile

from . import procs
from .util import free_port, listening, read, wait_for, write


def program(name, *places):
    """A program's path; None if it is not installed."""
    return next((p for p in places if os.access(p, os.X_OK)), None) or shutil.which(name)


TEMPLATES = {}


def template(kind, make):
    """A directory that make(path) fills once, for copies: a new data directory takes seconds."""
    if kind not in TEMPLATES:
        holder = tempfile.mkdtemp(prefix='martlet-template-')
        os.chmod(holder, 0o755)
        atexit.register(shutil.rmtree, holder, ignore_errors=True)
        make(holder)
        TEMPLATES[kind] = holder
    return TEMPLATES[kind]


class Database:
    user = 'nobody'
    program = None
    crash = signal.SIGKILL

    def __init__(self, directory):
        self.directory = str(directory)
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o755)
        self.port = free_port()
        self.process, self.started = None, False
        self.prepare()
        self.place()

    def as_user(self, *command):
        if os.geteuid() != 0:
            return list(command)
        account = pwd.getpwnam(self.user)
        return ['setpriv', '--reuid', str(account.pw_uid), '--regid', str(account.pw_gid), '--clear-groups', *command]

    def own(self, *parts):
        path = os.path.join(self.directory, *parts)
        os.makedirs(path, exist_ok=True)
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.user)
            os.chown(path, account.pw_uid, account.pw_gid)
        return path

    def run(self, *command, **kw):
        done = subprocess.run(self.as_user(*command), stdin=kw.pop('stdin', subprocess.DEVNULL), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, cwd=self.directory, timeout=180, **kw)
        assert done.returncode == 0, f'{command}: {done.stdout.decode("utf-8", "replace")}'
        return done.stdout.decode('utf-8', 'replace')

    def start(self):
        """On its first start another port is tried if somebody took the one that was free."""
        for attempt in range(1 if self.started else 3):
            if attempt:
                self.port = free_port()
                self.place()
            self.launch()
            if self.process.poll() is None:
                break
        assert self.process.poll() is None, f'{self.program} ended: {self.output()}'
        self.started = True
        return self

    def place(self):
        """What depends on the port."""

    def launch(self):
        with open(os.path.join(self.directory, 'output'), 'ab') as log:
            self.process = subprocess.Popen(self.as_user(*self.command()), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, cwd=self.directory)
        wait_for(lambda: self.process.poll() is not None or self.ready(), lambda: f'{self.program} to start: {self.output()}')

    def ready(self):
        return listening('127.0.0.1', self.port)

    def output(self):
        return read(os.path.join(self.directory, 'output'))[-20000:]

    def stop(self, sig=signal.SIGTERM):
        if self.process is None:
            return
        self.process.send_signal(sig)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def pids(self):
        return procs.tree(self.process.pid)

    def freeze(self):
        """Accepts connections (in its backlog), answers nothing, in none of its processes and threads."""
        def stopped():
            pids = self.pids()  # some may have ended since, and some begun
            for pid in pids:
                procs.kill(pid, signal.SIGSTOP)
            try:
                return all('\nState:\tT' in read(f'/proc/{p}/task/{t}/status') for p in pids for t in os.listdir(f'/proc/{p}/task'))
            except FileNotFoundError:
                return False
        wait_for(stopped, 'it to stop')

    def thaw(self):
        for pid in self.pids():
            procs.kill(pid, signal.SIGCONT)


class Redis(Database):
    # Debian's package of tools has the server, too: it looks at its name.
    program = program('redis-server') or program('redis-check-rdb')

    def __init__(self, directory, password=None, cluster=False, tls=None):
        """tls: (certificate, key); then there is nothing but TLS on the port."""
        self.password, self.cluster, self.tls = password, cluster, tls
        super().__init__(directory)

    def prepare(self):
        self.own('data')
        self.socket = os.path.join(self.directory, 'data', 'sock')

    def place(self):
        self.bus = free_port()  # between the nodes of a cluster

    def command(self):
        ports = ['--port', str(self.port)] if not self.tls else ['--port', '0', '--tls-port', str(self.port), '--tls-auth-clients', 'no',
                                                                 '--tls-cert-file', self.tls[0], '--tls-key-file', self.tls[1],
                                                                 '--tls-ca-cert-dir', '/etc/ssl/certs']
        args = ['redis-server', '--bind', '127.0.0.1', *ports, '--dir', os.path.join(self.directory, 'data'),
                '--unixsocket', self.socket, '--unixsocketperm', '777', '--save', '', '--appendonly', 'no', '--daemonize', 'no']
        if self.password:
            args += ['--requirepass', self.password]
        if self.cluster:
            args += ['--cluster-enabled', 'yes', '--cluster-port', str(self.bus), '--cluster-config-file', 'nodes.conf']
        return ['bash', '-c', f'exec -a redis-server {self.program} "$@"', *args]

    def call(self, *args):
        """One command, by the protocol; the raw reply."""
        def bulk(x):
            x = x if isinstance(x, bytes) else str(x).encode()
            return b'$%d\r\n%s\r\n' % (len(x), x)
        with socket.create_connection(('127.0.0.1', self.port), 30) as s:
            f = s.makefile('rb')
            if self.password:
                s.sendall(b'*2\r\n' + bulk('AUTH') + bulk(self.password))
                assert f.readline() == b'+OK\r\n'
            s.sendall(b'*%d\r\n' % len(args) + b''.join(map(bulk, args)))
            return self.reply(f)

    def reply(self, f):
        line = f.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b'$':
            return None if rest == b'-1' else f.read(int(rest) + 2)[:-2]
        if kind == b'*':
            return [self.reply(f) for _ in range(int(rest))]
        assert kind in b'+:', line
        return rest


def redis_cluster(nodes):
    """Joins started nodes, with an equal share of the slots each."""
    n = len(nodes)
    for i, node in enumerate(nodes):
        node.call('CLUSTER', 'ADDSLOTSRANGE', i * 16384 // n, (i + 1) * 16384 // n - 1)
        node.call('CLUSTER', 'SET-CONFIG-EPOCH', i + 1)
    for node in nodes[1:]:
        nodes[0].call('CLUSTER', 'MEET', '127.0.0.1', node.port, node.bus)
    wait_for(lambda: all(b'cluster_state:ok' in node.call('CLUSTER', 'INFO') and
                         b'cluster_known_nodes:%d' % n in node.call('CLUSTER', 'INFO') for node in nodes),
             'the cluster to be complete')


class Postgres(Database):
    program = program('postgres', *sorted(glob.glob('/usr/lib/postgresql/*/bin/postgres'), reverse=True))
    crash = signal.SIGQUIT  # its workers would outlive it otherwise

    def prepare(self):
        self.sockets = self.own('run')
        tools = os.path.dirname(self.program)
        self.data = os.path.join(self.directory, 'data')

        def make(holder):
            secret = write(os.path.join(holder, 'secret'), 'secret\n')
            self.own(os.path.join(holder, 'data'))
            self.run(f'{tools}/initdb', '-D', f'{holder}/data', '-U', 'root', '-A', 'md5', f'--pwfile={secret}', '-E', 'UTF8',
                     '--no-locale', '--no-sync')
        subprocess.run(['cp', '-a', template('postgres', make) + '/data', self.data], check=True)

    def command(self):
        return [self.program, '-D', self.data, '-p', str(self.port), '-k', self.sockets, '-h', '127.0.0.1', '-F',
                '-c', 'max_connections=30', '-c', 'shared_buffers=16MB']

    def place(self):
        self.socket = f'{self.sockets}/.s.PGSQL.{self.port}'

    def launch(self):
        self.seen = self.output().count('ready to accept connections')
        super().launch()

    def ready(self):
        return self.output().count('ready to accept connections') > self.seen and listening('127.0.0.1', self.port)

    def stop(self, sig=signal.SIGINT):
        super().stop(sig)


class MariaDB(Database):
    program = program('mariadbd', '/usr/sbin/mariadbd')

    def prepare(self):
        self.data = os.path.join(self.directory, 'data')
        run = self.own('run')
        self.socket = f'{run}/sock'
        self.setup = write(os.path.join(self.directory, 'setup.sql'),
                           "create database if not exists test;\n"
                           "create user if not exists 'user'@'%' identified by 'secret';\n"
                           "create user if not exists 'user'@'localhost' identified by 'secret';\n"
                           "grant all on test.* to 'user'@'%';\ngrant all on test.* to 'user'@'localhost';\n")

        def make(holder):
            self.own(os.path.join(holder, 'data'))
            self.run(program('mariadb-install-db'), '--no-defaults', f'--datadir={holder}/data', '--skip-test-db',
                     '--auth-root-authentication-method=normal', '--innodb-log-file-size=4M',
                     f"--tmpdir={self.own(holder, 'tmp')}")
        subprocess.run(['cp', '-a', template('mariadb', make) + '/data', self.data], check=True)

    def command(self):
        return [self.program, '--no-defaults', f'--datadir={self.data}', f'--socket={self.socket}', '--bind-address=127.0.0.1',
                f'--port={self.port}', f'--pid-file={self.data}/pid', f"--tmpdir={self.own('tmp')}", '--innodb-log-file-size=4M',
                '--innodb-buffer-pool-size=8M', f'--init-file={self.setup}', '--max-allowed-packet=64M', '--skip-name-resolve']

    def ready(self):
        return listening('127.0.0.1', self.port) and os.path.exists(self.socket)


class Slapd(Database):
    program = program('slapd', '/usr/sbin/slapd')
    entries = '''dn: o=base
objectClass: organization
o: base

dn: cn=fred,o=base
objectClass: inetOrgPerson
cn: fred
sn: value one, with comma
sn: second
uid: fred
mail: fred@a.test
description: say "hi" \\ there
userPassword: pass word

dn: cn=mary,o=base
objectClass: inetOrgPerson
cn: mary
sn: Smith
uid: mary
mail: mary@a.test

dn: cn=a+sn=b\\, c,o=base
objectClass: inetOrgPerson
cn: a
sn: b, c
uid: odd*(
'''

    def __init__(self, directory, more='', extra='', maxsize=16777216):
        """more: entries in addition; extra: lines of the configuration."""
        self.more, self.extra, self.maxsize = more, extra, maxsize
        super().__init__(directory)

    def prepare(self):
        self.data = self.own('data')
        self.socket = os.path.join(self.own('run'), 'sock')
        self.conf = write(os.path.join(self.directory, 'slapd.conf'), f'''
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {self.directory}/run/pid
sizelimit unlimited
{self.extra}
database mdb
maxsize {self.maxsize}
suffix "o=base"
rootdn "cn=root,o=base"
rootpw secret
directory {self.data}
''')
        ldif = write(os.path.join(self.directory, 'entries'), self.entries + self.more)
        self.run(program('slapadd', '/usr/sbin/slapadd'), '-f', self.conf, '-l', ldif)

    def command(self):
        urls = f'ldap://127.0.0.1:{self.port}/ ldapi://{self.socket.replace("/", "%2F")}/'
        return [self.program, '-f', self.conf, '-h', urls, '-d', '0']

    def ready(self):
        return os.path.exists(self.socket) and listening('127.0.0.1', self.port)


class FreeRadius(Database):
    """Users by name and password; a client at 127.0.0.1 with the secret `testing123`."""
    program = program('freeradius', '/usr/sbin/freeradius')
    # What Debian's radiusd.conf includes belongs to its own user.
    user = 'nobody'

    def __init__(self, directory, users):
        self.users = users
        super().__init__(directory)

    def prepare(self):
        self.config = self.own('config')
        self.place()

    def place(self):
        d = self.config
        write(f'{d}/users', ''.join(f'{name} Cleartext-Password := "{password}"\n' for name, password in self.users.items()))
        write(f'{d}/radiusd.conf', f'''
prefix = /usr
libdir = /usr/lib/freeradius
logdir = {d}
run_dir = {d}
raddbdir = {d}
pidfile = {d}/pid
security {{
  allow_vulnerable_openssl = yes
}}
client local {{
  ipaddr = 127.0.0.1
  secret = testing123
}}
modules {{
  files {{
    usersfile = {d}/users
  }}
  pap {{
  }}
}}
server default {{
  listen {{
    type = auth
    ipaddr = 127.0.0.1
    port = {self.port}
  }}
  authorize {{
    files
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
  }}
}}
''')

    def command(self):
        return [self.program, '-f', '-l', 'stdout', '-d', self.config]

    def ready(self):
        return 'Ready to process requests' in self.output()
