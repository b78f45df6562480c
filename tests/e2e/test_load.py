"""Options that look at the system's load."""
import re

import pytest

from support.smtp import Client
from support.util import wait_for


def loads(m):
    """{message id: the load that queued it}"""
    return dict(re.findall(r'(\S+) no immediate delivery: load average (\S+)', m.log()))


@pytest.mark.parametrize('latch', [True, False])
def test_queue_only_load_latch(martlet, latch):
    """The load that queued one message of a connection queues the others too, whatever becomes of it - unless the latch is off.

    The harness program's load is another one, and higher, each time that it is looked at.
    """
    m = martlet(program='martlet-harness', arguments=[], main='worker_processes = 1\nqueue_only_load = 0\n' + ('' if latch else 'no_queue_only_load_latch\n'))
    for connection in range(2):
        with Client(m.port) as c:
            c.ehlo()
            answers = [c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nx\r\n', hello=False) for _ in range(4)]
        ids = [text.split('id=')[1] for code, text in answers]
        if connection == 0:
            ids.pop(0)  # the very first one may find none
        wait_for(lambda: set(ids) <= set(loads(m)), m.logs)
        seen = {loads(m)[i] for i in ids}
        assert (len(seen) == 1) == latch, seen
    assert len(set(loads(m).values())) > 1  # each connection has its own
