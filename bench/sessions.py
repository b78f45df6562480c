"""Thousands of SMTP sessions at one time, in clear and with TLS: what each costs, and whether every one of them is served.

All sessions are opened, say EHLO (under TLS, with STARTTLS before it) and wait: what the server's processes have grown by then is
the memory of the waiting sessions. Then each brings a message. One session in five is slow: it sends a byte at a time.
"""
import os
import re
import resource
import selectors
import socket
import ssl
import time

from support import procs
from support.certs import Authority
from support.util import read, wait_for, write

BATCH = 100                 # sessions that are opened at one time
SLOW_EVERY = 5
SLOW_PAUSE = 0.2            # seconds between two bytes of a slow session
MESSAGE = b'Subject: bench\r\n\r\nA message of a session that has waited.\r\n.\r\n'
WANTED = {'clear': 32, 'tls': 80}


class Session:
    """One client session, driven by what the server says. `steps`: (expected reply, what to send then)."""

    def __init__(self, number, port, context):
        self.slow = number % SLOW_EVERY == 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.bind((f'127.0.0.{2 + number % 200}', 0))
        self.socket.connect_ex(('127.0.0.1', port))
        self.context, self.shaking_hands, self.talking = context, False, False
        self.input, self.output, self.next_byte = b'', b'', 0.0
        self.steps = [('220', b'EHLO client.test\r\n')]
        if context:
            self.steps += [('250', b'STARTTLS\r\n'), ('220', None)]
        self.steps += [('250', b'')]

    def talk(self, user):
        """From MAIL to QUIT."""
        self.talking = True
        self.output = b'MAIL FROM:<>\r\n'
        self.steps = [('250', f'RCPT TO:<{user}>\r\n'.encode()), ('250', b'DATA\r\n'), ('354', MESSAGE), ('250', b'QUIT\r\n'), ('221', b'')]

    def handshake(self):
        try:
            self.socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self.shaking_hands = False
        self.output = b'EHLO client.test\r\n'

    def readable(self):
        """Takes what has come. True when the present steps are done."""
        if self.shaking_hands:
            self.handshake()
            return False
        closed = False
        try:
            while not closed:
                got = self.socket.recv(16384)
                closed = not got
                self.input += got
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        while self.reply():
            pass
        if closed and self.steps:
            raise RuntimeError(f'a session was closed instead of {self.steps[0][0]}')
        return not self.steps

    def reply(self):
        end = self.input.find(b'\r\n')
        if end < 0:
            return False
        line, self.input = self.input[:end], self.input[end + 2:]
        if line[3:4] == b'-':
            return True
        code, send = self.steps.pop(0)
        if line[:3].decode() != code:
            raise RuntimeError(f'{line!r} instead of {code}')
        if send is None:
            self.socket = self.context.wrap_socket(self.socket, do_handshake_on_connect=False)
            self.shaking_hands = True
            self.handshake()
        else:
            self.output += send
        return True

    def write(self, now):
        if not self.output or (self.slow and self.talking and now < self.next_byte):
            return
        n = 1 if self.slow and self.talking else len(self.output)
        try:
            self.output = self.output[self.socket.send(self.output[:n]):]
            self.next_byte = now + SLOW_PAUSE
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass


def drive(sessions, selector, patience):
    """Until all are done. Seconds until the quick ones were, and until all were."""
    start = now = time.monotonic()
    waiting, quick_left, quick_done = set(sessions), sum(not s.slow for s in sessions), 0.0
    unsent = set(sessions)
    while waiting:
        for s in list(unsent):
            s.write(now)
            if not s.output:
                unsent.discard(s)
        for key, _ in selector.select(0.02):
            s = key.data
            if s not in waiting:
                if s.talking: # it is closed, and would be ready for ever
                    selector.unregister(s.socket)
                continue
            if s.readable():
                waiting.discard(s)
                quick_left -= not s.slow
            if s.output:
                unsent.add(s)
        now = time.monotonic()
        if not quick_done and not quick_left:
            quick_done = now - start
        if now - start > patience:
            raise RuntimeError(f'{len(waiting)} of {len(sessions)} sessions were not served within {patience:.0f} s')
    return quick_done, now - start


def open_all(count, port, context, selector, patience):
    sessions = []
    for first in range(0, count, BATCH):
        batch = [Session(n, port, context) for n in range(first, min(first + BATCH, count))]
        for s in batch:
            selector.register(s.socket.fileno(), selectors.EVENT_READ, s)
        drive(batch, selector, patience)
        sessions += batch
    return sessions


def workers(server):
    """Of each process that serves sessions: {pid: (how many it holds, KiB)}."""
    found = {}
    for pid in server.place.processes():
        try:
            held = sum(os.readlink(f'/proc/{pid}/fd/{fd}').startswith('socket:') for fd in os.listdir(f'/proc/{pid}/fd'))
        except OSError:
            continue
        if held > 20:
            found[pid] = held, procs.pss([pid])
    return found


def measure(a, kind, scratch, tls):
    server = kind(scratch, a.peers)
    text = re.sub(r'smtp_accept_max = \d+', f'smtp_accept_max = {a.many + 100}\nsmtp_connect_backlog = 2000\nsmtp_accept_queue = 0',
                  read(server.conf))
    context = None
    if tls:
        certificate, key = Authority(os.path.join(scratch, 'ca')).issue('martlet.test')
        text = text.replace('tls_advertise_hosts =\n', f'tls_advertise_hosts = *\ntls_certificate = {certificate}\ntls_privatekey = {key}\n')
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    write(server.conf, text)
    group, selector, sessions = procs.Group(), selectors.DefaultSelector(), []
    server.start(group)
    try:
        sessions = open_all(50, server.port, context, selector, a.patience)
        before, cpu = procs.pss(server.place.processes()), group.cpu(server.place)
        sessions += open_all(a.many - 50, server.port, context, selector, a.patience)
        time.sleep(2)
        grown = procs.pss(server.place.processes()) - before
        served = workers(server)
        for n, s in enumerate(sessions):
            s.talk(f'u{n % 10}@{server.domain}')
        quick, total = drive(sessions, selector, a.patience)
        used = group.cpu(server.place) - cpu
        wait_for(lambda: len(re.findall(r' <= <> ', read(server.place.path('/var/log/martlet/mainlog')))) >= a.many, 'all messages in the log')
        for number, (pid, (held, kib)) in enumerate(sorted(served.items()), 1):
            print(f'  {"tls" if tls else "clear"}, worker {number}: {held} sessions, {kib / 1024:.0f} MiB, {procs.cpu([pid]):.1f} s of CPU')
        return {'sessions': float(a.many), 'session_kib': grown / (a.many - 50), 'cpu_ms': used / a.many * 1000, 'quick_s': quick,
                'all_s': total}
    finally:
        for s in sessions:
            s.socket.close()
        server.stop()
        group.remove()


def run(a, scratch, kind):
    """Both measurements; prints the table. (True when all were served within the memory wanted, results)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, a.many + 1000)), hard))
    results, good = {}, True
    print(f'\n{a.many} sessions, one in {SLOW_EVERY} slow   KiB/waiting session  wanted   CPU ms/session   quick ones served, s   all, s')
    for name in ('clear', 'tls'):
        directory = os.path.join(scratch, f'sessions-{name}')
        got = measure(a, kind, directory, name == 'tls')
        results[('sessions ' + name, 'martlet')] = [got]
        good = good and got['session_kib'] < WANTED[name]
        print(f'{name:<26}{got["session_kib"]:>20.1f}  {"< " + str(WANTED[name]):>6}{got["cpu_ms"]:>17.2f}{got["quick_s"]:>23.1f}{got["all_s"]:>9.1f}',
              flush=True)
    return good, results
