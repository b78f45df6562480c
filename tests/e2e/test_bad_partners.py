"""Scanners and authenticators with partners that behave badly: what test_scan_*.py and test_auth_trouble.py do not have."""
import base64
import os
import re
import socket
import subprocess
import threading

import pytest

from support import scanners
from support.sasl import b64, plain
from support.smtp import Client
from support.util import read
from test_authenticators import DIGEST, GSASL_SERVER, PAIRS, SPA
from test_scan_bmi import ROUTERS, RUN, send

pytestmark = pytest.mark.plain


def http(text):
    """A server that takes a request and answers with this."""
    def serve(c):
        head = c.until(b'\r\n\r\n').decode()
        c.exactly(int(re.search(r'Content-Length: (\d+)', head).group(1)))
        c.send(text)
    return serve


OK = 'HTTP/1.1 200 OK\r\n\r\n'
RSPAMD = {
    'close': scanners.close, 'garbage': scanners.garbage, '10 MB': scanners.flood, 'nothing': http(''), 'half a header': http('HTTP/1.1 200 OK\r\nX'),
    'refuses': http('HTTP/1.1 500 Oops\r\n\r\n{"action":"reject"}'), 'no action': http(OK + '{"score":1}'), 'unknown action': http(OK + '{"action":"x"}'),
    'no JSON': http(OK + 'reject'), 'half JSON': http(OK + '{"action":"reject"'), 'NUL': http(OK + '{"action":"re\0ject"}'),
    '10 MB of JSON': http(OK + '{"action":"reject","symbols":{"' + 'A' * 10000000 + '":1}}'),
    'deep JSON': http(OK + '{"action":"reject","symbols":' + '{"a":' * 100000),
}


@pytest.mark.parametrize('what', RSPAMD)
def test_verdicts_of_a_bad_rspamd(martlet, stub, what):
    m = martlet(main=f'bmi_config_file = rspamd:http://127.0.0.1:{stub(RSPAMD[what]).port}', acl_rcpt=RUN.replace('@OPTION@', ''), routers=ROUTERS,
                allow_panic='BMI:')
    send(m, 'u0')
    assert 'X-Plain: 1 <> <>' in str(m.wait_mail('u0')[0])
    assert 'message accepted without verdicts' in m.log('panic')


def test_scanners_that_never_answer(martlet, stub):
    """Each has its time (a minute, two minutes), and then the message is treated as when the scanner is down; others do not wait."""
    server = stub(scanners.never)
    common = {'acl_rcpt': RUN.replace('@OPTION@', ''), 'routers': ROUTERS, 'allow_panic': 'BMI:|dcc acl condition'}
    asking = {
        'dcc': martlet(main=f'acl_smtp_data = data\ndccifd_address = {server.address}', acl='data:\n  accept senders = c@b.test\n  accept dcc = *\n', allow_panic='dcc acl'),
        'lines': martlet(main=f'bmi_config_file = inet:127.0.0.1:{server.port}', **common),
        'rspamd': martlet(main=f'bmi_config_file = rspamd:http://127.0.0.1:{server.port}', **common),
    }
    replies = {}

    def run(name, m):
        with Client(m.port, timeout=400) as c:
            replies[name] = c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nbody\r\n')[0]
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in asking.items()]
    for t in threads:
        t.start()
    with Client(asking['dcc'].port) as c:
        assert c.mail('c@b.test', 'u0@local.test', data='Subject: x\r\n\r\nbody\r\n')[0] == 250
    for t in threads:
        t.join(400)
    assert replies == {'dcc': 451, 'lines': 250, 'rspamd': 250}
    for name in ('lines', 'rspamd'):
        assert 'message accepted without verdicts' in asking[name].log('panic')


@pytest.mark.root
def test_mksd(martlet):
    """The one scanner whose socket has a fixed place."""
    m = martlet(inside=True, main='acl_smtp_data = data\nav_scanner = mksd:2\n', allow_panic='malware acl condition: mksd', acl="""
data:
  deny   malware = */tmo=${if eq{$sender_address}{never@b.test}{5s}{60s}}
         message = found $malware_name
  accept
""")
    os.makedirs(m.place.path('/run/mksd'))
    path = m.place.path('/run/mksd/socket')

    def said(text):
        def serve(c):
            assert c.until(b'\n').startswith(b'|')
            c.send(text)
        return serve
    for answer, want in ((said('OK\n'), 250), (said('VIR Eicar /x\n'), 550), (said('ERR what\n'), 451), (scanners.close, 451), (scanners.garbage, 451),
                         (scanners.flood, 451), (scanners.never, 451)):
        server = scanners.Stub(answer, path)
        with Client(m.port, timeout=100) as c:
            code, text = c.mail('never@b.test' if answer is scanners.never else 'a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nbody\r\n')
        server.stop()
        assert code == want and (code != 550 or text == 'found Eicar'), (want, code, text, m.logs())
    with Client(m.port, timeout=100) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nbody\r\n')[0] == 451


# --- passwords ---

class Debugged:
    """A server that is started for each connection, with all debug output in a file."""

    def __init__(self, m, path):
        self.m, self.path = m, path
        self.listener = socket.socket()
        self.listener.bind(('127.0.0.1', 0))
        self.listener.listen(5)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def stop(self):
        """When the last one has ended, and said all that it has to say."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def serve(self):
        while True:
            try:
                s = self.listener.accept()[0]
            except OSError:
                return
            with s, open(self.path, 'ab') as f:
                subprocess.run(self.m._command(['-C', self.m.conf, '-d+all', '-bs', '-oMa', '10.1.2.3']), stdin=s, stdout=s, stderr=f, timeout=200)


def forms(password):
    """What a password looks like: itself, not as a part of an option's name; base64 of it and of what it stands in."""
    texts = {b64(password), plain('fred', password), base64.b64encode(password.encode('utf-16-le')).decode()}
    return [re.compile(rf'(?<![a-z_0-9]){password}(?![a-z_0-9])')] + [re.compile(re.escape(t.rstrip('='))) for t in texts]


SILENT = {name: text for name, text in PAIRS.items() if not name.endswith('PLUS') and name != 'EXTERNAL'}


@pytest.mark.parametrize('mechanism', SILENT)
def test_passwords_do_not_show_on_either_side(martlet, scratch, mechanism):
    """Neither in the client's nor in the server's debug output and logs, right or wrong."""
    right, wrong = 'pa55word', 'wr0ngword'
    server = martlet(daemon=False, authenticators=(GSASL_SERVER + SPA).replace('{secret}', '{' + right + '}'), main=DIGEST + '\nlog_selector = +all',
                     allow_panic='.')
    debugged = Debugged(server, f'{scratch}/debug')
    for password, want in ((right, 'A=ours'), (wrong, 'authenticator failed')):
        m = martlet(smarthost=f'127.0.0.1::{debugged.port}', client='hosts_require_auth = *\n  hosts_avoid_tls = *', main=DIGEST + '\nlog_selector = +all',
                    retry='* * F,1h,1h', daemon=False,
                    authenticators=f'ours:\n public_name = {mechanism}\n ' + SILENT[mechanism].format(p=password) + '\n')
        out = m.run('-d+all', '-odi', '-f', 'u1@local.test', 'u0@relay.test', input='Subject: x\n\nx\n')
        m.wait_log(want)
        assert 'AUTH' in out
        for form in forms(password):
            assert not form.search(out), (password, form.search(out), out[max(0, form.search(out).start() - 300):][:600])
            assert not form.search(m.logs())
    debugged.stop()
    shown = read(f'{scratch}/debug')
    assert forms(right)[0].search(read(server.conf))  # it would be found
    assert 'AUTH' in shown
    for form in forms(right) + forms(wrong):
        found = form.search(shown)
        assert not found, shown[max(0, found.start() - 300):][:600]
        assert not form.search(server.logs())


# --- Dovecot behind a firewall that drops ---

def test_dovecot_that_cannot_be_reached(martlet):
    """Connections are neither made nor refused: 454 within a minute, and nobody else waits."""
    full = socket.socket()
    full.bind(('127.0.0.1', 0))
    full.listen(0)
    port = full.getsockname()[1]
    fillers = []
    for _ in range(8):  # beyond its queue the kernel drops what comes
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(('127.0.0.1', port))
        fillers.append(s)
    m = martlet(authenticators=f'any:\n  driver = dovecot\n  public_name = PLAIN\n  server_socket = 127.0.0.1 {port}\n')
    with Client(m.port, timeout=200) as c, Client(m.port) as other:
        c.ehlo()
        c.send('AUTH PLAIN ' + plain('fred', 'pa55word') + '\r\n')
        other.ehlo()
        other.expect(250, 'MAIL FROM:<u1@local.test>')
        assert c.reply() == (454, '4.7.0 Temporary authentication failure')
    m.wait_log('any authenticator failed.*imed out', 'reject')
    for s in fillers:
        s.close()
    full.close()
