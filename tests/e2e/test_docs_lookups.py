"""The examples of docs/lookups.md: files, commands, configurations and sessions, as they stand there.

Blocks: `file NAME` is a file in /etc/mail; `sh` commands; `config SERVER` main options; `session [SERVER]` what -be is asked, behind
`> `, and answers. /etc/mail is a directory of the test, and the servers have ports of their own."""
import os
import re
import shutil
import subprocess

import pytest

from support.databases import MariaDB, Postgres, Redis, Slapd
from support.martlet import TOP
from support.util import read, write

from test_lookup_damaged import make_cdb

pytestmark = pytest.mark.plain
DOCUMENT = os.path.join(TOP, 'docs', 'lookups.md')
SERVERS = {'redis': (Redis, '6379'), 'pgsql': (Postgres, '5432'), 'mysql': (MariaDB, '3306'), 'ldap': (Slapd, '389')}


def blocks():
    return re.findall(r'^```(\w+) ?(.*)\n((?:.*\n)*?)```$', read(DOCUMENT), re.M)


def sessions(server):
    """[(questions, answers)], an answer may have several lines."""
    found = []
    for kind, name, text in blocks():
        if kind == 'session' and name == server:
            parts = re.split(r'^> ', text, flags=re.M)
            assert parts[0] == ''
            found.append([tuple(p[:-1].split('\n', 1)) for p in parts[1:]])
    assert found, server
    return found


def config(server):
    return ''.join(text for kind, name, text in blocks() if kind == 'config' and name == server)


def check(m, server, change=lambda text: text):
    for session in sessions(server):
        got = m.run('-be', *(change(question) for question, _ in session), err=False)
        want = ''.join(change(answer) + '\n' for _, answer in session)
        assert got == want


def test_all_blocks_are_known():
    kinds = {(kind, name if kind != 'file' else '') for kind, name, _ in blocks()}
    assert kinds <= {('file', ''), ('sh', ''), ('session', ''), ('session', 'dnsdb')} | {
        (kind, name) for name in SERVERS for kind in ('config', 'session')}


@pytest.mark.skipif(not all(map(shutil.which, ('mdb_load', 'sqlite3'))), reason='the tools for the files are not installed')
def test_files(martlet, scratch):
    place = f'{scratch}/mail'
    os.mkdir(place)
    os.chmod(place, 0o755)
    m = martlet(daemon=False)
    os.symlink(m.binary, f'{scratch}/martlet')

    def change(text):
        return text.replace('/etc/mail', place)
    make_cdb(f'{place}/users.cdb', [('fred', 'Fred Flint')])
    for kind, name, text in blocks():
        if kind == 'file':
            write(f'{place}/{name}', text)
        elif kind == 'sh':
            subprocess.run(['bash', '-e', '-c', change(text)], check=True, env=dict(os.environ, PATH=f'{scratch}:{os.environ["PATH"]}'))
    for name in os.listdir(place):
        os.chmod(f'{place}/{name}', 0o644)
    check(m, '', change)


@pytest.mark.parametrize('server', SERVERS)
def test_server(martlet, make, server):
    kind, port = SERVERS[server]
    if kind.program is None or (kind is Slapd and not os.path.exists('/etc/ldap/schema/core.schema')):
        pytest.skip('no such server is installed')
    s = make(kind)
    change = lambda text: re.sub(rf'(127\.0\.0\.1::?){port}\b', rf'\g<1>{s.port}', text)  # noqa: E731
    check(martlet(daemon=False, main=change(config(server))), server, change)


@pytest.mark.root
def test_dns(martlet, nameserver):
    nameserver.add('example.org', 'MX', (10, 'mx1.example.org'), (20, 'mx2.example.org')).add('example.org', 'TXT', 'hello')
    check(martlet(daemon=False, resolver=nameserver.address), 'dnsdb')
