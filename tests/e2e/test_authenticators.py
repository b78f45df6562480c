"""AUTH with real partners: Dovecot's service, the tools of GNU SASL and Cyrus SASL, Kerberos, and our own client."""
import shutil
import socket
import subprocess
import threading

import pytest

from support.sasl import Dovecot, b64, do_cram, do_login, do_plain, do_scram
from support.smtp import Client

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
