"""TLS with other programs on the other end: GnuTLS, Debian's Exim, Postfix, nmap; and names of hosts that come from the DNS."""
import os
import re
import subprocess

import pytest

from support.smtp import Client
from support.util import maildir, wait_for
from test_tls_ocsp import Issuer


# --- GnuTLS ---

def gnutls(m, authority, version, *options, name='mx.martlet.test'):
    """A session of gnutls-cli that says EHLO and QUIT: (exit status, output)."""
    command = ['gnutls-cli', '--port', str(m.port), '--starttls-proto=smtp', '--sni-hostname', name, '--verify-hostname', name,
               '--x509cafile', getattr(authority, 'certificate', authority), '--priority', f'NORMAL:-VERS-ALL:+VERS-TLS{version}',
               *options, '127.0.0.1']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        p.stdin.write('QUIT\r\n')
        p.stdin.flush()
        text = p.stdout.read()  # at the end of its input it would not wait for the answer
        return p.wait(60), text


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_gnutls_client(martlet, authority, version):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='acl_smtp_quit = note\ntls_resumption_hosts = *\n',
                acl='note:\n  accept logwrite = sni=$tls_in_sni resumption=$tls_in_resumption $tls_in_ver\n')
    status, text = gnutls(m, authority, version)
    assert status == 0 and 'The certificate is trusted' in text and '221 ' in text, text + m.logs()
    m.wait_log(rf'sni=mx\.martlet\.test resumption=\d+ TLS{version}$')
    status, text = gnutls(m, authority, version, name='other.test')
    assert status != 0 and 'does not match' in text, text


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_gnutls_resumes(martlet, authority, version):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='tls_resumption_hosts = *\n')
    status, text = gnutls(m, authority, version, '--resume', '--waitresumption')
    assert status == 0 and 'This is a resumed session' in text, text + m.logs()


def test_gnutls_gets_a_proof(martlet, scratch):
    ca = Issuer(os.path.join(scratch, 'ca'))
    cert, file, key = ca.server('mx.martlet.test')
    os.chmod(key, 0o644)
    m = martlet(tls=(file, key), main=f'tls_ocsp_file = {ca.proof(cert, os.path.join(scratch, "proof"))}\ntls_verify_certificates = {ca.file}\n')
    got = os.path.join(scratch, 'got')
    status, text = gnutls(m, ca.file, '1.3', f'--save-ocsp={got}')
    assert status == 0 and 'OCSP status request' in text and os.path.getsize(got) > 100, text + m.logs()


# --- Exim and Postfix ---

VERIFY = 'hosts_require_tls = *\ntls_verify_certificates = {}\ntls_verify_hosts = *\ntls_verify_cert_hostnames ='


@pytest.mark.peers
@pytest.mark.parametrize('good', [True, False])
def test_from_exim(martlet, exim, authority, good):
    """It verifies our certificate, or (an authority it does not know) does not send."""
    m = martlet(tls=authority.issue('mx.martlet.test'))
    e = exim(smarthost=f'127.0.0.1::{m.port}', client=VERIFY.format(authority.certificate if good else '/etc/ssl/certs/nothing.pem'))
    with Client(e.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    if good:
        m.wait_mail('u1')
        m.wait_log(r'<= a@b\.test .* X=TLS1\.3:')
        wait_for(lambda: 'CV=yes' in e.log(), e.log)
    else:
        wait_for(lambda: re.search(r'== u1@local\.test .*TLS', e.log()), e.log)
        assert '<= a@b.test' not in m.log()


@pytest.mark.peers
@pytest.mark.parametrize('options', ['', '+no_tlsv1_3'])
def test_to_exim(martlet, exim, authority, options):
    e = exim(tls=authority.issue('exim.test'))
    m = martlet(smarthost=f'127.0.0.1::{e.port}', relay_to='exim.test', client=VERIFY.format(authority.certificate), main=f'openssl_options = {options}\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@exim.test')[0] == 250
    wait_for(lambda: maildir(e.maildir('u1')), lambda: e.log() + m.logs())
    m.wait_log(rf'=> u1@exim\.test .* X=TLS1\.{2 if options else 3}:\S+ CV=yes')


@pytest.mark.peers
def test_from_postfix(martlet, postfix, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'))
    p = postfix(relayhost=f'[127.0.0.1]:{m.port}', client_tls='verify',
                main=f'smtp_tls_CAfile = {authority.certificate}\nsmtp_tls_verify_cert_match = mx.martlet.test\nsmtp_tls_loglevel = 1\n')
    with Client(p.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    wait_for(lambda: 'Verified TLS connection established' in p.log() or 'status=deferred' in p.log(), p.log)
    assert 'Verified TLS connection established' in p.log(), p.log()
    m.wait_mail('u1')
    m.wait_log(r'<= a@b\.test .* X=TLS1\.3:')


@pytest.mark.peers
@pytest.mark.parametrize('options', ['', '+no_tlsv1_3'])
def test_to_postfix(martlet, postfix, authority, options):
    p = postfix(tls=authority.issue('postfix.test'))
    m = martlet(smarthost=f'127.0.0.1::{p.port}', relay_to='postfix.test', client=VERIFY.format(authority.certificate), main=f'openssl_options = {options}\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@postfix.test')[0] == 250
    wait_for(lambda: maildir(p.maildir('u1')), lambda: p.log() + m.logs())
    m.wait_log(rf'=> u1@postfix\.test .* X=TLS1\.{2 if options else 3}:\S+ CV=yes')


# --- what a scanner thinks of the default configuration ---

def test_scan(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='tls_on_connect_ports = @PORT@\n')
    done = subprocess.run(['nmap', '-Pn', '-n', '-p', str(m.port), '--script', '+ssl-enum-ciphers', '127.0.0.1'], capture_output=True, text=True, timeout=300)
    text = done.stdout
    assert re.search(r'least strength: A\b', text), text + done.stderr + m.logs()
    assert set(re.findall(r'TLSv\S+|SSLv\S+', text)) == {'TLSv1.2:', 'TLSv1.3:'}, text
    # What it warns of is something to look at.
    assert 'warnings' not in text, text
    assert all(grade == 'A' for grade in re.findall(r' - ([A-F])$', text, re.M)), text
    assert 'cipher preference:' in text


# --- names ---

ROUTER = 'look:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = remote_smtp\n  self = send\n  no_more\n'


@pytest.fixture
def looked_up(martlet, nameserver, smtp_server, authority):
    """start(name of the certificate) -> deliver(recipient): whether it was good, and what name the server was told (SNI)."""
    def start(certified, **kw):
        s = smtp_server(tls=authority.issue(certified), **({'keywords': ['SMTPUTF8', '8BITMIME']} if kw else {}))
        told = []
        s.context.sni_callback = lambda _socket, name, _context: told.append(name)
        m = martlet(resolver=nameserver.address, hosts='127.0.0.1 localhost\n', routers=ROUTER, relay_to='*', main=kw.get('main', ''),
                    client=f'port = {s.port}\ntls_verify_certificates = {authority.certificate}\ntls_try_verify_hosts = *\ntls_sni = $host\n')

        def deliver(recipient):
            with Client(m.port) as c:
                c.ehlo()
                c.expect(250, 'MAIL FROM:<a@b.test>' + (' SMTPUTF8' if kw else ''))
                c.expect(250, f'RCPT TO:<{recipient}>\r\n'.encode())
                c.expect(354, 'DATA')
                c.expect(250, b'Subject: x\r\n\r\nx\r\n.\r\n')
            good = m.wait_log('=> x@.* CV=(yes|no)')[0]
            return good, told[-1] if told else None
        return deliver
    return start


@pytest.mark.parametrize('certified, good', [('alias.test', 'yes'), ('real.test', 'no'), ('relay.test', 'no')])
def test_an_mx_that_is_an_alias(looked_up, nameserver, certified, good):
    """The name is the one at the head of the chain."""
    nameserver.add('relay.test', 'MX', (5, 'alias.test')).add('alias.test', 'CNAME', 'real.test').add('real.test', 'A', '127.0.0.1')
    assert looked_up(certified)('x@relay.test')[0] == good


def test_a_domain_in_utf8(looked_up, nameserver):
    """Without an MX record the host's name is the domain's, which a certificate has as A-labels."""
    nameserver.add('xn--bcher-kva.test', 'A', '127.0.0.1')
    deliver = looked_up('xn--bcher-kva.test', main='smtputf8_advertise_hosts = *\nallow_utf8_domains\n')
    assert deliver('x@bücher.test') == ('yes', 'xn--bcher-kva.test')


def test_both_spellings(martlet):
    m = martlet(daemon=False)
    with open(m.conf) as f:
        text = f.read().replace('  hosts_try_dane =\n', '  hosts_try_dane =\n  tls_verify_cert_hostnames = *\n  tls_verify_cert_hostname = a.test\n')
    with open(m.conf, 'w') as f:
        f.write(text)
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and 'tls_verify_cert_hostname' in done.stdout, done.stdout
