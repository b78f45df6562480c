"""Options of delivery that stand beside the transports' main work: shadow transports, mua_wrapper, once_file_size, pipes."""
import os
import re

import pytest

from support.smtp import Client
from support.util import read, wait_for


def deliver(martlet, transports, routers='', **gaps):
    routers = routers or 'all:\n  driver = accept\n  domains = +local_domains\n  transport = t'
    return martlet(daemon=False, routers=routers, transports=transports, **gaps)


def send(m, *to, text='Subject: x\n\nhello\n', sender='a@b.test', **kw):
    return m.run('-odi', '-f', sender, *(to or ('u0@local.test',)), input=text, **kw)


def box(scratch):
    os.makedirs(f'{scratch}/box', exist_ok=True)
    os.chmod(f'{scratch}/box', 0o777)
    return f'{scratch}/box'


# --- shadow transports ---

SHADOW = '''t:
  driver = appendfile
  file = {box}/main
  shadow_transport = {shadow}
  {more}
s:
  driver = appendfile
  file = {box}/shadow
broken:
  driver = pipe
  command = /bin/sh -c "cat >/dev/null; exit 3"
  return_output
'''


def test_shadow_gets_what_was_delivered(martlet, scratch):
    b = box(scratch)
    m = deliver(martlet, SHADOW.format(box=b, shadow='s', more=''))
    send(m)
    assert read(f'{b}/main').count('hello') == 1 and read(f'{b}/shadow').count('hello') == 1
    assert re.search(r'=> u0 <u0@local\.test> R=all T=t ST=s$', m.log(), re.M), m.log()


def test_shadow_that_fails_is_only_told(martlet, scratch):
    b = box(scratch)
    m = deliver(martlet, SHADOW.format(box=b, shadow='broken', more=''))
    send(m)
    assert re.search(r'=> u0 <u0@local\.test> R=all T=t ST=broken \(.*returned 3', m.log()), m.log()
    assert ' Completed' in m.log() and '**' not in m.log() and m.queue() == []


def test_shadow_condition(martlet, scratch):
    b = box(scratch)
    m = deliver(martlet, SHADOW.format(box=b, shadow='s', more='shadow_condition = ${if eq{$h_subject:}{yes}{1}{no}}'))
    send(m)
    assert not os.path.exists(f'{b}/shadow') and 'ST=' not in m.log()
    send(m, text='Subject: yes\n\nhello\n')
    assert read(f'{b}/shadow').count('hello') == 1


def test_no_shadow_of_a_failure(martlet, scratch):
    b = box(scratch)
    m = deliver(martlet, SHADOW.format(box=b + '/nowhere/nowhere', shadow='s', more='create_directory = false'))
    send(m)
    assert re.search(r'== u0@local\.test R=all T=t defer', m.log()) and not os.path.exists(f'{b}/shadow')


@pytest.mark.parametrize('option,text', [('shadow_transport = remote_smtp', 'is not a local transport')])
def test_shadow_must_be_local(martlet, option, text):
    m = deliver(martlet, f't:\n  driver = pipe\n  command = /bin/true\n  {option}\n')
    assert text in m.run('-bV', check=False).stdout


def test_no_shadow_of_a_remote_transport(martlet):
    m = martlet(daemon=False, client='shadow_transport = maildir')
    assert 'shadow transport not allowed on non-local transport remote_smtp' in m.run('-bV', check=False).stdout


# --- mua_wrapper ---

def wrapper(martlet, smarthost, **gaps):
    gaps.setdefault('routers', '')
    return martlet(daemon=False, main='mua_wrapper', smarthost=smarthost, relay_to='*', **gaps)


def wrapped(m, *to):
    return m.run('-f', 'a@b.test', *to, input='Subject: x\n\nhello\n', check=False)


def test_wrapper_delivers_at_once(martlet, smtp_server):
    s = smtp_server()
    m = wrapper(martlet, f'127.0.0.1::{s.port}', client='max_rcpt = 1')
    done = wrapped(m, 'x@one.test', 'y@two.test')
    assert done.returncode == 0 and done.stdout == '', done.stdout
    assert len(s.messages) == 1 and len(s.messages[0]['rcpt']) == 2
    assert m.queue() == [] and ' Completed' in m.log()


@pytest.mark.parametrize('answer', ['451 4.2.0 later', '550 5.1.1 no'])
def test_wrapper_all_or_none(martlet, smtp_server, answer):
    """One refused recipient, for now or for good: nobody gets it, no bounce is made, and the caller is told."""
    s = smtp_server({'RCPT': lambda line, session: answer if 'bad' in line else None}, keywords=('PIPELINING', 'CHUNKING'))
    m = wrapper(martlet, f'127.0.0.1::{s.port}')
    done = wrapped(m, 'x@one.test', 'bad@one.test', 'y@one.test')
    assert done.returncode == 1 and answer in done.stdout, done.stdout
    assert s.messages == [] and m.queue() == []
    assert '<= <>' not in m.log() and ' Completed' in m.log(), m.log()
    # No retry record: the next attempt is made at once.
    assert wrapped(m, 'x@one.test').returncode == 0 and len(s.messages) == 1


def test_wrapper_tries_other_hosts(martlet, smtp_server):
    s = smtp_server()
    m = wrapper(martlet, f'127.0.0.1::1:127.0.0.1::{s.port}')
    assert wrapped(m, 'x@one.test').returncode == 0 and len(s.messages) == 1


def test_wrapper_that_reaches_nobody(martlet):
    m = wrapper(martlet, '127.0.0.1::1')
    done = wrapped(m, 'x@one.test')
    assert done.returncode == 1 and 'Connection refused' in done.stdout, done.stdout
    assert m.queue() == [] and 'mua_wrapper forced failure for deferred delivery' in m.log(), m.log()


def test_wrapper_needs_one_transaction(martlet, smtp_server):
    """A local recipient beside a remote one cannot be: nothing is delivered."""
    s = smtp_server()
    m = wrapper(martlet, f'127.0.0.1::{s.port}')
    done = wrapped(m, 'x@one.test', 'u0@local.test')
    assert done.returncode == 1 and 'configuration problem' in done.stdout, done.stdout
    assert s.messages == [] and m.mail('u0') == [] and m.queue() == []


def test_wrapper_queues_nothing(martlet, smtp_server):
    s = smtp_server()
    m = wrapper(martlet, f'127.0.0.1::{s.port}', acl='hold:\n  accept control = queue_only')
    with open(m.conf) as f:
        text = f.read().replace('mua_wrapper\n', 'mua_wrapper\nqueue_only\nacl_not_smtp = hold\nqueue_domains = *\n')
    with open(m.conf, 'w') as f:
        f.write(text)
    assert wrapped(m, 'x@one.test').returncode == 0 and len(s.messages) == 1 and m.queue() == []


def test_wrapper_is_no_daemon(martlet):
    m = martlet(daemon=False, main='mua_wrapper', allow_panic='mua_wrapper')
    done = m.run('-bd', check=False)
    assert done.returncode == 1 and 'Daemon cannot be run when mua_wrapper is set' in done.stdout


# --- autoreply ---

def test_once_file_size_forgets_the_oldest(martlet, scratch):
    """Room for one recipient: the second one's answer makes the first one forgotten."""
    b = box(scratch)
    m = deliver(martlet, f't:\n  driver = autoreply\n  to = $sender_address\n  text = away\n  once = {b}/once\n'
                         f'  once_file_size = 40\n  log = {b}/log\n', relay_to='*')
    for sender in ('u1@local.test', 'u1@local.test', 'u2@local.test', 'u1@local.test'):
        send(m, 'u0@local.test', sender=sender)
    answers = re.findall(r'^  To: (\S+)$', read(f'{b}/log'), re.M)
    assert answers == ['u1@local.test', 'u2@local.test', 'u1@local.test'], answers


def test_once_file_size_remembers_what_fits(martlet, scratch):
    b = box(scratch)
    m = deliver(martlet, f't:\n  driver = autoreply\n  to = $sender_address\n  text = away\n  once = {b}/once\n'
                         f'  once_file_size = 400\n  log = {b}/log\n', relay_to='*')
    for sender in ('u1@local.test', 'u2@local.test', 'u1@local.test', 'u2@local.test'):
        send(m, 'u0@local.test', sender=sender)
    assert re.findall(r'^  To: (\S+)$', read(f'{b}/log'), re.M) == ['u1@local.test', 'u2@local.test']


# --- pipes ---

def test_a_strangers_text_is_no_argument(martlet):
    m = deliver(martlet, 't:\n  driver = pipe\n  command = /bin/cat $local_part\n')
    send(m)
    assert re.search(r"\*\* u0@local\.test .*: Tainted arg 1 for t transport command: 'u0'", m.log()), m.log()


def test_addresses_of_a_pipe_are_arguments(martlet, scratch):
    b = box(scratch)
    m = deliver(martlet, f't:\n  driver = pipe\n  batch_max = 10\n  command = {b}/tool $pipe_addresses\n')
    with open(f'{b}/tool', 'w') as f:
        f.write(f'#!/bin/sh\ncat >/dev/null\necho "$@" >{b}/args\n')
    os.chmod(f'{b}/tool', 0o755)
    send(m, 'u0@local.test', 'u1@local.test')
    assert sorted(read(f'{b}/args').split()) == ['u0@local.test', 'u1@local.test'], m.log()


@pytest.mark.root
def test_pipe_as_creator(martlet, scratch):
    """The command runs as who sent the message."""
    b = box(scratch)
    m = martlet(privileged=True, arguments=[], routers='all:\n  driver = accept\n  domains = +local_domains\n  transport = t',
                transports=f't:\n  driver = pipe\n  pipe_as_creator\n  command = /bin/sh -c "cat >/dev/null; id -u >{b}/who"\n')
    m.run('-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nhello\n', user='u3')
    who = wait_for(lambda: read(f'{b}/who') if os.path.exists(f'{b}/who') else None, m.logs)
    assert who.strip() == str(m.place.uid('u3'))


@pytest.mark.root
def test_deliver_drop_privilege(martlet, scratch):
    """Nothing is run as anybody else."""
    b = box(scratch)
    m = martlet(privileged=True, arguments=[], main='deliver_drop_privilege',
                routers='all:\n  driver = accept\n  domains = +local_domains\n  transport = t',
                transports=f't:\n  driver = pipe\n  user = u3\n  command = /bin/sh -c "cat >/dev/null; id -u >{b}/who"\n')
    m.run('-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nhello\n', user='u4')
    who = wait_for(lambda: read(f'{b}/who') if os.path.exists(f'{b}/who') else None, m.logs)
    assert who.strip() == str(m.place.uid(m.user))


# --- the load ---

def test_a_queue_run_ends_when_the_load_is_high(martlet):
    m = martlet(daemon=False, main='deliver_queue_load_max = 0.0')
    m.run('-odq', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nhello\n')
    if os.getloadavg()[0] <= 0:
        pytest.skip('there is no load at all')
    m.run('-q')
    assert re.search(r'Abandon queue run: pid=\d+ \(load \d+\.\d\d, max 0\.00\)$', m.log(), re.M), m.log()
    assert len(m.queue()) == 1


# --- the interface ---

def test_incoming_interface_is_for_deliveries_too(martlet, smtp_server):
    s = smtp_server({'RCPT': lambda line, session: '550 no' if 'bad' in line else None})
    m = martlet(daemon=False, main='log_selector = +incoming_interface', smarthost=f'127.0.0.1::{s.port}')
    send(m, 'x@relay.test', 'bad@relay.test')
    assert re.search(r'=> x@relay\.test .* I=\[127\.0\.0\.1\] C=', m.log()) and re.search(r'\*\* bad@relay\.test .* I=\[127\.0\.0\.1\] ?: ', m.log()), m.log()


# --- a host that wants no mail ---

def test_a_host_that_serves_nobody_is_passed_over(martlet, smtp_server):
    """554 instead of a greeting (RFC 5321, 3.1): the next host is asked; when there is none, the address fails."""
    closed, s = smtp_server({'CONNECT': '554 no smtp service here'}), smtp_server()
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{closed.port}:127.0.0.1::{s.port}')
    send(m, 'x@relay.test')
    assert len(s.messages) == 1 and re.search(r'H=127\.0\.0\.1 \[127\.0\.0\.1\]: SMTP error from .* after initial connection: 554 no', m.log()), m.log()
    # The other host may be there again later.
    later = martlet(daemon=False, smarthost=f'127.0.0.1::1:127.0.0.1::{closed.port}')
    send(later, 'x@relay.test')
    assert re.search(r'== x@relay\.test ', later.log()) and len(later.queue()) == 1, later.log()
    both = martlet(daemon=False, smarthost=f'127.0.0.1::{closed.port}:127.0.0.1::{closed.port}')
    send(both, 'x@relay.test', sender='')
    assert re.search(r'\*\* x@relay\.test .*554 no smtp service here', both.log()), both.log()
    alone = martlet(daemon=False, smarthost=f'127.0.0.1::{closed.port}')
    send(alone, 'x@relay.test', sender='')
    assert re.search(r'\*\* x@relay\.test .*after initial connection: 554 no smtp service here', alone.log()), alone.log()


def test_helo_after_a_busy_ehlo(martlet, smtp_server):
    s = smtp_server({'EHLO': lambda line, session: "450 I'm busy"})
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}')
    send(m, 'x@relay.test')
    assert len(s.messages) == 1 and any(c.startswith('HELO') for c in s.commands), s.commands


# --- what reports see ---

def test_variables_of_reports(martlet, scratch, smtp_server):
    b = box(scratch)
    for name, text in (('bounce', 'Subject: failed for $bounce_recipient\n****\n'),
                       ('warn', 'Subject: waits $warn_message_delay <$warn_message_recipients>\n****\n')):
        with open(f'{b}/{name}', 'w') as f:
            f.write(text)
    s = smtp_server({'RCPT': lambda line, session: '451 later' if 'late' in line else '550 no'})
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', retry='* * F,1h,1s',
                main=f'bounce_message_file = {b}/bounce\nwarn_message_file = {b}/warn\ndelay_warning = 1s:2s:5h')
    send(m, 'bad@relay.test', sender='u0@local.test')
    assert any(b'Subject: failed for u0@local.test' in x for x in m.mail('u0')), m.logs()
    send(m, 'late@relay.test', sender='u1@local.test')
    wait_for(lambda: m.run('-qf') is not None and m.mail('u1'), m.logs)
    assert b'Subject: waits 0 minutes <u1@local.test>' in m.mail('u1')[0], m.mail('u1')


def test_delay_warning_condition_sees_the_domain(martlet, scratch, smtp_server):
    s = smtp_server({'RCPT': lambda line, session: '451 later'})
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', relay_to='*', retry='* * F,1h,1s',
                main='delay_warning = 1s\ndelay_warning_condition = ${if eq{$domain}{told.test}{yes}{no}}')
    send(m, 'x@quiet.test', sender='u0@local.test')
    send(m, 'x@told.test', sender='u1@local.test')
    wait_for(lambda: m.run('-qf') is not None and m.mail('u1'), m.logs)
    assert m.mail('u0') == []


# --- max_parallel ---

def test_max_parallel_within_a_message(martlet, smtp_server):
    s = smtp_server()
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', relay_to='*', client='max_parallel = 1\n  multi_domain = false')
    send(m, 'x@one.test', 'y@two.test')
    assert len(re.findall('concurrency limit reached for transport', m.log())) == 1 and len(s.messages) == 1, m.log()


# --- events of callouts ---

def test_callouts_raise_events(martlet, smtp_server):
    """As with Debian's Exim: those of the connection, with $verify_mode; what tcp:connect answers keeps from connecting."""
    s = smtp_server()
    m = martlet(arguments=[], relay_to='*', smarthost=f'127.0.0.1::{s.port}',
                acl_rcpt='  defer !verify = recipient/callout=30s,no_cache\n  accept',
                client='event_action = ${if and{{eq{$event_name}{tcp:connect}}{eq{$local_part}{stop}}}{no}{${acl {ev_log}}}}',
                acl='ev_log:\n  accept logwrite = event $event_name mode=$verify_mode host=$host_address')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<x@relay.test>')
        sessions = s.sessions
        c.expect(451, 'RCPT TO:<stop@relay.test>')
        assert s.sessions == sessions
    events = m.wait_log(r'event (\S+) mode=(\S*) host=(\S*)$', count=4)
    assert [e[0] for e in events] == ['tcp:connect', 'smtp:connect', 'smtp:ehlo', 'tcp:close'], m.log()
    assert all(e[1] == 'R' for e in events) and events[0][2] == '127.0.0.1'


# --- queue runs of the daemon ---

def test_queue_runs_are_logged(martlet):
    m = martlet(arguments=['-q1s'], main='worker_processes = 1')
    m.wait_log(r'End queue run: pid=\d+$', count=2)
    runs = re.findall(r' (Start|End) queue run: pid=\d+$', m.log(), re.M)
    assert runs[:4] == ['Start', 'End', 'Start', 'End'], m.log()
    quiet = martlet(arguments=['-q1s'], main='worker_processes = 1\nlog_selector = -queue_run')
    quiet.run('-odq', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nhello\n')
    quiet.wait_log('Completed')  # by a queue run
    assert 'queue run' not in quiet.log()


@pytest.mark.parametrize('option, sessions', [('', 1), ('hosts_noproxy_tls = 127.0.0.1', 1), ('hosts_nopass_tls = *', 2)])
def test_messages_that_share_a_tls_session(martlet, smtp_server, authority, option, sessions):
    hop = smtp_server(tls=authority.issue('hop.test'))
    m = martlet(daemon=False, smarthost='127.0.0.1', client=f'port = {hop.port}\n  hosts_require_tls = *\n  tls_verify_certificates =\n  {option}')
    for user in ('a', 'c'):
        m.run('-odq', '-f', 's@b.test', f'{user}@relay.test', input='Subject: x\n\nx\n')
    m.run('-qqf')
    assert len(hop.messages) == 2 and m.queue() == [], m.logs()
    assert hop.sessions == sessions and all(x['tls'] for x in hop.messages)


@pytest.mark.root
@pytest.mark.parametrize('privileged', [False, True])
def test_what_is_returned_goes_through_a_filter(martlet, scratch, privileged):
    """transport_filter of autoreply: the copy of the message goes through it, not the text of the answer."""
    m = martlet(privileged=privileged, daemon=privileged, routers='away:\n  driver = accept\n  local_parts = u1\n  domains = +local_domains\n  transport = away\n',
                arguments=[], transports='away:\n  driver = autoreply\n  to = $sender_address\n  text = secret answer\n  return_message\n'
                '  log = @DIR@/mail/away.log\n  transport_filter = /bin/sed -e "s/secret/hidden/" -e "s/^Subject:.*/X-Whom: ${local_part_data}/"\n'
                + ('  user = u1\n' if privileged else ''))
    m._own('mail')
    m.run('-odi', '-f', 'u2@local.test', 'u1@local.test', input='Subject: secret subject\n\na secret\nend\n')
    wait_for(lambda: m.mail('u2'), m.logs)
    text = m.mail('u2')[0].decode()
    answer, copy = text.split('------ This is a copy of the message, including all the headers.')
    assert 'secret answer' in answer and 'X-Whom: u1' in copy and 'a hidden\nend\n' in copy and 'secret' not in copy, text


def test_a_filter_of_what_is_returned_that_fails(martlet):
    m = martlet(daemon=False, routers='away:\n  driver = accept\n  local_parts = u1\n  domains = +local_domains\n  transport = away\n',
                transports='away:\n  driver = autoreply\n  to = $sender_address\n  text = away\n  return_message\n  transport_filter = /bin/false\n')
    m.run('-odi', '-f', 'u2@local.test', 'u1@local.test', input='Subject: x\n\nx\n')
    assert re.search(r'== u1@local\.test R=away T=away defer .*returned 1', m.log()), m.logs()
    assert not m.mail('u2') and len(m.queue()) == 1
