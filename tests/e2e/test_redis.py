"""redis lookups against real servers."""
import re
import signal

import pytest

from support.databases import Redis, redis_cluster
from support.smtp import Client

pytestmark = [pytest.mark.plain, pytest.mark.skipif(Redis.program is None, reason='no redis server is installed')]


@pytest.fixture
def redis(make):
    return lambda **kw: make(Redis, **kw)


def expand(m, *lines):
    """One process for all lines, as connections and results are kept by it."""
    out = m.run('-be', *lines)
    return out[:-1].split('\n')


def test_values(martlet, redis):
    r = redis()
    m = martlet(main=f'redis_servers = 127.0.0.1::{r.port}//', daemon=False)
    r.call('SET', 'plain', 'value')
    r.call('SET', 'odd', b'a b\\ "c"')
    r.call('SET', 'empty', '')
    r.call('HSET', 'hash', 'f', 'x')
    r.call('RPUSH', 'list', 'one', '', 'three')
    assert expand(
        m, '${lookup redis{get plain}}', '${lookup redis{get odd}}', '<${lookup redis{get empty}{$value}{no}}>',
        '${lookup redis{get none}{yes}{no}}', '${lookup redis{HGET hash f}}', '${lookup redis{lrange nothing 0 -1}{yes}{no}}',
        '${lookup redis{set ${quote_redis:a key} ${quote_redis:with \\\\ and "}}}', '${lookup redis{get a\\\\ key}{$value}}',
        '${lookup redis{incr n}}', '${lookup redis{incr n}}', '${lookup redis{get n}}',
        '${lookup redis{mget plain none hash}{${tr{$value}{\\n}{|}}}}',
        '${lookup redis{lrange list 0 -1}{${tr{$value}{\\n}{|}}}}',
        '${quote_redis:a"b\\\\c d}',
    ) == ['value', 'a b\\ "c"', '<>', 'no', 'x', 'no', 'OK', 'with \\ and "', '1', '2', '2', 'value||', 'one||three',
          'a\\"b\\\\c\\ d']
    assert r.call('GET', 'a key') == b'with \\ and "'


def test_a_quoted_argument_is_one(martlet, redis):
    r = redis()
    m = martlet(main=f'redis_servers = 127.0.0.1::{r.port}//', daemon=False)
    r.call('SET', 'keep', 'me')
    nasty = 'x\\r\\nFLUSHALL\\r\\n'
    assert expand(m, '${lookup redis{set k ${quote_redis:' + nasty + '}}}', '${lookup redis{get keep}}') == ['OK', 'me']
    assert r.call('GET', 'k') == b'x\r\nFLUSHALL\r\n'


def test_errors(martlet, redis):
    r = redis()
    m = martlet(main='redis_servers = 127.0.0.1', daemon=False)
    server = f'redis,servers=127.0.0.1::{r.port}//'
    wrong = f'Failed: lookup of "{{}}" gave DEFER: "{{}}"'
    r.call('SET', 'text', 'x')
    assert expand(
        m, '${lookup redis{get x}}', '${lookup redis,servers=other {get x}}', f'${{lookup {server} {{nonsense}}}}',
        f'${{lookup {server} {{incr text}}}}', f'${{lookup {server} {{}}}}',
        f'${{lookup redis,servers=127.0.0.1::{r.port}/x/ {{get x}}}}',
    ) == [wrong.format('get x', 'incomplete Redis server data: 127.0.0.1'),
          wrong.format('get x', 'Redis server \\"other\\" not found in redis_servers'),
          wrong.format('nonsense', "REDIS: query failed: ERR unknown command 'nonsense', with args beginning with: "),
          wrong.format('incr text', 'REDIS: query failed: ERR value is not an integer or out of range'),
          '',
          wrong.format('get x', f'incomplete Redis server data: 127.0.0.1:{r.port}')]


def test_password_database_socket(martlet, redis):
    r = redis(password='s3c/ret')
    m = martlet(daemon=False)
    r.call('SET', 'x', 'in 0')

    def ask(servers):
        return expand(m, f'${{lookup redis,servers=<; {servers} {{get x}}{{$value}}{{none}}}}'.replace('<; ', '<;'))[0]
    assert ask(f'127.0.0.1:{r.port}//s3c/ret') == 'in 0'
    assert ask(f'127.0.0.1:{r.port}/3/s3c/ret') == 'none'
    assert ask(f'({r.socket})//s3c/ret') == 'in 0'
    bad = ask(f'127.0.0.1:{r.port}//wrong')
    assert 'WRONGPASS' in bad and 'gave DEFER' in bad and 'wrong' not in bad.replace('WRONGPASS', '').split('gave DEFER')[1].split(':')[0]
    assert 'NOAUTH' in ask(f'127.0.0.1:{r.port}//')
    assert 'DB index' in ask(f'127.0.0.1:{r.port}/99/s3c/ret')


def test_failover(martlet, redis):
    one, two = redis(), redis()
    one.call('SET', 'who', 'one')
    two.call('SET', 'who', 'two')
    m = martlet(main=f'redis_servers = 127.0.0.1::{one.port}// : 127.0.0.1::{two.port}//', daemon=False)
    query = '${lookup redis{get who}}'
    assert m.expand(query) == 'one'
    one.stop()
    assert m.expand(query) == 'two'
    assert m.expand('${lookup redis,servers=127.0.0.1::%d {get who}}' % two.port) == 'two'
    two.stop()
    assert re.fullmatch(r'Failed: lookup of "get who" gave DEFER: "REDIS connection failed: .*: Connection refused"', m.expand(query))


def test_cluster(martlet, redis):
    nodes = [redis(cluster=True) for _ in range(3)]
    redis_cluster(nodes)
    servers = ' : '.join(f'127.0.0.1::{n.port}//' for n in nodes)
    m = martlet(main=f'redis_servers = {servers}', daemon=False)
    keys = [f'key{i}' for i in range(30)]
    assert expand(m, *[f'${{lookup redis{{set {k} v-{k}}}}}' for k in keys]) == ['OK'] * 30
    assert expand(m, *[f'${{lookup redis{{get {k}}}}}' for k in keys]) == [f'v-{k}' for k in keys]
    held = [int(n.call('DBSIZE')) for n in nodes]
    assert sum(held) == 30 and all(held), held
    only = expand(m, *[f'${{lookup redis,servers=127.0.0.1::{nodes[0].port} {{get {k}}}{{1}}{{0}}}}' for k in keys])
    assert only.count('1') == held[0] and sum('MOVED' in x for x in only) == 30 - held[0]


def test_big_answer(martlet, redis):
    r = redis()
    m = martlet(main=f'redis_servers = 127.0.0.1::{r.port}//', daemon=False)
    r.call('SET', 'big', b'x' * (16 << 20))
    assert m.expand('${strlen:${lookup redis{get big}}}') == str(16 << 20)
    assert 'reply too long' in m.expand('${lookup redis{mget big big big}{${strlen:$value}}}')


def test_in_the_daemon(martlet, redis):
    """Sessions share connections of their worker, and are not held up by a server that does not answer another one."""
    r = redis()
    r.call('SADD', 'domains', 'local.test')
    r.call('SET', 'rcpt:u1@local.test', 'ok')
    stuck = redis()
    m = martlet(main=f'redis_servers = 127.0.0.1::{r.port}//', allow_panic='not properly quoted', acl_rcpt=f'''
  defer local_parts = u5
        condition = ${{lookup redis,servers=127.0.0.1::{stuck.port}// {{get x}}}}
  deny  local_parts = u6
        condition = ${{lookup redis{{get rcpt:$local_part}}{{yes}}{{no}}}}
  deny  !condition = ${{lookup redis{{sismember domains ${{quote_redis:$domain}}}}}}
        message = no such domain
  accept condition = ${{lookup redis{{get rcpt:${{quote_redis:$local_part@$domain}}}}{{yes}}{{no}}}}
  deny  message = not in redis
''')
    stuck.freeze()
    with Client(m.port) as slow, Client(m.port) as c:
        slow.ehlo()
        slow.expect(250, 'MAIL FROM:<a@b.test>')
        slow.send(b'RCPT TO:<u5@local.test>\r\n')
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u1@local.test>')
        assert c.cmd('RCPT TO:<u2@local.test>') == (550, 'not in redis')
        assert c.cmd('RCPT TO:<x@other.test>') == (550, 'no such domain')
        assert c.cmd('RCPT TO:<u6@local.test>')[0] == 451
        # The server is replaced between two queries.
        r.stop(signal.SIGKILL)
        assert c.cmd('RCPT TO:<u3@local.test>')[0] == 451
        r.start()
        r.call('SADD', 'domains', 'local.test')
        r.call('SET', 'rcpt:u3@local.test', 'ok')
        c.expect(250, 'RCPT TO:<u3@local.test>')
        assert slow.reply()[0] == 451
        stuck.thaw()


def test_tls(martlet, redis, authority):
    cert, key = authority.issue('localhost')
    s = redis(password='secret', tls=(cert, key))
    query = '${lookup redis,servers=rediss::localhost::%d/1/secret{set x 1}}' % s.port
    again = query.replace('set x 1', 'get x')
    m = martlet(daemon=False, main=f'redis_tls_verify_certificates = {authority.certificate}')
    assert expand(m, query, again, again) == ['OK', '1', '1']
    # Another name than the certificate's; nobody whom the system trusts; no TLS.
    assert 'TLS session: ' in m.expand(query.replace('localhost', '127.0.0.1'))
    assert 'TLS session: ' in martlet(daemon=False).expand(query)
    assert 'query failed' in m.expand(query.replace('rediss::', '')) or 'REDIS AUTH' in m.expand(query.replace('rediss::', ''))
    plain = redis()
    assert 'TLS session: ' in m.expand(f'${{lookup redis,servers=rediss::localhost::{plain.port}//{{get x}}}}')
