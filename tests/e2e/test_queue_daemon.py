"""The daemon's queue beside what others do to the spool: commands, administrators' hands, and runs that have nothing to do."""
import os
import re

import pytest

from support.smtp import Client
from support.util import free_port, wait_for

pytestmark = pytest.mark.plain

HEADER = 'Subject: x\n\nx\n'


@pytest.fixture
def server(smtp_server, martlet):
    """server(client='…'): a daemon with queue runs every second and a next hop."""
    def make(run='-q1s', **gaps):
        hop = smtp_server()
        m = martlet(smarthost='127.0.0.1', client=f'port = {hop.port}', arguments=[run], **gaps)
        return m, hop
    return make


def a_run(m):
    """A run of the daemon's queue, from its start: it delivers what a command has left."""
    before = len(m.mail('u0'))
    m.run('-odq', '-f', 's@b.test', 'u0@local.test', input=HEADER)
    wait_for(lambda: len(m.mail('u0')) > before, lambda: 'a queue run' + m.logs())


def submit(m, rcpt='a@relay.test', how='-odq'):
    m.run(how, '-f', 's@b.test', rcpt, input=HEADER)
    ids = m.run('-bpi').split()
    return ids[-1] if ids else None


def test_message_that_a_command_left_on_the_queue_goes_in_the_next_run(server):
    m, hop = server()
    m.run('-odq', '-f', 's@b.test', 'a@relay.test', input=HEADER)
    wait_for(lambda: len(hop.messages) == 1, lambda: 'a queue run to deliver it' + m.logs())
    wait_for(lambda: m.run('-bpc').strip() == '0', lambda: 'the queue to be empty' + m.logs())


def test_files_put_into_the_spool_by_hand_go_in_the_next_run(server):
    m, hop = server()
    ident = '1vMARt-00000000001-0001'
    text = {'D': f'{ident}-D\nbody\n',
            'H': f'{ident}-H\nroot 0 0\n<s@b.test>\n1700000000 0\n-received_time_usec .000001\n-local\n-body_linecount 1\nXX\n1\n'
                 'a@relay.test\n\n017  Subject: by hand\n'}
    directory = m._own('spool/input')
    for which in 'DH':
        path = f'{directory}/{ident}-{which}'
        with open(path + '.new', 'w') as f:
            f.write(text[which])
        if os.geteuid() == 0:
            os.chown(path + '.new', m.uid, m.gid)
        os.rename(path + '.new', path)
    wait_for(lambda: len(hop.messages) == 1, lambda: 'a queue run to deliver it' + m.logs())
    assert 'by hand' in str(hop.messages[0]), hop.messages[0]


def test_frozen_and_thawed(smtp_server, martlet):
    hop = smtp_server()
    m = martlet(smarthost='127.0.0.1', client=f'port = {hop.port}', arguments=['-q1s'], acl='acl_freeze:\n  accept senders = frozen@b.test\n         control = freeze\n  accept',
                main='acl_not_smtp = acl_freeze')
    m.run('-f', 'frozen@b.test', 'a@relay.test', input=HEADER)
    ident = m.run('-bpi').strip()
    assert '*** frozen ***' in m.run('-bp')
    a_run(m)
    assert not hop.messages
    assert 'no longer frozen' in m.run('-Mt', ident)
    wait_for(lambda: len(hop.messages) == 1, lambda: 'the thawed message to go' + m.logs())


def test_removed_by_a_command(martlet):
    m = martlet(arguments=['-q30m'])
    ident = submit(m)
    assert m.run('-bpc').strip() == '1'
    assert 'has been removed' in m.run('-Mrm', ident)
    assert m.run('-bpc').strip() == '0'


def test_run_with_nothing_due_looks_at_no_message(martlet):
    """The hop refuses connections; then runs find in memory that its time has not come."""
    m = martlet(smarthost='127.0.0.1', client=f'port = {free_port()}', arguments=['-q1s'], retry='* * F,2h,1h',
                main='log_selector = +retry_defer')
    m.run('-f', 's@b.test', 'a@relay.test', input=HEADER)
    wait_for(lambda: re.search(r'== a@relay.test .*Connection refused', m.log()), lambda: 'the first attempt' + m.logs())
    # A run may have had it before the command's word about it came.
    for _ in range(2):
        a_run(m)
    before = m.log().count('== a@relay.test')
    assert before <= 2, m.logs()
    for _ in range(3):
        a_run(m)
    assert m.log().count('== a@relay.test') == before, m.logs()
    # A forced run does look.
    m.run('-qf')
    wait_for(lambda: m.log().count('== a@relay.test') > before, lambda: 'a forced attempt' + m.logs())


def test_long_list_is_the_same_with_and_without_what_is_known(martlet):
    m = martlet(daemon=False)
    for i in range(60):
        m.run('-odq', '-f', f's{i}@b.test', f'a{i}@relay.test', 'b@relay.test', input=HEADER)

    def listing():
        # A message may grow a minute older between two of them.
        return re.sub(r'(?m)^ *\d+[mh] ', '', m.run('-bp'))

    known = listing()
    assert known.count('<s') == 60 and known.count('@relay.test\n') == 120
    os.unlink(m.outside('spool/summary/messages'))
    assert listing() == known
    assert os.path.getsize(m.outside('spool/summary/messages')) > 60 * 50
    assert listing() == known
    # What is changed shows.
    first = m.run('-bpi').split()[0]
    m.run('-Mf', first)
    m.run('-Mmd', first, 'b@relay.test')
    changed = m.run('-bp')
    assert changed.count('*** frozen ***') == 1 and changed.count('D b@relay.test') == 1
    m.run('-Mt', first)
    assert m.run('-bp').count('*** frozen ***') == 0


@pytest.mark.parametrize('split', [False, True])
def test_move_frozen_messages(smtp_server, martlet, split):
    """Frozen by a delivery (a bounce that nobody takes), and by an ACL; moved back by hand it is delivered."""
    hop = smtp_server()
    m = martlet(smarthost='127.0.0.1', client=f'port = {hop.port}', arguments=['-q1s'],
                main=f'move_frozen_messages\nsplit_spool_directory = {"true" if split else "false"}\nacl_not_smtp = acl_freeze',
                acl='acl_freeze:\n  accept senders = frozen@b.test\n         control = freeze\n  accept',
                routers='fails:\n  driver = redirect\n  domains = fails.test\n  data = :fail: nobody\n  allow_fail', relay_to='fails.test')
    spool = m.outside('spool')
    def aside(where='Finput'):
        return sorted(f for _, _, names in os.walk(f'{spool}/{where}') for f in names)
    with Client(m.port) as c:
        assert c.mail('', 'a@fails.test', data='Subject: x\r\n\r\nx\r\n')[0] == 250
    wait_for(lambda: len(aside()) == 2 and not aside('input'), lambda: 'the bounce to be set aside' + m.logs())
    ident = re.search(r'(\S+) Frozen', m.log())[1]
    assert aside() == [f'{ident}-D', f'{ident}-H']
    wait_for(lambda: aside('Fmsglog') == [ident], lambda: 'its log to follow' + m.logs())
    assert not m.queue() and m.run('-bpc').strip() == '0'
    m.run('-f', 'frozen@b.test', 'b@relay.test', input=HEADER)
    wait_for(lambda: len(aside()) == 4 and not aside('input'), lambda: 'the other one to be set aside' + m.logs())
    assert not m.queue()
    other = next(f[:-2] for f in aside() if ident not in f)
    sub = f'/{other[5]}' if split else ''
    with open(f'{spool}/Finput{sub}/{other}-D') as f:
        assert f.readline() == f'{other}-D\n'
    # Back again by hand, and thawed: the next run finds it.
    header = f'{spool}/Finput{sub}/{other}-H'
    with open(header) as f:
        text = f.read()
    assert '\n-frozen ' in text
    with open(header, 'w') as f:
        f.write(re.sub(r'(?m)^-frozen .*\n', '', text))
    for which in 'DH':
        os.rename(f'{spool}/Finput{sub}/{other}-{which}', f'{spool}/input{sub}/{other}-{which}')
    wait_for(lambda: len(hop.messages) == 1, lambda: 'it to go' + m.logs())
