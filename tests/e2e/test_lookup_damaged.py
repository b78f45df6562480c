"""Lookup files that are damaged, or shrink while they are open: an error, or what is still there; never the end of a process."""
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess

import pytest

from support.util import write

pytestmark = pytest.mark.plain
PAIRS = [(f'k{i}', f'v{i}') for i in range(300)]
ROUNDS = 40


def load(program, path, kind, *options):
    if shutil.which(program) is None:
        pytest.skip(f'{program} is not installed')
    text = f'VERSION=3\nformat=print\ntype={kind}\nHEADER=END\n' + ''.join(f' {k}\n {v}\n' for k, v in sorted(PAIRS)) + 'DATA=END\n'
    subprocess.run([program, *options, path], input=text.encode(), check=True)


def make_cdb(path, pairs=PAIRS):
    def digest(key):
        x = 5381
        for c in key:
            x = ((x << 5) + x ^ c) & 0xffffffff
        return x
    body, at, tables = b'', 2048, [[] for _ in range(256)]
    for k, v in pairs:
        k, v = k.encode(), v.encode()
        tables[digest(k) & 255].append((digest(k), at))
        body += struct.pack('<II', len(k), len(v)) + k + v
        at = 2048 + len(body)
    head = tail = b''
    for t in tables:
        n = len(t) * 2
        head += struct.pack('<II', at + len(tail), n)
        slots = [(0, 0)] * n
        for x, where in t:
            i = (x >> 8) % n
            while slots[i][1]:
                i = (i + 1) % n
            slots[i] = (x, where)
        tail += b''.join(struct.pack('<II', *s) for s in slots)
    write(path, head + body + tail)


def make_sqlite(path):
    c = sqlite3.connect(path)
    c.execute('create table t(k text primary key, v text)')
    c.executemany('insert into t values (?, ?)', PAIRS)
    c.commit()
    c.close()


# How a file is made, and how `k7` is looked up in it.
FILES = {
    'cdb': make_cdb,
    'btree': lambda path: load('db_load', path, 'btree'),
    'hash': lambda path: load('db_load', path, 'hash'),
    'lmdb': lambda path: load('mdb_load', path, 'btree', '-n'),
    'json': lambda path: write(path, json.dumps(dict(PAIRS))),
    'sqlite': make_sqlite,
    'lsearch': lambda path: write(path, ''.join(f'{k}: {v}\n' for k, v in PAIRS)),
}


def query(kind, path):
    if kind == 'sqlite':
        return f"${{lookup sqlite,cache=no,file={path}{{select v from t where k='k7'}}{{found $value}}{{none}}}}"
    kind = 'dbmnz' if kind in ('btree', 'hash') else kind
    return f'${{lookup{{k7}}{kind},cache=no{{{path}}}{{found $value}}{{none}}}}'


def damage(r, data):
    x = bytearray(data)
    how = r.randrange(6)
    if how == 0:
        return bytes(x[:r.randrange(len(x))])
    if how == 1:
        return r.randbytes(r.randrange(5000))
    if how == 2:
        at = r.randrange(len(x))
        x[at:] = r.randbytes(len(x) - at)
    for _ in range(r.randrange(1, 20)):
        at = r.randrange(min(512, len(x))) if how == 3 else r.randrange(len(x))
        piece = r.choice([b'\xff' * 4, b'\0' * 4, b'\x7f\xff\xff\xff', b'\xff\xff\xff\x7f', b'\x01', b'\xfe'])
        x[at:at + len(piece)] = piece
    return bytes(x)


@pytest.mark.parametrize('kind', FILES)
def test_damaged(martlet, scratch, kind):
    original = f'{scratch}/original'
    FILES[kind](original)
    with open(original, 'rb') as f:
        data = f.read()
    r = random.Random(kind)
    paths = [write(f'{scratch}/bad{i}', damage(r, data)) for i in range(ROUNDS)]
    paths += [write(f'{scratch}/empty', b''), write(f'{scratch}/noise', random.Random(1).randbytes(100000))]
    os.chmod(original, 0o644)
    # Berkeley DB itself errs over such files; it runs in a process of its own for that reason.
    m = martlet(daemon=False, allow_sanitizer='libdb-5')
    out = m.run('-be', *(query(kind, p) for p in paths + [original]), err=False)
    lines = out.rstrip('\n').split('\n')
    assert lines[-1] == 'found v7'
    if kind == 'lsearch':
        return  # any bytes are lines
    assert len(lines) == len(paths) + 1
    for path, line in zip(paths, lines):
        assert line.startswith(('found ', 'Failed: ')) or line == 'none', path
    # An empty file is a SQLite database without tables, and noise is none of these.
    assert lines[-2].startswith('Failed: ') and lines[-3].startswith(('Failed: ', 'none')), lines[-3:]


@pytest.mark.parametrize('kind', FILES)
def test_shrinks(martlet, scratch, kind):
    """The same process asks before, and after the file lost its end, all of it, and got it back."""
    path = f'{scratch}/file'
    FILES[kind](path)
    os.chmod(path, 0o666)
    with open(path, 'rb') as f:
        data = f.read()
    m = martlet(daemon=False)
    size = len(data)
    steps = [size // 2, 4096, 100, 0]
    lines = [query(kind, path)]
    for n in steps:
        lines += [f'${{run{{/usr/bin/truncate -s {n} {path}}}}}', query(kind, path)]
    write(f'{scratch}/whole', data)
    lines += [f'${{run{{/bin/cp {scratch}/whole {path}}}}}', query(kind, path)]
    out = m.run('-be', *lines, err=False).rstrip('\n').split('\n')
    assert len(out) == len(lines) and out[0] == 'found v7', out
    # SQLite believes that nobody but itself writes to its files.
    assert kind == 'sqlite' or out[-1] == 'found v7', out
    for line in out[2:-1:2]:
        assert line.startswith(('found v', 'Failed: ')) or line == 'none', out
