"""martlet authcheck: what SPF, DKIM, DMARC and ARC say of a message in a file, for people and for programs."""
import base64
import hashlib
import json
import os
import subprocess

import pytest


pytestmark = [pytest.mark.plain, pytest.mark.root]


@pytest.fixture
def check(martlet, nameserver, tmp_path_factory):
    dkim = pytest.importorskip('dkim')
    pem = tmp_path_factory.mktemp('keys') / 'k'
    subprocess.run(['openssl', 'genpkey', '-out', pem, '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'], check=True, capture_output=True)
    public = subprocess.run(['openssl', 'pkey', '-in', pem, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
    nameserver.add('k._domainkey.a.ex', 'TXT', 'v=DKIM1; p=' + base64.b64encode(public).decode())
    nameserver.add('a.ex', 'TXT', 'v=spf1 ip4:192.0.2.1 -all').add('_dmarc.a.ex', 'TXT', 'v=DMARC1; p=reject')
    text = b'From: u@a.ex\r\nSubject: x\r\n\r\nbody\r\n'
    signed = dkim.sign(text, b'k', b'a.ex', pem.read_bytes(), include_headers=[b'from']) + text
    m = martlet(inside=True, daemon=False, main='dns_retrans = 20s\ndns_retry = 1')

    def run(*args, message=signed, check=True):
        name = os.path.join(m.directory, 'message')
        with open(name, 'wb') as f:
            f.write(message)
        os.chmod(name, 0o644)
        done = subprocess.run(m._command(['-C', m.conf, 'authcheck', *args, name]), capture_output=True, text=True)
        assert not check or done.returncode == 0, done
        return done
    run.resolver = nameserver.address
    run.signed = signed
    run.pem = pem
    return run


def test_good_and_changed(check):
    common = '--ip', '192.0.2.1', '--helo', 'h.ex', '--sender', 'b@a.ex', '--resolver', check.resolver
    text = check(*common).stdout
    assert 'SPF    pass' in text and 'DKIM   pass d=a.ex s=k' in text and 'DMARC  accept (record of a.ex, policy reject, aligned: SPF yes, DKIM yes)' in text
    assert 'ARC    none' in text and 'Authentication-Results: mx.martlet.test;' in text and 'dmarc=pass header.from=a.ex' in text
    # also with LF line ends, and in the other form
    got = json.loads(check(*common, '--json', message=check.signed.replace(b'\r\n', b'\n')).stdout)
    assert (got['spf'], got['dkim'], got['dmarc'], got['arc']) == ('pass', [{'domain': 'a.ex', 'selector': 'k', 'result': 'pass'}], 'accept', 'none')
    got = json.loads(check('--ip', '192.0.2.2', '--sender', 'b@a.ex', '--resolver', check.resolver + ':53', '--json',
                           message=check.signed.replace(b'body', b'Body')).stdout)
    assert got['spf'] == 'fail' and got['dkim'][0]['result'] == 'fail' and got['dmarc'] == 'reject' and got['dmarc_policy'] == 'reject'
    assert 'body hash mismatch' in got['authentication_results']


def test_signature_that_leaves_the_author_out(check):
    """RFC 6376, section 6.1.1: it is not to count; for DMARC it does not."""
    body = base64.b64encode(hashlib.sha256(b'body\r\n').digest()).decode()
    field = f'DKIM-Signature: v=1; a=rsa-sha256; d=a.ex; s=k; h=Subject; bh={body}; b='
    made = subprocess.run(['openssl', 'dgst', '-sha256', '-sign', check.pem], input=f'Subject: x\r\n{field}'.encode(), check=True, capture_output=True).stdout
    message = f'{field}{base64.b64encode(made).decode()}\r\nFrom: u@a.ex\r\nSubject: x\r\n\r\nbody\r\n'.encode()
    got = json.loads(check('--json', '--resolver', check.resolver, message=message).stdout)
    assert got['dkim'][0]['result'] == 'neutral' and got['dmarc'] == 'reject' and got['dmarc_alignment_dkim'] == 'no'
    assert 'dkim=pass header.d=a.ex' in got['authentication_results']


def test_without_a_client(check):
    got = json.loads(check('--json', '--resolver', check.resolver).stdout)
    assert got['dkim'][0]['result'] == 'pass' and got['dmarc'] == 'accept' and got['dmarc_alignment_spf'] == 'no'


@pytest.mark.parametrize('args', [['--ip', 'x'], ['--resolver', 'nowhere'], ['--bogus'], ['one', 'two'], ['--ip']])
def test_wrong_arguments(check, args):
    done = check(*args, check=False)
    assert done.returncode == 1 and 'usage: martlet authcheck' in done.stderr


def test_hostile_message(check):
    got = json.loads(check('--json', '--resolver', check.resolver, message=b'\x00\xff' * 1000 + b'"\\\n\nx').stdout)
    assert got['dkim'] == [] and got['dmarc'] == 'nofrom'


def test_examples_of_the_manual_load(martlet):
    """docs/mail-authentication.md: its configurations are accepted, together."""
    import re
    from support.martlet import TOP
    with open(os.path.join(TOP, 'docs', 'mail-authentication.md')) as f:
        blocks = re.findall(r'```exim\n(.*?)```', f.read(), re.S)
    assert len(blocks) >= 5
    sections = {}
    for block in blocks:
        parts = re.split(r'^begin (\w+)\n', block, flags=re.M)
        for name, text in zip(['main'] + parts[1::2], parts[::2]):
            sections[name] = sections.get(name, '') + text
    rest = ''.join(f'begin {name}\n{sections[name]}\n' for name in ('acl', 'routers', 'transports'))
    m = martlet(daemon=False, configuration=f'spool_directory = @DIR@/spool\nlog_file_path = @DIR@/log/%slog\n{sections["main"]}\n{rest}')
    done = subprocess.run(m._command(['-C', m.conf, '-bP', 'transports']), capture_output=True, text=True)
    assert done.returncode == 0 and 'arc_sign = lists.example.org' in done.stdout and 'dkim_timestamps = 1209600' in done.stdout, done


def test_others_read_the_header(check, nameserver):
    """python3-authres takes the Authentication-Results field apart as it was meant."""
    authres = pytest.importorskip('authres')
    domainkey = b'DomainKey-Signature: a=rsa-sha1; c=nofws; d=a.ex; s=k; b=AAAA\r\n'
    arc = b''.join(b'ARC-%s: i=1; cv=none; a=rsa-sha256; d=a.ex; s=k; h=from; bh=AAAA; b=AAAA\r\n' % k for k in (
        b'Seal', b'Message-Signature', b'Authentication-Results'))
    for ip, message in (('192.0.2.1', check.signed), ('192.0.2.2', domainkey + arc + check.signed), ('2001:db8::1', b'Sender: x@"y;\r\n' + check.signed)):
        got = json.loads(check('--json', '--ip', ip, '--sender', '"a;b c"@a.ex', '--helo', 'h.ex', '--resolver', check.resolver, message=message).stdout)
        parsed = authres.AuthenticationResultsHeader.parse(got['authentication_results'].replace('\n', ' ').replace('\t', ' '))
        assert parsed.authserv_id == 'mx.martlet.test'
        found = {r.method: r for r in parsed.results}
        words = {'accept': 'pass', 'reject': 'fail'}
        assert found['spf'].result == got['spf'] and found['dkim'].result == got['dkim'][0]['result'] == 'pass' and found['dmarc'].result == words[got['dmarc']]
        properties = {(p.type, p.name): p.value for p in found['dkim'].properties}
        assert properties[('header', 'd')] == 'a.ex' and properties[('header', 's')] == 'k'
        if b'ARC-' in message:
            assert found['arc'].result == 'fail' and found['domainkeys'].result == 'fail'


def test_spfquery_agrees(martlet, nameserver):
    """libspf2's tool, for policies that it judges by the RFC."""
    import shutil
    if not shutil.which('spfquery'):
        pytest.skip('spfquery is not installed')
    policies = {'fail': '-all', 'soft': '~all', 'neutral': '?all', 'pass': 'ip4:192.0.2.0/24 -all', 'inc': 'include:pass.ex -all', 'a': 'a:h.ex -all',
                'mx': 'mx:h.ex ~all', 'red': 'redirect=fail.ex', 'exists': 'exists:%{ir}.%{v}.list.ex -all'}
    for name, text in policies.items():
        nameserver.add(f'{name}.ex', 'TXT', 'v=spf1 ' + text)
    nameserver.add('h.ex', 'A', '192.0.2.1').add('h.ex', 'MX', (1, 'h.ex')).add('1.2.0.192.in-addr.list.ex', 'A', '127.0.0.2')
    nameserver.add('nothing.ex', 'A', '192.0.2.5')
    m = martlet(resolver=nameserver.address, daemon=False, main='dns_retrans = 20s\ndns_retry = 1')
    cases = [(ip, f'a-b@{name}.ex') for name in [*policies, 'nothing'] for ip in ('192.0.2.1', '198.51.100.9')]
    got = m.run('-be', input=''.join(f'${{lookup{{{sender}}}spf{{{ip}}}}}\n' for ip, sender in cases), err=False)
    got = [line.removeprefix('> ') for line in got.strip('\n').split('\n')][:len(cases)]
    wanted = []
    for ip, sender in cases:
        done = subprocess.run(m.place.command(['spfquery', '-ip', ip, '-sender', sender, '-helo', 'h.ex']), capture_output=True, text=True, timeout=60)
        wanted.append(done.stdout.split('\n')[0].replace('StartError', 'none'))  # its word where there is no record
    for c, g, w in zip(cases, got, wanted):
        assert g == w, (c, g, w)
    assert len(set(got)) == 5


def test_author_in_letters_of_his_own(check, nameserver):
    """DMARC compares names in their ASCII form, whichever the message, the signature or the envelope use."""
    nameserver.add('_dmarc.xn--bcher-kva.ex', 'TXT', 'v=DMARC1; p=reject').add('xn--bcher-kva.ex', 'TXT', 'v=spf1 ip4:192.0.2.1 -all')
    for author, sender in (('b\u00fccher.ex', 'xn--bcher-kva.ex'), ('xn--bcher-kva.ex', 'B\u00fccher.ex'), ('B\u00dcCHER.ex', 'mail.xn--bcher-kva.ex')):
        nameserver.add('mail.xn--bcher-kva.ex', 'TXT', 'v=spf1 ip4:192.0.2.1 -all') if sender.startswith('mail.') else None
        got = json.loads(check('--json', '--resolver', check.resolver, '--ip', '192.0.2.1', '--sender', f'a@{sender}',
                               message=f'From: u@{author}\r\n\r\nbody\r\n'.encode()).stdout)
        assert (got['dmarc'], got['dmarc_domain'], got['dmarc_alignment_spf']) == ('accept', 'xn--bcher-kva.ex', 'yes'), got
