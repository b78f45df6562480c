"""DKIM: signatures that python3-dkim made, whole and changed, in SMTP sessions; what ACLs see of them."""
import base64
import os
import random
import re
import subprocess

import pytest

pytestmark = [pytest.mark.plain, pytest.mark.root]

ACLS = """
check_dkim:
  accept logwrite = dkim $dkim_cur_signer $dkim_verify_status $dkim_verify_reason $dkim_selector $dkim_algo $dkim_key_length
check_data:
  accept add_header = ${authresults{mx.test}}
         logwrite = overall <$dkim_verify_status> signers <$dkim_signers>
"""
MAIN = """
acl_smtp_dkim = check_dkim
acl_smtp_data = check_data
log_selector = +dkim_verbose
dns_retrans = 20s
dns_retry = 1
"""


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
    """name: (private key for python3-dkim, text of p=)"""
    d, made = tmp_path_factory.mktemp('keys'), {}
    for name, options in {'r2': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], 'r1': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'],
                          'small': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:768'], 'ed': ['-algorithm', 'ed25519']}.items():
        pem = d / name
        subprocess.run(['openssl', 'genpkey', '-out', pem, *options], check=True, capture_output=True)
        public = subprocess.run(['openssl', 'pkey', '-in', pem, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
        private = pem.read_bytes()
        if name == 'ed':
            der = subprocess.run(['openssl', 'pkey', '-in', pem, '-outform', 'DER'], check=True, capture_output=True).stdout
            private, public = base64.b64encode(der[-32:]), public[-32:]
        made[name] = private, base64.b64encode(public).decode()
    return made


def publish(ns, keys):
    for name, (_, p) in keys.items():
        ns.add(f'{name}._domainkey.a.ex', 'TXT', f'v=DKIM1; k={"ed25519" if name == "ed" else "rsa"}; p={p}')
    ns.add('empty._domainkey.a.ex', 'TXT', 'v=DKIM1; p=').add('bad._domainkey.a.ex', 'TXT', 'v=DKIM1; p=!!!')
    ns.add('sha1._domainkey.a.ex', 'TXT', f'v=DKIM1; h=sha1; p={keys["r2"][1]}')
    ns.add('other._domainkey.a.ex', 'TXT', f'v=DKIM1; s=tlsrpt; p={keys["r2"][1]}')
    ns.add('strict._domainkey.a.ex', 'TXT', f'v=DKIM1; t=y:s; n=a note; p={keys["r2"][1]}')
    ns.add('wrong._domainkey.a.ex', 'TXT', f'v=DKIM1; p={keys["r1"][1]}')
    ns.trouble['again._domainkey.a.ex'] = 'SERVFAIL'


@pytest.fixture
def receiving(martlet, nameserver, keys):
    publish(nameserver, keys)
    return lambda **kw: martlet(resolver=nameserver.address, daemon=False, acl=ACLS, main=MAIN + kw.pop('main', ''), **kw)


def sign(keys, message, key='r2', selector=None, canon=(b'relaxed', b'relaxed'), **kw):
    dkim = pytest.importorskip('dkim')
    algorithm = b'ed25519-sha256' if key == 'ed' else b'rsa-sha256'
    return dkim.sign(message, (selector or key).encode(), b'a.ex', keys[key][0], canonicalize=canon, signature_algorithm=algorithm, **kw) + message


MESSAGE = b'From: u@a.ex\r\nTo: v@b.ex\r\nSubject: a  test\r\n of folding\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\nHello,\r\n\r\n  world \r\n\r\n\r\n'


def send(m, *messages):
    text = b''.join(b'MAIL FROM:<u@a.ex>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n' + re.sub(rb'(?m)^\.', b'..', x) + b'.\r\n' for x in messages)
    m.run('-odq', '-bs', '-oMa', '192.0.2.1', input=b'EHLO h.ex\r\n' + text + b'QUIT\r\n')
    return [line.split(' ', 3)[-1] for line in m.log().split('\n')]


@pytest.mark.parametrize('key, canon', [('r2', (b'simple', b'simple')), ('r2', (b'relaxed', b'simple')), ('r2', (b'simple', b'relaxed')),
                                        ('ed', (b'relaxed', b'relaxed')), ('r1', (b'relaxed', b'relaxed'))])
def test_good(receiving, keys, key, canon):
    m = receiving()
    log = '\n'.join(send(m, sign(keys, MESSAGE, key, canon=canon, identity=b'@sub.a.ex')))
    algorithm = 'ed25519-sha256' if key == 'ed' else 'rsa-sha256'
    assert f'dkim a.ex pass  {key} {algorithm} ' in log and 'dkim @sub.a.ex pass' in log
    assert 'overall <pass:pass> signers <a.ex:@sub.a.ex>' in log and ' DKIM=a.ex' in log
    assert re.search(rf'DKIM: d=a.ex s={key} c=.* i=@sub.a.ex .*\[verification succeeded\]', log)
    ident = re.search(r'(\S+) <= ', m.log()).group(1)
    assert re.search(rf'dkim=pass header.d=a.ex header.i=@sub.a.ex header.s={key} header.a={algorithm}', m.run('-Mvh', ident))


@pytest.mark.parametrize('change, log', [
    (lambda x: x.replace(b'world', b'World'), 'dkim a.ex fail bodyhash_mismatch'),
    (lambda x: x.replace(b'a  test', b'a  Test'), 'dkim a.ex fail signature_incorrect'),
    (lambda x: x.replace(b's=r2', b's=r1'), 'dkim a.ex fail signature_incorrect'),
    (lambda x: x.replace(b's=r2', b's=no'), 'dkim a.ex invalid pubkey_unavailable'),
    (lambda x: x.replace(b's=r2', b's=again'), 'dkim a.ex invalid pubkey_unavailable'),
    (lambda x: x.replace(b's=r2', b's=empty'), 'dkim a.ex invalid pubkey_syntax'),
    (lambda x: x.replace(b's=r2', b's=bad'), 'dkim a.ex invalid pubkey_syntax'),
    (lambda x: x.replace(b'v=1', b'v=2'), 'dkim a.ex invalid'),
    (lambda x: x.replace(b'd=a.ex', b'd=b.ex'), 'dkim b.ex invalid'),
    (lambda x: x.replace(b'DKIM-Signature:', b'DKIM-Signature: v=1;'), 'overall <>'),
    (lambda x: x.replace(b'\r\n\r\nHello', b'\r\nX-New: unsigned\r\n\r\nHello'), 'dkim a.ex pass'),
    (lambda x: x.replace(b'\r\n\r\nHello', b'\r\nFrom: second@a.ex\r\n\r\nHello'), 'dkim a.ex fail signature_incorrect'),
])
def test_changed(receiving, keys, change, log):
    signed = sign(keys, MESSAGE)
    changed = change(signed)
    assert changed != signed
    assert log in '\n'.join(send(receiving(), changed))


@pytest.mark.parametrize('selector, log', [
    ('sha1', 'dkim a.ex fail '), ('other', 'dkim a.ex fail '), ('strict', 'dkim a.ex pass'), ('wrong', 'dkim a.ex fail signature_incorrect')])
def test_keys(receiving, keys, selector, log):
    assert log in '\n'.join(send(receiving(), sign(keys, MESSAGE, selector=selector)))


def test_policies(receiving, keys):
    small = sign(keys, MESSAGE, 'small')
    assert 'dkim a.ex fail pubkey_too_short' in '\n'.join(send(receiving(), small))
    assert 'dkim a.ex pass' in '\n'.join(send(receiving(main='dkim_verify_min_keysizes = rsa=512'), small))
    two = sign(keys, sign(keys, MESSAGE, 'ed'), 'r2')
    log = '\n'.join(send(receiving(main='dkim_verify_keytypes = rsa'), two))
    assert 'overall <pass:pass>' in log and 's=ed' not in log
    log = '\n'.join(send(receiving(main='dkim_verify_signers = b.ex : $dkim_signers : a.ex'), two))
    assert 'overall <none:pass:pass:pass:pass>' in log
    assert 'overall <pass:pass>' in '\n'.join(send(receiving(main='dkim_verify_minimal'), two))


def test_acl_decides(receiving, keys):
    acl = ACLS.replace('check_dkim:', """check_dkim:
  deny   dkim_status = fail : invalid
         message = $dkim_cur_signer: $dkim_verify_reason
  warn   dkim_signers = a.ex
         condition = ${if eq{$dkim_selector}{strict}}
         set dkim_verify_status = fail
         set dkim_verify_reason = only testing: $dkim_key_testing$dkim_key_nosubdomains $dkim_key_notes
""").replace('accept add_header', 'deny dkim_status = fail\n         message = overall\n  accept add_header')
    m = receiving(main='dkim_verify_signers = a.ex')
    with open(m.conf) as f:
        text = f.read().replace(ACLS.strip(), acl.strip())
    with open(m.conf, 'w') as f:
        f.write(text)
    bad, strict = sign(keys, MESSAGE).replace(b'world', b'World'), sign(keys, MESSAGE, selector='strict')
    log = '\n'.join(send(m, bad, strict, sign(keys, MESSAGE)))
    assert re.search(r'rejected DKIM : a\.ex: bodyhash_mismatch', log) and re.search(r'rejected after DATA: overall', log)
    assert '[fail - only testing: 11 a note]' in log and log.count('<= ') == 1


def test_results_cannot_be_forged(receiving, keys):
    """An algorithm that is none, with words of the sender's choice, is one value in the header that we make."""
    forged = sign(keys, MESSAGE).replace(b'a=rsa-sha256', b'a=x header.d=bank.ex (')
    m = receiving()
    send(m, forged)
    header = m.run('-Mvh', re.search(r'(\S+) <= ', m.log()).group(1))
    assert 'header.a="x header.d=bank.ex ("' in header


def test_many_signatures(receiving, keys):
    one = sign(keys, MESSAGE)[:-len(MESSAGE)]
    log = '\n'.join(send(receiving(), one * 1000 + MESSAGE, one * 20 + MESSAGE))
    assert 'EXCESS_SIGS' in log and log.count('<= ') == 2 and log.count('dkim a.ex pass') == 20


def generated(r):
    """A message with odd white space, and one that is nearly the same."""
    spaces = [b' ', b'  ', b'\t', b' \t ', b'']
    fields = [b'From: u@a.ex', b'Subject:' + r.choice(spaces) + b'a' + r.choice(spaces[:4]) + b'b', b'X-Y:' + r.choice(spaces) + b'z' + r.choice(spaces),
              b'To: v@b.ex,\r\n' + r.choice(spaces[:4]) + b'w@b.ex', b'subject: another']
    body = b''.join(r.choice([b'', b'', b'line', b' ', b'\t', b'a  b', b'.dot', b'trailing ', b'\xc3\xa9', b'x' * 1200]) + b'\r\n' for _ in range(r.randrange(0, 9)))
    message = b'\r\n'.join(fields) + b'\r\n\r\n' + body
    at = r.randrange(len(message))
    return message, r.choice([lambda x: x, lambda x: x, lambda x: x.replace(b'a', b'A', 1), lambda x: x + b'\r\n', lambda x: x + b' \r\n', lambda x: x + b'y\r\n',
                              lambda x: x.replace(b'  ', b' '), lambda x: x.replace(b'\t', b' '), lambda x: x.replace(b'\r\n\r\n', b'\r\n\r\n\r\n', 1)]), at


# MARTLET_DIFFERENCES: how many messages, beside SPF policies (docs/internals/mailauth.md)
@pytest.mark.parametrize('seed', range(max(3, int(os.environ.get('MARTLET_DIFFERENCES', 0)) // 60)))
def test_against_python_dkim(receiving, nameserver, keys, seed):
    dkim = pytest.importorskip('dkim')
    r, messages = random.Random(seed), []

    def txt(name, timeout=5):
        found = nameserver.records.get((name.decode().rstrip('.').lower(), 'TXT'))
        return found[0].encode() if found else None
    for _ in range(60):
        message, change, _ = generated(r)
        canon = r.choice([b'simple', b'relaxed']), r.choice([b'simple', b'relaxed'])
        messages.append(change(sign(keys, message, r.choice(['r2', 'ed']), canon=canon, length=r.random() < 0.2)))
    wanted = ['pass' if dkim.verify(x, dnsfunc=txt) else 'fail' for x in messages]
    got = [line.split()[2] for line in send(receiving(), *messages) if line.startswith('dkim a.ex ')]
    assert 'fail' in wanted and 'pass' in wanted
    assert [(w, g, x) for w, g, x in zip(wanted, got, messages) if w != g] == [] and len(got) == len(messages)
