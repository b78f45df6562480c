"""lmdb lookups: what is wrong with a file, keys and data of all kinds, and many processes at once."""
import os
import random
import re
import shutil
import subprocess

import pytest

from support.smtp import Client
from support.util import write
from test_lookup_files import load

pytestmark = [pytest.mark.plain, pytest.mark.skipif(shutil.which('mdb_load') is None, reason='mdb_load is not installed')]


def expand(m, *lines):
    return m.run('-be', *lines, err=False).split('\n')[:-1]


def look(path, key, kind='lmdb', rest='{<$value>}{none}'):
    return '${lookup{%s}%s{%s}%s}' % (key, kind, path, rest)


def test_bad_files(martlet, scratch):
    good = f'{scratch}/good.mdb'
    load('mdb_load', good, [(f'k{i:04}', 'v' * 100) for i in range(2000)], '-n')
    with open(good, 'rb') as f:
        data = f.read()
    paths = [f'{scratch}/missing', write(f'{scratch}/empty', b''), write(f'{scratch}/noise', random.Random(3).randbytes(1 << 20)),
             write(f'{scratch}/half', data[:len(data) // 2]), write(f'{scratch}/short', data[:5000]),
             write(f'{scratch}/private', data, 0o600), f'{scratch}/directory', 'relative.mdb']
    os.mkdir(f'{scratch}/directory')
    m = martlet(daemon=False)
    got = expand(m, *(look(p, 'k1999') for p in paths), look(good, 'k1999'))
    for path, line in zip(paths, got):
        if path.endswith('/private') and os.geteuid() != 0:
            continue
        assert re.match('Failed: .*(LMDB|not absolute)', line), (path, line)
    assert got[-1] == f'<{"v" * 100}>'


def test_tainted_name(martlet, scratch):
    load('mdb_load', f'{scratch}/u1', [('k', 'yes')], '-n')
    m = martlet(allow_panic='Tainted', acl_rcpt='  accept condition = ${lookup{k}lmdb{%s/$local_part}}\n' % scratch)
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(451, 'RCPT TO:<u1@local.test>')
    m.wait_log("Tainted filename for search: '%s/u1'" % scratch)


def test_keys_and_data(martlet, scratch):
    path = f'{scratch}/all.mdb'
    longest = 'k' * 511
    load('mdb_load', path, [('Case', 'kept'), ('a\\00b', 'with NUL'), (longest, 'longest'), ('lines', 'one\\0atwo'), ('nul', 'x\\00y'),
                            ('empty', ''), ('big', 'z' * 100000), ('*.wild.test', 'wild'), ('*@at.test', 'star at'), ('*', 'star')], '-n')
    m = martlet(daemon=False)
    # What stands for the octet of value 0 in data is a choice of ours; the length is right in any case.
    got = expand(m, look(path, 'Case'), look(path, 'case'), look(path, longest), look(path, longest + 'k'), look(path, 'k' * 5000),
                 look(path, ''), look(path, 'a\\x00b'), look(path, 'lines', rest='{${sg{$value}{\\n}{|}}}'),
                 look(path, 'nul', rest='{${strlen:$value}}'), look(path, 'empty'), look(path, 'big', rest='{${strlen:$value}}'),
                 look(path, 'a.wild.test', 'partial-lmdb'), look(path, 'x@at.test', 'lmdb*@'), look(path, 'x@y', 'lmdb*@'),
                 look(path, 'x', 'lmdb*'), look(path, 'Case', 'lmdb,ret=key'))
    assert got == ['<kept>', 'none', '<longest>', 'none', 'none', 'none', '<with NUL>', 'one|two', '3', '<>', '100000',
                   '<wild>', '<star at>', '<star>', '<star>', '<Case>']


def test_many_deliveries(martlet, scratch):
    """Readers leave nothing behind in the lock file of those who write."""
    path = f'{scratch}/users.mdb'
    load('mdb_load', path, [(f'u{i}', 'here') for i in range(10)], '-n')
    lock = path + '-lock'
    if os.path.exists(lock):
        os.chmod(lock, 0o666)
    m = martlet(main='smtp_accept_queue_per_connection = 0', arguments=[], routers='look:\n  driver = redirect\n  data = ${if eq{${lookup{$local_part}lmdb{%s}}}{here}{}{:fail: none}}\n' % path)
    with Client(m.port) as c:
        c.ehlo()
        for i in range(200):
            c.mail(f's{i}@b.test', f'u{i % 10}@local.test', hello=False)
    for i in range(10):
        m.wait_mail(f'u{i}', 20)
    m.wait_empty()
    done = subprocess.run(['mdb_stat', '-n', '-rr', path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert b'(no active readers)' in done.stdout, done.stdout
    load('mdb_load', path, [('u0', 'gone')], '-n')
    assert expand(m, look(path, 'u0')) == ['<gone>']
