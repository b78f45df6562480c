"""Names in certificates, revocation lists, groups and ALPN; what a server refuses; hostile bytes and broken files."""
import datetime
import os
import re
import socket
import ssl
import subprocess
import tempfile
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.smtp import Client
from support.util import wait_for

DAY = datetime.timedelta(days=1)


class Maker:
    """An authority that makes certificates with any names."""

    def __init__(self, directory):
        self.directory, self.n = directory, 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = None
        self.cert = self.sign('Authority', self.key, [x509.BasicConstraints(True, None)])
        self.file = self.save(self.cert)

    def sign(self, cn, key, extensions):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)] if cn else [])
        now = datetime.datetime.utcnow()
        b = x509.CertificateBuilder(self.cert.subject if self.cert else subject, subject, key.public_key(), x509.random_serial_number(),
                                    now - DAY, now + DAY)
        for e in extensions:
            b = b.add_extension(e, False)
        return b.sign(self.key, hashes.SHA256())

    def save(self, *things):
        self.n += 1
        path = f'{self.directory}/{self.n}.pem'
        with open(path, 'wb') as f:
            for t in things:
                if hasattr(t, 'private_bytes'):
                    f.write(t.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
                else:
                    f.write(t.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, cn, names):
        """(certificate object, its file, the key's file); names None: there is no subjectAltName."""
        key = ec.generate_private_key(ec.SECP256R1())
        extensions = [] if names is None else [x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address(n[3:])) if n.startswith('IP:') else x509.DNSName(n) for n in names])]
        cert = self.sign(cn, key, extensions)
        return cert, self.save(cert), self.save(key)

    def crl(self, *certs):
        now = datetime.datetime.utcnow()
        b = x509.CertificateRevocationListBuilder().issuer_name(self.cert.subject).last_update(now - DAY).next_update(now + DAY)
        for c in certs:
            b = b.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(c.serial_number).revocation_date(now - DAY).build())
        return self.save(b.sign(self.key, hashes.SHA256()))


@pytest.fixture(scope='module')
def maker():
    with tempfile.TemporaryDirectory(prefix='martlet-test-tls-') as d:
        os.chmod(d, 0o755)
        yield Maker(d)


def sender(martlet, s, maker, client='', **kw):
    """A Martlet that delivers to the recipient's domain as a host, at the server's port, and says whether its certificate is good."""
    m = martlet(relay_to='*', acl_rcpt='  accept\n', client=f'port = {s.port}\ntls_verify_certificates = {maker.file}\ntls_try_verify_hosts = *\nconnection_max_messages = 1\n' + client,
                routers='names:\n  driver = manualroute\n  domains = !+local_domains\n  transport = remote_smtp\n'
                        '  route_data = ${if eq{$domain}{ip.test}{127.0.0.1}{$domain}} byname\n  self = send\n  no_more\n', **kw)
    count = iter(range(1000))

    def send(host):
        user = f'x{next(count)}'
        with Client(m.port) as c:
            assert c.mail('a@b.test', f'{user}@{host}')[0] == 250
        return m.wait_log(f'=> {user}@.* CV=(yes|no)')[0]
    return m, send


NAMES = [ # CN, subjectAltName, host, is it good?
    ('x', ['mail.a.example'], 'mail.a.example', True), ('x', ['MAIL.A.Example'], 'mail.a.example', True),
    ('x', ['other.example', 'mail.a.example'], 'mail.a.example', True), ('mail.a.example', None, 'mail.a.example', True),
    ('mail.a.example', ['other.example'], 'mail.a.example', False), ('mail.a.example', ['IP:127.0.0.1'], 'mail.a.example', True),
    ('x', ['*.a.example'], 'mail.a.example', True), ('x', ['*.a.example'], 'deep.mail.a.example', False), ('x', ['*.a.example'], 'a.example', False),
    ('x', ['*.example'], 'a.example', False), ('x', ['m*.a.example'], 'mail.a.example', False), ('x', ['mail.*.example'], 'mail.a.example', False),
    ('x', ['*'], 'mail.a.example', False), ('mail.a.example\0.evil.example', None, 'mail.a.example', False),
    ('mail.a.example.evil.example', None, 'mail.a.example', False), ('', ['mail.a.example'], 'mail.a.example', True),
    ('x', ['IP:127.0.0.1'], 'ip.test', True), ('x', ['IP:127.0.0.2'], 'ip.test', False), ('x', ['127.0.0.1'], 'ip.test', False),
    ('x', ['xn--bcher-kva.a.example'], 'xn--bcher-kva.a.example', True)]


def test_names_in_certificates(martlet, smtp_server, maker):
    s = smtp_server(tls=maker.issue('first', ['first.example'])[1:])
    hosts = ''.join(f'127.0.0.1 {h}\n' for h in dict.fromkeys(n[2] for n in NAMES))
    m, send = sender(martlet, s, maker, hosts='127.0.0.1 localhost\n' + hosts)
    wrong = []
    for cn, names, host, good in NAMES:
        s.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        s.context.load_cert_chain(*maker.issue(cn, names)[1:])
        if send(host) != ('yes' if good else 'no'):
            wrong.append((cn, names, host, good))
    assert not wrong, m.logs()
    assert len(re.findall('certificate name mismatch', m.log())) == sum(not n[3] for n in NAMES)


def test_hosts_whose_names_do_not_count(martlet, smtp_server, maker):
    s = smtp_server(tls=maker.issue('first', ['first.example'])[1:])
    _, send = sender(martlet, s, maker, client='tls_verify_cert_hostnames = !127.0.0.1 : *\n', hosts='127.0.0.1 localhost mail.a.example\n')
    assert send('mail.a.example') == 'yes'


def test_a_name_that_does_not_fit_refuses(martlet, smtp_server, maker):
    s = smtp_server(tls=maker.issue('first', ['first.example'])[1:])
    m = martlet(smarthost=f'127.0.0.1::{s.port}', relay_to='*', acl_rcpt='  accept\n',
                client=f'tls_verify_certificates = {maker.file}\ntls_verify_hosts = *\nhosts_require_tls = *\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@relay.test')[0] == 250
    m.wait_log(r'certificate name mismatch: DN="/CN=first" H="127\.0\.0\.1"')
    m.wait_log(r'== x@relay\.test .*TLS session: ')
    assert not s.messages


def test_revoked_in_a_list(martlet, smtp_server, maker):
    good, bad = maker.issue('good', ['mail.a.example']), maker.issue('bad', ['mail.a.example'])
    s = smtp_server(tls=good[1:])
    m, send = sender(martlet, s, maker, client=f'tls_crl = {maker.crl(bad[0])}\n', hosts='127.0.0.1 localhost mail.a.example\n')
    assert send('mail.a.example') == 'yes'
    s.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    s.context.load_cert_chain(*bad[1:])
    assert send('mail.a.example') == 'no'
    m.wait_log('SSL verify error: depth=0 error=certificate revoked')


# --- what a server offers ---

def asked(m, *options, text='QUIT\r\n'):
    done = subprocess.run(['openssl', 's_client', '-connect', f'127.0.0.1:{m.port}', '-starttls', 'smtp', *options], input=text, capture_output=True,
                          text=True, timeout=60)
    return done.stdout + done.stderr


def made(text):
    return re.search(r'(?:New|Reused), (TLS\S+), Cipher is (?!\(NONE\))', text)


@pytest.fixture
def plain(martlet, authority):
    return martlet(tls=authority.issue('mx.martlet.test'))


def test_nothing_weak(plain):
    assert made(asked(plain, '-tls1_3')) and made(asked(plain, '-tls1_2'))
    for options in (['-tls1', '-cipher', 'ALL:@SECLEVEL=0'], ['-tls1_1', '-cipher', 'ALL:@SECLEVEL=0']):
        assert not made(asked(plain, *options)), options
    for ciphers in ('aNULL', 'eNULL', 'RC4', '3DES', 'EXPORT', 'LOW', 'MD5', 'PSK', 'SRP', 'SEED', 'IDEA', 'DES'):
        known = subprocess.run(['openssl', 'ciphers', '-s', '-tls1_2', ciphers + ':@SECLEVEL=0'], capture_output=True, text=True)
        names = [n for n in known.stdout.strip().split(':') if n and not n.startswith('TLS_')]
        if known.returncode == 0 and names:
            assert not made(asked(plain, '-tls1_2', '-cipher', ':'.join(names) + ':@SECLEVEL=0')), ciphers
    text = asked(plain, '-tls1_2')
    assert 'Compression: NONE' in text and 'Secure Renegotiation IS supported' in text


def test_chain_is_completed(martlet, authority):
    """What the certificate's file lacks is taken from the trusted ones; without them it stands alone."""
    for more, n in (('', 1), (f'tls_verify_certificates = {authority.certificate}\n', 2)):
        m = martlet(tls=authority.issue('mx.martlet.test'), main=more)
        for version in ('-tls1_2', '-tls1_3'):
            assert asked(m, version, '-showcerts').count('-----BEGIN CERTIFICATE-----') == n, (more, version)


def test_renegotiation_is_refused(plain):
    text = asked(plain, '-tls1_2', text='R\n')
    assert 'no renegotiation' in text or 'no_renegotiation' in text, text
    with Client(plain.port) as c:
        c.ehlo()


@pytest.mark.parametrize('groups, client, works', [
    ('', 'X25519', True), ('auto', 'P-256', True), ('P-384', 'P-384', True), ('P-384', 'X25519', False), ('X25519 : P-256', 'P-256', True),
    ('X25519 : P-256', 'P-521', False), ('secp521r1', 'P-521', True), ('ffdhe2048', 'ffdhe2048', True)])
def test_groups_by_name(martlet, authority, groups, client, works):
    m = martlet(tls=authority.issue('mx.martlet.test'), main=f'tls_eccurve = {groups}\n')
    assert bool(made(asked(m, '-tls1_3', '-groups', client))) == works, m.logs()


def test_an_unknown_group(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='tls_eccurve = P-256 : nonsense\n', allow_panic='.')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(454, 'STARTTLS')
    m.wait_log("Unknown curve name in tls_eccurve 'P-256 : nonsense'")


@pytest.mark.parametrize('ours, theirs, works', [
    (None, 'smtp', True), (None, 'esmtp', True), (None, 'http/1.1', False), (None, 'smtp,h2', False), (None, None, True),
    ('', 'h2', True), ('mail', 'mail', True), ('mail', 'smtp', False)])
def test_alpn(martlet, authority, ours, theirs, works):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='' if ours is None else f'tls_alpn = {ours}\n')
    text = asked(m, *(['-alpn', theirs] if theirs else []))
    assert bool(made(text)) == works, text + m.logs()
    if theirs and works and ours != '':
        assert f'ALPN protocol: {theirs}' in text
    if not works:
        m.wait_log('Bad ALPN presented')


# --- hostile bytes ---

HELLO = b'\x16\x03\x01'
BYTES = {
    'garbage': bytes(range(1, 256)) * 4, 'http': b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'zeros': b'\0' * 2000,
    'oversized record': HELLO + b'\xff\xff' + b'x' * 70000, 'empty records': (HELLO + b'\0\0') * 50,
    'endless hello': HELLO + b'\x40\0' + b'\x01\xff\xff\xff' + b'x' * 16380, 'alerts': b'\x15\x03\x01\0\x02\x01\x00' * 200,
    'fatal alert': b'\x15\x03\x01\0\x02\x02\x28', 'application data': b'\x17\x03\x03\0\x05hello', 'sslv2': b'\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10' + b'x' * 37,
    'short hello': HELLO + b'\0\x05\x01\0\0\x01\x03', 'wrong lengths': HELLO + b'\0\x2f\x01\0\0\x2b\x03\x03' + b'r' * 32 + b'\xff' * 9,
    'finished': HELLO + b'\0\x10\x14\0\0\x0c' + b'x' * 12, 'heartbeat': b'\x18\x03\x02\0\x03\x01\x40\0',
}


def test_bytes_after_starttls(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='smtp_receive_timeout = 20s\n')
    before = m.alive()
    for name, data in BYTES.items():
        with socket.create_connection(('127.0.0.1', m.port), timeout=60) as s:
            f = s.makefile('rb')
            f.readline()
            s.sendall(b'EHLO client.test\r\n')
            while f.readline()[3:4] == b'-':
                pass
            s.sendall(b'STARTTLS\r\n')
            assert f.readline().startswith(b'220'), name
            lines = len(re.findall('TLS error on connection', m.log()))
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while f.read(4096):
                    pass
            except OSError:
                pass
            wait_for(lambda: len(re.findall('TLS error on connection', m.log())) > lines, lambda: name + m.logs())
    assert m.alive() == before
    assert made(asked(m))


@pytest.mark.parametrize('on_connect', [False, True])
def test_a_client_that_stalls(martlet, authority, on_connect):
    """In the middle of its hello: others go on, and it is sent away when its time is over."""
    m = martlet(tls=authority.issue('mx.martlet.test'), main='smtp_receive_timeout = ${if eq{$sender_host_address}{127.0.0.9}{3s}{1m}}\n' + ('tls_on_connect_ports = @PORT@\n' if on_connect else ''))
    with socket.create_connection(('127.0.0.1', m.port), 60, ('127.0.0.9', 0)) as s:
        f = s.makefile('rb')
        if not on_connect:
            f.readline()
            s.sendall(b'EHLO client.test\r\n')
            while f.readline()[3:4] == b'-':
                pass
            s.sendall(b'STARTTLS\r\n')
            assert f.readline().startswith(b'220')
        s.sendall(HELLO + b'\x01\0' + b'\x01\0\0\xfc' + b'x' * 20)
        if not on_connect:
            assert made(asked(m))
        m.wait_log(r'TLS error on connection from .*\(SSL_accept\): timed out')
        try:
            while f.read(4096):
                pass
        except OSError:
            pass


def test_what_is_said_in_clear_behind_starttls_is_dropped(plain):
    with socket.create_connection(('127.0.0.1', plain.port), timeout=60) as s:
        f = s.makefile('rb')
        f.readline()
        s.sendall(b'EHLO client.test\r\n')
        while f.readline()[3:4] == b'-':
            pass
        s.sendall(b'STARTTLS\r\nMAIL FROM:<injected@evil.test>\r\n')
        assert f.readline().startswith((b'220', b'554'))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with context.wrap_socket(s, server_hostname='mx.martlet.test') as t:
                t.sendall(b'RCPT TO:<u0@local.test>\r\nQUIT\r\n')
                text = b''
                while more := t.recv(4096):
                    text += more
            assert b'250' not in text, text
        except OSError:
            pass # it may also end the session
    assert 'injected' not in plain.log() or 'synchronization' in plain.log()


# --- files ---

@pytest.mark.parametrize('trouble', ['missing', 'unreadable', 'junk', 'empty', 'mismatched', 'directory', 'relative'])
def test_files_that_do_not_do(martlet, maker, scratch, trouble):
    _, cert, key = maker.issue('mx.martlet.test', ['mx.martlet.test'])
    path = os.path.join(scratch, 'key.pem')
    if trouble == 'mismatched':
        path = maker.issue('other', None)[2]
    elif trouble == 'directory':
        os.mkdir(path)
    elif trouble == 'relative':
        path = 'key.pem'
    elif trouble != 'missing':
        with open(path, 'w') as f:
            f.write({'junk': 'junk\n' * 100, 'empty': ''}.get(trouble, 'x'))
        os.chmod(path, 0 if trouble == 'unreadable' else 0o644)
    m = martlet(tls=(cert, path), allow_panic='.')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(454, 'STARTTLS')
        m.wait_log('TLS error on connection from ')
    if trouble not in ('mismatched', 'relative', 'directory'):
        # Mended without a restart.
        with open(key) as f, open(path + '.new', 'w') as out:
            out.write(f.read())
        os.chmod(path + '.new', 0o644)
        os.rename(path + '.new', path)
        wait_for(lambda: made(asked(m)), m.logs)
