"""What an expansion or a configuration may cost at most, and what is said when it would cost more."""
import os
import subprocess
import threading

import pytest

from support.martlet import binary

pytestmark = pytest.mark.plain

A_THOUSAND = ':'.join(['a'] * 1000)


@pytest.fixture
def expand(tmp_path):
    def run(*expressions, main='', status=0):
        conf = tmp_path / 'conf'
        conf.write_text(f'primary_hostname = host.test\nspool_directory = {tmp_path}/spool\n{main}\n')
        done = subprocess.run([binary(), '-C', str(conf), '-be', *expressions], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=280)
        assert done.returncode == status, done.stderr[-2000:]
        return done.stdout.decode().splitlines() if status == 0 else done.stderr.decode()
    tmp_path.chmod(0o755)
    return run


def nested(levels, form, innermost, items=A_THOUSAND):
    text = innermost
    for _ in range(levels):
        text = form.replace('LIST', items).replace('INNER', text)
    return text


def test_work_is_bounded(expand):
    """Conditions and maps inside of each other, that would take for ever and leave nothing behind."""
    for form, innermost in (('${if forany{LIST}{eq{INNER}{b}}{x}{a}}', '$item'),
                            ('${reduce{LIST}{}{${length_1:INNER}}}', '${lc:$item}')):
        out = expand(nested(5, form, innermost))
        assert len(out) == 1 and 'takes more than 5000000 steps' in out[0] or 'more than 256 MiB of memory' in out[0], out[0][:300]


def test_results_are_bounded(expand):
    out = expand(nested(3, '${map{LIST}{INNER}}', '$item$item'))
    assert out[0].startswith('Failed: ') and (
        'expansion result is too long' in out[0] or 'of memory' in out[0] or 'steps' in out[0]), out[0][:300]


def test_depth_is_bounded(expand):
    assert expand('${lc:' * 1000 + 'x' + '}' * 1000) == ['Failed: expansion is nested too deeply']
    assert expand('${if !eq{a}{b}{' * 300 + 'x' + '}}' * 300) == ['Failed: expansion is nested too deeply']


def test_matching_is_bounded(expand):
    """A pattern that backtracks without end."""
    subject = 'a' * 200 + 'b'
    for text in (r'${if match{%s}{\N^(a+)+$\N}{y}{n}}', r'${sg{%s}{\N^(a|aa|a?)+$\N}{x}}'):
        assert expand(text % subject)[0].startswith('Failed: matching takes more steps or memory than allowed')


def test_files_are_bounded(expand, tmp_path):
    assert expand('${strlen:${readfile{/dev/zero}}}') == ['Failed: /dev/zero is too big for readfile']
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe, 0o644)
    pipe.chmod(0o644)

    def writer():
        with open(pipe, 'w') as f:
            f.write('from a pipe')
    thread = threading.Thread(target=writer, daemon=True)
    thread.start()
    assert expand(f'${{readfile{{{pipe}}}}}') == ['from a pipe']
    thread.join()


def test_output_of_programs_is_bounded(expand):
    assert expand('${strlen:${run{/bin/cat /dev/zero}}}') == ['Failed: command output is too long']


def test_macros_are_bounded(expand):
    """Each macro twice the one before: more text than there is memory for."""
    macros = ['M00 = ' + 'x' * 1000] + [f'M{n:02} = M{n - 1:02} M{n - 1:02}' for n in range(1, 60)]
    said = expand('x', main='\n'.join(macros) + '\nsmtp_banner = M59', status=1)
    assert 'too long' in said or 'more than' in said, said[:500]


def test_inclusion_is_bounded(expand, tmp_path):
    loop = tmp_path / 'loop'
    loop.write_text(f'.include {loop}\n.include {loop}\n')
    loop.chmod(0o644)
    said = expand('x', main=f'.include {loop}', status=1)
    assert 'nested' in said or 'too deep' in said or 'too many' in said, said[:500]
