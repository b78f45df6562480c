"""Tools that look at what a daemon does, and change what it remembers."""
import fcntl
import os
import re
import subprocess
import threading

import pytest

from support.martlet import binary
from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.plain


def named(m, name, *args, check=True, **kw):
    """The tool under a link of its name, as the daemon's user."""
    path = os.path.join(m.directory, name)
    if not os.path.exists(path):
        os.symlink(binary(), path)
    command = m._command([], None)
    command[command.index(m.binary)] = path
    done = subprocess.run(command + list(args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, cwd='/', env=m.environment, **kw)
    if check:
        assert done.returncode == 0, done.stdout
    return done.stdout.decode()


def test_exiwhat(martlet, smtp_server):
    go_on = threading.Event()
    hop = smtp_server({'CONNECT': lambda line, session: None if go_on.wait(120) else 'DROP'})
    m = martlet(smarthost=f'127.0.0.1::{hop.port}', main='worker_processes = 2')
    try:
        with Client(m.port) as c:
            c.ehlo()
            assert c.mail('s@b.test', 'a@relay.test', data='Subject: x\r\n\r\nx\r\n', hello=False)[0] == 250
            wait_for(lambda: hop.sessions, lambda: 'the delivery to begin' + m.logs())
            lines = named(m, 'exiwhat', '-C', m.conf).splitlines()
            assert re.match(rf'{m.master} daemon\(\S+\): -q30m, listening for SMTP on ', lines[0]), lines
            workers = [line for line in lines if re.search(r' worker \d: ', line)]
            assert {w.split()[0] for w in workers} <= {str(p) for p in m.workers()} and len(workers) == 2, lines
            assert [w for w in workers if re.search(r': 1 sessions, 1 deliveries', w)], lines
            port = c.sock.getsockname()[1]
            assert [x for x in lines if re.fullmatch(rf'\d+ handling incoming connection from \[127\.0\.0\.1\]:{port} for \d+s', x)], lines
            ident = re.search(r'(\S+) <= s@b.test', m.log())[1]
            assert [x for x in lines if re.fullmatch(rf'\d+ delivering {ident} to 127\.0\.0\.1 \[127\.0\.0\.1\] \(a@relay\.test\) for \d+s', x)], lines
    finally:
        go_on.set()
    wait_for(lambda: hop.messages, lambda: 'the message to go' + m.logs())
    m.wait_empty()
    wait_for(lambda: 'delivering' not in named(m, 'exiwhat', '-C', m.conf), lambda: 'nothing to do any more' + m.logs())


def test_exiwhat_without_a_daemon(martlet):
    m = martlet(daemon=False)
    assert re.fullmatch(r'exiwhat: no daemon at \S+/spool/exim_daemon_notify: .*\n', named(m, 'exiwhat', '-C', m.conf, check=False))


def test_exim_fixdb(martlet):
    m = martlet(arguments=[], smarthost='127.0.0.1::1', retry='* * F,1d,15m')
    with Client(m.port) as c:
        c.mail('ann@x.test', 'a@relay.test', data='Subject: x\r\n\r\nx\r\n')
    m.wait_log('== a@relay.test')
    spool = os.path.join(m.directory, 'spool')
    key = 'T:[127.0.0.1]:127.0.0.1:1'
    wait_for(lambda: key in named(m, 'exim_dumpdb', '-k', spool, 'retry'), lambda: 'the record' + m.logs())
    out = named(m, 'exim_fixdb', spool, 'retry', input=f'{key}\n4 301231:0102\n5 yes\n9 1\n4 tomorrow\n'.encode())
    assert re.match(r'Modifying Exim hints database \S+\n> 0 error number: 111 Connection refused\n1 extra data:   65\n2 first failed: ', out.replace(spool + '/db/', '')), out
    assert '4 next try:     31-Dec-2030 01:02:00' in out and '5 expired:      yes' in out and 'unknown field number' in out and 'bad value' in out
    assert re.search(r'31-Dec-2030 01:02:00 \*', named(m, 'exim_dumpdb', spool, 'retry'))
    out = named(m, 'exim_fixdb', spool, 'retry', input=f'{key}\nd\n{key}\n\n'.encode())
    assert 'deleted\n' in out and f'record {key} not found' in out and 'No previous record name is set' in out
    assert key not in named(m, 'exim_dumpdb', spool, 'retry')


def test_hints_tools_as_first_word(martlet):
    """`martlet exim_dumpdb …`, as under a link of that name."""
    m = martlet(daemon=False)
    spool = os.path.join(m.directory, 'spool')
    command = m._command([])
    ours = lambda *args: subprocess.run([*command, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, cwd='/',
                                        stdin=subprocess.DEVNULL, env=m.environment)
    m.run('-f', 's@b.test', 'a@relay.test', input='Subject: x\n\nx\n')
    wait_for(lambda: 'T:[127.0.0.1]' in ours('exim_dumpdb', spool, 'retry').stdout, lambda: 'the record' + m.logs())
    assert re.fullmatch(r'Modifying Exim hints database \S+/spool/db/retry\n> \n', ours('exim_fixdb', spool, 'retry').stdout)
    assert ours('exim_tidydb', '-t', '1d', spool, 'retry').returncode == 0
    assert re.match(r'\d\d-\w{3}-\d{4} ', ours('exim_msgdate', m.queue()[0]).stdout)
    assert ours('exim_dumpdb', spool).stdout.startswith('usage: exim_dumpdb <spool-directory>')


def test_exim_id_update(martlet):
    """To ids of Exim 4.96 and back, journal and log with them; a message that somebody works on stays."""
    m = martlet(daemon=False, smarthost='127.0.0.1::1')
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', 'b@relay.test', input='Subject: x\n\nbody\n')
    (first,) = m.queue()
    m.run('-odq', '-f', 's@b.test', 'c@relay.test', input='Subject: x\n\nother\n')
    spool, ids = m.outside('spool'), m.queue()
    n = ids.index(first)
    with open(f'{spool}/input/{first}-J', 'w') as f:
        f.write('b@relay.test\n')
    bodies = [m.run('-Mvb', i).split('\n', 1)[1] for i in ids]
    assert named(m, 'exim_id_update', '-d', spool) == ''
    old = m.queue()
    assert all(re.fullmatch(r'\w{6}-\w{6}-\w{2}', i) for i in old) and len(old) == 2, old
    assert [m.run('-Mvb', i).split('\n', 1)[1] for i in old] == bodies
    assert m.run('-Mvh', old[n]).startswith(old[n] + '-H\n') and m.run('-Mvb', old[n]).startswith(old[n] + '-D\n')
    assert sorted(os.listdir(f'{spool}/input')) == sorted([f'{i}-{w}' for i in old for w in 'DH'] + [f'{old[n]}-J'])
    assert sorted(os.listdir(f'{spool}/msglog')) == old
    listing = m.run('-bp')
    assert 'D b@relay.test' in listing and listing.count('@relay.test\n') == 3, listing
    with open(f'{spool}/input/{old[1 - n]}-D', 'r+b') as f:
        fcntl.lockf(f, fcntl.LOCK_EX, 1)
        assert named(m, 'exim_id_update', '-u', spool, check=False) == f'exim_id_update: {old[1 - n]}: Device or resource busy\n'
    assert named(m, 'exim_id_update', '-u', spool) == ''
    again = m.queue()
    assert all(re.fullmatch(r'\w{6}-\w{11}-\w{4}', i) for i in again) and [m.run('-Mvb', i).split('\n', 1)[1] for i in again] == bodies
    assert [i[:19] for i in again] == [i[:19] for i in ids]
