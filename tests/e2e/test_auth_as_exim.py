"""Authenticators beside Exim 4.96: exchanges that go another way than they should, on both sides."""
import hmac
import re

import pytest

from support.sasl import b64
from support.smtp import Client
from support.util import read, write

SERVER = '''
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = OPTION
  server_set_id = $auth2
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = secret
  server_set_id = <$auth1>
'''


def session(martlet, *lines, condition='yes', main='', acl=''):
    m = martlet(daemon=False, main=main, acl=acl, authenticators=SERVER.replace('OPTION', condition))
    return m, m.run('-bs', '-oMa', '192.0.2.1', input='\r\n'.join(['EHLO x', *lines, 'QUIT', '']))


@pytest.mark.parametrize('value, code', [('yes', '235'), ('" yes "', '435'), ('" no "', '435'), ('""', '535'), ('2', '435')])
def test_values_of_server_condition(martlet, value, code):
    """What is neither yes nor no defers: blanks around it count."""
    m, out = session(martlet, 'AUTH PLAIN ' + b64('\0user\0secret'), condition=value)
    assert f'\r\n{code} ' in out


def test_blanks_behind_the_name(martlet):
    m, out = session(martlet, 'AUTH CRAM-MD5', b64('user  ' + '0' * 32))
    assert '535 Incorrect' in out and '(set_id=<user>)' in m.log()


@pytest.mark.parametrize('verb, text', [('defer message = later', ': later'), ('drop', '')])
def test_mailauth_acl_that_defers(martlet, verb, text):
    """The log line says which ACL it was, with the whole of the command."""
    m = martlet(daemon=False, main='acl_smtp_mailauth = mailauth', acl='mailauth:\n  ' + verb + '\n', authenticators=SERVER.replace('OPTION', 'yes'),
                allow_panic='verb not allowed')
    out = m.run('-bs', '-oMa', '192.0.2.1', input='EHLO x\r\nMAIL FROM:<a@b.test> AUTH=q@w.test\r\nQUIT\r\n')
    assert '\r\n451 ' in out
    assert f'temporarily rejected MAILAUTH <a@b.test> AUTH=q@w.test{text}\n' in m.log()


CLIENT = {
    'PLAIN': 'c:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = ^u^p\n',
    'CRAM-MD5': 'c:\n  driver = cram_md5\n  public_name = CRAM-MD5\n  client_name = u\n  client_secret = p\n',
    'EXTERNAL': 'c:\n  driver = external\n  public_name = EXTERNAL\n  client_send = u\n',
}


DIGEST = b64('u ' + hmac.new(b'p', b'<1@x>', 'md5').hexdigest())


@pytest.mark.parametrize('mechanism, answers, log, sent', [
    ('PLAIN', {'AUTH': '334 T25l'}, 'defer (0) H=127.0.0.1 [127.0.0.1]: SMTP error from remote mail server after AUTH PLAIN ********: 334 T25l', False),
    ('PLAIN', {'AUTH': '334 ', '*': '501 cancelled'}, 'c authenticator cancelled authentication H=127.0.0.1 [127.0.0.1] '
     'Invalid base64 string in server response "334"', True),
    ('PLAIN', {'AUTH': '535 no'}, 'c authenticator failed H=127.0.0.1 [127.0.0.1] 535 no', True),
    ('CRAM-MD5', {'AUTH': '334 ' + b64('<1@x>'), DIGEST.upper(): '334 YQ=='}, '*: 334 YQ==', False),
    ('CRAM-MD5', {'AUTH': '235 welcome'}, 'SMTP error from remote mail server after AUTH CRAM-MD5: 235 welcome', False),
    ('EXTERNAL', {'AUTH': '334 ', '*': '501 cancelled'}, 'defer (-48): Too few items in client_send in c authenticator', False),
])
def test_servers_that_ask_too_much_or_too_little(martlet, smtp_server, mechanism, answers, log, sent):
    """Out of step means later, not in clear."""
    s = smtp_server(answers, keywords=['AUTH ' + mechanism])
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client='hosts_try_auth = *', retry='* * F,1h,1h', authenticators=CLIENT[mechanism])
    m.run('-odi', '-f', 'a@b.test', 'x@relay.test', input='Subject: x\n\nx\n')
    assert log in m.log()
    assert (' => x@relay.test' in m.log()) == sent and ('A=c' in m.log()) is False


def test_session_without_a_message(martlet):
    """The line about it has A=, as an arrival's has."""
    m, out = session(martlet, 'AUTH PLAIN ' + b64('\0user\0secret'), main='log_selector = +smtp_no_mail\n')
    assert re.search(r'no MAIL in SMTP connection from \(x\) \[192\.0\.2\.1\] U=\S+ D=\S+ A=plain:user C=EHLO,AUTH,QUIT\n', m.log())


def test_encrypted_session_without_a_message(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='log_selector = +smtp_no_mail +tls_sni\n')
    with Client(m.port) as c:
        c.ehlo()
        c.starttls(name='mx.martlet.test')
        c.ehlo()
        c.cmd('QUIT')
    m.wait_log('no MAIL in SMTP connection')
    assert re.search(r'no MAIL in SMTP connection from .*\[127\.0\.0\.1\] D=\S+ X=TLS1\S+ (CV=no )?SNI=mx\.martlet\.test C=EHLO,STARTTLS,EHLO,QUIT\n', m.log())


def test_authenticated_sender_in_authresults(martlet):
    m, out = session(martlet, 'AUTH PLAIN ' + b64('\0user\0secret'), 'MAIL FROM:<a@b.test> AUTH=q@w.test', main='acl_smtp_mail = mail\n',
                     acl='mail:\n  accept logwrite = ${authresults{mx}}\n')
    assert 'auth=pass (PLAIN) smtp.auth=user smtp.mailfrom=q@w.test' in m.log()


def test_mechanism_is_kept_with_the_message(martlet):
    """By its public name, in Exim's line of the spool file: the authenticator may be gone when the message is delivered."""
    m = martlet(daemon=False, authenticators=SERVER.replace('OPTION', 'yes'), routers='all:\n  driver = accept\n  transport = t\n',
                transports='t:\n  driver = appendfile\n  file = @DIR@/mail/box\n  headers_add = ${authresults{mx}}\n')
    m.run('-odq', '-bs', '-oMa', '192.0.2.1', input='\r\n'.join([
        'EHLO x', 'AUTH PLAIN ' + b64('\0user\0secret'), 'MAIL FROM:<a@b.test>', 'RCPT TO:<u0@local.test>', 'DATA', 'Subject: x', '', 'x', '.',
        'QUIT', '']))
    message, = m.queue()
    header = m.run('-Mvh', message)
    assert re.search(r'^-host_auth (?!PLAIN$)(\S+)\n-host_auth_pubname PLAIN$', header, re.M), header
    name = re.search(r'^-host_auth (\S+)$', header, re.M).group(1)
    text = read(m.conf)
    assert f'\n{name}:\n' in text
    write(m.conf, text.replace(f'\n{name}:\n', '\nrenamed:\n'))
    m.run('-M', message)
    assert 'auth=pass (PLAIN) smtp.auth=user' in read(f'{m.directory}/mail/box'), m.logs()


def test_submission_mode_tells_the_sender_it_makes(martlet):
    """With the selector address_rewrite, when it is another one."""
    for sender, told in (('a@b.test', True), ('user@d.test', False)):
        m = martlet(daemon=False, main='log_selector = +address_rewrite\n', authenticators=SERVER.replace('OPTION', 'yes'),
                    acl_rcpt='accept control = submission/domain=d.test')
        m.run('-odq', '-bs', '-oMa', '192.0.2.1', input='\r\n'.join([
            'EHLO x', 'AUTH PLAIN ' + b64('\0user\0secret'), f'MAIL FROM:<{sender}>', 'RCPT TO:<u0@local.test>', 'DATA', 'Subject: x', '', 'x', '.',
            'QUIT', '']))
        assert ' <= user@d.test ' in m.log()
        assert ('"a@b.test" from env-from rewritten as "user@d.test" by submission mode' in m.log()) == told
