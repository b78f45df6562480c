"""Lookups in files that other programs write: LMDB, Berkeley DB, JSON, the public suffix list; while a daemon runs."""
import json
import os
import shutil
import subprocess

import pytest

from support.smtp import Client
from support.util import write

pytestmark = pytest.mark.plain
KEYS = 100000


def load(program, path, pairs, *options):
    """A dump as mdb_load and db_load read it."""
    lines = ['VERSION=3', 'format=print', 'type=btree'] + (['mapsize=67108864'] if 'mdb' in program else []) + ['HEADER=END']
    for k, v in pairs:
        lines += [f' {k}', f' {v}']
    lines += ['DATA=END', '']
    subprocess.run([program, *options, path], input='\n'.join(lines).encode(), check=True, stdout=subprocess.PIPE)
    os.chmod(path, 0o644)


@pytest.mark.skipif(shutil.which('mdb_load') is None, reason='mdb_load is not installed')
def test_lmdb(martlet, scratch):
    path = f'{scratch}/big.mdb'
    load('mdb_load', path, [(f'key{i:06}', f'value {i}') for i in range(KEYS)] + [('*.parent.test', 'below')], '-n')
    m = martlet(daemon=False)
    text = ''.join('${lookup{%s}lmdb{%s}{$value}{none}}\n\n' % (k, path)
                   for i in range(0, KEYS, 97) for k in (f'key{i:06}', f'absent{i}'))
    out = m.run('-be', input=text, err=False).split('\n')
    got = [line[2:] for line in out if line.startswith('> ') and len(line) > 2]
    assert got == [x for i in range(0, KEYS, 97) for x in (f'value {i}', 'none')]
    assert m.expand('${lookup{a.b.parent.test}partial-lmdb{%s}}' % path) == 'below'


@pytest.mark.skipif(shutil.which('mdb_load') is None, reason='mdb_load is not installed')
def test_lmdb_that_changes(martlet, scratch):
    """A writer replaces values while the daemon has the file open."""
    path = f'{scratch}/users.mdb'
    load('mdb_load', path, [('u1', 'yes')], '-n')
    m = martlet(acl_rcpt=f'  accept condition = ${{lookup{{$local_part}}lmdb{{{path}}}{{$value}}{{no}}}}\n  deny message = not there')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
        assert c.mail('a@b.test', 'u2@local.test', hello=False)[0] == 550
        load('mdb_load', path, [('u1', 'no'), ('u2', 'yes')], '-n')
        c.expect(250, 'RSET')
        assert c.mail('a@b.test', 'u2@local.test', hello=False)[0] == 250
        assert c.mail('a@b.test', 'u1@local.test', hello=False)[0] == 550


@pytest.mark.skipif(shutil.which('db_load') is None, reason='db_load is not installed')
def test_dbm(martlet, scratch):
    path = f'{scratch}/a.db'
    load('db_load', path, [('bare', 'without zero'), ('whole\\00', 'with zero\\00'), ('u\\00r\\00p', 'joined')])
    m = martlet(daemon=False)
    out = m.run('-be', *('${lookup{%s}%s{%s}{$value}{none}}' % (k, t, path) for k, t in (
        ('bare', 'dbm'), ('bare', 'dbmnz'), ('whole', 'dbm'), ('whole', 'dbmnz'), ('u:r:p', 'dbmjz'), ('x', 'dbm*'))), err=False)
    assert out.split('\n')[:-1] == ['none', 'without zero', 'with zero', 'none', 'joined', 'none']


def test_json_and_suffixes(martlet, scratch):
    tree = {'mail': {'hosts': ['a.test', {'name': 'b.test', 'port': 25}], 'open': True}, 'text': 'say "\u00e9"\n'}
    path = write(f'{scratch}/a.json', json.dumps(tree))
    psl = write(f'{scratch}/psl.dat', 'com\nuk\nco.uk\n*.ck\n!www.ck\n')
    m = martlet(daemon=False)
    out = m.run('-be', *('${lookup{%s}json{%s}{$value}{none}}' % (k, path) for k in (
        'mail:hosts:0', 'mail:hosts:1:port', 'mail:open', 'mail:hosts:1', 'mail:hosts:2', 'text:x')),
        *('${lookup{%s}%s{%s}{$value}{none}}' % (k, t, psl) for k, t in (
            ('a.b.co.uk', 'regdom'), ('a.b.co.uk', 'psl'), ('co.uk', 'regdom'), ('A.B.ck', 'psl'), ('www.ck', 'regdom'))), err=False)
    assert out.split('\n')[:-1] == ['a.test', '25', 'true', '{"name": "b.test", "port": 25}', 'none', 'none',
                                    'b.co.uk', 'co.uk', 'none', 'b.ck', 'www.ck']


def test_dbmbuild(martlet, scratch):
    """Files for dbm, made by our own tool."""
    m = martlet(daemon=False)
    source = write(f'{scratch}/aliases', '# comment\nFred: one,\n  two  \n\n"a: b" : three\nfred: again\n*@x: star\n')
    made = f'{scratch}/aliases.db'

    def build(*options):
        done = subprocess.run([m.binary, '--dbmbuild', *options, source, made], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if os.path.exists(made):
            os.chmod(made, 0o644)
        return done.returncode, done.stdout.decode()

    def look(kind, *keys):
        return m.run('-be', *('${lookup{%s}%s{%s}{<$value>}{none}}' % (k, kind, made) for k in keys), err=False).split('\n')[:-1]
    code, out = build()
    assert code == 1 and sorted(out.rstrip('\n').split('\n')) == ['** Duplicate key "fred"', '1 duplicate key ', '3 entries written']
    assert look('dbm', 'fred', 'Fred', 'a: b', '*@x') == ['<one, two>', 'none', '<three>', '<star>']
    assert look('dbmnz', 'fred') == ['none']
    assert build('-nolc', '-nozero') == (0, '4 entries written\n')
    assert look('dbmnz', 'fred', 'Fred') == ['<again>', '<one, two>']
    assert build('-lastdup', '-noduperr', '-nowarn')[0] == 0
    assert look('dbm', 'fred') == ['<again>']
    assert sorted(m.run('--dumpdb', '-L', made).split('\n')) == ['', '*@x\tstar', 'a: b\tthree', 'fred\tagain']
    assert build('-nothing')[0] == 2
    write(source, 'k: ' + 'x' * 20000 + '\n')
    assert build() == (2, 'Overlong line read: max permitted length is 19999\ndbmbuild abandoned\n')
    assert look('dbm', 'fred') == ['<again>'] and not [n for n in os.listdir(scratch) if 'temp' in n]
