"""Keys of session tickets that several daemons share (tls_ticket_servers), and rotation: of keys, certificates and the configuration,
while clients come and go."""
import os
import random
import ssl
import socket
import threading
import time

import pytest

from support.databases import Redis
from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.skipif(Redis.program is None, reason='no redis server is installed')

VERSIONS = pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=['1.2', '1.3'])


def main(redis=None, period=None, password=''):
    return ('tls_resumption_hosts = *\n' + (f'tls_ticket_servers = 127.0.0.1::{redis.port}//{password}\n' if redis else '')
            + (f'tls_ticket_period = {period}\n' if period else ''))


def context(version=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    return c


def talk(m, c, session=None):
    """A session of SMTP with STARTTLS: (was the TLS session resumed?, the one to resume later, the certificate)."""
    with socket.create_connection(('127.0.0.1', m.port), timeout=60) as s:
        f = s.makefile('rb')

        def answer(code):
            while True:
                line = f.readline()
                assert line.startswith(code), line
                if line[3:4] != b'-':
                    return
        answer(b'220')
        s.sendall(b'EHLO client.test\r\n')
        answer(b'250')
        s.sendall(b'STARTTLS\r\n')
        answer(b'220')
        with c.wrap_socket(s, server_hostname='mx.martlet.test', session=session) as t:
            f = t.makefile('rb')
            t.sendall(b'EHLO client.test\r\n')
            answer(b'250') # the tickets of TLS 1.3 have been read, too
            result = t.session_reused, t.session, t.getpeercert(True)
            t.sendall(b'QUIT\r\n')
            answer(b'221')
            return result


@pytest.fixture
def redis(make):
    return lambda **kw: make(Redis, **kw)


@VERSIONS
def test_two_machines(martlet, authority, redis, version):
    """Each takes the tickets of the other, also after a restart; a third one that shares nothing does not."""
    r, pair = redis(), authority.issue('mx.martlet.test')
    a, b, alone = martlet(tls=pair, main=main(r)), martlet(tls=pair, main=main(r)), martlet(tls=pair, main=main())
    c = context(version)
    for one, other in ((a, b), (b, a)):
        _, session, _ = talk(one, c)
        for _ in range(4): # whichever worker gets it
            assert talk(other, c, session)[0], one.logs() + other.logs()
        assert not talk(alone, c, session)[0]
    a.terminate()
    a.start()
    assert talk(a, c, session)[0]
    names = r.call('KEYS', 'martlet:tickets:3600:*')
    assert len(names) in (2, 3) # of this hour and the next, and perhaps the one before
    assert all(int(r.call('TTL', n)) > 3600 for n in names)


def test_a_key_that_was_changed(martlet, authority, redis):
    """Who empties the store and starts the servers anew has new keys: what was stolen is of no use any more."""
    r = redis()
    m = martlet(tls=authority.issue('mx.martlet.test'), main=main(r))
    c = context()
    _, session, _ = talk(m, c)
    assert talk(m, c, session)[0]
    m.terminate()
    r.call('FLUSHALL')
    m.start()
    assert not talk(m, c, session)[0]


def test_shared_with_a_password(martlet, authority, redis):
    r = redis(password='s3cret')
    m = martlet(tls=authority.issue('mx.martlet.test'), main=main(r, password='s3cret'))
    c = context()
    assert talk(m, c, talk(m, c)[1])[0]
    assert len(r.call('KEYS', 'martlet:tickets:*')) in (2, 3)


@pytest.mark.parametrize('trouble', ['nobody', 'password', 'junk'])
def test_servers_that_are_of_no_use(martlet, authority, redis, trouble):
    """Tickets go on, for this host alone, and the log says why."""
    r = redis(**({'password': 's3cret'} if trouble == 'password' else {}))
    if trouble == 'nobody':
        r.stop()
    elif trouble == 'junk':
        now = int(time.time()) // 3600
        for n in range(now - 1, now + 3):
            r.call('SET', f'martlet:tickets:3600:{n}', '00' * 79)
    m = martlet(tls=authority.issue('mx.martlet.test'), main=main(r), allow_panic='tls_ticket_servers: ')
    c = context()
    _, session, _ = talk(m, c)
    m.wait_log('tls_ticket_servers: .*; tickets are for this host alone for now')
    assert talk(m, c, session)[0]
    assert 's3cret' not in m.logs()


def replace(source, to):
    with open(source) as f, open(to + '.new', 'w') as out:
        out.write(f.read())
    os.rename(to + '.new', to)


def install(pair, cert, key):
    replace(pair[1], key)
    replace(pair[0], cert)


class Customers:
    """Clients that come one after the other, each again with the session it has from before if there is one."""

    def __init__(self, servers, n):
        self.servers, self.done, self.trouble = servers, False, []
        self.full = self.resumed = 0
        self.seen = set()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(n)]

    def run(self, number):
        c = context((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)[number % 2])
        chance, session = random.Random(number), None
        while not self.done:
            try:
                reused, session, certificate = talk(chance.choice(self.servers), c, session if chance.random() < 0.8 else None)
            except (OSError, AssertionError) as e:
                self.trouble.append(repr(e))
                return
            with self.lock:
                self.full += not reused
                self.resumed += reused
                self.seen.add(certificate)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.done = True
        for t in self.threads:
            t.join()

    def more(self):
        """Waits until full and resumed handshakes have been made from now on."""
        full, resumed = self.full, self.resumed
        wait_for(lambda: self.trouble or (self.full > full + 2 and self.resumed > resumed + 2), 'customers')
        assert not self.trouble, self.trouble


def test_a_day_in_seconds(martlet, authority, redis, scratch):
    """Keys of tickets change every three seconds and are shared by two daemons; the certificate (one file for it and its key)
    is replaced again and again; both daemons read their configuration anew, and one is told so by each. No handshake fails."""
    r, file = redis(), os.path.join(str(scratch), 'both.pem')

    def renew(name):
        with open(file + '.new', 'w') as out:
            for part in authority.issue(name):
                with open(part) as f:
                    out.write(f.read())
        os.rename(file + '.new', file)
    renew('first.test')
    servers = [martlet(tls=(file, file), main=main(r, '3s')) for _ in range(2)]
    before = set(r.call('KEYS', 'martlet:tickets:*') or [])
    with Customers(servers, 4) as customers:
        for i in range(4):
            customers.more()
            seen = len(customers.seen)
            renew(f'day{i}.test')
            wait_for(lambda: customers.trouble or len(customers.seen) > seen, 'the new certificate')
            if i % 2:
                for m in servers:
                    old = set(m.workers())
                    m.reload()
                    wait_for(lambda: not old & set(m.workers()), m.logs)
            keys = set(r.call('KEYS', 'martlet:tickets:*'))
            wait_for(lambda: customers.trouble or set(r.call('KEYS', 'martlet:tickets:*')) - keys - before, 'the next key')
        customers.more()
    assert not customers.trouble, ''.join(m.logs() for m in servers)
    assert len(customers.seen) == 5
    for m in servers:
        assert 'TLS error' not in m.log()


@VERSIONS
def test_a_ticket_that_is_too_old(martlet, authority, version):
    """Keys open tickets for two periods; then there is a whole handshake, and no error."""
    m = martlet(tls=authority.issue('mx.martlet.test'), main=main(period='2s'))
    c = context(version)
    _, session, _ = talk(m, c)
    wait_for(lambda: not talk(m, c, session)[0], m.logs)
    assert 'TLS error' not in m.log()


def test_a_certificate_and_its_key_in_two_files(martlet, authority, scratch):
    """Two files cannot be replaced at once. Who comes between is served with the pair of before."""
    cert, key = (os.path.join(str(scratch), n) for n in ('cert', 'key'))
    install(authority.issue('first.test'), cert, key)
    m = martlet(tls=(cert, key), main=main() + 'worker_processes = 1\n')
    c = context()
    first = talk(m, c)[2]
    second = authority.issue('second.test')
    replace(second[1], key)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline: # longer than files are not looked at
        assert talk(m, c)[2] == first
    replace(second[0], cert)
    wait_for(lambda: talk(m, c)[2] != first, m.logs)
    for _ in range(10):
        assert talk(m, c)[2] != first


def test_files_that_stay_bad(martlet, authority, scratch):
    """A removed key is missed after a while, and the log says so; STARTTLS is refused for now, mail in clear goes on."""
    cert, key = (os.path.join(str(scratch), n) for n in ('cert', 'key'))
    install(authority.issue('first.test'), cert, key)
    m = martlet(tls=(cert, key), main=main() + 'worker_processes = 1\n', allow_panic='.')
    first = talk(m, context())[2]
    os.remove(key)
    assert talk(m, context())[2] == first
    with pytest.raises(AssertionError, match='454 TLS currently unavailable'):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            talk(m, context())
            time.sleep(0.1)
    m.wait_log('TLS error on connection from .*SSL_CTX_use_PrivateKey_file file=.*No such file')
    with Client(m.port) as client:
        assert client.mail('a@b.test', 'u0@local.test')[0] == 250
