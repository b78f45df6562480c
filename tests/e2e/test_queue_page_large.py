"""`martlet queue` over a named queue, and over very many messages."""
import os
import pty
import re
import subprocess

import pytest

pytestmark = pytest.mark.plain

HEADER = 'Subject: x\n\nx\n'
DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'


def command(m, *args):
    return [*m._command([]), 'queue', '-C', m.conf, *args]


def page(m, *args):
    done = subprocess.run(command(m, *args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=m.environment, cwd='/')
    return done.returncode, done.stdout


def on_terminal(m, *args):
    """Exit status and all that a terminal gets."""
    ours, theirs = pty.openpty()
    p = subprocess.Popen(command(m, *args), stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=m.environment, cwd='/')
    os.close(theirs)
    out = b''
    while True:
        try:
            got = os.read(ours, 65536)
        except OSError:
            break
        if not got:
            break
        out += got
    os.close(ours)
    return p.wait(60), out.decode()


def copies(m, n):
    """n copies, under ids of their own, of the only message that there is."""
    directory = m.outside('spool/input')
    first, = m.queue()
    text = {}
    for which in 'DH':
        path = f'{directory}/{first}-{which}'
        with open(path) as f:
            text[which] = f.read()
        os.unlink(path)
    for i in range(n):
        ident = first[:6] + '-' + ''.join(DIGITS[i // 62 ** k % 62] for k in range(10, -1, -1)) + '-' + first[-4:]
        for which in 'DH':
            fd = os.open(f'{directory}/{ident}-{which}', os.O_WRONLY | os.O_CREAT, 0o640)
            os.write(fd, text[which].replace(first, ident).encode())
            if os.geteuid() == 0:
                os.fchown(fd, m.uid, m.gid)
            os.close(fd)


def test_many_are_removed_with_a_progress_line(martlet):
    m = martlet(daemon=False)
    m.run('-odq', '-f', 's@b.test', 'r@dead.test', input=HEADER)
    copies(m, 1200)
    status, out = page(m)
    assert status == 0 and out.endswith('\n1200 messages for 1200 recipients, 0 frozen\n'), out
    status, out = on_terminal(m, '--all', '--freeze')
    shown = [int(n) for n in re.findall(r'\rfreezing: (\d+) of 1200 \(', out)]
    assert status == 0 and shown == list(range(100, 1201, 100)), out
    assert out.endswith('freezing: 1200 messages\r\n'), out
    status, out = on_terminal(m, '--frozen', '--remove')
    assert status == 0 and '\rremoving: 1200 of 1200 (100 %)' in out, out
    assert m.queue() == [] and m.log().count('removed by') == 1200


def test_named_queue(martlet):
    m = martlet(daemon=False, smarthost='127.0.0.1::1')
    for n in range(2):
        m.run('-odq', '-f', 'slow@b.test', f'r{n}@relay.test', input=HEADER)
    m.run('-MG', 'slow', *m.queue())
    m.run('-odq', '-f', 's@b.test', 'r@relay.test', input=HEADER)
    assert page(m)[1].endswith('\n1 message for 1 recipient, 0 frozen\n')
    assert page(m, '--queue', 'slow')[1].endswith('\n2 messages for 2 recipients, 0 frozen\n')
    assert page(m, '--queue', 'slow', '--to', 'r1@', '--remove') == (0, 'removing: 1 message\n')
    assert page(m, '--queue', 'slow', '--all', '--flush') == (0, 'delivering: 1 message\n')
    assert re.search(r'== r0@relay.test .*Connection refused', m.log()), m.log()
    assert page(m)[1].endswith('\n1 message for 1 recipient, 0 frozen\n')
    assert page(m, '--queue', 'slow', '--json')[1].startswith('{"messages": 1, ')
