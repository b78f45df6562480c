"""Free ports, waiting for a condition, small files."""
import errno
import os
import random
import socket
import time

PATIENCE = float(os.environ.get('MARTLET_TEST_PATIENCE', '60'))


class Timeout(AssertionError):
    pass


def wait_for(condition, what, patience=None, pause=0.02):
    """Calls condition() until it gives something true, and returns that."""
    end = time.monotonic() + (patience or PATIENCE)
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise Timeout('waited in vain for ' + (what() if callable(what) else what))
        time.sleep(pause)


def clear_of_midnight(seconds=120):
    """Returns at once, except so shortly before midnight (UTC) that what a test counts by days could fall into two: then on the next day."""
    left = 86400 - time.time() % 86400
    if left < seconds:
        time.sleep(left + 1)


class Ports:
    """A block of ports that is this process's own, among all tests of the machine, as long as it lives: an abstract UNIX socket says so.

    They are outside of those that the kernel gives to connections and to port 0, which would otherwise take a port
    between the moment it is picked and that at which a server binds it.
    """
    FIRST, BLOCK, BLOCKS = 10240, 128, 176

    def __init__(self):
        for block in random.SystemRandom().sample(range(self.BLOCKS), self.BLOCKS):
            self.mark = socket.socket(socket.AF_UNIX)
            try:
                self.mark.bind(f'\0martlet-test-ports-{block}')
                break
            except OSError:
                self.mark.close()
        else:
            raise OSError('all blocks of ports are taken')
        self.pid, self.block, self.next = os.getpid(), block, 0

    def pick(self, address):
        for _ in range(self.BLOCK):
            port = self.FIRST + self.block * self.BLOCK + self.next % self.BLOCK
            self.next += 1
            with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET) as s:
                try:
                    s.bind((address, port))
                    return port
                except OSError as e:
                    if e.errno != errno.EADDRINUSE:
                        raise
        raise OSError('all ports of the block are taken')


ports = None


def free_port(address='127.0.0.1'):
    """A port that nobody else of the tests picks, and that the kernel gives to nobody."""
    global ports
    if ports is None or ports.pid != os.getpid():
        ports = Ports()
    return ports.pick(address)


def free_loopback():
    """An address of the loopback network that nobody else is likely to use, for servers that need a fixed port."""
    r = random.SystemRandom()
    return '127.%d.%d.%d' % (r.randrange(16, 250), r.randrange(1, 250), r.randrange(1, 250))


def listening(address, port):
    """True if somebody listens there; looks into the kernel's table, since a connection would be logged."""
    if ':' in address:
        raw = socket.inet_pton(socket.AF_INET6, address)
        words = [raw[i:i + 4][::-1].hex() for i in range(0, 16, 4)]
        wanted, table = {''.join(words).upper(), '0' * 32}, '/proc/net/tcp6'
    else:
        wanted, table = {socket.inet_aton(address)[::-1].hex().upper(), '00000000'}, '/proc/net/tcp'
    with open(table) as f:
        for line in f:
            fields = line.split()
            if len(fields) > 3 and fields[3] == '0A':
                host, p = fields[1].split(':')
                if int(p, 16) == port and host in wanted:
                    return True
    return False


def write(path, text, mode=0o644):
    path = str(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb' if isinstance(text, bytes) else 'w') as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def read(path):
    try:
        with open(path, 'rb') as f:
            return f.read().decode('utf-8', 'surrogateescape')
    except (FileNotFoundError, ProcessLookupError):
        return ''


def maildir(path):
    """The messages of a Maildir (new and cur), in order of arrival, as bytes."""
    found = []
    for sub in ('new', 'cur'):
        d = os.path.join(path, sub)
        if os.path.isdir(d):
            for name in os.listdir(d):
                full = os.path.join(d, name)
                with open(full, 'rb') as f:
                    found.append((os.fstat(f.fileno()).st_mtime_ns, name, f.read()))
    return [data for _, _, data in sorted(found)]
