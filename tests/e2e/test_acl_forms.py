"""Every form of conditions, controls and modifiers that the manual's chapter on ACLs names is taken and run; what -bh shows of it is
what Debian's Exim shows."""
import re

import pytest

# (clause, what RCPT is answered when a statement is "accept" with this clause and the next one denies).
TRUE, FALSE, EITHER = [250], [550], [250, 550]
FORMS = [
    # conditions
    ('acl = nested', TRUE), ('acl = nested one two', TRUE), ('acl = ${if eq{a}{a}{accept}{deny}}', TRUE), ('!acl = nested', FALSE),
    ('authenticated = *', FALSE), ('!authenticated = *', TRUE), ('condition = yes', TRUE), ('condition = 0', FALSE), ('condition = ${if eq{1}{2}}', FALSE),
    ('domains = dom.test', TRUE), ('domains = ! dom.test', FALSE), ('encrypted = *', FALSE), ('hosts = 192.0.2.0/24', TRUE),
    ('hosts = <; ! 192.0.2.7 ; 0.0.0.0/0', FALSE), ('local_parts = ^f', TRUE), ('recipients = *@dom.test', TRUE), ('senders = a@b.test', TRUE),
    ('sender_domains = b.test', TRUE), ('senders = :', FALSE),
    # dnslists: without a name server's answer they do not match
    ('dnslists = 127.0.0.1/none.invalid', EITHER), ('!dnslists = a.invalid,b.invalid=127.0.0.2,127.0.0.3 : c.invalid', EITHER),
    ('dnslists = a.invalid!=127.0.0.1 : a.invalid&0.0.0.8', EITHER), ('dnslists = a.invalid==127.0.0.2,127.0.0.3 : a.invalid=&3', EITHER),
    ('dnslists = a.invalid!==127.0.0.2 : a.invalid!=&0.0.0.1', EITHER), ('dnslists = a.invalid/$sender_address_domain : b.invalid/<|x.test|y.test', EITHER),
    ('dnslists = +include_unknown : a.invalid', EITHER), ('dnslists = +exclude_unknown : +defer_unknown : a.invalid/x', [250, 550, 451]),
    # ratelimit
    ('ratelimit = 5 / 1h', FALSE), ('ratelimit = 5 / 1h / per_mail', FALSE), ('ratelimit = 5 / 1h / per_mail / strict / $sender_address', FALSE),
    ('ratelimit = 5 / 1h / per_conn / leaky', FALSE), ('ratelimit = 5 / 1h / per_byte / noupdate', FALSE), ('ratelimit = 5k / 1h / per_byte', FALSE),
    ('ratelimit = 5 / 1h / per_rcpt / readonly', FALSE), ('ratelimit = 5 / 1h / per_rcpt / one', FALSE), ('ratelimit = 5 / 1h / per_addr / two', FALSE),
    ('ratelimit = 5 / 1h / per_cmd / three', FALSE), ('ratelimit = 0 / 1h / per_cmd / strict / four', EITHER),
    ('ratelimit = 5 / 1h / per_cmd / count=10 / strict / five', TRUE), ('ratelimit = 5.5 / 30m / per_mail / unique=$local_part / six', FALSE),
    ('ratelimit = 1K / 2d / per_cmd / unique=x / count=2 / leaky / seven', FALSE), ('ratelimit = ${eval:2+3} / 1h / strict / eight', FALSE),
    # seen
    ('seen = -1h', FALSE), ('seen = 1h / key=one', FALSE), ('seen = -5m / key=${sender_host_address}_$local_part@$domain', FALSE),
    ('seen = 1h / key=two / readonly', FALSE), ('seen = -1h / key=three / write', FALSE), ('seen = -1h / key=four / refresh=2d', FALSE),
    # verify
    ('verify = sender', TRUE), ('verify = sender/no_details', TRUE), ('verify = sender=x@dom.test', TRUE), ('verify = sender=x@dom.test/defer_ok', TRUE),
    ('verify = recipient', TRUE), ('verify = recipient/defer_ok/callout_defer_ok', TRUE), ('verify = recipient/callout', TRUE),
    ('verify = recipient/callout=10s,connect=5s,maxwait=20s,defer_ok', TRUE),
    ('verify = recipient/callout=no_cache,random,postmaster_mailfrom=p@b.test', TRUE), ('verify = sender/callout=fullpostmaster', TRUE),
    ('verify = recipient/callout=use_sender,hold', TRUE), ('verify = recipient/callout=use_postmaster', TRUE), ('verify = sender/callout=postmaster', TRUE),
    ('verify = recipient/quota', EITHER), ('verify = recipient/quota=cachepos=1h,cacheneg=1d', EITHER),
    ('verify = recipient/success_on_redirect', TRUE), ('verify = helo', FALSE), ('verify = certificate', FALSE), ('verify = csa', EITHER),
    ('verify = csa/$sender_helo_name', EITHER), ('verify = reverse_host_lookup', EITHER), ('verify = reverse_host_lookup/defer_ok', EITHER),
    # controls
    *[('control = ' + c, TRUE) for c in '''caseful_local_part|caselower_local_part|cutthrough_delivery|cutthrough_delivery/defer=pass|
      cutthrough_delivery/defer=spool|debug/tag=.$sender_host_address/opts=+acl|debug/opts=+all/pretrigger=1024/trigger=paniclog|debug/trigger=now|debug/kill|
      dkim_disable_verify|dmarc_disable_verify|dscp/ef|dscp/46|enforce_sync|no_enforce_sync|fakedefer|fakedefer/later please|fakereject|fakereject/no thanks|freeze|
      freeze/no_tell|no_mbox_unspool|no_multiline_responses|no_pipelining|no_delay_flush|no_callout_flush|queue|queue/first_pass_route|queue_only|
      queue_only/first_pass_route|submission|submission/sender_retain|submission/domain=|submission/domain=some.test|
      submission/name=A B/sender_retain|suppress_local_fixups|utf8_downconvert|utf8_downconvert/1|utf8_downconvert/0|utf8_downconvert/-1'''.replace('\n', '').split('|')],
    ('control = allow_auth_unadvertised', [451]),  # not for RCPT
    # modifiers
    ('add_header = X-A: b', TRUE), ('add_header = :after_received: X-A: c\\nX-B: d', TRUE), ('add_header = :at_start:X-C: e', TRUE),
    ('add_header = :at_start_rfc: X-D: f', TRUE), ('add_header = :at_end:X-E: g', TRUE), ('remove_header = x-one : x-two', TRUE), ('remove_header = ^x-', TRUE),
    ('continue = ${if eq{a}{b}}', TRUE), ('delay = 0s', TRUE), ('delay = ${eval:0}s', TRUE), ('endpass', TRUE), ('log_message = x', TRUE), ('log_reject_target = main:reject', TRUE),
    ('log_reject_target =', TRUE), ('logwrite = :main,reject: text', TRUE), ('logwrite = :panic: text', TRUE), ('logwrite = text', TRUE),
    ('message = 250 2.1.5 fine', TRUE), ('queue = other', TRUE), ('set acl_c0 = 1', TRUE), ('set acl_m_x = $acl_arg1', TRUE),
    ('udpsend = 127.0.0.1:9:text', TRUE), ('udpsend = <; 127.0.0.1 ; 9 ; 3 ; text', TRUE),
]
CONF = '''primary_hostname = mx.test
spool_directory = {d}
log_file_path = {d}/%slog
host_lookup =
rfc1413_query_timeout = 0s
recipients_max = 0
tls_advertise_hosts =
dns_retry = 1
dns_retrans = 1s
dns_again_means_nonexist = *
acl_smtp_rcpt = rcpt
keep_environment =
begin acl
nested:
{nested}
rcpt:
{forms}
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  file = {d}/box
  user = nobody
begin retry
'''


def configuration(directory, forms, nested='  accept'):
    return CONF.format(d=directory, forms=forms, nested=nested)


def session(forms):
    # Some controls are for a whole message: each form in a transaction of its own.
    lines = ['EHLO client.test']
    for n in range(len(forms)):
        lines += ['MAIL FROM:<a@b.test>', f'RCPT TO:<f{n}@dom.test>', 'RSET']
    return '\r\n'.join(lines + ['QUIT', ''])


def answers(text):
    """The last lines of the replies."""
    return [line for line in text.replace('\r', '').split('\n') if re.match(r'\d\d\d ', line)]


@pytest.mark.parametrize('part', range(4))
def test_forms(martlet, part):
    forms = FORMS[part::4]
    statements = ''.join(f'  accept local_parts = f{n}\n         {clause}\n' for n, (clause, _) in enumerate(forms))
    m = martlet(daemon=False, configuration=configuration('@DIR@', statements), arguments=[])
    m.start()
    out = m.run('-bh', '192.0.2.7', input=session(forms), timeout=280)
    got = [a for a in answers(out)[2:-1]]
    assert len(got) == 3 * len(forms), out[-3000:]
    wrong = [(clause, got[3 * n + 1]) for n, (clause, wanted) in enumerate(forms) if int(got[3 * n + 1][:3]) not in wanted]
    assert not wrong, wrong


# ---- -bh and -bhc beside Exim's ----

BH_ACL = '''
  warn   set acl_m_who = ${lc:$sender_address}
         logwrite = $acl_m_who asks
  deny   local_parts = no
         message = not for $local_part
         log_message = refused because
  defer  local_parts = later
  drop   local_parts = drop
  warn   hosts = 192.0.2.0/24 : 198.51.100.0/24
         !senders = *@b.test
         add_header = X-Seen: yes
  accept domains = dom.test
         acl = nested a b
         endpass
         verify = recipient
  deny   hosts = !192.0.2.9
'''
NESTED = '  accept condition = ${if eq{$acl_arg1}{a}}'
BH_SESSION = '''EHLO client.test
MAIL FROM:<A@b.test>
RCPT TO:<no@dom.test>
RCPT TO:<later@dom.test>
RCPT TO:<yes@dom.test>
RCPT TO:<yes@elsewhere.test>
DATA
Subject: x

text
.
VRFY yes@dom.test
HELP
MAIL FROM:<b@c.test> SIZE=100
RCPT TO:<drop@dom.test>
'''


def shown(text):
    """The replies, the log lines, and the ACLs' course. Left out: lists and routing, times, ids, sizes, files' names; quotes around names
    of ACLs and the indentation of nested ones, which differ between versions."""
    kept = []
    for line in text.replace('\r', '').split('\n'):
        line = re.sub(r'\(/\S+ (\d+)\)', r'(line \1)', line)
        line = re.sub(r'id=\S+|S=\d+|\w{6}-\w{6,11}-\w{2,4}|Martlet \S+|Exim \S+|\w{3}, \d+ \w{3} .*', '~', line)
        line = line.replace('LOG: ~ H=', 'LOG: H=').replace('LOG: ~ b@', 'LOG: b@')  # Exim keeps the id of the message before
        line = re.sub(r'^>>>  (?=using|proc|check|accept|end)', '>>> ', line)
        line = re.sub(r'^>>>  +(?== )', '>>> ', line)
        line = re.sub(r'^>>> processing (ACL \S+ )?', '>>> processing ', line)
        line = re.sub(r'\bACL "?(\w+)"?', r'ACL \1', line)
        if re.match(r'\d\d\d[ -]', line) or line.startswith('LOG:') or \
                re.match(r'>>> ( *message:|l_message|(processing|check|using ACL|end of ACL|=) |\w+: condition test)', line):
            kept.append(line.rstrip())
    return kept


@pytest.mark.parametrize('mode', ['-bh', '-bhc'])
def test_bh_beside_exim(martlet, exim, mode):
    m = martlet(daemon=False, configuration=configuration('@DIR@', BH_ACL, NESTED))
    e = exim()
    e.place.etc('exim4/exim4.conf', configuration('/var/spool/exim4', BH_ACL, NESTED).replace('/var/spool/exim4/%s', '/var/log/exim4/%s'))
    ours = shown(m.run(mode, '192.0.2.7', input=BH_SESSION.replace('\n', '\r\n')))
    theirs = shown(e.exim(mode, '192.0.2.7', input=BH_SESSION.replace('\n', '\r\n')))
    ours = [x for x in ours if not x.startswith('250-LIMITS ')] # newer than theirs
    assert ours == theirs
    text = m.run(mode, '192.0.2.7', input='QUIT\r\n')
    for line in ('**** SMTP testing session as if from host 192.0.2.7', '**** but without any ident (RFC 1413) callback.', '**** This is not for real!'):
        assert line in text
