"""The examples of docs/tls.md as they stand there; only ports and paths are the tests' own.

Blocks: `main NAME` main options, `rcpt NAME` statements of the RCPT ACL, `client NAME` options of the smtp transport."""
import os
import re
import subprocess

import pytest

from support.databases import Redis
from support.held_tls import Held
from support.martlet import TOP
from support.smtp import Client
from support.util import read, wait_for, write
from test_tls_ocsp import Issuer, asked, stapled

BLOCKS = re.findall(r'^```(main|rcpt|client) (.+)\n((?:.*\n)*?)```$', read(os.path.join(TOP, 'docs', 'tls.md')), re.M)


@pytest.fixture
def example(scratch):
    """example(name, {as written: as here}): keywords for a Martlet with the blocks of that name."""
    def make(name, names):
        found = {}
        for kind, of, text in BLOCKS:
            if of == name:
                for old in sorted(names, key=len, reverse=True):
                    text = text.replace(old, str(names[old]))
                found[{'rcpt': 'acl_rcpt'}.get(kind, kind)] = text
        assert found, name
        files = [re.search(rf'(?m)^{o} = (.*)\n', found.get('main', '')) for o in ('tls_certificate', 'tls_privatekey')]
        if all(files): # the fixture writes these two
            found['main'] = found['main'].replace(files[0][0], '').replace(files[1][0], '')
            found['tls'] = files[0][1], files[1][1]
        return found
    return make


def shown(m, *options, on_connect=False):
    """The subject of the certificate that is shown, with how it was come by."""
    way = [] if on_connect else ['-starttls', 'smtp']
    done = subprocess.run(['openssl', 's_client', '-connect', f'127.0.0.1:{m.port}', *way, *options], input='QUIT\r\n', capture_output=True, text=True,
                          timeout=60)
    return done.stdout + done.stderr


def test_every_block_is_run():
    assert {name for _, name, _ in BLOCKS} == {'certificate', 'two', 'names', 'strict', 'early', 'clients', 'partners', 'ocsp', 'refresh', 'resumption', 'shared'}


def test_certificate(martlet, authority, example):
    cert, key = authority.issue('mx.martlet.test')
    text = example('certificate', {'/etc/martlet/cert.pem': cert, '/etc/martlet/key.pem': key, '465': '@PORT@'})
    m = martlet(**text)
    assert 'subject=CN = mx.martlet.test' in shown(m, on_connect=True), m.logs()
    m = martlet(**{**text, 'main': text['main'].replace('@PORT@', '1')})
    assert 'subject=CN = mx.martlet.test' in shown(m), m.logs()


def test_two_keys(martlet, scratch, example):
    names = {}
    for kind, options in (('rsa', ['rsa:2048']), ('ecdsa', ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'])):
        names[f'/etc/martlet/{kind}.pem'], names[f'/etc/martlet/{kind}.key'] = (os.path.join(scratch, f'{kind}.{x}') for x in ('pem', 'key'))
        subprocess.run(['openssl', 'req', '-x509', '-newkey', *options, '-nodes', '-subj', f'/CN={kind}.test', '-out', f'{scratch}/{kind}.pem',
                        '-keyout', f'{scratch}/{kind}.key'], check=True, capture_output=True)
        os.chmod(f'{scratch}/{kind}.key', 0o644)
    m = martlet(**example('two', names))
    for kind, auth in (('rsa', 'aRSA'), ('ecdsa', 'aECDSA')):
        assert f'subject=CN = {kind}.test' in shown(m, '-tls1_2', '-cipher', auth), m.logs()


def test_names(martlet, authority, scratch, example):
    cert, key = authority.issue('mx.martlet.test')
    other = authority.issue('other.test')
    names = {'/etc/martlet/cert.pem': cert, '/etc/martlet/key.pem': key}
    for name, what in (('certificates', other[0]), ('keys', other[1])):
        names['/etc/martlet/' + name] = write(os.path.join(scratch, name), f'mail.example.org: {what}\n')
    m = martlet(**example('names', names))
    assert 'subject=CN = other.test' in shown(m, '-servername', 'mail.example.org'), m.logs()
    assert 'subject=CN = mx.martlet.test' in shown(m, '-servername', 'else.example.org'), m.logs()


def test_strict(martlet, authority, example):
    m = martlet(tls=authority.issue('mx.martlet.test'), **example('strict', {}))
    assert 'Cipher is ECDHE' in shown(m, '-tls1_2') and 'Cipher is (NONE)' in shown(m, '-tls1_2', '-cipher', 'ECDHE+AES128+SHA256:AES256-GCM-SHA384')
    assert 'X25519' in shown(m, '-tls1_3') and 'Cipher is (NONE)' in shown(m, '-tls1_3', '-groups', 'P-521')


def test_early(martlet, authority, example):
    m = martlet(tls=authority.issue('mx.martlet.test'), **example('early', {'465': '@PORT@'}))
    c = Held(m.port)
    assert c.read().startswith(b'220 ')
    c.finish()
    assert c.say(b'QUIT').startswith(b'221')


def test_clients(martlet, authority, example):
    m = martlet(tls=authority.issue('mx.martlet.test'), relay_to='nothing.test', **example('clients', {'/etc/martlet/our-authority.pem': authority.certificate}))
    for name, code in (('printer.example.org', '250'), ('other.test', '550')):
        cert, key = authority.issue(name)
        process = subprocess.Popen(['openssl', 's_client', '-connect', f'127.0.0.1:{m.port}', '-starttls', 'smtp', '-quiet', '-cert', cert, '-key', key],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        answers = []
        for command, last in (('EHLO client.test', '250 HELP'), ('MAIL FROM:<a@b.test>', '250 OK'), ('RCPT TO:<x@far.test>', '')):
            process.stdin.write(command + '\r\n')
            process.stdin.flush()
            for line in process.stdout:
                answers.append(line)
                if re.match(r'\d{3} ', line) and (line.startswith(last)) and (command[0] != 'E' or 'HELP' in line):
                    break
        process.communicate('QUIT\r\n', timeout=60)
        assert answers[-1].startswith(code), (name, answers, m.logs())
    m.wait_log('relaying for /CN=printer.example.org')


def test_partners(martlet, smtp_server, authority, example):
    """Mail for partners does not go to a host whose certificate is for somebody else; other mail does."""
    s = smtp_server(tls=authority.issue('other.test'))
    text = example('partners', {})
    m = martlet(relay_to='*', smarthost=f'127.0.0.1::{s.port}', client=text['client'] + f'  tls_verify_certificates = {authority.certificate}\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@partner.example')[0] == 250
        assert c.mail('a@b.test', 'y@else.example', hello=False)[0] == 250
    m.wait_log('== x@partner.example .*TLS')
    m.wait_log('=> y@else.example .* CV=no')


def test_ocsp(martlet, scratch, example):
    ca = Issuer(os.path.join(scratch, 'ca'))
    cert, file, key = ca.server('mx.martlet.test')
    os.chmod(key, 0o644)
    proof = ca.proof(cert, os.path.join(scratch, 'proof'))
    m = martlet(**example('ocsp', {'/etc/martlet/cert.pem': file, '/etc/martlet/key.pem': key, '/etc/martlet/cert.ocsp': proof, '/etc/martlet/authority.pem': ca.file}))
    assert stapled(asked(m, ca)), m.logs()


def test_refresh(martlet, scratch, example):
    ca = Issuer(os.path.join(scratch, 'ca'))
    cert, file, key = ca.server('mx.martlet.test')
    os.chmod(key, 0o644)
    d = os.path.join(scratch, 'proofs')
    os.mkdir(d)
    os.chmod(d, 0o777)
    proof = ca.proof(cert, os.path.join(scratch, 'proof'))
    program = write(os.path.join(scratch, 'refresh-proof'), f'#!/bin/sh\ncp {proof} "$1.new" && mv "$1.new" "$1"\n')
    os.chmod(program, 0o755)
    m = martlet(**example('refresh', {'/etc/martlet/cert.pem': file, '/etc/martlet/key.pem': key, '/var/lib/martlet': d, '/etc/martlet/authority.pem': ca.file,
                                      '/etc/martlet/refresh-proof': program}))
    wait_for(lambda: stapled(asked(m, ca)), m.logs)


def test_resumption(martlet, authority, example):
    text = example('resumption', {})
    far = martlet(tls=authority.issue('mx.martlet.test'), main=text['main'], acl_rcpt='  accept')
    m = martlet(smarthost=f'127.0.0.1::{far.port}', client=text['client'] + '  connection_max_messages = 1\n', main=text['main'])
    for i in range(2):
        with Client(m.port) as c:
            assert c.mail('a@b.test', f'x{i}@relay.test')[0] == 250
        m.wait_log(f'=> x{i}@relay.test ')
    far.wait_log(r'<= a@b\.test .* X=\S+\* ')


@pytest.mark.skipif(Redis.program is None, reason='no redis server is installed')
def test_shared(martlet, make, authority, example):
    r = make(Redis)
    m = martlet(tls=authority.issue('mx.martlet.test'), **example('shared', {'6379': r.port}))
    shown(m, '-tls1_2')
    assert len(r.call('KEYS', 'martlet:tickets:*')) in (2, 3)
