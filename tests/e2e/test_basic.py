"""The main job: mail comes in, is queued, and goes where the configuration says."""
import re
import subprocess

import pytest

from support.martlet import ID
from support.postfix import Source
from support.smtp import Client
from support.util import maildir, wait_for

pytestmark = pytest.mark.plain


def swaks(port, *args):
    return subprocess.run(['swaks', '--server', '127.0.0.1', '--port', str(port), '--helo', 'client.test', *args],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_swaks_to_maildir(martlet):
    m = martlet()
    done = swaks(m.port, '--from', 'a@b.test', '--to', 'u0@local.test', '--body', 'hello there')
    assert done.returncode == 0, done.stdout
    text = m.wait_mail('u0')[0].decode()
    assert text.startswith('Return-path: <a@b.test>\n')
    assert 'Envelope-to: u0@local.test\n' in text
    assert re.search(r'^Received: from \[?client\.test|^Received: from .*127\.0\.0\.1', text, re.M), text
    assert text.rstrip('\n').endswith('hello there')
    m.wait_empty()
    ident = re.search(r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (' + ID + r') <= a@b\.test H=', m.log(), re.M)
    assert ident, m.log()
    m.wait_log(re.escape(ident.group(1)) + r' => u0 <u0@local\.test> R=local_users T=maildir$')
    m.wait_log(re.escape(ident.group(1)) + r' Completed$')
    wait_for(lambda: m.spool_files() == [], lambda: str(m.spool_files()))


def test_many_recipients_of_one_message(martlet):
    m = martlet()
    with Client(m.port) as c:
        assert c.mail('a@b.test', *[f'u{n}@local.test' for n in range(10)])[0] == 250
    for n in range(10):
        m.wait_mail(f'u{n}')
    m.wait_empty()


def test_several_messages_in_a_session(martlet):
    m = martlet()
    with Client(m.port) as c:
        c.ehlo()
        for n in range(5):
            assert c.mail('a@b.test', 'u0@local.test', data=f'Subject: {n}\r\n\r\nx\r\n', hello=False)[0] == 250
        c.expect(221, 'QUIT')
        assert c.at_end()
    assert len(m.wait_mail('u0', 5)) == 5


def test_unknown_user_and_no_relay(martlet):
    m = martlet()
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('RCPT TO:<nobody-here@local.test>') == (550, 'unknown user')
        assert c.cmd('RCPT TO:<a@elsewhere.test>') == (550, 'relay not permitted')
        assert c.cmd('DATA')[0] == 503
        c.expect(221, 'QUIT')
    m.wait_log(r'H=\(client\.test\) \[127\.0\.0\.1\] F=<a@b\.test> rejected RCPT <a@elsewhere\.test>: relay not permitted', 'reject')


def test_source_to_maildir(martlet, peers):
    m = martlet()
    Source.run(peers, m.port, 'u1@local.test', 200, sessions=20)
    assert len(m.wait_mail('u1', 200)) == 200
    m.wait_empty()


def test_relay_to_sink(martlet, peers, sink):
    s = sink()
    m = martlet(smarthost=f'127.0.0.1::{s.port}')
    Source.run(peers, m.port, 'x@relay.test', 100, sessions=10)
    m.wait_log(r' => x@relay\.test ', count=100)
    m.wait_empty()


def test_body_arrives_unchanged(martlet):
    m = martlet()
    lines = ['', '.', '..', '. x', ' ', 'x' * 998, '\xe4\xf6', 'From here', 'tab\there', '']
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> BODY=8BITMIME')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\n\r\n' + '\r\n'.join(lines) + '\r\n')[0] == 250
    text = m.wait_mail('u0')[0].decode('latin-1')
    assert text.split('\n\n', 1)[1] == '\n'.join(lines) + '\n'


def test_chunking(martlet):
    m = martlet()
    with Client(m.port) as c:
        assert 'CHUNKING' in c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.send(b'BDAT 18\r\nSubject: x\r\n\r\n.a\r\n')
        assert c.reply()[0] == 250
        c.send(b'BDAT 5 LAST\r\n..b\r\n')
        assert c.reply()[0] == 250
        c.expect(221, 'QUIT')
    assert m.wait_mail('u0')[0].decode().endswith('\n\n.a\n..b\n')


def test_pipelining(martlet):
    m = martlet()
    with Client(m.port) as c:
        assert 'PIPELINING' in c.ehlo()
        c.send('MAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nRCPT TO:<none@local.test>\r\nRCPT TO:<u1@local.test>\r\nDATA\r\n')
        assert [c.reply()[0] for _ in range(5)] == [250, 250, 550, 250, 354]
        c.send('Subject: x\r\n\r\nx\r\n.\r\nMAIL FROM:<a@b.test>\r\nRSET\r\nQUIT\r\n')
        assert [c.reply()[0] for _ in range(4)] == [250, 250, 250, 221]
    m.wait_mail('u0')
    m.wait_mail('u1')


def test_starttls_in(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='log_selector = +tls_cipher')
    done = swaks(m.port, '--from', 'a@b.test', '--to', 'u0@local.test', '--tls', '--tls-verify', '--tls-ca-path',
                 authority.certificate)
    assert done.returncode == 0, done.stdout
    assert 'with esmtps' in m.wait_mail('u0')[0].decode()
    m.wait_log(r' <= a@b\.test .* P=esmtps X=TLS1\.[23]:')


def test_tls_on_connect(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='tls_on_connect_ports = @PORT@')
    done = swaks(m.port, '--from', 'a@b.test', '--to', 'u0@local.test', '--tlsc')
    assert done.returncode == 0, done.stdout
    m.wait_mail('u0')


AUTH = '''
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{tester}}{eq{$auth3}{secret}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{tester}}{eq{$auth2}{secret}}}}
  server_set_id = $auth1
'''


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN'])
def test_auth_in(martlet, mechanism):
    m = martlet(authenticators=AUTH, acl_rcpt='  accept authenticated = *\n', smarthost='127.0.0.1::1')
    args = ['--from', 'a@b.test', '--to', 'u0@local.test', '--auth', mechanism, '--auth-user', 'tester', '--auth-password']
    assert swaks(m.port, *args, 'wrong').returncode == 28
    m.wait_log(r'authenticator failed for .*: 535 Incorrect authentication data')
    done = swaks(m.port, *args, 'secret')
    assert done.returncode == 0, done.stdout
    m.wait_log(rf' <= a@b\.test .* A={mechanism.lower()}:tester ')


def test_relay_to_exim_over_tls_with_auth(martlet, exim, authority):
    e = exim(tls=authority.issue('exim.test'), acl='  deny !authenticated = *\n')
    m = martlet(smarthost=f'127.0.0.1::{e.port}', relay_to='exim.test',
                client='hosts_require_tls = *\n  hosts_require_auth = *',
                authenticators='plain:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = ^tester^secret\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@exim.test', data='Subject: x\r\n\r\nto exim\r\n')[0] == 250
    wait_for(lambda: maildir(e.maildir('u1')), lambda: m.logs() + e.log())
    m.wait_log(r' => u1@exim\.test R=relay T=remote_smtp H=127\.0\.0\.1 \[127\.0\.0\.1\].* X=TLS1\.[23]:\S+ .*A=plain .*C="250')


def test_relay_to_postfix_over_tls(martlet, postfix, authority):
    p = postfix(tls=authority.issue('postfix.test'))
    m = martlet(smarthost=f'127.0.0.1::{p.port}', relay_to='postfix.test', client='hosts_require_tls = *')
    with Client(m.port) as c:
        for n in range(3):
            assert c.mail('a@b.test', 'u1@postfix.test', 'u2@postfix.test', data='Subject: x\r\n\r\nto postfix\r\n')[0] == 250
    wait_for(lambda: len(maildir(p.maildir('u1'))) == 3 and len(maildir(p.maildir('u2'))) == 3, lambda: m.logs() + p.log())


def test_from_exim_over_tls(martlet, exim, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'))
    e = exim(smarthost=f'127.0.0.1::{m.port}', client='hosts_require_tls = *')
    with Client(e.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nfrom exim\r\n')[0] == 250
    assert b'from exim' in m.wait_mail('u0')[0]


def test_from_postfix_over_tls(martlet, postfix, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'))
    p = postfix(relayhost=f'[127.0.0.1]:{m.port}', client_tls='encrypt')
    with Client(p.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nfrom postfix\r\n')[0] == 250
    assert b'from postfix' in m.wait_mail('u0')[0]


def test_deferred_then_delivered(martlet, smtp_server):
    s = smtp_server({'RCPT': ['450 4.2.0 later', None]})
    m = martlet(smarthost=f'127.0.0.1::{s.port}', arguments=['-q1s'], retry='* * F,1h,1s')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@relay.test')[0] == 250
    m.wait_log(r' == x@relay\.test R=relay T=remote_smtp defer \(-44\)')
    m.wait_log(r' => x@relay\.test R=relay T=remote_smtp ')
    m.wait_empty()
    assert len(s.messages) == 1


def test_refused_message_bounces(martlet, smtp_server):
    s = smtp_server({'RCPT': '550 5.1.1 no such user here'})
    m = martlet(smarthost=f'127.0.0.1::{s.port}')
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'x@relay.test', data='Subject: original\r\n\r\nx\r\n')[0] == 250
    bounce = m.wait_mail('u0')[0].decode()
    assert 'From: Mail Delivery System <Mailer-Daemon@mx.martlet.test>' in bounce
    assert 'x@relay.test' in bounce and '550 5.1.1 no such user here' in bounce and 'Subject: original' in bounce
    assert 'Return-path: <>' in bounce
    m.wait_log(r' \*\* x@relay\.test R=relay T=remote_smtp .*550 5\.1\.1 no such user here')
    m.wait_log(r' <= <> R=' + ID + r' U=\S+ P=local ')
    m.wait_empty()


def test_next_host_when_the_first_fails(martlet, smtp_server):
    bad, good = smtp_server({'CONNECT': 'DROP'}), smtp_server()
    m = martlet(smarthost=f'"<+ 127.0.0.1:{bad.port} + 127.0.0.1:{good.port}"')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@relay.test')[0] == 250
    wait_for(lambda: good.messages, m.logs)
    m.wait_empty()


def test_aliases_fail_blackhole_pipe_and_file(martlet):
    m = martlet(routers=r'''
aliases:
  driver = redirect
  domains = +local_domains
  data = ${lookup{$local_part}lsearch{@DIR@/aliases}}
  file_transport = to_file
  pipe_transport = to_pipe
  allow_fail
  allow_defer
''', acl_rcpt='  accept domains = +local_domains\n', transports=r'''
to_file:
  driver = appendfile
to_pipe:
  driver = pipe
  path = /usr/bin:/bin
''')
    d = m.directory
    with open(d + '/aliases', 'w') as f:
        f.write(f'both: u0@local.test, u1@local.test\nbad: :fail: gone for good\nhole: :blackhole:\nfile: {d}/mail/box\n'
                f'pipe: "|/bin/sh -c \'cat >{d}/mail/piped\'"\nloop: both, loop\nlater: :defer: not now\n')
    with Client(m.port) as c:
        assert c.mail('u2@local.test', *[f'{n}@local.test' for n in ('both', 'bad', 'hole', 'file', 'pipe', 'later')])[0] == 250
    m.wait_mail('u0')
    m.wait_mail('u1')
    assert 'gone for good' in m.wait_mail('u2')[0].decode()
    m.wait_log(r' => :blackhole: <hole@local\.test> R=aliases')
    m.wait_log(rf' => {re.escape(d)}/mail/box <file@local\.test> R=aliases T=to_file')
    m.wait_log(r' => \|/bin/sh -c .* <pipe@local\.test> R=aliases T=to_pipe')
    m.wait_log(r' == later@local\.test R=aliases defer \(-\d+\): not now')
    with open(d + '/mail/box') as f:
        assert re.match(r'From u2@local\.test [A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\n', f.read())
    with open(d + '/mail/piped') as f:
        assert 'Subject: test' in f.read()
    wait_for(lambda: len(m.queue()) == 1, m.logs)


def test_sendmail_way_and_queue_commands(martlet):
    # No -q: the run that follows the start would deliver what the test wants to find queued.
    m = martlet(acl='', arguments=[])
    m.run('-odq', '-f', 'a@b.test', 'u0@local.test', input='Subject: queued\n\nlater\n')
    ident, = m.queue()
    listing = m.run('-bp')
    assert ident in listing and '<a@b.test>' in listing and 'u0@local.test' in listing
    assert m.run('-bpc').strip() == '1'
    assert 'Subject: queued' in m.run('-Mvh', ident)
    assert 'later' in m.run('-Mvb', ident)
    m.run('-Mf', ident)
    assert '*** frozen ***' in m.run('-bp')
    m.run('-Mt', ident)
    m.run('-M', ident)
    assert b'Subject: queued' in m.wait_mail('u0')[0]
    m.wait_empty()
    m.run('-odq', 'u0@local.test', input='Subject: removed\n\nx\n')
    ident, = m.queue()
    m.run('-Mrm', ident)
    assert m.queue() == []
    m.wait_log(re.escape(ident) + r' removed by ')


def test_extract_recipients_from_headers(martlet):
    m = martlet()
    m.run('-t', '-odi', input='To: u0@local.test, U One <u1@local.test>\nCc: u2@local.test\nBcc: u3@local.test\nSubject: t\n\nx\n')
    for n in range(4):
        text = m.wait_mail(f'u{n}')[0].decode()
        assert 'Bcc:' not in text and 'Cc: u2@local.test' in text


def test_queue_run_delivers_what_was_queued(martlet):
    m = martlet(arguments=[])
    for n in range(5):
        m.run('-odq', f'u{n}@local.test', input=f'Subject: {n}\n\nx\n')
    assert len(m.queue()) == 5
    m.run('-q')
    for n in range(5):
        m.wait_mail(f'u{n}')
    m.wait_empty()


def test_smtp_on_standard_input(martlet):
    m = martlet(daemon=False)
    out = m.run('-bs', '-odi', input='EHLO me\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\nSubject: bs\r\n\r\nx\r\n.\r\nQUIT\r\n')
    assert [line[:3] for line in out.split('\r\n') if line][-1] == '221', out
    assert b'Subject: bs' in m.wait_mail('u0')[0]


def test_session_test_mode(martlet):
    m = martlet(daemon=False)
    out = m.run('-bh', '192.0.2.9', input='EHLO me\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@far.test>\r\nRCPT TO:<u0@local.test>\r\nQUIT\r\n', err=False)
    assert '550 relay not permitted' in out and '221' in out
    assert m.queue() == []


def test_address_test_modes(martlet):
    m = martlet(daemon=False)
    out = m.run('-bt', 'u0@local.test')
    assert 'u0@local.test' in out and 'router = local_users, transport = maildir' in out
    done = m.run('-bt', 'nobody@local.test', check=False)
    assert done.returncode == 2 and 'is undeliverable' in done.stdout
    assert 'verified' in m.run('-bv', 'u0@local.test')


def test_expansion_mode(martlet):
    m = martlet(daemon=False)
    assert m.expand('${uc:abc}-${lookup{u3}lsearch{@DIR@/users}{$value}{no}}'.replace('@DIR@', m.directory)) == 'ABC-u3'


def test_sessions_go_on_while_reloading(martlet):
    m = martlet()
    with Client(m.port) as c:
        c.ehlo()
        m.reload()
        m.wait_log(r'SIGHUP received|daemon started', count=2)
        assert c.mail('a@b.test', 'u0@local.test', hello=False)[0] == 250
    m.wait_mail('u0')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    m.wait_mail('u1')


def test_several_ports_and_interfaces(martlet, tmp_path):
    from support.util import free_port
    other = free_port()
    m = martlet(interfaces=f'<; 127.0.0.1 ; 127.0.0.1.{other} ; 127.0.0.3')
    for port, address in ((m.port, '127.0.0.1'), (other, '127.0.0.1'), (m.port, '127.0.0.3')):
        with Client(port, address) as c:
            assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0', 3)
