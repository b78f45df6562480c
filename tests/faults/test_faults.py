"""Nothing lost, nothing twice: next hops that stall, refuse, reset, hang up by half or talk nonsense at each point of the
dialogue, name servers that fail and lie, a full disk, full mailboxes and killed workers, all at random and at once; then all is well again, and each recipient
of each message for which 250 was said must have been served: delivered, or named in a bounce.

$MARTLET_FAULT_SECONDS (default 20): how long. $MARTLET_FAULT_SEED repeats a run's choices.
"""
import collections
import glob
import os
import random
import re
import shutil
import signal
import socket
import threading
import time

import pytest

from support import procs
from support.smtp import Client, Closed
from support.util import free_loopback, listening, wait_for

from hop import Hop

SECONDS = int(os.environ.get('MARTLET_FAULT_SECONDS', '20'))
SEED = int(os.environ.get('MARTLET_FAULT_SEED', '0')) or random.SystemRandom().randrange(1, 10**9)
HOPS = 3
KILL_MEMORY = 15 # seconds before a kill in which a delivery may not yet have been noted, on a machine that is very busy

DNS_TROUBLE = ('SERVFAIL', 'REFUSED', 'TIMEOUT', 'GARBAGE', 'QUESTION', 'OWNER', 'IDENT', 'CUT', 'TRUNCATED', 'LOOP')

ROUTE = '''mx:
  driver = dnslookup
  domains = *.relay.test
  transport = remote_smtp
  self = send
  no_more
'''

CLIENT = '''connect_timeout = 2s
  command_timeout = 2s
  data_timeout = 2s
  final_timeout = 2s
  hosts_max_try = 3'''


class Sender(threading.Thread):
    """Brings messages for recipients at the hops and for local users; remembers those for which 250 was said."""

    def __init__(self, number, port, seed, over):
        super().__init__(daemon=True)
        self.number, self.port, self.random, self.over = number, port, random.Random(seed), over
        self.accepted, self.n = {}, 0

    def run(self):
        while not self.over.is_set():
            try:
                with Client(self.port, timeout=30) as c:
                    c.cmd('EHLO client.test')
                    for _ in range(5):
                        if self.over.is_set():
                            return
                        self.one(c)
                        self.over.wait(self.random.random() * 0.3)
            except (OSError, Closed, ValueError):
                self.over.wait(0.2)

    def one(self, c):
        self.n += 1
        ident = f's{self.number}n{self.n}'
        to = [f'{ident}r{i}@h{self.random.randrange(HOPS)}.relay.test' for i in range(self.random.randrange(1, 4))]
        if self.random.random() < 0.5:
            to.append(self.random.choice(('u0', 'u1', 'full')) + '@local.test')
        text = f'From: u8@local.test\r\nX-Fault: {ident}\r\nSubject: fault\r\n\r\n' + 'x' * 70 + '\r\n'
        text += ('y' * 70 + '\r\n') * self.random.choice((1, 10, 300)) + 'the end\r\n'
        if c.mail('u8@local.test', *to, data=text, hello=False)[0] == 250:
            self.accepted[ident] = to
        else:
            c.cmd('RSET')


def kill_worker(m, r):
    try:
        others = [p for p in procs.tree(m.master) if p != m.master]
        os.kill(r.choice(others), signal.SIGKILL)
        return time.time()
    except (IndexError, ProcessLookupError, ValueError):
        return None


def trouble(m, r, over, kills):
    """Kills, and fills the spool's disk and a mailbox, until it is over."""
    filler = m.outside('spool/filler')
    while not over.wait(r.uniform(1, 3)):
        what = r.random()
        if what < 0.35:
            kills.append(kill_worker(m, r))
            wait_for(lambda: listening('127.0.0.1', m.port), m.logs, 60)
        elif what < 0.7:
            with open(filler, 'wb', buffering=0) as f:
                try:
                    while True:
                        f.write(bytes(65536))
                except OSError:
                    pass
            over.wait(r.uniform(0.2, 1.5))
            os.unlink(filler)
        else: # the full mailbox gets room: what was in it has been read
            empty_full(m)
    kills[:] = [k for k in kills if k]


def empty_full(m):
    kept = m.outside('kept')
    os.makedirs(kept, exist_ok=True)
    for path in glob.glob(m.outside('mail/full/new/*')):
        shutil.move(path, kept)


def found_locally(m):
    """(message, user) -> when it was delivered; and the recipients that bounces name."""
    found, bounced = collections.defaultdict(list), set()
    for user in ('u0', 'u1', 'full', 'u8'):
        places = [m.outside(f'mail/{user}/new/*')] + ([m.outside('kept/*')] if user == 'full' else [])
        for path in sum(map(glob.glob, places), []):
            with open(path, 'rb') as f:
                data = f.read()
            failed = re.search(rb'^X-Failed-Recipients: (.*(?:\n[ \t].*)*)', data, re.M)
            if user == 'u8':
                bounced |= set(re.findall(r'[^\s,]+', failed.group(1).decode())) if failed else set()
                continue
            assert data.rstrip(b'\n').endswith(b'the end'), f'{path}: half a message'
            ident = re.search(rb'^X-Fault: (\w+)', data, re.M).group(1).decode()
            found[ident, f'{user}@local.test'].append(os.stat(path).st_mtime)
    return found, bounced


def missing(accepted, hops, m):
    found, bounced = found_locally(m)
    served = set(found) | {key for h in hops for key in list(h.taken) + list(h.unsaid)}
    return [(i, to) for i, list_ in accepted.items() for to in list_ if (i, to) not in served and to not in bounced]


def too_often(accepted, hops, m, kills):
    """Those that came again although an answer had arrived; a worker that is killed may take the note of it with it."""
    found, _ = found_locally(m)
    for h in hops:
        for key, times in h.taken.items():
            found[key] = found[key] + times
    wrong = []
    for key, times in found.items():
        times.sort()
        for first, again in zip(times, times[1:]):
            if not any(first - 1 <= k <= min(again, first + KILL_MEMORY) for k in kills):
                wrong.append((key, times))
    return wrong


class Stranger:
    """Where lying name servers point to: at the port of a hop, on another address. Nobody may come."""

    def __init__(self, port):
        self.visitors, self.listener = 0, socket.create_server((free_loopback(), port))
        self.address = self.listener.getsockname()[0]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            while True:
                self.listener.accept()[0].close()
                self.visitors += 1
        except OSError:
            pass


def name_hops(ns, r, stranger):
    """Hosts for the hops' domains, and trouble with every twentieth question."""
    happened = collections.Counter()

    def trouble(name):
        if not name.endswith('relay.test') or r.random() >= 0.05:
            return None
        what = r.choice(DNS_TROUBLE)
        happened['DNS', what] += 1
        return what
    for n in range(HOPS):
        ns.add(f'h{n}.relay.test', 'MX', (10, f'mx{n}.relay.test')).add(f'mx{n}.relay.test', 'A', '127.0.0.1')
    ns.ttl, ns.liar, ns.trouble = 1, stranger.address, trouble
    return happened


@pytest.mark.root
@pytest.mark.timeout(3 * SECONDS + 300)
def test_nothing_lost_nothing_twice(martlet, nameserver):
    r = random.Random(SEED)
    print('seed', SEED)
    hops = [Hop(r.random()) for _ in range(HOPS)]
    stranger = Stranger(hops[0].port)
    dns_trouble = name_hops(nameserver, random.Random(r.random()), stranger)
    ports = ''.join('${if eq{$domain}{h%d.relay.test}{%d}}' % (n, h.port) for n, h in enumerate(hops))
    m = martlet(users=('u0', 'u1', 'u8', 'full'), tmpfs={'{d}/spool': 'size=80m,uid={uid},mode=755'}, allow_panic='.',
                relay_to='*.relay.test', relay_from='127.0.0.1', routers=ROUTE, resolver=nameserver.address, client=f'port = {ports}\n  {CLIENT}', arguments=['-q2s'],
                maildir='quota = ${if eq{$local_part}{full}{30K}{0}}\n  maildir_use_size_file = false',
                main='queue_run_max = 2\nsmtp_accept_queue_per_connection = 0\nignore_bounce_errors_after = 1d\ndns_retrans = 1s\ndns_retry = 1')
    over, kills = threading.Event(), []
    senders = [Sender(n, m.port, r.random(), over) for n in range(4)]
    troubles = threading.Thread(target=trouble, args=(m, random.Random(r.random()), over, kills), daemon=True)
    for t in senders + [troubles]:
        t.start()
    over.wait(SECONDS)
    over.set()
    for t in senders + [troubles]:
        t.join(60)
        assert not t.is_alive()
    for h in hops:
        h.heal()
    accepted = {k: v for s in senders for k, v in s.accepted.items()}
    nameserver.trouble = {}
    happened = sum((collections.Counter(h.happened) for h in hops), dns_trouble)
    print(len(accepted), 'messages,', sum(happened.values()), 'faults,', len(kills), 'kills')
    assert accepted and happened and dns_trouble

    def settled():
        empty_full(m)
        m.run('-qff', check=False)
        return not m.queue() and not missing(accepted, hops, m)
    try:
        wait_for(settled, lambda: f'seed {SEED}: not served: {missing(accepted, hops, m)[:10]}, queue: {m.queue()[:10]} {m.logs()}',
                 120 + SECONDS, 0.5)
        assert not too_often(accepted, hops, m, kills), f'seed {SEED}'
        assert stranger.visitors == 0, f'seed {SEED}'
    finally:
        for h in hops:
            h.end()
