"""A daemon with nothing to do does nothing: each of its processes waits without using the processor."""
import time

import pytest

from support import procs
from support.util import read

pytestmark = pytest.mark.plain


def test_all_processes_sleep(martlet):
    m = martlet()
    waiting = set(m.processes())
    assert len(waiting) >= 2
    end = time.monotonic() + 60
    while waiting and time.monotonic() < end:
        before = {p: procs.cpu([p]) for p in waiting}
        time.sleep(1)  # what is measured: a second without a tick
        waiting = {p for p in waiting if procs.alive(p) and procs.cpu([p]) != before[p]}
    assert not waiting, [read(f'/proc/{p}/cmdline') for p in waiting]
