"""A daemon with nothing to do does nothing: each of its processes waits without using the processor."""
import os
import time

import pytest

from support.util import read

pytestmark = pytest.mark.plain


def descendants(pid):
    found = [pid]
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/children') as f:
            for child in f.read().split():
                found += descendants(int(child))
    return found


def ticks(pid):
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_all_processes_sleep(martlet):
    m = martlet()
    waiting = set(descendants(int(read(m.pidfile))))
    assert len(waiting) >= 2
    end = time.monotonic() + 60
    while waiting and time.monotonic() < end:
        before = {p: ticks(p) for p in waiting}
        time.sleep(1)  # what is measured: a second without a tick
        waiting = {p for p in waiting if ticks(p) != before[p]}
    assert not waiting, [open(f'/proc/{p}/cmdline').read() for p in waiting]
