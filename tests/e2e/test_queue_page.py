"""`martlet queue`, the queue for people, and exim_lock."""
import fcntl
import json
import os
import pty
import re
import subprocess
import time

import pytest

from support.util import wait_for

pytestmark = pytest.mark.plain

HEADER = 'Subject: x\n\nx\n'


@pytest.fixture
def queued(martlet):
    m = martlet(daemon=False, relay_to='*', smarthost='"${if eq{$domain}{dead.test}{127.0.0.1::1}{127.0.0.1::2}}"')
    for n in range(3):
        m.run('-odq', '-f', f's{n}@b.test', f'r{n}@dead.test', input=HEADER)
    m.run('-odq', '-f', 'other@b.test', 'x@late.test', 'y@late.test', input=HEADER)
    m.run('-odi', '-f', 's9@b.test', 'r9@dead.test', input=HEADER)
    return m


def page(m, *args, **kw):
    """The words stand in front of -C."""
    done = subprocess.run(command(m, *args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=m.environment, **kw)
    return done.returncode, done.stdout


def command(m, *args):
    whole = m._command([])
    return [*whole, 'queue', '-C', m.conf, *args]


def test_groups(queued):
    status, out = page(queued)
    assert status == 0
    assert re.search(r'^dead\.test +3 +\d+m +\d+m +- +waiting$', out, re.M), out
    assert re.search(r'^dead\.test +1 +\d+m +\d+m +(in \d+s|next run) +Connection refused$', out, re.M), out
    assert re.search(r'^late\.test +1 +\d+m +\d+m +- +waiting$', out, re.M), out
    assert out.endswith('\n5 messages for 6 recipients, 0 frozen\n'), out
    assert '\033' not in out


def test_reason_of_a_host_that_has_a_name(martlet):
    m = martlet(daemon=False, smarthost='localhost::1', space='0')
    m.run('-odi', '-f', 's@b.test', 'r@relay.test', input=HEADER)
    status, out = page(m)
    assert status == 0 and re.search(r'^relay\.test +1 +\d+m +\d+m +(in \d+s|next run) +Connection refused$', out, re.M), out


def test_json(queued):
    page(queued, '--freeze', '--to', '@late.test')
    status, out = page(queued, '--json')
    assert status == 0
    got = json.loads(out)
    assert (got['messages'], got['recipients'], got['frozen']) == (5, 6, 1)
    late, = [g for g in got['groups'] if g['destination'] == 'late.test']
    assert late['reason'] == 'frozen' and late['recipients'] == 2 and late['next'] is None
    dead, = [g for g in got['groups'] if g['reason'] == 'Connection refused']
    assert dead['destination'] == 'dead.test' and dead['messages'] == 1 and abs(dead['next'] - time.time()) < 7200 and dead['oldest'] >= 0 and dead['bytes'] > 0


def test_selection_and_actions(queued):
    assert page(queued, '--freeze', '--to', '@dead.test') == (0, 'freezing: 4 messages\n')
    assert queued.run('-bp').count('*** frozen ***') == 4
    assert page(queued, '--frozen', '--from', 's1@', '--thaw') == (0, 'thawing: 1 message\n')
    assert page(queued, '--remove', '--frozen') == (0, 'removing: 3 messages\n')
    assert queued.log().count(' removed by ') == 3
    assert page(queued, '--older', '1h', '--remove') == (0, 'removing: 0 messages\n')
    assert len(queued.queue()) == 2
    status, out = page(queued, '--flush', '--all')
    assert (status, out) == (0, 'delivering: 2 messages\n')
    assert re.search(r'== x@late.test .*Connection refused', queued.log())


def test_nothing_is_done_to_all_by_accident(queued):
    for words in (['--remove'], ['--remove', '--flush', '--all'], ['--frozen', '--not-frozen'], ['--remove', '--all', '--json'], ['x'], ['--to']):
        status, out = page(queued, *words)
        assert status == 2 and 'Usage: martlet queue' in out
    assert len(queued.queue()) == 5


def test_colour_and_progress_on_a_terminal_only(queued):
    queued.run('-Mf', queued.run('-bpi').split()[0])
    for words, wanted in (([], '\033[36m'), (['--freeze', '--not-frozen'], 'freezing: 4 of 4 (100 %)')):
        ours, theirs = pty.openpty()
        done = subprocess.Popen(command(queued, *words), stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=queued.environment)
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
        assert done.wait(30) == 0 and wanted in out.decode(), out


def lock(m, *args, **kw):
    return subprocess.run([*m._command([]), 'exim_lock', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=m.environment, **kw)


@pytest.mark.parametrize('how', ['-lockfile', '-fcntl', '-flock', '-mbx'])
def test_exim_lock(martlet, how):
    m = martlet(daemon=False)
    box = m._own('boxes') + '/box'
    open(box, 'w').close()
    os.chmod(box, 0o666)
    held = f'{box}.held'
    # Held by one, wanted by another who gives up.
    with subprocess.Popen([*m._command([]), 'exim_lock', '-q', how, box, f': > {held}; read x'], stdin=subprocess.PIPE, env=m.environment) as first:
        wait_for(lambda: os.path.exists(held), 'the lock')
        assert os.path.exists(box + '.lock') == (how == '-lockfile')
        second = lock(m, how, '-retries', 1, '-interval', 0, box, 'echo inside')
        assert second.returncode == 1 and 'failed to lock' in second.stdout and 'inside' not in second.stdout
        first.communicate(b'\n')
    assert first.returncode == 0
    third = lock(m, '-q', how, box, 'echo inside; exit 3')
    assert (third.returncode, third.stdout) == (3, 'inside\n')
    assert os.listdir(os.path.dirname(box)) == ['box', 'box.held'] or sorted(os.listdir(os.path.dirname(box))) == ['box', 'box.held']


def test_exim_lock_keeps_times_and_says_what_it_does(martlet):
    m = martlet(daemon=False)
    box = m._own('boxes') + '/box'
    with open(box, 'w') as f:
        f.write('x')
    os.chmod(box, 0o666)
    if os.geteuid() == 0:
        os.chown(box, m.uid, m.gid)
    os.utime(box, (1, 2))
    done = lock(m, '-restore-times', box, f'cat {box}; echo y >> {box}')
    assert done.returncode == 0 and re.search(r'locked lockfile fcntl\nxexim_lock: .* unlocked\n', done.stdout), done.stdout
    assert os.stat(box).st_mtime == 2
    assert lock(m, '-x', box).returncode == 1 and 'Usage' in lock(m).stdout


def test_a_delivery_waits_for_exim_lock(martlet):
    m = martlet(daemon=False, routers='box:\n  driver = accept\n  domains = box.test\n  transport = box', relay_to='box.test',
                transports='box:\n  driver = appendfile\n  file = @DIR@/boxes/box\n  create_directory = false\n  lock_retries = 1\n  lock_interval = 0s\n')
    box = m._own('boxes') + '/box'
    done = lock(m, '-q', box, 'true')
    assert done.returncode == 1
    open(box, 'w').close()
    if os.geteuid() == 0:
        os.chown(box, m.uid, m.gid)
    os.chmod(box, 0o600)
    held = f'{box}.held'
    with subprocess.Popen([*m._command([]), 'exim_lock', '-q', box, f': > {held}; read x'], stdin=subprocess.PIPE, env=m.environment) as first:
        wait_for(lambda: os.path.exists(held), 'the lock')
        m.run('-odi', '-f', 's@b.test', 'a@box.test', input=HEADER)
        assert re.search(r'== a@box.test .*failed to lock', m.log()), m.logs()
        assert os.path.getsize(box) == 0
        first.communicate(b'\n')
    m.run('-qf')
    assert os.path.getsize(box) > 0, m.logs()
    with open(box) as f:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
