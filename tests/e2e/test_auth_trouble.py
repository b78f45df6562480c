"""AUTH with what should not happen: clients that send anything, services that answer anything, and where passwords may show up."""
import os
import re
import socket
import threading

import pytest

from support.sasl import b64, cram, do_plain, plain
from support.smtp import Client, Closed

pytestmark = pytest.mark.plain


class Stub:
    """A service on a UNIX socket. `hello` goes out at once, `answers` one for each line beginning with AUTH or CONT; None: closes,
    ... : says nothing more and keeps the connection open."""

    def __init__(self, path, hello, *answers):
        self.hello, self.answers, self.seen = hello, answers, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen(10)
        self.kept = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                s = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    def talk(self, s):
        self.kept.append(s)
        try:
            s.sendall(self.hello)
            if not self.hello.endswith(b'DONE\n'):
                s.shutdown(socket.SHUT_RDWR)
            answers = list(self.answers)
            f = s.makefile('rb')
            for line in f:
                self.seen.append(line)
                if not line.startswith((b'AUTH\t', b'CONT\t')):
                    continue
                if not answers or answers[0] is None:
                    break
                if answers[0] is ...:
                    return
                s.sendall(answers.pop(0))
                if answers == [None]:
                    break
            s.shutdown(socket.SHUT_RDWR)
            s.close()
        except OSError:
            pass

    def stop(self):
        self.listener.close()
        for s in self.kept:
            s.close()


HELLO = b'VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tX-ANY\nSPID\t1\nCUID\t2\nCOOKIE\tabc\nDONE\n'

AUTHENTICATOR = '''
any:
  driver = dovecot
  public_name = {name}
  server_socket = @DIR@/stub
  server_set_id = $auth1
'''


@pytest.fixture
def stub(martlet, make):
    def start(hello, *answers, name='PLAIN', **kw):
        m = martlet(authenticators=AUTHENTICATOR.format(name=name), **kw)
        s = Stub(f'{m.directory}/stub', hello, *answers)
        m.stub = s
        return m
    return start


TROUBLE = {
    'version 2': (HELLO.replace(b'VERSION\t1\t2', b'VERSION\t2\t0'),),
    'no version': (HELLO.replace(b'VERSION\t1\t2\n', b''),),
    'no mechanism': (HELLO.replace(b'PLAIN', b'OTHER'),),
    'closes at once': (b'',),
    'closes in the greeting': (HELLO[:30],),
    '20 KiB line': (b'VERSION\t1\t2\n' + b'x' * 20480 + b'\nDONE\n',),
    '10 MB': (b'MECH\tx\n' * 1500000,),
    '10 MB in a line': (b'x' * 10000000,),
    'garbage': (bytes(range(256)) * 100,),
    'temporary failure': (HELLO, b'FAIL\t1\tuser=fred\ttemp\n'),
    'temporary failure by code': (HELLO, b'FAIL\t1\tuser=fred\tcode=temp_fail\n'),
    'another id': (HELLO, b'OK\t2\tuser=fred\n'),
    'no id': (HELLO, b'OK\n'),
    'OK without a user': (HELLO, b'OK\t1\n'),
    'NUL': (HELLO, b'OK\t1\tuser=fr\0ed\n'),
    'challenge of bad base64': (HELLO, b'CONT\t1\t!!!\n'),
    'closes instead of an answer': (HELLO, None),
    'half an answer': (HELLO, b'OK\t1\tuser=fred', None),
    'unknown lines for ever': (HELLO, b'NONSENSE\t1\n' * 5000),
    'long answer': (HELLO, b'OK\t1\tuser=' + b'f' * 20000 + b'\n'),
}


@pytest.mark.parametrize('what', TROUBLE)
def test_dovecot_trouble(stub, what):
    m = stub(*TROUBLE[what])
    with Client(m.port) as c:
        c.ehlo()
        assert do_plain(c, 'fred', 'pa55word') == (454, '4.7.0 Temporary authentication failure')
        c.expect(250, 'NOOP')
    m.wait_log(r'any authenticator failed for H=\(client.test\) \[127.0.0.1\]: 454 4.7.0 Temporary authentication failure(?: \(set_id=fred\))?: .', 'reject')
    assert 'pa55word' not in m.logs() and plain('fred', 'pa55word') not in m.logs()


def test_dovecot_never_answers(stub):
    """It may take a minute; other clients do not wait for it."""
    m = stub(HELLO, ...)
    with Client(m.port, timeout=150) as c, Client(m.port) as other:
        c.ehlo()
        c.send('AUTH PLAIN ' + plain('fred', 'secret') + '\r\n')
        other.ehlo()
        other.expect(250, 'MAIL FROM:<u1@local.test>')
        assert c.reply()[0] == 454
    m.wait_log('timed out', 'reject')


def test_dovecot_place_that_is_none(martlet):
    """Known only when it is used; and nothing of the client's."""
    m = martlet(allow_panic='any authenticator: (".*" is neither|server_socket is tainted)', authenticators=AUTHENTICATOR.format(name='PLAIN').replace(
        '@DIR@/stub', '${if eq{$sender_helo_name}{tainted}{/run/$sender_helo_name}{no port here}}'))
    for name, text in (('a', '"no port here" is neither the path of a socket nor a host and a port'), ('tainted', 'server_socket is tainted')):
        with Client(m.port) as c:
            c.expect(250, 'EHLO ' + name)
            assert do_plain(c, 'fred', 'secret')[0] == 454
        m.wait_log('any authenticator: ' + text, 'panic')
        m.wait_log('454 4.7.0 Temporary authentication failure: ' + text, 'reject')


@pytest.mark.parametrize('lines, want', [
    (b'', (535, 'Incorrect authentication data')),
    (b'NEWS\t1\tx\nSPID\t4\n\n\tX\n', (535, 'Incorrect authentication data')),
])
def test_dovecot_refuses(stub, lines, want):
    m = stub(HELLO, lines + b'FAIL\t1\tuser=fr\001ted\treason=because\n')
    with Client(m.port) as c:
        c.ehlo()
        assert do_plain(c, 'x', 'y') == want
    # What the service calls the user is unescaped.
    m.wait_log(r'535 Incorrect authentication data \(set_id=fr\ted\)', 'reject')


def test_dovecot_request(stub):
    """What the service is told of the client."""
    m = stub(HELLO, b'CONT\t1\t' + b64('a challenge').encode() + b'\n', b'OK\t1\tuser=fred\n', name='X-ANY')
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd('AUTH X-ANY =') == (334, b64('a challenge'))
        assert c.cmd(b64('an answer'))[0] == 235
    seen = [line.rstrip(b'\n') for line in m.stub.seen]
    assert seen[0] == b'VERSION\t1\t2' and re.fullmatch(rb'CPID\t[0-9]+', seen[1])
    assert seen[2] == b'AUTH\t1\tX-ANY\tservice=smtp\tsecured\trip=127.0.0.1\tlip=127.0.0.1\tnologin\tno-penalty\tclient_id=client.test\tresp=='
    assert seen[3] == b'CONT\t1\t' + b64('an answer').encode()
    # Without an initial response there is no resp.
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd('AUTH X-ANY')[0] == 334
        assert c.cmd('*')[0] == 501
    assert not [line for line in m.stub.seen[4:] if b'resp' in line]


def test_dovecot_in_clear(stub):
    """A mechanism that gives the password away is not used in clear, but on this host."""
    m = stub(HELLO, b'OK\t1\tuser=fred\n', main='hosts_xclient = 127.0.0.1')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(220, 'XCLIENT ADDR=192.0.2.7 PORT=1234')
        c.ehlo()
        assert do_plain(c, 'fred', 'pa55word') == (538, '5.7.11 Encryption required for requested authentication mechanism')
    # Nothing went to the service.
    assert not m.stub.seen
    with Client(m.port) as c:
        c.ehlo()
        assert do_plain(c, 'fred', 'pa55word')[0] == 235
    # Over no network at all nobody listens.
    out = m.run('-bs', '-oMa', '10.1.2.3', input=f'EHLO client.test\r\nAUTH PLAIN {plain("fred", "pa55word")}\r\nQUIT\r\n')
    assert '235 ' in out


# --- clients ---

MECHANISMS = '''
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{fred}}{eq{$auth3}{pa55word}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{fred}}{eq{$auth2}{pa55word}}}}
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{fred}{pa55word}fail}
external:
  driver = external
  public_name = EXTERNAL
  server_condition = ${if eq{$auth1}{fred}}
ntlm:
  driver = spa
  public_name = NTLM
  server_password = ${if eq{$auth1}{fred}{pa55word}fail}
scram:
  driver = gsasl
  public_name = SCRAM-SHA-256
  server_password = ${if eq{$auth1}{fred}{pa55word}fail}
digest:
  driver = gsasl
  public_name = DIGEST-MD5
  server_realm = local.test
  server_password = pa55word
  server_set_id = $auth1
cyrus:
  driver = cyrus_sasl
  public_name = X-CYRUS
  server_mech = CRAM-MD5
dove:
  driver = dovecot
  public_name = X-ANY
  server_socket = @DIR@/stub
'''
NAMES = ('PLAIN', 'LOGIN', 'CRAM-MD5', 'EXTERNAL', 'NTLM', 'SCRAM-SHA-256', 'DIGEST-MD5', 'X-CYRUS', 'X-ANY')
MAIN = 'sasl_allow_digest_md5\nsmtp_max_synprot_errors = 0\nsmtp_accept_max_nonmail = 1000'
# What no mechanism takes, as an initial response or as a later one.
BAD = {
    'no base64': '!!!!',
    'a single letter': 'A',
    'bad padding': 'AA=A',
    'a tab': 'QUFB\tQUFB',
    'a NUL': 'QUFB\0QUFB',
    '8-bit': 'QUFB\xff',
    '12 KiB': b64('x' * 12288),
    '60 KiB': b64('x' * 61440),
}
# What is base64, and nothing else.
ODD = {
    'NULs': b64(b'\0' * 50),
    'empty': '=',
    'one NUL': b64(b'\0'),
    'blanks': b64(b' ' * 300),
    '8 KiB': b64(b'x' * 8192),
    'binary': b64(bytes(range(256))),
    'begins as NTLM': b64(b'NTLMSSP\0\1\0\0\0'),
    'NTLM with fields outside': b64(b'NTLMSSP\0\3\0\0\0' + b'\xff' * 60),
    'a name and a digest': b64('fred ' + '0' * 32),
    'format': b64('%n%n%s%s'),
    'expansion': b64('\0${run{/bin/false}}\0$auth1'),
}


@pytest.fixture
def all_of_them(martlet):
    m = martlet(authenticators=MECHANISMS, main=MAIN)
    s = Stub(f'{m.directory}/stub', HELLO, *[b'CONT\t1\tAAAA\n'] * 3, b'FAIL\t1\n')
    m.stub = s
    return m


@pytest.mark.parametrize('name', NAMES)
def test_bad_responses(all_of_them, name):
    m = all_of_them
    for what, text in BAD.items():
        with Client(m.port) as c:
            c.ehlo()
            code, reply = c.cmd(f'AUTH {name} {text}')
            assert code in (500, 501), f'{what}: {code} {reply}'
            code, reply = c.cmd(f'AUTH {name}')
            assert code == 334
            try:
                code, reply = c.cmd(text)
                assert code in (500, 501), f'{what}: {code} {reply}'
                c.expect(250, 'NOOP')
            except (Closed, ConnectionError):
                assert 'KiB' in what
    for what, text in ODD.items():
        with Client(m.port) as c:
            c.ehlo()
            code, reply = c.cmd(f'AUTH {name} {text}')
            rounds = 0
            while code == 334:
                rounds += 1
                assert rounds < 10
                code, reply = c.cmd('' if text == '=' else text)
            assert code in (501, 535, 553, 454), f'{what}: {code} {reply}'
            c.expect(250, 'NOOP')
    # Cancelled, at every step; then another mechanism works on the same connection.
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd(f'AUTH {name}')[0] == 334
        assert c.cmd('*') == (501, 'Authentication cancelled')
        assert c.cmd(f'AUTH {name}')[0] == 334
        assert c.cmd('MAIL FROM:<>')[0] == 501
        assert c.cmd(f'AUTH {name}')[0] == 334
        assert c.cmd('*')[0] == 501
        assert do_plain(c, 'fred', 'pa55word')[0] == 235
        assert c.cmd('AUTH PLAIN')[0] == 503
    # A client that leaves in the middle.
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd(f'AUTH {name}')[0] == 334
    with Client(m.port) as c:
        c.ehlo()


def test_out_of_order(all_of_them):
    with Client(all_of_them.port) as c:
        assert c.cmd('AUTH PLAIN ' + plain('fred', 'pa55word'))[0] == 503
        c.expect(250, 'HELO x')
        assert c.cmd('AUTH PLAIN ' + plain('fred', 'pa55word'))[0] == 503
        c.ehlo()
        for command in ('AUTH', 'AUTH  ', 'AUTH NOSUCH', 'AUTH PLAIN/X', 'AUTH ' + 'X' * 400):
            assert c.cmd(command)[0] in (501, 504)
        c.expect(250, 'MAIL FROM:<u1@local.test>')
        assert c.cmd('AUTH PLAIN ' + plain('fred', 'pa55word')) == (503, 'not permitted in mail transaction')
        c.expect(250, 'RSET')
        assert do_plain(c, 'fred', 'pa55word')[0] == 235
        c.expect(250, 'MAIL FROM:<u1@local.test>')


# --- secrets ---

def test_passwords_do_not_show(martlet):
    """Not in logs of a server that logs all it can, not in its debug output, whatever goes wrong."""
    m = martlet(authenticators=MECHANISMS, main=MAIN + '\nlog_selector = +all', daemon=False, allow_panic='.')
    words = ('pa55word', plain('fred', 'pa55word'), plain('fred', 'pa55wor'), b64('pa55word'), b64('pa55wor'), 'pa55wor')
    session = ['AUTH PLAIN ' + plain('fred', 'pa55word'), 'EHLO client.test', 'AUTH PLAIN ' + plain('fred', 'pa55wor'),
               'AUTH NOSUCH ' + plain('fred', 'pa55word'), 'AUTH PLAIN/ ' + plain('fred', 'pa55word'), 'AUTH LOGIN ' + b64('fred'),
               b64('pa55wor'), 'AUTH EXTERNAL ' + b64('pa55word'), 'AUTH PLAIN', plain('fred', 'pa55word'),
               'AUTH PLAIN ' + plain('fred', 'pa55word'), 'MAIL FROM:<u1@local.test>', 'AUTH PLAIN ' + plain('fred', 'pa55word'), 'QUIT']
    out = m.run('-d+all', '-bs', '-oMa', '10.1.2.3', input='\r\n'.join(session) + '\r\n')
    assert '235 ' in out and '535 ' in out
    for word in words:
        assert word not in out, word
        assert word not in m.logs(), word


def test_passwords_do_not_show_when_a_lookup_fails(martlet):
    m = martlet(main='log_selector = +all', daemon=False, allow_panic='.', authenticators='''
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${lookup sqlite,file=/no/such/file {select x from y where p='${quote_sqlite:$auth3}'}}
''')
    out = m.run('-d+all', '-bs', '-oMa', '10.1.2.3', input=f'EHLO client.test\r\nAUTH PLAIN {plain("fred", "pa55word")}\r\nQUIT\r\n')
    assert '435 ' in out
    assert 'pa55word' not in out and 'pa55word' not in m.logs()
