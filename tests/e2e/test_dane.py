"""DANE (RFC 7672) against signed zones of a real authoritative server, validated by a real resolver."""
import os
import re
import subprocess

import pytest

from support import dnssec, place
from support.smtp import Client
from support.util import free_loopback, write

pytestmark = [pytest.mark.root, pytest.mark.skipif(not dnssec.SIGN or not dnssec.Unbound.program or not dnssec.Nsd.program,
                                                   reason='the name servers are not installed')]

DANE = '''
dane_smtp:
  driver = smtp
  allow_localhost
  port = ${{if match{{$domain}}{{^tachain}}{{{leaf}}}{{${{if match{{$domain}}{{^ta}}{{{ta}}}{{{ee}}}}}}}}}
  hosts_require_dane = ${{if match{{$domain}}{{^req}}{{*}}}}
  tls_verify_certificates =
  {more}
'''
ROUTE = 'dane:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = dane_smtp\n  self = send\n  no_more\n'

# Recipients' domains below dane.test unless they have a dot: MX, the host's other records, and what the log says.
DELIVERED = r'=> x@{d} .* H={h} \[127\.0\.0\.1\]\*? .*CV=dane'
ORDINARY = r'=> x@{d} .* H={h} \[127\.0\.0\.1\]\*? .*CV=no'
TABLE = [
    ('ee', DELIVERED), ('ee512', DELIVERED), ('eecert', DELIVERED), ('eewhole', DELIVERED),
    ('many', DELIVERED),         # the right one among others, usable and not
    ('cname', DELIVERED.replace('{h}', r'mx-ee\.dane\.test')),      # the MX is an alias; TLSA at its end
    ('tlsacname', DELIVERED), ('reqee', DELIVERED.replace('{h}', r'mx-ee\.dane\.test')),
    ('ta', DELIVERED),
    ('taname', r'== x@{d} .* defer \(-37\) H={h} \[127\.0\.0\.1\]: TLS session: \(SSL_connect\): .*certificate verify failed'),
    ('tanext', DELIVERED),       # the certificate is for the mail domain
    ('tachain', r'== x@{d} .* defer \(-37\) H={h} \[127\.0\.0\.1\]: TLS session: \(SSL_connect\): .*certificate verify failed'),  # it is not sent
    ('wrong', r'== x@{d} .* defer \(-37\) H={h} \[127\.0\.0\.1\]: TLS session: \(SSL_connect\): .*certificate verify failed'),
    ('none', ORDINARY), ('unusable', ORDINARY),
    ('reqnone', r'\*\* x@{d} .*: DANE error: tlsa lookup FAIL$'),
    ('requnusable', r'\*\* x@{d} .*: DANE error: no usable TLSA records'),
    ('bogustlsa', r'== x@{d} .* defer \(-36\): DANE error: tlsa lookup DEFER'),
    ('x.plain.test', ORDINARY.replace('{h}', r'mx-x\.plain\.test')),
    ('req.plain.test', r'\*\* x@{d} .*: DANE error: mx-x\.plain\.test lookup not DNSSEC'),
    ('viaplain', ORDINARY.replace('{h}', r'mx-x\.plain\.test')),  # a secure MX that names an insecure host
    ('away', ORDINARY.replace('{h}', r'mx-x\.plain\.test')),     # a secure alias of an insecure host
    ('alias.plain.test', ORDINARY.replace('{h}', r'mx-ee\.dane\.test')),  # an insecure alias of a secure host
    ('hundreds', DELIVERED),
    ('x.bogus.test', r'== x@{d} R=dane defer \(-1\): host lookup did not complete'),
    ('second', DELIVERED.replace('{h}', r'mx-ee\.dane\.test')),   # the better MX has a wrong record
    ('mixed', ORDINARY.replace('{h}', r'mx-x\.plain\.test')),     # and here the other one is insecure
]
RECORDS = '''
mx-ee A 127.0.0.1
_{ee}._tcp.mx-ee TLSA {ee311}
ee MX 1 mx-ee
reqee MX 1 mx-ee
mx-ee512 A 127.0.0.1
_{ee}._tcp.mx-ee512 TLSA {ee312}
ee512 MX 1 mx-ee512
mx-eecert A 127.0.0.1
_{ee}._tcp.mx-eecert TLSA {ee301}
eecert MX 1 mx-eecert
mx-eewhole A 127.0.0.1
_{ee}._tcp.mx-eewhole TLSA {ee300}
eewhole MX 1 mx-eewhole
mx-many A 127.0.0.1
_{ee}._tcp.mx-many TLSA {ee311}
_{ee}._tcp.mx-many TLSA {wrong}
_{ee}._tcp.mx-many TLSA 2 0 1 {zeros}
_{ee}._tcp.mx-many TLSA 7 0 1 {zeros}
_{ee}._tcp.mx-many TLSA 3 1 1 00
_{ee}._tcp.mx-many TLSA 3 0 0 00
many MX 1 mx-many
cname MX 1 mx-alias
mx-alias CNAME mx-ee
tlsacname MX 1 mx-tlsacname
mx-tlsacname A 127.0.0.1
_{ee}._tcp.mx-tlsacname CNAME _{ee}._tcp.mx-ee
mx-ta A 127.0.0.1
_{ta}._tcp.mx-ta TLSA {ta201}
ta MX 1 mx-ta
mx-taname A 127.0.0.1
_{ta}._tcp.mx-taname TLSA {ta201}
taname MX 1 mx-taname
mx-tanext A 127.0.0.1
_{ta}._tcp.mx-tanext TLSA {ta201}
tanext MX 1 mx-tanext
mx-wrong A 127.0.0.1
_{ee}._tcp.mx-wrong TLSA {wrong}
wrong MX 1 mx-wrong
mx-none A 127.0.0.1
none MX 1 mx-none
reqnone MX 1 mx-none
mx-unusable A 127.0.0.1
_{ee}._tcp.mx-unusable TLSA 1 1 1 {zeros}
_{ee}._tcp.mx-unusable TLSA 3 9 1 {zeros}
_{ee}._tcp.mx-unusable TLSA 3 1 3 {zeros}
unusable MX 1 mx-unusable
requnusable MX 1 mx-unusable
mx-bogustlsa A 127.0.0.1
bogustlsa MX 1 mx-bogustlsa
viaplain MX 1 mx-x.plain.test.
mx-tachain A 127.0.0.1
_{leaf}._tcp.mx-tachain TLSA {ta201}
tachain MX 1 mx-tachain
mx-away CNAME mx-x.plain.test.
away MX 1 mx-away
mx-hundreds A 127.0.0.1
_{ee}._tcp.mx-hundreds TLSA {ee311}
hundreds MX 1 mx-hundreds
mx-wrong2 A 127.0.0.2
_{ee}._tcp.mx-wrong2 TLSA {wrong}
second MX 1 mx-wrong2
second MX 2 mx-ee
mixed MX 1 mx-wrong2
mixed MX 2 mx-x.plain.test.
''' + ''.join(f'_{{ee}}._tcp.mx-hundreds TLSA 7 0 1 {i:064x}\n' for i in range(400))
PLAIN = 'mx-alias CNAME mx-ee.dane.test.\nalias MX 1 mx-alias\nmx-x A 127.0.0.1\n_{ee}._tcp.mx-x TLSA {ee311}\nx MX 1 mx-x\nreq MX 1 mx-x\n'
ZONES = {
    'test': ('', 'signed'), 'dane.test': (RECORDS, 'signed'), 'plain.test': (PLAIN, 'plain'), 'bogus.test': (PLAIN, 'expired'),
    '_tcp.mx-bogustlsa.dane.test': ('_{ee} TLSA {ee311}\n', 'expired'),
}


@pytest.fixture
def world(make, smtp_server, authority, tmp_path):
    """Servers, zones and a validating resolver. The certificate that is named itself is made for nobody and has expired."""
    key, own = str(tmp_path / 'key'), str(tmp_path / 'own')
    subprocess.run(['openssl', 'req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=nobody.invalid',
                    '-keyout', key, '-out', own + '.csr'], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    subprocess.run(['openssl', 'x509', '-req', '-in', own + '.csr', '-signkey', key, '-days', '-1', '-out', own], check=True, capture_output=True)
    names = authority.issue('mx-ta.dane.test', 'tanext.dane.test')
    chain = str(tmp_path / 'chain')
    with open(chain, 'w') as f:
        f.write(open(names[0]).read() + open(authority.certificate).read())
    ee, ta, leaf = smtp_server(tls=(own, key), address='0.0.0.0'), smtp_server(tls=(chain, names[1])), smtp_server(tls=names)
    t = {f'ee3{s}{m}': dnssec.tlsa(3, s, m, own) for s in (0, 1) for m in (0, 1, 2)}
    zeros = '0' * 64
    ns = make(dnssec.SignedNsd, ZONES, ee=ee.port, ta=ta.port, leaf=leaf.port, zeros=zeros, wrong='3 1 1 ' + zeros,
              ta201=dnssec.tlsa(2, 0, 1, authority.certificate), **t)
    resolver = make(dnssec.Unbound, ns)
    return ns, resolver, ee, ta, leaf


PATIENT = 'dns_retrans = 20s\n'  # of all that is asked here something is the answer


def relay(martlet, world, more='', **kw):
    _, resolver, ee, ta, leaf = world
    kw.setdefault('resolver', resolver.address)
    kw['main'] = kw.get('main', 'log_selector = +tls_certificate_verified\nsmtp_accept_queue_per_connection = 0\n') + PATIENT
    return martlet(routers=ROUTE, transports=DANE.format(ee=ee.port, ta=ta.port, leaf=leaf.port, more=more),
                   relay_from='127.0.0.1', retry='* * F,2h,1h', **kw)


def full(name):
    return name if '.' in name else name + '.dane.test'


def send(m, *names):
    """One message to each domain."""
    with Client(m.port) as c:
        c.ehlo()
        for name in names:
            assert c.mail('u0@local.test', f'x@{full(name)}', data='Subject: x\r\n\r\nx\r\n', hello=False)[0] == 250


@pytest.mark.parametrize('own', [False, True], ids=['unbound', 'dns_resolver'])
def test_all_situations(martlet, world, own, scratch):
    main = 'log_selector = +tls_certificate_verified\nsmtp_accept_queue_per_connection = 0\n'
    if own:  # the machine's own name server does not answer
        config = write(os.path.join(scratch, 'validator'), f'server:\n  do-not-query-localhost: no\n  local-zone: "test." nodefault\n'
                       f'stub-zone:\n  name: "test."\n  stub-addr: {world[0].address}\n')
        main += f'dns_resolver = validating\ndns_trust_anchor = {world[0].anchor}\ndns_validator_config = {config}\n'
    m = relay(martlet, world, main=main, resolver=free_loopback() if own else world[1].address, privileged=own)
    send(m, *(name for name, _ in TABLE))
    for name, pattern in TABLE:
        d = full(name)
        m.wait_log(pattern.format(d=re.escape(d), h='mx-' + re.escape(d)))
    assert 'DANE error: TLSA lookup for' not in m.log()
    for s in world[2:]:
        assert all(x['tls'] for x in s.messages), 'in clear'


def test_stripped_starttls(martlet, world):
    """No clear text where there are records, and none where there are only unusable ones."""
    m = relay(martlet, world)
    world[2].keywords.remove('STARTTLS')
    send(m, 'ee', 'unusable', 'none')
    m.wait_log(r'=> x@none\.dane\.test ')
    for d in ('ee', 'unusable'):
        m.wait_log(rf'== x@{d}\.dane\.test .* defer \(-38\) H=mx-{d}\.dane\.test \[127\.0\.0\.1\]: a TLS session is required, but the server did not')
    assert [x['rcpt'] for x in world[2].messages] == [['<x@none.dane.test>']]


def test_events_and_variables(martlet, world):
    more = ('event_action = ${if or{{match{$event_name}{dane}}{eq{$event_name}{msg:delivery}}}{${acl{note}}}}\n'
            '  dane_require_tls_ciphers = ${if eq{$tls_out_tlsa_usage}{8}{ECDHE-ECDSA-AES256-GCM-SHA384}}\n')
    m = relay(martlet, world, more.replace('{', '{{').replace('}', '}}').replace('{{', '{').replace('}}', '}'),
              acl='note:\n  accept logwrite = EVENT $event_name $domain $event_data dane=$tls_out_dane usage=$tls_out_tlsa_usage\n')
    send(m, 'ee', 'ta', 'none', 'wrong', 'bogustlsa', 'reqnone')
    m.wait_log(r'EVENT msg:delivery ee\.dane\.test .* dane=yes usage=8$')
    m.wait_log(r'EVENT msg:delivery ta\.dane\.test .* dane=yes usage=4$')
    m.wait_log(r'EVENT msg:delivery none\.dane\.test .* dane=no usage=0$')
    m.wait_log(r'EVENT dane:fail wrong\.dane\.test validation-failure ')
    m.wait_log(r'EVENT dane:fail bogustlsa\.dane\.test dnssec-invalid ')
    m.wait_log(r'EVENT dane:fail reqnone\.dane\.test dane-required ')


def test_proofs_are_asked_for_where_they_count(martlet, world):
    """By default, of authorities' certificates alone; a key that the DNS names itself (usage 3) is withdrawn there."""
    m = relay(martlet, world, 'event_action = ${if eq{$event_name}{msg:delivery}{${acl{note}}}}\n',
              acl='note:\n  accept logwrite = EVENT $domain ocsp=$tls_out_ocsp usage=$tls_out_tlsa_usage\n')
    expected = (('ee', 0, 8), ('many', 0, 12), ('ta', 1, 4), ('none', 1, 0))
    with Client(m.port) as c:
        for d, _, _ in expected:
            assert c.mail('u0@local.test', f'x@{full(d)}', data='Subject: x\r\n\r\nx\r\n', hello=d == 'ee')[0] == 250
    for d, ocsp, usage in expected:
        m.wait_log(rf'EVENT {d}\.dane\.test ocsp={ocsp} usage={usage}$')


def test_callout(martlet, world):
    m = relay(martlet, world, acl_rcpt='  require verify = recipient/callout=20s,no_cache\n')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<u0@local.test>')
        c.expect(250, 'RCPT TO:<x@ee.dane.test>')
        c.expect(451, 'RCPT TO:<x@wrong.dane.test>')
        c.expect(451, 'RCPT TO:<x@bogustlsa.dane.test>')
    assert 'tlsa lookup DEFER' in m.log('reject')


def test_requiretls(martlet, world, authority):
    """REQUIRETLS: DANE verifies the host, where no certificate authority does."""
    m = relay(martlet, world, tls=authority.issue('hop.test', 'mx.martlet.test'))
    world[2].keywords.append('REQUIRETLS')
    with Client(m.port) as c:
        c.ehlo()
        c.starttls()
        c.ehlo()
        for d in ('ee', 'none'):
            c.expect(250, 'MAIL FROM:<u0@local.test> REQUIRETLS')
            c.expect(250, f'RCPT TO:<x@{d}.dane.test>')
            c.expect(354, 'DATA')
            assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
    m.wait_log(DELIVERED.format(d=r'ee\.dane\.test', h=r'mx-ee\.dane\.test'))
    m.wait_log(r'\*\* x@none\.dane\.test .*5\.7\.10 Encryption needed')


def test_postfix_agrees(world, peers, scratch):
    """posttls-finger, for each domain: verified where we deliver with CV=dane, and nowhere else."""
    _, resolver, ee, ta, leaf = world
    p = place.Place(scratch + '/finger', [f'{peers}/postfix'], ['postfix', 'postdrop'], resolver=resolver.address)
    p.etc('postfix/main.cf', 'compatibility_level = 3.6\n')
    p.start()
    try:
        for name, pattern in TABLE:
            if name.startswith('req') or name in ('tanext', 'mixed', 'second', 'x.bogus.test', 'hundreds'):
                continue
            port = (leaf if name == 'tachain' else ta if name.startswith('ta') else ee).port
            out = p.run(['/usr/sbin/posttls-finger', '-t', '20', '-T', '20', '-c', '-l', 'dane', '-o', 'inet_protocols=ipv4', f'{full(name)}:{port}'],
                        check=False)
            assert ('Verified TLS connection established' in out) == ('CV=dane' in pattern), (name, out)
    finally:
        p.stop()
