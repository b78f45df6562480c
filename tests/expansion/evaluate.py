"""Evaluates expansions with a program that has Exim's -be: many in one process, through its standard input."""
import os
import re
import shutil
import sqlite3
import struct
import subprocess

import corpus

FIXTURES = os.path.join(corpus.HERE, 'files')


def cdb(path, pairs):
    """D. J. Bernstein's constant database."""
    def digest(data):
        h = 5381
        for b in data:
            h = ((h * 33) & 0xffffffff) ^ b
        return h
    body, tables = bytearray(2048), [[] for _ in range(256)]
    for key, value in pairs:
        h = digest(key)
        tables[h & 255].append((h, len(body)))
        body += struct.pack('<II', len(key), len(value)) + key + value
    for n, entries in enumerate(tables):
        slots = [(0, 0)] * (2 * len(entries))
        struct.pack_into('<II', body, 8 * n, len(body), len(slots))
        for h, at in entries:
            i = (h >> 8) % len(slots)
            while slots[i][1]:
                i = (i + 1) % len(slots)
            slots[i] = (h, at)
        for slot in slots:
            body += struct.pack('<II', *slot)
    with open(path, 'wb') as f:
        f.write(body)


def prepare(directory):
    """Makes the files that the corpus reads, and the configuration."""
    directory = os.path.realpath(directory)
    shutil.copytree(FIXTURES, directory, dirs_exist_ok=True)
    for sub in ('spool', 'log'):
        os.makedirs(os.path.join(directory, sub), exist_ok=True)
        os.chmod(os.path.join(directory, sub), 0o777)
    with open(os.path.join(directory, 'lsearch')) as f:
        pairs = [line.split(':', 1) for line in f if re.match(r'[\w.*@-]+:', line)]
    cdb(os.path.join(directory, 'cdb'), [(k.lower().encode(), v.strip().encode()) for k, v in pairs])
    db = os.path.join(directory, 'sqlite')
    if os.path.exists(db):
        os.unlink(db)
    with sqlite3.connect(db) as connection:
        connection.executescript(open(os.path.join(directory, 'sqlite.sql')).read())
    connection.close()
    conf = os.path.join(directory, 'conf')
    with open(os.path.join(directory, 'conf.in')) as f:
        text = f.read()
    with open(conf, 'w') as f:
        f.write(f'CORPUS_DIR = {directory}\n' + text)
    with open(conf + '-perl', 'w') as f:
        f.write(f"CORPUS_DIR = {directory}\nperl_startup = do 'CORPUS_DIR/startup.pl'\n" + text)
    return directory


def command(program, directory, name):
    """The name of a corpus file says how its lines are evaluated: message… with a message, …perl with subroutines."""
    options = [program, '-C', os.path.join(directory, 'conf-perl' if name.endswith('perl') else 'conf')]
    if name.startswith('message'):
        options += ['-f', 'sender@from.test', '-bem', os.path.join(directory, 'message')]
    else:
        options += ['-be']
    return options


def settle(raw, directory):
    """Without what is this machine's."""
    raw = raw.replace(directory.encode(), b'CORPUS_DIR')
    return re.sub(rb' \(euid=\d+ egid=\d+\)', b' (euid=0 egid=0)', raw)


def evaluate(run, program, directory, name, expressions):
    """The results, escaped. run(command, input) -> standard output. A process that ends early costs one result."""
    results = []
    while len(results) < len(expressions):
        rest = expressions[len(results):]
        text = ''.join(f'{e}\n@@{n}@@\n' for n, e in enumerate(rest))
        out = run(command(program, directory, name), text.encode())
        at = 0
        for n in range(len(rest)):
            if not out.startswith(b'> ', at):
                break
            end = out.find(b'\n> @@%d@@\n' % n, at + 1)
            if end < 0:
                break
            results.append(corpus.escape(settle(out[at + 2:end], directory)))
            at = end + len(b'\n> @@%d@@\n' % n)
        else:
            return results
        results.append('(the program ended) ' + corpus.escape(out[at:at + 200]))
    return results


def plain_run(cmd, text):
    """Martlet: nothing in the corpus may end it, nor make a sanitizer speak."""
    env = {k: v for k, v in os.environ.items() if 'SAN_OPTIONS' in k or k == 'PATH'}
    done = subprocess.run(cmd, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, cwd='/',
                          env=dict(env, CORPUS_KEPT='kept value'))
    if done.returncode != 0 or b'Sanitizer' in done.stderr or b'runtime error' in done.stderr:
        raise RuntimeError(f'{cmd} ended with status {done.returncode}: {done.stderr[-4000:].decode(errors="replace")}')
    return done.stdout


class Peer:
    """Debian's Exim, unpacked by scripts/peers.sh, in a place of its own. Needs root."""

    def __init__(self, peers, directory):
        from support.place import Place
        self.place = Place(directory, [os.path.join(peers, 'exim')], ['Debian-exim'])
        self.place.start()

    def run(self, cmd, text):
        return subprocess.run(self.place.command(['env', '-i', 'PATH=/usr/bin:/bin', 'CORPUS_KEPT=kept value', *cmd]),
                              input=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=300, cwd='/').stdout

    def stop(self):
        self.place.stop()
