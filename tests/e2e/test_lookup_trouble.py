"""What can go wrong with each database server: it dies in mid-query, comes back, sends too much, or bytes that are no text;
and passwords, which nobody may see. One process asks all of a test's questions, as connections are kept by it."""
import base64
import os
import re
import signal

import pytest

from support.databases import MariaDB, Postgres, Redis, Slapd
from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.plain
BIG = 16 << 20
MEMORY = 1 << 20  # kB; what an answer without end would soon exceed
BYTES = bytes(range(256))


def has_unread(port):
    """Somebody sent something to this port that its server has not read."""
    with open('/proc/net/tcp') as f:
        rows = [line.split() for line in f.readlines()[1:]]
    return any(int(r[1].split(':')[1], 16) == port and r[3] == '01' and int(r[4].split(':')[1], 16) for r in rows)


def die_in_mid_query(server, conversation, query, sig=signal.SIGKILL):
    """Frozen, asked, and then killed. Its answer."""
    server.freeze()
    conversation.say(query)
    wait_for(lambda: has_unread(server.port), 'the query to be sent')
    server.stop(sig)
    return conversation.answer()


def decoded(text):
    return base64.b64decode(text)


@pytest.mark.skipif(Redis.program is None, reason='no redis server is installed')
class TestRedis:
    def test_dies_and_comes_back(self, martlet, make, talk):
        r = make(Redis)
        c = talk(martlet(main=f'redis_servers = 127.0.0.1::{r.port}//', daemon=False))
        r.call('SET', 'x', '1')
        assert c.ask('${lookup redis,cache=no{get x}}') == '1'
        # The connection was a kept one: a new one is tried, too.
        assert re.search(r'gave DEFER: "REDIS (query|connection) failed: 127\.0\.0\.1', die_in_mid_query(r, c, '${lookup redis,cache=no{get x}}'))
        assert 'Connection refused' in c.ask('${lookup redis,cache=no{get x}}')
        for value in 'ab':
            r.start()
            r.call('SET', 'x', value)
            assert c.ask('${lookup redis,cache=no{get x}}') == value
            r.stop(signal.SIGKILL)

    def test_bytes_and_size(self, martlet, make, talk):
        r = make(Redis)
        c = talk(martlet(main=f'redis_servers = 127.0.0.1::{r.port}//', daemon=False))
        r.call('SET', 'bytes', BYTES)
        r.call('SET', 'big', b'x' * BIG)
        assert decoded(c.ask('${base64:${lookup redis{get bytes}}}')) == BYTES
        for _ in range(3):
            assert c.ask('${strlen:${lookup redis,cache=no{get big}}}') == str(BIG)
        many = ' '.join(['big'] * 20)
        assert 'reply too long' in c.ask('${lookup redis{mget %s}{${strlen:$value}}}' % many)
        assert c.ask('${lookup redis{strlen big}}') == str(BIG)
        assert c.peak() < MEMORY


PHOTO = 'dn: cn=photo,o=base\nobjectClass: inetOrgPerson\ncn: photo\nsn: p\njpegPhoto:: {}\n\n'.format(
    base64.b64encode(BYTES).decode())
LARGE = ''.join(f'dn: cn=big{i},o=base\nobjectClass: inetOrgPerson\ncn: big{i}\nsn: b\ndescription: {"x" * BIG}\n\n' for i in range(3))


@pytest.mark.skipif(Slapd.program is None or not os.path.exists('/etc/ldap/schema/core.schema'), reason='no LDAP server is installed')
class TestLdap:
    def test_dies_and_comes_back(self, martlet, make, talk):
        s = make(Slapd)
        c = talk(martlet(daemon=False))
        query = f'${{lookup ldap,cache=no{{ldap://127.0.0.1:{s.port}/o=base?sn?sub?(cn=mary)}}}}'
        assert c.ask(query) == 'Smith'
        assert re.search(r'gave DEFER: "ldap_(result|search) failed: ', die_in_mid_query(s, c, query))
        assert 'failed to bind the LDAP connection' in c.ask(query)
        for _ in range(2):
            s.start()
            assert c.ask(query) == 'Smith'
            s.stop(signal.SIGKILL)
        # In the middle of connecting.
        s.start()
        assert 'failed to bind the LDAP connection' in die_in_mid_query(s, c, query)

    def test_bytes_and_size(self, martlet, make, talk):
        s = make(Slapd, more='\n' + PHOTO + LARGE, maxsize=256 << 20)
        c = talk(martlet(daemon=False))

        def query(rest, kind='ldap'):
            return f'${{lookup {kind},cache=no{{ldap://127.0.0.1:{s.port}/o=base?{rest}}}}}'
        # A comma is doubled, since values are joined by commas.
        assert decoded(c.ask(f'${{base64:{query("jpegPhoto?sub?(cn=photo)")}}}')) == BYTES.replace(b',', b',,')
        assert c.ask(f'${{strlen:{query("description?sub?(cn=big1)")}}}') == str(BIG)
        assert c.ask(query('description?sub?(cn=big*)', 'ldapm')).endswith('gave DEFER: "LDAP: result too long"')
        assert c.ask(query('sn?sub?(cn=mary)')) == 'Smith'
        assert c.peak() < MEMORY


class Sql:
    def __init__(self, make, kind):
        self.server, self.kind = make(kind), 'pgsql' if kind is Postgres else 'mysql'
        self.main = f'{self.kind}_servers = 127.0.0.1::{self.server.port}/' + \
            ('postgres/root/secret' if kind is Postgres else 'test/user/secret')
        self.forever = 'select pg_sleep(600)' if kind is Postgres else 'select sleep(600)'
        self.running = "select count(*) from pg_stat_activity where query like 'select pg_s%'" if kind is Postgres else \
            "select count(*) from information_schema.processlist where info like 'select sleep%'"

    def lookup(self, query):
        return f'${{lookup {self.kind},cache=no{{{query}}}}}'


@pytest.fixture(params=[Postgres, MariaDB], ids=['pgsql', 'mysql'])
def sql(request, make):
    if request.param.program is None:
        pytest.skip('no such server is installed')
    return Sql(make, request.param)


class TestSql:
    def test_dies_and_comes_back(self, martlet, sql, talk):
        m = martlet(main=sql.main, daemon=False)
        c, watch = talk(m), talk(m)
        assert c.ask(sql.lookup('select 1')) == '1'
        c.say(sql.lookup(sql.forever))
        wait_for(lambda: watch.ask(sql.lookup(sql.running)) == '1', 'the query to run')
        sql.server.stop(sql.server.crash)
        assert re.search('gave DEFER: "(PGSQL|MYSQL): query failed', c.answer())
        assert 'connection failed' in c.ask(sql.lookup('select 1'))
        for _ in range(2):
            sql.server.start()
            assert c.ask(sql.lookup('select 2')) == '2'
            sql.server.stop(sql.server.crash)

    def test_bytes_and_size(self, martlet, sql, talk):
        c = talk(martlet(main=sql.main, daemon=False))
        if sql.kind == 'mysql':
            assert decoded(c.ask('${base64:' + sql.lookup(f"select x'{BYTES.hex()}'") + '}')) == BYTES
        else:
            assert decoded(c.ask('${base64:' + sql.lookup("select chr(233) || chr(8364) || chr(1)") + '}')) == 'é€\1'.encode()
            assert c.ask(sql.lookup(r"select decode('%s', 'hex')" % BYTES.hex())) == r'\x' + BYTES.hex()
        endless = "select repeat('x', 1000000) from " + ('generate_series(1, 4000)' if sql.kind == 'pgsql' else 'seq_1_to_4000')
        assert c.ask(sql.lookup(endless)).endswith('result too long"')
        assert c.ask(sql.lookup('select 3')) == '3'
        assert c.peak() < MEMORY


@pytest.mark.root
def test_dns(martlet, nameserver, talk):
    nameserver.add('bytes.ex', 'TXT', ['\0\1\t"', 'é\n']).add('a.ex', 'A', '10.0.0.1')
    nameserver.add('big.ex', 'TXT', *[[f'{i:03}' + 'x' * 250] * 4 for i in range(60)])
    c = talk(martlet(resolver=nameserver.address, main='dns_use_edns0 = 0', daemon=False))
    assert c.ask('${lookup dnsdb{a=a.ex}}') == '10.0.0.1'
    assert decoded(c.ask('${base64:${lookup dnsdb{>+;txt=bytes.ex}}}')) == '\0\1\t"é\n'.encode()
    # By TCP, as it is far too long for a datagram.
    assert c.ask('${strlen:${lookup dnsdb{>+;txt=big.ex}}}') == str(60 * 4 * 253 + 59)
    for trouble in ('TIMEOUT', 'GARBAGE', 'SERVFAIL', 'REFUSED'):
        nameserver.everything = trouble
        assert 'gave DEFER' in c.ask(f'${{lookup dnsdb{{defer_strict,retrans_1s,retry_1,a={trouble}.ex}}}}'), trouble
    nameserver.everything = None
    nameserver.add('new.ex', 'A', '10.0.0.2')
    assert c.ask('${lookup dnsdb{a=new.ex}}') == '10.0.0.2'


def test_passwords_do_not_show(martlet):
    """Neither in logs, nor in debug output, nor in what a client is told."""
    nobody = '127.0.0.1::1'
    places = [f'pgsql{{servers={nobody}/d/u/top-secret; select 1}}', f'pgsql,servers={nobody}/d/u/top-secret{{select 1}}',
              f'mysql{{servers={nobody}/d/u/top-secret; select 1}}', f'redis{{servers={nobody}//top-secret; get x}}',
              f'redis,servers={nobody}//top-secret{{get x}}', 'redis{get x}', 'pgsql{select 1}', 'mysql{select 1}',
              'ldap{user=cn=a pass=top-secret ldap://127.0.0.1:1/o=b?sn?sub?(a=b)}',
              'ldap{user="cn=a" PASS="top-secret \\\\" it" nettime=x ldap://127.0.0.1:1/o=b?sn?sub?(a=b)}']
    lookups = [f'${{lookup {p}}}' for p in places]
    main = (f'hide redis_servers = {nobody}//top-secret\nhide pgsql_servers = {nobody}/d/u/top-secret\n'
            f'hide mysql_servers = {nobody}/d/u/top-secret')
    m = martlet(main=main, allow_panic='.', acl_rcpt=''.join(
        f'  defer local_parts = x{i}\n        condition = {text}\n' for i, text in enumerate(lookups)))
    shown = ''
    for text in lookups + ['${if ldapauth{user=cn=a pass=top-secret ldap://127.0.0.1:1/}{yes}{no}}']:
        out = m.run('-d+all', '-be', text)
        shown += out
        assert 'top-secret' not in out and 'it"' not in out and 'Failed: ' in out, text
        assert 'top-secret' not in m.run('explain', text, tool=True, check=False).stdout
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        for i in range(len(lookups)):
            code, text = c.cmd(f'RCPT TO:<x{i}@local.test>')
            assert code == 451 and 'secret' not in text
    m.wait_log('temporarily rejected RCPT', count=len(lookups))
    assert 'secret' not in m.logs() and 'servers=127.0.0.1::1/***; select 1' in shown
