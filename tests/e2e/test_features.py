"""-bI:features and the "Library version:" lines of -d: what is built in, as the parser's tables have it."""
import json
import re
import subprocess

from support.martlet import binary


def run(*args):
    return subprocess.run([binary(), *args], capture_output=True, text=True, timeout=60)


def features():
    """kind -> names, of all modules"""
    ran = run('-bI:features')
    assert (ran.returncode, ran.stderr) == (0, '')
    kinds = {}
    for module in json.loads(ran.stdout).values():
        for kind, names in module.items():
            kinds.setdefault(kind, set()).update(names)
    return kinds


def test_all_that_is_built_in_has_its_macro(tmp_path):
    """What -bI:features lists is what a configuration can ask for with .ifdef."""
    kinds = features()
    empty = tmp_path / 'conf'
    empty.write_text('')
    macros = {line.split('=')[0] for line in run('-C', str(empty), '-bP', 'macros').stdout.splitlines()}
    assert len(macros) > 500
    prefixes = {'main options': '_OPT_MAIN_', 'ACL conditions': '_ACL_COND_', 'ACL modifiers': '_ACL_MOD_', 'variables': '_EXP_VAR_',
                'expansion items': '_EXP_ITEM_', 'lookups': '_HAVE_LOOKUP_', 'log selectors': '_LOG_'}
    wanted = {prefix + name.upper().replace('-', '_') for kind, prefix in prefixes.items() for name in kinds[kind]}
    for kind, names in kinds.items():
        driver = re.fullmatch('(router|transport|authenticator) (\\w+)( options)?', kind)
        if driver:
            wanted |= {f'_OPT_{driver[1]}_{driver[2]}_{name}'.upper() for name in names if name != 'driver'}
    assert len(wanted) > 500
    assert wanted <= macros, wanted - macros


def test_libraries(tmp_path):
    empty = tmp_path / 'conf'
    empty.write_text('')
    ran = run('-C', str(empty), '-d', '-be', '')
    found = dict(re.findall(r'^Library version: (.*?): Compile: .+\n +Runtime: (.+)$', ran.stderr, re.M))
    assert {'libevent', 'PCRE2', 'c-ares', 'LMDB', 'SQLite', 'OpenSSL'} <= set(found)
    assert 'not found' not in found.values()
    support = [line for line in run('-C', str(empty), '-bV').stdout.splitlines() if line.startswith('Support for:')]
    assert support and support[0] in ran.stderr.splitlines()


def test_an_unknown_subject():
    ran = run('-bI:nothing')
    assert ran.returncode == 1 and 'no such subject' in ran.stderr
