"""Reports on TLS (RFC 8460): what is counted, the JSON, the mail that carries it."""
import base64
import email
import json

import pytest

from support import dnssec
from support.smtp import Client

from test_mta_sts import Web, policy

pytestmark = pytest.mark.root

TRANSPORT = '''
tls_smtp:
  driver = smtp
  allow_localhost
  port = {port}
  hosts_try_mta_sts = *
  mta_sts_verify_certificates = {ca}
  tls_verify_certificates =
'''
ROUTE = 'tls:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = tls_smtp\n  self = send\n  no_more\n'
MAIN = 'tls_report_sender = TLS reports <tlsrpt@mx.martlet.test>\n'


@pytest.fixture
def world(authority, nameserver, smtp_server):
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
    return martlet(resolver=ns.address, routers=ROUTE, transports=TRANSPORT.format(port=s.port, ca=authority.certificate),
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
    assert '1 report sent, 0 failed' in out and 'reports cannot go to https://reports.test/x' in out
    mail = email.message_from_bytes(m.wait_mail('u1')[0])
    assert mail['TLS-Report-Domain'] == 'dane.test' and mail['TLS-Report-Submitter'] == 'mx.martlet.test'
    assert mail.get_content_type() == 'multipart/report' and mail.get_param('report-type') == 'tlsrpt'
    parts = mail.get_payload()
    assert parts[1].get_content_type() == 'application/tlsrpt+json'
    assert json.loads(base64.b64decode(parts[1].get_payload()))['policies'][0]['policy']['policy-type'] == 'tlsa'
    assert '0 reports sent' in m.run('tls-report', '--until', '9999-12-31')


def test_off_by_default(martlet, world):
    m = relay(martlet, world, main='')
    send(m, 'plain')
    assert ('_smtp._tls.plain.test', 'TXT') not in world[2].queries
    done = m.run('tls-report', check=False)
    assert done.returncode != 0 and 'tls_report_sender is not set' in done.stdout
