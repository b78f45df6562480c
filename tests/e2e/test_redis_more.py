"""redis lookups: clusters that send us elsewhere, all kinds of values, servers that send what they should not."""
import re
import socket
import threading

import pytest

from support.databases import Redis, redis_cluster
from support.smtp import Client

pytestmark = [pytest.mark.plain, pytest.mark.skipif(Redis.program is None, reason='no redis server is installed')]


class Stub:
    """A server on a free port that answers every command with the same bytes; counts the connections."""

    def __init__(self, answer=b'', family=socket.AF_INET):
        self.socket = socket.create_server(('::1' if family == socket.AF_INET6 else '127.0.0.1', 0), family=family)
        self.port, self.answer, self.connections = self.socket.getsockname()[1], answer, 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                s, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            try:
                with s:
                    s.recv(65536)
                    for piece in [self.answer] if isinstance(self.answer, bytes) else self.answer():
                        s.sendall(piece)
            except OSError:
                pass

    def stop(self):
        self.socket.close()


@pytest.fixture
def stub():
    running = []

    def start(*args, **kw):
        running.append(Stub(*args, **kw))
        return running[-1]
    yield start
    for s in running:
        s.stop()


def slot_of(node, key):
    return int(node.call('CLUSTER', 'KEYSLOT', key))


def test_moved_and_ask(martlet, make, stub):
    """The server that has the key is asked next, wherever it stands in the list; nobody in between."""
    nodes = [make(Redis, cluster=True) for _ in range(2)]
    redis_cluster(nodes)
    first, second = nodes
    nobody = stub(b'-ERR never ask me\r\n')
    servers = f'127.0.0.1::{first.port}// : 127.0.0.1::{nobody.port}// : 127.0.0.1::{second.port}//'
    m = martlet(main=f'redis_servers = {servers}', daemon=False)
    key = next(k for k in (f'key{i}' for i in range(100)) if slot_of(first, k) >= 8192)
    assert m.expand(f'${{lookup redis{{set {key} there}}}}') == 'OK' and second.call('GET', key) == b'there'
    assert m.expand(f'${{lookup redis,servers=127.0.0.1::{first.port}:127.0.0.1::{nobody.port}:127.0.0.1::{second.port}{{get {key}}}}}'
                    ) == 'there'
    # While a slot is on its way to the second node, keys that the first has not are said to be there, for this once.
    key = next(k for k in (f'key{i}' for i in range(100)) if slot_of(first, k) < 8192)
    ids = [n.call('CLUSTER', 'MYID').decode() for n in nodes]
    second.call('CLUSTER', 'SETSLOT', slot_of(first, key), 'IMPORTING', ids[0])
    first.call('CLUSTER', 'SETSLOT', slot_of(first, key), 'MIGRATING', ids[1])
    out = m.run('-be', *[f'${{lookup redis,cache=no{{{c}}}{{$value}}{{none}}}}' for c in (f'set {key} moving', f'get {key}')], err=False)
    assert out == 'OK\nmoving\n'
    assert second.call('CLUSTER', 'COUNTKEYSINSLOT', slot_of(first, key)) == b'1'
    assert nobody.connections == 0


def test_sent_round_in_circles(martlet, stub):
    """Servers that send us to each other, to themselves, or to somebody who is not in the list."""
    one = stub()
    two = stub(b'-MOVED 1 127.0.0.1:%d\r\n' % one.port)
    one.answer = b'-MOVED 1 127.0.0.1:%d\r\n' % two.port
    stranger = stub(b'+OK\r\n')
    m = martlet(daemon=False)

    def ask(*items):
        return m.expand('${lookup redis,servers=' + ':'.join(f'127.0.0.1::{s.port}//' for s in items) + '{get x}}')
    assert re.search(r'gave DEFER: "REDIS: query failed: MOVED 1 127\.0\.0\.1:\d+"$', ask(one, two))
    assert one.connections + two.connections < 20
    one.answer = b'-MOVED 1 127.0.0.1:%d\r\n' % stranger.port
    assert 'gave DEFER: "REDIS: query failed: MOVED 1' in ask(one) and stranger.connections == 0
    for bad in (b'-MOVED\r\n', b'-MOVED 1\r\n', b'-ASK 1 :\r\n', b'-ASK 1 127.0.0.1:x\r\n', b'-MOVED 1 %s\r\n' % (b':' * 300)):
        one.answer = bad
        assert 'gave DEFER: "REDIS: query failed: ' in ask(one, two), bad


def test_values(martlet, make):
    r = make(Redis)
    r.call('SET', 'odd', b' a\r\nb\0c\\ "d" ')
    r.call('SADD', 'nets', '10.1.0.0/16', '192.0.2.7')
    r.call('RPUSH', 'list', 'a', 'b c', '')
    r.call('HSET', 'domains', 'here.test', 'yes')
    m = martlet(main=f'redis_servers = 127.0.0.1::{r.port}//\nhostlist nets = <\\n ${{lookup redis{{SMEMBERS nets}}}}', daemon=False)
    out = m.run('-be', '${base64:${lookup redis{get odd}}}', '${strlen:${lookup redis{get odd}}}',
                *[f'${{if match_ip{{{ip}}}{{+nets}}{{in}}{{out}}}}' for ip in ('10.1.2.3', '192.0.2.7', '192.0.2.8')],
                '${lookup redis{HGET domains here.test}}', '${lookup redis{HGET domains none.test}{$value}{none}}',
                '${sg{${lookup redis{EVAL "return \\{1,false,\\{\'x\',2\\}\\}" 0}}}{\\n}{|}}',
                '${sg{${lookup redis{LRANGE list 0 -1}}}{\\n}{|}}', '${lookup redis{LRANGE list 7 9}{$value}{none}}', err=False)
    assert out.split('\n')[:-1] == ['IGENCmIAY1wgImQiIA==', '13', 'in', 'in', 'out', 'yes', 'none', '1||x|2', 'a|b c|', 'none']


def test_ipv6(martlet, stub):
    try:
        s = stub(b'$3\r\nsix\r\n', family=socket.AF_INET6)
    except OSError:
        pytest.skip('no IPv6 here')
    for item in (f'[::1]:{s.port}', f'::1.{s.port}'):
        assert martlet(main=f'redis_servers = <, {item}//', daemon=False).expand('${lookup redis{get x}}') == 'six', item


def endless():
    yield b'$100000000\r\n'
    while True:
        yield b'x' * 65536


def test_bad_replies(martlet, stub):
    """Each is an error; the last bytes of all come without end."""
    s = stub()
    m = martlet(daemon=False)
    for bad in (b'$-2\r\n', b'*1000000\r\n', b'*-2\r\n', b'$5\r\nab', b'$5\r\nabcdefgh\r\n', b'', b'?\r\n', b'$99999999999999999999\r\n',
                b'*1\r\n' * 2000, b'+' + b'x' * 10000000, b':x', endless):
        s.answer = bad
        out = m.expand('${lookup redis,servers=127.0.0.1::%d//{get x}{${strlen:$value}}}' % s.port)
        assert re.search(r'gave DEFER: "REDIS query failed: 127\.0\.0\.1:\d+/: ', out), bad


def test_all_servers_gone(martlet, make):
    one, two = make(Redis), make(Redis)
    for r in one, two:
        r.call('SET', 'u1', 'yes')
    m = martlet(main=f'redis_servers = 127.0.0.1::{one.port}// : 127.0.0.1::{two.port}//', arguments=[], acl_rcpt='''
  accept condition = ${lookup redis,cache=no{get ${quote_redis:$local_part}}{$value}{no}}
  deny
''')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        for r, code in ((one, 250), (two, 451)):
            c.expect(250, 'RCPT TO:<u1@local.test>')
            r.stop()
            c.expect(code, 'RCPT TO:<u1@local.test>')
