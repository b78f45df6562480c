"""pgsql and mysql lookups against real servers."""
import re

import pytest

from support.databases import MariaDB, Postgres
from support.smtp import Client

pytestmark = pytest.mark.plain
BIG = 16 << 20


class PostgresSide:
    kind, title, label, make = 'pgsql', 'PGSQL', 'PostgreSQL', Postgres
    big = "select repeat(chr(120), %d)"
    many = "select repeat(chr(120), 1000000) from generate_series(1, 40)"
    binary = r"select '\x00ff'::bytea"
    binary_value = r'\x00ff'
    sleep = 'select pg_sleep(600)'
    quote = '${quote_pgsql:it\'s "a" \\\\\\\\ b}'
    quoted = 'it\'\'s \\"a\\" \\\\\\\\ b'
    database, user = 'postgres', 'root'


class MariaSide:
    kind, title, label, make = 'mysql', 'MYSQL', 'MySQL', MariaDB
    big = "select repeat('x', %d)"
    many = "select repeat('x', 1000000) from seq_1_to_40"
    binary = "select x'41ff42'"
    binary_value = 'A\xffB'
    sleep = 'select sleep(600)'
    quote = '${quote_mysql:it\'s "a" \\\\\\\\ b}'
    quoted = 'it\\\'s \\"a\\" \\\\\\\\ b'
    database, user = 'test', 'user'


@pytest.fixture(params=[PostgresSide, MariaSide], ids=['pgsql', 'mysql'])
def side(request):
    if request.param.make.program is None:
        pytest.skip(f'no {request.param.label} server is installed')
    return request.param


def server_text(side, server, password='secret', host=None, doubled=True):
    host = host or f'127.0.0.1{"::" if doubled else ":"}{server.port}'
    return f'{host}/{side.database}/{side.user}/{password}'


def expand(m, *lines):
    out = m.run('-be', *lines, err=False)
    return out[:-1].split('\n')


def prepare(m, kind):
    """A table, made and filled through lookups."""
    assert expand(
        m, f"<${{lookup {kind}{{create table them (id varchar(20), name varchar(100), home varchar(100))}}}}>",
        f"${{lookup {kind}{{insert into them values ('ph10', 'Philip Hazel', '/home/ph10'), ('aaaa', 'Aristotle', '/'),"
        " ('nothing', '', '/x'), ('quote2', '\"stquot', '/'), ('null', null, '/')}}",
    ) == [f'<{"" if kind == "pgsql" else 0}>', '5']


def test_results(martlet, make, side):
    s = make(side.make)
    m = martlet(main=f'{side.kind}_servers = {server_text(side, s)}', daemon=False)
    k = side.kind
    prepare(m, k)

    def q(text, rest=''):
        return f'${{lookup {k}{{{text}}}{rest}}}'
    assert expand(
        m, q("select name from them where id='ph10'"), q("select name,home from them where id='ph10'"),
        q("select name from them where id='none'", '{yes}{no}'), '<' + q("select name from them where id='nothing'") + '>',
        q("select id,name from them where id='nothing'"), q("select id,name from them where id='quote2'"),
        q("select id,name from them where id='null'"), '<' + q("select name from them where id='null'", '{$value}{no}') + '>',
        q("delete from them where id='none'"), q("delete from them where id='aaaa'"),
        q("update them set home='/new' where id='ph10'"), q("select home from them where id='ph10'"),
        q("select name from them where id='${quote_" + k + ":\"stquot}'", '{$value}{none}'), side.quote,
        '${tr{' + q("select id,home from them where id in ('ph10','null') order by id") + '}{\\n}{|}}',
    ) == ['Philip Hazel', 'name="Philip Hazel" home=/new '.replace('/new', '/home/ph10'), 'no', '<>', 'id=nothing name="" ',
          'id=quote2 name="\\"stquot" ', 'id=null name="" ', '<>', '0', '1', '1', '/new', 'none', side.quoted,
          'id=null home=/ |id=ph10 home=/new ']


def test_what_is_remembered(martlet, make, side):
    s = make(side.make)
    m = martlet(main=f'{side.kind}_servers = {server_text(side, s)}', daemon=False)
    k = side.kind
    expand(m, f'${{lookup {k}{{create table t (n int)}}}}', f'${{lookup {k}{{insert into t values (0)}}}}')
    ask, change = f'${{lookup {k}{{select n from t}}}}', f'${{lookup {k}{{update t set n = n + 1}}}}'
    assert expand(m, ask, change, ask, change, change, ask) == ['0', '1', '1', '1', '1', '3']


def test_servers_and_failover(martlet, make, side):
    one, two = make(side.make), make(side.make)
    k = side.kind
    m = martlet(main=f'{k}_servers = {server_text(side, one)} : {server_text(side, two)}', daemon=False)
    expand(m, f'${{lookup {k}{{create table t (n varchar(9))}}}}', f"${{lookup {k}{{insert into t values ('one')}}}}")
    on_two = f'{k},servers=127.0.0.1::{two.port}'
    expand(m, f'${{lookup {on_two}{{create table t (n varchar(9))}}}}', f"${{lookup {on_two}{{insert into t values ('two')}}}}")
    assert expand(m, f'${{lookup {k}{{select n from t}}}}', f'${{lookup {on_two}{{select n from t}}}}',
                  f'${{lookup {k},servers={server_text(side, two)}{{select n from t}}}}',
                  ) == ['one', 'two', 'two']
    old = m.run('-be', f'${{lookup {k}{{servers=127.0.0.1::{two.port}; select n from t}}}}')
    assert 'WARNING: obsolete syntax used for lookup' in old and old.endswith('\ntwo\n')
    local = f'({one.socket})' if k == 'pgsql' else f'localhost({one.socket})[group]'
    assert m.expand(f'${{lookup {k},servers={server_text(side, one, host=local)}{{select n from t}}}}') == 'one'
    one.stop()
    assert m.expand(f'${{lookup {k}{{select n from t}}}}') == 'two'
    two.stop(side.make.crash)
    assert re.match(f'Failed: lookup of "select n from t" gave DEFER: "{side.title} connection failed: ', m.expand(f'${{lookup {k}{{select n from t}}}}'))


def test_errors(martlet, make, side):
    s = make(side.make)
    k = side.kind
    m = martlet(daemon=False)

    def ask(servers, query='select 1'):
        got = m.run('-be', f'${{lookup {k}{servers}{{{query}}}}}')
        assert got.startswith(f'Failed: lookup of "{query}" gave DEFER: "'), got
        return got.split('DEFER: ', 1)[1].strip()[1:-1]
    assert ask('') == f'no {side.label} servers defined ({k}_servers option)'
    assert ask(',servers=x') == f'{side.label} server \\"x\\" not found in {k}_servers'
    assert ask(',servers=h/d/u') == f'incomplete {side.label} server data: h'
    bad = ask(f',servers={server_text(side, s, "wrong-secret")}')
    assert bad.startswith(f'{side.title} connection failed: ') and 'wrong-secret' not in bad
    assert ask(f',servers={server_text(side, s)}', 'selec').startswith(f'{side.title}: query failed: ')
    # The connection goes on after an error, and the next server is asked.
    assert expand(m, f'${{lookup {k},servers={server_text(side, s)}{{select 7}}}}') == ['7']


def test_big_and_binary_answers(martlet, make, side):
    s = make(side.make)
    m = martlet(main=f'{side.kind}_servers = {server_text(side, s)}', daemon=False)
    k = side.kind
    assert m.expand(f'${{strlen:${{lookup {k}{{{side.big % BIG}}}}}}}') == str(BIG)
    assert m.expand(f'${{lookup {k}{{{side.many}}}}}').endswith(f'{side.title}: result too long"')
    assert m.expand(f'${{lookup {k}{{{side.binary}}}}}'.replace('\\', '\\\\')) == side.binary_value


def test_in_the_daemon(martlet, make, side):
    """A query that takes long holds up its own session only; servers come back; foreign text must be quoted."""
    s, stuck = make(side.make), make(side.make)
    k = side.kind
    m = martlet(main=f'{k}_servers = {server_text(side, s)}', allow_panic='not properly quoted', acl_rcpt=f'''
  defer local_parts = u5
        condition = ${{lookup {k},servers={server_text(side, stuck)}{{{side.sleep}}}}}
  accept local_parts = u6
        condition = ${{lookup {k}{{select id from users where id='$local_part'}}{{yes}}{{no}}}}
  accept condition = ${{lookup {k}{{select id from users where id='${{quote_{k}:$local_part}}'}}{{yes}}{{no}}}}
  deny  message = not in the database
''')
    expand(m, f'${{lookup {k}{{create table users (id varchar(20))}}}}', f"${{lookup {k}{{insert into users values ('u1'), ('u2')}}}}")
    with Client(m.port) as slow, Client(m.port) as c:
        slow.ehlo()
        slow.expect(250, 'MAIL FROM:<a@b.test>')
        slow.send(b'RCPT TO:<u5@local.test>\r\n')
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u1@local.test>')
        assert c.cmd("RCPT TO:<x'or'1'='1@local.test>") == (550, 'not in the database')
        assert c.cmd('RCPT TO:<u6@local.test>')[0] == 451
        s.stop(side.make.crash)
        assert c.cmd('RCPT TO:<u2@local.test>')[0] == 451
        s.start()
        c.expect(250, 'RCPT TO:<u2@local.test>')
        # In mid-query.
        stuck.stop(side.make.crash)
        assert slow.reply()[0] == 451
        c.expect(250, 'RCPT TO:<u2@local.test>')
    m.wait_log('tainted search query is not properly quoted')
