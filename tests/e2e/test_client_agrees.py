"""The client's side where servers or options are odd: what Debian's Exim 4.96 does was recorded here."""
import re

import pytest

from support.smtp import Client

HOURS = '* * F,1d,1h'  # what waits still waits when a test looks
MESSAGE = 'From: a@b.test\nSubject: hi\n\nbody line\n'


def send(m, *to, sender='a@b.test'):
    m.run('-odi', '-f', sender, *(to or ('x@relay.test',)), input=MESSAGE)
    return m.log()


# --- answers ---

@pytest.mark.parametrize('answer', ['421 busy', '450 busy', '451 no', '500 what', '550 no', '350 well'])
def test_helo_after_any_answer_to_ehlo(martlet, smtp_server, answer):
    s = smtp_server({'EHLO': answer})
    log = send(martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}'))
    assert len(s.messages) == 1 and any(c.startswith('HELO') for c in s.commands) and ' => x@relay.test' in log, (log, s.commands)


def test_the_first_line_of_an_answer_says_what_it_is(martlet, smtp_server):
    s = smtp_server({'MAIL': '250-one\r\n550 two'})
    log = send(martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}'))
    assert len(s.messages) == 1 and ' => x@relay.test' in log, log


@pytest.mark.parametrize('verbs, after', [(('CONNECT',), 'initial connection'), (('EHLO', 'HELO'), 'HELO [^:]*')])
def test_a_host_that_refuses_for_good_has_to_wait(martlet, smtp_server, verbs, after):
    """The address fails, and the host has a retry record: the bounce over the same host is put off."""
    s = smtp_server({v: '554 go away' for v in verbs})
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', retry=HOURS)
    log = send(m, sender='a@relay.test')
    assert re.search(rf'\*\* x@relay\.test .*after {after}: 554 go away$', log, re.M), log
    assert re.search(r"== a@relay\.test .*defer \(-54\): retry time not reached for any host for 'relay\.test'$", log, re.M), log
    assert s.sessions == 1, log


def test_the_next_host_after_a_refused_helo(martlet, smtp_server):
    first, second = smtp_server({'EHLO': '550 no', 'HELO': '550 no'}), smtp_server()
    log = send(martlet(daemon=False, smarthost=f'127.0.0.1::{first.port}:127.0.0.1::{second.port}'))
    assert len(second.messages) == 1 and ' => x@relay.test' in log and '**' not in log, log


# --- options ---

BROKEN = {'expansion': '${bad}', 'file': 'lsearch;/nonexistent/list', 'name': '+no_such_list'}
NEEDS_TLS = ('tls_verify_hosts', 'tls_verify_cert_hostnames', 'hosts_require_ocsp', 'hosts_require_alpn')


@pytest.mark.parametrize('why', BROKEN)
@pytest.mark.parametrize('option', ('hosts_require_auth', 'hosts_try_auth', 'hosts_require_tls', 'hosts_require_dane'))
def test_a_protection_that_cannot_be_told(martlet, smtp_server, option, why):
    """Nothing is sent (Exim sends without, or its process dies); the host is not blamed."""
    s = smtp_server(keywords=('AUTH PLAIN',))
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client=f'{option} = {BROKEN[why]}', retry=HOURS, allow_panic='failed to|unknown named')
    log = send(m)
    assert re.search(rf'== x@relay\.test R=relay T=remote_smtp defer \(-27\): failed to check {option}: ', log), log
    assert not any(c.startswith(('MAIL', 'AUTH')) for c in s.commands), s.commands
    m.run('-q')
    assert 'retry time not reached for any host' not in m.log(), m.log()


@pytest.mark.parametrize('option', ('multi_domain', 'retry_include_ip_address'))
def test_a_flag_that_cannot_be_told(martlet, smtp_server, option):
    s = smtp_server()
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client=f'{option} = ${{bad}}', allow_panic='failed to expand')
    log = send(m)
    assert f'defer (-1): failed to expand "{option}" in remote_smtp transport: unknown variable in "${{bad}}"' in log and not s.sessions, log


def test_helo_data_that_fails_is_the_hosts(martlet, smtp_server):
    s = smtp_server()
    log = send(martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client='helo_data = ${bad}'))
    text = 'failed to expand helo_data: unknown variable in "${bad}"'
    assert f'H=127.0.0.1 [127.0.0.1]: {text}' in log and f'defer (-27): {text}' in log, log


@pytest.mark.parametrize('option', NEEDS_TLS)
def test_a_protection_of_tls_that_cannot_be_told(martlet, smtp_server, authority, option):
    """Neither over TLS that nobody has looked at, nor in clear."""
    s = smtp_server(tls=authority.issue('hop.test'))
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client=f'{option} = ${{bad}}', allow_panic='failed to expand')
    log = send(m)
    assert re.search(rf'== x@relay\.test .* defer \(-27\): failed to check {option}: ', log) and 'unencrypted' not in log, log
    assert not s.messages and not any(c.startswith('MAIL') for c in s.commands), s.commands


@pytest.mark.parametrize('option', ('tls_sni', 'tls_require_ciphers', 'tls_certificate', 'tls_crl'))
def test_a_forced_failure_leaves_tls_on(martlet, smtp_server, authority, option):
    s = smtp_server(tls=authority.issue('hop.test'))
    log = send(martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client=f'{option} = ${{if eq{{1}}{{2}}{{x}}fail}}'))
    assert re.search(r'=> x@relay\.test .* X=TLS', log) and 'unencrypted' not in log, log


def test_an_option_of_tls_that_is_wrong(martlet, smtp_server, authority):
    s = smtp_server(tls=authority.issue('hop.test'))
    log = send(martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client='tls_sni = ${bad}', allow_panic='expansion of'))
    assert 'expansion of tls_out_sni failed: unknown variable in "${bad}"' in log, log
    assert 'TLS session: Internal error: delivering unencrypted to H=127.0.0.1 [127.0.0.1] (not in hosts_require_tls)' in log, log


def test_a_server_that_cannot_tell_who_needs_a_certificate(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), main='tls_verify_hosts = ${bad}', allow_panic='failed to expand')
    with Client(m.port) as c:
        assert 'STARTTLS' in c.ehlo()
        c.expect(454, 'STARTTLS')


# --- events ---

LOGGED = 'event_action = ${acl{said}{$event_name}{$event_defer_errno}{$event_data}}'
SAID = "\nsaid:\n  warn logwrite = EV $acl_arg1 $acl_arg2 <${sg{$acl_arg3}{\\N\\n\\N}{|}}>\n  accept\n"


def events(log):
    return [x.split(' EV ', 1)[1] for x in log.splitlines() if ' EV ' in x]


def watched(martlet, *servers, client=LOGGED):
    return martlet(daemon=False, acl_rcpt='  accept\n' + SAID, client=client, retry=HOURS, smarthost=':'.join(f'127.0.0.1::{s.port}' for s in servers))


def test_smtp_ehlo_whatever_the_answer(martlet, smtp_server):
    s = smtp_server({'EHLO': '550 no'})
    assert 'smtp:ehlo 0 <550 no>' in events(send(watched(martlet, s)))


@pytest.mark.parametrize('verb, number, after', [('MAIL', -45, r'pipelined MAIL FROM:<a@b\.test> SIZE=\d+'), ('DOT', -46, 'end of data')])
def test_msg_defer_for_a_message_that_is_not_taken_now(martlet, smtp_server, verb, number, after):
    s = smtp_server({verb: '451 later'})
    log = send(watched(martlet, s))
    text = rf'SMTP error from remote mail server after {after}: 451 later'
    said = events(log)
    assert said[-2] == 'tcp:close 0 <>' and re.fullmatch(rf'msg:defer {number} <{text}>', said[-1]), log
    assert re.search(rf'H=127\.0\.0\.1 \[127\.0\.0\.1\]: {text}\n.* EV tcp:close ', log) and not any(x.startswith('msg:host:') for x in said), log


def test_msg_rcpt_defer_when_no_host_is_left(martlet, smtp_server):
    first, second = smtp_server({'RCPT': '451 one'}), smtp_server({'RCPT': '452 two'})
    said = [x.split(' <')[0] for x in events(send(watched(martlet, first, second))) if ':rcpt:' in x]
    assert said == [f'msg:rcpt:host:defer {51 * 256 + 65}', f'msg:rcpt:host:defer {52 * 256 + 65}', f'msg:rcpt:defer {52 * 256 + 65}']


@pytest.mark.parametrize('event, line', [('tcp:connect', r'H=127\.0\.0\.1 \[127\.0\.0\.1\] Event requests alternate response'),
    ('smtp:connect', r'H=127\.0\.0\.1 \[127\.0\.0\.1\]: deferred by smtp:connect event expansion: not that one')])
def test_an_event_that_refuses_a_host(martlet, smtp_server, event, line):
    """The host has to wait then."""
    s = smtp_server()
    m = watched(martlet, s, client=f'event_action = ${{if eq{{{event}}}{{$event_name}}{{not that one}}}}')
    log = send(m)
    assert re.search(rf' {line}$', log, re.M) and re.search(r'== x@relay\.test R=relay T=remote_smtp defer', log), log
    m.run('-q')
    assert re.search(r'defer \(-54\): retry time not reached for any host', m.log()) and not s.messages, m.log()


# --- what log selectors add ---

def test_the_interface_of_deliveries_needs_two_selectors(martlet, smtp_server):
    s = smtp_server()
    for selector, shown in (('+incoming_interface', True), ('+incoming_interface -outgoing_interface', False), ('+outgoing_interface', False)):
        log = send(martlet(daemon=False, main=f'log_selector = {selector}', smarthost=f'127.0.0.1::{s.port}'))
        assert (re.search(r' => x@relay\.test .* I=\[127\.0\.0\.1\]', log) is not None) == shown, (selector, log)


def test_deliver_time_of_failures_stands_last(martlet, smtp_server):
    s = smtp_server({'RCPT': '550 no'})
    log = send(martlet(daemon=False, main='log_selector = +deliver_time', smarthost=f'127.0.0.1::{s.port}'), 'x@relay.test', 'nobody@local.test')
    assert re.search(r'\*\* x@relay\.test .*: 550 no DT=\S+$', log, re.M) and re.search(r'\*\* nobody@local\.test.* DT=\S+$', log, re.M), log


def test_outgoing_port_of_hosts_that_fail(martlet, smtp_server):
    s = smtp_server({'EHLO': '421 x', 'HELO': '421 x'})
    log = send(martlet(daemon=False, main='log_selector = +outgoing_port', smarthost=f'127.0.0.1::{s.port}'))
    assert f' H=127.0.0.1 [127.0.0.1]:{s.port}: SMTP error from remote mail server after HELO' in log, log
