"""DANE beside other programs: who verifies what, and mail between us and Debian's Exim and Postfix, with signed zones in between."""
import os
import re
import shutil
import subprocess

import pytest

from support import dnssec, place
from support.smtp import Client
from support.util import read, wait_for, write

from test_dane import DELIVERED, TABLE, full, world  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.skipif(not dnssec.SIGN or not dnssec.Unbound.program or not dnssec.Nsd.program,
                                                   reason='the name servers are not installed')]

# Where the decision is about the records and the certificate of the one host.
SINGLE = {name: 'CV=dane' in pattern for name, pattern in TABLE
          if name in ('ee', 'ee512', 'eecert', 'eewhole', 'many', 'tlsacname', 'ta', 'taname', 'tachain', 'wrong', 'hundreds')}


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which('ldns-dane'), reason='ldns-dane is not installed')
def test_ldns_dane(world, tmp_path):  # noqa: F811
    """It takes the same records for the same certificates, as the server sends them, for good and for bad."""
    _, resolver, ee, ta, leaf = world
    for name, good in SINGLE.items():
        server = leaf if name == 'tachain' else ta if name.startswith('ta') else ee
        # A key that a record names is the server's whatever the name (RFC 7671, 5.1): -n, as ldns-dane looks at names nevertheless.
        code, out = run('ldns-dane', *(['-n'] if server is ee else []), '-r', resolver.address, '-c', server_chain(server, tmp_path), 'verify',
                        f'mx-{name}.dane.test', str(server.port))
        assert (code == 0) == good, (name, out)


def server_chain(server, tmp_path):
    """What the server sends, in a file."""
    done = subprocess.run(['openssl', 's_client', '-starttls', 'smtp', '-showcerts', '-connect', f'127.0.0.1:{server.port}'], input='QUIT\n',
                          capture_output=True, text=True, timeout=60)
    found = re.findall(r'-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n', done.stdout, re.S)
    assert found, done.stderr
    return write(str(tmp_path / f'{server.port}.pem'), ''.join(found))


@pytest.mark.skipif(not shutil.which('tlsa'), reason='hash-slinger is not installed')
def test_hash_slinger(authority, tmp_path):
    """tlsa (hash-slinger) makes the records that the zones of these tests have."""
    certificate = authority.issue('a.test')[0]
    for selector, kind in ((0, 0), (0, 1), (1, 1), (1, 2)):
        code, out = run('tlsa', '--create', '--certificate', certificate, '--usage', '3', '--selector', str(selector), '--mtype', str(kind), '--port', '25',
                        'a.test')
        assert code == 0 and out.split(' TLSA ')[1].strip().lower() == dnssec.tlsa(3, selector, kind, certificate)


def mail_server(ns, name, port, certificate):
    """A host of dane.test with a record for its certificate, and the same under another name with another one."""
    records = ns.plan['dane.test'][0] + f'{name} MX 1 mx-{name}\nmx-{name} A 127.0.0.1\n_{port}._tcp.mx-{name} TLSA {dnssec.tlsa(3, 1, 1, certificate)}\n'
    records += f'{name}2 MX 1 mx-{name}2\nmx-{name}2 A 127.0.0.1\n_{port}._tcp.mx-{name}2 TLSA 3 1 1 {"0" * 64}\n'  # of another key
    ns.publish(dane__test=records)


def sender(martlet, world, port):  # noqa: F811
    return martlet(routers='dane:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = dane_smtp\n  self = send\n  no_more\n',
                   transports=f'dane_smtp:\n  driver = smtp\n  allow_localhost\n  port = {port}\n  hosts_require_dane = *\n',
                   relay_from='127.0.0.1', resolver=world[1].address, main='log_selector = +tls_certificate_verified')


def test_to_postfix(martlet, world, postfix, authority):  # noqa: F811
    certificate = authority.issue('whatever.test')
    p = postfix(tls=certificate, domain='peer.dane.test')
    mail_server(world[0], 'peer', p.port, certificate[0])
    m = sender(martlet, world, p.port)
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'u1@peer.dane.test', data='Subject: x\r\n\r\nx\r\n')[0] == 250
    m.wait_log(DELIVERED.format(d=r'peer\.dane\.test', h=r'mx-peer\.dane\.test').replace('x@', 'u1@'))


def test_to_exim(martlet, world, exim, authority):  # noqa: F811
    certificate = authority.issue('whatever.test')
    e = exim(tls=certificate, domain='peer.dane.test')
    mail_server(world[0], 'peer', e.port, certificate[0])
    m = sender(martlet, world, e.port)
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'u1@peer.dane.test', data='Subject: x\r\n\r\nx\r\n')[0] == 250
    m.wait_log(DELIVERED.format(d=r'peer\.dane\.test', h=r'mx-peer\.dane\.test').replace('x@', 'u1@'))


@pytest.fixture
def receiver(martlet, world, authority):  # noqa: F811
    certificate = authority.issue('whatever.test')
    m = martlet(tls=certificate, relay_to='peer.dane.test', resolver=world[1].address,
                routers='peer:\n  driver = redirect\n  domains = peer.dane.test\n  data = $local_part@local.test\n')
    mail_server(world[0], 'peer', m.port, certificate[0])
    return m


def test_from_postfix(receiver, world, postfix):  # noqa: F811
    p = postfix(resolver=world[1].address, client_tls='dane-only',
                main=f'smtp_dns_support_level = dnssec\nsmtp_tls_loglevel = 1\ntransport_maps = inline:{{{{peer.dane.test=smtp:peer.dane.test:{receiver.port}}}}}\n')
    with Client(p.port) as c:
        assert c.mail('u0@postfix.test', 'u1@peer.dane.test', data='Subject: x\r\n\r\nx\r\n')[0] == 250
    receiver.wait_mail('u1')
    wait_for(lambda: 'Verified TLS connection established to mx-peer.dane.test' in p.log(), p.log)


def test_from_exim(receiver, world, exim):  # noqa: F811
    router = 'dane:\n  driver = dnslookup\n  domains = *.dane.test\n  transport = dane_smtp\n  self = send\n  no_more\n'
    e = exim(resolver=world[1].address, log='+tls_certificate_verified', routers=router,
             client=f'hosts_avoid_tls =\n\ndane_smtp:\n  driver = smtp\n  allow_localhost\n  port = {receiver.port}\n  hosts_require_dane = *\n',
             main='dns_dnssec_ok = 1\n')
    e.place.etc('resolv.conf', f'nameserver {world[1].address}\noptions trust-ad\n')  # or the C library takes the AD bit away
    with Client(e.port) as c:
        assert c.mail('u0@exim.test', 'u1@peer.dane.test', data='Subject: x\r\n\r\nx\r\n')[0] == 250
    wait_for(lambda: re.search(r'=> u1@peer\.dane\.test .*CV=dane', e.log()) or '==' in e.log(), e.log)
    assert 'CV=dane' in e.log()
    receiver.wait_mail('u1')


def test_posttls_finger(receiver, world, peers, scratch):  # noqa: F811
    """Postfix's own probe of our server: verified by the record in the zone, and not where that names another key."""
    p = place.Place(scratch + '/finger', [f'{peers}/postfix'], ['postfix', 'postdrop'], resolver=world[1].address)
    p.etc('postfix/main.cf', 'compatibility_level = 3.6\n')
    p.start()
    try:
        for name, good in (('peer', True), ('peer2', False)):
            out = p.run(['/usr/sbin/posttls-finger', '-t', '60', '-T', '60', '-c', '-l', 'dane', '-o', 'inet_protocols=ipv4',
                         f'{name}.dane.test:{receiver.port}'], check=False)
            assert (f'Verified TLS connection established to mx-{name}.dane.test' in out) == good, out
            assert good or 'Untrusted TLS connection' in out
    finally:
        p.stop()
