"""REQUIRETLS (RFC 8689), and TLS-Required: No: what is offered, kept, promised to the next hop, and told when it cannot be."""
import glob
import re
import subprocess

import pytest

from support.smtp import Client
from support.util import read, wait_for

HOSTS = '127.0.0.1 localhost\n127.0.0.1 hop.test\n127.0.0.1 other.test\n'
PROMISE = ('PIPELINING', '8BITMIME', 'SIZE 50000000', 'REQUIRETLS')


@pytest.fixture
def hop(martlet, authority):
    """hop(port): a Martlet that relays relay.test to hop.test at a port; its certificate is for mx.martlet.test and hop.test."""
    def start(port, **kw):
        kw.setdefault('tls', authority.issue('hop.test', 'mx.martlet.test'))
        kw.setdefault('smarthost', f'hop.test::{port} byname')
        kw['client'] = f'tls_verify_certificates = {authority.certificate}\n' + kw.get('client', '')
        return martlet(hosts=HOSTS, **kw)
    return start


def send(port, sender='u0@local.test', recipients=('x@relay.test',), parameters=' REQUIRETLS', header='Subject: x\r\n'):
    with Client(port) as c:
        c.ehlo()
        c.starttls()
        c.ehlo()
        c.expect(250, f'MAIL FROM:<{sender}>{parameters}')
        for r in recipients:
            c.expect(250, f'RCPT TO:<{r}>')
        c.expect(354, 'DATA')
        code, text = c.body(header + '\r\nsecret\r\n')
        assert code == 250, text


def queued(m):
    """The -H file of the only message, when it is there."""
    pattern = m.outside('spool/input/**/*-H')
    wait_for(lambda: glob.glob(pattern, recursive=True), m.logs)
    return glob.glob(pattern, recursive=True)[0]


def bounce(m, user='u0'):
    text = m.wait_mail(user)[0].decode()
    assert 'Auto-Submitted: auto-replied' in text
    return text


def no_mail(server):
    return not [c for c in server.commands if c.startswith('MAIL')]


def test_offered_inside_tls_only(martlet, authority):
    m = martlet(tls=authority.issue('hop.test', 'mx.martlet.test'), interfaces='127.0.0.1 : 127.0.0.2',
                main='tls_advertise_requiretls = 127.0.0.1')
    for address, expected in [('127.0.0.1', True), ('127.0.0.2', False)]:
        with Client(m.port, address=address, source=address) as c:
            assert 'REQUIRETLS' not in c.ehlo()
            assert c.cmd('MAIL FROM:<a@b.test> REQUIRETLS')[0] == 555
            c.starttls()
            assert ('REQUIRETLS' in c.ehlo()) == expected
            assert c.cmd('MAIL FROM:<a@b.test> REQUIRETLS=1')[0] == 501
            assert c.cmd('MAIL FROM:<a@b.test> REQUIRETLS')[0] == (250 if expected else 555)
    swaks = ['swaks', '--server', f'127.0.0.1:{m.port}', '--helo', 'x.test', '--quit-after', 'EHLO']
    assert 'REQUIRETLS' not in subprocess.run(swaks, capture_output=True, text=True, timeout=120).stdout
    assert 'REQUIRETLS' in subprocess.run(swaks + ['--tls'], capture_output=True, text=True, timeout=120).stdout


def test_three_hops(hop):
    last = hop(1, relay_from='127.0.0.1')
    middle = hop(last.port, smarthost=f'hop.test::{last.port} byname', relay_to='local.test',
                 routers=f'on:\n  driver = manualroute\n  route_list = * hop.test::{last.port} byname\n  transport = remote_smtp\n  self = send\n')
    first = hop(middle.port, routers=f'on:\n  driver = manualroute\n  route_list = * hop.test::{middle.port} byname\n'
                                     '  transport = remote_smtp\n  self = send\n')
    send(first.port, 'a@b.test', ['u1@local.test'])
    text = last.wait_mail('u1')[0].decode()
    assert len(re.findall(r'with esmtpS\b', text)) == 3
    for m in (first, middle, last):
        m.wait_log(r'<= a@b\.test H=.* P=esmtpS ')
    first.wait_log(r'=> u1@local\.test .*CV=yes')


def test_next_hop_without_the_promise(hop, smtp_server, authority):
    s = smtp_server(tls=authority.issue('hop.test', 'mx.martlet.test'))
    m = hop(s.port, main='dsn_advertise_hosts = *')
    send(m.port, parameters=' REQUIRETLS RET=FULL')
    text = bounce(m)
    assert '5.7.30 REQUIRETLS support required' in text and 'Status: 5.7.30' in text
    assert 'text/rfc822-headers' in text and 'secret' not in text
    assert no_mail(s)
    m.wait_log(r'\*\* x@relay\.test .*550 5\.7\.30 REQUIRETLS support required$')


def test_postfix_does_not_promise(hop, postfix, authority):
    p = postfix(tls=authority.issue('hop.test', 'mx.martlet.test'))
    m = hop(p.port)
    send(m.port)
    assert 'Status: 5.7.30' in bounce(m)
    wait_for(lambda: 'postfix/smtpd' in p.log(), p.log)
    assert 'from=<u0@local.test>' not in p.log()


@pytest.mark.parametrize('trouble', ['clear', 'self-signed', 'name', 'avoided'])
def test_no_tls_that_would_do(hop, smtp_server, authority, trouble, tmp_path):
    tls = authority.issue('hop.test', 'mx.martlet.test')
    if trouble == 'clear':
        tls = None
    elif trouble == 'name':
        tls = authority.issue('elsewhere.test')
    elif trouble == 'self-signed':
        key, cert = str(tmp_path / 'key'), str(tmp_path / 'cert')
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3',
                        '-subj', '/CN=hop.test', '-addext', 'subjectAltName=DNS:hop.test', '-keyout', key, '-out', cert], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True)
        tls = cert, key
    s = smtp_server(tls=tls, keywords=PROMISE)
    m = hop(s.port, client='hosts_avoid_tls = *' if trouble == 'avoided' else 'tls_verify_cert_hostnames =')
    send(m.port)
    text = bounce(m)
    assert '5.7.10 Encryption needed' in text and 'Status: 5.7.10' in text
    assert no_mail(s)


def test_mail_exchangers_must_be_secure(martlet, nameserver, smtp_server, authority):
    s = smtp_server(tls=authority.issue('hop.test', 'mx.martlet.test'), keywords=PROMISE)
    nameserver.add('relay.test', 'MX', (5, 'hop.test')).add('hop.test', 'A', '127.0.0.1')
    for nameserver.authentic in (False, True):
        m = martlet(resolver=nameserver.address, hosts='127.0.0.1 localhost\n',
                    tls=authority.issue('hop.test', 'mx.martlet.test'), client=f'port = {s.port}\ntls_verify_certificates = {authority.certificate}\n',
                    routers='look:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = remote_smtp\n  self = send\n  no_more\n')
        send(m.port)
        if nameserver.authentic:
            wait_for(lambda: s.messages, m.logs)
            assert s.messages[0]['mail'].endswith(' REQUIRETLS')
        else:
            text = bounce(m)
            assert '5.7.10 Encryption needed' in text and 'MX record is not secure' in text
            assert no_mail(s) and s.sessions == 0


def test_another_host_may_do(hop, smtp_server, authority):
    bad = smtp_server(keywords=PROMISE)
    good = smtp_server(tls=authority.issue('hop.test', 'mx.martlet.test'), keywords=PROMISE)
    m = hop(0, smarthost=f'"hop.test::{bad.port}:other.test::{good.port}" byname')
    good.context.load_cert_chain(*authority.issue('both.test', 'hop.test', 'other.test'))
    send(m.port)
    wait_for(lambda: good.messages, m.logs)
    assert good.messages[0]['mail'].endswith(' REQUIRETLS') and no_mail(bad)


def test_trouble_of_the_network_defers(hop, smtp_server):
    m = hop(0, smarthost='hop.test::1 byname')
    send(m.port)
    m.wait_log(r'== x@relay\.test .*Connection refused')
    assert '**' not in m.log()


def test_kept_in_the_queue_and_over_a_restart(hop, smtp_server, authority):
    s = smtp_server({'MAIL': ['451 later', None]}, tls=authority.issue('hop.test', 'mx.martlet.test'), keywords=('REQUIRETLS',))
    m = hop(s.port, main='queue_only', arguments=[])
    send(m.port)
    queued(m)
    m.run('-qff')
    wait_for(lambda: not no_mail(s), m.logs)
    assert '\n-requiretls\n' in read(queued(m))
    m.stop()
    m.start()
    m.run('-qff')
    wait_for(lambda: s.messages, m.logs)
    assert s.messages[0]['mail'].endswith(' REQUIRETLS')


def test_bounce_itself(hop, smtp_server, authority):
    """A bounce says so to whom it can, and goes on without it to whom it cannot."""
    for keywords in (PROMISE, ('PIPELINING',)):
        s = smtp_server({'RCPT': lambda line, _: '550 no' if 'bad@' in line else None}, tls=authority.issue('hop.test', 'mx.martlet.test'),
                        keywords=keywords)
        m = hop(s.port, relay_to='relay.test : elsewhere.test')
        send(m.port, 'me@elsewhere.test', ['bad@relay.test'])
        wait_for(lambda: s.messages, m.logs)
        got = s.messages[0]
        assert got['rcpt'] == ['<me@elsewhere.test>'] and got['tls'] and b'secret' not in got['data']
        assert got['mail'].startswith('<>') and got['mail'].endswith(' REQUIRETLS') == ('REQUIRETLS' in keywords)


def test_alias_with_one_that_cannot(hop, smtp_server, authority):
    tls = authority.issue('hop.test', 'mx.martlet.test')
    good, bad = smtp_server(tls=tls, keywords=PROMISE), smtp_server(tls=tls)
    m = hop(0, relay_to='one.test : two.test : three.test', users=('u0', 'team'), routers=f'''
team:
  driver = redirect
  local_parts = team
  data = a@one.test, b@two.test, c@three.test
on:
  driver = manualroute
  route_list = one.test hop.test::{good.port} byname ; two.test hop.test::{bad.port} byname ; three.test hop.test::{good.port} byname
  transport = remote_smtp
  self = send
''')
    send(m.port, recipients=['team@local.test'])
    wait_for(lambda: sum(len(x['rcpt']) for x in good.messages) == 2, m.logs)
    text = bounce(m)
    assert 'b@two.test' in text and 'a@one.test' not in text and no_mail(bad)


def test_control_and_variable(hop, smtp_server, authority):
    s = smtp_server(tls=authority.issue('hop.test', 'mx.martlet.test'), keywords=PROMISE)
    m = hop(s.port, main='acl_smtp_data = data', acl='data:\n  warn condition = ${if match{$h_subject:}{secure}}\n    control = requiretls\n'
            '  accept add_header = X-Tls: ${if bool{$requiretls}{must}{may}}\n')
    send(m.port, parameters='', header='Subject: [secure] x\r\n')
    wait_for(lambda: s.messages, m.logs)
    assert s.messages[0]['mail'].endswith(' REQUIRETLS') and b'X-Tls: must' in s.messages[0]['data']
    m.wait_log(r'<= u0@local\.test .* P=esmtps ')


def test_not_over_a_connection_made_for_less(hop, smtp_server, authority):
    """The connection of an ordinary message, whose certificate nobody looked at, is not for one that waits with it."""
    s = smtp_server(tls=authority.issue('elsewhere.test'), keywords=('REQUIRETLS',))
    m = hop(s.port, main='queue_only', client='tls_verify_cert_hostnames =\ntls_try_verify_hosts = :\ntls_verify_hosts = :\n', arguments=[])
    send(m.port, recipients=['a@relay.test', 'b@relay.test'])
    for sender in ('one@b.test', 'two@b.test'):
        send(m.port, sender, parameters='')
    wait_for(lambda: len(glob.glob(m.outside('spool/input/**/*-H'), recursive=True)) == 3, m.logs)
    m.run('-qqff')
    m.wait_log(r'\*\* [ab]@relay\.test .*5\.7\.10 Encryption needed', count=2)
    wait_for(lambda: len(s.messages) == 2, m.logs)
    assert sorted(x['mail'].split('>')[0] for x in s.messages) == ['<one@b.test', '<two@b.test']


NO = 'TLS-Required: no\r\nSubject: x\r\n'


def test_not_required(hop, smtp_server, authority):
    """A certificate that is not good enough does not stop what says that it need not be."""
    s = smtp_server(tls=authority.issue('elsewhere.test'))
    strict = dict(client='tls_verify_hosts = *\ntls_tempfail_tryclear = false\n', main='queue_only', arguments=[])
    m = hop(s.port, **strict)
    send(m.port, parameters='', header=NO)
    assert '\n-tls_required_no\n' in read(queued(m))
    m.run('-qff')
    wait_for(lambda: s.messages, m.logs)
    assert s.messages[0]['tls']
    for header, parameters in [('Subject: x\r\n', ''), (NO + NO, ''), ('TLS-Required: perhaps\r\n', ''), (NO, ' REQUIRETLS')]:
        m = hop(s.port, **strict)
        send(m.port, parameters=parameters, header=header)
        queued(m)
        m.run('-qff')
        m.wait_log(r'(==|\*\*) x@relay\.test')
        assert len(s.messages) == 1
        assert ('TLS-Required: ignored' in m.log()) == (header.startswith('TLS') and header != NO)


def test_not_required_goes_in_clear_when_it_must(hop, smtp_server):
    s = smtp_server({'STARTTLS': '454 not now'}, keywords=('STARTTLS',))
    m = hop(s.port, client='tls_tempfail_tryclear = false')
    send(m.port, parameters='', header=NO)
    wait_for(lambda: s.messages, m.logs)
    assert not s.messages[0]['tls']


def test_not_required_but_the_site_insists(hop, smtp_server):
    s = smtp_server()
    m = hop(s.port, client='hosts_require_tls = *')
    send(m.port, parameters='', header=NO)
    assert '5.7.10' in bounce(m)
