"""Content scanning beside Exim 4.96: what an ACL file that worked there needs here, too."""
import os
import struct

import pytest

from support import scanners

pytestmark = pytest.mark.plain

TWO_PARTS = ('From: a@b.test\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nfirst\n'
             '--b\nContent-Type: text/html\n\nsecond, longer\n--b--\n')


def smtp(martlet, data, *arguments, **options):
    m = martlet(daemon=False, **options)
    command = 'EHLO x\nMAIL FROM:<a@b.test>\nRCPT TO:<u0@local.test>\nDATA\n' + data + '.\nQUIT\n'
    return m, m.run(*(arguments or ('-odq', '-bs', '-oMa', '192.0.2.1')), input=command.replace('\n', '\r\n'), check=False).stdout


def logged(m, start):
    return [line.split(start, 1)[1] for line in m.log().split('\n') if start in line]


def test_decode_into_one_name(martlet):
    """A file of that name is overwritten by the next part's."""
    m, out = smtp(martlet, TWO_PARTS, main='acl_smtp_mime = mime\n', acl='''mime:
  warn decode = same
       logwrite = part $mime_part_count ${readfile{$mime_decoded_filename}{/}}
  accept
''')
    assert '250 OK id=' in out
    assert logged(m, ' part ')[1:] == ['1 first/', '2 second, longer/']


def test_decode_follows_no_symbolic_link(martlet, scratch):
    victim, link = os.path.join(str(scratch), 'victim'), os.path.join(str(scratch), 'link')
    with open(victim, 'w') as f:
        f.write('mine')
    os.symlink(victim, link)
    m, out = smtp(martlet, TWO_PARTS, main='acl_smtp_mime = mime\n', acl=f'mime:\n  warn decode = {link}\n  accept\n', allow_panic='cannot write')
    assert open(victim).read() == 'mine' and 'decode: cannot write' in m.log()


def test_decode_with_an_empty_word(martlet):
    m, out = smtp(martlet, TWO_PARTS, main='acl_smtp_mime = mime\n', acl='mime:\n  warn decode = ${if eq{a}{b}{x}}\n'
                  '       logwrite = size $mime_content_size\n  accept\n')
    assert logged(m, ' size ') == ['1', '1', '1']


def test_last_expression_that_matches(martlet):
    m, out = smtp(martlet, 'Subject: x\n\nan apple and a pear\n', main='acl_smtp_data = data\n', acl='''data:
  warn regex = app(.)e : pe(.)r
       logwrite = match <$regex_match_string> <$regex1>
  accept
''')
    assert logged(m, ' match ') == ['<pe(.)r> <a>']


@pytest.mark.parametrize('control, mark', [('fakereject', '(='), ('fakedefer', '<='), ('no_mbox_unspool', '<=')])
def test_one_mime_acl_for_both_kinds(martlet, control, mark):
    """Controls about replies and files do no harm to messages of local users."""
    m = martlet(daemon=False, main='acl_not_smtp_mime = mime\n', acl=f'mime:\n  accept control = {control}\n')
    m.run('-odq', '-f', 'a@b.test', 'u0@local.test', input=TWO_PARTS)
    assert f' {mark} a@b.test' in m.log()


def test_queued_by_acl_is_logged_for_local_users(martlet):
    m = martlet(daemon=False, main='acl_not_smtp = local\n', acl='local:\n  accept control = queue_only\n')
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nx\n')
    assert 'no immediate delivery: queued by ACL' in m.log() and '=>' not in m.log()


def test_batch_is_told_the_acls_words(martlet):
    m, out = smtp(martlet, 'Subject: x\n\nx\n', '-odq', '-bS', main='acl_not_smtp = local\n', acl='local:\n  deny message = infected\n')
    assert '\n550 infected\n' in out and 'non-SMTP ACL' not in out


CLAMD = 'acl_smtp_data = data\nav_scanner = %s\n'


def test_argument_of_malware(martlet, stub):
    """A bad expression is told before anybody is asked; tmo=0s is the usual time; a scanner's name may be in capitals."""
    def clamd(c):
        c.until(b'\n')
        c.send(b'/x: Eicar FOUND\n')
    server = stub(clamd)
    for argument, reply, log in (('(', '451', "regular expression error in '('"), ('*/tmo=x', '451', "bad timeout value in 'tmo=x'"),
                                 ('*/tmo=0s', '550 found Eicar', ''), ('((/defer_ok', '250 OK', "regular expression error in '(('")):
        asked = len(server.requests)
        m, out = smtp(martlet, 'Subject: x\n\nx\n', main=CLAMD % f'CLAMD:{server.address}:local', allow_panic='regular expression',
                      acl=f'data:\n  deny malware = {argument}\n       message = found $malware_name\n  accept\n')
        assert f'\r\n{reply}' in out.split('354 ')[1] and log in m.log()
        assert ('found' in reply) == (len(server.requests) > asked)


def test_name_that_ends_with_zero(martlet, stub):
    """A daemon written in C may send it: neither the reply nor the log are cut short."""
    def drweb(c):
        c.sock.recv(1)
        text = b'infected with Eicar\0'
        c.send(struct.pack('>III', 0x20, 1, len(text)) + text)
        c.all()
    server = stub(drweb)
    m, out = smtp(martlet, 'Subject: x\n\nx\n', main=f'acl_smtp_data = data\nav_scanner = drweb:{server.address}\n',
                  acl='data:\n  deny malware = *\n       message = found $malware_name here\n  accept\n')
    assert '550 found Eicar here' in out and 'rejected after DATA: found Eicar here' in m.log()


def test_spamd_with_the_scores_above_the_report(martlet, stub):
    def spamd(c):
        c.all()
        c.send('SPAMD/1.1 0 EX_OK\r\nContent-length: 20\r\n\r\n5.6/5.0\r\nthe report\r\n')
    server = stub(spamd)
    m, out = smtp(martlet, 'Subject: x\n\nx\n', main=f'acl_smtp_data = data\nspamd_address = {server.address}\n',
                  acl='data:\n  deny spam = joe\n       message = $spam_score_int $spam_action $spam_report\n  accept\n')
    assert '550 56 reject the report' in out


def test_rspamd_is_told_the_clients_name(martlet, stub, nameserver):
    """The name is looked up for it."""
    nameserver.add('1.2.0.192.in-addr.arpa', 'PTR', 'client.test')
    nameserver.add('client.test', 'A', '192.0.2.1')
    seen = []

    def rspamd(c):
        seen.append(c.until(b'\r\n\r\n'))
        c.send('RSPAMD/1.3 0 EX_OK\r\nMetric: default; False; 1.0 / 5.0 / 30.0\r\nAction: no action\r\n')
    server = stub(rspamd)
    smtp(martlet, 'Subject: x\n\nx\n', resolver=nameserver.address, main=f'acl_smtp_data = data\ndns_retrans = 20s\nspamd_address = {server.address} variant=rspamd\n',
         acl='data:\n  warn spam = joe\n  accept\n')
    assert b'\r\nHostname: client.test\r\n' in seen[0]
