"""Debian's Postfix as a partner, in a place of its own (place.py); with its smtp-source and smtp-sink."""
import os
import re
import subprocess

from .place import Place
from .util import free_port, listening, read, wait_for

MAIN = '''
compatibility_level = 3.6
myhostname = {hostname}
mydestination = {domain}
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = {relayhost}
home_mailbox = Maildir/
alias_maps =
alias_database =
local_recipient_maps = unix:passwd.byname
maillog_file = /var/log/postfix.log
maillog_file_prefixes = /var/log
data_directory = /var/spool/postfix-data
biff = no
smtp_tls_security_level = {client_tls}
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
minimal_backoff_time = 2s
queue_run_delay = 2s
{tls}
{main}
'''


class Postfix:
    """Accepts mail for users u0, u1, ... of its domain, and relays all else (from loopback) to `relayhost`."""

    def __init__(self, directory, peers, hostname='postfix.test', domain='postfix.test', relayhost='', tls=None,
                 client_tls='none', users=10, main='', resolver=None, sessions=None):
        """sessions: how many at a time, if not as shipped."""
        self.sessions = sessions
        self.port = free_port()
        self.hostname, self.domain = hostname, domain
        self.layer = os.path.join(peers, 'postfix')
        names = ['postfix', 'postdrop'] + [(f'u{n}', f'/home/u{n}') for n in range(users)]
        self.place = Place(directory, [self.layer], names, resolver)
        text = ''
        if tls:
            text = 'smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}'.format(*tls)
        self.place.etc('postfix/main.cf', MAIN.format(
            hostname=hostname, domain=domain, relayhost=relayhost, tls=text, main=main, client_tls=client_tls))
        self.place.etc('postfix/master.cf', self.services())
        os.makedirs(self.place.path('var/spool/postfix'), exist_ok=True)
        data = self.place.path('var/spool/postfix-data')
        os.makedirs(data, exist_ok=True)
        os.chown(data, self.place.uid('postfix'), self.place.uid('postfix'))

    def services(self):
        """Debian's master.cf, listening where we want, and without chroot (whose files an installation makes)."""
        with open(os.path.join(self.layer, 'usr/share/postfix/master.cf.dist')) as f:
            text = f.read()
        text = re.sub(r'^smtp( +inet)', rf'127.0.0.1:{self.port}\1', text, count=1, flags=re.M)
        out = []
        for line in text.split('\n'):
            fields = line.split()
            if len(fields) >= 8 and not line.startswith(('#', ' ')):
                fields[4] = 'n'
                if fields[7] == 'smtpd' and self.sessions:
                    fields[6] = str(self.sessions)
                line = '  '.join(fields)
            out.append(line)
        return '\n'.join(out)

    def start(self, group=None):
        self.place.start(group)
        try:
            self.place.run(['/usr/sbin/postfix', 'start'])
            wait_for(lambda: listening('127.0.0.1', self.port), lambda: 'Postfix to listen; its log: ' + self.log())
        except BaseException:
            self.place.stop()
            raise
        return self

    def log(self):
        return read(self.place.path('/var/log/postfix.log'))

    def queue_is_empty(self):
        return 'Mail queue is empty' in self.place.run(['/usr/sbin/postqueue', '-p'], check=False)

    def maildir(self, user):
        return self.place.path(f'/home/{user}/Maildir')

    def stop(self):
        if self.place.keeper:
            self.place.run(['/usr/sbin/postfix', 'stop'], check=False)
        self.place.stop()


def tool(peers, name, *args, **kw):
    """smtp-source or smtp-sink, which need no place but their libraries."""
    layer = os.path.join(peers, 'postfix')
    env = dict(os.environ, LD_LIBRARY_PATH=f'{layer}/usr/lib/postfix:{layer}/usr/lib/x86_64-linux-gnu')
    return subprocess.Popen([f'{layer}/usr/sbin/{name}', *[str(a) for a in args]], env=env, stdin=subprocess.DEVNULL, **kw)


class Source:
    """smtp-source: sessions times messages to one address."""

    @staticmethod
    def run(peers, port, recipient, messages, sessions=20, length=4096, sender='source@source.test', numbered=0, patience=300):
        """numbered: the first recipient's local part gets a number, counting up (-N)."""
        args = ['-s', sessions, '-m', messages, '-l', length, '-f', sender, '-t', recipient, '-M', 'source.test']
        if numbered:
            args += ['-N']
        p = tool(peers, 'smtp-source', *args, f'inet:127.0.0.1:{port}', stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = p.communicate(timeout=patience)
        if p.returncode != 0:
            raise AssertionError('smtp-source: ' + out.decode('utf-8', 'replace'))


class Sink:
    """smtp-sink: swallows all that it is sent; counts by its own -c output."""

    def __init__(self, peers, *options, backlog=256):
        self.port = free_port()
        user = ['-u', 'nobody'] if os.geteuid() == 0 else []
        self.process = tool(peers, 'smtp-sink', *user, *options, f'inet:127.0.0.1:{self.port}', backlog,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_for(lambda: listening('127.0.0.1', self.port), 'smtp-sink to listen')

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=60)
