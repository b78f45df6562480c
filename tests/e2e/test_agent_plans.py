"""A root daemon's workers hand local deliveries to the agent: all that a transport asks for must reach who does it."""
import os
import re
import socket
import threading

import pytest

from support.smtp import Client
from support.util import read, wait_for

pytestmark = pytest.mark.root

ROUTER = 'all:\n  driver = accept\n  domains = +local_domains\n  local_parts = u0 : u1\n  transport = t'


def daemon(martlet, scratch, options, driver='appendfile', transports='', main=''):
    os.makedirs(f'{scratch}/box', exist_ok=True)
    os.chmod(f'{scratch}/box', 0o777)
    lines = ''.join(f'  {x}\n' for x in options.replace('@BOX@', f'{scratch}/box').split('\n'))
    return martlet(privileged=True, arguments=[], routers=ROUTER, main=main,
                   transports=f't:\n  driver = {driver}\n  user = u5\n{lines}\n{transports}'.replace('@BOX@', f'{scratch}/box'))


def send(m, *to, text='Subject: hi\n\nbody line\n.dot\n'):
    with Client(m.port) as c:
        for line in ('EHLO c', 'MAIL FROM:<a@b.test>', *(f'RCPT TO:<{t}>' for t in to or ('u0@local.test',)), 'DATA'):
            c.cmd(line)
        c.send(text.replace('\n.', '\n..').replace('\n', '\r\n') + '.\r\n')
        assert c.reply()[0] == 250
    m.wait_log(r' Completed')


class Lmtp(threading.Thread):
    """An LMTP server on a socket, for one connection; u1 is refused at the end of the data."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        os.chmod(path, 0o777)
        self.lines = []
        self.start()

    def run(self):
        conn, _ = self.listener.accept()
        conn.settimeout(60)
        with conn, conn.makefile('rb') as f:
            say = lambda text: conn.sendall(text.encode() + b'\r\n')
            say('220 ready')
            recipients = []
            while True:
                line = f.readline().decode().rstrip('\r\n')
                self.lines.append(line)
                if line.startswith('LHLO'):
                    say('250-me\r\n250 IGNOREQUOTA')
                elif line.startswith('RCPT'):
                    recipients.append(line)
                    say('250 fine')
                elif line == 'DATA':
                    say('354 go')
                    while self.lines[-1] != '.':
                        self.lines.append(f.readline().decode().rstrip('\r\n'))
                    for r in recipients:
                        say('550 5.2.1 shut' if 'u1@' in r else '250 2.0.0 kept')
                elif line.startswith('MAIL'):
                    say('250 ok')
                else:
                    say('221 bye')
                    return


def test_lmtp(martlet, scratch):
    s = Lmtp(f'{scratch}/lmtp')
    m = daemon(martlet, scratch, f'socket = {scratch}/lmtp\nbatch_max = 10\nignore_quota', driver='lmtp')
    send(m, 'u0@local.test', 'u1@local.test')
    log = m.log()
    assert re.search(r'=> u0 <u0@local\.test> R=all T=t.* C="250 2\.0\.0 kept"', log), log
    assert re.search(r'\*\* u1@local\.test .*LMTP error after end of data: 550 5\.2\.1 shut', log), log
    s.join(60)
    assert 'MAIL FROM:<a@b.test>' in s.lines and 'RCPT TO:<u0@local.test> IGNOREQUOTA' in s.lines and '..dot' in s.lines, s.lines


@pytest.mark.parametrize('who, driver, mask, environment', [
    ('filter', 'appendfile', '0077', {'ADDED=yes'}), ('lmtp', 'lmtp', '0022', {'ADDED=yes'}),
    ('pipe', 'pipe', '0022', {'LOGNAME=u0', 'PATH=/bin:/usr/bin', 'SENDER=a@b.test', 'TZ=UTC'})])
def test_what_commands_start_with(martlet, scratch, who, driver, mask, environment):
    """Umask and environment; they are those of Debian's Exim 4.96, but for LMTP, which has a umask of 0 there."""
    with open(f'{scratch}/command', 'w') as f:
        f.write(f'(umask; env) > {scratch}/box/$1; test $1 != lmtp || exec echo 554 no; exec cat > {scratch}/box/rest\n')
    os.chmod(f'{scratch}/command', 0o644)
    option = 'transport_filter' if who == 'filter' else 'command'
    m = daemon(martlet, scratch, f'{option} = /bin/sh {scratch}/command {who}' + ('\nfile = @BOX@/x' if who == 'filter' else ''), driver=driver,
               main='add_environment = ADDED=yes\ntimezone = UTC')
    send(m)
    told = read(f'{scratch}/box/{who}').split('\n')
    assert told[0] == mask and environment <= set(told), (told, m.log())
    assert ('ADDED=yes' in environment) == ('ADDED=yes' in told), told


def test_mailstore(martlet, scratch):
    m = daemon(martlet, scratch, 'directory = @BOX@\nmailstore_format\nmailstore_prefix = before\nmailstore_suffix = after')
    send(m)
    files = sorted(os.listdir(f'{scratch}/box'))
    assert [f.rsplit('.', 1)[1] for f in files] == ['env', 'msg'], (files, m.log())
    assert read(f'{scratch}/box/{files[0]}') == 'before\na@b.test\nu0@local.test\nafter\n'


def test_a_file_of_its_own(martlet, scratch):
    m = daemon(martlet, scratch, 'directory = @BOX@\ndirectory_file = one-${length_3:$inode}')
    send(m)
    assert re.fullmatch(r'one-\d{1,3}', ' '.join(os.listdir(f'{scratch}/box'))), m.log()


def test_mbx(martlet, scratch):
    m = daemon(martlet, scratch, 'file = @BOX@/x\nmbx_format')
    send(m)
    assert read(f'{scratch}/box/x').startswith('*mbx*'), m.log()


def test_file_format(martlet, scratch):
    """A file of another format goes to the transport that knows it."""
    m = daemon(martlet, scratch, 'file = @BOX@/x\nfile_format = "From : t : *mbx* : other"',
               transports='other:\n  driver = appendfile\n  user = u5\n  file = @BOX@/elsewhere\n')
    with open(f'{scratch}/box/x', 'w') as f:
        f.write('*mbx*\n')
    os.chmod(f'{scratch}/box/x', 0o600)
    os.chown(f'{scratch}/box/x', m.place.uid('u5'), m.place.uid('u5'))
    send(m)
    assert 'Subject: hi' in read(f'{scratch}/box/elsewhere') and read(f'{scratch}/box/x') == '*mbx*\n', m.log()


def test_quota_that_was_told(martlet, scratch):
    """mailbox_size says how full the mailbox is; nobody measures it."""
    m = daemon(martlet, scratch, 'file = @BOX@/x\nquota = 1M\nmailbox_size = 2M\nquota_warn_threshold = 10K')
    with Client(m.port) as c:
        for line in ('EHLO c', 'MAIL FROM:<a@b.test>', 'RCPT TO:<u0@local.test>', 'DATA'):
            c.cmd(line)
        c.send('Subject: hi\r\n\r\nx\r\n.\r\n')
        assert c.reply()[0] == 250
    m.wait_log(r'== u0@local\.test R=all T=t defer \(-22\): mailbox is full \(MTA-imposed quota exceeded while writing to ')
    assert not os.path.exists(f'{scratch}/box/x') or read(f'{scratch}/box/x') == ''
