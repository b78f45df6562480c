"""A misspelt word of an ACL: Exim's text, then the nearest word."""
import os
import subprocess

import pytest

from support.martlet import binary


def refused(scratch, acl):
    path = os.path.join(scratch, 'conf')
    with open(path, 'w') as f:
        f.write(f'begin acl\na:\n{acl}\n')
    done = subprocess.run([binary(), '-C', path, '-bV'], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize('acl, text, near', [
    (' denny hosts = *', 'unknown ACL verb "denny" in "denny hosts = *"', 'deny'),
    (' deny hossts = *', 'unknown ACL condition/modifier in "deny hossts = *"', 'hosts'),
    (' deny !mesage = x', 'unknown ACL condition/modifier in "deny !mesage = x"', 'message'),
    (' accept\n wran message = x', 'unknown ACL condition/modifier in "wran message = x"', 'warn'),
    (' warn\n malwear = *', 'unknown ACL condition/modifier in "malwear = *"', 'malware'),
    (' warn control = freze/no_tell', 'unknown control "freze"', 'freeze'),
    (' deny verify = recipent/callout', 'at start of ACL condition "verify recipent/callout"', 'recipient')])
def test_near_words(scratch, acl, text, near):
    assert f'{text}\n  (did you mean "{near}"?)\n' in refused(scratch, acl)


@pytest.mark.parametrize('acl, text', [
    (' zzz hosts = *', 'unknown ACL verb "zzz" in "zzz hosts = *"'),
    (' deny something_else = *', 'unknown ACL condition/modifier in "deny something_else = *"'),
    (' warn wran = x', 'unknown ACL condition/modifier in "warn wran = x"'),  # a verb has no "="
    (' warn control = something_else', 'unknown control "something_else"')])
def test_nothing_near(scratch, acl, text):
    error = refused(scratch, acl)
    assert text + '\n' in error and 'did you mean' not in error


def test_logs_have_one_line(martlet):
    m = martlet(daemon=False, acl_rcpt='  warn acl = deny hossts = *\n  accept\n', allow_panic='.')
    m.run('-bs', '-oMa', '192.0.2.1', input='HELO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nQUIT\r\n')
    assert 'unknown ACL condition/modifier in "deny hossts = *"\n' in m.log() and 'did you mean' not in m.log()
