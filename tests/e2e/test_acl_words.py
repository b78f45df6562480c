"""Words of ACLs: the controls debug and dscp, verify = csa, quota verification, and the whole list of them."""
import glob
import os

import pytest

from support.smtp import Client
from support.util import wait_for


def debug_log(m, tag=''):
    path = m.outside(f'{m.log_dir}/debuglog{tag}')
    if not os.path.exists(path):
        return None
    with open(path) as f:
        return f.read()


def test_debug_log_of_one_connection(martlet):
    m = martlet(acl_rcpt='  warn local_parts = u1\n       control = debug/tag=.$sender_host_address/opts=+all\n'
                         '  warn hosts = 127.0.0.1\n       set acl_m_x = seen\n')
    with Client(m.port) as c, Client(m.port) as other:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
        assert other.mail('other@b.test', 'u2@local.test')[0] == 250
    m.wait_log('Completed', count=2)
    # The delivery is in it, too: it is the last to write.
    text = wait_for(lambda: (debug_log(m, '.127.0.0.1') or '') if 'u1 <u1@local.test>' in (debug_log(m, '.127.0.0.1') or '') else None,
                    lambda: f'a debug log with the delivery: {debug_log(m, ".127.0.0.1")} {m.logs()}')
    assert 'check hosts = 127.0.0.1' in text and 'LOG: MAIN\n' in text and 'a@b.test' in text
    # The other session was in the same process, perhaps; it is in no debug log.
    assert 'u2' not in text and 'other@' not in text
    assert debug_log(m) is None


def test_debug_kill_and_stop(martlet):
    m = martlet(acl_rcpt='  warn control = debug/tag=_a\n'
                         '  warn local_parts = u1\n       control = debug/kill\n'
                         '  warn local_parts = u2\n       control = debug/stop\n'
                         '  warn condition = ${if eq{$local_part}{u2}}\n       set acl_m0 = unseen\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    assert debug_log(m, '_a') is None
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u2@local.test')[0] == 250
    text = debug_log(m, '_a')
    assert 'check local_parts = u2' in text and 'unseen' not in text and 'LOG:' not in text


def test_debug_pretrigger(martlet):
    m = martlet(acl_rcpt='  warn control = debug/tag=_p/pretrigger=2000/trigger=paniclog/opts=+all\n'
                         '  warn local_parts = u1\n       logwrite = :panic: something is wrong\n'
                         '  warn local_parts = u2\n       control = debug/trigger=now\n',
                allow_panic='something is wrong')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u3@local.test')[0] == 250
    m.wait_log('Completed')
    assert debug_log(m, '_p') is None
    for user in ('u1', 'u2'):
        with Client(m.port) as c:
            assert c.mail('a@b.test', user + '@local.test')[0] == 250
        text = debug_log(m, '_p')
        assert text.startswith(text[:2]) and f'check local_parts = {user}' in text
        os.unlink(m.outside(f'{m.log_dir}/debuglog_p'))


def test_debug_goes_on_after_the_queue(martlet):
    m = martlet(acl_rcpt='  warn control = debug/tag=_q/opts=+route\n       control = queue\n', arguments=[])
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    m.wait_log('queued by ACL')
    before = debug_log(m, '_q')
    m.run('-q')
    m.wait_mail('u1')
    wait_for(lambda: 'Completed' in debug_log(m, '_q'), lambda: debug_log(m, '_q') + m.logs())
    assert 'Completed' not in before
    assert [os.path.basename(p) for p in glob.glob(m.outside(f'{m.log_dir}/debuglog*'))] == ['debuglog_q']


@pytest.mark.parametrize('bad, why', [
    ('tag=../x', 'syntax error in "control=debug/tag=../x"'), ('opts=+nothing', 'unknown debug_selector setting: +nothing'),
    ('tag=$sender_helo_name', 'attempt to use tainted tag'), ('pretrigger=99999999', 'syntax error'), ('trigger=never', 'syntax error'),
])
def test_debug_mistakes(martlet, bad, why):
    m = martlet(acl_rcpt=f'  warn control = debug/{bad}\n       logwrite = not reached\n'
                         f'  require control = debug/{bad}\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 451
    assert why in m.log() and 'not reached' not in m.log()
    assert not glob.glob(m.outside(f'{m.log_dir}/debuglog*'))
