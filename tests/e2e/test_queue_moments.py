"""Commands that come right behind the answer to a message's last dot, when it has no files yet; and what a named queue's messages give
rise to stays in that queue."""
import os
import re
import signal
import threading

import pytest

from support import procs
from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.plain

# In ACL: what is to wait, and where.
WAITS = '''
  warn   senders = *@waits.test : *@frozen.test
         control = queue_only
  warn   senders = *@frozen.test
         control = freeze
  warn   sender_domains = named.test
         queue = own
  accept
'''


@pytest.fixture
def busy(smtp_server, martlet):
    """A daemon whose next hop does not say anything until the test is over: what it takes is being delivered."""
    over = threading.Event()
    hop = smtp_server({'CONNECT': lambda line, session: over.wait(280) and None})
    m = martlet(smarthost='127.0.0.1', client=f'port = {hop.port}', arguments=[], acl_rcpt=WAITS, main='worker_deliveries = 1000')
    yield m
    over.set()


@pytest.fixture
def quiet(martlet, smtp_server):
    hop = smtp_server()
    return martlet(smarthost='127.0.0.1', client=f'port = {hop.port}', arguments=[], acl_rcpt=WAITS)


def send(m, client, sender, rcpt='a@relay.test'):
    """The id of a message that has just been taken."""
    code, text = client.mail(sender, rcpt, data='Subject: here\r\n\r\nbody here\r\n', hello=not getattr(client, 'greeted', False))
    assert code == 250, text
    client.greeted = True
    return re.search('id=(.*)', text)[1]


def test_shown_while_it_is_being_delivered(busy):
    m = busy
    with Client(m.port) as c:
        for what, text in (('-Mvh', 'Subject: here'), ('-Mvb', 'body here'), ('-Mvc', 'Subject: here\n\nbody here')):
            ident = send(m, c, 's@b.test')
            assert text in m.run(what, ident), m.logs()
        ident = send(m, c, 's@b.test')
        assert re.search(rf'{ident} <s@b\.test>\n +a@relay\.test\n', m.run('-bp'))
        ident = send(m, c, 's@b.test')
        assert m.run('-bpc').strip() == '5', m.logs()
        ident = send(m, c, 's@b.test')
        assert ident in m.run('-bpi')
        for command in ('-Mrm', '-Mf', '-Mar'):
            ident = send(m, c, 's@b.test')
            done = m.run(command, ident, *(['b@relay.test'] if command == '-Mar' else []), check=False)
            assert done.returncode == 1 and done.stdout == f'Message {ident} is locked\n', done.stdout
        ident = send(m, c, 's@b.test')
        m.run('-M', ident)
        assert re.search(rf'{ident} Spool file for {ident} is locked', m.log()), m.logs()
        assert m.log().count(' is locked (another process') == 4


def test_named_queue_is_shown_while_it_is_being_delivered(busy):
    with Client(busy.port) as c:
        ident = send(busy, c, 's@named.test')
        assert ident in busy.run('-bp', '-qGown') and ident not in busy.run('-bp')
        ident = send(busy, c, 's@named.test')
        assert 'Subject: here' in busy.run('-qGown', '-Mvh', ident)


ACTIONS = [('-Mvh', [], 'Subject: here'), ('-Mvl', [], 'Received from s@waits.test'), ('-Mf', [], 'is now frozen'),
           ('-Mrm', [], 'has been removed'), ('-Mmad', [], 'has been modified'), ('-Mar', ['u1@local.test'], 'has been modified'),
           ('-Mmd', ['a@relay.test'], 'has been modified'), ('-Mes', ['x@b.test'], 'has been modified')]


@pytest.mark.parametrize('action, more, answer', ACTIONS, ids=[a[0][1:] for a in ACTIONS])
def test_changed_right_behind_the_answer(quiet, action, more, answer):
    m = quiet
    with Client(m.port) as c:
        for _ in range(5):
            ident = send(m, c, 's@waits.test')
            assert answer in m.run(action, ident, *more), m.logs()


def test_thawed_right_behind_the_answer(quiet):
    m = quiet
    with Client(m.port) as c:
        for _ in range(5):
            ident = send(m, c, 's@frozen.test', 'u0@local.test')
            assert 'is no longer frozen' in m.run('-Mt', ident), m.logs()
            m.run('-q')
            m.wait_log(f'{ident} Completed')


@pytest.mark.parametrize('command', [['-q'], ['-qi'], ['-qf'], ['-R', 'local'], ['-S', 'waits'], ['-M', 'ID'], ['-Mc', 'ID']],
                         ids=lambda c: c[0][1:])
def test_delivered_right_behind_the_answer(quiet, command):
    m = quiet
    with Client(m.port) as c:
        for _ in range(5):
            ident = send(m, c, 's@waits.test', 'u0@local.test')
            m.run(*[w.replace('ID', ident) for w in command])
            assert f'{ident} Completed' in m.log(), m.logs()


def test_commands_without_a_daemon_behind_its_socket(martlet):
    """A socket that nobody reads, and one that a daemon has left."""
    m = martlet(arguments=[])
    m.run('-odq', '-f', 's@b.test', 'a@relay.test', input='Subject: x\n\nx\n')
    ident, pids = m.run('-bpi').strip(), m.processes()
    for pid in pids:
        procs.kill(pid, signal.SIGSTOP)
    try:
        assert ident in m.run('-bpi')
    finally:
        for pid in pids:
            procs.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(procs.alive, pids)), 'all processes to end')
    assert os.path.exists(m.outside('spool/exim_daemon_notify'))
    assert 'has been removed' in m.run('-Mrm', ident)


# --- bounces and warnings of a named queue ---

ROUTERS = '''
later:
  driver = redirect
  allow_defer
  local_parts = later
  data = ${if exists{@DIR@/now}{u0@local.test}{:defer: not now}}
bad:
  driver = redirect
  allow_fail
  local_parts = bad
  data = :fail: nobody
answers:
  driver = accept
  local_parts = answers
  transport = answer
'''
TRANSPORTS = '''
answer:
  driver = autoreply
  to = later@local.test
  from = x@local.test
  subject = away
  text = away
'''
NAMED = '  warn   recipients = bad@local.test : answers@local.test : *@late.test\n         queue = own\n  accept\n'


def files(m, queue):
    where = m.outside(f'spool/{queue}/input' if queue else 'spool/input')
    return sorted(n[:-2] for n in os.listdir(where) if n.endswith('-H')) if os.path.isdir(where) else []


@pytest.mark.parametrize('to', ['bad', 'answers'])
@pytest.mark.parametrize('daemon', [True, False])
def test_messages_that_a_named_queue_gives_rise_to_are_in_it(martlet, to, daemon):
    m = martlet(daemon=daemon, arguments=[], routers=ROUTERS, transports=TRANSPORTS, acl_rcpt=NAMED)
    if daemon:
        with Client(m.port) as c:
            assert c.mail('later@local.test', f'{to}@local.test')[0] == 250
    else:
        m.run('-odi', '-bs', input=f'HELO x\nMAIL FROM:<later@local.test>\nRCPT TO:<{to}@local.test>\nDATA\n\nx\n.\nQUIT\n')
    m.wait_log(r'<= <> R=\S+ .*Q=own')
    m.wait_log(r'== later@local\.test Q=own R=later defer')
    wait_for(lambda: len(files(m, 'own')) == 1, m.logs)
    assert not files(m, '')
    # A run of its queue delivers it, and one of the ordinary queue does not look at it.
    open(os.path.join(m.directory, 'now'), 'w').close()
    m.run('-qff')
    assert len(files(m, 'own')) == 1
    # The first attempt may still be putting its things away.
    wait_for(lambda: (m.run('-qffGown'), m.mail('u0'))[1], m.logs)
    wait_for(lambda: not files(m, 'own'), m.logs)


def test_warning_is_in_the_named_queue(martlet):
    m = martlet(daemon=False, routers=ROUTERS, relay_to='late.test', acl_rcpt=NAMED, main='delay_warning = 1s\ndelay_warning_condition = yes',
                smarthost='127.0.0.1::1')
    m.run('-odq', '-bs', input='HELO x\nMAIL FROM:<later@local.test>\nRCPT TO:<a@late.test>\nDATA\n\nx\n.\nQUIT\n')
    ident, = files(m, 'own')
    path = m.outside(f'spool/own/input/{ident}-H')
    with open(path) as f:
        text = f.read()
    text = re.sub(r'^(\d{10}) ', lambda t: f'{int(t[1]) - 600} ', text, flags=re.M)
    text = re.sub(r'^-received_time_complete (\d+)', lambda t: f'-received_time_complete {int(t[1]) - 600}', text, flags=re.M)
    with open(path, 'r+') as f:
        f.write(text)
    m.run('-qffGown')
    assert re.search(r'<= <> R=\S+ .*Q=own', m.log()) and re.search(r'== later@local\.test Q=own R=later defer', m.log()), m.logs()
    assert len(files(m, 'own')) == 2 and not files(m, '')


def test_passed_over_because_it_is_locked(martlet):
    """By a queue run and by commands; one who looks is told, too."""
    m = martlet(daemon=False, routers='slow:\n  driver = accept\n  local_parts = slow\n  transport = slow\n',
                transports='slow:\n  driver = pipe\n  command = /bin/sh -c "touch @DIR@/mail/begun; while ! test -e @DIR@/mail/go; do sleep 0.1; done"\n')
    first = m.popen('-odi', '-f', 's@b.test', 'slow@local.test')
    first.stdin.write(b'Subject: x\n\nx\n')
    first.stdin.close()
    try:
        wait_for(lambda: os.path.exists(m.outside('mail/begun')), m.logs)
        ident = m.run('-bpi').strip()
        commands = (['-q'], ['-R', 'slow'], ['-M', ident], ['-Mt', ident], ['-Mrm', ident])
        for n, command in enumerate(commands, 1):
            m.run(*command, check=False)
            assert m.log().count(f'{ident} Spool file for {ident} is locked (another process is handling this message)\n') == n, m.logs()
    finally:
        open(m.outside('mail/go'), 'w').close()
        first.wait(60)
    assert f'{ident} Completed' in m.log()
