"""MTA-STS (RFC 8461) as a client: policies from a web server of our own, with our own authority."""
import http.server
import ssl
import threading

import pytest

from support.smtp import Client
from support.util import free_loopback

pytestmark = pytest.mark.root

TRANSPORT = '''
sts_smtp:
  driver = smtp
  allow_localhost
  port = {port}
  hosts_try_dane =
  hosts_try_mta_sts = *
  mta_sts_verify_certificates = {ca}
  tls_verify_certificates = {ca}
  {more}
'''
ROUTE = 'sts:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = sts_smtp\n  self = send\n  no_more\n'


class Web:
    """https://mta-sts.DOMAIN/.well-known/mta-sts.txt for the domains in `policies`: (text, type, status).

    What is posted goes to `posted`: (host, path, type, body), when `post_status` is 2xx.
    """

    def __init__(self, certificate):
        self.policies, self.asked, self.posted, self.post_status = {}, [], [], 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                host = self.headers['Host'].split(':')[0]
                outer.asked.append((host, self.path))
                text, kind, status = outer.policies.get(host.removeprefix('mta-sts.'), ('no', 'text/plain', 404))
                self.send_response(status)
                self.send_header('Content-Type', kind)
                if status == 302:
                    self.send_header('Location', f'https://{host}/.well-known/mta-sts.txt')
                self.end_headers()
                self.wfile.write(text.encode())

            def do_POST(self):
                body = self.rfile.read(int(self.headers['Content-Length']))
                if outer.post_status < 300:
                    outer.posted.append((self.headers['Host'].split(':')[0], self.path, self.headers['Content-Type'], body))
                self.send_response(outer.post_status)
                if outer.post_status == 302:
                    self.send_header('Location', '/elsewhere')
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 100

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        for attempt in range(5):
            try:
                self.address = free_loopback()
                self.server = Server((self.address, 443), Handler)
                break
            except OSError:
                if attempt == 4:
                    raise
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


DOMAINS = ['enforce', 'nomx', 'testing', 'testmx', 'none', 'absent', 'broken', 'moved', 'html', 'badname', 'big', 'wild', 'tworecords']


def policy(mode, *mx, age=86400):
    return f'version: STSv1\nmode: {mode}\n' + ''.join(f'mx: {m}\n' for m in mx) + f'max_age: {age}\n'


@pytest.fixture
def world(authority, nameserver, smtp_server):
    web = Web(authority.issue('mta-sts.enforce.test', *[f'mta-sts.{d}.test' for d in DOMAINS if d != 'badname']))
    s = smtp_server(tls=authority.issue('mx.enforce.test', 'a.wild.test'))
    for d in DOMAINS:
        mx = 'a.wild.test' if d == 'wild' else 'mx.enforce.test'
        nameserver.records[(f'{d}.test', 'MX')] = [(1, mx)]
        nameserver.records[(f'mta-sts.{d}.test', 'A')] = [web.address]
        nameserver.records[(f'_mta-sts.{d}.test', 'TXT')] = ['v=STSv1; id=1;']
    nameserver.records[('mx.enforce.test', 'A')] = nameserver.records[('a.wild.test', 'A')] = ['127.0.0.1']
    nameserver.records[('_mta-sts.tworecords.test', 'TXT')] = ['v=STSv1; id=1;', 'v=STSv1; id=2;']
    good = policy('enforce', 'mx.enforce.test')
    plain = {'enforce': good, 'nomx': policy('enforce', 'mail.elsewhere.test'), 'testing': policy('testing', 'mx.enforce.test'),
             'testmx': policy('testing', 'mail.elsewhere.test'), 'none': policy('none'), 'broken': 'version: STSv1\nmode: enforce\n',
             'badname': policy('enforce', 'mail.elsewhere.test'), 'big': policy('enforce', 'mail.elsewhere.test') + 'x: y\n' * 20000,
             'wild': policy('enforce', '*.wild.test'), 'tworecords': policy('enforce', 'mail.elsewhere.test')}
    web.policies = {f'{d}.test': (text, 'text/plain', 200) for d, text in plain.items()}
    web.policies['moved.test'] = (policy('enforce', 'mail.elsewhere.test'), 'text/plain', 302)
    web.policies['html.test'] = (policy('enforce', 'mail.elsewhere.test'), 'text/html', 200)
    yield web, s, nameserver, authority
    web.stop()


def relay(martlet, world, more='', **kw):
    _, s, ns, authority = world
    kw.setdefault('main', 'log_selector = +tls_certificate_verified\nsmtp_accept_queue_per_connection = 0\ndns_retrans = 20s\n')
    return martlet(resolver=ns.address, routers=ROUTE, transports=TRANSPORT.format(port=s.port, ca=authority.certificate, more=more),
                   relay_from='127.0.0.1', retry='* * F,2h,1h', **kw)


def send(m, *domains):
    with Client(m.port) as c:
        c.ehlo()
        for d in domains:
            assert c.mail('u0@local.test', f'x@{d}.test', data='Subject: x\r\n\r\nx\r\n', hello=False)[0] == 250


def test_policies(martlet, world):
    web, s, _, _ = world
    m = relay(martlet, world)
    send(m, *DOMAINS)
    for d in ('enforce', 'wild', 'testing'):
        m.wait_log(rf'=> x@{d}\.test .* X=.* CV=yes')
    m.wait_log(r'== x@nomx\.test .* defer \(-62\) H=mx\.enforce\.test .*: MTA-STS: mx\.enforce\.test is none of the hosts in the policy of nomx\.test')
    m.wait_log(r'MTA-STS: mx\.enforce\.test is none of the hosts in the policy of testmx\.test \(testing\)')
    for d in ('testmx', 'none', 'absent', 'broken', 'moved', 'html', 'badname', 'big', 'tworecords'):
        m.wait_log(rf'=> x@{d}\.test ')
    for d, why in [('absent', 'the web server said 404'), ('broken', 'the policy is not understood'), ('moved', 'the web server said 302'),
                   ('html', 'it is not text/plain'), ('badname', '.*(subject name|verif)'), ('big', '.*')]:
        m.wait_log(rf'MTA-STS: the policy of {d}\.test cannot be had: {why}')
    assert ('mta-sts.tworecords.test', '/.well-known/mta-sts.txt') not in web.asked


def test_server_without_tls_or_with_another_certificate(martlet, world, authority):
    """enforce: never in clear, and never to somebody else; testing: delivered, and told."""
    web, s, ns, _ = world
    m = relay(martlet, world)
    s.keywords.remove('STARTTLS')
    send(m, 'enforce', 'testing')
    m.wait_log(r'== x@enforce\.test .* defer \(-62\) .*a TLS session is required, but the server did not offer TLS support')
    m.wait_log(r'=> x@testing\.test ')
    s.keywords.append('STARTTLS')
    s.context.load_cert_chain(*authority.issue('other.test'))
    m = relay(martlet, world)
    send(m, 'enforce', 'testing')
    m.wait_log(r'== x@enforce\.test .* defer \(-62\) .*certificate verify failed')
    m.wait_log(r'=> x@testing\.test .* CV=no')
    assert len(s.messages) == 2


def test_what_is_remembered(martlet, world):
    web, s, ns, _ = world
    ns.ttl = 0
    m = relay(martlet, world, more='connection_max_messages = 1')
    asked = lambda: len([a for a in web.asked if a[0] == 'mta-sts.enforce.test'])
    send(m, 'enforce')
    m.wait_log(r'=> x@enforce\.test ')
    send(m, 'enforce')
    m.wait_log(r'=> x@enforce\.test ', count=2)
    assert asked() == 1
    # A new id: fetched again. The new policy does not take the host any more.
    ns.records[('_mta-sts.enforce.test', 'TXT')] = ['v=STSv1; id=2;']
    web.policies['enforce.test'] = (policy('enforce', 'mail.elsewhere.test'), 'text/plain', 200)
    send(m, 'enforce')
    m.wait_log(r'== x@enforce\.test .* MTA-STS: ')
    assert asked() == 2
    # What is remembered holds when the record, or the web server, is gone.
    del ns.records[('_mta-sts.enforce.test', 'TXT')]
    send(m, 'enforce')
    m.wait_log(r'== x@enforce\.test ', count=2)
    ns.records[('_mta-sts.enforce.test', 'TXT')] = ['v=STSv1; id=3;']
    web.policies['enforce.test'] = ('', 'text/plain', 500)
    send(m, 'enforce')
    m.wait_log(r'the policy of enforce\.test cannot be had: the web server said 500')
    assert asked() == 3 and len(s.messages) == 2


def test_off_by_default(martlet, world):
    web, s, _, _ = world
    m = relay(martlet, world, more='hosts_try_mta_sts =\n'.replace('hosts_try_mta_sts', 'hosts_try_prdr'))
    send(m, 'none')
    m.wait_log(r'=> x@none\.test ')
    asked = len(web.asked)
    m = martlet(resolver=world[2].address, routers=ROUTE.replace('sts_smtp', 'remote_smtp'), relay_from='127.0.0.1', retry='* * F,2h,1h',
                client=f'port = {s.port}\n', main='dns_retrans = 20s\n')
    send(m, 'nomx')
    m.wait_log(r'=> x@nomx\.test ')
    assert len(web.asked) == asked


def test_requiretls_counts_on_it(martlet, world, authority):
    """The MX record is not secure, but the policy names the host."""
    web, s, _, _ = world
    s.keywords.append('REQUIRETLS')
    m = relay(martlet, world, tls=authority.issue('hop.test', 'mx.martlet.test'))
    with Client(m.port) as c:
        c.ehlo()
        c.starttls()
        c.ehlo()
        for d in ('enforce', 'none'):
            c.expect(250, 'MAIL FROM:<u0@local.test> REQUIRETLS')
            c.expect(250, f'RCPT TO:<x@{d}.test>')
            c.expect(354, 'DATA')
            assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
    m.wait_log(r'=> x@enforce\.test .*CV=yes')
    m.wait_log(r'\*\* x@none\.test .*5\.7\.10 Encryption needed: the name of the host is not validated')
