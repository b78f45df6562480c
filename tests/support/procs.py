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


def kill(pid, sig):
    """Who has ended meanwhile is no error."""
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


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


class Group:
    """A control group, whose kernel counts the CPU time of all processes that ever ran in it, reaped by whomever."""

    def __init__(self):
        self.path = None
        with open('/proc/self/mounts') as f:
            mounts = [line.split() for line in f]
        for kind, counter in (('cgroup2', 'cpu.stat'), ('cgroup', 'cpuacct.usage')):
            for m in mounts:
                if m[2] == kind and (kind == 'cgroup2' or 'cpuacct' in m[3].split(',')):
                    path = os.path.join(m[1], f'martlet-bench-{os.getpid()}')
                    try:
                        os.makedirs(path, exist_ok=True)
                        self.counter = os.path.join(path, counter)
                        with open(self.counter):
                            self.path = path
                            return
                    except OSError:
                        pass

    def add(self, pid):
        if self.path:
            with open(os.path.join(self.path, 'cgroup.procs'), 'w') as f:
                f.write(str(pid))

    def command(self):
        """What a command line must begin with to be run in the group."""
        return ['sh', '-c', f'echo $$ >{self.path}/cgroup.procs; exec "$@"', 'sh'] if self.path else []

    def cpu(self, place):
        """CPU seconds so far; without control groups, of what is or was reaped in the place."""
        if not self.path:
            return cpu(tree(place.init))
        with open(self.counter) as f:
            text = f.read()
        return int(text.split()[1]) / 1e6 if text.startswith('usage_usec') else int(text) / 1e9

    def remove(self):
        if self.path:
            try:
                os.rmdir(self.path)
            except OSError:
                pass


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
