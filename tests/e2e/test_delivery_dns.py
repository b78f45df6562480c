"""Name servers that fail and lie while mail is routed: the message waits, nobody else gets it, and it goes once all is well."""
import re

import pytest

from support.util import free_loopback, wait_for

pytestmark = pytest.mark.root

ROUTE = '''mx:
  driver = dnslookup
  domains = ! +local_domains
  transport = remote_smtp
  self = send
  no_more
'''


@pytest.fixture
def net(martlet, smtp_server, nameserver):
    """(Martlet, name server, the right host, the liar's host): relay.test has its MX at mx.relay.test."""
    good = smtp_server(address=free_loopback())
    liar = smtp_server(address=free_loopback(), port=good.port)
    nameserver.host('mx.relay.test', good.address).add('relay.test', 'MX', (10, 'mx.relay.test'))
    nameserver.host('lies.test', liar.address)
    nameserver.liar = liar.address
    m = martlet(daemon=False, resolver=nameserver.address, relay_to='*', routers=ROUTE, client=f'port = {good.port}',
                main='dns_retrans = 1s\ndns_retry = 1\n')
    return m, nameserver, good, liar


def send(m):
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', input='Subject: x\n\nx\n')


def goes(m, good):
    """A busy machine may be late with an answer that is right."""
    def gone():
        m.run('-qff')
        return good.messages and m.queue() == []
    wait_for(gone, m.logs)
    assert len(good.messages) == 1, m.logs()


@pytest.mark.parametrize('name', ['relay.test', 'mx.relay.test'])
@pytest.mark.parametrize('trouble', ['SERVFAIL', 'REFUSED', 'TIMEOUT', 'GARBAGE', 'QUESTION', 'OWNER', 'IDENT', 'KIND', 'CUT', 'TRUNCATED', 'LOOP'])
def test_trouble_then_right(net, trouble, name):
    m, ns, good, liar = net
    ns.trouble = {name: trouble}
    send(m)
    log = m.log()
    assert not liar.sessions and not good.messages, log
    if re.search(r'\*\* a@relay\.test', log):
        # Records of other types are taken as "none of this type": servers that answer so for AAAA are about.
        assert trouble == 'KIND', log
        return
    assert re.search(r'== a@relay\.test R=mx .*defer \(-1\): host lookup did not complete|== a@relay\.test R=mx .*lookup', log), m.logs()
    assert len(m.queue()) == 1
    ns.trouble = {}
    goes(m, good)
    assert not liar.sessions


def test_truncated_answers_are_had_over_tcp(net):
    m, ns, good, liar = net
    ns.add('relay.test', 'MX', *[(20, f'{"x" * 50}{n}.relay.test') for n in range(40)])
    send(m)
    goes(m, good)


def test_a_lie_beside_the_truth(net):
    """Records of other names in an answer that is right otherwise."""
    m, ns, good, liar = net
    right = ns.lookup

    def lookup(name, kind):
        code, found = right(name, kind)
        extra = [('elsewhere.test', 'MX', (0, 'lies.test'))] if kind == 'MX' else [('elsewhere.test', 'A', liar.address)] if kind == 'A' else []
        return code, extra + found
    ns.lookup = lookup
    send(m)
    goes(m, good)
    assert not liar.sessions


def test_what_has_no_mail_exchanger(martlet, nameserver):
    """Texts and codes of Exim 4.96 for domains that are addresses, and MX records that lead nowhere."""
    nameserver.add('ip.test', 'MX', (10, '10.0.0.2')).add('gone.test', 'MX', (10, 'nohost.test'))
    nameserver.host('mx.ignored.test', '10.0.0.2').add('ignored.test', 'MX', (10, 'mx.ignored.test'))
    m = martlet(daemon=False, resolver=nameserver.address, relay_to='*', routers=ROUTE + '  ignore_target_hosts = 10.0.0.0/8\n',
                main='dns_retrans = 20s\n')
    m.run('-odi', '-f', 's@b.test', 'a@ip.test', 'a@gone.test', 'a@ignored.test', 'a@10.0.0.2', 'a@[10.0.0.2]', input='Subject: x\n\nx\n')
    log = m.log()
    for address, text in [('ip.test', 'all relevant MX records point to non-existent hosts or (invalidly) to IP addresses'),
                          ('gone.test', 'all relevant MX records point to non-existent hosts'),
                          ('ignored.test', 'all relevant MX records point to non-existent hosts'),
                          ('10.0.0.2', 'Unrouteable address'), ('[10.0.0.2]', 'mail domain "[10.0.0.2]" is syntactically invalid')]:
        assert re.search(rf'\*\* a@{re.escape(address)}.*: {re.escape(text)}$', log, re.M), log


def test_order_of_copied_routing(martlet, smtp_server, nameserver):
    good = smtp_server(address=free_loopback())
    nameserver.host('mx.relay.test', good.address).add('relay.test', 'MX', (10, 'mx.relay.test'))
    m = martlet(daemon=False, resolver=nameserver.address, relay_to='*', client=f'port = {good.port}', main='dns_retrans = 20s\n',
                routers=ROUTE.replace('no_more', 'same_domain_copy_routing\n  no_more'))
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', 'b@relay.test', 'c@relay.test', input='Subject: x\n\nx\n')
    assert [x['rcpt'] for x in good.messages] == [['<a@relay.test>', '<b@relay.test>', '<c@relay.test>']], m.logs()


@pytest.mark.parametrize('options', ['route_list = * ${bad}', 'route_data = ${bad}'])
def test_route_that_does_not_expand(martlet, options):
    m = martlet(daemon=False, relay_to='*', allow_panic='.',
                routers=f'wrong:\n  driver = manualroute\n  domains = ! +local_domains\n  transport = remote_smtp\n  {options}\n')
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', input='Subject: x\n\nx\n')
    assert re.search(r'== a@relay\.test R=wrong defer \(-1\): .*failed to expand "\$\{bad\}": unknown variable', m.log()), m.log()
