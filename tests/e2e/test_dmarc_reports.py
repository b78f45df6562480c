"""DMARC: the history file read by OpenDMARC's import, failure reports, aggregate reports by `martlet dmarc-report`."""
import base64
import email
import gzip
import os
import re
import sqlite3
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from support.databases import MariaDB

pytestmark = [pytest.mark.plain, pytest.mark.root]

ACLS = """
check_data:
  deny condition = ${if match{$h_subject:}{refused}}
       dmarc_status = reject
  warn dmarc_status = !off
  accept logwrite = dmarc <$dmarc_status>
"""
MAIN = 'acl_smtp_data = check_data\ndns_retrans = 20s\ndns_retry = 1\n'
RECORDS = {
    'own.ex': 'v=DMARC1; p=reject; sp=quarantine; np=none; rua=mailto:agg@own.ex,https://own.ex/x, mailto:agg2@sub.own.ex!10m; ruf=mailto:fail@sub.own.ex!1m',
    'away.ex': 'v=DMARC1; p=none; adkim=s; t=y; rua=mailto:a@collect.ex; ruf=mailto:f@collect.ex,mailto:f@silent.ex',
    'silent.ex': 'v=DMARC1; p=none; rua=mailto:a@elsewhere.ex; ruf=mailto:f@elsewhere.ex',
    'dkim.ex': 'v=DMARC1; p=quarantine; ruf=mailto:f@dkim.ex; fo=d', 'both.ex': 'v=DMARC1; p=quarantine; ruf=mailto:f%2Bx@both.ex; fo=d:1',
    'none.ex': 'v=DMARC1; p=reject',
}


@pytest.fixture
def receiving(martlet, nameserver):
    for domain, text in RECORDS.items():
        nameserver.add(f'_dmarc.{domain}', 'TXT', text)
        nameserver.add(domain, 'TXT', 'v=spf1 ip4:192.0.2.1 -all')
    nameserver.add('away.ex._report._dmarc.collect.ex', 'TXT', 'v=DMARC1')

    def start(main='', rcpt='  warn control = dmarc_enable_forensic', **kw):
        return martlet(resolver=nameserver.address, daemon=False, acl=ACLS, acl_rcpt=rcpt, main=MAIN + main, **kw)
    return start


def message(author, subject='x', more=''):
    return f'From: {author}\r\n{more}Message-ID: <{author}>\r\nSubject: {subject}\r\n\r\nsecret body\r\n'.encode()


def send(m, *mails, ip='192.0.2.9'):
    """mails: (envelope sender, message)"""
    text = b''.join(b'MAIL FROM:<%s>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n%s.\r\n' % (s.encode(), x) for s, x in mails)
    return m.run('-odq', '-bs', '-oMa', ip, input=b'EHLO h.ex\r\n' + text + b'QUIT\r\n')


def queued(m, pattern):
    """[(envelope sender, recipients, message)] of what waits for addresses that match."""
    found = []
    listing = m.run('-bp')
    for entry in re.split(r'\n\s*\n', listing.strip()):
        top = re.match(r'\s*\S+\s+\S+ (\S+) <(.*?)>', entry)
        recipients = re.findall(r'^\s+(\S+@\S+)$', entry, re.M)
        if top and any(re.search(pattern, r) for r in recipients):
            found.append((top[2], recipients, email.message_from_string(m.run('-Mvc', top[1]))))
    return found


def test_failure_report(receiving):
    m = receiving('dmarc_forensic_sender = Reports <reports@us.ex>\n')
    send(m, ('bounce@other.ex', message('u@own.ex')), ('bounce@other.ex', message('v@own.ex')), ('', message('u@both.ex')),
         ('x@y.ex', message('u@none.ex')), ('x@y.ex', message('u@dkim.ex')))
    found = queued(m, r'@(sub\.)?own\.ex|both|dkim|none\.ex')
    assert len(found) == 1, m.logs()  # the second about a domain comes too soon, the third is about a bounce
    sender, recipients, report = found[0]
    assert sender == 'reports@us.ex' and recipients == ['fail@sub.own.ex'] and report['From'] == 'Reports <reports@us.ex>'
    assert report.get_content_type() == 'multipart/report' and report.get_param('report-type') == 'feedback-report' and report['Auto-Submitted']
    assert report['References'] == '<u@own.ex>'
    text, feedback, header = report.get_payload()
    assert feedback.get_content_type() == 'message/feedback-report' and header.get_content_type() == 'text/rfc822-headers'
    fields = feedback.get_payload()[0]
    assert fields['Feedback-Type'] == 'auth-failure' and fields['Auth-Failure'] == 'dmarc' and fields['Identity-Alignment'] == 'dkim, spf'
    assert fields['Source-IP'] == '192.0.2.9' and fields['Reported-Domain'] == 'own.ex' and fields['Original-Mail-From'] == '<bounce@other.ex>'
    assert 'dmarc=fail header.from=own.ex' in fields['Authentication-Results'] and fields['Arrival-Date'] and fields['Version'] == '1'
    assert 'Message-ID: <u@own.ex>' in header.get_payload() and 'secret body' not in report.as_string()


def test_destinations_and_options(receiving):
    """Others get reports only if they say so; fo= says about which failures; %2B is a plus."""
    m = receiving()
    send(m, ('b@other.ex', message('u@away.ex')), ('b@other.ex', message('u@silent.ex')), ('b@other.ex', message('u@dkim.ex')),
         ('b@other.ex', message('u@both.ex')), ('b@other.ex', message('u@own.ex', more='Auto-Submitted: auto-replied\r\n')))
    found = queued(m, 'collect|silent|elsewhere|dkim|both|own')
    assert sorted(r for _, r, _ in found) == [['f+x@both.ex'], ['f@collect.ex']] and {s for s, _, _ in found} == {''}, found
    assert all('Mailer-Daemon@' in report['From'] for _, _, report in found)


def test_only_when_asked(receiving):
    m = receiving(rcpt='')
    send(m, ('b@other.ex', message('u@own.ex')))
    assert 'dmarc <reject>' in m.log() and not queued(m, 'own')
    m = receiving(rcpt='  warn control = dmarc_forensic_enable')
    send(m, ('b@other.ex', message('u@own.ex')), ('b@own.ex', message('u@own.ex')))
    assert len(queued(m, 'own')) == 1
    assert m.run('-bV').count('"control = dmarc_forensic_enable" is a deprecated name for "control = dmarc_enable_forensic"') == 1


def test_sender_that_is_none(receiving):
    m = receiving('dmarc_forensic_sender = not an address\n', allow_panic='is not an address')
    send(m, ('b@other.ex', message('u@own.ex')))
    assert not queued(m, 'own') and 'dmarc_forensic_sender "not an address" is not an address' in m.log()


# ---- aggregate reports ----

def store(m):
    return os.path.join(m.directory, 'spool', 'dmarc.sqlite')


AGGREGATE = 'dmarc_report_store = @DIR@/spool/dmarc.sqlite\ndmarc_report_sender = Reports <dmarc@us.ex>\n'


def test_aggregate_report(receiving):
    m = receiving(AGGREGATE, rcpt='')
    send(m, ('b@own.ex', message('u@own.ex')), ('b@own.ex', message('u@own.ex')), ip='192.0.2.1')
    send(m, ('b@other.ex', message('u@own.ex')), ('b@other.ex', message('u@own.ex', 'refused')), ('', message('u@sub.own.ex')),
         ('b@other.ex', message('u@away.ex')), ('b@other.ex', message('u@silent.ex')), ('b@other.ex', message('u@none.ex')))
    dry = m.run('dmarc-report', '--dry-run', '--domain', 'own.ex')
    out = m.run('dmarc-report')
    assert '2 reports sent, 0 failed' in out and 'a@elsewhere.ex does not want reports about silent.ex' in out
    found = {r['Subject'].split()[2]: (s, to, r) for s, to, r in queued(m, 'agg|collect|elsewhere|none.ex')}
    assert sorted(found) == ['away.ex', 'own.ex'] and found['away.ex'][:2] == ('dmarc@us.ex', ['a@collect.ex'])
    sender, recipients, report = found['own.ex']
    assert recipients == ['agg@own.ex', 'agg2@sub.own.ex'] and report['From'] == 'Reports <dmarc@us.ex>'
    assert re.match(r'Report Domain: own\.ex Submitter: mx\.martlet\.test\s+Report-ID: <\S+@mx\.martlet\.test>$', report['Subject'])
    part = report.get_payload()[1]
    assert part.get_content_type() == 'application/gzip'
    assert re.fullmatch(r'mx\.martlet\.test!own\.ex!\d+!\d+\.xml\.gz', part.get_filename())
    text = gzip.decompress(part.get_payload(decode=True)).decode()
    assert re.sub('<report_id>.*', '', text) == re.sub('<report_id>.*', '', dry)
    root = ElementTree.fromstring(text)
    ns = {'d': 'urn:ietf:params:xml:ns:dmarc-2.0'}

    def value(element, path):
        return element.findtext('/'.join('d:' + p for p in path.split('/')), namespaces=ns)
    assert value(root, 'report_metadata/org_name') == 'mx.martlet.test' and value(root, 'report_metadata/email') == 'dmarc@us.ex'
    policy = root.find('d:policy_published', ns)
    assert [(e.tag.split('}')[1], e.text) for e in policy] == [
        ('domain', 'own.ex'), ('discovery_method', 'treewalk'), ('p', 'reject'), ('sp', 'quarantine'), ('np', 'none'), ('testing', 'n'),
        ('adkim', 'r'), ('aspf', 'r'), ('fo', '0')]
    rows = sorted((value(r, 'row/source_ip'), value(r, 'row/count'), value(r, 'row/policy_evaluated/disposition'), value(r, 'row/policy_evaluated/dkim'),
                   value(r, 'row/policy_evaluated/spf'), value(r, 'row/policy_evaluated/reason/type') or '', value(r, 'identifiers/header_from'),
                   value(r, 'auth_results/spf/scope'), value(r, 'auth_results/spf/result')) for r in root.findall('d:record', ns))
    assert rows == sorted([('192.0.2.1', '2', 'none', 'fail', 'pass', '', 'own.ex', 'mfrom', 'pass'),
                           ('192.0.2.9', '1', 'none', 'fail', 'fail', 'local_policy', 'own.ex', 'mfrom', 'none'),
                           ('192.0.2.9', '1', 'reject', 'fail', 'fail', '', 'own.ex', 'mfrom', 'none'),
                           ('192.0.2.9', '1', 'none', 'fail', 'fail', '', 'sub.own.ex', 'helo', 'none')]), rows
    assert sqlite3.connect(store(m)).execute('select count(*) from results').fetchone() == (0,)
    assert '0 reports sent, 0 failed' in m.run('dmarc-report')


def test_until_and_hostile_text(receiving, nameserver):
    """Results that come later wait for the next report; what is foreign cannot break the XML."""
    nameserver.add('_dmarc.odd.ex', 'TXT', 'v=DMARC1; p=none; fo=<&"; rua=mailto:a@odd.ex')
    m = receiving(AGGREGATE, rcpt='')
    send(m, ('"<&>"@odd.ex', message('u@odd.ex')), ('x@y.ex', message('u@odd.ex')))
    assert '0 reports sent' in m.run('dmarc-report', '--until', '1000')
    root = ElementTree.fromstring(m.run('dmarc-report', '--dry-run'))
    assert root[2].findtext('{*}fo') == '<&"' and len(root) >= 4


def test_progress_on_a_terminal(receiving):
    import pty
    m = receiving(AGGREGATE, rcpt='')
    send(m, ('b@other.ex', message('u@own.ex')), ('b@other.ex', message('u@away.ex')))
    ours, theirs = pty.openpty()
    subprocess.run(m._command(['-C', m.conf, 'dmarc-report']), stderr=theirs, stdout=subprocess.PIPE, check=True, timeout=60)
    os.close(theirs)
    shown = ''
    try:
        while piece := os.read(ours, 10000):
            shown += piece.decode()
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert '[' + ' ' * 30 + '] 0/2 away.ex' in shown and '[' + '#' * 30 + '] 2/2' in shown


@pytest.mark.parametrize('arguments, error', [
    (['--what'], 'usage'), (['--until', 'x'], 'usage'), (['--store', '/nonexistent/x'], 'unable to open'), ([], 'dmarc_report_store is not set')])
def test_wrong_use(receiving, arguments, error):
    done = receiving().run('dmarc-report', *arguments, check=False, tool=True)
    assert done.returncode == 1 and error in done.stdout


def test_store_that_cannot_be_written(receiving):
    m = receiving('dmarc_report_store = /nonexistent/x\n', allow_panic='not stored')
    send(m, ('b@other.ex', message('u@own.ex')))
    assert 'DMARC: result not stored in /nonexistent/x: unable to open database file' in m.log() and 'dmarc <reject>' in m.log()


# ---- OpenDMARC ----

def mysql(db, statement, *options):
    return subprocess.run(['mariadb', '--no-defaults', '-h127.0.0.1', f'-P{db.port}', '-uuser', '-psecret', '-N', *options], input=statement,
                          capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(MariaDB.program is None or not os.path.exists('/usr/sbin/opendmarc-import'), reason='no opendmarc or MariaDB is installed')
def test_opendmarc_imports_the_history(receiving, make):
    m = receiving('dmarc_history_file = @DIR@/spool/history\n')
    send(m, ('b@own.ex', message('u@own.ex')), ip='192.0.2.1')
    arc = 'ARC-Seal: i=1; a=rsa-sha256; cv=none; d=s.ex; s=sel; b=AAAA\r\n'
    signed = 'DKIM-Signature: v=1; a=rsa-sha256; d=d.ex; s=sel; h=from; bh=AAAA; b=AAAA\r\n'
    send(m, *[('b@other.ex', message(f'u@{d}', more=arc + signed)) for d in ('own.ex', 'away.ex', 'none.ex', 'nothing.ex', 'x.y.own.ex')] * 4)
    with open(os.path.join(m.directory, 'spool', 'history')) as f:
        history = f.read()
    assert history.count('job ') == 21 and '\n\n' not in history
    db = make(MariaDB)
    schema = open('/usr/share/dbconfig-common/data/opendmarc/install/mysql').read()
    schema = re.sub(r'(?im)^(CREATE DATABASE|USE|CREATE USER|GRANT) .*?;\s*$', '', schema)
    mysql(db, schema, 'test')

    def imported(text):
        done = subprocess.run(['/usr/sbin/opendmarc-import', '--dbhost=127.0.0.1', f'--dbport={db.port}', '--dbname=test', '--dbuser=user', '--dbpasswd=secret'],
                              input=text, capture_output=True, text=True, timeout=120)
        if "Can't locate" in done.stderr:
            pytest.skip('opendmarc-import lacks a module of Perl')
        assert done.returncode == 0, done.stderr
        return done.stderr
    assert imported(history) == ''
    assert mysql(db, 'select count(*) from messages', 'test').strip() == '21'
    rows = mysql(db, 'select d.name, r.policy, r.spolicy, r.adkim, r.aspf, r.repuri from requests r join domains d on r.domain = d.id order by 1', 'test')
    assert 'own.ex\t114\t113\t114\t114\tmailto:agg@own.ex' in rows and 'away.ex\t110\t0\t115\t114\tmailto:a@collect.ex' in rows, rows
    assert mysql(db, 'select count(*), min(pass) from signatures', 'test').split()[0] == '20'
    assert mysql(db, 'select count(*) from messages where align_spf = 4 and policy = 15', 'test').strip() == '1'
