"""What each dns_… option does to the questions that are asked and the answers that are believed; and answers that lie."""
import struct

import pytest

from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def asks(martlet, nameserver, talk):
    """asks(main options): evaluates strings in one process; .raw holds the questions as they came."""
    nameserver.raw = []
    answer = nameserver.answer

    def record(data, limit):
        nameserver.raw.append(data)
        return answer(data, limit)

    nameserver.answer = record

    def start(main='', **kw):
        if 'dns_retrans' not in main:
            main += 'dns_retrans = 20s\n'  # no answer of a busy machine is missed
        return talk(martlet(resolver=nameserver.address, main=main, daemon=False, **kw))
    return start


def text_of(query):
    return f'${{lookup dnsdb{{{query}}}{{$value}}{{NO}}}}'


def asked(nameserver, kind=None):
    return [name for name, k in nameserver.queries if kind in (None, k)]


def test_again_means_nonexist(asks, nameserver):
    for n in ('x.again.test', 'x.other.test', '_25._tcp.x.again.test'):
        nameserver.trouble[n] = 'SERVFAIL'
    c = asks('dns_again_means_nonexist = *.again.test\n')
    assert c.ask(text_of('a=x.again.test')) == 'NO'
    assert 'DEFER' in c.ask(text_of('a=x.other.test'))
    assert 'DEFER' in c.ask(text_of('tlsa=_25._tcp.x.again.test'))  # a record that cannot be had must not seem absent
    assert 'DEFER' in asks().ask(text_of('a=x.again.test'))


def test_check_names_pattern(asks, nameserver):
    nameserver.add('odd=name.test', 'A', '10.0.0.1').add('odd=name.test', 'TXT', 'text')
    c = asks()
    assert c.ask(text_of('a=odd=name.test')) == 'NO' and not asked(nameserver, 'A')
    assert c.ask(text_of('txt=odd=name.test')) == 'text'  # TXT and PTR are not checked
    assert asks('dns_check_names_pattern =\n').ask(text_of('a=odd=name.test')) == '10.0.0.1'


def test_cname_loops(asks, nameserver):
    """A server that does not follow CNAMEs."""
    nameserver.lookup = lambda name, kind: (0, [(name, 'CNAME', f'c{int(name[1]) - 1}.test')] if name != 'c0.test' else [(name, 'A', '10.0.0.1')])
    c = asks()
    assert c.ask(text_of('a=c1.test')) == '10.0.0.1'
    assert 'DEFER' in c.ask(text_of('a=c2.test')) or c.ask(text_of('a=c2.test')) == 'NO'
    assert asks('dns_cname_loops = 4\n').ask(text_of('a=c4.test')) == '10.0.0.1'


def test_cname_in_a_circle(asks, nameserver):
    nameserver.lookup = lambda name, kind: (0, [(name, 'CNAME', 'b.test' if name == 'a.test' else 'a.test')])
    asks('dns_cname_loops = 9999\n').ask(text_of('a=a.test'))
    assert len(asked(nameserver, 'A')) <= 21


def test_csa(asks, nameserver):
    def questions(main, what):
        nameserver.queries.clear()
        c = asks(main)
        assert c.ask(text_of('csa=' + what)) == 'NO'
        return [n.removeprefix('_client._smtp.') for n in asked(nameserver, 'SRV')]

    assert questions('', 'a.b.c.d.e.f.g.test') == ['a.b.c.d.e.f.g.test', 'b.c.d.e.f.g.test', 'c.d.e.f.g.test', 'd.e.f.g.test', 'e.f.g.test', 'f.g.test']
    assert questions('dns_csa_search_limit = 1\n', 'a.b.c.d.test') == ['a.b.c.d.test', 'b.c.d.test']
    assert questions('dns_csa_search_limit = 0\n', '[192.0.2.1]') == ['1.2.0.192.in-addr.arpa']
    assert questions('dns_csa_use_reverse = false\n', '[192.0.2.1]') == []


@pytest.mark.parametrize('main, edns, do', [('', True, True), ('dns_dnssec_ok = 0\n', True, False), ('dns_dnssec_ok = 1\n', True, True),
                                            ('dns_use_edns0 = 0\n', False, False), ('dns_use_edns0 = 1\n', True, True)])
def test_edns(asks, nameserver, main, edns, do):
    nameserver.add('h.test', 'A', '10.0.0.1')
    assert asks(main).ask(text_of('a=h.test')) == '10.0.0.1'
    question = nameserver.raw[0]
    additional, = struct.unpack('!H', question[10:12])
    assert additional == (1 if edns else 0)
    if edns:
        root, kind, size, flags, length = struct.unpack('!BHHIH', question[-11:])
        assert (root, kind, length) == (0, 41, 0) and size >= 512 and bool(flags & 0x8000) == do


def test_server_without_edns(asks, nameserver):
    nameserver.add('h.test', 'A', '10.0.0.1')
    c, answer = asks(), nameserver.answer

    def old(data, limit):
        if data[10:12] != b'\0\0':
            return data[:2] + b'\x80\x01' + data[4:6] + b'\0' * 6 + data[12:-11]  # FORMERR
        return answer(data, limit)

    nameserver.answer = old
    assert c.ask(text_of('a=h.test')) == '10.0.0.1'


@pytest.mark.parametrize('tries', [1, 3])
def test_retry(asks, nameserver, tries):
    nameserver.trouble['lost.test'] = 'TIMEOUT'
    c = asks(f'dns_retrans = 1s\ndns_retry = {tries}\n')
    assert 'DEFER' in c.ask(text_of('a=lost.test'))
    wait_for(lambda: asked(nameserver, 'A') == ['lost.test'] * tries, lambda: str(nameserver.queries))


def test_retry_as_the_system_does(martlet, nameserver):
    """Without options of ours: those of resolv.conf, which RES_OPTIONS overrides (resolv.conf(5))."""
    nameserver.trouble['lost.test'] = 'TIMEOUT'
    m = martlet(resolver=nameserver.address, daemon=False, main='add_environment = <; RES_OPTIONS=timeout:1 attempts:3')
    assert 'DEFER' in m.run('-be', text_of('a=lost.test'))
    wait_for(lambda: asked(nameserver, 'A') == ['lost.test'] * 3, lambda: str(nameserver.queries))


def test_ipv4_lookup(asks, nameserver, martlet):
    nameserver.add('four.test', 'A', '10.0.0.1').add('six.test', 'A', '10.0.0.1')
    m = martlet(resolver=nameserver.address, daemon=False, main='dns_ipv4_lookup = four.test\n',
                routers='look:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = remote_smtp\n  no_more\n')
    for d in ('four', 'six'):
        assert '10.0.0.1' in m.run('-bt', f'x@{d}.test')
    assert 'six.test' in asked(nameserver, 'AAAA') and 'four.test' not in asked(nameserver, 'AAAA')


def test_search(nameserver, martlet):
    """qualify_single and search_parents of dnslookup, with the domains of resolv.conf."""
    nameserver.add('single.here.test', 'A', '10.0.0.1').add('two.words.here.test', 'A', '10.0.0.2')

    def addressed(options, address):
        m = martlet(resolver=nameserver.address, daemon=False, etc={'resolv.conf': f'nameserver {nameserver.address}\nsearch here.test there.test\n'},
                    routers=f'look:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = remote_smtp\n  no_more\n{options}')
        return '10.0.0.' in m.run('-bt', address, check=False).stdout

    assert addressed('', 'x@single') and not addressed('  no_qualify_single\n', 'x@single')
    assert addressed('  search_parents\n', 'x@two.words') and not addressed('', 'x@two.words')


def soa(question, code, ttl):
    """An answer that there is nothing, with an SOA record that says for how long."""
    end = question.index(b'\0', 12) + 5
    rdata = b'\0\0' + struct.pack('!IIIII', 1, 2, 3, 4, ttl)
    return (question[:2] + struct.pack('!HHHHH', 0x8580 | code, 1, 0, 1, 0) + question[12:end] +
            b'\0' + struct.pack('!HHIH', 6, 1, ttl, len(rdata)) + rdata)


def test_negative_answers_are_remembered(asks, nameserver):
    c = asks()
    raw = nameserver.raw

    def nothing(data, limit):
        raw.append(data)
        name = data[12:]
        return soa(data, 3 if b'none' in name else 0, 0 if b'short' in name else 300)

    nameserver.answer = nothing
    for name, questions in (('none.test', 1), ('empty.test', 1), ('short.test', 2)):
        raw.clear()
        assert [c.ask(text_of(f'a={name}')) for _ in range(2)] == ['NO', 'NO']
        assert len(raw) == questions, name


def test_idn(asks, nameserver):
    nameserver.add('xn--bcher-kva.test', 'A', '10.0.0.1')
    assert asks().ask(text_of('a=bücher.test')) == '10.0.0.1'
    assert asked(nameserver, 'A') == ['xn--bcher-kva.test']


def test_hosts_file(nameserver, martlet):
    """The hosts file is for names that the system's functions look up, not for the DNS."""
    m = martlet(resolver=nameserver.address, daemon=False, hosts='127.0.0.1 localhost\n10.1.1.1 file.test\n',
                routers='by:\n  driver = manualroute\n  route_list = name.test file.test byname ; dns.test file.test bydns\n'
                        '  transport = remote_smtp\n  no_more\n  host_find_failed = decline\n')
    assert '10.1.1.1' in m.run('-bt', 'x@name.test')
    assert '10.1.1.1' not in m.run('-bt', 'x@dns.test', check=False).stdout
    nameserver.add('file.test', 'A', '10.2.2.2')
    assert '10.2.2.2' in m.run('-bt', 'x@dns.test')


def flip(answer, at, value):
    return answer[:at] + value + answer[at + len(value):]


LIES = {
    'another id': lambda q, a: bytes([a[0] ^ 1]) + a[1:],
    'another question': lambda q, a: a[:13] + b'z' + a[14:],
    'no question': lambda q, a: flip(a, 4, b'\0\0'),
    'a query': lambda q, a: flip(a, 2, q[2:4]),
    'cut short': lambda q, a: a[:len(a) - 3],
    'more records than there are': lambda q, a: flip(a, 6, b'\xff\xff'),
    'a name that points to itself': lambda q, a: a[:q.index(b'\0', 12) + 5] + b'\xc0' + bytes([q.index(b'\0', 12) + 5]) + a[-14:],
    'a pointer past the end': lambda q, a: a[:q.index(b'\0', 12) + 5] + b'\xff\xff' + a[-14:],
    'empty': lambda q, a: b'',
    'only a header': lambda q, a: a[:12],
    'an address of five bytes': lambda q, a: a[:-6] + b'\0\5' + a[-4:] + b'\1',
    'of another class': lambda q, a: a[:-12] + b'\0\3' + a[-10:],
    'of another name': lambda q, a: a.replace(b'\4liar\4test', b'\4else\4test').replace(b'\4else\4test', b'\4liar\4test', 1),
}


@pytest.mark.parametrize('how', sorted(LIES))
def test_lies(asks, nameserver, how):
    """None is believed, and none does harm: the next question is answered."""
    nameserver.add('liar.test', 'A', '10.6.6.6').add('good.test', 'A', '10.0.0.1')
    c = asks('dns_retrans = 4s\ndns_retry = 1\n')
    answer = nameserver.answer

    def lie(data, limit):
        good = answer(data, limit)
        return LIES[how](data, good) if b'liar' in data else good

    nameserver.answer = lie
    assert '10.6.6.6' not in c.ask(text_of('a=liar.test'))
    wait_for(lambda: c.ask(text_of('a=good.test')) == '10.0.0.1', 'the other answer')


def test_flood_of_records(asks, nameserver):
    """More than anybody needs: by TCP, bounded, in one piece."""
    nameserver.add('flood.test', 'A', *[f'10.{i >> 8}.{i & 255}.1' for i in range(2400)])
    got = asks().ask('${reduce{${lookup dnsdb{>: a=flood.test}}}{0}{${eval:$value+1}}}')
    assert got == '2400'


def test_bad_names_are_not_asked(asks, nameserver):
    c = asks('dns_check_names_pattern =\n')
    for name in ('x..test', 'a' * 64 + '.test', '.'.join(['a' * 60] * 5)):
        assert c.ask(text_of(f'txt={name}')) == 'NO'
    assert not nameserver.queries


def test_a_session_waits_for_nobody(martlet, nameserver):
    """A name server that says nothing keeps the sessions that need it waiting, not others."""
    nameserver.trouble['lost.test'] = 'TIMEOUT'
    m = martlet(resolver=nameserver.address, arguments=[], main='worker_processes = 1\ndns_retrans = 30s\ndns_retry = 1\n',
                acl_rcpt='  warn senders = *@lost.test\n    set acl_m_x = ${lookup dnsdb{a=lost.test}}\n')
    with Client(m.port) as slow, Client(m.port) as quick:
        slow.ehlo()
        slow.expect(250, 'MAIL FROM:<a@lost.test>')
        slow.send(b'RCPT TO:<u0@local.test>\r\n')
        wait_for(lambda: 'lost.test' in asked(nameserver, 'A'), m.logs)
        assert quick.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\nx\r\n')[0] == 250
        assert slow.reply()[0] in (250, 451)
