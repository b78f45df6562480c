"""check_srv with the service smtp-tls: TLS is mandatory, on connect at another port than 25, else with STARTTLS. And hosts_verify_avoid_tls."""
import socket
import ssl
import threading

import pytest

from support.smtp import Client
from support.util import free_port

pytestmark = pytest.mark.root

ROUTE = 'srv:\n  driver = dnslookup\n  domains = ! +local_domains\n  check_srv = smtp-tls\n  transport = srv_smtp\n  self = send\n  no_more\n'
TRANSPORT = '''
srv_smtp:
  driver = smtp
  allow_localhost
  port = {port}
  tls_verify_certificates =
'''


class OnConnect:
    """Passes what comes over TLS on to a server in clear."""

    def __init__(self, tls, port):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*tls)
        self.to, self.count = port, 0
        self.sock = socket.create_server(('127.0.0.1', 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                raw, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.session, args=(raw,), daemon=True).start()

    def session(self, raw):
        try:
            with self.context.wrap_socket(raw, server_side=True) as a, socket.create_connection(('127.0.0.1', self.to)) as b:
                self.count += 1
                back = threading.Thread(target=self.copy, args=(b, a), daemon=True)
                back.start()
                self.copy(a, b)
                back.join(10)
        except OSError:
            pass

    @staticmethod
    def copy(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass

    def stop(self):
        self.sock.close()


@pytest.fixture
def world(martlet, nameserver, smtp_server, authority):
    tls = authority.issue('mx.srv.test')
    started = []

    def start(srv_port=None, starttls=True):
        s = smtp_server(tls=tls if starttls else None)
        clear = smtp_server()
        front = OnConnect(tls, clear.port)
        started.append(front)
        nameserver.records[('_smtp-tls._tcp.srv.test', 'SRV')] = [(1, 1, srv_port or front.port, 'mx.srv.test')]
        nameserver.records[('mx.srv.test', 'A')] = ['127.0.0.1']
        m = martlet(resolver=nameserver.address, routers=ROUTE, transports=TRANSPORT.format(port=s.port), relay_from='127.0.0.1',
                    retry='* * F,2h,1h', main='dns_retrans = 20s\n')
        return m, s, clear, front
    yield start
    for front in started:
        front.stop()


def send(m):
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'x@srv.test', data='Subject: x\r\n\r\nx\r\n')[0] == 250


def test_on_connect(world):
    m, s, clear, front = world()
    send(m)
    m.wait_log(r'=> x@srv\.test .* X=TLS')
    assert front.count == 1 and len(clear.messages) == 1 and s.sessions == 0


def test_starttls_when_nobody_listens(world):
    m, s, _, _ = world(srv_port=free_port())
    send(m)
    m.wait_log(r'=> x@srv\.test .* X=TLS')
    assert [x['tls'] for x in s.messages] == [True]


def test_never_in_clear(world):
    m, s, _, _ = world(srv_port=free_port(), starttls=False)
    send(m)
    m.wait_log(r'== x@srv\.test .* defer \(-38\) .*a TLS session is required, but the server did not offer TLS support')
    assert s.messages == []


@pytest.mark.parametrize('avoid', [False, True])
def test_callouts_that_avoid_tls(martlet, smtp_server, authority, avoid):
    s = smtp_server(tls=authority.issue('mx.srv.test'))
    m = martlet(smarthost=f'127.0.0.1::{s.port}', client='tls_verify_certificates =\n' + ('hosts_verify_avoid_tls = *\n' if avoid else ''),
                acl_rcpt='  require verify = recipient/callout=20s,no_cache\n')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<u0@local.test>')
        c.expect(250, 'RCPT TO:<x@relay.test>')
    assert ('STARTTLS' in s.commands) == (not avoid)
