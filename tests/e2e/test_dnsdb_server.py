"""dnsdb against a real authoritative server: all types, modifiers, long answers, and a server in trouble.

What test_answers expects is what Debian's Exim says about the same zones."""
import re
import signal

import pytest

from support.nameservers import Nsd
from support.smtp import Client
from support.util import wait_for

pytestmark = [pytest.mark.plain, pytest.mark.root,
              pytest.mark.skipif(Nsd.program is None, reason='no authoritative name server is installed')]

HEAD = '''$ORIGIN {origin}
$TTL 0
@ SOA ns1.zone.test. host.zone.test. 7 3600 600 86400 0
@ NS ns1.zone.test.
@ NS ns2.zone.test.
'''
BIG = [f'{i:03}' + 'x' * 252 for i in range(200)]
MANY = [f'10.{i // 250}.{i % 250}.1' for i in range(3000)]
ZONE = HEAD.format(origin='zone.test.') + '''
ns1 A 10.0.0.53
ns2 A 10.0.0.54
h A 10.0.0.1
h A 10.0.0.2
h AAAA 2001:db8::1
h MX 10 m1
h MX 20 m2.other.test.
h TXT "first string, " "second;" "third"
one TXT "only" " one"
odd TXT "say \\"hi\\" \\\\ \\;" "\\195\\169"
four A 10.0.0.4
six AAAA 2001:db8::6
spf TXT "v=spf1 " "-all"
spf TYPE99 \\# 14 06 763d73706631 06 202d616c6c21
null MX 0 .
alias CNAME alias2
alias2 CNAME h
away CNAME h.second.test.
loop1 CNAME loop2
loop2 CNAME loop1
alias4 CNAME four
dangling CNAME nothing
_smtp._tcp SRV 1 2 2525 h
_25._tcp.h TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
*.wild TXT "any"
child NS ns1.child
ns1.child A 10.0.0.55
deep.er A 10.0.0.9
_client._smtp.yes SRV 1 2 0 h
_client._smtp.no SRV 1 1 0 h
_client._smtp.only SRV 1 3 1 h
only A 10.0.0.7
_client._smtp.mid.dle SRV 1 3 1 h
*.mid.dle A 10.0.0.3
big TXT ''' + ' '.join(f'"{s}"' for s in BIG) + ''.join(f'\nmany A {a}' for a in MANY) + '\n'
SECOND = HEAD.format(origin='second.test.') + 'h A 10.2.0.1\n'
V4 = HEAD.format(origin='0.0.10.in-addr.arpa.') + '1 PTR h.zone.test.\n4 PTR four.zone.test.\n4 PTR x.zone.test.\n'
V6 = HEAD.format(origin='8.b.d.0.1.0.0.2.ip6.arpa.') + f'{"0." * 23}0 PTR none.zone.test.\n6.{"0." * 22}0 PTR six.zone.test.\n'
ZONES = {'zone.test': ZONE, 'second.test': SECOND, '0.0.10.in-addr.arpa': V4, '8.b.d.0.1.0.0.2.ip6.arpa': V6, 'broken.test': None}

# Query, and the value; NO: not found.
CASES = [
    ('a=h.zone.test', '10.0.0.1\n10.0.0.2'),
    ('aaaa=h.zone.test', '2001:db8::1'),
    ('a+=h.zone.test', '2001:db8::1\n10.0.0.1\n10.0.0.2'),
    ('>; a+=four.zone.test:six.zone.test', '10.0.0.4;2001:db8::6'),
    ('a=six.zone.test', 'NO'),
    ('mx=h.zone.test', '10 m1.zone.test\n20 m2.other.test'),
    ('>:,/ mx=h.zone.test', '10/m1.zone.test:20/m2.other.test'),
    ('>: mxh=h.zone.test', 'm1.zone.test:m2.other.test'),
    ('mx=null.zone.test', '0 '),
    ('mxh=null.zone.test', 'NO'),
    ('mx=alias.zone.test', '10 m1.zone.test\n20 m2.other.test'),
    ('txt=h.zone.test', 'first string, '),
    ('h.zone.test', 'first string, '),
    ('>|; txt=h.zone.test', 'first string, second;third'),
    ('>|,+ txt=h.zone.test', 'first string, +second;+third'),
    ('>|; txt=h.zone.test:one.zone.test', 'first string, second;third|only one'),
    ('>  txt=one.zone.test:h.zone.test', 'only first string, '),
    ('>x; txt=odd.zone.test', 'say "hi" \\ ;é'),
    ('txt=x.y.wild.zone.test', 'any'),
    ('txt=wild.zone.test', 'NO'),
    ('spf=spf.zone.test', 'v=spf1 -all!'),
    ('txt=spf.zone.test', 'v=spf1 '),
    ('spf=h.zone.test', 'NO'),
    ('cname=alias.zone.test', 'alias2.zone.test'),
    ('cname=h.zone.test', 'NO'),
    ('a=alias.zone.test', '10.0.0.1\n10.0.0.2'),
    ('a=away.zone.test', '10.2.0.1'),
    ('a=dangling.zone.test', 'NO'),
    ('srv=_smtp._tcp.zone.test', '1 2 2525 h.zone.test'),
    ('>;,/srv=_smtp._tcp.zone.test', '1/2/2525/h.zone.test'),
    ('tlsa=_25._tcp.h.zone.test', '3 1 1 ' + '0123456789abcdef' * 4),
    ('ptr=10.0.0.1', 'h.zone.test'),
    ('>, ptr=10.0.0.4', 'four.zone.test,x.zone.test'),
    ('ptr=2001:db8::6', 'six.zone.test'),
    ('>,ptr=<; 2001:db8::6 ; 10.0.0.1', 'six.zone.test,h.zone.test'),
    ('ptr=1.0.0.10.in-addr.arpa', 'h.zone.test'),
    ('ptr=10.0.0.77', 'NO'),
    ('ns=zone.test', 'ns1.zone.test\nns2.zone.test'),
    ('ns=h.zone.test', 'NO'),
    ('>: zns=deep.er.zone.test', 'ns1.zone.test:ns2.zone.test'),
    ('>: zns=a.b.c.none.zone.test', 'ns1.zone.test:ns2.zone.test'),
    ('soa=zone.test', 'ns1.zone.test'),
    ('soa=x.deep.er.zone.test', 'ns1.zone.test'),
    ('>:,; soa=h.zone.test', 'ns1.zone.test;host.zone.test;7;3600;600;86400;0'),
    ('csa=yes.zone.test', 'Y h.zone.test'),
    ('csa=no.zone.test', 'N h.zone.test'),
    ('csa=only.zone.test', '? h.zone.test'),
    ('csa=sub.mid.dle.zone.test', 'X h.zone.test'),
    ('csa=x.h.zone.test', 'NO'),
    ('a=none.zone.test', 'NO'),
    ('a=none.zone.test:h.second.test', '10.2.0.1'),
    ('>,a=<;h.zone.test;none.zone.test;h.second.test', '10.0.0.1,10.0.0.2,10.2.0.1'),
    ('a=h.zone.test.', '10.0.0.1\n10.0.0.2'),
    ('A = H.Zone.Test', '10.0.0.1\n10.0.0.2'),
    ('dnssec_never,a=h.second.test', '10.2.0.1'),
    ('dnssec_lax,a=h.second.test', '10.2.0.1'),
    ('defer_never,a=h.broken.test', 'NO'),
    ('defer_lax,a=h.broken.test:h.second.test', '10.2.0.1'),
    ('defer_never,a=refused.example', 'NO'),
    ('retrans_10s,retry_3,a=h.second.test', '10.2.0.1'),
    # By TCP.
    ('>!;txt=big.zone.test', ''.join(BIG)),
    ('>,a=many.zone.test', ','.join(MANY)),
]

ERRORS = [
    ('a=h.broken.test', 'DNS lookup failed temporarily'),
    ('defer_lax,a=h.broken.test:none.zone.test', 'DNS lookup failed temporarily'),
    ('defer_strict,a=h.second.test:h.broken.test', 'DNS lookup of \\"h.broken.test\\" failed temporarily'),
    ('a=refused.example', 'DNS lookup failed temporarily'),
    ('dnssec_strict,a=h.second.test', 'DNS lookup failed temporarily'),
    ('defer_strict,dnssec_strict,a=h.second.test', 'DNS lookup of \\"h.second.test\\" failed temporarily'),
    ('hinfo=h.zone.test', 'unsupported DNS record type'),
]
OPTIONS = 'dns_retrans = 5s\ndns_retry = 4'


def text_of(query):
    return f'${{lookup dnsdb{{{query}}}{{$value}}{{NO}}}}'


def says(c, query, answer):
    """Time-outs are short here: on a machine that has much else to do a question may have to be asked again."""
    wait_for(lambda: c.ask(query) == answer, f'{query} to be {answer}')


@pytest.mark.parametrize('edns', ['dns_use_edns0 = 0', 'dns_use_edns0 = 1'], ids=['plain', 'edns'])
def test_answers(martlet, make, edns):
    ns = make(Nsd, ZONES)
    m = martlet(resolver=ns.address, main=f'{OPTIONS}\n{edns}', daemon=False)
    out = m.run('-be', input=''.join(f'<{text_of(q)}>\n' for q, _ in CASES), err=False)
    got = re.findall(r'(?ms)^> <(.*?)>\n(?=> |\Z)', out)
    assert len(got) == len(CASES), out
    wrong = [(q, have[:200], want[:200]) for (q, want), have in zip(CASES, got) if have != want.encode().decode('latin-1')]
    assert not wrong, 'query, got, expected: ' + '\n'.join(map(repr, wrong))


def test_errors(martlet, make):
    ns = make(Nsd, ZONES)
    m = martlet(resolver=ns.address, main=OPTIONS, daemon=False)
    out = m.run('-be', *(text_of(q) for q, _ in ERRORS), err=False)
    assert out[:-1].split('\n') == [f'Failed: lookup of "{q}" gave DEFER: "{text}"' for q, text in ERRORS]


def test_chains_of_aliases(martlet, make):
    """The server follows those that stay in its zones; dns_cname_loops says how often we do."""
    ns = make(Nsd, ZONES)
    for loops in 0, 1, 9:
        m = martlet(resolver=ns.address, main=f'{OPTIONS}\ndns_cname_loops = {loops}', daemon=False)
        out = m.run('-be', *(text_of(f'aaaa={x}.zone.test') for x in ('loop1', 'alias', 'alias4', 'dangling')))
        assert ('CNAME loop for alias4.zone.test encountered' in out) == (loops == 0), loops
        assert 'CNAME loop for loop1.zone.test encountered' in out and out.endswith('\nNO\n'), loops
        assert 'lookup of "aaaa=loop1.zone.test" gave DEFER' in out and '\n2001:db8::1\n' in out


def test_changes_and_death(martlet, make, talk):
    """A server that stands still, goes on, is restarted with other records, dies and comes back."""
    ns = make(Nsd, ZONES)
    c = talk(martlet(resolver=ns.address, main='dns_retrans = 1s\ndns_retry = 1', daemon=False))
    one = text_of('a=h.second.test')
    says(c, one, '10.2.0.1')
    ns.freeze()
    assert 'gave DEFER' in c.ask(one)
    ns.thaw()
    says(c, one, '10.2.0.1')
    ns.change(second__test=SECOND.replace('10.2.0.1', '10.2.0.2') + 'new A 10.2.0.3\n')
    says(c, one, '10.2.0.2')
    says(c, text_of('a=new.second.test'), '10.2.0.3')
    for _ in range(2):
        ns.stop(signal.SIGKILL)
        assert 'gave DEFER' in c.ask(one)
        ns.start()
        says(c, one, '10.2.0.2')


def test_what_is_remembered(martlet, make, talk):
    """For as long as the TTL says, that something is not there included."""
    lasting = SECOND.replace('$TTL 0', '$TTL 3600').replace(' 86400 0', ' 86400 3600')
    ns = make(Nsd, {'second.test': lasting})
    c = talk(martlet(resolver=ns.address, main='dns_retrans = 1s\ndns_retry = 1', daemon=False))
    there, not_there = text_of('a=h.second.test'), text_of('a=none.second.test')
    says(c, there, '10.2.0.1')
    says(c, not_there, 'NO')
    ns.stop(signal.SIGKILL)
    assert c.ask(there) == '10.2.0.1' and c.ask(not_there) == 'NO'
    assert 'gave DEFER' in c.ask(text_of('a=other.second.test'))


def test_in_the_daemon(martlet, make):
    """While the server stands still, a session that asks waits alone."""
    ns = make(Nsd, ZONES)
    m = martlet(resolver=ns.address, main='dns_retrans = 5s\ndns_retry = 5', arguments=[], acl_rcpt='''
  accept local_parts = u5
         condition = ${if eq{${lookup dnsdb{a=h.second.test}}}{10.2.0.1}}
''')
    with Client(m.port) as slow, Client(m.port) as c:
        for x in (slow, c):
            x.ehlo()
            x.expect(250, 'MAIL FROM:<a@b.test>')
        slow.expect(250, 'RCPT TO:<u5@local.test>')
        ns.freeze()
        slow.send(b'RCPT TO:<u5@local.test>\r\n')
        for i in range(5):
            c.expect(250, f'RCPT TO:<u{i}@local.test>')
        ns.thaw()
        assert slow.reply()[0] == 250
        ns.stop(signal.SIGKILL)
        assert slow.cmd('RCPT TO:<u5@local.test>')[0] == 451
        c.expect(250, 'RCPT TO:<u6@local.test>')
