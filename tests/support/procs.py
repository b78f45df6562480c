"""What processes cost: CPU time and memory of a server's whole tree, from /proc."""
import os

TICK = os.sysconf('SC_CLK_TCK')


def stat(pid):
    """(parent, CPU seconds of itself and of its reaped children), or None if it is gone."""
    try:
        with open(f'/proc/{pid}/stat') as f:
            fields = f.read().rsplit(')', 1)[1].split()
    except (OSError, IndexError):
        return None
    return int(fields[1]), sum(int(t) for t in fields[11:15]) / TICK, fields[0]


def alive(pid):
    got = stat(pid)
    return got is not None and got[2] not in 'ZX'


def tree(*roots):
    """The roots and all their living descendants."""
    children = {}
    for name in os.listdir('/proc'):
        if name.isdigit():
            got = stat(name)
            if got and got[2] != 'Z':
                children.setdefault(got[0], []).append(int(name))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found and stat(pid):
            found.append(pid)
            todo += children.get(pid, [])
    return found


def cpu(pids):
    return sum(got[1] for got in map(stat, pids) if got)


def pss(pids):
    """Proportional set size of all together, in KiB."""
    total = 0
    for pid in pids:
        try:
            with open(f'/proc/{pid}/smaps_rollup') as f:
                for line in f:
                    if line.startswith('Pss:'):
                        total += int(line.split()[1])
                        break
        except OSError:
            pass
    return total
