"""AUTH with real partners: Dovecot's service, the tools of GNU SASL and Cyrus SASL, Kerberos, and our own client."""
import os
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from support.databases import Database, program
from support.exim import Exim
from support.sasl import Dovecot, b64, cram, do_cram, do_login, do_plain, do_scram, plain
from support.smtp import Client
from support.util import read, wait_for, write

pytestmark = pytest.mark.plain

USERS = {'fred': ('secret', ''), 'mary': ('other', ''), 'off': ('secret', 'nologin=y'), 'denied': ('secret', '')}
MECHANISMS = ('PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-1', 'SCRAM-SHA-256')
DO = {'PLAIN': do_plain, 'LOGIN': do_login, 'CRAM-MD5': do_cram,
      'SCRAM-SHA-1': lambda c, u, p: do_scram(c, u, p, 'sha1'), 'SCRAM-SHA-256': do_scram}


def dovecot_authenticators(socket, more=''):
    return '\n'.join(f'''
dovecot_{m.replace('-', '_').lower()}:
  driver = dovecot
  public_name = {m}
  server_socket = {socket}
  server_set_id = $auth1
  {more}''' for m in MECHANISMS)


@pytest.fixture
def dovecot(make, authority):
    if Dovecot.program is None:
        pytest.skip('Dovecot is not installed')

    def start(name='localhost', **kw):
        return make(Dovecot, USERS, authority.issue(name), denied=['denied'], **kw)
    return start


def check_all(m, dovecot):
    """Each mechanism takes the right password, and no other."""
    for name in MECHANISMS:
        for user, password, want in (('fred', 'secret', 235), ('fred', 'wrong', 535), ('nobody-else', 'secret', 535), ('denied', 'secret', 535),
                                     ('off', 'secret', 535)):
            with Client(m.port) as c:
                c.ehlo()
                got = DO[name](c, user, password)
                assert got[0] == want, f'{name} {user} {password}: {got} {m.logs()}'
    for name in MECHANISMS:
        m.wait_log(rf'dovecot_{name.replace("-", "_").lower()} authenticator failed for H=\(client.test\) \[127.0.0.1\][^\n]*: '
                   r'535 Incorrect authentication data \(set_id=fred\)')
    assert 'secret' not in m.logs()


@pytest.mark.parametrize('kind', ['unix', 'inet', 'tls', 'tls6', 'list'])
def test_dovecot(martlet, dovecot, authority, kind):
    d = dovecot('localhost', )
    socket = {'unix': d.path, 'inet': f'127.0.0.1 {d.port}', 'tls': f'localhost {d.tls_port}', 'tls6': f'localhost\t {d.tls_port}',
              'list': f'/nowhere/auth : 127.0.0.1 1 : {d.path}'}[kind]
    tls = kind.startswith('tls')
    m = martlet(authenticators=dovecot_authenticators(socket, 'server_tls' if tls else ''),
                main=f'tls_verify_certificates = {authority.certificate}' if tls else '')
    check_all(m, d)
    # The attempts did not come in clear, nor anything else that Dovecot minds.
    assert 'Error' not in open(f'{d.directory}/log').read()


def test_dovecot_over_ipv6(martlet, dovecot):
    d = dovecot()
    m = martlet(authenticators=dovecot_authenticators(f'::1 {d.port}'))
    with Client(m.port) as c:
        c.ehlo()
        assert do_plain(c, 'fred', 'secret')[0] == 235


def test_dovecot_certificate_of_another(martlet, dovecot, authority):
    d = dovecot('elsewhere.test')
    m = martlet(authenticators=dovecot_authenticators(f'localhost {d.tls_port}', 'server_tls'),
                main=f'tls_verify_certificates = {authority.certificate}')
    with Client(m.port) as c:
        c.ehlo()
        assert do_plain(c, 'fred', 'secret') == (454, '4.7.0 Temporary authentication failure')
    m.wait_log(f'454 4.7.0 Temporary authentication failure: TLS with localhost port {d.tls_port}: ')


def test_dovecot_stopped_and_back(martlet, dovecot):
    d = dovecot()
    m = martlet(authenticators=dovecot_authenticators(d.path))
    d.stop()
    with Client(m.port) as c:
        c.ehlo()
        assert do_plain(c, 'fred', 'secret')[0] == 454
        assert do_plain(c, 'fred', 'secret')[0] == 454
        d.start()
        assert do_plain(c, 'fred', 'secret')[0] == 235
    m.wait_log('454 4.7.0 Temporary authentication failure: failed to connect to socket')


def test_dovecot_condition_and_set_id(martlet, dovecot):
    d = dovecot()
    m = martlet(authenticators=dovecot_authenticators(d.path, 'server_condition = ${if eq{$auth1}{mary}}'))
    for user, password, want in (('mary', 'other', 235), ('fred', 'secret', 535)):
        with Client(m.port) as c:
            c.ehlo()
            assert do_plain(c, user, password)[0] == want
            if want == 235:
                c.expect(250, 'MAIL FROM:<mary@local.test> AUTH=mary@local.test')
                c.expect(250, 'RCPT TO:<u0@local.test>')
                c.expect(354, 'DATA')
                c.expect(250, 'Subject: x\r\n\r\nx\r\n.')
    m.wait_log('<= mary@local.test H=\\(client.test\\) \\[127.0.0.1\\] P=esmtpa A=dovecot_plain:mary')


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
@pytest.mark.skipif(shutil.which('swaks') is None, reason='swaks is not installed')
def test_dovecot_with_swaks(martlet, dovecot, mechanism):
    d = dovecot()
    m = martlet(authenticators=dovecot_authenticators(d.path))
    for password, status in (('secret', 0), ('wrong', 28)):
        done = subprocess.run(['swaks', '--server', f'127.0.0.1:{m.port}', '--auth', mechanism, '--auth-user', 'fred', '--auth-password', password,
                               '--to', 'u0@local.test', '--from', 'u1@local.test', '--quit-after', 'AUTH'], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=120)
        assert done.returncode == status, done.stdout.decode()


@pytest.mark.parametrize('socket, text', [
    ('auth.example', '"auth.example" is neither the path of a socket nor a host and a port'),
    ('auth.example smtp', 'neither the path'),
    ('auth.example 0', 'neither the path'),
    ('auth.example 65536', 'neither the path'),
    ('/a : here', '/a'),
])
def test_dovecot_places_in_the_configuration(martlet, socket, text):
    m = martlet(daemon=False, authenticators=dovecot_authenticators(socket))
    done = m.run('-bV', check=False).stdout
    if socket.startswith('/'):
        assert 'neither' not in done
    else:
        assert text in done


def test_dovecot_warnings(martlet):
    m = martlet(daemon=False, authenticators=dovecot_authenticators('auth.example 12345') + '''
tls_for_nothing:
  driver = dovecot
  public_name = XOAUTH2
  server_socket = /run/auth
  server_tls
near:
  driver = dovecot
  public_name = NTLM
  server_socket = ::1 123
''')
    out = m.run('-bV', check=False).stdout
    assert 'authenticator dovecot_plain: passwords go in clear to auth.example: server_tls is not set' in out
    assert 'authenticator tls_for_nothing: server_tls means nothing for the socket /run/auth' in out
    assert 'authenticator near' not in out


# --- GNU SASL: its tool against our server ---

GSASL_SERVER = '''
plain:
  driver = gsasl
  public_name = PLAIN
  server_condition = ${if and{{eq{$auth1}{fred}}{eq{$auth3}{secret}}}}
  server_set_id = $auth1
login:
  driver = gsasl
  public_name = LOGIN
  server_condition = ${if and{{eq{$auth1}{fred}}{eq{$auth3}{secret}}}}
  server_set_id = $auth1
cram:
  driver = gsasl
  public_name = CRAM-MD5
  server_password = ${if eq{$auth1}{fred}{secret}{}}
  server_set_id = $auth1
scram1:
  driver = gsasl
  public_name = SCRAM-SHA-1
  server_password = ${if eq{$auth1}{fred}{secret}{not known}}
  server_scram_salt = QSXCR+Q6sek8bf92
  server_condition = ${if eq{$auth1}{fred}}
  server_set_id = $auth1
scram256:
  driver = gsasl
  public_name = SCRAM-SHA-256
  server_password = ${if eq{$auth1}{fred}{secret}{not known}}
  server_scram_iter = 5000
  server_set_id = $auth1:$auth2:$auth3
scram1_plus:
  driver = gsasl
  public_name = SCRAM-SHA-1-PLUS
  server_advertise_condition = ${if def:tls_in_cipher}
  server_channelbinding
  server_password = ${if eq{$auth1}{fred}{secret}{not known}}
  server_set_id = $auth1
scram256_plus:
  driver = gsasl
  public_name = SCRAM-SHA-256-PLUS
  server_advertise_condition = ${if def:tls_in_cipher}
  server_channelbinding
  server_password = ${if eq{$auth1}{fred}{secret}{not known}}
  server_set_id = $auth1
digest:
  driver = gsasl
  public_name = DIGEST-MD5
  server_realm = local.test
  server_hostname = localhost
  server_password = ${if and{{eq{$auth1}{fred}}{eq{$auth3}{local.test}}}{secret}{not known}}
  server_set_id = $auth1@$auth3
anonymous:
  driver = gsasl
  public_name = ANONYMOUS
  server_condition = ${if eq{$auth1}{guest@example.org}}
  server_set_id = $auth1
external:
  driver = gsasl
  public_name = EXTERNAL
  server_condition = ${if eq{$auth1}{fred}}
  server_set_id = $auth1
'''
DIGEST = 'sasl_allow_digest_md5'


def gsasl(port, mechanism, user='fred', password='secret', tls=False, *more):
    """The exit status of the tool, and what it said."""
    # An empty authorization id is not for DIGEST-MD5 (RFC 2831).
    other = ['--authorization-id', user if mechanism == 'DIGEST-MD5' else '']
    done = subprocess.run(['gsasl', '--smtp', '--connect', f'localhost:{port}', '--mechanism', mechanism, '--authentication-id', user,
                           *other, '--password', password, '--no-client-first', '--hostname', 'localhost', '--service', 'smtp',
                           '--quality-of-protection', 'qop-auth', '--realm', 'local.test', '--starttls' if tls else '--no-starttls', *more],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    return done.returncode, done.stdout.decode('utf-8', 'replace')


needs_gsasl = pytest.mark.skipif(shutil.which('gsasl') is None, reason='the tool of GNU SASL is not installed')


@needs_gsasl
@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-1', 'SCRAM-SHA-256', 'DIGEST-MD5'])
def test_gsasl_tool(martlet, mechanism):
    m = martlet(authenticators=GSASL_SERVER, main=DIGEST)
    status, out = gsasl(m.port, mechanism)
    assert status == 0, out + m.logs()
    status, out = gsasl(m.port, mechanism, password='secret2')
    assert status != 0
    m.wait_log('authenticator failed for [^\\n]*: 535 Incorrect authentication data \\(set_id=fred')
    status, out = gsasl(m.port, mechanism, user='mary')
    assert status != 0


def say_hello_first(port):
    """The tool says STARTTLS without EHLO. A port that carries connections on, and says it; TLS goes through."""
    listener = socket.create_server(('127.0.0.1', 0))

    def copy(source, to):
        try:
            while data := source.recv(65536):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def carry(near):
        with Client(port, banner=False) as far:
            near.sendall((far.line() + '\r\n').encode())
            far.ehlo()
            threading.Thread(target=copy, args=(near, far.sock), daemon=True).start()
            copy(far.sock, near)

    def serve():
        while True:
            carry(listener.accept()[0])
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


@needs_gsasl
@pytest.mark.parametrize('mechanism', ['SCRAM-SHA-1-PLUS', 'SCRAM-SHA-256-PLUS'])
def test_gsasl_tool_with_channel_binding(martlet, authority, mechanism):
    m = martlet(authenticators=GSASL_SERVER, main=DIGEST, tls=authority.issue('localhost'))
    # With TLS 1.3 the tool of this age does not find the binding of RFC 9266.
    trust = ('--x509-ca-file', authority.certificate, '--priority', 'NORMAL:-VERS-TLS1.3')
    port = say_hello_first(m.port)
    status, out = gsasl(port, mechanism, 'fred', 'secret', True, *trust)
    assert status == 0, out + m.logs()
    status, out = gsasl(port, mechanism, 'fred', 'wrong', True, *trust)
    assert status != 0


def test_scram_of_the_rfc(martlet):
    """Our own client code for the tests knows RFC 5802; keys that were stored, and salts for each user."""
    import base64
    import hashlib
    import hmac
    salt = b'0123456789abcdef'
    salted = hashlib.pbkdf2_hmac('sha256', b'pencil', salt, 6000)
    server = b64(hmac.digest(salted, b'Server Key', 'sha256'))
    stored = b64(hashlib.sha256(hmac.digest(salted, b'Client Key', 'sha256')).digest())
    m = martlet(authenticators=f'''
stored:
  driver = gsasl
  public_name = SCRAM-SHA-256
  server_scram_iter = ${{if eq{{$auth1}}{{user}}{{6000}}{{4096}}}}
  server_scram_salt = ${{if eq{{$auth1}}{{user}}{{{b64(salt)}}}}}
  server_key = ${{if eq{{$auth1}}{{user}}{{{server}}}}}
  server_skey = ${{if eq{{$auth1}}{{user}}{{{stored}}}}}
  server_password = ${{if eq{{$auth1}}{{other}}{{pencil}}fail}}
  server_set_id = $auth1
''')
    for user, password, want in (('user', 'pencil', 235), ('user', 'pencils', 535), ('other', 'pencil', 235), ('third', 'pencil', 435)):
        with Client(m.port) as c:
            c.ehlo()
            assert do_scram(c, user, password, check=want == 235)[0] == want, m.logs()
    assert 'pencil' not in m.logs()


def test_gsasl_other_mechanisms(martlet):
    m = martlet(authenticators=GSASL_SERVER, main=DIGEST)
    for command, want in (('ANONYMOUS ' + b64('guest@example.org'), 235), ('ANONYMOUS ' + b64('x'), 535), ('EXTERNAL ' + b64('fred'), 235),
                          ('EXTERNAL ' + b64('mary'), 535), ('EXTERNAL =', 535)):
        with Client(m.port) as c:
            c.ehlo()
            assert c.cmd('AUTH ' + command)[0] == want, command
    # Not offered in clear.
    with Client(m.port) as c:
        assert 'PLUS' not in c.cmd('EHLO x')[1]


def test_digest_md5_is_off(martlet):
    m = martlet(daemon=False, authenticators=GSASL_SERVER)
    assert 'DIGEST-MD5 is historic (RFC 6331): it needs sasl_allow_digest_md5' in m.run('-bV', check=False).stdout


@pytest.mark.parametrize('text, error', [
    ('driver = gsasl\n public_name = NO-SUCH\n server_condition = yes', 'GNU SASL does not support mechanism "NO-SUCH"'),
    ('driver = gsasl\n public_name = PLAIN\n server_password = x', 'a server of PLAIN needs server_condition'),
    ('driver = cyrus_sasl\n public_name = NO-SUCH', 'Cyrus SASL does not know the mechanism "NO-SUCH"'),
    ('driver = spa\n public_name = NTLM\n client_username = x', 'one of client_username and client_password cannot be set without the other'),
    ('driver = tls\n server_condition = yes\nt2:\n driver = tls', 'only one authenticator with the driver "tls"'),
    ('driver = dovecot\n public_name = PLAIN', 'server_socket must be set'),
])
def test_configurations_that_cannot_be(martlet, text, error):
    m = martlet(daemon=False, authenticators=f'x:\n {text}\n')
    assert error in m.run('-bV', check=False).stdout


# --- our client against our server ---

PAIRS = {
    'PLAIN': 'driver = gsasl\n client_username = fred\n client_password = {p}',
    'LOGIN': 'driver = plaintext\n client_send = : fred : {p}',
    'CRAM-MD5': 'driver = cram_md5\n client_name = fred\n client_secret = {p}',
    'SCRAM-SHA-1': 'driver = gsasl\n client_username = fred\n client_password = {p}\n client_set_id = $auth1/$auth2/$auth3/$auth4',
    'SCRAM-SHA-256': 'driver = gsasl\n client_username = fred\n client_password = {p}',
    'SCRAM-SHA-1-PLUS': 'driver = gsasl\n client_username = fred\n client_password = {p}\n client_channelbinding',
    'SCRAM-SHA-256-PLUS': 'driver = gsasl\n client_username = fred\n client_password = {p}\n client_channelbinding',
    'DIGEST-MD5': 'driver = gsasl\n client_username = fred\n client_password = {p}\n',
    'NTLM': 'driver = spa\n client_username = fred\n client_password = {p}\n client_domain = WORKGROUP',
    'EXTERNAL': 'driver = external\n client_send = ${{if eq{{{p}}}{{secret}}{{fred}}{{mary}}}}',
}
SPA = '''
ntlm:
  driver = spa
  public_name = NTLM
  server_password = ${if eq{$auth1}{fred}{secret}fail}
  server_set_id = $auth1
'''


@pytest.mark.parametrize('mechanism', PAIRS)
def test_our_client_and_our_server(martlet, authority, mechanism):
    tls = mechanism.endswith('PLUS')
    server = martlet(authenticators=GSASL_SERVER + SPA, main=DIGEST, tls=authority.issue('localhost') if tls else None)
    options = 'hosts_require_auth = *\n  ' + ('hosts_require_tls = *\n  tls_verify_certificates =' if tls else 'hosts_avoid_tls = *')

    def client(password):
        return martlet(smarthost=f'127.0.0.1::{server.port}', client=options, main=DIGEST, retry='* * F,1h,1h',
                       acl_rcpt='accept hosts = 127.0.0.1', authenticators=f'ours:\n public_name = {mechanism}\n '
                       + PAIRS[mechanism].format(p=password) + '\n')
    good = client('secret')
    good.run('-odi', '-f', 'u1@local.test', 'u0@relay.test', input='Subject: x\n\nx\n')
    good.wait_log('A=ours')
    if mechanism == 'SCRAM-SHA-1':
        good.wait_log('A=ours:fred/4096/QSXCR\\+Q6sek8bf92/[0-9a-f]{40}')
    server.wait_log('A=[a-z0-9_]+:fred')
    bad = client('wrong')
    bad.run('-odi', '-f', 'u1@local.test', 'u0@relay.test', input='Subject: x\n\nx\n')
    bad.wait_log('ours authenticator failed H=127.0.0.1 \\[127.0.0.1\\] 535 Incorrect authentication data')
    bad.wait_log('== u0@relay.test .*authentication required but authentication attempt\\(s\\) failed')
    for m in (server, good, bad):
        assert 'secret' not in m.logs() and 'wrong' not in m.logs()


def test_ntlm_by_curl(martlet):
    """Another's NTLM: both versions of the response."""
    curl = shutil.which('curl')
    features = subprocess.run([curl, '-V'], stdout=subprocess.PIPE).stdout.decode() if curl else ''
    if 'NTLM' not in features or ' smtp' not in features:
        pytest.skip('no curl with NTLM and SMTP is installed')
    m = martlet(authenticators=SPA)
    for password, good in (('secret', True), ('wrong', False)):
        done = subprocess.run([curl, '-sv', f'smtp://127.0.0.1:{m.port}', '--user', f'fred:{password}', '--login-options', 'AUTH=NTLM', '-X', 'NOOP'],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        out = done.stdout.decode('latin-1')
        assert ('235 Authentication succeeded' in out) == good, out
        assert ('535 Incorrect' in out) != good, out


# --- external and tls ---

CERTIFICATES = '''
external:
  driver = external
  public_name = EXTERNAL
  server_advertise_condition = $tls_in_certificate_verified
  server_param2 = ${certextract{subj_altname,dns,>:}{$tls_in_peercert}}
  server_param3 = third
  server_condition = ${if and{{inlist{$auth1}{$auth2}}{eq{$auth3}{third}}}}
  server_set_id = $auth1
'''
BY_TLS = '''
by_tls:
  driver = tls
  server_param1 = ${certextract{subj_altname,dns,>:}{$tls_in_peercert}}
  server_condition = ${if and{{eq{$tls_in_certificate_verified}{1}}{inlist{user.test}{$auth1}}}}
  server_set_id = ${listextract{1}{$auth1}}
'''


def server_with_certificates(martlet, authority, authenticators, **kw):
    return martlet(authenticators=authenticators, tls=authority.issue('localhost'), acl=kw.pop('acl', ''),
                   main=f'tls_try_verify_hosts = *\ntls_verify_certificates = {authority.certificate}\n' + kw.pop('main', ''), **kw)


def test_external(martlet, authority):
    server = server_with_certificates(martlet, authority, CERTIFICATES)
    with Client(server.port) as c:
        assert 'AUTH' not in c.cmd('EHLO x')[1]
        assert c.cmd('AUTH EXTERNAL ' + b64('user.test'))[0] == 503

    def client(send, certificate):
        return martlet(smarthost=f'127.0.0.1::{server.port}', retry='* * F,1h,1h', authenticators=f'e:\n driver = external\n public_name = EXTERNAL\n '
                       f'client_send = {send}\n', client='hosts_require_auth = *\n  tls_verify_certificates =\n'
                       '  tls_certificate = {}\n  tls_privatekey = {}'.format(*certificate))
    for send, name, good in (('user.test', 'user.test', True), ('other.test', 'user.test', False)):
        m = client(send, authority.issue(name))
        m.run('-odi', '-f', 'u1@local.test', 'u0@relay.test', input='Subject: x\n\nx\n')
        m.wait_log('A=e' if good else 'e authenticator failed H=127.0.0.1 .* 535 Incorrect authentication data')
    server.wait_log('P=esmtpsa .*A=external:user.test')


def start_tls(port, authority, name=None):
    """A client's end over TLS, after EHLO; name: of its certificate."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if name:
        context.load_cert_chain(*authority.issue(name))
    c = Client(port)
    c.ehlo()
    c.expect(220, 'STARTTLS')
    c.sock = context.wrap_socket(c.sock, server_hostname='localhost')
    return c


def test_tls_authenticator(martlet, authority):
    m = server_with_certificates(martlet, authority, BY_TLS + GSASL_SERVER, main=DIGEST)
    for name, known in (('user.test', True), ('stranger.test', False), (None, False)):
        with start_tls(m.port, authority, name) as c:
            _, text = c.expect(250, 'EHLO client.test')
            # Who has authenticated by TLS is not asked again.
            assert ('AUTH' in text) != known, name
            c.expect(250, f'MAIL FROM:<{name or "none"}@local.test>')
            c.expect(250, 'RCPT TO:<u0@local.test>')
            c.expect(354, 'DATA')
            c.expect(250, 'Subject: x\r\n\r\nx\r\n.')
    m.wait_log('<= user.test@local.test .*P=esmtpsa .*A=by_tls:user.test')
    for name in ('stranger.test', 'none'):
        line = m.wait_log(f'<= {name}@local.test .*')
        assert 'P=esmtps ' in m.log() and f'A=by_tls:{name}' not in m.log()


def test_tls_authenticator_that_fails_to_expand(martlet, authority):
    m = server_with_certificates(martlet, authority, BY_TLS.replace('server_param1 = ', 'server_param1 = ${lookup{x}lsearch{/no/such/file}}'))
    with start_tls(m.port, authority, 'user.test') as c:
        c.ehlo()
        c.expect(250, 'NOOP')
    m.wait_log('by_tls authenticator failed for H=.*: 435 Unable to authenticate at present: ')


# --- generic options ---

def test_generic_options(martlet):
    m = martlet(daemon=False, acl='mail:\n accept logwrite = id=<$authenticated_id> fail=<$authenticated_fail_id> by=<$sender_host_authenticated> '
                'sender=<$authenticated_sender>', main='acl_smtp_mail = mail', authenticators='''
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if eq{$auth3}{good}}
  server_set_id = ${sg{$auth2}{x}{y}}
  server_mail_auth_condition = ${if eq{$authenticated_sender}{ok@local.test}}
  server_debug_print = <<$auth2>>
hidden:
  driver = plaintext
  public_name = HIDDEN
  server_condition = yes
  server_advertise_condition = ${if eq{$sender_helo_name}{insider}}
forced:
  driver = plaintext
  public_name = FORCED
  server_condition = yes
  server_advertise_condition = ${if eq{a}{b}{yes}fail}
text:
  driver = plaintext
  public_name = TEXT
  server_condition = come back later
''')
    sender = 'MAIL FROM:<u1@local.test> AUTH='
    out = m.run('-d-all+auth', '-bs', '-oMa', '10.1.2.3', input='\r\n'.join([
        'EHLO insider', 'EHLO x', 'AUTH HIDDEN', 'AUTH TEXT ' + b64('x'), 'AUTH PLAIN ' + b64('\0maxx\0bad'), 'MAIL FROM:<u1@local.test>', 'RSET',
        'AUTH PLAIN ' + b64('\0maxx\0good'), sender + 'ok@local.test', 'RSET', sender + 'bad@local.test', 'RSET', sender + '<>', 'RSET', 'QUIT', '']))
    assert 'AUTH PLAIN HIDDEN TEXT' in out and 'AUTH PLAIN TEXT' in out and 'FORCED' not in out
    assert '504 HIDDEN authentication mechanism not supported' in out
    assert '435 Unable to authenticate at present: come back later' in out
    assert '<<maxx>>' in out
    log = [line.split(' ', 2)[2] for line in m.log().split('\n') if 'id=<' in line or 'ignoring' in line]
    assert log == ['id=<> fail=<mayy> by=<> sender=<>', 'id=<mayy> fail=<> by=<plain> sender=<ok@local.test>',
                   log[2], 'id=<mayy> fail=<> by=<plain> sender=<>', 'id=<mayy> fail=<> by=<plain> sender=<>']
    assert log[2].startswith('ignoring AUTH=bad@local.test from ') and log[2].endswith('(server_mail_auth_condition failed: authenticated ID="mayy")')


@pytest.mark.parametrize('options, want', [
    ('client_condition = no', 'authentication required but no common mechanisms were found'),
    ('client_condition = ${if eq{a}{b}{x}fail}', 'authentication required but no common mechanisms were found'),
    ('client_condition = ${nosuch{x}}', 'authentication required but no common mechanisms were found'),
    ('client_condition = yes\n client_set_id = ${nosuch{x}}', 'A=c'),
    ('client_condition = 1', 'A=c'),
    ('client_condition = anything', 'A=c'),
])
def test_client_condition(martlet, options, want):
    server = martlet(authenticators='p:\n driver = plaintext\n public_name = PLAIN\n server_condition = yes\n server_prompts = :\n')
    m = martlet(smarthost=f'127.0.0.1::{server.port}', client='hosts_require_auth = *', retry='* * F,1h,1h',
                allow_panic='failed to expand condition "\\${nosuch{x}}" for c client authenticator: |unknown expansion item|nosuch', authenticators=f'c:\n driver = plaintext\n public_name = PLAIN\n client_send = ^a^b\n {options}\n')
    m.run('-odi', '-f', 'u1@local.test', 'u0@relay.test', input='Subject: x\n\nx\n')
    m.wait_log(('=> u0@relay.test ' if want == 'A=c' else '== u0@relay.test ') + '.*' + want)


@pytest.mark.parametrize('reply, want', [
    # A temporary refusal ends it with this host; after others it goes on without, if it may.
    ('454 later', '== u0@relay.test .*: 454 later'),
    ('535 no', '=> u0@relay.test '),
    ('334 !!!', '=> u0@relay.test '),
])
@pytest.mark.parametrize('mechanism', ['PLAIN', 'CRAM-MD5', 'NTLM', 'SCRAM-SHA-256', 'EXTERNAL'])
def test_client_and_odd_servers(martlet, smtp_server, mechanism, reply, want):
    server = smtp_server({'AUTH': reply, '*': '501 cancelled'}, keywords=[f'AUTH {mechanism}'])
    m = martlet(smarthost=f'127.0.0.1::{server.port}', client='hosts_try_auth = *', retry='* * F,1h,1h',
                authenticators=f'ours:\n public_name = {mechanism}\n '
                + dict(PAIRS, PLAIN='driver = plaintext\n client_send = ^fred^{p}')[mechanism].format(p='pa55word') + '\n')
    m.run('-odi', '-f', 'u1@local.test', 'u0@relay.test', input='Subject: x\n\nx\n')
    m.wait_log(want)
    if reply.startswith('334') and mechanism != 'NTLM':
        m.wait_log('ours authenticator cancelled authentication H=127.0.0.1 ')
    elif reply.startswith('535'):
        m.wait_log('ours authenticator failed H=127.0.0.1 \\[127.0.0.1\\] 535 no')
    assert 'pa55word' not in m.logs()


# --- Cyrus SASL ---

CYRUS = '''
cyrus_plain:
  driver = cyrus_sasl
  public_name = PLAIN
  server_set_id = $auth1
cyrus_login:
  driver = cyrus_sasl
  public_name = LOGIN
  server_set_id = $auth1
cyrus_any:
  driver = cyrus_sasl
  public_name = X-ANYTHING
  server_mech = CRAM-MD5
  server_set_id = $auth1
  server_condition = ${if eq{$auth1}{fred}}
cyrus_scram:
  driver = cyrus_sasl
  public_name = SCRAM-SHA-256
  server_realm = mx.martlet.test
  server_set_id = $auth1
'''


@pytest.fixture
def cyrus(martlet, scratch):
    """A server whose users are in a sasldb."""
    if shutil.which('saslpasswd2') is None:
        pytest.skip('saslpasswd2 of Cyrus SASL is not installed')
    os.chmod(scratch, 0o755)
    for user, password in (('fred', 'secret'), ('mary', 'other')):
        subprocess.run(['saslpasswd2', '-p', '-c', '-f', f'{scratch}/sasldb2', '-u', 'mx.martlet.test', user], input=password.encode(), check=True)
    os.chmod(f'{scratch}/sasldb2', 0o644)

    def start(how='pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {d}/sasldb2\n'):
        write(f'{scratch}/exim.conf', how.format(d=scratch) + 'mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256\n')
        return martlet(authenticators=CYRUS, main=f'add_environment = SASL_CONF_PATH={scratch}')
    return start


def test_cyrus_sasl(cyrus):
    m = cyrus()
    do = {'PLAIN': do_plain, 'LOGIN': do_login, 'SCRAM-SHA-256': do_scram,
          'X-ANYTHING': lambda c, u, p: c.cmd(cram(u, p, c.cmd('AUTH X-ANYTHING')[1]))}
    for name, run in do.items():
        for user, password, want in (('fred', 'secret', 235), ('fred', 'wrong', 535), ('nobody', 'secret', 535)):
            with Client(m.port) as c:
                c.ehlo()
                assert run(c, user, password)[0] == want, f'{name} {user} {password} {m.logs()}'
    with Client(m.port) as c:
        c.ehlo()
        assert do['X-ANYTHING'](c, 'mary', 'other')[0] == 535 # server_condition
    assert 'secret' not in m.logs()


def test_cyrus_sasl_without_its_daemon(cyrus):
    m = cyrus('pwcheck_method: saslauthd\nsaslauthd_path: {d}/no-such-socket\n')
    with Client(m.port) as c:
        c.ehlo()
        assert do_plain(c, 'fred', 'secret')[0] in (454, 535)
        c.expect(250, 'NOOP')


def test_cyrus_sasl_whose_daemon_never_answers(cyrus, scratch):
    """It may take a minute; nobody else waits for it, not even who logs in with another mechanism of the library."""
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(f'{scratch}/mux')
    os.chmod(f'{scratch}/mux', 0o777)
    silent.listen(20)
    m = cyrus('pwcheck_method: saslauthd\nsaslauthd_path: {d}/mux\nauxprop_plugin: sasldb\nsasldb_path: {d}/sasldb2\n')
    waiting = [Client(m.port, timeout=200) for _ in range(6)]
    for c in waiting:
        c.ehlo()
        c.send('AUTH PLAIN ' + plain('fred', 'secret') + '\r\n')
    held = [silent.accept() for _ in waiting]
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd(cram('fred', 'secret', c.cmd('AUTH X-ANYTHING')[1]))[0] == 235
        c.expect(250, 'MAIL FROM:<u1@local.test>')
    for c in waiting:
        assert c.reply() == (454, '4.7.0 Temporary authentication failure')
        c.close()
    assert 'Cyrus SASL: timed out' in m.log('reject')
    for s, _ in held:
        s.close()
    silent.close()


# --- Kerberos ---

class Kdc(Database):
    """A realm of Heimdal's, TEST.REALM."""
    program = program('kdc', '/usr/lib/heimdal-servers/kdc')
    user = 'nobody'

    def as_user(self, *command):
        return list(command)

    def prepare(self):
        self.environment = dict(os.environ, KRB5_CONFIG=f'{self.directory}/krb5.conf', KRB5CCNAME=f'FILE:{self.directory}/tickets')

    def place(self):
        d = self.directory
        write(f'{d}/krb5.conf', f'''
[libdefaults]
  default_realm = TEST.REALM
  dns_lookup_kdc = false
  dns_lookup_realm = false
  rdns = false
  dns_canonicalize_hostname = false
[realms]
  TEST.REALM = {{
    kdc = 127.0.0.1:{self.port}
  }}
[domain_realm]
  localhost = TEST.REALM
[kdc]
  database = {{
    dbname = {d}/db
    mkey_file = {d}/mkey
    acl_file = /dev/null
    log_file = {d}/dblog
  }}
[logging]
  kdc = FILE:{d}/log
''')

    def tool(self, *command, **kw):
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, **kw)
        return done.returncode, done.stdout.decode('utf-8', 'replace')

    def launch(self):
        if not self.started:
            for words in (['init', '--realm-max-ticket-life=unlimited', '--realm-max-renewable-life=unlimited', 'TEST.REALM'],
                          ['add', '--use-defaults', '--password=secret', 'fred'], ['add', '--use-defaults', '--random-key', 'smtp/localhost'],
                          ['ext_keytab', '-k', f'{self.directory}/keytab', 'smtp/localhost']):
                status, out = self.tool('kadmin.heimdal' if shutil.which('kadmin.heimdal') else 'kadmin', '-l', '-c', f'{self.directory}/krb5.conf', *words)
                assert status == 0, out
            os.chmod(f'{self.directory}/keytab', 0o644)
        with open(f'{self.directory}/output', 'ab') as log:
            self.process = subprocess.Popen([self.program, f'--ports={self.port}', '--addresses=127.0.0.1', f'--config-file={self.directory}/krb5.conf'],
                                            env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: self.process.poll() is not None or self.ready(), self.output)


@needs_gsasl
@pytest.mark.skipif(Kdc.program is None, reason='the KDC of Heimdal is not installed')
def test_heimdal_gssapi(martlet, make):
    kdc = make(Kdc)
    m = martlet(main=f'add_environment = KRB5_CONFIG={kdc.directory}/krb5.conf', authenticators=f'''
kerberos:
  driver = heimdal_gssapi
  public_name = GSSAPI
  server_hostname = localhost
  server_keytab = {kdc.directory}/keytab
  server_set_id = $auth1
  server_condition = ${{if eq{{$auth2}}{{other}}{{no}}{{yes}}}}
''')
    write(f'{kdc.directory}/password', 'secret')
    status, out = kdc.tool('kinit.heimdal' if shutil.which('kinit.heimdal') else 'kinit', f'--password-file={kdc.directory}/password', 'fred')
    assert status == 0, out

    def login(authz):
        return kdc.tool('gsasl', '--smtp', '--connect', f'localhost:{m.port}', '--mechanism', 'GSSAPI', '--authentication-id', 'fred', '--authorization-id',
                        authz, '--hostname', 'localhost', '--service', 'smtp', '--no-starttls', '--quality-of-protection', 'qop-auth',
                        stdin=subprocess.DEVNULL)
    status, out = login('')
    assert status == 0, out + m.logs()
    status, out = login('other')
    assert status != 0
    m.wait_log('kerberos authenticator failed for .* \\(set_id=fred@TEST.REALM\\)')
    with Client(m.port) as c:
        c.ehlo()
        for token in ('=', b64('x'), b64(b'\x60\x82' + b'\xff' * 100)):
            code, text = c.cmd(f'AUTH GSSAPI {token}')
            assert code == 535, text
        assert c.cmd('AUTH GSSAPI') == (334, '')
        assert c.cmd('*')[0] == 501


# --- Debian's Exim ---

BOTH = '''
ntlm:
  driver = spa
  public_name = NTLM
  server_password = ${if eq{$auth1}{fred}{secret}fail}
  server_set_id = $auth1
  client_username = fred
  client_password = secret
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{fred}{secret}fail}
  server_set_id = $auth1
  client_name = fred
  client_secret = secret
external:
  driver = external
  public_name = EXTERNAL
  server_condition = ${if eq{$auth1}{fred}}
  server_set_id = $auth1
  client_send = fred
'''


class EximWith(Exim):
    def start(self, group=None):
        conf = self.place.path('/etc/exim4/exim4.conf')
        text = read(conf)
        write(conf, text[:text.index('begin authenticators')] + 'begin authenticators\n' + self.one)
        return super().start(group)


def exim_with(name):
    one = [block for block in BOTH.replace('\n  ', '\0  ').split('\n') if block.startswith(name + ':')][0].replace('\0', '\n') + '\n'
    return type('EximWith', (EximWith,), {'one': one}), one


@pytest.mark.root
@pytest.mark.parametrize('name', ['ntlm', 'cram', 'external'])
def test_debians_exim(martlet, make, peers, name):
    """Its server takes what our client says, and the other way round."""
    kind, one = exim_with(name)
    ours = martlet(authenticators=one, retry='* * F,1h,1h')
    theirs = make(kind, peers, smarthost=f'127.0.0.1::{ours.port}', client='hosts_require_auth = *', users=1)
    theirs.exim('-odi', '-f', 'u0@local.test', 'u0@local.test', input='Subject: x\n\nx\n')
    ours.wait_log(f'<= u0@local.test .*P=esmtpa A={name}:fred')
    sender = martlet(smarthost=f'127.0.0.1::{theirs.port}', client='hosts_require_auth = *', authenticators=one, relay_to='exim.test', retry='* * F,1h,1h')
    sender.run('-odi', '-f', 'u1@local.test', 'u0@exim.test', input='Subject: x\n\nx\n')
    sender.wait_log(f'=> u0@exim.test .* A={name}')
    wait_for(lambda: f' A={name}:fred' in theirs.log(), theirs.log)
