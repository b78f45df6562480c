"""A large queue: as many deferred messages as --queued says, to --destinations domains.

start   from the command to an answered EHLO, with the queue there (and with an empty one, for comparison)
count   -bpc
list    -bp, all of it; first: when each message must still be opened (a spool that was filled from elsewhere)
idle    CPU of the daemon in ten quiet seconds
memory  of the daemon with the queue, less that with an empty one, a message

The messages are copies of one that the server has put on its queue itself, under ids of their own.
"""
import os
import re
import shutil
import socket
import subprocess
import time

from support import procs
from support.util import listening, wait_for

SPOOLS = {'martlet': 'var/spool/martlet', 'exim': 'var/spool/exim4'}
BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'


def base62(n, width):
    text = ''
    for _ in range(width):
        n, digit = divmod(n, 62)
        text = BASE62[digit] + text
    return text


def program(kind, server):
    return ['/usr/sbin/exim4'] if kind == 'exim' else [server.program, '-C', server.conf]


def fill(kind, server, spool, n, destinations):
    """n copies of the one message that is in the spool, each with an id and a destination of its own."""
    user = server.place.uid('Debian-exim' if kind == 'exim' else 'martlet')
    server.place.run(program(kind, server) + ['-odq', '-f', 'sender@bench.test', 'rcpt@d00000.bench.test'], input='Subject: x\n\nx\n')
    input_dir = server.place.path(spool + '/input')
    first, = [f[:-2] for f in os.listdir(input_dir) if f.endswith('-H')]
    with open(f'{input_dir}/{first}-H') as f:
        head = f.read()
    with open(f'{input_dir}/{first}-D') as f:
        body = f.read()
    for which in 'DH':
        os.unlink(f'{input_dir}/{first}-{which}')
    stamp = first.split('-')[0]
    for i in range(n):
        middle = first.split('-')[1]
        ident = '-'.join([stamp, base62(i + 1, len(middle)), first.split('-')[2]])
        text = head.replace(first, ident).replace('d00000.bench.test', f'd{i % destinations:05}.bench.test')
        for which, data in (('D', body.replace(first, ident)), ('H', text)):
            fd = os.open(f'{input_dir}/{ident}-{which}', os.O_WRONLY | os.O_CREAT, 0o640)
            os.write(fd, data.encode())
            os.fchown(fd, user, user)
            os.close(fd)


def answers(port):
    try:
        with socket.create_connection(('127.0.0.1', port), 5) as s:
            f = s.makefile('rb')
            f.readline()
            s.sendall(b'EHLO bench\r\n')
            return f.readline().startswith(b'250')
    except OSError:
        return False


def start(kind, server):
    begin = time.monotonic()
    server.place.run(program(kind, server) + ['-bd'] + (['-oP', '/run/martlet/martlet.pid'] if kind == 'martlet' else []))
    wait_for(lambda: listening('127.0.0.1', server.port) and answers(server.port), 'the server to answer', 120, 0.002)
    return time.monotonic() - begin


def settle(server):
    """Memory of all processes, when it has stopped changing."""
    last = -1
    while True:
        now = procs.pss(server.place.processes())
        if abs(now - last) < 64:
            return now
        last = now
        time.sleep(0.5)


def end(server):
    for pid in server.place.processes():
        try:
            os.kill(pid, 15)
        except ProcessLookupError:
            pass
    wait_for(lambda: not server.place.processes(), 'the server to end', 60)


def timed(server, cmd, lines):
    begin = time.monotonic()
    out = subprocess.run(server.place.command(cmd), stdout=subprocess.PIPE, check=True, cwd='/').stdout
    took = time.monotonic() - begin
    assert lines(out), (out[:300], out[-300:], out.count(b"<sender"))
    return took


def measure(a, make, kind, scratch):
    """One round: numbers by name. `make` gives a server that has not been started."""
    server, n, spool = make(), a.queued, SPOOLS[kind]
    server.place.start(None)
    try:
        got = {'start_empty_s': start(kind, server)}
        empty = settle(server)
        end(server)
        fill(kind, server, spool, n, a.destinations)
        got['start_s'] = start(kind, server)
        got['memory_B'] = (settle(server) - empty) * 1024 / n
        nothing = min(timed(server, ['true'], lambda out: True) for _ in range(5))
        got['count_ms'] = 1000 * (min(timed(server, program(kind, server) + ['-bpc'], lambda out: int(out) == n) for _ in range(3)) - nothing)
        got['first_list_s'] = timed(server, program(kind, server) + ['-bp'], lambda out: len(re.findall(rb'bench\.test\n', out)) >= n) - nothing
        got['list_s'] = min(timed(server, program(kind, server) + ['-bp'], lambda out: len(re.findall(rb'bench\.test\n', out)) >= n)
                            for _ in range(2)) - nothing
        before = procs.cpu(server.place.processes())
        time.sleep(10)
        got['idle_cpu_ms'] = 1000 * (procs.cpu(server.place.processes()) - before)
        end(server)
        return got
    finally:
        server.place.stop()
        shutil.rmtree(scratch, ignore_errors=True)
