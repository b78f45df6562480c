"""Name servers of Debian, run by the tests: on port 53 (for a resolv.conf) of a loopback address of their own, as root."""
import os
import signal

from . import procs
from .databases import Database, program
from .util import free_loopback, listening, wait_for, write


class Nsd(Database):
    """An authoritative server. zones: {name: text of a master file}; None as text: a zone that cannot be loaded (SERVFAIL).

    Names outside the zones are REFUSED. TTLs of 0 keep answers out of the askers' caches.
    """
    program = program('nsd', '/usr/sbin/nsd')
    crash = signal.SIGKILL

    def __init__(self, directory, zones, port=53):
        self.zones, self.address, self.asked_port = dict(zones), free_loopback(), port
        super().__init__(directory)

    def as_user(self, *command):
        return list(command)

    def prepare(self):
        self.own('data')

    def place(self):
        self.port = self.asked_port
        if self.started is False and os.path.exists(os.path.join(self.directory, 'nsd.conf')):
            self.address = free_loopback()
        self.configure()

    def configure(self):
        d = os.path.join(self.directory, 'data')
        text = f'''server:
  ip-address: {self.address}@{self.port}
  username: {self.user}
  chroot: ""
  zonesdir: "{d}"
  database: ""
  pidfile: "{d}/pid"
  xfrdfile: "{d}/xfrd"
  xfrdir: "{d}"
  zonelistfile: "{d}/list"
  server-count: 1
  tcp-timeout: 20
  rrl-ratelimit: 0
  hide-version: yes
remote-control:
  control-enable: no
'''
        for i, (name, zone) in enumerate(self.zones.items()):
            if zone is not None:
                write(f'{d}/zone{i}', zone)
            text += f'zone:\n  name: "{name}"\n  zonefile: "zone{i}"\n'
        write(os.path.join(self.directory, 'nsd.conf'), text)

    def command(self):
        return [self.program, '-d', '-c', os.path.join(self.directory, 'nsd.conf')]

    def ready(self):
        return listening(self.address, self.port)

    def stop(self, sig=signal.SIGTERM):
        """With SIGKILL all at once; none of its processes is left."""
        if self.process is None:
            return
        pids = self.pids()
        if sig == signal.SIGKILL:
            for pid in pids:
                procs.kill(pid, sig)
        super().stop(sig)
        for pid in filter(procs.alive, pids):
            try:
                wait_for(lambda: not procs.alive(pid), 'its processes to end', 10)
            except AssertionError:
                procs.kill(pid, signal.SIGKILL)

    def change(self, **zones):
        """Restarts it with other zones; dots of names are written __."""
        self.zones.update({k.replace('__', '.'): v for k, v in zones.items()})
        self.stop()
        self.configure()
        self.start()
