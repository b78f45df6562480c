"""Options that look at the system's load."""
import re

import pytest

from support.smtp import Client
from support.util import wait_for


def loads(m):
    return re.findall(r'no immediate delivery: load average (\S+)', m.log())


@pytest.mark.parametrize('latch', [True, False])
def test_queue_only_load_latch(martlet, latch):
    """The load that queued one message of a connection queues the others too, whatever becomes of it - unless the latch is off.

    The harness program's load is another one, and higher, each time that it is looked at.
    """
    m = martlet(program='martlet-harness', arguments=[], main='worker_processes = 1\nqueue_only_load = 0\n' + ('' if latch else 'no_queue_only_load_latch\n'))
    for connection in range(2):
        before = len(loads(m))
        with Client(m.port) as c:
            c.ehlo()
            for n in range(4):
                assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nx\r\n', hello=False)[0] == 250
        least = before + (3 if connection == 0 else 4)  # the very first one may find none
        wait_for(lambda: len(loads(m)) >= least, m.logs)
        seen = loads(m)[before:]
        assert (len(set(seen)) == 1) == latch, seen
    assert len(set(loads(m))) > 1  # each connection has its own
