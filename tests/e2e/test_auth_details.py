"""AUTH: what is offered after it, the AUTH parameter of MAIL, what the log tells of a deferral."""
import pytest

from support.sasl import b64

PLAIN = '''
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = OPTION
  server_set_id = $auth2
'''
MAIL = 'mail:\n  accept logwrite = sender <$authenticated_sender> by <$sender_host_authenticated>\n'


def session(martlet, condition, *lines, more=''):
    m = martlet(daemon=False, main='acl_smtp_mail = mail', acl=MAIL, authenticators=PLAIN.replace('OPTION', condition) + more, allow_panic='to expand')
    return m, m.run('-bs', '-oMa', '192.0.2.1', input='\r\n'.join(['EHLO x', *lines, 'QUIT', '']))


GOOD = 'AUTH PLAIN ' + b64('\0user\0secret')


def test_not_offered_to_who_has_authenticated(martlet):
    m, out = session(martlet, 'yes', GOOD, 'EHLO x', GOOD)
    first, second = out.split('235 Authentication succeeded')
    assert '250-AUTH PLAIN' in first and '250-AUTH' not in second and '503 AUTH command used when not advertised' in second


def test_empty_parameter_of_mail(martlet):
    """AUTH= is nobody, as AUTH=<> is."""
    m, out = session(martlet, 'yes', 'MAIL FROM:<a@b.test> AUTH=', 'RSET', GOOD, 'MAIL FROM:<a@b.test> AUTH=', 'RSET', 'MAIL FROM:<a@b.test> AUTH=+')
    assert out.count('250 OK') == 2 and '501 invalid data for AUTH' in out
    assert [line.split(' ', 2)[2] for line in m.log().split('\n') if 'sender <' in line] == ['sender <> by <>', 'sender <> by <plain>']


def test_server_mail_auth_condition_that_fails(martlet):
    """The log says who tried; an expansion that fails has a line of its own."""
    for condition, why in (('no', ''), ('${if eq{a}', 'failed to expand condition "${if eq{a}" for plain authenticator: missing 2nd string in {}')):
        m, out = session(martlet, 'yes', GOOD, 'MAIL FROM:<a@b.test> AUTH=c@d', more=f'  server_mail_auth_condition = {condition}\n')
        assert out.count('250 OK') == 1 and 'sender <> by <plain>' in m.log()
        assert 'ignoring AUTH=c@d from H=(x) [192.0.2.1]' in m.log()
        assert '(server_mail_auth_condition failed: authenticated ID="user")' in m.log()
        assert why in m.log('panic')


def test_deferral_names_the_user_not_the_password(martlet):
    """What server_set_id shows anyway stays in the text of server_condition; a password does not."""
    m, out = session(martlet, 'user $auth2 with $auth3 is suspended', GOOD)
    assert '435 Unable to authenticate at present' in out
    assert '435 Unable to authenticate at present (set_id=user): user user with $auth3 is suspended' in m.log()
    assert 'secret' not in m.log()


CLIENT = 'c:\n driver = plaintext\n public_name = PLAIN\n client_send = {}\n'


def client(martlet, smtp_server, send, answers='235 ok', options='hosts_try_auth = *', keywords=('AUTH PLAIN',), more='', arguments=('-f', 'a@b.test')):
    s = smtp_server({'AUTH': answers, '*': '501 cancelled'}, keywords=list(keywords))
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client=options, retry='* * F,1h,1h', authenticators=CLIENT.format(send) + more,
                allow_panic='to expand')
    m.run('-odi', *arguments, 'x@relay.test', input='Subject: x\n\nx\n')
    return m, s


@pytest.mark.parametrize('reply', ['454 later', 'DROP'])
def test_secrets_are_masked_in_errors(martlet, smtp_server, reply):
    m, s = client(martlet, smtp_server, '^user^pass', reply)
    assert 'AUTH PLAIN ****************' + (': 454 later' if reply != 'DROP' else '') in m.log()


def test_no_common_mechanism(martlet, smtp_server):
    m, s = client(martlet, smtp_server, '^u^p', options='hosts_require_auth = *', keywords=['AUTH LOGIN'])
    assert 'defer (-42): authentication required but no common mechanisms were found' in m.log()


@pytest.mark.parametrize('send, required, log', [
    ('${if eq{a}{b}{x}fail}', False, '=> x@relay.test'),
    ('${if eq{a}{b}{x}fail}', True, 'defer (-42): authentication required but authentication attempt(s) failed'),
    ('${if eq{a}', False, 'defer (-48): expansion of "${if eq{a}" failed in c authenticator: missing 2nd string'),
    (': ${if eq{a}{b}{x}fail}', False, '=> x@relay.test'),
    (': ${if eq{a}', False, 'defer (-48): expansion of "${if eq{a}" failed in c authenticator: missing 2nd string')])
def test_client_send_that_does_not_expand(martlet, smtp_server, send, required, log):
    """A forced failure passes to the next authenticator without a line in the log; what has begun is cancelled."""
    m, s = client(martlet, smtp_server, send, '334 YQ==', options=f'hosts_{"require" if required else "try"}_auth = *')
    assert log in m.log() and 'cancelled authentication' not in m.log()
    assert ('*' in s.commands) == send.startswith(':')


def test_answers_that_are_no_base64(martlet, smtp_server):
    m, s = client(martlet, smtp_server, ': x', '334 !!!')
    assert 'c authenticator cancelled authentication H=127.0.0.1 [127.0.0.1] Invalid base64 string in server response "334 !!!"' in m.log()


@pytest.mark.parametrize('value, parameter', [('q@w.test', 'q@w.test'), ('${if eq{a}{b}{x}fail}', 's@t.test'), ('', 's@t.test'), ('${if eq{a}', None)])
def test_authenticated_sender(martlet, smtp_server, value, parameter):
    """What is empty or forced to fail is as if it were not set; another failure defers, without AUTH, too."""
    for send, try_auth in (('^u^p', '*'), ('^u^p', ':')):
        m, s = client(martlet, smtp_server, send, options=f'hosts_try_auth = {try_auth}\n  authenticated_sender = {value}',
                      arguments=('-oMas', 's@t.test', '-f', 'a@b.test'))
        if parameter is None:
            assert 'defer (-27): failed to expand authenticated_sender: missing 2nd string' in m.log()
            assert not any(line.startswith('MAIL') for line in s.commands)
        else:
            assert ('=> x@relay.test' in m.log()) and any(line.startswith('MAIL') and line.endswith(f' AUTH={parameter}') for line in s.commands) == (try_auth == '*')


def test_who_is_trusted_speaks_for_others(martlet):
    """The login name is the authenticated id of a local caller, but not of a trusted one who gives a sender."""
    m = martlet(daemon=False, main='acl_not_smtp = local\nacl_smtp_data = local', acl='local:\n  accept logwrite = id <$authenticated_id> '
                'sender <$authenticated_sender>\n')
    m.run('-odq', 'u0@local.test', input='Subject: x\n\nx\n')
    m.run('-odq', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nx\n')
    m.run('-odq', '-bs', input='EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n')
    m.run('-bs', '-odq', '-oMa', '192.0.2.1', '-oMaa', 'some', '-oMai', 'me',
          input='EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n')
    ids = [line.split('id <')[1] for line in m.log().split('\n') if 'id <' in line]
    assert ids[0] != '> sender <>' and ids[1:] == ['> sender <>', '> sender <>', 'me> sender <>'], m.log()
    assert 'P=esmtpa A=some:me' in m.log()
