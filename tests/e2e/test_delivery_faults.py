"""Single faults of deliveries that tests/faults does not make: TLS that fails, answers that end half-way, a spool in which nothing
can be noted, processes that are killed. Nothing is lost, nothing comes twice, and the log and the retry time are right."""
import os
import re
import signal
import socket

import pytest

from support import procs
from support.util import read, wait_for

pytestmark = pytest.mark.plain

HEADER = 'Subject: x\n\nx\n'


def once_retried(m, hop):
    """Deferred once, then delivered once by a forced run."""
    m.run('-qf')
    assert len(hop.messages) == 1 and m.queue() == [], m.logs()


@pytest.mark.parametrize('reply', ['454 no TLS now', 'DROP', '220 go on\nnonsense', 'x'])
def test_tls_that_fails_is_told_and_tried_again(martlet, smtp_server, authority, reply):
    hop = smtp_server({'STARTTLS': [reply, None]}, tls=authority.issue('hop.test'))
    m = martlet(daemon=False, smarthost='127.0.0.1', client=f'port = {hop.port}\n  hosts_require_tls = *\n  tls_verify_certificates =')
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', input=HEADER)
    assert not hop.messages and re.search(r'== a@relay\.test R=relay T=remote_smtp defer \(-?\d+\)', m.log()), m.logs()
    once_retried(m, hop)
    assert hop.messages[0]['tls']


def test_handshake_that_goes_wrong(martlet, smtp_server):
    """220 to STARTTLS, then no TLS."""
    hop = smtp_server({'STARTTLS': '220 go on'}, keywords=('STARTTLS',))
    m = martlet(daemon=False, smarthost='127.0.0.1', client=f'port = {hop.port}\n  hosts_require_tls = *\n  command_timeout = 5s')
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', input=HEADER)
    assert not hop.messages and re.search(r'== a@relay\.test .*defer \(-37\)', m.log()), m.logs()
    assert len(m.queue()) == 1


@pytest.mark.parametrize('verb', ['CONNECT', 'EHLO', 'MAIL', 'RCPT', 'DATA', 'DOT'])
def test_half_closed(martlet, smtp_server, verb):
    """The server ends its half of the connection and goes on reading."""
    def half(line, session):
        if half.left:
            half.left = False
            session.sock.shutdown(socket.SHUT_WR)
            while session.sock.recv(65536):
                pass
            return 'DROP'
        return None
    half.left = True
    hop = smtp_server({verb: half})
    m = martlet(daemon=False, smarthost='127.0.0.1', client=f'port = {hop.port}\n  command_timeout = 20s\n  final_timeout = 20s')
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', input=HEADER)
    assert not hop.messages and re.search(r'== a@relay\.test R=relay T=remote_smtp defer', m.log()), m.logs()
    assert 'Remote host closed connection' in m.log(), m.log()
    once_retried(m, hop)


@pytest.mark.skipif(os.geteuid() != 0, reason='needs root: others cannot take a directory away from themselves for good')
def test_spool_in_which_nothing_can_be_noted(martlet, smtp_server):
    """Between the answer to one recipient and the attempt for the other the spool becomes read-only."""
    first = smtp_server()
    m = None

    def lock_spool(line, session):
        os.chmod(m.outside('spool/input'), 0o500)
        return None
    later = smtp_server({'RCPT': ['450 later', None]})
    first.script['DOT'] = lock_spool
    m = martlet(daemon=False, smarthost=f'"127.0.0.1::${{if eq{{$domain}}{{one.relay.test}}{{{first.port}}}{{{later.port}}}}}"',
                relay_to='*.relay.test', allow_panic='spool|journal|Permission denied')
    m.run('-odq', '-f', 's@b.test', 'a@one.relay.test', 'b@two.relay.test', input=HEADER)
    m.run('-q', check=False)
    os.chmod(m.outside('spool/input'), 0o750)
    assert len(first.messages) == 1 and not later.messages
    assert re.search('Permission denied', m.log() + m.log('panic')), m.logs()
    first.script.pop('DOT')
    m.run('-qf')
    assert len(later.messages) == 1 and m.queue() == [], m.logs()
    # A one-shot command that could note it nowhere may send again what it had sent; more than once more it may not.
    assert len(first.messages) <= 2


@pytest.mark.root
def test_agent_killed_while_a_user_s_command_runs(martlet):
    m = martlet(privileged=True, daemon=True, routers='piped:\n  driver = accept\n  domains = pipe.test\n  transport = piped\n',
                relay_to='pipe.test', relay_from='127.0.0.1', allow_panic='agent',
                transports='piped:\n  driver = pipe\n  command = /bin/sh -c "cat >> /home/u0/got; : > /home/u0/begun; test -e /home/u0/go || sleep 60"\n'
                           '  user = u0\n  use_shell = false\n', arguments=['-q1s'])
    got = m.place.path('/home/u0/got')
    m.run('-odq', '-f', 's@b.test', 'a@pipe.test', input=HEADER)
    wait_for(lambda: os.path.exists(m.place.path('/home/u0/begun')), lambda: 'the command to begin' + m.logs())
    open(m.place.path('/home/u0/go'), 'w').close()
    agents = [p for p in procs.tree(m.master) if p != m.master and 'agent' in read(f'/proc/{p}/comm')]
    root = agents or [p for p in procs.tree(m.master) if p != m.master and re.search(r'^Uid:\t0\t', read(f'/proc/{p}/status'), re.M)]
    assert root, 'no agent'
    os.kill(root[0], signal.SIGKILL)
    wait_for(lambda: 'Completed' in m.log(), lambda: 'the message to be delivered after all' + m.logs())
    # Once by the command that was running when the agent died, once more since nobody heard how it ended.
    assert read(got).count('Subject: x') <= 2
    wait_for(lambda: m.queue() == [], lambda: 'the queue to be empty' + m.logs())


# --- mailboxes ---

FULL = dict(daemon=False, tmpfs={'/home/small': 'size=256k,mode=1777'})
LONG = HEADER + ('y' * 70 + '\n') * 2000


@pytest.mark.root
@pytest.mark.parametrize('transport, made', [
    ('driver = appendfile\n  file = /home/small/box', 'box'),
    ('driver = appendfile\n  directory = /home/small/dir\n  maildir_format\n  create_directory', 'dir/new'),
    ('driver = queuefile\n  directory = /home/small/scan', 'scan'),
])
def test_no_space_for_a_mailbox(martlet, transport, made):
    """ENOSPC: nothing half delivered is left, the message waits, and is delivered when there is room."""
    m = martlet(relay_to='box.test', allow_panic='small', routers='box:\n  driver = accept\n  domains = box.test\n  transport = box\n',
                transports=f'box:\n  {transport}\n', **FULL)
    m.place.run(['sh', '-c', 'mkdir -m 777 /home/small/scan; head -c 200k /dev/zero > /home/small/filler'])
    m.run('-odi', '-f', 's@b.test', 'a@box.test', input=LONG)
    assert re.search(r'== a@box\.test R=box T=box defer \(28\): .*No space left on device', m.log()), m.logs()
    left = m.place.run(['sh', '-c', f'cat /home/small/{made}/* /home/small/{made} 2>/dev/null | wc -c'], check=False).split()[-1]
    assert left == '0' and len(m.queue()) == 1, (left, m.logs())
    m.place.run(['rm', '/home/small/filler'])
    m.run('-qf')
    assert m.queue() == [] and re.search(r'=> a <a@box\.test> R=box T=box|=> a@box\.test', m.log()), m.logs()
    whole = m.place.run(['sh', '-c', f'cat /home/small/{made}/* /home/small/{made} 2>/dev/null | grep -c yyyy'], check=False).split()[-1]
    assert whole == '2000', whole


@pytest.mark.parametrize('transport, what', [
    ('driver = appendfile\n  file = @DIR@/mail/ro/box', 'box'),
    ('driver = appendfile\n  directory = @DIR@/mail/ro\n  maildir_format', 'maildir'),
    ('driver = appendfile\n  directory = @DIR@/mail/ro\n  mailstore_format', 'mailstore'),
])
def test_a_mailbox_that_cannot_be_written(martlet, transport, what):
    m = martlet(daemon=False, relay_to='box.test', routers='box:\n  driver = accept\n  domains = box.test\n  transport = box\n',
                transports=f'box:\n  {transport}\n', allow_panic='ro', retry='* * F,1d,1h')
    place = m._own('mail/ro')
    os.chmod(place, 0o555)
    m.run('-odi', '-f', 's@b.test', 'a@box.test', input=HEADER)
    assert re.search(r'== a@box\.test R=box T=box defer \(13\)', m.log()) and len(m.queue()) == 1 and os.listdir(place) == [], m.logs()
    m.run('-q')
    assert m.log().count('defer (13)') == 1, 'tried before its time' + m.logs()
    os.chmod(place, 0o755)
    m.run('-qf')
    assert m.queue() == [] and os.listdir(place), m.logs()
