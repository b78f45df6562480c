"""OCSP stapling (RFC 6066, section 8): which proofs a server shows, and what a client thinks of those it gets."""
import base64
import datetime
import os
import re
import shutil
import subprocess
import tempfile
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp

from support.smtp import Client
from support.util import free_port, listening, wait_for

DAY = datetime.timedelta(days=1)


def key_of(kind):
    return rsa.generate_private_key(65537, 2048) if kind == 'rsa' else ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """An authority that makes certificates, and proofs about them."""

    def __init__(self, directory, name='CA'):
        self.directory, self.name, self.key = str(directory), name, key_of('ec')
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o755)
        self.cert, self.file, _ = self.certificate(name, self.key, None, x509.BasicConstraints(True, None))

    def certificate(self, name, key, *extensions):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = self.cert.subject if hasattr(self, 'cert') else subject
        now = datetime.datetime.utcnow()
        b = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
             .serial_number(x509.random_serial_number()).not_valid_before(now - 2 * DAY).not_valid_after(now + 30 * DAY))
        for e in extensions:
            if e:
                b = b.add_extension(e, False)
        cert = b.sign(self.key, hashes.SHA256())
        stem = os.path.join(self.directory, name.replace(' ', '-'))
        with open(stem + '.pem', 'wb') as f:
            f.write(cert.public_bytes(serialization.Encoding.PEM))
        with open(stem + '.key', 'wb') as f:
            f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return cert, stem + '.pem', stem + '.key'

    def server(self, name, kind='ec'):
        return self.certificate(name, key_of(kind), x509.SubjectAlternativeName([x509.DNSName(name)]))

    def proof(self, cert, file, status='good', since=1, until=5, signer=None, key=None, issuer=None, digest=None, spoil=False):
        now = datetime.datetime.utcnow()
        good = status == 'good'
        b = ocsp.OCSPResponseBuilder().add_response(
            cert, issuer or self.cert, hashes.SHA1(),
            {'good': ocsp.OCSPCertStatus.GOOD, 'revoked': ocsp.OCSPCertStatus.REVOKED, 'unknown': ocsp.OCSPCertStatus.UNKNOWN}[status],
            now - since * DAY, now + until * DAY if until is not None else None,
            now - DAY if status == 'revoked' else None, x509.ReasonFlags.superseded if status == 'revoked' else None)
        b = b.responder_id(ocsp.OCSPResponderEncoding.NAME, signer or self.cert)
        if signer:
            b = b.certificates([signer])
        der = b.sign(key or self.key, digest or hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        with open(file + '.new', 'wb') as f:
            f.write(der[:-1] + bytes([der[-1] ^ 1]) if spoil else der)
        os.rename(file + '.new', file)
        return file


@pytest.fixture(scope='module')
def directory():
    """For files that servers which run as somebody else read."""
    with tempfile.TemporaryDirectory(prefix='martlet-test-ocsp-') as d:
        os.chmod(d, 0o755)
        yield d


@pytest.fixture(scope='module')
def ca(directory):
    return Issuer(directory + '/ca')


@pytest.fixture(scope='module')
def leaf(ca):
    made = ca.server('mx.martlet.test')
    os.chmod(made[2], 0o644)
    return made


@pytest.fixture(scope='module')
def proofs(ca, leaf, directory):
    """{name: file}"""
    d = directory
    cert = leaf[0]
    use = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])
    delegate_key, other_key = key_of('ec'), key_of('ec')
    delegate = ca.certificate('OCSP signer', delegate_key, use)[0]
    plain = ca.certificate('no signer', other_key)[0]
    stranger = Issuer(d + '/stranger', 'Stranger')
    other = ca.server('other.test')[0]

    def make(name, **kw):
        return ca.proof(kw.pop('cert', cert), f'{d}/{name}', **kw)
    made = dict(
        good=make('good'),
        delegate=make('delegate', signer=delegate, key=delegate_key),
        revoked=make('revoked', status='revoked'), unknown=make('unknown', status='unknown'),
        expired=make('expired', since=20, until=-1), future=make('future', since=-2), endless=make('endless', until=None),
        serial=make('serial', cert=other),
        signer=make('signer', signer=plain, key=other_key),
        forged=make('forged', spoil=True),
        stranger=make('stranger.proof', signer=stranger.cert, key=stranger.key),
        issuer=make('issuer', issuer=stranger.cert),
        sha1=make('sha1', digest=hashes.SHA1()))
    for name, data in [('empty', b''), ('junk', b'junk' * 100), ('huge', b'0' * 10000000)]:
        made[name] = f'{d}/{name}'
        with open(made[name], 'wb') as f:
            f.write(data)
    made['directory'] = d
    made['missing'] = d + '/missing'
    return made


def server(martlet, ca, leaf, proof, main='', **kw):
    return martlet(tls=leaf[1:], main=f'tls_ocsp_file = {proof}\ntls_verify_certificates = {ca.file}\n' + main, **kw)


def asked(m, ca, *options):
    """What `openssl s_client -status` says."""
    return subprocess.run(['openssl', 's_client', '-connect', f'127.0.0.1:{m.port}', '-starttls', 'smtp', '-status', '-CAfile', ca.file, *options],
                          input='QUIT\r\n', capture_output=True, text=True, timeout=60).stdout


def stapled(text):
    return 'OCSP Response Status: successful' in text and 'Cert Status: good' in text


# --- the server ---

@pytest.mark.parametrize('version', ['-tls1_2', '-tls1_3'])
@pytest.mark.parametrize('name', ['good', 'delegate'])
def test_good_ones_are_shown(martlet, ca, leaf, proofs, name, version):
    m = server(martlet, ca, leaf, proofs[name])
    text = asked(m, ca, version)
    assert stapled(text), text + m.logs()
    assert 'OCSP' not in m.log()


@pytest.mark.parametrize('name, why', [
    ('revoked', 'says that the certificate is revoked'), ('unknown', 'does not know the certificate'), ('expired', 'is not valid at this time'),
    ('future', 'is not valid at this time'), ('endless', 'has no time of its next update'), ('serial', 'is not about a certificate'),
    ('signer', 'is not for signing OCSP responses'), ('forged', 'signature failure'), ('stranger', 'not of the certificate\'s issuer'),
    ('issuer', 'is not about a certificate'), ('sha1', 'too weak'), ('empty', 'is no OCSP response'), ('junk', 'is no OCSP response'),
    ('huge', 'is no ordinary file, or too large'), ('directory', 'is no ordinary file'), ('missing', 'cannot be read')])
def test_others_are_not(martlet, ca, leaf, proofs, name, why):
    m = server(martlet, ca, leaf, proofs[name])
    text = asked(m, ca)
    assert 'OCSP response: no response sent' in text and 'Verify return code: 0' in text, text + m.logs()
    m.wait_log(r'OCSP proof \S+ .*' + why)


def test_only_who_asks(martlet, ca, leaf, proofs):
    m = server(martlet, ca, leaf, proofs['good'], main='acl_smtp_mail = note\n', acl='note:\n  accept logwrite = ocsp $tls_in_ocsp\n')
    with Client(m.port) as c:
        c.ehlo()
        c.starttls()
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
    m.wait_log('ocsp 0$')


def test_pem_and_der_in_one_list_for_two_keys(martlet, ca, directory):
    lists = []
    for kind in ('rsa', 'ec'):
        cert, file, key = ca.server(kind + '.martlet.test', kind)
        mine = [shutil.copy(f, directory + '/' + kind + os.path.splitext(f)[1]) for f in (file, key)]
        os.chmod(mine[1], 0o644)
        der = ca.proof(cert, f'{directory}/{kind}.der')
        pem = f'{directory}/{kind}.proof.pem'
        with open(der, 'rb') as f, open(pem, 'w') as out:
            out.write('some text before\n-----BEGIN OCSP RESPONSE-----\n' + base64.encodebytes(f.read()).decode() + '-----END OCSP RESPONSE-----\n')
        lists.append((cert, *mine, der, pem))
    # The wrong way round: it is the certificate that counts.
    m = martlet(tls=[' : '.join(x[i] for x in lists) for i in (1, 2)],
                main=f'tls_ocsp_file = PEM {lists[1][4]} : DER {lists[0][3]}\ntls_verify_certificates = {ca.file}\n')
    for which, options in ((0, ['-tls1_2', '-cipher', 'aRSA']), (1, ['-tls1_2', '-cipher', 'aECDSA'])):
        text = asked(m, ca, *options)
        assert stapled(text), text + m.logs()
        assert '%X' % lists[which][0].serial_number in re.search(r'Serial Number: (\w+)', text)[1].lstrip('0')
    assert 'OCSP' not in m.log()


def test_a_file_that_changes(martlet, ca, leaf, directory):
    file = ca.proof(leaf[0], directory + '/changing', since=1)
    m = server(martlet, ca, leaf, file)
    with Client(m.port) as kept: # stays
        kept.ehlo()
        kept.starttls()
        first = asked(m, ca)
        assert stapled(first)
        ca.proof(leaf[0], file, status='revoked')
        wait_for(lambda: 'no response sent' in asked(m, ca), m.logs)
        ca.proof(leaf[0], file, since=0.5)
        old = re.search('This Update: .*', first)[0]

        def renewed():
            text = asked(m, ca)
            return stapled(text) and old not in text
        wait_for(renewed, m.logs)
        kept.ehlo()


def test_one_that_runs_out_while_we_serve(martlet, ca, leaf, directory):
    for seconds in (12, 50): # a machine that is busy may need longer than the first
        m = server(martlet, ca, leaf, ca.proof(leaf[0], f'{directory}/ending-{seconds}', until=seconds / 86400))
        if served := stapled(asked(m, ca)):
            break
    assert served, m.logs()
    m.wait_log('is valid for less than a day')
    wait_for(lambda: 'no response sent' in asked(m, ca), m.logs)


def refresher(directory, source):
    """A program that puts a copy of `source` there; its name."""
    path = os.path.join(directory, 'refresh')
    with open(path, 'w') as f:
        f.write(f'#!/bin/sh\ntest "$1" = -x || exit 9\ntest -e {source} || {{ echo nothing new; exit 7; }}\ncp {source} "$2.new" && mv "$2.new" "$2"\n')
    os.chmod(path, 0o755)
    return path


def test_refreshed_in_time(martlet, ca, leaf, directory):
    """When half of its time is over, long before it ends; and at once where there is none."""
    os.chmod(directory, 0o777)
    new, old = ca.proof(leaf[0], directory + '/new'), ca.proof(leaf[0], directory + '/old', since=60 / 86400, until=64 / 86400)
    for file in (old, directory + '/not-there'):
        m = server(martlet, ca, leaf, file, main=f'tls_ocsp_refresh = {refresher(directory, new)} -x\n')
        m.wait_log(f'tls_ocsp_refresh: {file} has a new proof')
        with open(new, 'rb') as a, open(file, 'rb') as b:
            assert a.read() == b.read()
        wait_for(lambda: stapled(asked(m, ca)), m.logs)
        old_workers = set(m.workers())
        m.reload() # it does not hold up the workers that end
        wait_for(lambda: not old_workers & set(m.workers()), m.logs)


def test_refreshing_in_vain(martlet, ca, leaf, directory):
    os.chmod(directory, 0o777)
    m = server(martlet, ca, leaf, directory + '/nothing', main=f'tls_ocsp_refresh = {refresher(directory, directory + "/no-source")} -x\n')
    m.wait_log('tls_ocsp_refresh: .*/refresh .*/nothing: exit status 7: nothing new')
    assert 'no response sent' in asked(m, ca)
    m = server(martlet, ca, leaf, directory + '/nothing', main=f'tls_ocsp_refresh = {directory}/no-program\n', allow_panic='tls_ocsp_refresh: .*No such file')
    m.wait_log('tls_ocsp_refresh: .*/no-program: No such file or directory')


def test_by_name(martlet, ca, leaf, proofs):
    """What the client calls us decides on the proof too."""
    m = martlet(tls=(f'${{if def:tls_in_sni{{{leaf[1]}}}{{{leaf[1]}}}}}', leaf[2]),
                main=f'tls_ocsp_file = ${{if eq{{$tls_in_sni}}{{a.test}}{{{proofs["good"]}}}}}\n')
    assert stapled(asked(m, ca, '-servername', 'a.test')), m.logs()
    assert 'no response sent' in asked(m, ca, '-servername', 'b.test')


# --- the client ---

class Mute:
    """`openssl s_server` with a proof, talking just enough SMTP."""

    def __init__(self, leaf, proof, version):
        self.port = free_port()
        command = ['openssl', 's_server', '-accept', f'127.0.0.1:{self.port}', '-cert', leaf[1], '-key', leaf[2], '-quiet', version]
        self.process = subprocess.Popen(command + (['-status_file', proof] if proof else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        wait_for(lambda: listening('127.0.0.1', self.port), 's_server')

    def talk(self):
        threading.Thread(target=self.answer, daemon=True).start()

    def answer(self):
        say = lambda text: (self.process.stdin.write(text), self.process.stdin.flush())
        say(b'220 mute ESMTP\r\n')
        for line in self.process.stdout:
            verb = line[:4].upper()
            if verb == b'QUIT':
                return
            say(b'354 go\r\n' if verb == b'DATA' else b'250 ok\r\n' if verb in (b'EHLO', b'MAIL', b'RCPT') or line == b'.\r\n' else b'')

    def stop(self):
        self.process.kill()
        self.process.wait()


NOTE = 'note:\n  accept condition = ${if eq{$event_name}{tcp:close}}\n         logwrite = out $tls_out_ocsp\n  accept condition = ${if match{$event_name}{defer}}\n         logwrite = out $tls_out_ocsp\n  accept\n'


@pytest.mark.parametrize('version', ['-tls1_2', '-tls1_3'])
@pytest.mark.parametrize('name, wish, status, works, text', [
    ('good', 'require', 4, True, None), ('delegate', 'require', 4, True, None), ('good', 'request', 4, True, None), ('good', None, 0, True, None),
    (None, 'request', 1, True, None), (None, 'require', 1, False, 'null content'),
    ('expired', 'request', 3, True, 'dates invalid'), ('expired', 'require', 3, False, 'dates invalid'),
    ('endless', 'require', 3, False, 'dates invalid'), ('future', 'require', 3, False, 'dates invalid'),
    ('revoked', 'request', 3, False, 'revoked; reason: superseded'), ('revoked', 'require', 3, False, 'revoked; reason: superseded'),
    ('revoked', None, 0, True, None), ('unknown', 'require', 3, False, 'status unknown'), ('serial', 'require', 3, False, 'not in the OCSP response'),
    ('forged', 'request', 3, True, 'signature failure'), ('forged', 'require', 3, False, 'signature failure'),
    ('stranger', 'require', 3, False, 'not of the certificate'), ('signer', 'require', 3, False, 'not for signing'), ('sha1', 'require', 3, False, 'too weak')])
def test_what_a_client_thinks(martlet, ca, leaf, proofs, name, wish, status, works, text, version):
    s = Mute(leaf, name and proofs[name], version)
    try:
        m = martlet(smarthost=f'127.0.0.1::{s.port}', acl=NOTE, relay_from='127.0.0.1', client='\n'.join([
            'protocol = smtps', f'tls_verify_certificates = {ca.file}', 'tls_verify_cert_hostnames =', 'event_action = ${acl{note}}',
            'hosts_request_ocsp = ' + ('*' if wish == 'request' else ''), 'hosts_require_ocsp = ' + ('*' if wish == 'require' else '')]))
        with Client(m.port) as c:
            assert c.mail('a@b.test', 'x@relay.test')[0] == 250
        if works:
            s.talk()
        m.wait_log(r'=> x@relay\.test .*CV=yes' if works else r'== x@relay\.test .*TLS session: .*invalid status response')
        m.wait_log(f'out {status}$')
        assert (re.search(r'\[127\.0\.0\.1\] .*' + text, m.log()) if text else 'OCSP' not in m.log()), m.log()
    finally:
        s.stop()


def test_nothing_to_check_it_with(martlet, ca, leaf, proofs):
    s = Mute(leaf, proofs['good'], '-tls1_3')
    try:
        m = martlet(smarthost=f'127.0.0.1::{s.port}', acl=NOTE, client='protocol = smtps\ntls_try_verify_hosts = *\nevent_action = ${acl{note}}\n')
        with Client(m.port) as c:
            assert c.mail('a@b.test', 'x@relay.test')[0] == 250
        s.talk()
        m.wait_log(r'=> x@relay\.test .*CV=no')
        m.wait_log('out 2$')
    finally:
        s.stop()
