"""Bad input over SMTP: each is answered as the manual says, nothing is lost, and no process ends or grows without bound."""
import random
import re
import threading

import pytest

from support import procs
from support.smtp import Client, Closed
from support.util import wait_for


def session(m):
    c = Client(m.port)
    c.ehlo()
    return c


def test_command_line_without_end(steady):
    m = steady()
    with Client(m.port) as c:
        try:
            c.send(b'NOOP ' + b'x' * 300000 + b'\r\n')
            assert c.reply()[0] in (500, 501, 554)
        except (Closed, OSError):
            pass
    with Client(m.port) as c:
        # No newline at all: not more than a buffer may be kept.
        try:
            for _ in range(200):
                c.send(b'x' * 65536)
        except OSError:
            pass
    assert procs.pss(m.processes()) < 200 * 1024


def test_long_command_arguments(steady):
    m = steady()
    with session(m) as c:
        assert c.cmd('MAIL FROM:<' + 'a' * 5000 + '@b.test>')[0] == 501
        c.cmd('RSET')
        assert c.cmd('MAIL FROM:<a@' + 'b.' * 2000 + 'test>')[0] in (250, 500, 501, 552, 553)
        c.cmd('RSET')
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('RCPT TO:<' + 'u' * 3000 + '@local.test>')[0] in (500, 501, 550, 552, 553)
        c.expect(250, 'RCPT TO:<u0@local.test>')


def test_long_lines_in_a_message(steady):
    m = steady()
    body = 'x' * 3_000_000
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data=f'Subject: long\r\n\r\n{body}\r\n')[0] == 250
    assert m.wait_mail('u0')[0].endswith(body.encode() + b'\n')


def test_nul_bytes(steady):
    m = steady()
    with session(m) as c:
        assert c.cmd(b'MAIL FROM:<a\0@b.test>\r\n') == (501, 'NUL characters are not allowed in SMTP commands')
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd(b'RCPT TO:<u0@local.test\0>\r\n')[0] in (500, 501)
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        assert c.body(b'Subject: a\0b\r\nX-\0: c\r\n\r\nbody \0 with \0\0 nul\r\n')[0] == 250
    assert b'body \0 with \0\0 nul\n' in m.wait_mail('u0')[0]


@pytest.mark.parametrize('end', [b'\n.\n', b'\r\n.\n', b'\n.\r\n', b'\r.\r', b'\r\n.\r', b'\r.\r\n'])
def test_smuggling(steady, end):
    """After a header line that ended with CRLF only CRLF dot CRLF ends a message."""
    m = steady()
    with session(m) as c:
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        c.send(b'Subject: outer\r\n\r\nbody' + end + b'MAIL FROM:<evil@b.test>\r\nRCPT TO:<u1@local.test>\r\nDATA\r\n'
               b'Subject: smuggled\r\n\r\nx\r\n.\r\n')
        assert c.reply()[0] == 250
        assert c.cmd('QUIT')[0] == 221
    text = m.wait_mail('u0')[0]
    assert b'Subject: smuggled' in text and b'MAIL FROM:<evil@b.test>' in text
    m.wait_empty()
    assert m.mail('u1') == []


def test_bare_line_ends_in_headers(steady):
    m = steady()
    with session(m) as c:
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        assert c.body(b'Subject: one\r\nX-A: b\rX-Evil: c\nX-Worse: d\r\n\r\na\rb\nc\r\n')[0] == 250
    head, body = m.wait_mail('u0')[0].split(b'\n\n', 1)
    assert b'X-A: b\n X-Evil: c\n X-Worse: d' in head
    assert body == b'a\nb c\n'


def test_commands_out_of_order(steady):
    m = steady(main='smtp_max_synprot_errors = 20\n')
    with Client(m.port) as c:
        assert c.cmd('RCPT TO:<u0@local.test>')[0] == 503
        assert c.cmd('DATA')[0] == 503
        c.ehlo()
        assert c.cmd('RCPT TO:<u0@local.test>')[0] == 503
        assert c.cmd('DATA')[0] == 503
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('MAIL FROM:<a@b.test>')[0] == 503
        assert c.cmd('DATA')[0] == 503
        assert c.cmd('STARTTLS')[0] in (500, 503)
        assert c.cmd('AUTH PLAIN AHgAeQ==')[0] == 503
        assert c.cmd('MAIL FROM:a b c')[0] in (501, 503)
        assert c.cmd('RCPT')[0] in (500, 501)
        assert c.cmd('RCPT TO:')[0] == 501
        assert c.cmd('RCPT TO:<>')[0] == 501
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(250, 'RSET')
        assert c.cmd('DATA')[0] == 503
        # The three bytes belong to the command, which is refused only after them.
        assert c.cmd(b'BDAT 3 LAST\r\nabc')[0] == 503
        c.expect(221, 'QUIT')


def test_too_many_protocol_errors(steady):
    m = steady()
    with session(m) as c:
        for _ in range(3):
            assert c.cmd('RCPT TO:<u0@local.test>')[0] == 503
        code, text = c.cmd('RCPT TO:<u0@local.test>')
        assert code == 503 and text.endswith('\nToo many syntax or protocol errors'), (code, text)
        assert c.at_end()
    m.wait_log(r'SMTP call from .*127\.0\.0\.1.* dropped: too many syntax or protocol errors \(last command was "RCPT TO:<u0@local\.test>"')


def test_too_many_unknown_commands(steady):
    m = steady()
    with session(m) as c:
        for _ in range(3):
            assert c.cmd('XYZZY')[0] == 500
        assert c.cmd('XYZZY') == (500, 'Too many unrecognized commands')
        assert c.at_end()
    m.wait_log(r'SMTP call from .*127\.0\.0\.1.* dropped: too many unrecognized commands \(last was "XYZZY"\)')


def test_talking_before_the_banner_and_without_pipelining(steady):
    m = steady(acl='early:\n  accept delay = 3s\n', main='acl_smtp_connect = early\npipelining_connect_advertise_hosts =\n')
    with Client(m.port, banner=False) as c:
        c.send('MAIL FROM:<a@b.test>\r\n')
        code, text = c.reply()
        assert (code, text) == (554, 'SMTP synchronization error')
        assert c.at_end()
    m.wait_log(r'SMTP protocol synchronization error \(input sent without waiting for greeting\): rejected connection from', 'reject')


def test_synchronisation_after_data(steady):
    m = steady(main='acl_smtp_predata = slow\n', acl='slow:\n  accept delay = 1s\n')
    with session(m) as c:
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.send('DATA\r\nSubject: too early\r\n\r\nx\r\n.\r\n')
        assert c.reply() == (554, 'SMTP synchronization error')
        assert c.at_end()
    assert m.mail('u0') == []


def test_a_hundred_thousand_recipients(steady):
    """By default at most 50,000: the others are refused for now, and the message goes to the first."""
    m = steady(acl_rcpt='  accept domains = +local_domains\n', routers='one:\n  driver = redirect\n  domains = +local_domains\n'
               '  local_parts = ^r\\\\d+\\$\n  data = u0@local.test\n')
    kept = refused = 0
    with session(m) as c:
        c.expect(250, 'MAIL FROM:<a@b.test>')
        for start in range(0, 100000, 500):
            c.send(''.join(f'RCPT TO:<r{n}@local.test>\r\n' for n in range(start, start + 500)))
            for _ in range(500):
                code = c.reply()[0]
                assert code in (250, 452), code
                kept, refused = kept + (code == 250), refused + (code == 452)
        assert (kept, refused) == (50000, 50000)
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
    m.wait_mail('u0', patience=200)
    m.wait_empty(patience=200)
    assert procs.pss(m.processes()) < 700 * 1024


def test_header_bombs(steady):
    m = steady()
    for bomb in ('X-Bomb: y\r\n' * 120000, 'X-Bomb: ' + 'y' * 1_100_000 + '\r\n', 'X-Bomb: y\r\n' + ' z\r\n' * 400000):
        with Client(m.port) as c:
            code, text = c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n' + bomb + '\r\nx\r\n')
            assert (code, text) == (552, 'Message header is ridiculously long')
    many = 'To: ' + ',\r\n '.join(f'r{n}@far.test' for n in range(20000)) + '\r\n'
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n' + many + '\r\nx\r\n')[0] == 250
    m.wait_mail('u0')
    m.wait_log(r'ridiculously long message header received from .* \(more than 1048576 characters\): message abandoned', count=3)
    assert procs.pss(m.processes()) < 300 * 1024


def test_header_line_limit(steady):
    m = steady(main='header_line_maxsize = 500\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\nX: ' + 'y' * 600 + '\r\n\r\nx\r\n')[0] in (552, 554)
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\nX: ' + 'y' * 400 + '\r\n\r\nx\r\n')[0] == 250
    m.wait_mail('u0')


def test_message_size_limit(steady):
    m = steady(main='message_size_limit = 20K\n')
    with session(m) as c:
        assert c.keywords['SIZE'] == ['20480']
        assert c.cmd('MAIL FROM:<a@b.test> SIZE=30000')[0] == 552
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\n\r\n' + 'x' * 78 * 500 + '\r\n')[0] == 552
        assert c.mail('a@b.test', 'u0@local.test', hello=False)[0] == 250
    m.wait_mail('u0')
    wait_for(lambda: m.spool_files() == [], lambda: str(m.spool_files()))


def test_message_size_limit_that_is_none(steady):
    """A limit that cannot be told does not become none."""
    m = steady(main='message_size_limit = ${if eq{$sender_host_address}{127.0.0.2}{many}{1M}}\n', allow_panic='invalid message_size_limit')
    with Client(m.port, source='127.0.0.2') as c:
        assert c.greeting == (421, 'Temporary local problem - please try later')
        assert c.cmd('MAIL FROM:<a@b.test>') == (421, 'Temporary local problem - please try later')
        c.expect(221, 'QUIT')
    m.wait_log(r'invalid message_size_limit: integer expected but "many" found', 'panic')


def test_slow_senders(steady):
    """Hundreds of senders that stall hold nobody up, and are sent away when their time is over."""
    m = steady(main='smtp_receive_timeout = 6s\n')
    stalled = []
    for n in range(200):
        c = Client(m.port, banner=False)
        stalled.append(c)
    for c in stalled:
        c.reply()
        c.send(b'EHL')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')
    for c in stalled:
        code, text = c.reply()
        assert code == 421 and 'timeout' in text, (code, text)
        assert c.at_end()
        c.close()
    m.wait_log(r'SMTP command timeout on connection from .*\[127\.0\.0\.1\]', count=200)


def test_slow_body(steady):
    m = steady(main='smtp_receive_timeout = 5s\n')
    with session(m) as c:
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        c.send(b'Subject: x\r\n\r\nhalf a li')
        code, text = c.reply()
        assert code == 421, (code, text)
        assert c.at_end()
    m.wait_log(r'SMTP data timeout \(message abandoned\) on connection from .*\[127\.0\.0\.1\] F=<a@b\.test>')
    wait_for(lambda: m.spool_files() == [], lambda: str(m.spool_files()))


STATES = ['', 'EHLO x\r\n', 'EHL', 'EHLO x\r\nMAIL FROM:<a@b.test>\r\n', 'EHLO x\r\nMAIL FROM:<a@b.te',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\n',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n~Subject: x\r\nX-',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n~Subject: x\r\n\r\nbody\r\n',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n~Subject: x\r\n\r\nbody\r\n.',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n~Subject: x\r\n\r\nbody\r\n.\r',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nBDAT 1000\r\nSubj',
          'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nBDAT 5\r\nSubje',
          'EHLO x\r\nAUTH PLAIN\r\n', 'EHLO x\r\nAUTH LOGIN\r\n', 'EHLO x\r\nSTARTTLS\r\n', 'EHLO x\r\nSTARTTLS\r\n~\x16\x03\x01\x02',
          'EHLO x\r\nSTARTTLS\r\n~GET / HTTP/1.0\r\n\r\n']
AUTHENTICATORS = '''
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = false
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = false
'''


@pytest.mark.parametrize('way', ['close', 'reset', 'half'])
def test_disconnect_in_every_state(steady, authority, way):
    m = steady(tls=authority.issue('mx.martlet.test'), authenticators=AUTHENTICATORS, main='log_selector = +smtp_connection\n')
    for state in STATES:
        c = Client(m.port)
        *commands, rest = state.replace('~', '').split('\r\n') if '~' not in state else (
            state.split('~')[0].split('\r\n')[:-1] + [state.split('~')[1]])
        for line in commands:
            if line.startswith(('BDAT',)):
                c.send(line + '\r\n')
            else:
                assert c.cmd(line)[0] < 400, (state, line)
        if rest:
            c.send(rest)
        if way == 'reset':
            c.reset()
        elif way == 'half':
            # Our direction only: what is said last still goes through.
            c.sock.shutdown(1)
            try:
                while c.sock.recv(4096):
                    pass
            except ConnectionError:
                pass
            c.close()
        else:
            c.close()
    m.wait_log(r' lost\b|unexpected disconnection| closed by EOF', count=len(STATES))
    wait_for(lambda: m.spool_files() == [], lambda: str(m.spool_files()) + m.logs())
    assert m.mail('u0') == []


def test_silence_in_auth(steady):
    m = steady(main='smtp_receive_timeout = 5s\n', authenticators=AUTHENTICATORS)
    with session(m) as c:
        c.expect(334, 'AUTH LOGIN')
        assert c.reply() == (421, 'mx.martlet.test: SMTP command timeout - closing connection')
        assert c.at_end()
    m.wait_log(r'SMTP command timeout on connection from \(client\.test\) \[127\.0\.0\.1\]')


def test_message_is_complete_though_the_client_left_before_the_answer(steady):
    """The final dot has come: the message is ours, whether or not anybody hears so; it may not be there twice."""
    m = steady()
    c = session(m)
    for line, code in (('MAIL FROM:<a@b.test>', 250), ('RCPT TO:<u0@local.test>', 250), ('DATA', 354)):
        c.expect(code, line)
    c.send('Subject: x\r\n\r\nx\r\n.\r\n')
    c.close()
    if m.wait_log(r' <= a@b\.test |lost while reading message|[Cc]onnection.*lost')[0].startswith(' <='):
        m.wait_log(' Completed')
    assert len(m.mail('u0')) <= 1


def test_command_lines_that_end_otherwise(steady):
    """A bare LF ends a command, as ever; a bare CR is a byte of it like any other."""
    m = steady(main='smtp_max_synprot_errors = 20\n')
    with Client(m.port) as c:
        assert c.cmd(b'EHLO client.test\n')[0] == 250
        c.expect(250, b'MAIL FROM:<a@b.test>\n')
        assert c.cmd(b'RCPT TO:<u0@local.test>\rRCPT TO:<u1@local.test>\r\n')[0] == 501
        c.expect(250, b'RCPT TO:<u0@local.test>\r\r\n')
        assert c.cmd(b'\rDATA\r\n')[0] == 500
        assert c.cmd(b'\r\n')[0] == 500
        c.expect(354, b'DATA\n')
        assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
        c.expect(221, 'QUIT')
    m.wait_mail('u0')
    m.wait_empty()
    assert m.mail('u1') == []


def test_chunked_header_with_bare_line_ends(steady):
    m = steady()
    with session(m) as c:
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        text = b'Subject: x\nX-Y: z\n\nbody\n'
        c.send(b'BDAT %d LAST\r\n' % len(text) + text)
        assert c.reply() == (552, 'Message header not CRLF terminated')
        assert c.mail('a@b.test', 'u1@local.test', hello=False)[0] == 250
    m.wait_mail('u1')
    m.wait_log(r'rejected from <a@b\.test> H=.*: Non-CRLF-terminated header, under CHUNKING: message abandoned', 'reject')
    m.wait_empty()
    assert m.mail('u0') == []


def test_chunks_out_of_order(steady):
    m = steady(main='smtp_max_synprot_errors = 20\n')
    with session(m) as c:
        assert c.cmd(b'BDAT 4 LAST\r\nX: y') == (503, 'valid RCPT command must precede BDAT')
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(250, b'BDAT 8\r\nX: y\r\n\r\n')
        assert c.cmd('DATA') == (503, 'only BDAT permissible after non-LAST BDAT')
        assert c.cmd('RCPT TO:<u1@local.test>') == (503, 'only RSET accepted now')
        assert c.cmd(b'BDAT 4 LAST\r\nmore') == (503, 'only RSET accepted now')
        c.expect(250, 'RSET')
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<u1@local.test>')
        c.expect(250, b'BDAT 6\r\nX: y\r\n')
        c.expect(221, 'QUIT')
    m.wait_log(r'SMTP connection from .*\[127\.0\.0\.1\] lost while reading message data')
    m.wait_empty()
    wait_for(lambda: m.spool_files() == [], lambda: str(m.spool_files()))
    assert m.mail('u0') == [] and m.mail('u1') == []


def test_mail_loop(steady):
    m = steady()
    trace = ''.join(f'Received: from h{n}.test by h{n + 1}.test; Sat, 1 Jan 2022 00:00:00 +0000\r\n' for n in range(31))
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data=trace + 'Subject: x\r\n\r\nx\r\n') == (
            550, 'Too many "Received" headers - suspected mail loop')
    m.wait_log(r'rejected from <a@b\.test> H=.*: Too many "Received" headers', 'reject')
    # A loop through a program of this machine ends, too: its sender hears of it.
    m.run('-odi', '-f', 'u1@local.test', 'u0@local.test', input=trace.replace('\r', '') + 'Subject: x\n\nx\n')
    m.wait_log(r' \*\* u0@local\.test ?: Too many "Received" headers - suspected mail loop')
    assert b'address(es) failed:\n\n  u0@local.test\n' in m.wait_mail('u1')[0]
    assert m.mail('u0') == []


def test_tls_that_does_not_come_about(steady, authority):
    """Who wanted TLS and failed may only leave; one who says nothing is sent away."""
    m = steady(tls=authority.issue('mx.martlet.test'), main='smtp_receive_timeout = 5s\n')
    with session(m) as c:
        c.expect(220, 'STARTTLS')
        c.send(b'GET / HTTP/1.0\r\n\r\n')
        m.wait_log(r'TLS error on connection from \(client\.test\) \[127\.0\.0\.1\] \(SSL_accept\): ')
        c.send(b'MAIL FROM:<a@b.test>\r\n')
        got = b''
        while b'554 Security failure\r\n' not in got:
            got += c.sock.recv(4096)  # the library's alert may stand before it
        c.send(b'QUIT\r\n')
        got = b''
        while b'221 ' not in got:
            got += c.sock.recv(4096)
    with session(m) as c:
        c.expect(220, 'STARTTLS')
        code, text = c.reply()
        assert (code, text) == (421, 'mx.martlet.test: SMTP command timeout - closing connection')
        assert c.at_end()
    m.wait_log(r'TLS error on connection from \(client\.test\) \[127\.0\.0\.1\] \(SSL_accept\): timed out')


def test_local_messages_that_are_wrong(steady):
    """Told on standard error with -oee… by mail otherwise; never taken."""
    m = steady(main='message_size_limit = 100K\nrecipients_max = 3\nheader_maxsize = 20K\n')
    for text, to, why in (('X: y\n' * 6000 + '\nx\n', 'u0@local.test', 'excessively long message header'),
                          ('Subject: x\n\n' + 'x' * 200000 + '\n', 'u0@local.test', 'message too big'),
                          ('Subject: x\n\nx\n', '<a b@c', 'bad recipient address'),
                          ('Subject: x\n\nx\n', ','.join(f'u{n}@local.test' for n in range(5)), 'too many recipients')):
        done = m.run('-oep', '-f', 'u1@local.test', to, input=text, check=False)
        assert done.returncode == 1 and why in done.stdout, (why, done.stdout[:500])
    m.allow_panic = 'no recipients found in headers$'
    done = m.run('-oep', '-t', input='Subject: nobody\n\nx\n', check=False)
    assert done.returncode == 1 and 'no recipients in message' in done.stdout
    m.run('-odi', 'u0@local.test', input=b'Subject: a\0b\n\nbody \0\rwith \r\n\0\n')
    assert b'body \0' in m.wait_mail('u0')[0]
    done = m.run('-oem', '-f', 'u1@local.test', 'u0@local.test', input='Subject: x\n\n' + 'x' * 200000 + '\n', check=False)
    assert done.returncode == 1
    assert b'Subject: Mail failure - message too big' in m.wait_mail('u1')[0]
    m.wait_empty()
    assert len(m.mail('u0')) == 1

def test_bdat_lies(steady):
    m = steady()
    for line in ('BDAT 99999999999999999999', 'BDAT -1', 'BDAT x', 'BDAT', 'BDAT 10 FIRST'):
        with session(m) as c:
            c.expect(250, 'MAIL FROM:<a@b.test>')
            c.expect(250, 'RCPT TO:<u0@local.test>')
            try:
                assert c.cmd(line)[0] in (421, 500, 501, 503, 552, 554), line
            except Closed:
                pass
    m.wait_empty()
    assert m.mail('u0') == []


def test_nonsense(steady):
    """Bytes that are no SMTP at all."""
    m = steady()
    r = random.Random(7)
    for size in (1, 100, 5000, 100000):
        with Client(m.port) as c:
            c.send(bytes(r.randrange(256) for _ in range(size)) + b'\r\nQUIT\r\n')
            end_of(c)
    for data in (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(300), b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'):
        with Client(m.port) as c:
            c.send(data)
            end_of(c)


def end_of(c):
    """Reads what the server says until it closes, having told it that no more will come."""
    try:
        c.sock.shutdown(1)
        while c.sock.recv(4096):
            pass
    except OSError as e:
        assert not isinstance(e, TimeoutError), 'the server goes on after the end of its input'


def test_too_many_connections(steady):
    m = steady(main='smtp_accept_max_per_host = 5\n')
    kept = [Client(m.port) for _ in range(5)]
    with Client(m.port, banner=False) as c:
        assert c.reply() == (421, 'Too many concurrent SMTP connections from this IP address; please try again later.')
        assert c.at_end()
    m.wait_log(r'Connection from \[127\.0\.0\.1\] refused: too many connections from that IP address')
    for c in kept:
        c.expect(221, 'QUIT')
        c.close()

    def again():
        with Client(m.port, banner=False) as c:
            return c.reply()[0] == 220
    wait_for(again, 'a free place')


def test_pipelined_flood(steady):
    """A client that sends and never reads must not make the server hold all answers."""
    m = steady(main='smtp_accept_max_nonmail = 100000000\nsmtp_receive_timeout = 20s\n')
    c = session(m)
    c.sock.settimeout(2)
    try:
        for _ in range(3000):
            c.send('NOOP\r\n' * 10000)
    except OSError:
        pass
    assert procs.pss(m.processes()) < 200 * 1024
    c.close()


def test_addresses_that_are_none(steady):
    m = steady(main='smtp_max_synprot_errors = 100\nsmtp_accept_max_nonmail = 10000\n')
    with session(m) as c:
        for bad in ('<a b@c.test>', '<@>', '<a@>', '<a@b..c>', '<"a@b.test>', '<a@[300.1.1.1]>', 'a@b.test>', '<a@b.test', '<a@b.test> X',
                    '<a,b@c.test>', '<' + '(' * 2000 + 'a@b.test>', '<a@b.test> SIZE=x', '<\xff@b.test>'):
            code, _ = c.cmd(('MAIL FROM:' + bad + '\r\n').encode('latin-1'))
            assert code in (250, 500, 501, 553, 555), (bad, code)
            c.expect(250, 'RSET')
        c.expect(250, 'MAIL FROM:<>')
        for bad in ('<>', '<@far.test>', '<u0@local.test', '<u0@@local.test>', '<|x@local.test>', '</etc/passwd@local.test>',
                    '<../../etc@local.test>', '<${run{/bin/true}}@local.test>', '<"u0\\"@local.test>'):
            code, _ = c.cmd('RCPT TO:' + bad)
            assert code in (500, 501, 550, 553), (bad, code)


def test_many_sessions_at_once(steady):
    m = steady(main='smtp_connect_backlog = 200\n')
    errors = []

    def one(n):
        try:
            with Client(m.port) as c:
                if c.mail('a@b.test', f'u{n % 5}@local.test')[0] != 250:
                    errors.append(n)
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=one, args=(n,)) for n in range(150)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
    wait_for(lambda: sum(len(m.mail(f'u{n}')) for n in range(5)) == 150, m.logs)


def test_pattern_that_backtracks_without_end(steady):
    """A regular expression of the configuration over hostile text is bounded: past its limit it is an error."""
    m = steady(acl_rcpt='  deny condition = ${if match{$sender_address}{^(a+)+\\$}}\n       message = matched\n')
    with session(m) as c:
        assert c.cmd('MAIL FROM:<' + 'a' * 60 + '!@b.test>')[0] == 250
        assert c.cmd('RCPT TO:<u0@local.test>')[0] == 451
