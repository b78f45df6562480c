"""Signatures that the smtp transport makes: checked by python3-dkim, opendkim, Debian's Exim and by ourselves."""
import base64
import os
import re
import subprocess

import pytest

from support.smtp import Client
from support.util import maildir, read, wait_for

pytestmark = [pytest.mark.plain, pytest.mark.root]

MESSAGE = (b'From: u@a.ex\r\nTo: v@b.ex\r\nSubject: a  test\r\n of folding\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n'
           b'X-Two: one\r\nX-Two: two\r\n\r\n.Hello,\r\n\r\n  world \t x\r\n.\r\n\r\n\r\n')


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
    """name: (file, text of p=)"""
    d, made = tmp_path_factory.mktemp('keys'), {}
    os.chmod(d, 0o755)
    for parent in list(d.parents)[:3]:
        os.chmod(parent, 0o755) if parent.name.startswith('pytest') else None
    for name, options in {'r2': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
                          'r1': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'], 'ed': ['-algorithm', 'ed25519']}.items():
        pem = d / name
        subprocess.run(['openssl', 'genpkey', '-out', pem, *options], check=True, capture_output=True)
        public = subprocess.run(['openssl', 'pkey', '-in', pem, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
        made[name] = str(pem), base64.b64encode(public[-32:] if name == 'ed' else public).decode()
    return made


def records(keys):
    return {f'{name}._domainkey.{domain}': f'v=DKIM1; k={"ed25519" if name == "ed" else "rsa"}; p={p}'
            for name, (_, p) in keys.items() for domain in ('a.ex', 'b.ex')}


@pytest.fixture
def signing(martlet, keys, scratch):
    def start(port, options, selectors='r2', domains='a.ex', **kw):
        d = os.path.join(scratch, 'keys')
        os.makedirs(d, exist_ok=True)
        os.chmod(d, 0o755)
        for name, (path, _) in keys.items():
            with open(os.path.join(d, name), 'w') as f:
                f.write(read(path))
            os.chmod(os.path.join(d, name), 0o644)
        client = f'dkim_domain = {domains}\n  dkim_selector = {selectors}\n  dkim_private_key = {d}/$dkim_selector\n'
        return martlet(smarthost=f'127.0.0.1::{port}', relay_from='127.0.0.1', client=client + '\n'.join('  ' + o for o in options),
                       main='log_selector = +dkim_verbose', arguments=[], **kw)
    return start


def relay(m, message=MESSAGE, to='v@relay.test'):
    with Client(m.port) as c:
        c.ehlo()
        for line, code in [('MAIL FROM:<u@a.ex>', 250), (f'RCPT TO:<{to}>', 250), ('DATA', 354)]:
            c.expect(code, line)
        c.send(re.sub(rb'(?m)^\.', b'..', message))
        c.expect(250, '.')


def verified(keys, data):
    """What python3-dkim says of each signature, the topmost first."""
    dkim = pytest.importorskip('dkim')
    table = {k + '.': v.encode() for k, v in records(keys).items()}
    got, d = [], dkim.DKIM(data)
    for n in range(len(re.findall(rb'(?im)^DKIM-Signature:', data))):
        try:
            got.append(d.verify(idx=n, dnsfunc=lambda name, timeout=5: table.get(name.decode() if isinstance(name, bytes) else name)))
        except dkim.ValidationError:
            got.append(False)
    return got


def unfolded(data, n=0):
    return re.sub(rb'\s+', b' ', re.findall(rb'(?ims)^DKIM-Signature:.*?\r\n(?=\S)', data)[n]).decode()


@pytest.mark.parametrize('keywords', [('PIPELINING', 'SIZE 50000000'), ('PIPELINING', 'CHUNKING'), ('CHUNKING',)])
@pytest.mark.parametrize('options, selectors, expect', [
    ([], 'r2', 'c=relaxed/relaxed'),
    (['dkim_canon = simple', 'dkim_hash = sha256'], 'r2', 'a=rsa-sha256; q=dns/txt; c=simple/simple'),
    (['dkim_hash = sha256', 'dkim_sign_headers = +From:=X-Two:Subject', 'dkim_timestamps = 3600', 'dkim_identity = x@$dkim_domain'], 'r2',
     'h=X-Two:X-Two:Subject:From:From;'),
    (['dkim_canon = simple'], 'ed', 'a=ed25519-sha256'),
    (['dkim_sign_headers = _DKIM_OVERSIGN_HEADERS'], 'ed', ':From:From:'[:5])])
def test_python_dkim(signing, smtp_server, keys, keywords, options, selectors, expect):
    sink = smtp_server(keywords=keywords)
    m = signing(sink.port, options, selectors)
    relay(m)
    wait_for(lambda: sink.messages, m.logs)
    data = sink.messages[0]['data']
    assert verified(keys, data) == [True] and expect in unfolded(data), data
    assert not any(verified(keys, data.replace(b'world', b'World'))) and not any(verified(keys, data.replace(b'a  test', b'a test!')))
    if 'dkim_timestamps = 3600' in options:
        t, x = re.search(r' t=(\d+); x=(\d+);', unfolded(data)).groups()
        assert int(x) - int(t) == 3600 and ' i=x@a.ex;' in unfolded(data)
        assert not any(verified(keys, data.replace(b'X-Two: one', b'X-Two: won'))) and not any(verified(keys, b'From: x@y\r\n' + data))
    assert all(len(line) <= 80 for line in data.split(b'\r\n\r\n')[0].split(b'\r\n'))
    wait_for(lambda: f'DKIM=a.ex:{selectors} C=' in m.log(), m.logs)


def test_several(signing, smtp_server, keys):
    sink = smtp_server()
    m = signing(sink.port, [], 'r2 : ed', 'a.ex : B.ex', maildir='')
    relay(m)
    wait_for(lambda: sink.messages, m.logs)
    data = sink.messages[0]['data']
    assert verified(keys, data) == [True] * 4
    assert [re.search(r'd=(\S+); s=(\w+);', unfolded(data, n)).groups() for n in range(4)] == [
        ('a.ex', 'r2'), ('a.ex', 'ed'), ('b.ex', 'r2'), ('b.ex', 'ed')]
    wait_for(lambda: 'DKIM=a.ex:r2:a.ex:ed:b.ex:r2:b.ex:ed' in m.log(), m.logs)


def test_large_body_with_filter_and_changed_headers(signing, smtp_server, keys):
    """headers_add, headers_remove and a filter that adds a footer: the signature covers what is sent, whatever its size."""
    sink = smtp_server(keywords=('PIPELINING', 'CHUNKING'))
    m = signing(sink.port, ['headers_add = X-Added: by the transport', 'headers_remove = X-Two', r'transport_filter = /bin/sed -e \$a\\footer',
                            'dkim_sign_headers = +From:+X-Added:+X-Two'])
    relay(m, MESSAGE.replace(b'.Hello', b'x' * 70 + b'\r\n' + b'0123456789\r\n' * 100000 + b'.Hello'))
    wait_for(lambda: sink.messages, m.logs)
    data = sink.messages[0]['data']
    assert len(data) > 1200000 and data.endswith(b'footer\r\n') and b'X-Two: one' not in data and b'h=X-Added:From:From:X-Added:X-Two;' in data
    assert verified(keys, data) == [True]


@pytest.mark.parametrize('options, line', [
    (['dkim_private_key = /nonexistent/key'], 'unable to open file for reading: /nonexistent/key'),
    (['dkim_private_key = no key at all'], 'the private key cannot be read'),
    (['dkim_private_key = $sender_address_domain/../k'], 'cannot be read'),
    (['dkim_private_key = /keys/$sender_address_domain'], "Tainted filename '/keys/a.ex'"),
    (['dkim_hash = md9'], "DKIM: unrecognised hashname 'md9'"),
    (['dkim_timestamps = ${bogus}'], 'failed to expand dkim_timestamps'),
    (['dkim_timestamps = soon'], 'dkim_timestamps'),
    (['dkim_identity = ${if}'], 'failed to expand dkim_identity')])
def test_trouble(martlet, smtp_server, keys, options, line):
    """Without dkim_strict the message goes unsigned; with it, it waits."""
    key = [] if 'private' in options[0] else ['dkim_private_key = ' + read(keys['ed'][0]).replace('\n', r'\n')]
    common = ['dkim_domain = a.ex', 'dkim_selector = s'] + key + options
    sink = smtp_server()
    m = martlet(smarthost=f'127.0.0.1::{sink.port}', relay_from='127.0.0.1', client='\n  '.join(common), arguments=[], allow_panic='.')
    relay(m)
    wait_for(lambda: sink.messages, m.logs)
    assert b'DKIM-Signature' not in sink.messages[0]['data'] and line in m.log()
    m = martlet(smarthost=f'127.0.0.1::{sink.port}', relay_from='127.0.0.1', client='\n  '.join(common + ['dkim_strict = ${if eq{1}{1}{true}}']),
                arguments=[], allow_panic='.')
    relay(m)
    wait_for(lambda: 'dkim_strict is set. Deferring message delivery.' in m.log() and ' == v@relay.test' in m.log(), m.logs)
    assert len(sink.messages) == 1


@pytest.mark.parametrize('key', ['0', 'false', ''])
def test_no_key_is_no_trouble(martlet, smtp_server, key):
    sink = smtp_server()
    m = martlet(smarthost=f'127.0.0.1::{sink.port}', relay_from='127.0.0.1', arguments=[],
                client=f'dkim_domain = a.ex\n  dkim_selector = s\n  dkim_strict = 1\n  dkim_private_key = {key}')
    relay(m)
    wait_for(lambda: sink.messages, m.logs)
    assert b'DKIM-Signature' not in sink.messages[0]['data']


def test_exim_and_opendkim(signing, exim, nameserver, keys, scratch):
    """Debian's Exim receives what we signed, over BDAT; opendkim looks at what it kept."""
    for name, text in records(keys).items():
        nameserver.add(name, 'TXT', text)
    e = exim(resolver=nameserver.address, domain='relay.test', main='acl_smtp_dkim = check_dkim',
             acl='  accept\ncheck_dkim:\n  warn logwrite = DKIM $dkim_selector $dkim_algo $dkim_verify_status\n  accept\n')
    m = signing(e.port, [], 'r2 : ed')
    relay(m, MESSAGE)
    relay(m, MESSAGE, 'u1@relay.test')
    wait_for(lambda: maildir(e.maildir('u1')), lambda: m.logs() + e.log())
    log = e.log()
    assert 'DKIM r2 rsa-sha256 pass' in log and 'DKIM ed ed25519-sha256 pass' in log, log
    kept = maildir(e.maildir('u1'))[0]
    from shutil import which
    if which('opendkim-testmsg') is None:
        pytest.skip('opendkim-tools is not installed')
    text = re.sub(rb'\r?\n', b'\r\n', kept[kept.index(b'DKIM-Signature'):])
    first = text[:text.index(b'DKIM-Signature', 5)] + re.sub(rb'(?s)^DKIM-Signature.*?\r\n(?=\S)', b'', text[text.index(b'DKIM-Signature', 5):])
    for data, code in [(first, 0), (first.replace(b'world', b'World'), 1)]:
        done = subprocess.run(e.place.command(['/usr/sbin/opendkim-testmsg']), input=data, capture_output=True)
        assert (done.returncode == 0) == (code == 0), done


@pytest.mark.parametrize('keywords', ['*', ':'])
def test_ourselves(signing, martlet, nameserver, keys, keywords):
    """Signed by one Martlet, received by another, over BDAT and over DATA."""
    for name, text in records(keys).items():
        nameserver.add(name, 'TXT', text)
    to = martlet(resolver=nameserver.address, main=f'log_selector = +dkim_verbose\nchunking_advertise_hosts = {keywords}\nacl_smtp_data = check_data',
                 acl='check_data:\n  accept add_header = ${authresults{mx}}\n', acl_rcpt='  accept')
    m = signing(to.port, ['dkim_canon = simple'], 'r2 : ed')
    relay(m, MESSAGE.replace(b'.Hello', b'0123456789\r\n' * 30000 + b'.Hello'))
    wait_for(lambda: '<= u@a.ex' in to.log(), lambda: m.logs() + to.logs())
    assert to.log().count('[verification succeeded]') == 2 and ' DKIM=a.ex' in to.log(), to.log()
    assert (' K ' in to.log()) == (keywords == '*')


def test_not_cut_through(signing, smtp_server):
    """What is signed is seen as a whole first."""
    sink = smtp_server()
    m = signing(sink.port, [], acl_rcpt='  warn control = cutthrough_delivery')
    relay(m)
    wait_for(lambda: sink.messages, m.logs)
    assert b'DKIM-Signature' in sink.messages[0]['data'] and '>> v@relay' not in m.log() and '<= u@a.ex' in m.log()
