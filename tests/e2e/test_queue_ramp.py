"""queue_fast_ramp: a two-stage queue run of a command, with a daemon beside it."""
import re
import time

import pytest

from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.plain


def queued(m, n):
    with Client(m.port) as c:
        c.ehlo()
        for i in range(n):
            assert c.mail('s@b.test', f'u{i}@relay.test', data='Subject: x\r\n\r\nx\r\n', hello=False)[0] == 250
    wait_for(lambda: len(m.queue()) == n, lambda: f'{n} messages on the queue' + m.logs())


@pytest.mark.parametrize('ramp', [True, False])
def test_daemon_begins_with_what_the_first_stage_finds(martlet, smtp_server, ramp):
    """The next hop takes nothing from the run alone before the daemon has joined in."""
    def wait(data, session):
        end = time.monotonic() + 30
        while ramp and hop.sessions < 2 and time.monotonic() < end:
            time.sleep(0.02)
    hop = smtp_server({'DOT': wait})
    m = martlet(smarthost=f'127.0.0.1::{hop.port}', arguments=['-q1h', '-odq'],
                main=f'log_selector = +pid\nqueue_fast_ramp = {"true" if ramp else "false"}\nsmtp_accept_queue_per_connection = 0\n'
                     'worker_processes = 1')
    m.wait_log('End queue run')  # the daemon's first one, which would take what comes meanwhile
    queued(m, 70)
    m.run('-qq', timeout=300)
    wait_for(lambda: not m.queue(), lambda: 'all to go' + m.logs(), 90)
    assert sorted(r for x in hop.messages for r in x['rcpt']) == sorted(f'<u{i}@relay.test>' for i in range(70))
    run, = re.findall(r'\[(\d+)\] Start queue run: pid=\d+ -qq$', m.log(), re.M)
    senders = set(re.findall(r'\[(\d+)\] \S+ => u\d+@relay.test', m.log()))
    assert len(re.findall(r'notify triggered queue run$', m.log(), re.M)) == ramp
    assert bool(senders - {run}) == ramp, senders
