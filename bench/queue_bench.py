"""A large queue: as many deferred messages as --queued says, to --destinations domains.

start   from the command to an answered EHLO, with the queue there (and with an empty one, for comparison)
count   -bpc
list    -bp, all of it; first: when each message must still be opened (a spool that was filled from elsewhere)
idle    CPU of the daemon in ten quiet seconds
memory  of the daemon with the queue, less that with an empty one, a message
run     files of the spool that a queue run opens when each message has been tried and nothing is due (Exim: of its first
        thousand messages, since it looks at each)

Postfix counts and idles alone: what is compared is start, memory and the list. The dead destination (`dead`): how many messages
a second go to a host that answers, alone and beside --dead messages for one that takes connections and never says a word.

The messages are copies of one that the server has put on its queue itself, under ids of their own.
"""
import os
import re
import shutil
import socket
import subprocess
import time

from support import procs
from support.util import listening, read, wait_for, write
from support.watch import Opens

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


def fill_postfix(server, n, destinations):
    """Copies of a deferred message; names hold the inode and decide the directory, and the time of a file is its next attempt."""
    server.place.run(['/usr/sbin/sendmail', '-f', 'sender@bench.test', 'rcpt@d00000.bench.test'], input='Subject: x\n\nx\n')
    deferred = server.place.path('var/spool/postfix/deferred')
    files = lambda: [os.path.join(d, f) for d, _, names in os.walk(deferred) for f in names]
    first, = wait_for(files, lambda: 'a deferred message: ' + server.log(), 60)
    server.place.run(['/usr/sbin/postfix', 'stop'])
    with open(first, 'rb') as f:
        text = f.read()
    os.unlink(first)
    user = server.place.uid('postfix')
    for i in range(n):
        path = f'{deferred}/new'
        with open(path, 'wb') as f:
            f.write(text.replace(b'd00000.bench.test', b'd%05d.bench.test' % (i % destinations)))
            os.fchown(f.fileno(), user, user)
            os.fchmod(f.fileno(), 0o700)
            name = f'{i % 0xfffff:05X}{os.fstat(f.fileno()).st_ino:X}'
        os.makedirs(f'{deferred}/{name[0]}', exist_ok=True)
        os.chown(f'{deferred}/{name[0]}', user, user)
        os.utime(path, (2e9, 2e9))
        os.rename(path, f'{deferred}/{name[0]}/{name}')


def start(kind, server, more=()):
    begin = time.monotonic()
    if kind == 'postfix':
        server.place.run(['/usr/sbin/postfix', 'start'])
    else:
        server.place.run(program(kind, server) + ['-bd', *more] + (['-oP', '/run/martlet/martlet.pid'] if kind == 'martlet' else []))
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
    if os.path.exists(server.place.path('var/spool/postfix/pid')):
        server.place.run(['/usr/sbin/postfix', 'stop'], check=False)
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


def run_opens(kind, server, n):
    """Files that a queue run opens when nothing is due."""
    spool = server.place.path(SPOOLS[kind])
    if kind == 'exim':
        ids = sorted(f[:-2] for f in os.listdir(spool + '/input') if f.endswith('-H'))
        few = [ids[0], ids[min(n, 1000) - 1]]
        server.place.run(program(kind, server) + ['-q', *few], timeout=600)
        with Opens(spool + '/input') as o:
            server.place.run(program(kind, server) + ['-q', *few], timeout=600)
            return len(o.names())
    start(kind, server, ['-q2s'])
    log = server.place.path('/var/log/martlet/mainlog')
    runs = lambda: read(log).count('End queue run')
    # The first one tries the first message and finds that the host of all the others is not there.
    wait_for(lambda: runs() > 0, 'the first run', 600, 0.5)
    quiet, before = False, runs()
    while not quiet:
        with Opens(spool + '/input') as o:
            wait_for(lambda: runs() > before + 1, 'two runs', 600, 0.1)
            try:
                quiet = not o.names()
            except OverflowError:
                quiet = False
        before = runs()
    with Opens(spool + '/input') as o:
        wait_for(lambda: runs() > before + 1, 'two runs', 600, 0.1)
        opened = len(o.names())
    end(server)
    return opened


def measure_postfix(a, make, scratch):
    server, n = make(), a.queued
    server.place.start(None)
    try:
        got = {'start_empty_s': start('postfix', server)}
        empty = settle(server)
        fill_postfix(server, n, a.destinations)
        got['start_s'] = start('postfix', server)
        got['memory_B'] = (settle(server) - empty) * 1024 / n
        got['list_s'] = min(timed(server, ['/usr/sbin/postqueue', '-p'], lambda out: len(re.findall(rb'bench\.test\n', out)) >= n) for _ in range(2))
        return got
    finally:
        server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def dead(a, make, kind, sink_of, source, scratch):
    """`make(routes)` starts a server that sends each domain's mail to its port."""
    with socket.create_server(('127.0.0.1', 0), backlog=4096) as silent:
        sink = sink_of()
        server = make({'dead.test': silent.getsockname()[1], 'alive.test': sink.port})
        try:
            def rate(n):
                before, begin = sink.count, time.monotonic()
                source(server.port, 'u@alive.test', n)
                wait_for(lambda: sink.count >= before + n, lambda: f'{n} messages, had {sink.count - before}: {server.log()[-2000:]}', a.patience, 0.02)
                return n / (time.monotonic() - begin)
            n, hanging = (1000, a.dead) if kind != 'exim' else (300, min(a.dead, 200))
            rate(100)
            got = {'alone': rate(n)}
            source(server.port, 'u@dead.test', hanging)
            got['beside_dead'] = rate(n)
            got['dead'] = hanging
            return got
        finally:
            server.stop()
            sink.stop()
            shutil.rmtree(scratch, ignore_errors=True)


def measure(a, make, kind, scratch):
    """One round: numbers by name. `make` gives a server that has not been started."""
    server, n, spool = make(), a.queued, SPOOLS[kind]
    conf = server.place.path('etc/exim4/exim4.conf') if kind == 'exim' else server.conf
    write(conf, read(conf).replace('F,2m,1s; F,1h,10s', 'F,2h,1h')) # nothing is due for an hour
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
        got['run_opens'] = run_opens(kind, server, n)
        return got
    finally:
        server.place.stop()
        shutil.rmtree(scratch, ignore_errors=True)
