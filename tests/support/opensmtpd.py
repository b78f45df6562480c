"""Debian's OpenSMTPD as a partner, in a place of its own (place.py)."""
import os

from .place import Place
from .util import free_port, listening, read, wait_for

CONFIG = '''
{tls}
listen on 127.0.0.1 port {port} {how} hostname {hostname}
action "box" maildir
match from any for domain "{domain}" action "box"
'''


class OpenSmtpd:
    """Accepts mail for users u0, u1, ... of its domain. tls: (certificate, key): offers STARTTLS."""

    def __init__(self, directory, peers, hostname='opensmtpd.test', domain='opensmtpd.test', tls=None, users=10):
        self.port = free_port()
        names = [('opensmtpd', '/var/lib/opensmtpd/empty'), 'opensmtpq'] + [(f'u{n}', f'/home/u{n}') for n in range(users)]
        self.place = Place(directory, [os.path.join(peers, 'opensmtpd')], names)
        text = ''
        if tls:
            for name, path in zip(('certificate', 'key'), tls):
                self.place.etc(name, read(path), 0o600)
            text = f'pki "{hostname}" cert "/etc/certificate"\npki "{hostname}" key "/etc/key"\n'
        self.place.etc('smtpd.conf', CONFIG.format(port=self.port, hostname=hostname, domain=domain, tls=text,
                                                   how=f'tls pki "{hostname}"' if tls else ''))
        self.place.etc('mailname', hostname + '\n')
        self.place.etc('aliases', '')

    def start(self, group=None):
        self.place.start(group)
        try:
            # Its processes change their root to a directory under /var, which is this machine's own.
            self.place.run(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/var/lib'])
            self.place.run(['mkdir', '-p', '/var/lib/opensmtpd/empty'])
            with open(self.place.path('/var/log/opensmtpd'), 'wb') as log:
                self.process = self.place.popen(['/usr/sbin/smtpd', '-d', '-f', '/etc/smtpd.conf'], stdout=log, stderr=log)
            wait_for(lambda: listening('127.0.0.1', self.port), lambda: 'OpenSMTPD to listen; its log: ' + self.log())
        except BaseException:
            self.place.stop()
            raise
        return self

    def log(self):
        return read(self.place.path('/var/log/opensmtpd'))

    def maildir(self, user):
        return self.place.path(f'/home/{user}/Maildir')

    def stop(self):
        self.place.stop()
        self.process.wait()
