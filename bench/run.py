#!/usr/bin/env python3
"""Martlet side by side with Debian's Exim and Postfix: interleaved rounds on one machine, as root.

Scenarios:
  local   20 SMTP sessions bring 4 KiB messages for ten system users, delivered into their Maildirs
  relay   20 SMTP sessions bring 4 KiB messages, passed on to Postfix's smtp-sink
  dkim    relay, and each message is signed (RSA-2048, relaxed/relaxed; not Postfix)
  idle    1,000 sessions that have said EHLO and wait
  queue   200,000 deferred messages to 2,000 destinations: start, count, listing, memory, a queue run (bench/queue_bench.py)
  dead    messages to a host that answers, alone and beside 1,000 for one that never does (bench/queue_bench.py)
  sessions  10,000 sessions at one time, one in five slow, in clear and with TLS (Martlet only)
  mime    the MIME ACL over 10 MiB with 200 parts (bench/mime.py; not Postfix)
  auth    logins per second, PLAIN and CRAM-MD5, a connection each (bench/logins.py; not Postfix)
  tls     handshakes, full and resumed, a second of CPU (bench/tls.py)
  mailauth  signatures and SPF in a loop, beside libopendkim, libspf2 and what OpenSSL alone needs (no servers)
  expansion  the same lines for `-be`: a policy line, lookups in a file of 50,000 lines, a process's first lookup (Exim only)

local, relay and dkim count until the last message is delivered. CPU is that of all the server's processes (control group), not of
the clients. Exim and Postfix run as Debian ships them (both sync what they accept), Martlet with Exim's very configuration.
"""
import argparse
import json
import os
import re
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, 'tests'))
sys.dont_write_bytecode = True

from support import procs                                  # noqa: E402
from support.exim import CONFIGURATION, Exim                # noqa: E402
from support.place import Place                             # noqa: E402
from support.postfix import Postfix, Source, tool           # noqa: E402
from support.util import free_port, listening, read, wait_for, write     # noqa: E402

import expansion                                            # noqa: E402
import logins                                               # noqa: E402
import mailauth                                             # noqa: E402
import mime                                                 # noqa: E402
import queue_bench                                          # noqa: E402
import sessions                                             # noqa: E402
import tls                                                  # noqa: E402

USERS = 10


class Martlet:
    """Martlet with the configuration that Exim gets, with root's help for the mailboxes of system users."""
    binary = None

    def __init__(self, directory, peers, domain='martlet.test', smarthost='127.0.0.1::1', main='', users=USERS, acl='', client=''):
        self.port, self.domain = free_port(), domain
        self.place = Place(directory, (), ['martlet'] + [(f'u{n}', f'/home/u{n}') for n in range(users)])
        for d in ('var/spool/martlet', 'var/log/martlet', 'run/martlet'):
            path = self.place.path(d)
            os.makedirs(path, exist_ok=True)
            os.chown(path, self.place.uid('martlet'), self.place.uid('martlet'))
        own = 'exim_user = martlet\nexim_group = martlet\nspool_directory = /var/spool/martlet\ntls_advertise_hosts =\n'
        text = CONFIGURATION.format(hostname=domain, domain=domain, port=self.port, smarthost=smarthost, main=own + main,
                                    acl=acl, routers='', client=client, log='')
        self.conf = write(os.path.join(directory, 'conf'), text.replace('/var/log/exim4', '/var/log/martlet'))
        self.program = os.path.join(directory, 'martlet')
        shutil.copy(self.binary, self.program)

    def start(self, group=None):
        self.place.start(group)
        self.place.run([self.program, '-C', self.conf, '-bd', '-q30m', '-oP', '/run/martlet/martlet.pid'])
        wait_for(lambda: listening('127.0.0.1', self.port), lambda: 'Martlet to listen' + self.log())
        return self

    def log(self):
        return read(self.place.path('/var/log/martlet/mainlog'))[-3000:] + read(self.place.path('/var/log/martlet/paniclog'))

    def maildir(self, user):
        return self.place.path(f'/home/{user}/Maildir')

    def stop(self):
        self.place.stop()


class Sampler:
    """Looks at the memory of all processes of a place, four times a second."""

    def __init__(self, place):
        self.place, self.peak, self.stop = place, 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop.wait(0.25):
            self.peak = max(self.peak, procs.pss(self.place.processes()))

    def done(self):
        self.stop.set()
        self.thread.join()
        return self.peak


class CountingSink:
    """smtp-sink, which tells how many messages came."""

    def __init__(self, peers):
        self.port = free_port()
        self.count, self.text = 0, b''
        self.process = tool(peers, 'smtp-sink', '-u', 'nobody', '-c', f'inet:127.0.0.1:{self.port}', '500',
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self.reader, daemon=True).start()
        wait_for(lambda: listening('127.0.0.1', self.port), 'smtp-sink to listen')

    def reader(self):
        while True:
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                return
            self.text = (self.text + got)[-4096:]
            found = re.findall(rb'mesg=(\d+)', self.text)
            if found:
                self.count = int(found[-1])

    def stop(self):
        self.process.terminate()
        self.process.wait()


def with_routes(a, name, scratch, routes):
    """A server that sends the mail of each domain to a port of its own."""
    if name == 'postfix':
        table = ' '.join(f'{{{d} = smtp:[127.0.0.1]:{p}}}' for d, p in routes.items())
        return Postfix(scratch, a.peers, main=f'transport_maps = inline:{{ {table} }}').start()
    choice = ''.join(f'${{if eq{{$domain}}{{{d}}}{{127.0.0.1::{p}}}}}' for d, p in routes.items())
    return KINDS[name](scratch, a.peers, smarthost=f'"{choice}"', main='smtp_connect_backlog = 500').start()


def count_mail(server):
    total = 0
    for n in range(USERS):
        try:
            total += len(os.listdir(server.maildir(f'u{n}') + '/new'))
        except FileNotFoundError:
            pass
    return total


def send(a, server, messages, domain):
    """Ten clients of two sessions each, so that no single mailbox is the limit."""
    clients = [threading.Thread(target=Source.run, args=(a.peers, server.port, f'u{n}@{domain}', messages // USERS),
                                kwargs=dict(sessions=max(1, a.sessions // USERS), length=a.length)) for n in range(USERS)]
    for c in clients:
        c.start()
    return clients


def signing():
    """Options of the smtp transport, the key among them: both servers run in places of their own. (Exim 4.96 dies of a key without "$".)"""
    pem = subprocess.run(['openssl', 'genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], check=True, capture_output=True, text=True).stdout
    return 'dkim_domain = bench.test\n  dkim_selector = k\n  dkim_private_key = "${uc:}' + pem.replace('\n', '\\n') + '"'


def flow(a, kind, name, scratch, scenario):
    """One measurement of local, relay or dkim; gives a dict."""
    relay = scenario != 'local'
    group = procs.Group()
    messages = a.messages.get(name, 1000) // USERS * USERS
    sink = CountingSink(a.peers) if relay else None
    keywords = {}
    if sink and kind is Postfix:
        keywords['relayhost'] = f'[127.0.0.1]:{sink.port}'
    elif sink:
        keywords['smarthost'] = f'127.0.0.1::{sink.port}'
    if kind is not Postfix:
        keywords['main'] = 'smtp_connect_backlog = 500'
    if scenario == 'dkim':
        keywords['client'] = signing()
    server = kind(scratch, a.peers, **keywords).start(group)
    try:
        idle = procs.pss(server.place.processes())
        cpu = group.cpu(server.place)
        sampler = Sampler(server.place)
        start = time.monotonic()
        clients = send(a, server, messages, 'elsewhere.test' if relay else server.domain)
        counted = (lambda: sink.count) if relay else (lambda: count_mail(server))
        wait_for(lambda: counted() >= messages, lambda: f'{messages} messages through {name}, had {counted()}: {server.log()[-3000:]}',
                 a.patience, 0.02)
        seconds = time.monotonic() - start
        for c in clients:
            c.join()
        # What follows the delivery (spool files, logs) belongs to it.
        time.sleep(0.5)
        used = group.cpu(server.place) - cpu
        return {'rate': messages / seconds, 'cpu_ms': used / messages * 1000, 'peak_pss': sampler.done(), 'idle_pss': idle}
    finally:
        server.stop()
        if sink:
            sink.stop()
        group.remove()


def idle(a, kind, name, scratch):
    """PSS of a waiting session."""
    keywords = {'sessions': a.idle + 50} if kind is Postfix else {
        'main': 'smtp_connect_backlog = 2000\n'}
    server = kind(scratch, a.peers, **keywords)
    if kind is not Postfix:
        # Exim's template allows 200.
        conf = server.place.path('etc/exim4/exim4.conf') if kind is Exim else server.conf
        write(conf, re.sub(r'smtp_accept_max = \d+', f'smtp_accept_max = {a.idle + 100}', read(conf)))
    server.start()
    socks = []
    try:
        warm = connect(server.port, 10)
        before = procs.pss(server.place.processes())
        socks = connect(server.port, a.idle)
        time.sleep(1)
        after = procs.pss(server.place.processes())
        for s in warm:
            s.close()
        return {'session_pss': (after - before) / a.idle}
    finally:
        for s in socks:
            s.close()
        server.stop()


def connect(port, n):
    """n sessions that have read the answer to their EHLO."""
    selector, socks = selectors.DefaultSelector(), []
    waiting = {}
    for start in range(0, n, 50):
        for _ in range(min(50, n - start)):
            s = socket.create_connection(('127.0.0.1', port), 60)
            s.setblocking(False)
            selector.register(s, selectors.EVENT_READ)
            waiting[s] = ['220', b'']
            socks.append(s)
        end = time.monotonic() + 120
        while waiting:
            if time.monotonic() > end:
                raise RuntimeError(f'{len(waiting)} sessions got no answer')
            for key, _ in selector.select(1):
                s = key.fileobj
                got = s.recv(65536)
                if not got:
                    raise RuntimeError(f'a session was closed after {waiting[s]}')
                state = waiting[s]
                state[1] += got
                last = state[1].split(b'\r\n')[-2] if state[1].endswith(b'\r\n') else b'   -'
                if last[3:4] == b'-':
                    continue
                if last[:3].decode() != state[0]:
                    raise RuntimeError(f'{last!r} instead of {state[0]}')
                if state[0] == '220':
                    waiting[s] = ['250', b'']
                    s.send(b'EHLO idle.test\r\n')
                else:
                    selector.unregister(s)
                    del waiting[s]
    return socks


def sync_time(scratch):
    """Milliseconds that one small synced write takes here: what all servers build on."""
    path = os.path.join(scratch, 'sync')
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    start = time.monotonic()
    for _ in range(100):
        os.write(fd, b'x' * 4096)
        os.fdatasync(fd)
    os.close(fd)
    os.unlink(path)
    return (time.monotonic() - start) * 10


def table(a, results):
    """Medians, and their ratio to Martlet's (or the first server's)."""
    names = list(a.servers)
    rows = [('local', 'rate', 'local: messages/s', 1), ('local', 'cpu_ms', 'local: CPU ms/message', 2),
            ('local', 'peak_pss', 'local: peak PSS, MiB', 1), ('relay', 'rate', 'relay: messages/s', 1),
            ('relay', 'cpu_ms', 'relay: CPU ms/message', 2), ('relay', 'peak_pss', 'relay: peak PSS, MiB', 1),
            ('dkim', 'rate', 'dkim: messages/s', 1), ('dkim', 'cpu_ms', 'dkim: CPU ms/message', 2), ('idle', 'session_pss', 'idle: PSS KiB/session', 1)]
    print()
    print(f'{"median of " + str(a.rounds) + " rounds":<26}' + ''.join(f'{n:>12}' for n in names)
          + ''.join(f'{names[0] + "/" + n:>18}' for n in names[1:]))
    for scenario, key, title, digits in rows:
        values = {}
        for n in names:
            got = [r[key] for r in results.get((scenario, n), []) if key in r]
            if got:
                values[n] = statistics.median(got) / (1024 if key == 'peak_pss' else 1)
        if not values:
            continue
        line = f'{title:<26}' + ''.join(f'{values[n]:>12.{digits}f}' if n in values else f'{"-":>12}' for n in names)
        for n in names[1:]:
            ok = names[0] in values and n in values and values[n]
            line += f'{values[names[0]] / values[n]:>18.3f}' if ok else f'{"-":>18}'
        print(line)


KINDS = {'martlet': Martlet, 'exim': Exim, 'postfix': Postfix}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--binary', default=os.path.join(TOP, 'build-release', 'martlet'))
    p.add_argument('--peers', default=os.path.join(TOP, 'build', 'peers'))
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--servers', default='martlet,exim,postfix')
    p.add_argument('--scenarios', default='local,relay,dkim,idle,queue,dead,sessions,auth,tls,mime,expansion,mailauth')
    p.add_argument('--only', metavar='SCENARIO', help='the same as --scenarios with one')
    p.add_argument('--messages', help='for all servers (default: enough for some seconds each)', type=int)
    p.add_argument('--sessions', type=int, default=20)
    p.add_argument('--length', type=int, default=4096)
    p.add_argument('--idle', type=int, default=1000)
    p.add_argument('--queued', type=int, default=200000)
    p.add_argument('--dead', type=int, default=1000, help='messages to the host that never answers')
    p.add_argument('--destinations', type=int, default=2000)
    p.add_argument('--many', type=int, default=10000, help='of the scenario sessions')
    p.add_argument('--patience', type=float, default=300)
    p.add_argument('--scratch', help='where spools and mailboxes are (default: the directory for temporary files)')
    p.add_argument('--json', metavar='FILE')
    a = p.parse_args()
    a.servers = a.servers.split(',')
    a.scenarios = (a.only or a.scenarios).split(',')
    a.peers = os.path.abspath(a.peers)
    usual = {'martlet': 6000, 'exim': 1000, 'postfix': 3000}
    a.messages = {n: a.messages or usual[n] for n in usual}
    return a


def main():
    a = arguments()
    if os.geteuid() != 0:
        sys.exit('bench/run.py: needs root, for the name spaces in which the servers run')
    Martlet.binary = os.path.abspath(a.binary)
    if 'martlet' in a.servers and not os.path.exists(Martlet.binary):
        sys.exit(f'bench/run.py: {Martlet.binary} is not built')
    results, flows, good = {}, [s for s in a.scenarios if s not in ('expansion', 'queue', 'dead', 'sessions', 'auth', 'tls', 'mailauth', 'mime')], True
    base = tempfile.mkdtemp(prefix='martlet-bench-', dir=a.scratch)
    os.chmod(base, 0o755)
    print(f'{os.cpu_count()} cores; a synced write takes {sync_time(base):.2f} ms')
    try:
        for number in range(a.rounds):
            for scenario in flows:
                if scenario == 'idle' and number > 0:
                    continue
                for name in a.servers if scenario != 'dkim' else [n for n in a.servers if n != 'postfix']:
                    scratch = os.path.join(base, f'{name}-{scenario}-{number}')
                    kind = KINDS[name]
                    try:
                        got = idle(a, kind, name, scratch) if scenario == 'idle' else flow(a, kind, name, scratch, scenario)
                    except (AssertionError, RuntimeError, OSError) as e:
                        print(f'round {number + 1} {scenario} {name}: FAILED: {str(e)[:2000]}', flush=True)
                        continue
                    finally:
                        shutil.rmtree(scratch, ignore_errors=True)
                    results.setdefault((scenario, name), []).append(got)
                    print(f'round {number + 1} {scenario:5} {name:8} ' + ' '.join(f'{k}={v:.2f}' for k, v in got.items()), flush=True)
        if flows:
            table(a, results)
        for name in KINDS if 'queue' in a.scenarios else ():
            if name in a.servers:
                scratch = os.path.join(base, f'{name}-queue')
                if name == 'postfix':
                    got = queue_bench.measure_postfix(a, lambda: Postfix(scratch, a.peers, relayhost='[127.0.0.1]:1'), scratch)
                else:
                    got = queue_bench.measure(a, lambda: KINDS[name](scratch, a.peers), name, scratch)
                results.setdefault(('queue', name), []).append(got)
                print(f'queue {name:8} {a.queued} messages: ' + ' '.join(f'{k}={v:.2f}' for k, v in got.items()), flush=True)
        for name in KINDS if 'dead' in a.scenarios else ():
            if name in a.servers:
                scratch = os.path.join(base, f'{name}-dead')
                got = queue_bench.dead(a, lambda routes: with_routes(a, name, scratch, routes), name, lambda: CountingSink(a.peers),
                                       lambda port, to, n: Source.run(a.peers, port, to, n, sessions=10, length=1000), scratch)
                results.setdefault(('dead', name), []).append(got)
                print(f'dead  {name:8} messages/s: ' + ' '.join(f'{k}={v:.0f}' for k, v in got.items()), flush=True)
        if 'sessions' in a.scenarios:
            good, more = sessions.run(a, base, Martlet)
            results.update(more)
        if 'mime' in a.scenarios:
            results.update(mime.run(a, base, KINDS))
        if 'auth' in a.scenarios:
            results.update(((f'auth {s}', n), r) for (s, n), r in logins.run(a, base, KINDS).items())
        if 'tls' in a.scenarios:
            results.update(tls.run(a, base, KINDS))
        if 'mailauth' in a.scenarios:
            same, more = mailauth.run(a, base)
            good = good and same
            results.update(more)
        if 'expansion' in a.scenarios:
            same, more = expansion.run(a, base)
            good = good and same
            results.update(((f'expansion {s}', n), r) for (s, n), r in more.items())
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if a.json:
        with open(a.json, 'w') as f:
            json.dump([{'scenario': s, 'server': n, 'rounds': r} for (s, n), r in results.items()], f, indent=1)
    complete = good and all((s, n) in results for s in flows for n in a.servers)
    return 0 if complete else 1


if __name__ == '__main__':
    sys.exit(main())
