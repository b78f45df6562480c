"""Logins: 20 clients at one time open connections one after another, say EHLO, AUTH PLAIN or CRAM-MD5 with the right password, and
QUIT. Martlet and Debian's Exim have the same authenticators; what is counted is logins that were answered 235."""
import base64
import hmac
import os
import selectors
import socket
import statistics
import time

from support import procs
from support.util import read, write

CLIENTS = 20
CRAM = '''
cram_server:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{tester}{secret}fail}
  server_set_id = $auth1
'''
PLAIN = b'AUTH PLAIN ' + base64.b64encode(b'\0tester\0secret') + b'\r\n'
MECHANISMS = ('PLAIN', 'CRAM-MD5')
WANTED = 10
SECONDS = 6


class Login:
    """One connection, driven by the server's replies."""

    def __init__(self, port, mechanism):
        self.steps = [(b'220', b'EHLO client.test\r\n'), (b'250', PLAIN if mechanism == 'PLAIN' else b'AUTH CRAM-MD5\r\n')]
        if mechanism != 'PLAIN':
            self.steps.append((b'334', None))
        self.steps += [(b'235', b'QUIT\r\n'), (b'221', b'')]
        self.socket = socket.create_connection(('127.0.0.1', port))
        self.socket.setblocking(False)
        self.input = b''

    def readable(self):
        """True when it is done."""
        got = self.socket.recv(16384)
        if not got:
            raise RuntimeError(f'a connection was closed instead of {self.steps[0][0]}')
        self.input += got
        while (end := self.input.find(b'\r\n')) >= 0:
            line, self.input = self.input[:end], self.input[end + 2:]
            if line[3:4] == b'-':
                continue
            code, answer = self.steps.pop(0)
            if line[:3] != code:
                raise RuntimeError(f'{line!r} instead of {code}')
            if answer is None:
                digest = hmac.new(b'secret', base64.b64decode(line[4:]), 'md5').hexdigest()
                answer = base64.b64encode(b'tester ' + digest.encode()) + b'\r\n'
            if answer:
                self.socket.sendall(answer)
        return not self.steps


def load(port, mechanism, seconds):
    """Logins that were done until the time is over."""
    selector, done, end = selectors.DefaultSelector(), 0, time.monotonic() + seconds

    def add():
        login = Login(port, mechanism)
        selector.register(login.socket, selectors.EVENT_READ, login)
    for _ in range(CLIENTS):
        add()
    while selector.get_map():
        for key, _ in selector.select(30) or [(None, 0)]:
            if key is None:
                raise RuntimeError('the server says nothing')
            if key.data.readable():
                done += 1
                selector.unregister(key.fileobj)
                key.fileobj.close()
                if time.monotonic() < end:
                    add()
    return done


def measure(kind, peers, scratch, mechanism):
    group = procs.Group()
    server = kind(scratch, peers, main='smtp_connect_backlog = 500\n')
    conf = getattr(server, 'conf', None) or server.place.path('/etc/exim4/exim4.conf')
    write(conf, read(conf) + CRAM)
    server.start(group)
    try:
        load(server.port, mechanism, 0.5)
        cpu, start = group.cpu(server.place), time.monotonic()
        n = load(server.port, mechanism, SECONDS)
        seconds = time.monotonic() - start
        return {'rate': n / seconds, 'cpu': (group.cpu(server.place) - cpu) / n}
    finally:
        server.stop()
        group.remove()


def run(a, scratch, kinds):
    """All rounds; prints the table."""
    results = {}
    for number in range(a.rounds):
        for mechanism in MECHANISMS:
            for name in ('martlet', 'exim'):
                got = measure(kinds[name], a.peers, os.path.join(scratch, f'{name}-auth-{mechanism}-{number}'), mechanism)
                results.setdefault((mechanism, name), []).append(got)
                print(f'round {number + 1} auth {mechanism:9} {name:8} {got["rate"]:8.0f} logins/s, CPU {got["cpu"] * 1e6:7.0f} us', flush=True)
    print(f'\n{"median of " + str(a.rounds) + " rounds, logins/s":<34}{"martlet":>12}{"exim":>12}{"martlet/exim":>14}{"by CPU":>9}{"wanted":>8}')
    for mechanism in MECHANISMS:
        m, e = ({k: statistics.median(r[k] for r in results[(mechanism, n)]) for k in ('rate', 'cpu')} for n in ('martlet', 'exim'))
        print(f'{"auth " + mechanism:<34}{m["rate"]:>12.0f}{e["rate"]:>12.0f}{m["rate"] / e["rate"]:>14.1f}{e["cpu"] / m["cpu"]:>9.1f}{">= " + str(WANTED):>8}')
    return results
