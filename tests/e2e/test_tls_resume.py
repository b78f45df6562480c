"""TLS session resumption (RFC 5077; RFC 8446, section 4.6.1): tickets of a server, what a client keeps."""
import glob
import os
import re
import subprocess

import pytest

from support.smtp import Client
from support.util import maildir, wait_for

HOSTS = 'tls_resumption_hosts = *\nlog_selector = +tls_resumption\n'
VERSIONS = pytest.mark.parametrize('version', ['-tls1_2', '-tls1_3'])


def session(m, *options, file=None, name=None):
    """One session of `openssl s_client`; its output. With `file` it is kept there."""
    command = ['openssl', 's_client', '-connect', f'127.0.0.1:{m.port}', '-starttls', 'smtp', *options]
    if name:
        command += ['-servername', name]
    process = subprocess.Popen(command + (['-sess_out', file] if file else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    text = ''
    try:
        process.stdin.write('EHLO client.test\r\nNOOP\r\n')
        process.stdin.flush()
        for line in process.stdout: # its answer shows that the tickets of TLS 1.3 have been read, too
            text += line
            if line.startswith('250 OK'):
                break
        text += process.communicate('QUIT\r\n', timeout=60)[0]
    except BrokenPipeError:
        text += process.communicate()[0]
    return text


def resumed(m, *options, file, name=None):
    text = session(m, '-sess_in', file, *options, name=name)
    assert 'New, ' in text or 'Reused, ' in text, text + m.logs()
    return 'Reused, ' in text


@pytest.fixture
def kept(tmp_path):
    """Where s_client keeps a session."""
    return str(tmp_path / 'session')


@VERSIONS
def test_by_openssl(martlet, authority, kept, version):
    m = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS)
    session(m, version, file=kept)
    for _ in range(6): # whichever worker gets it
        assert resumed(m, version, file=kept)


@VERSIONS
def test_after_a_reload_but_not_after_a_restart(martlet, authority, kept, version):
    m = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS)
    session(m, version, file=kept)
    before = set(m.workers())
    m.reload()
    wait_for(lambda: not before & set(m.workers()), m.logs)
    assert resumed(m, version, file=kept)
    m.terminate()
    m.start()
    assert not resumed(m, version, file=kept)


@VERSIONS
def test_hosts_that_are_not_listed(martlet, authority, kept, version):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='tls_resumption_hosts = 192.0.2.1\n')
    text = session(m, version, file=kept)
    assert 'TLS session ticket:' not in text
    assert not os.path.exists(kept) or not resumed(m, version, file=kept)


@VERSIONS
def test_another_certificate_or_name(martlet, authority, kept, version, scratch):
    cert, key = [os.path.join(str(scratch), n) for n in ('cert', 'key')]

    def install(name):
        for source, to in zip(authority.issue(name), (cert, key)):
            with open(source) as f, open(to + '.new', 'w') as out:
                out.write(f.read())
            os.rename(to + '.new', to)
    install('mx.martlet.test')
    m = martlet(tls=(cert, key), main=HOSTS)
    session(m, version, file=kept, name='a.test')
    assert resumed(m, version, file=kept, name='a.test')
    assert not resumed(m, version, file=kept, name='b.test')
    install('other.test')
    wait_for(lambda: 'CN = other.test' in session(m), m.logs) # the key may come a moment behind the certificate
    wait_for(lambda: not resumed(m, version, file=kept, name='a.test'), m.logs)


@VERSIONS
def test_client_certificates(martlet, authority, kept, version):
    """What was found out of one is still known; where one is demanded, sessions are not resumed."""
    acl = 'note:\n  accept condition = ${if def:tls_in_cipher}\n         logwrite = resumption=$tls_in_resumption verified=$tls_in_certificate_verified $tls_in_peerdn\n  accept\n'
    mine = authority.issue('client.test')
    options = [version, '-cert', mine[0], '-key', mine[1]]
    for which, expected in (('tls_try_verify_hosts', True), ('tls_verify_hosts', False)):
        m = martlet(tls=authority.issue('mx.martlet.test'), acl=acl,
                    main=HOSTS + f'{which} = *\ntls_verify_certificates = {authority.certificate}\nacl_smtp_helo = note\n')
        if os.path.exists(kept):
            os.remove(kept)
        session(m, *options, file=kept)
        m.wait_log(r'verified=1 /CN=client\.test')
        if os.path.exists(kept):
            assert resumed(m, *options, file=kept) == expected
        if expected:
            m.wait_log(r'resumption=(23|31) verified=1 /CN=client\.test')


@VERSIONS
def test_a_ticket_that_is_none(martlet, authority, kept, version):
    m = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS)
    other = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS)
    session(other, version, file=kept)
    assert not resumed(m, version, file=kept) # of another daemon: its keys are others
    assert resumed(other, version, file=kept)


# --- the client ---

NOTE = 'note:\n  accept condition = ${if eq{$event_name}{tcp:close}}\n         logwrite = out $tls_out_resumption ocsp $tls_out_ocsp\n  accept\n'


def sender(martlet, authority, port, version, client='', **kw):
    options = {'-tls1_2': 'openssl_options = +no_tlsv1_3\n', '-tls1_3': ''}[version]
    m = martlet(smarthost=f'127.0.0.1::{port}', acl=NOTE, arguments=[], main='log_selector = +tls_resumption\nqueue_only\n' + options, relay_from='127.0.0.1',
                client='\n'.join([f'tls_verify_certificates = {authority.certificate}', 'tls_verify_cert_hostnames =', 'tls_resumption_hosts = *',
                                  'connection_max_messages = 1', 'event_action = ${acl{note}}', client]), **kw)

    def send(recipient):
        with Client(m.port) as c:
            assert c.mail('a@b.test', recipient)[0] == 250
        m.run('-qff')
        m.wait_log(f'=> {re.escape(recipient)} ')
    return m, send


@VERSIONS
def test_to_ourselves(martlet, authority, version):
    far = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS, acl_rcpt='  accept')
    m, send = sender(martlet, authority, far.port, version)
    for i in range(3):
        send(f'x{i}@relay.test')
    first, second, third = re.findall(r'=> x\d@relay\.test .* X=(\S+) CV=(yes|no)', m.log())
    assert first[1] == second[1] == third[1] == 'yes'
    assert not first[0].endswith('*') and second[0].endswith('*') and third[0].endswith('*')
    assert re.findall(r'out (\d+) ocsp', m.log()) == ['11', '23', '23']
    far.wait_log(r'<= a@b\.test .* X=\S+\* ', count=2)


@VERSIONS
def test_what_the_hints_hold_may_be_damaged(martlet, authority, version):
    far = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS, acl_rcpt='  accept')
    m, send = sender(martlet, authority, far.port, version)
    send('x0@relay.test')
    for f in glob.glob(m.outside('spool/db/*')):
        assert not os.stat(f).st_mode & 0o007, f
        os.remove(f)
    send('x1@relay.test')
    far.terminate()
    far.start()
    send('x2@relay.test') # with a session that nobody knows any more
    assert [x.endswith('*') for x in re.findall(r'=> x\d@relay\.test .* X=(\S+) CV=yes', m.log())] == [False, False, False]


@VERSIONS
def test_options_that_differ(martlet, authority, version):
    """A session that was made with other wishes is not used."""
    far = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS, acl_rcpt='  accept')
    m, send = sender(martlet, authority, far.port, version, client='tls_sni = $local_part.test')
    send('x0@relay.test')
    send('x1@relay.test')
    send('x1@relay.test')
    assert [x.endswith('*') for x in re.findall(r'=> x\d@relay\.test .* X=(\S+) CV=yes', m.log())] == [False, False, True]


@pytest.mark.peers
@VERSIONS
def test_to_postfix(martlet, postfix, authority, version):
    p = postfix(tls=authority.issue('postfix.test'))
    m, send = sender(martlet, authority, p.port, version, routers='all:\n  driver = manualroute\n  domains = postfix.test\n  transport = remote_smtp\n'
                     f'  route_list = * 127.0.0.1::{p.port}\n  self = send\n  no_more\n', relay_to='postfix.test')
    send('u1@postfix.test')
    send('u2@postfix.test')
    wait_for(lambda: maildir(p.maildir('u2')), p.log)
    assert [x.endswith('*') for x in re.findall(r'=> u\d@postfix\.test .* X=(\S+) CV=yes', m.log())] == [False, True]


@pytest.mark.peers
def test_from_exim(martlet, exim, authority):
    """Debian's Exim (with GnuTLS) resumes its session with us."""
    m = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS)
    e = exim(smarthost=f'127.0.0.1::{m.port}', client='hosts_require_tls = *\ntls_resumption_hosts = *')
    for i in range(2):
        with Client(e.port) as c:
            assert c.mail('a@b.test', f'u{i}@local.test')[0] == 250
        wait_for(lambda: e.log().count(' Completed') == i + 1, e.log)  # by now the session is kept
    m.wait_log(r'<= a@b\.test .* X=\S+\* ')


@pytest.mark.peers
@VERSIONS
def test_to_exim(martlet, exim, authority, version):
    e = exim(tls=authority.issue('exim.test'), main='tls_resumption_hosts = *\n')
    m, send = sender(martlet, authority, e.port, version, relay_to='exim.test', routers='all:\n  driver = manualroute\n  domains = exim.test\n'
                     f'  transport = remote_smtp\n  route_list = * 127.0.0.1::{e.port}\n  self = send\n  no_more\n')
    send('u1@exim.test')
    send('u2@exim.test')
    wait_for(lambda: maildir(e.maildir('u2')), e.log)
    assert [x.endswith('*') for x in re.findall(r'=> u\d@exim\.test .* X=(\S+) CV=yes', m.log())] == [False, True], m.log() + e.log()


@VERSIONS
def test_a_record_that_is_damaged(martlet, authority, version):
    far = martlet(tls=authority.issue('mx.martlet.test'), main=HOSTS, acl_rcpt='  accept')
    m, send = sender(martlet, authority, far.port, version)
    send('x0@relay.test')
    m.terminate()
    path = m.outside('spool/db/data.mdb')
    with open(path, 'r+b') as f:
        data = f.read()
        places = [x.start() for x in re.finditer(rb'1 \d{10} \d [A-Za-z0-9+/]{100}', data)]
        assert places
        for at in places:
            f.seek(at + 20)
            f.write(b'A' * 60)
    m.start()
    send('x1@relay.test')
    assert [x.endswith('*') for x in re.findall(r'=> x\d@relay\.test .* X=(\S+) CV=yes', m.log())] == [False, False]
