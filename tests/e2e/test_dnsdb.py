"""dnsdb against a name server: what Debian's Exim (4.96) says about the same zone."""
import re

import pytest

pytestmark = [pytest.mark.plain, pytest.mark.root]

# Query, "<result>" and $lookup_dnssec_authenticated; NO: not found.
CASES = [
    ('a=h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('A = h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('aaaa=h.ex', '<2001:db8::1>no'),
    ('a+=h.ex', '<2001:db8::1\n10.0.0.1\n10.0.0.2>no'),
    ('>;a+=h.ex', '<2001:db8::1;10.0.0.1;10.0.0.2>no'),
    ('>; a+=v6.ex', '<2001:db8::5>no'),
    ('mx=h.ex', '<10 m1.ex\n20 m2.ex>no'),
    ('mxh=h.ex', '<m1.ex\nm2.ex>no'),
    ('>:mxh=h.ex', '<m1.ex:m2.ex>no'),
    ('>:,/ mx=h.ex', '<10/m1.ex:20/m2.ex>no'),
    ('>: mx=h.ex', '<10 m1.ex:20 m2.ex>no'),
    ('>  mx=h.ex', '<10 m1.ex 20 m2.ex>no'),
    ('txt=h.ex', '<one\nshort>no'),
    ('>|,/ txt=h.ex', '<one/two|short>no'),
    ('>|; txt=h.ex', '<onetwo|short>no'),
    ('>\\n,: txt=h.ex', '<one:two\nshort>no'),
    ('h.ex', '<one\nshort>no'),
    ('spf=t.ex', '<NO>no'),
    ('txt=t.ex', '<v=spf1 \nother text>no'),
    ('>!;txt=t.ex', '<v=spf1 -all!other text>no'),
    ('cname=c.ex', '<h.ex>no'),
    ('cname=h.ex', '<NO>no'),
    ('a=c.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('ns=ex', '<ns1.ex\nns2.ex>no'),
    ('ns=h.ex', '<NO>no'),
    ('zns=sub.h.ex', '<ns1.ex\nns2.ex>no'),
    ('zns=sub.none.ex', '<ns1.ex\nns2.ex>no'),
    ('zns=a.b.nope', '<NO>no'),
    ('soa=sub.h.ex', '<ns1.ex>no'),
    ('>:,; soa=sub.h.ex', '<ns1.ex;host.ex;1;2;3;4;5>no'),
    ('>:,/ soa=ex', '<ns1.ex/host.ex/1/2/3/4/5>no'),
    ('soa=nope', '<NO>no'),
    ('srv=_smtp._tcp.ex', '<1 2 25 h.ex>no'),
    ('>:,- srv=_smtp._tcp.ex', '<1-2-25-h.ex>no'),
    ('tlsa=_25._tcp.h.ex', '<3 1 1 abcdef>no'),
    ('>:,- tlsa=_25._tcp.h.ex', '<3-1-1-abcdef>no'),
    ('ptr=10.0.0.1', '<h.ex>no'),
    ('ptr=10.0.0.2', '<x.ex\ny.ex>no'),
    ('ptr=2001:db8::5', '<v6.ex>no'),
    ('ptr=<;2001:db8::5;10.0.0.1', '<v6.ex\nh.ex>no'),
    ('ptr=1.0.0.10.in-addr.arpa', '<h.ex>no'),
    ('ptr=10.0.0.1:10.0.0.2', '<h.ex\nx.ex\ny.ex>no'),
    ('ptr=[10.0.0.1]', '<NO>no'),
    ('a=h.ex:sub.h.ex:none.ex', '<10.0.0.1\n10.0.0.2\n10.9.9.9>no'),
    ('a=none.ex', '<NO>no'),
    ('>,a=<;h.ex;sub.h.ex', '<10.0.0.1,10.0.0.2,10.9.9.9>no'),
    ('csa=csa.ex', '<Y h.ex>no'),
    ('csa=csan.ex', '<N h.ex>no'),
    ('csa=csaq.ex', '<? h.ex>no'),
    ('csa=csap.ex', '<Y h.ex>no'),
    ('csa=csaw.ex', '<NO>no'),
    ('csa=csax.ex', '<NO>no'),
    ('csa=sub.csa.ex', '<NO>no'),
    ('>:,/csa=csa.ex', '<Y h.ex>no'),
    ('defer_never,a=again.ex', '<NO>no'),
    ('defer_lax,a=again.ex:h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('dnssec_lax,a=h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('dnssec_never,a=h.ex', '<10.0.0.1\n10.0.0.2>'),
    ('dnssec_never,defer_never,a=again.ex', '<NO>'),
    ('retrans_30s,retry_1,a=h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('retrans_30s, retry_1 , a=h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('retry_0,a=h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('a=', '<NO>no'),
    ('>', '<NO>no'),
    ('>:', '<NO>no'),
    ('txt=empty.ex', '<NO>no'),
    ('txt=one.ex', '<a b>no'),
    ('>x txt=h.ex:one.ex', '<onexshortxa b>no'),
    ('DEFER_NEVER,a=again.ex', '<NO>no'),
    ('a =h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('a=h.ex.', '<10.0.0.1\n10.0.0.2>no'),
    ('a= h.ex : sub.h.ex', '<10.0.0.1\n10.0.0.2\n10.9.9.9>no'),
    ('a=bad name.ex', '<NO>no'),
    ('a=-bad.ex', '<NO>no'),
    ('mx=c.ex', '<10 m1.ex\n20 m2.ex>no'),
    (' a=h.ex', '<10.0.0.1\n10.0.0.2>no'),
    ('>, mx=h.ex:none.ex:h.ex', '<10 m1.ex,20 m2.ex,10 m1.ex,20 m2.ex>no'),
]

ERRORS = [
    ('a=again.ex', 'DNS lookup failed temporarily'),
    ('defer_lax,a=again.ex', 'DNS lookup failed temporarily'),
    ('defer_strict,a=again.ex:h.ex', 'DNS lookup of \\"again.ex\\" failed temporarily'),
    ('defer_strict,a=h.ex:again.ex', 'DNS lookup of \\"again.ex\\" failed temporarily'),
    ('dnssec_strict,a=h.ex', 'DNS lookup failed temporarily'),
    ('retry_x,a=h.ex', 'dnsdb modifier syntax error'),
    ('retrans_,a=h.ex', 'unsupported dnsdb timeout value'),
    ('defer_foo,a=h.ex', 'unsupported dnsdb defer behaviour'),
    ('dnssec_foo,a=h.ex', 'unsupported dnsdb dnssec behaviour'),
    ('foo_bar,a=h.ex', 'unsupported DNS record type'),
    ('xyz=h.ex', 'unsupported DNS record type'),
    ('addresses=h.ex', 'unsupported DNS record type'),
]


def fill(ns):
    ns.host('v6.ex', '2001:db8::5')
    ns.add('h.ex', 'A', '10.0.0.1', '10.0.0.2').add('h.ex', 'AAAA', '2001:db8::1').add('h.ex', 'MX', (10, 'm1.ex'), (20, 'm2.ex'))
    ns.add('h.ex', 'TXT', ['one', 'two'], 'short').add('t.ex', 'TXT', ['v=spf1 ', '-all'], 'other text')
    ns.add('one.ex', 'TXT', ['a b', 'c']).add('empty.ex', 'TXT', ['']).add('c.ex', 'CNAME', 'h.ex').add('sub.h.ex', 'A', '10.9.9.9')
    ns.add('ex', 'NS', 'ns1.ex', 'ns2.ex').add('ex', 'SOA', ('ns1.ex', 'host.ex', 1, 2, 3, 4, 5))
    ns.add('_smtp._tcp.ex', 'SRV', (1, 2, 25, 'h.ex')).add('_25._tcp.h.ex', 'TLSA', bytes([3, 1, 1, 0xab, 0xcd, 0xef]))
    ns.add('1.0.0.10.in-addr.arpa', 'PTR', 'h.ex').add('2.0.0.10.in-addr.arpa', 'PTR', 'x.ex', 'y.ex')
    for name, weight, port in (('csa', 2, 0), ('csan', 1, 0), ('csaq', 3, 0), ('csap', 2, 1)):
        ns.add(f'_client._smtp.{name}.ex', 'SRV', (1, weight, port, 'h.ex'))
    ns.add('csaw.ex', 'A', '1.2.3.4').add('_client._smtp.csax.ex', 'SRV', (2, 2, 0, 'h.ex'))
    ns.trouble.update({'again.ex': 'SERVFAIL', 'ref.ex': 'REFUSED'})


@pytest.fixture
def asking(martlet, nameserver):
    fill(nameserver)
    return martlet(resolver=nameserver.address, daemon=False)


def test_answers(asking):
    text = ''.join(f'${{lookup dnsdb{{{q}}}{{<$value>}}{{<NO>}}}}$lookup_dnssec_authenticated\n\n' for q, _ in CASES)
    out = asking.run('-be', input=text, err=False)
    got = re.split(r'\n> \n> |^> ', out)[1:]
    assert got.pop().strip() == '' and len(got) == len(CASES), out
    for (query, want), have in zip(CASES, got):
        assert have.strip() == want, query


def test_errors(asking):
    out = asking.run('-be', *(f'${{lookup dnsdb{{{q}}}}}' for q, _ in ERRORS), err=False)
    assert out[:-1].split('\n') == [f'Failed: lookup of "{q}" gave DEFER: "{text}"' for q, text in ERRORS]
