"""Dovecot's service over connections that are kept: how many there are, what goes over them, and that nobody notices when one breaks."""
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.door import Door
from support.sasl import Dovecot, b64, do_cram, do_login, do_plain, do_scram
from support.smtp import Client

pytestmark = pytest.mark.plain

USERS = {'fred': ('secret', ''), 'mary': ('other', '')}
AUTHENTICATORS = '\n'.join(f'''
dovecot_{name.lower().replace('-', '_')}:
  driver = dovecot
  public_name = {name}
  server_socket = @SOCKET@
  server_set_id = $auth1
  @MORE@''' for name in ('PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-256'))


def login(m, do, user='fred', password='secret', want=235):
    with Client(m.port, timeout=200) as c:
        c.ehlo()
        got = do(c, user, password)
        assert got[0] == want, (got, m.logs())


@pytest.fixture
def asking(martlet):
    def start(socket, more='', main=''):
        return martlet(authenticators=AUTHENTICATORS.replace('@SOCKET@', socket).replace('@MORE@', more), main=f'worker_processes = 1\n{main}')
    return start


@pytest.mark.parametrize('kind', ['unix', 'inet', 'tls'])
def test_one_connection(asking, make, authority, scratch, kind):
    if Dovecot.program is None:
        pytest.skip('Dovecot is not installed')
    d = make(Dovecot, USERS, authority.issue('localhost'))
    to = d.path if kind == 'unix' else ('127.0.0.1', d.port if kind == 'inet' else d.tls_port)
    door = make(Door, to, os.path.join(scratch, 'door') if kind == 'unix' else None)
    tls = kind == 'tls'
    m = asking(door.path or f'localhost {door.port}', 'server_tls' if tls else '', f'tls_verify_certificates = {authority.certificate}' if tls else '')
    for do in (do_plain, do_login, do_cram, do_scram):
        login(m, do)
        login(m, do, 'mary', 'other')
        login(m, do, 'fred', 'other', 535)
    assert door.count <= 2, m.logs()  # a slow machine may take longer than a connection is kept
    # It starts anew: nobody sees that. (Its old process may live on for a while, for us.)
    if not tls:
        d.stop()
        d.start()
        login(m, do_plain)
        assert door.count <= 3
        assert 'Temporary' not in m.logs()
    assert 'Error' not in open(f'{d.directory}/log').read()


HELLO = b'VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t1\nCUID\t2\nCOOKIE\tabc\nDONE\n'


class Service:
    """Dovecot's side. `answer(number of the request over all, its number here, line)` gives what is said; None: closes."""

    def __init__(self, answer=lambda n, i, line: f'OK\t{i}\tuser=fred\n'):
        self.answer, self.connections, self.asked, self.cpids, self.lines = answer, 0, 0, [], []
        self.hello = HELLO
        self.lock = threading.Lock()

    def __call__(self, c):
        with self.lock:
            self.connections += 1
        c.send(self.hello)
        assert c.until(b'\n') == b'VERSION\t1\t2\n'
        self.cpids.append(c.until(b'\n'))
        last = 0
        while True:
            line = c.until(b'\n').decode()
            word, number, *_ = line.split('\t')
            self.lines.append(line)
            if word == 'AUTH':
                assert int(number) == last + 1, line
                last += 1
                with self.lock:
                    self.asked += 1
            answer = self.answer(self.asked, last, line)
            if answer is None:
                return
            c.send(answer)
            if not answer.endswith('\n'):
                return


@pytest.fixture
def service(asking, stub):
    def start(*args):
        s = Service(*args)
        s.stub = stub(s, True)
        s.m = asking(s.stub.path)
        return s
    return start


def test_numbers(service):
    """One at a time over a connection, each with a number of its own."""
    s = service()
    for _ in range(5):
        login(s.m, do_plain)
    assert (s.connections, s.asked) == (1, 5)


def test_side_by_side(service):
    together = threading.Barrier(6)
    s = service(lambda n, i, line: (together.wait(60), f'OK\t{i}\tuser=fred\n')[1])
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(login, s.m, do_plain) for _ in range(6)]:
            done.result()
    assert s.connections == 6 and len(set(s.cpids)) == 6
    assert all(re.fullmatch(rb'CPID\t[1-9][0-9]*\n', x) for x in s.cpids)


BREAKS = {
    'closes': (None, 235, 2),
    'breaks off': ('OK\t2\tuser=fr', 454, 2),
    'another number': ('OK\t1\tuser=fred\n', 454, 2),
    'no user': ('OK\t2\n', 454, 2),
    'garbage': ('OK\n', 454, 2),
    'trouble of its own': ('FAIL\t2\tuser=fred\ttemp\n', 454, 1),
    'refuses': ('FAIL\t2\tuser=fred\n', 535, 1),
    'says more than was asked': ('OK\t2\tuser=fred\nOK\t3\tuser=mary\n', 235, 2),
}


@pytest.mark.parametrize('what', BREAKS)
def test_broken(service, what):
    answer, want, connections = BREAKS[what]
    again = threading.Event()

    def answers(n, i, line):
        if n != 2 or again.is_set():
            return f'OK\t{i}\tuser=fred\n'
        again.set()
        return answer
    s = service(answers)
    for code in (235, want, 235):
        login(s.m, do_plain, want=code)
    assert s.connections == connections
    if want == 235:
        assert 'Temporary' not in s.m.logs()


def test_cancelled(service):
    """A request that the client ended, in any way, ends its connection: what the service still says to it is for nobody."""
    s = service(lambda n, i, line: f'CONT\t{i}\t{b64("User")}\n' if line.startswith('AUTH') and 'LOGIN' in line else f'OK\t{i}\tuser=fred\n')
    with Client(s.m.port) as c:
        c.ehlo()
        assert c.cmd('AUTH LOGIN')[0] == 334
        assert c.cmd('*')[0] == 501
        assert do_plain(c, 'fred', 'secret')[0] == 235
    assert s.connections == 2
    with Client(s.m.port) as c:
        c.ehlo()
        assert c.cmd('AUTH LOGIN')[0] == 334
    login(s.m, do_plain)
    assert s.connections == 3


def test_mechanisms_change(service):
    """A kept connection knows what the service could do once; what it has learnt since is asked for."""
    s = service()
    s.hello = HELLO.replace(b'MECH\tLOGIN\tplaintext\n', b'')
    login(s.m, do_plain)
    s.hello = HELLO
    login(s.m, lambda c, u, p: c.cmd('AUTH LOGIN ' + b64(u)))
    assert s.connections == 2
    s.hello = HELLO.replace(b'LOGIN', b'X-OTHER')
    login(s.m, lambda c, u, p: c.cmd('AUTH CRAM-MD5'), want=454)


def test_not_there_any_more(service):
    s = service()
    login(s.m, do_plain)
    s.stub.answer = lambda c: None
    s.answer = lambda n, i, line: None
    login(s.m, do_plain, want=454)
    s.stub.answer = s
    s.answer = lambda n, i, line: f'OK\t{i}\tuser=fred\n'
    login(s.m, do_plain)
