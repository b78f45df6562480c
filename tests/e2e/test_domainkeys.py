"""DomainKeys (RFC 4870): against Mail::DKIM in both directions, what is wrong with keys and signatures, the policy, the options."""
import base64
import os
import re
import subprocess

import pytest

from support.smtp import Client
from support.util import wait_for

pytestmark = [pytest.mark.plain, pytest.mark.root]

MESSAGE = (b'Received: from a by b;\r\n\tFri, 20 Nov 2026 10:00:00 +0000\r\nFrom: Ann <ann@a.ex>\r\nTo: v@b.ex\r\nSubject: a  test\r\n of folding\r\n'
           b'X-Two: one\r\nX-Two: two\r\n\r\n.Hello,\r\n\r\n  world \t x\r\n.\r\n\r\n\r\n')
ACLS = r"""
check_data:
  defer  message = later
         !dk_status = good : bad : no signature : no key : bad format : non-participant : revoked
  warn   logwrite = dk <$dk_status> <$dk_sender $dk_sender_domain $dk_sender_local_part $dk_sender_source> \
                    <$dk_signsall$dk_testing$dk_is_signed> <$dk_result>
  warn   dk_sender_domains = a.ex
         dk_senders = ann@a.ex
         dk_sender_local_parts = ann
         dk_domain_source = from
         logwrite = it is ann
  warn   dk_policy = signsall
         logwrite = signs all
  accept logwrite = results ${sg{${authresults{us.ex}}}{\N\s+\N}{ }}
"""


@pytest.fixture(scope='module')
def key(tmp_path_factory):
    """(file, text of p=, the private key as an option gives it)"""
    d = tmp_path_factory.mktemp('keys')
    for parent in [d, *d.parents][:3]:
        os.chmod(parent, 0o755) if parent.name.startswith(('pytest', 'keys')) else None
    pem = d / 'k'
    subprocess.run(['openssl', 'genrsa', '-traditional', '-out', pem, '768'], check=True, capture_output=True)
    os.chmod(pem, 0o644)
    public = subprocess.run(['openssl', 'pkey', '-in', pem, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
    return str(pem), base64.b64encode(public).decode(), pem.read_text().replace('\n', r'\n')


def mail_dkim(program, data, **environment):
    done = subprocess.run(['perl', '-e', program], input=data, capture_output=True, env=dict(os.environ, **environment))
    if b"Can't locate Mail" in done.stderr:
        pytest.skip('Mail::DKIM is not installed')
    assert done.returncode == 0, done.stderr
    return done.stdout


def theirs(key, message=MESSAGE, canon='nofws', domain='a.ex'):
    """Signed by Mail::DKIM."""
    return mail_dkim('''use Mail::DKIM::Signer; use Mail::DKIM::DkSignature;
        my $s = Mail::DKIM::Signer->new(KeyFile => $ENV{KEY}, Policy => sub { my $s = shift;
            $s->add_signature(Mail::DKIM::DkSignature->new(Algorithm => "rsa-sha1", Method => $ENV{CANON}, Headers => $s->headers,
                Domain => $ENV{DOMAIN}, Selector => "k", Query => "dns")); 0 });
        local $/; my $text = <STDIN>; $s->PRINT($text); $s->CLOSE; print $s->signature->as_string, "\\r\\n", $text;''',
                     message, KEY=key[0], CANON=canon, DOMAIN=domain)


def judged_by_them(nameserver, data):
    return mail_dkim('''use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS::Resolver;
        my ($ip, $port) = split /:/, $ENV{DNS}; Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => [$ip], port => $port || 53));
        local $/; my $v = Mail::DKIM::Verifier->new; $v->PRINT(<STDIN>); $v->CLOSE;
        print map { ref($_) =~ /DkSignature/ ? "dk " . $_->result_detail . "\\n" : () } $v->signatures;''', data, DNS=nameserver.address).decode()


@pytest.fixture
def receiving(martlet, nameserver, key):
    nameserver.add('k._domainkey.a.ex', 'TXT', f'k=rsa; t=y; p={key[1]}').add('_domainkey.a.ex', 'TXT', 'o=-; r=x@a.ex')
    nameserver.add('_domainkey.quiet.ex', 'TXT', 't=y; o=~')

    def start(rcpt='  warn control = dk_verify\n', **kw):
        return martlet(resolver=nameserver.address, daemon=False, acl=ACLS, acl_rcpt=rcpt,
                       main='acl_smtp_data = check_data\n', **kw)
    return start


def judged(m, *mails):
    """What the log says of each: the parts in <>, and all of it."""
    text = b''.join(b'MAIL FROM:<b@a.ex>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n%s.\r\n' % re.sub(rb'(?m)^\.', b'..', x) for x in mails)
    out = m.run('-odq', '-bs', '-oMa', '192.0.2.1', input=b'EHLO h.ex\r\n' + text + b'QUIT\r\n')
    return [re.findall('<(.*?)>', line) for line in m.log().split('\n') if ' dk <' in line], out


@pytest.mark.parametrize('canon', ['simple', 'nofws'])
def test_signed_by_mail_dkim(receiving, key, canon):
    signed = theirs(key, canon=canon)
    rewrapped = signed.replace(b'a  test\r\n of', b'a test\r\n\tof')
    m = receiving()
    got, _ = judged(m, signed, signed.replace(b'world', b'World'), signed + b'\r\n\r\n', rewrapped, b'X-Above: x\r\n' + signed)
    same = 'good' if canon == 'nofws' else 'bad'
    assert [g[0] for g in got] == ['good', 'bad', 'good', same, 'good'], got
    assert got[0][1:] == ['ann@a.ex a.ex ann from', '011', 'good: 768-bit key, s=k d=a.ex'] and got[1][2] == '111'
    log = m.log()
    assert 'it is ann' in log and 'signs all' in log
    assert 'domainkeys=pass header.from=a.ex' in log and 'domainkeys=fail header.from=a.ex' in log


def test_keys(receiving, nameserver, key):
    m = receiving()
    cases = []
    for name, record, status in [
            ('none', None, 'no key'), ('revoked', 'k=rsa; p=', 'revoked'), ('ed', f'k=ed25519; p={key[1]}', 'bad format'),
            ('other', f'g=bob; p={key[1]}', 'bad format'), ('own', f'g=ann; p={key[1]}', 'good'), ('empty', f'g=; p={key[1]}', 'good'),
            ('junk', 'p=AAAA', 'bad format'), ('text', 'hello', 'bad format')]:
        if record:
            nameserver.add(f'{name}._domainkey.a.ex', 'TXT', record)
        cases.append((theirs(key).replace(b's=k;', b's=%s;' % name.encode()), status))
    got, _ = judged(m, *[text for text, _ in cases])
    assert [g[0] for g in got] == [status for _, status in cases]


def test_trouble_defers(receiving, nameserver, key):
    nameserver.trouble['again._domainkey.a.ex'] = 'SERVFAIL'
    got, out = judged(receiving(), theirs(key).replace(b's=k;', b's=again;'))
    assert got == [] and re.search('^451', out, re.M), out


def test_whose_signature(receiving, key):
    signed = theirs(key)
    outer = theirs(key, signed, domain='other.ex')
    sender = MESSAGE.replace(b'From:', b'Sender: list@quiet.ex\r\nFrom:')
    unsigned = MESSAGE.replace(b'a.ex', b'quiet.ex')
    cases = [
        (outer, 'good', 'ann@a.ex a.ex ann from'), (sender, 'no signature', 'list@quiet.ex quiet.ex list sender'),
        (theirs(key, sender), 'bad format', 'list@quiet.ex quiet.ex list sender'), (unsigned, 'no signature', 'ann@quiet.ex quiet.ex ann from'),
        (MESSAGE.replace(b'ann@a.ex', b'x@nobody.ex'), 'non-participant', 'x@nobody.ex nobody.ex x from'),
        (MESSAGE.replace(b'Ann <ann@a.ex>', b'c@a.ex, d@b.ex'), 'no signature', 'c@a.ex a.ex c from'),
        (re.sub(rb'From:.*\r\n', b'', MESSAGE), 'no signature', '   0'), (re.sub(rb'From:.*\r\n', b'', signed), 'bad format', '   0'),
        (MESSAGE.replace(b'Ann <ann@a.ex>', b'undisclosed:;'), 'no signature', '   0'),
        (b'From: ann@a.ex\r\n' + re.sub(rb'From:.*\r\n', b'', signed), 'bad format', 'ann@a.ex a.ex ann from'),
        (signed.replace(b'rsa-sha1', b'rsa-sha256'), 'bad format', 'ann@a.ex a.ex ann from'),
        (re.sub(rb'ann@a\.ex', b'ann@sub.a.ex', signed), 'bad', 'ann@sub.a.ex sub.a.ex ann from')]
    got, _ = judged(receiving(), *[c[0] for c in cases])
    assert [g[:2] for g in got] == [list(c[1:]) for c in cases]
    assert got[1][2] == '010' and got[3][2] == '010' and got[4][2] == '000'


def test_not_asked(receiving, key):
    m = receiving(rcpt='', allow_panic=None)
    out = m.run('-odq', '-bs', '-oMa', '192.0.2.1', input=b'EHLO h.ex\r\nMAIL FROM:<b@a.ex>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n' + theirs(key) + b'.\r\nQUIT\r\n')
    assert re.search('^451 later', out, re.M) and 'dk <' not in m.log()


def test_wrong_use(martlet, receiving):
    m = martlet(daemon=False, acl='check_data:\n  accept dk_status = fine\n', main='acl_smtp_data = check_data\n')
    assert 'is not a result of "dk_status"' in m.run('-bV', check=False, tool=True).stdout
    m = martlet(daemon=False, acl='check_data:\n  accept control = dk_verify\n', acl_rcpt='  accept', main='acl_smtp_data = check_data\n')
    out = m.run('-odq', '-bs', input=b'EHLO h.ex\r\nMAIL FROM:<b@a.ex>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n\r\n.\r\nQUIT\r\n')
    assert re.search('^451', out, re.M) and 'dk_verify' in m.log()


# ---- signing ----

def signing(martlet, smtp_server, options, **kw):
    sink = smtp_server()
    m = martlet(smarthost=f'127.0.0.1::{sink.port}', relay_from='127.0.0.1', client='\n  '.join(options), arguments=[], **kw)
    return m, sink


def sent(m, sink, message=MESSAGE):
    n = len(sink.messages)
    with Client(m.port) as c:
        assert c.mail('u@a.ex', 'v@relay.test', data=message)[0] == 250
    wait_for(lambda: len(sink.messages) > n, m.logs)
    return sink.messages[n]['data']


@pytest.mark.parametrize('canon', ['simple', 'nofws'])
def test_mail_dkim_verifies(martlet, smtp_server, nameserver, key, canon):
    nameserver.add('k._domainkey.a.ex', 'TXT', f'k=rsa; p={key[1]}')
    m, sink = signing(martlet, smtp_server, [f'dk_canon = {canon}', 'dk_selector = ${if eq{$dk_domain}{a.ex}{k}}', f'dk_private_key = {key[2]}',
                                             'dkim_domain = a.ex', 'dkim_selector = k', f'dkim_private_key = {key[2]}', 'headers_add = X-Added: x'])
    data = sent(m, sink)
    assert judged_by_them(nameserver, data) == 'dk pass\n', data
    assert judged_by_them(nameserver, data + b'\r\n') == 'dk pass\n'
    assert 'dk pass' not in judged_by_them(nameserver, data.replace(b'world', b'World'))
    rewrapped = judged_by_them(nameserver, data.replace(b'a  test\r\n of', b'a test\r\n\tof'))
    assert ('dk pass' in rewrapped) == (canon == 'nofws')
    assert re.match(rb'(?s)DKIM-Signature:.*\nDomainKey-Signature: a=rsa-sha1; q=dns; c=%s; s=k; d=a\.ex;' % canon.encode(), data), data
    assert 'DomainKeys signing is historic' in m.run('-bV')


def signatures(data):
    return len(re.findall(rb'(?m)^DomainKey-Signature:', data))


def test_signed_already(martlet, smtp_server, key):
    m, sink = signing(martlet, smtp_server, ['dk_selector = k', f'dk_private_key = {key[2]}'])
    signed = theirs(key)
    assert signatures(sent(m, sink, signed)) == 1
    assert signatures(sent(m, sink, b'Sender: list@l.ex\r\n' + signed)) == 2
    assert signatures(sent(m, sink, theirs(key, b'Sender: list@l.ex\r\n' + MESSAGE))) == 1


@pytest.mark.parametrize('options', [
    ['dk_selector = k', 'dk_private_key = /nonexistent'], ['dk_selector = k'], ['dk_private_key = /x'],
    ['dk_selector = k', 'dk_private_key = @KEY@', 'dk_canon = relaxed'], ['dk_selector = ${bogus}', 'dk_private_key = @KEY@']])
def test_trouble_with_signing(martlet, smtp_server, key, options):
    options = [o.replace('@KEY@', key[2]) for o in options]
    m, sink = signing(martlet, smtp_server, options, allow_panic='DomainKeys')
    assert b'DomainKey-Signature' not in sent(m, sink) and 'DomainKeys: message could not be signed' in m.log()
    m, sink = signing(martlet, smtp_server, options + ['dk_strict = ${if eq{1}{1}{true}}'], allow_panic='DomainKeys')
    with Client(m.port) as c:
        c.mail('u@a.ex', 'v@relay.test')
    m.wait_log('== v@relay.test')
    assert not sink.messages


def test_not_to_be_signed(martlet, smtp_server):
    m, sink = signing(martlet, smtp_server, ['dk_selector = k', 'dk_private_key = ${if exists{/nonexistent}{x}{0}}', 'dk_strict = true'])
    assert b'DomainKey-Signature' not in sent(m, sink) and 'DomainKeys' not in m.log()
