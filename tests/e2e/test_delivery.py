"""Local transports and how mailboxes are written: formats, quotas."""
import glob
import os
import re

import pytest

from support.util import read

pytestmark = pytest.mark.plain


@pytest.fixture
def deliver(martlet, scratch):
    """deliver(transport's lines, several transports) -> a Martlet without a daemon whose mail for local users they take."""
    os.makedirs(f'{scratch}/mail', exist_ok=True)
    os.chmod(f'{scratch}/mail', 0o777)

    def make(transport, more='', **gaps):
        return martlet(daemon=False, routers='all:\n  driver = accept\n  domains = +local_domains\n  transport = t',
                       transports='t:\n  driver = ' + transport.strip() + '\n' + more, **gaps)
    return make


def send(m, text='Subject: x\n\nhello\n', to=('u0@local.test',)):
    m.run('-odi', '-f', 'a@b.test', *to, input=text)


def test_new_file_has_the_inode_in_its_name(deliver, scratch):
    m = deliver(f'appendfile\n  directory = {scratch}/mail/new')
    send(m)
    path, = glob.glob(f'{scratch}/mail/new/*')
    name = re.fullmatch(r'q[0-9A-Za-z]{6}-(\d+)', os.path.basename(path))
    assert name and int(name.group(1)) == os.stat(path).st_ino
    text = read(path)
    assert text.startswith('Received: ') and text.endswith('\n\nhello\n') and 'From a@b' not in text


def test_mailstore(deliver, scratch):
    m = deliver(f'appendfile\n  directory = {scratch}/mail/store\n  mailstore_format\n  batch_max = 10\n'
                '  mailstore_prefix = $mailstore_basename\n  mailstore_suffix = ${if eq{1}{2}{x}fail}')
    send(m, to=('u0@local.test', 'u1@local.test'))
    envelope, message = sorted(glob.glob(f'{scratch}/mail/store/*'))
    base = envelope[:-4]
    assert (envelope, message) == (base + '.env', base + '.msg')
    assert read(envelope) == f'{os.path.basename(base)}\na@b.test\nu0@local.test\nu1@local.test\n'
    assert read(message).endswith('\nhello\n')


def test_mbx(deliver, scratch):
    m = deliver(f'appendfile\n  file = {scratch}/mail/mbx\n  mbx_format\n  message_prefix =\n  message_suffix =')
    send(m)
    send(m)
    with open(f'{scratch}/mail/mbx', 'rb') as f:
        data = f.read()
    assert data.startswith(b'*mbx*\r\n') and data[2040:2048] == bytes(8)
    at, found = 2048, 0
    while at < len(data):
        line = re.match(rb'\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d [+-]\d{4},(\d+);0{12}-0{8}\r\n', data[at:])
        assert line, data[at:at + 80]
        text = data[at + line.end():at + line.end() + int(line.group(1))]
        assert text.endswith(b'\r\nhello\r\n') and text.count(b'\n') == text.count(b'\r\n')
        at += line.end() + len(text)
        found += 1
    assert found == 2


def test_maildirsize_is_kept_and_believed(deliver, scratch):
    m = deliver(f'appendfile\n  directory = {scratch}/mail/dir\n  maildir_format\n  maildir_use_size_file\n  quota = 100K\n'
                '  quota_filecount = 3')
    top = f'{scratch}/mail/dir'
    send(m)
    send(m)
    first, *rest = read(f'{top}/maildirsize').splitlines()
    assert first == '102400S,3C'
    sizes = [os.stat(f).st_size for f in glob.glob(f'{top}/new/*')]
    entries = [tuple(map(int, line.split())) for line in rest]
    assert entries[0] == (0, 0) and sorted(e[0] for e in entries[1:]) == sorted(sizes) and all(e[1] == 1 for e in entries[1:])
    # A single entry is believed without a look at the directories; they say something else.
    with open(f'{top}/maildirsize', 'w') as f:
        f.write('102400S,3C\n100000 3\n')
    send(m)
    assert re.search(r'== u0@local\.test R=all T=t defer \(-22\): mailbox is full \(MTA-imposed filecount quota exceeded', m.log())
    # Two entries are not, when it would be too much: the truth is found, and the message fits.
    with open(f'{top}/maildirsize', 'w') as f:
        f.write('102400S,3C\n100000 3\n1 1\n')
    send(m)
    assert len(glob.glob(f'{top}/new/*')) == 3
    assert len(read(f'{top}/maildirsize').splitlines()) == 3


def test_broken_maildirsize_is_made_anew(deliver, scratch):
    m = deliver(f'appendfile\n  directory = {scratch}/mail/dir\n  maildir_format\n  maildir_use_size_file\n  quota = 100K')
    for text in ('', 'x\n', '102400S,0C\n', '102400S,0C\nabc\n', '102400S,0C\n9223372036854775807 1\n', '102400S,0C\n-5 1\n', 'a' * 6000):
        os.makedirs(f'{scratch}/mail/dir', exist_ok=True)
        os.chmod(f'{scratch}/mail/dir', 0o777)
        with open(f'{scratch}/mail/dir/maildirsize', 'w') as f:
            f.write(text)
        os.chmod(f'{scratch}/mail/dir/maildirsize', 0o666)
        before = len(glob.glob(f'{scratch}/mail/dir/new/*'))
        send(m)
        lines = read(f'{scratch}/mail/dir/maildirsize').splitlines()
        assert lines[0] == '102400S,0C' and len(lines) == 3 and lines[1].split()[1] == str(before), (text, lines)


def test_file_of_another_format_is_another_transports(deliver, scratch):
    m = deliver(f'appendfile\n  file = {scratch}/mail/box\n  file_format = "From : t : MAIL : bsmtp"',
                f'bsmtp:\n  driver = appendfile\n  file = {scratch}/mail/box\n  use_bsmtp\n')
    with open(f'{scratch}/mail/box', 'w') as f:
        f.write('MAIL FROM:<>\n')
    os.chown(f'{scratch}/mail/box', *m_owner(m))
    os.chmod(f'{scratch}/mail/box', 0o600)
    send(m)
    assert re.search(r'=> u0 <u0@local\.test> R=all T=bsmtp$', m.log(), re.M), m.log()
    assert 'MAIL FROM:<a@b.test>\nRCPT TO:<u0@local.test>\nDATA\n' in read(f'{scratch}/mail/box')
    assert not os.path.exists(f'{scratch}/mail/box.lock')


def m_owner(m):
    st = os.stat(m.directory + '/spool')
    return st.st_uid, st.st_gid


def test_quota_warning(deliver, scratch):
    m = deliver(
        'appendfile\n  file = %s/mail/box\n  quota = 10K\n  quota_warn_threshold = 50%%\n'
        '  quota_warn_message = "To: u9@local.test\\nSubject: nearly full\\n\\nTidy up.\\n"' % scratch)
    send(m, 'Subject: a\n\n' + ('x' * 70 + '\n') * 50)
    assert 'nearly full' not in read(f'{scratch}/mail/box')
    send(m, 'Subject: b\n\n' + ('x' * 70 + '\n') * 30)
    text = read(f'{scratch}/mail/box')
    assert 'Subject: nearly full\n' in text and 'From: Mail Delivery System <' in text and 'Auto-Submitted: auto-replied\n' in text
    send(m, 'Subject: c\n\n' + 'x\n')
    assert read(f'{scratch}/mail/box').count('nearly full') == 1


LMTP = r'''
import sys
def say(text):
    sys.stdout.write(text + '\r\n')
    sys.stdout.flush()
say('220 ready')
rcpts = []
for line in sys.stdin:
    line = line.rstrip('\r\n')
    if line.startswith('LHLO'):
        say('250-me')
        say('250 IGNOREQUOTA')
    elif line.startswith('RCPT'):
        if 'u3@' in line:
            say('550 5.1.1 no such user')
        else:
            rcpts.append(line)
            say('250 fine')
    elif line == 'DATA':
        say('354 go')
        text = ''
        for line in sys.stdin:
            if line == '.\r\n':
                break
            text += line
        open(sys.argv[1], 'w', newline='').write('\n'.join(rcpts) + '\n' + text)
        for r in rcpts:
            say('452 4.2.2 full' if 'u2@' in r else '250 2.0.0 kept')
    elif line == 'QUIT':
        say('221 bye')
        break
    else:
        say('250 ok')
'''


def test_lmtp_to_a_command(deliver, scratch):
    """Each recipient has its own fate; a transport filter and dots in the text."""
    m = deliver(f"lmtp\n  command = /usr/bin/python3 -c '${{readfile{{{scratch}/lmtp.py}}}}' {scratch}/mail/got\n  batch_max = 10\n"
                "  ignore_quota\n  transport_filter = /bin/sed s/secret/public/")
    with open(f'{scratch}/lmtp.py', 'w') as f:
        f.write(LMTP)
    os.chmod(f'{scratch}/lmtp.py', 0o644)
    send(m, 'Subject: x\n\n.dot\nsecret\n..\n', [f'u{n}@local.test' for n in (1, 2, 3, 4)])
    log = m.log()
    assert re.search(r'=> u1 <u1@local\.test> R=all T=t C="250 2\.0\.0 kept"$', log, re.M), log
    assert re.search(r'-> u4 <u4@local\.test> R=all T=t C="250 2\.0\.0 kept"$', log, re.M), log
    assert re.search(r'== u2@local\.test R=all T=t defer \(-46\): LMTP error after end of data: 452 4\.2\.2 full$', log, re.M), log
    assert re.search(r'\*\* u3@local\.test R=all T=t : LMTP error after RCPT TO:<u3@local\.test>: 550 5\.1\.1 no such user$', log, re.M), log
    with open(f'{scratch}/mail/got', newline='') as f:
        got = f.read()
    assert got.startswith('RCPT TO:<u1@local.test> IGNOREQUOTA\n')
    assert got.endswith('\r\n\r\n..dot\r\npublic\r\n...\r\n')


def test_filter_that_does_not_end(deliver, scratch):
    m = deliver(f'appendfile\n  file = {scratch}/mail/box\n  transport_filter = /bin/sh -c "cat; exec sleep 1000"\n'
                '  transport_filter_timeout = 1s')
    send(m)
    assert re.search(r'== u0@local\.test R=all T=t defer \(110\): Connection timed out: error while writing to /', m.log()), m.log()
    assert read(f'{scratch}/mail/box') == ''


def test_filter_that_reads_nothing(deliver, scratch):
    m = deliver(f'appendfile\n  file = {scratch}/mail/box\n  message_prefix = "start\\n"\n  message_suffix = "end\\n"\n'
                '  check_string = "From "\n  escape_string = "| "\n  transport_filter = /bin/echo From here')
    send(m, 'Subject: x\n\n' + 'long\n' * 100000)
    assert read(f'{scratch}/mail/box') == 'start\n| here\nend\n'


def test_queuefile(deliver, scratch):
    """The copy has this delivery's recipients; moved into a spool it is delivered from there."""
    os.makedirs(f'{scratch}/mail/out', exist_ok=True)
    os.chmod(f'{scratch}/mail/out', 0o777)
    m = deliver(f'queuefile\n  directory = {scratch}/mail/out')
    other = 'u1@elsewhere.test'
    send(m, 'Subject: x\n\nbody text\n', ['u0@local.test', other])
    names = sorted(os.listdir(f'{scratch}/mail/out'))
    ident = names[0][:-2]
    assert names == [ident + '-D', ident + '-H']
    header = read(f'{scratch}/mail/out/{ident}-H')
    assert '\nu0@local.test\n' in header and other not in header.split('\n\n')[0]
    assert read(f'{scratch}/mail/out/{ident}-D') == f'{ident}-D\nbody text\n'
    assert re.search(r'=> u0 <u0@local\.test> R=all T=t$', m.log(), re.M)


def test_iplookup(martlet, scratch):
    """A host that answers by UDP changes addresses; what does not fit the question declines."""
    import socket
    import threading
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('127.0.0.1', 0))

    def serve():
        while True:
            try:
                data, peer = s.recvfrom(4096)
            except OSError:
                return
            user = data.split()[0]
            answers = {b'u1@local.test': b'u2@local.test u1@local.test', b'u3@local.test': b'u4@local.test forged@local.test'}
            s.sendto(answers.get(user, b'x'), peer)
    threading.Thread(target=serve, daemon=True).start()
    m = martlet(daemon=False, routers=f'ask:\n  driver = iplookup\n  domains = +local_domains\n  hosts = 127.0.0.1\n'
                f'  port = {s.getsockname()[1]}\n  timeout = 30s\n')
    out = m.run('-bt', 'u1@local.test', 'u3@local.test')
    s.close()
    assert re.search(r'^u2@local\.test\n    <-- u1@local\.test\n', out, re.M), out
    assert re.search(r'^u3@local\.test\n  router = local_users', out, re.M), out


def report(path_or_text):
    """(subject, {final recipient: (action, original recipient)}, original envelope id, type of the third part) of a notice."""
    import email
    m = email.message_from_string(path_or_text)
    assert m.get_content_type() == 'multipart/report' and m.get_param('report-type') == 'delivery-status'
    text, status, original = m.get_payload()
    assert status.get_content_type() == 'message/delivery-status'
    groups = status.get_payload()
    found = {g['Final-Recipient']: (g['Action'], g['Original-Recipient']) for g in groups[1:]}
    return m['Subject'], found, groups[0]['Original-Envelope-ID'], original.get_content_type()


def test_dsn(martlet, smtp_server):
    """Each recipient's wishes: told here, told by the next hop, or not told at all."""
    from support.smtp import Client
    plain = smtp_server(keywords=('PIPELINING',))
    knows = smtp_server(keywords=('PIPELINING', 'DSN'))
    m = martlet(main='dsn_advertise_hosts = 127.0.0.1', smarthost=f'127.0.0.1::{plain.port}', relay_to='relay.test : knows.test : last.test',
                routers=f'alias:\n  driver = redirect\n  domains = +local_domains\n  local_parts = u5\n  data = u6@local.test, u7@local.test\n'
                f'fails:\n  driver = redirect\n  domains = +local_domains\n  local_parts = u8 : u9\n  allow_fail\n  data = :fail: not today\n'
                f'knows:\n  driver = manualroute\n  domains = knows.test\n  transport = remote_smtp\n  route_list = * 127.0.0.1::{knows.port}\n'
                '  self = send\n'
                f'last:\n  driver = manualroute\n  domains = last.test\n  transport = remote_smtp\n  route_list = * 127.0.0.1::{knows.port}\n'
                '  self = send\n  dsn_lasthop\n')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<u0@local.test> RET=HDRS ENVID=a+2Bb')
        for rcpt in ('u1@local.test> NOTIFY=SUCCESS ORCPT=rfc822;first@local.test', 'u2@local.test> NOTIFY=FAILURE', 'u5@local.test> NOTIFY=SUCCESS',
                     'x@relay.test> NOTIFY=SUCCESS,DELAY', 'y@knows.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;z@b.test', 'v@last.test> NOTIFY=SUCCESS',
                     'u8@local.test> NOTIFY=NEVER', 'u9@local.test> NOTIFY=DELAY'):
            c.expect(250, f'RCPT TO:<{rcpt}')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nhello\r\n.\r\n')
        assert c.reply()[0] == 250
    subject, found, envelope, kind = report(m.wait_mail('u0')[0].decode())
    assert subject == 'Delivery Status Notification' and envelope == 'a+b' and kind == 'text/rfc822-headers'
    assert found == {'rfc822;u1@local.test': ('delivered', 'rfc822;first@local.test'), 'rfc822;u5@local.test': ('expanded', None),
                     'rfc822;x@relay.test': ('relayed', None), 'rfc822;v@last.test': ('relayed', None)}
    m.wait_empty()
    assert len(m.wait_mail('u0')) == 1
    assert any(x == 'MAIL FROM:<u0@local.test> RET=HDRS ENVID=a+2Bb' for x in knows.commands), knows.commands
    assert 'RCPT TO:<y@knows.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;z@b.test' in knows.commands
    assert 'RCPT TO:<v@last.test>' in knows.commands and 'RCPT TO:<x@relay.test>' in plain.commands
    for n in (8, 9):
        m.wait_log(rf'u{n}@local\.test.*: error ignored: RFC 3461 DSN, failure notify not requested')


def test_events(martlet, smtp_server):
    """Each event once, in its order, with its data; a text in answer to tcp:connect keeps from connecting."""
    s = smtp_server({'RCPT': lambda line, session: '550 5.1.1 no' if 'bad' in line else '451 4.2.0 later' if 'late' in line else None})
    log = '${acl {ev_log}}'
    veto = '${if and{{eq{$event_name}{tcp:connect}}{eq{$local_part}{stop}}}{no}{%s}}' % log
    m = martlet(daemon=False, main=f'event_action = {log}', smarthost=f'127.0.0.1::{s.port}', client=f'event_action = {veto}',
                acl='ev_log:\n  accept logwrite = event $event_name <$event_data> $event_defer_errno $local_part')

    def events(to):
        start = len(m.log())
        m.run('-odi', '-f', 'a@b.test', to, input='Subject: x\n\nhello\n')
        return re.findall(r'event (\S+) <([^<>]*)> (\S+) ?(\S*)$', m.log()[start:], re.M)
    got = events('good@relay.test')
    assert [e[0] for e in got] == ['tcp:connect', 'smtp:connect', 'smtp:ehlo', 'tcp:close', 'msg:delivery', 'msg:complete'], got
    assert ('msg:delivery', '250 kept', '0', 'good') in got and ('smtp:connect', '220 sink.test ESMTP', '0', 'good') in got
    got = events('late@relay.test')
    assert re.search(rf'event msg:rcpt:defer <SMTP error from .*: 451 4\.2\.0 later> {51 * 256 + 65} late$', m.log(), re.M), m.log()
    sessions = s.sessions
    assert events('stop@relay.test') == []
    assert s.sessions == sessions and re.search(r'== stop@relay\.test R=relay T=remote_smtp defer \(-58\)', m.log())
