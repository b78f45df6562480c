"""Scanners that do what they are told: a server on a port or a UNIX socket whose answers come from a function."""
import os
import shutil
import socket
import subprocess
import threading

from .util import free_port, wait_for, write


class Stub:
    """answer(connection) is called for each connection, in a thread of its own; what it raises ends the connection."""

    def __init__(self, answer, path=None):
        self.answer, self.path = answer, path
        self.requests = []
        if path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(path)
            os.chmod(path, 0o777)
        else:
            self.sock = socket.socket()
            self.sock.bind(('127.0.0.1', 0))
            self.port = self.sock.getsockname()[1]
        self.sock.listen(20)
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return self.path or f'127.0.0.1 {self.port}'

    def _accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        try:
            c.settimeout(60)
            self.answer(Connection(self, c))
        except (OSError, EOFError):
            pass
        finally:
            c.close()

    def stop(self):
        self.ended.set()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # ends accept()
        except OSError:
            pass
        self.sock.close()
        if self.path:
            os.unlink(self.path)


class Connection:
    def __init__(self, stub, sock):
        self.stub, self.sock, self.pending = stub, sock, b''

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode('latin-1'))

    def until(self, end):
        """Reads up to and with these bytes."""
        while end not in self.pending:
            got = self.sock.recv(65536)
            if not got:
                raise EOFError(self.pending)
            self.pending += got
        i = self.pending.index(end) + len(end)
        data, self.pending = self.pending[:i], self.pending[i:]
        self.stub.requests.append(data)
        return data

    def exactly(self, n):
        while len(self.pending) < n:
            got = self.sock.recv(65536)
            if not got:
                raise EOFError(self.pending)
            self.pending += got
        data, self.pending = self.pending[:n], self.pending[n:]
        return data

    def all(self):
        """Reads to the end that the other side makes."""
        while True:
            got = self.sock.recv(65536)
            if not got:
                data, self.pending = self.pending, b''
                self.stub.requests.append(data)
                return data
            self.pending += got

    def silence(self):
        """Says nothing until the test is over."""
        self.stub.ended.wait(280)


def never(c):
    c.silence()


def close(c):
    pass


def garbage(c):
    c.send(bytes(range(256)) * 40 + b'\n')
    c.sock.shutdown(socket.SHUT_WR)
    c.all()


def flood(c):
    for _ in range(160):
        c.send(b'x' * 65536)
    c.sock.shutdown(socket.SHUT_WR)
    c.all()


GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X'
EICAR = 'X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*'


class Program:
    """A real server in a directory of its own, as a user of ours."""
    program = user = None

    def __init__(self, directory):
        self.directory = str(directory)
        self.port = free_port()
        os.makedirs(self.directory)
        os.chmod(self.directory, 0o777)

    @classmethod
    def missing(cls):
        return shutil.which(cls.program, path='/usr/bin:/usr/sbin') is None

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self):
        self.prepare()
        self.out = open(self.path('out'), 'w')
        self.process = subprocess.Popen(self.command(), stdout=self.out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.directory,
                                        start_new_session=True)
        wait_for(lambda: self.ready() or self.process.poll() is not None, lambda: f'{self.program}: {self.output()}', patience=120, pause=0.1)
        assert self.process.poll() is None, self.output()

    def ready(self):
        try:
            socket.create_connection(('127.0.0.1', self.port), 5).close()
            return True
        except OSError:
            return False

    def output(self):
        with open(self.path('out'), errors='replace') as f:
            return f.read()[-3000:]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.out.close()


class Clamd(Program):
    """ClamAV's daemon with two signatures: EICAR's file, and the words martlet-test-signature."""
    program = 'clamd'

    def prepare(self):
        os.makedirs(self.path('db'), exist_ok=True)
        for name, text in (('EICAR.Test', EICAR), ('Martlet.Test', 'martlet-test-signature')):
            write(self.path(f'db/{name}.ndb'), f'{name}:0:*:{text.encode().hex()}\n')
        self.socket = self.path('socket')
        write(self.path('conf'), f'Foreground yes\nDatabaseDirectory {self.directory}/db\nLocalSocket {self.socket}\nLocalSocketMode 666\n'
              f'TCPSocket {self.port}\nTCPAddr 127.0.0.1\nStreamMaxLength 2M\nUser root\n')

    def command(self):
        return ['clamd', '-c', self.path('conf'), '--foreground']

    def ready(self):
        """It answers when its UNIX socket is open, too."""
        try:
            with socket.create_connection(('127.0.0.1', self.port), 30) as s:
                s.sendall(b'zPING\0')
                return s.recv(16) == b'PONG\0'
        except OSError:
            return False


class Spamd(Program):
    """SpamAssassin's daemon with one rule: the subject says martlet-spam."""
    program = 'spamd'

    def prepare(self):
        write(self.path('v320.pre'), 'loadplugin Mail::SpamAssassin::Plugin::Check\nloadplugin Mail::SpamAssassin::Plugin::HTMLEval\n')
        write(self.path('rules.cf'), 'required_score 5\nheader T_SUBJECT Subject =~ /martlet-spam/\nscore T_SUBJECT 7.5\nreport_safe 0\n'
              'clear_report_template\nreport spamd says _SCORE_ of _REQD_: _TESTS_\nuse_bayes 0\nutil_rb_tld com test\n')

    def command(self):
        return ['spamd', '-s', 'stderr', '-L', '-x', '-C', self.directory, f'--siteconfigpath={self.directory}', '-i', '127.0.0.1', '-p', str(self.port),
                '-m', '2', '--min-children=1', '--max-spare=1', '-r', self.path('pid')]


class Rspamd(Program):
    """Rspamd without rules: it knows the GTUBE text."""
    program = 'rspamd'

    def prepare(self):
        d = self.directory
        write(self.path('tlds'), 'test\ncom\n')
        write(self.path('conf'), f'''options {{ pidfile = "{d}/pid"; filters = ""; url_tld = "{d}/tlds"; disable_hyperscan = true;
 dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 0; }} control_socket = "{d}/control mode=0600"; tempdir = "{d}";
 hs_cache_dir = "{d}"; cache_file = "{d}/cache"; local_addrs = ""; }}
logging {{ type = "console"; level = "info"; }}
lang_detection {{ languages = "/nonexistent"; }}
actions {{ reject = 15; add_header = 6; greylist = 4; }}
worker "normal" {{ bind_socket = "127.0.0.1:{self.port}"; count = 1; }}
''')

    def command(self):
        account = ['-u', '_rspamd', '-g', '_rspamd'] if os.geteuid() == 0 else ['-i']
        return ['rspamd', '-f', '-c', self.path('conf')] + account
