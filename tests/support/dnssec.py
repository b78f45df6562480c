"""Signed zones below test. on an authoritative server, and a resolver that validates them."""
import glob
import hashlib
import os
import shutil
import subprocess

from .databases import Database, program
from .nameservers import Nsd
from .util import free_loopback, listening, read, write

HEAD = '''$ORIGIN {origin}.
$TTL 0
@ SOA ns.test. host.test. 7 3600 600 86400 0
@ NS ns.test.
'''
SIGN = shutil.which('ldns-signzone')


class SignedNsd(Nsd):
    """zones: {name: (records, how)}; how: 'signed', 'expired' (so that all is bogus), or 'plain' (nothing leads to it securely).

    All but 'test' are delegated from the zone above. The key of test. is in `anchor`. Records are formatted with names.
    """

    def __init__(self, directory, zones, **names):
        self.plan, self.names, self.keys = dict(zones), names, {}
        super().__init__(directory, {})

    def configure(self):
        work = os.path.join(self.directory, 'keys')
        os.makedirs(work, exist_ok=True)
        self.zones = {}
        texts = {z: HEAD.format(origin=z) + records.format(address=self.address, **self.names) for z, (records, _) in self.plan.items()}
        texts['test'] += f'ns A {self.address}\n'
        for zone in texts:  # below its nearest parent
            parents = [p for p in texts if zone.endswith('.' + p)]
            if parents:
                parent = max(parents, key=len)
                texts[parent] += f'{zone}. NS ns.test.\n'
                if self.plan[zone][1] != 'plain':
                    texts[parent] += read(self.key(work, zone) + '.ds')
        for zone, text in texts.items():
            self.zones[zone] = text if self.plan[zone][1] == 'plain' else self.sign(work, zone, text)
        self.anchor = self.key(work, 'test') + '.key'
        super().configure()

    def key(self, work, zone):
        if zone not in self.keys:
            done = subprocess.run(['ldns-keygen', '-a', 'ECDSAP256SHA256', '-k', zone], cwd=work, check=True, capture_output=True, text=True)
            self.keys[zone] = os.path.join(work, done.stdout.strip())
        return self.keys[zone]

    def sign(self, work, zone, text):
        key = self.key(work, zone)
        source = write(os.path.join(work, f'zone.{zone}'), text)
        dates = ['-i', '20200101', '-e', '20200201'] if self.plan[zone][1] == 'expired' else []
        subprocess.run([SIGN, *dates, '-o', zone, '-f', source + '.signed', source, key], cwd=work, check=True, capture_output=True)
        return read(source + '.signed')

    def publish(self, **zones):
        """Other records for zones; dots of names are written __."""
        for name, records in zones.items():
            name = name.replace('__', '.')
            self.plan[name] = (records, self.plan[name][1])
        self.stop()
        self.configure()
        self.start()


class Unbound(Database):
    """Validates what is below test., which it gets from an authoritative server; port 53 of a loopback address of its own."""
    program = program('unbound', '/usr/sbin/unbound')

    def __init__(self, directory, authority):
        self.authority, self.address = authority, free_loopback()
        super().__init__(directory)

    def as_user(self, *command):
        return list(command)

    def prepare(self):
        pass

    def place(self):
        self.port = 53
        write(os.path.join(self.directory, 'anchor'), read(self.authority.anchor))
        write(os.path.join(self.directory, 'unbound.conf'), f'''server:
  interface: {self.address}
  username: ""
  chroot: ""
  directory: "{self.directory}"
  pidfile: "{self.directory}/pid"
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  do-not-query-localhost: no
  local-zone: "test." nodefault
  trust-anchor-file: "{self.directory}/anchor"
  val-log-level: 2
  infra-cache-min-rtt: 1000
remote-control:
  control-enable: no
stub-zone:
  name: "test."
  stub-addr: {self.authority.address}
''')

    def command(self):
        return [self.program, '-d', '-c', os.path.join(self.directory, 'unbound.conf')]

    def ready(self):
        return listening(self.address, 53)


def tlsa(usage, selector, matching, certificate):
    """The record's data for a certificate file (its first certificate)."""
    form = ['-outform', 'DER'] if selector == 0 else ['-pubkey', '-noout']
    data = subprocess.run(['openssl', 'x509', '-in', certificate, *form], check=True, capture_output=True).stdout
    if selector == 1:
        data = subprocess.run(['openssl', 'pkey', '-pubin', '-outform', 'DER'], input=data, check=True, capture_output=True).stdout
    data = {0: lambda d: d, 1: lambda d: hashlib.sha256(d).digest(), 2: lambda d: hashlib.sha512(d).digest()}[matching](data)
    return f'{usage} {selector} {matching} {data.hex()}'
