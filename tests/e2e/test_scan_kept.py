"""Connections to scanners that are kept for the next question: how many there are, and that nobody notices when one breaks."""
import os
import re
import socket
import struct
import threading

import pytest

from support import scanners
from support.door import Door
from support.scanners import EICAR, Clamd
from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.plain

PANIC = 'malware acl condition'
ACL = """
data:
  deny   malware = */tmo=${if eq{$sender_address_domain}{quick.test}{1s}{40s}}
         message = found $malware_name
  accept
"""


class Session:
    """A clamd that knows sessions. `answer(number of the request over all, data)` gives the answer without its number; or bytes, which are
    sent as they are; None: closes; RESET: with a reset."""

    def __init__(self, answer=lambda n, data: 'stream: OK'):
        self.answer, self.connections, self.asked, self.ended = answer, 0, 0, 0
        self.lock = threading.Lock()

    def __call__(self, c):
        with self.lock:
            self.connections += 1
        number = 0
        if c.until(b'\0') != b'zIDSESSION\0':
            return
        while True:
            command = c.until(b'\0')
            if command == b'zEND\0':
                with self.lock:
                    self.ended += 1
                return
            assert command == b'zINSTREAM\0'
            data = b''
            while n := struct.unpack('>I', c.exactly(4))[0]:
                data += c.exactly(n)
            number += 1
            with self.lock:
                self.asked += 1
                all_asked = self.asked
            answer = self.answer(all_asked, data)
            if answer is None:
                return
            if answer is RESET:
                c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                return
            c.send(answer if isinstance(answer, bytes) else f'{number}: {answer}\0')


RESET = object()


def scanning(martlet, spec, more='', **kw):
    return martlet(main=f'acl_smtp_data = data\nav_scanner = clamd:{spec}\nworker_processes = 1\n{more}', acl=ACL, allow_panic=PANIC, **kw)


def messages(c, *texts, sender='a@b.test'):
    """Over one SMTP session; the replies' codes."""
    return [c.mail(sender, 'u0@local.test', data=f'Subject: x\r\n\r\n{text}\r\n', hello=False)[0] for text in texts]


@pytest.fixture
def client(request):
    def start(m):
        c = Client(m.port, timeout=200)
        request.addfinalizer(c.close)
        c.ehlo()
        return c
    return start


def no_trouble(m):
    assert 'malware acl condition' not in m.logs(), m.logs()


@pytest.mark.parametrize('how', ['stream', 'socket'])
def test_real_clamd(martlet, make, scratch, client, how):
    if Clamd.missing():
        pytest.skip('clamd is not installed')
    clamd = make(Clamd)
    door = make(Door, clamd.socket if how == 'socket' else ('127.0.0.1', clamd.port), os.path.join(scratch, 'door') if how == 'socket' else None)
    m = scanning(martlet, door.path or f'127.0.0.1 {door.port}')
    os.chmod(os.path.join(m.directory, 'spool'), 0o755)
    for _ in range(2):
        assert messages(client(m), 'body', EICAR, 'body', 'martlet-test-signature', 'line\r\n' * 20000, 'body') == [250, 550, 250, 550, 250, 250], m.logs()
    assert door.count <= 2  # a slow machine may take longer than a connection is kept
    # clamd starts anew between messages: nobody sees that.
    clamd.stop()
    clamd.start()
    assert messages(client(m), 'body', EICAR) == [250, 550], m.logs()
    assert door.count <= 3
    no_trouble(m)



@pytest.fixture
def sessions(martlet, stub):
    def start(*args, more='', **kw):
        session = Session(*args)
        session.stub = stub(session)
        session.m = scanning(martlet, session.stub.address, more, **kw)
        return session
    return start


def test_one_connection(sessions, client):
    s = sessions(lambda n, data: 'stream: Eicar FOUND' if b'evil' in data else 'stream: OK')
    for _ in range(3):
        assert messages(client(s.m), 'body', 'evil', 'body') == [250, 550, 250]
    assert (s.connections, s.asked) == (1, 9)
    wait_for(lambda: s.ended == 1, s.m.logs)  # nobody uses it: it is closed, politely
    assert messages(client(s.m), 'body') == [250] and s.connections == 2
    no_trouble(s.m)


def test_switched_off(sessions, client):
    """No session, no connection kept."""
    s = sessions(more='keep_scanner_connections = false\n')
    assert messages(client(s.m), 'body') == [451]  # this one wants a session
    assert (s.connections, s.asked) == (1, 0)


def test_reload(sessions, client):
    s = sessions()
    with Client(s.m.port) as c:
        c.ehlo()
        assert messages(c, 'body') == [250]
    before = set(s.m.workers())
    s.m.reload()
    wait_for(lambda: not before & set(s.m.workers()), s.m.logs)
    assert messages(client(s.m), 'body', 'body') == [250, 250]
    assert (s.connections, s.asked) == (2, 3)
    no_trouble(s.m)


def test_side_by_side(sessions):
    """Messages at the same time have a connection each; of those no more than a few stay."""
    together = threading.Barrier(6)
    s = sessions(lambda n, data: together.wait(60) and 'stream: OK' or 'stream: OK')
    codes = []

    def send():
        with Client(s.m.port, timeout=200) as c:
            codes.append(c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nbody\r\n')[0])
    threads = [threading.Thread(target=send) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert codes == [250] * 6 and s.connections == 6, s.m.logs()
    wait_for(lambda: s.ended == 6, s.m.logs)


# What the scanner does with its second question: what is said for the second message, how many connections there were with the third.
BREAKS = {
    'closes without an answer': (None, 250, 2),
    'resets without an answer': (RESET, 250, 2),
    'says that it waited too long': (b'COMMAND READ TIMED OUT\0', 250, 2),
    'answers another question': (b'1: stream: OK\0', 250, 2),
    'answers without a number': (b'stream: OK\0', 250, 2),
    'breaks off in the answer': (b'2: stream: O', 451, 2),
    'breaks off behind the answer': (b'2: stream: OK', 451, 2),
    'reports an error': ('some trouble. ERROR', 451, 2),
    'says more than was asked': (b'2: stream: OK\x003: stream: OK\0', 250, 2),
    'answers garbage': (bytes(range(1, 256)) * 400, 250, 2),
}


@pytest.mark.parametrize('what', BREAKS)
def test_broken(sessions, client, what):
    answer, code, connections = BREAKS[what]

    def answers(n, data):
        if b'second' not in data or again.is_set():
            return 'stream: OK'
        again.set()
        return answer
    again = threading.Event()
    s = sessions(answers)
    serve = s.stub.answer

    def closing(c):
        send = c.send

        def once(data):
            send(data)
            if data is answer and not answer.endswith(b'\0'):
                raise EOFError
        c.send = once
        serve(c)
    s.stub.answer = closing
    assert messages(client(s.m), 'first', 'second', 'third') == [250, code, 250], s.m.logs()
    assert s.connections == connections
    if code == 250:
        no_trouble(s.m)


def test_late_answer(sessions, client):
    """What a scanner says about a message that nobody waits for any more is not for the next one."""
    s = sessions(lambda n, data: release.wait(100) and 'stream: OK' if b'slow' in data else 'stream: Eicar FOUND' if b'evil' in data else 'stream: OK')
    release = threading.Event()
    c = client(s.m)
    assert messages(c, 'body') == [250]
    assert messages(c, 'slow', sender='a@quick.test') == [451]
    release.set()
    assert messages(c, 'evil', 'body') == [550, 250]
    assert s.connections == 2


def test_stopped_and_back(martlet, stub, client):
    """Gone without a word: with the next message it is there, or it is not."""
    s = Session()
    server = stub(s)
    gate = threading.Event()

    def serve(c):
        if gate.is_set():
            return
        s(c)
    server.answer = serve
    m = scanning(martlet, server.address)
    c = client(m)
    assert messages(c, 'body') == [250]
    gate.set()
    s.answer = lambda n, data: None
    assert messages(c, 'body') == [451]
    gate.clear()
    s.answer = lambda n, data: 'stream: OK'
    assert messages(c, 'body', 'body') == [250, 250]


def test_knows_no_sessions(martlet, stub, client):
    """What one of another make may do with the first word; it is not asked for a session again."""
    def serve(c):
        word = c.until(b'\0')
        words.append(word)
        if word != b'zINSTREAM\0':
            return how(c)
        while n := struct.unpack('>I', c.exactly(4))[0]:
            c.exactly(n)
        c.send('stream: OK\0')
    for how in (lambda c: None, lambda c: c.send('UNKNOWN COMMAND\0'), lambda c: c.send('what?'), scanners.never):
        words = []
        m = scanning(martlet, stub(serve).address)
        c = client(m)
        first = [451] if how is scanners.never else [250]
        assert messages(c, 'body', sender='a@quick.test' if how is scanners.never else 'a@b.test') == first, m.logs()
        assert messages(c, 'body', 'body') == [250, 250]
        assert words.count(b'zIDSESSION\0') == 1
        m.stop()


# --- HTTP: Rspamd for verdicts ---

class Http:
    """A server at /checkv2. `answer(number of the request over all)` gives all that is said, or None: closes; behind (text,) it closes."""

    def __init__(self, answer=None):
        self.answer, self.connections, self.asked = answer or (lambda n: reply()), 0, 0

    def __call__(self, c):
        self.connections += 1
        while True:
            head = c.until(b'\r\n\r\n').decode()
            assert 'Connection: keep-alive\r\n' in head
            c.exactly(int(re.search(r'Content-Length: (\d+)', head).group(1)))
            self.asked += 1
            answer = self.answer(self.asked)
            if answer is None:
                return
            closes = isinstance(answer, tuple)
            c.send(answer[0] if closes else answer)
            if closes:
                return


def reply(more='', action='reject'):
    body = '{"action":"%s"}' % action
    return f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}'


def chunked(action='reject'):
    body = '{"action":"%s"}' % action
    return f'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{body[:3]}\r\n{len(body) - 3:x}\r\n{body[3:]}\r\n0\r\n\r\n'


@pytest.fixture
def judged(martlet, stub):
    """A message is dropped when the server says so, and delivered when it says nothing that counts."""
    def start(answer=None):
        http = Http(answer)
        http.m = martlet(main=f'bmi_config_file = rspamd:http://127.0.0.1:{stub(http).port}\nlog_selector = +bmi\nworker_processes = 1\n',
                         acl_rcpt='  accept domains = +local_domains\n         bmi_optin = $local_part\n         control = bmi_run\n', allow_panic='BMI:')
        return http
    return start


def verdicts(m, n, *to):
    """Messages over one SMTP session; what was decided for each."""
    with Client(m.port, timeout=200) as c:
        c.ehlo()
        before = len(re.findall('BMI=', m.log()))
        for _ in range(n):
            assert c.mail('a@b.test', *(f'{r}@local.test' for r in to or ('u0',)), hello=False)[0] == 250
    return re.findall(r'BMI=(\S+)', m.log())[before:]


@pytest.mark.parametrize('answer', [reply, chunked])
def test_http_one_connection(judged, answer):
    """Also for the questions of one message: one for each set of opt-in data."""
    http = judged(lambda n: answer())
    assert verdicts(http.m, 3) == ['drop'] * 3 and verdicts(http.m, 1, 'u1', 'u2', 'u3') == ['drop'], http.m.logs()
    assert (http.connections, http.asked) == (1, 6)


# What is said to the second question; what becomes of that message; how many connections there were with the third.
HTTP = {
    'closes without an answer': (None, 'drop', 2),
    'wants to close': (reply('Connection: close\r\n'), 'drop', 2),
    'closes behind the answer': ((reply(),), 'drop', 2),
    'HTTP/1.0': ((reply().replace('1.1', '1.0'),), 'drop', 2),
    'says more than was asked': (reply() + reply(action='no action'), 'drop', 2),
    'no length': (('HTTP/1.1 200 OK\r\n\r\n{"action":"reject"}',), 'drop', 2),
    'breaks off in the header': (('HTTP/1.1 200',), None, 2),
    'breaks off in the body': ((reply()[:-3],), None, 2),
    'breaks off in a chunk': ((chunked()[:-9],), None, 2),
    'two lengths': (reply('Content-Length: 1\r\n'), None, 2),
    'bad chunk': (chunked().replace('\r\n3\r\n', '\r\nx\r\n'), None, 2),
    'refuses': (reply().replace('200', '500'), None, 2),
}


@pytest.mark.parametrize('what', HTTP)
def test_http_broken(judged, what):
    answer, verdict, connections = HTTP[what]
    done = threading.Event()

    def answers(n):
        if n != 2 or done.is_set():
            return reply()
        done.set()
        return answer
    http = judged(answers)
    want = ['drop', verdict, 'drop'] if verdict else ['drop', 'drop']
    assert [x for x in verdicts(http.m, 3) if x == 'drop'] == want, http.m.logs()
    assert http.connections == connections
    assert ('BMI:' in http.m.logs()) == (verdict is None), http.m.logs()
