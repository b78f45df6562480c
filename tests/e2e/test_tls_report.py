"""Reports on TLS (RFC 8460): what is counted, the JSON, the mail that carries it."""
import base64
import email
import gzip
import json
import os
import re
import subprocess

import pytest

from support import dnssec
from support.smtp import Client
from support.util import clear_of_midnight, read, wait_for, write

from test_mta_sts import Web, policy

pytestmark = pytest.mark.root

TRANSPORT = '''
tls_smtp:
  driver = smtp
  allow_localhost
  port = {port}
  hosts_try_mta_sts = *
  mta_sts_verify_certificates = {ca}
  tls_verify_certificates = {verify}
  {required}
'''
ROUTE = 'tls:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = tls_smtp\n  self = send\n  no_more\n'
MAIN = 'tls_report_sender = TLS reports <tlsrpt@mx.martlet.test>\ndns_retrans = 20s\n'


@pytest.fixture
def world(authority, nameserver, smtp_server):
    clear_of_midnight()
    certificate = authority.issue('mx.report.test')
    s = smtp_server(tls=certificate)
    web = Web(authority.issue('mta-sts.sts.test', 'mta-sts.gone.test'))
    nameserver.authentic, nameserver.ttl = True, 0
    for d in ('plain', 'dane', 'wrong', 'sts', 'gone', 'silent'):
        nameserver.records[(f'{d}.test', 'MX')] = [(1, f'mx.{d}.test')]
        nameserver.records[(f'mx.{d}.test', 'A')] = ['127.0.0.1']
        if d != 'silent':
            nameserver.records[(f'_smtp._tls.{d}.test', 'TXT')] = ['v=TLSRPTv1; rua=mailto:u1@local.test,https://reports.test/x']
    tlsa = dnssec.tlsa(3, 1, 1, certificate[0]).split()
    nameserver.records[(f'_{s.port}._tcp.mx.dane.test', 'TLSA')] = [bytes([3, 1, 1]) + bytes.fromhex(tlsa[3])]
    nameserver.records[(f'_{s.port}._tcp.mx.wrong.test', 'TLSA')] = [bytes([3, 1, 1]) + bytes(32)]
    for d in ('sts', 'gone'):
        nameserver.records[(f'_mta-sts.{d}.test', 'TXT')] = ['v=STSv1; id=1']
        nameserver.records[(f'mta-sts.{d}.test', 'A')] = [web.address]
    web.policies['sts.test'] = (policy('enforce', 'mx.other.test'), 'text/plain', 200)
    yield web, s, nameserver, authority
    web.stop()


def relay(martlet, world, **kw):
    _, s, ns, authority = world
    kw.setdefault('main', MAIN)
    return martlet(resolver=ns.address, routers=ROUTE, transports=TRANSPORT.format(port=s.port, ca=authority.certificate, required=kw.pop('required', ''),
                                                        verify=kw.pop('verify', '')),
                   relay_from='127.0.0.1', retry='* * F,2h,1h', **kw)


def send(m, *domains):
    with Client(m.port) as c:
        c.ehlo()
        for d in domains:
            assert c.mail('u0@local.test', f'x@{d}.test', data='Subject: x\r\n\r\nx\r\n', hello=False)[0] == 250
    for d in domains:
        m.wait_log(rf'[=*-][=>*] x@{d}\.test ')


def reports(m):
    text = m.run('tls-report', '--until', '9999-12-31', '--dry-run')
    found = [json.loads(line) for line in text.split('\n') if line]
    return {r['policies'][0]['policy']['policy-domain']: r for r in found}


def test_results(martlet, world):
    m = relay(martlet, world)
    send(m, 'plain', 'dane', 'wrong', 'sts', 'gone', 'silent')
    send(m, 'plain')
    m.wait_log(r'=> x@plain\.test ', count=2)
    got = reports(m)
    assert sorted(got) == ['dane.test', 'gone.test', 'plain.test', 'sts.test', 'wrong.test']

    def of(domain):
        return [(p['policy']['policy-type'], p['summary']['total-successful-session-count'], p['summary']['total-failure-session-count'],
                 [f['result-type'] for f in p.get('failure-details', [])]) for p in got[domain]['policies']]
    # A connection of the pool may have carried the second message.
    assert of('plain.test') in ([('no-policy-found', 1, 0, [])], [('no-policy-found', 2, 0, [])])
    assert of('dane.test') == [('tlsa', 1, 0, [])]
    assert of('wrong.test') == [('tlsa', 0, 1, ['validation-failure'])]
    assert of('sts.test') == [('sts', 0, 1, ['validation-failure'])]
    assert sorted(of('gone.test')) == [('no-policy-found', 1, 0, []), ('sts', 0, 1, ['sts-policy-fetch-error'])]
    assert got['wrong.test']['policies'][0]['policy']['policy-string'] == ['3 1 1 ' + '00' * 32]
    assert 'mode: enforce' in got['sts.test']['policies'][0]['policy']['policy-string']
    failure = got['wrong.test']['policies'][0]['failure-details'][0]
    assert failure['receiving-mx-hostname'] == 'mx.wrong.test' and failure['receiving-ip'] == '127.0.0.1'
    assert got['plain.test']['organization-name'] == 'mx.martlet.test' and got['plain.test']['contact-info'] == 'tlsrpt@mx.martlet.test'
    assert got['plain.test']['date-range']['start-datetime'].endswith('T00:00:00Z')


def test_without_tls(martlet, world):
    world[1].keywords.remove('STARTTLS')
    m = relay(martlet, world)
    send(m, 'plain', 'dane')
    got = reports(m)
    for d, kind in (('plain.test', 'no-policy-found'), ('dane.test', 'tlsa')):
        p, = got[d]['policies']
        assert p['policy']['policy-type'] == kind and p['failure-details'][0]['result-type'] == 'starttls-not-supported'


def test_the_mail(martlet, world):
    m = relay(martlet, world)
    send(m, 'dane')
    assert '0 reports sent' in m.run('tls-report')  # of days before this one there is none
    out = m.run('tls-report', '--until', '9999-12-31')
    assert '1 report sent, 0 failed' in out and 'not posted to https://reports.test/x: the host has no addresses' in out
    mail = email.message_from_bytes(m.wait_mail('u1')[0])
    assert mail['TLS-Report-Domain'] == 'dane.test' and mail['TLS-Report-Submitter'] == 'mx.martlet.test'
    assert mail.get_content_type() == 'multipart/report' and mail.get_param('report-type') == 'tlsrpt'
    parts = mail.get_payload()
    assert parts[1].get_content_type() == 'application/tlsrpt+gzip' and parts[1].get_filename().endswith('.json.gz')
    assert json.loads(gzip.decompress(base64.b64decode(parts[1].get_payload())))['policies'][0]['policy']['policy-type'] == 'tlsa'
    assert '0 reports sent' in m.run('tls-report', '--until', '9999-12-31')


def test_off_by_default(martlet, world):
    m = relay(martlet, world, main='dns_retrans = 20s\n')
    send(m, 'plain')
    assert ('_smtp._tls.plain.test', 'TXT') not in world[2].queries
    done = m.run('tls-report', check=False)
    assert done.returncode != 0 and 'tls_report_sender is not set' in done.stdout


def certificate(directory, *arguments):
    key, cert = str(directory / 'key'), str(directory / 'cert')
    subprocess.run(['openssl', 'req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=mx.sts.test',
                    '-keyout', key, '-out', cert + '.csr'], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    with open(cert + '.ext', 'w') as f:
        f.write('subjectAltName=DNS:mx.sts.test\n')
    subprocess.run(['openssl', 'x509', '-req', '-in', cert + '.csr', '-extfile', cert + '.ext', '-out', cert,
                    *[a if a != 'KEY' else key for a in arguments]], check=True, capture_output=True)
    return cert, key


def failures(m, domain):
    return [(p['policy']['policy-type'], f['result-type'], f.get('failure-reason-code'))
            for p in reports(m)[domain]['policies'] for f in p.get('failure-details', [])]


def enforce(world):
    """sts.test has a policy that its host is in."""
    world[0].policies['sts.test'] = (policy('enforce', 'mx.sts.test'), 'text/plain', 200)


@pytest.mark.parametrize('kind, expected', [
    ('name', ('certificate-host-mismatch', 'hostname mismatch')),
    ('expired', ('certificate-expired', 'certificate has expired')),
    ('unknown', ('certificate-not-trusted', 'self signed certificate')),
])
def test_certificates(martlet, world, authority, tmp_path, kind, expected):
    enforce(world)
    if kind == 'expired':
        world[1].context.load_cert_chain(*certificate(tmp_path, '-CA', authority.certificate, '-CAkey', authority.key, '-CAcreateserial', '-days', '-1'))
    elif kind == 'unknown':
        world[1].context.load_cert_chain(*certificate(tmp_path, '-signkey', 'KEY', '-days', '3'))
    m = relay(martlet, world, verify=authority.certificate)
    send(m, 'sts')
    (kind, result, reason), = failures(m, 'sts.test')
    assert (kind, result, reason.lower()) == ('sts', *expected)
    assert reports(m)['sts.test']['policies'][0]['policy']['mx-host'] == ['mx.sts.test']


def test_policies(martlet, world, authority):
    """A web server that cannot prove who it is, and a policy that makes no sense."""
    m = relay(martlet, world)
    world[0].policies['gone.test'] = ('version: STSv1\nmode: maybe\n', 'text/plain', 200)
    send(m, 'gone')
    assert failures(m, 'gone.test') == [('sts', 'sts-policy-invalid', None)]
    world[2].records[('_mta-sts.wrong.test', 'TXT')] = ['v=STSv1; id=1']
    world[2].records[('mta-sts.wrong.test', 'A')] = [world[0].address]  # the certificate is for others
    del world[2].records[(f'_{world[1].port}._tcp.mx.wrong.test', 'TLSA')]
    send(m, 'wrong')
    assert ('sts', 'sts-webpki-invalid', None) in failures(m, 'wrong.test')


def test_dane(martlet, world, tmp_path):
    _, s, ns, authority = world
    name = f'_{s.port}._tcp.mx.'
    ns.records[(name + 'sts.test', 'TLSA')] = [bytes([1, 1, 1]) + bytes(32), bytes([3, 1, 1])]  # of no use
    ns.trouble[name + 'gone.test'] = 'SERVFAIL'                                    # as a bogus answer is
    ca = dnssec.tlsa(2, 0, 1, authority.certificate).split()
    ns.records[(name + 'wrong.test', 'TLSA')] = [bytes([2, 0, 1]) + bytes.fromhex(ca[3])]  # the certificate is for another name
    chain = read(authority.issue('mx.report.test')[0]) + read(authority.certificate)
    s.context.load_cert_chain(write(str(tmp_path / 'chain'), chain), authority.issue('mx.report.test')[1])
    ns.insecure.add('mx.plain.test')
    m = relay(martlet, world, main=MAIN + 'queue_only\n', arguments=[])
    required = relay(martlet, world, required='hosts_require_dane = *\n')
    with Client(m.port) as c:
        c.ehlo()
        for d in ('sts', 'gone', 'wrong'):
            assert c.mail('u0@local.test', f'x@{d}.test', data='Subject: x\r\n\r\nx\r\n', hello=False)[0] == 250
    m.run('-qff')
    assert ('tlsa', 'tlsa-invalid', 'no TLSA record is usable') in failures(m, 'sts.test')
    assert failures(m, 'gone.test') == [('tlsa', 'dnssec-invalid', 'the TLSA lookup failed or is bogus')]
    assert failures(m, 'wrong.test') == [('tlsa', 'certificate-host-mismatch', 'hostname mismatch')]
    send(required, 'sts', 'plain', 'silent')
    assert failures(required, 'sts.test') == [('tlsa', 'tlsa-invalid', 'no TLSA record is usable')]
    assert failures(required, 'plain.test') == [('tlsa', 'dnssec-invalid', "the host's records are not secure")]
    ns.insecure.clear()
    required = relay(martlet, world, required='hosts_require_dane = *\n')
    send(required, 'plain')
    assert failures(required, 'plain.test') == [('tlsa', 'dane-required', 'there are no secure TLSA records')]


@pytest.fixture
def receiver(world):
    """reports.test takes reports by HTTPS, and nobody by mail."""
    web = Web(world[3].issue('reports.test'))
    world[2].records[('reports.test', 'A')] = [web.address]
    world[2].records[('_smtp._tls.dane.test', 'TXT')] = ['v=TLSRPTv1; rua=https://reports.test/v1?x=y']
    yield web
    web.stop()


def test_posted(martlet, world, receiver):
    m = relay(martlet, world, main=MAIN + f'tls_report_verify_certificates = {world[3].certificate}\n')
    send(m, 'dane')
    assert '1 report sent, 0 failed' in m.run('tls-report', '--until', '9999-12-31')
    (host, path, kind, body), = receiver.posted
    assert (host, path, kind) == ('reports.test', '/v1?x=y', 'application/tlsrpt+gzip')
    assert json.loads(gzip.decompress(body))['policies'][0]['policy']['policy-domain'] == 'dane.test'
    assert '0 reports sent' in m.run('tls-report', '--until', '9999-12-31')


@pytest.mark.parametrize('status, authorities, text', [
    (500, True, 'the web server said 500'), (302, True, 'the web server said 302'), (200, False, 'certificate'),
])
def test_not_posted(martlet, world, receiver, status, authorities, text):
    """It is kept for another attempt, and not given to whom we cannot tell from others."""
    receiver.post_status = status
    m = relay(martlet, world, main=MAIN + (f'tls_report_verify_certificates = {world[3].certificate}\n' if authorities else ''))
    send(m, 'dane')
    done = m.run('tls-report', '--until', '9999-12-31', check=False)
    assert done.returncode == 1 and '0 reports sent, 1 failed' in done.stdout
    assert 'dane.test: not posted to https://reports.test/v1?x=y: ' in done.stdout and text in done.stdout
    assert not receiver.posted and 'dane.test' in reports(m)


def test_signed(martlet, world, smtp_server, tmp_path, scratch):
    """RFC 8460, section 3: reports have a DKIM signature, by a key that may be there for them alone."""
    dkim = pytest.importorskip('dkim')
    key = os.path.join(scratch, 'dkim.key')
    subprocess.run(['openssl', 'genrsa', '-out', key, '2048'], check=True, capture_output=True)
    os.chmod(key, 0o644)
    public = subprocess.run(['openssl', 'rsa', '-in', key, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
    record = b'v=DKIM1; k=rsa; s=tlsrpt; p=' + base64.b64encode(public)
    world[2].records[('_smtp._tls.dane.test', 'TXT')] = ['v=TLSRPTv1; rua=mailto:reports@plain.test']
    signing = (f'dkim_domain = mx.martlet.test\n  dkim_selector = tlsrpt\n  dkim_private_key = {key}\n'
               '  dkim_sign_headers = _DKIM_SIGN_HEADERS:TLS-Report-Domain:TLS-Report-Submitter\n')
    m = relay(martlet, world, required=signing)
    send(m, 'dane')
    assert '1 report sent, 0 failed' in m.run('tls-report', '--until', '9999-12-31')
    wait_for(lambda: [x for x in world[1].messages if x['rcpt'] == ['<reports@plain.test>']], m.logs)
    data = world[1].messages[-1]['data']
    assert dkim.DKIM(data, tlsrpt='strict').verify(dnsfunc=lambda name, timeout=5: record)
    field = re.search(rb'(?ims)^DKIM-Signature:.*?\r\n(?=\S)', data)[0]
    covered = re.search(r'h=([^;]*)', re.sub(r'\s', '', field.decode()))[1].lower().split(':')
    assert {'from', 'subject', 'tls-report-domain', 'tls-report-submitter'} <= set(covered) and 'l=' not in field.decode()
