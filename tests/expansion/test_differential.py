"""The corpus of expansions: Martlet against the recorded results of Debian's Exim, and these against a live one."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import corpus       # noqa: E402
import evaluate     # noqa: E402
import generate     # noqa: E402
from support import place                   # noqa: E402
from support.martlet import binary          # noqa: E402

LEAST = 10000


def compare(name, results, differences):
    """The lines whose results are not the wanted ones, as text."""
    entries, _ = corpus.read(corpus.path_of(name))
    assert len(entries) == len(results)
    wrong = []
    for e, got in zip(entries, results):
        wanted = differences.get(e.expression, e).result
        if got != wanted:
            wrong.append(f'{e.expression}\n    = {wanted}\n    ~ {got}')
    return '\n'.join(wrong)


def expressions(name):
    return [e.expression for e in corpus.read(corpus.path_of(name))[0]]


@pytest.fixture
def directory(tmp_path):
    for path in [tmp_path, *list(tmp_path.parents)[:2]]:
        if os.stat(path).st_uid == os.geteuid() and 'pytest' in str(path):
            path.chmod(0o755)
    return evaluate.prepare(tmp_path / 'corpus')


@pytest.mark.parametrize('name', corpus.names())
def test_expansions_are_those_of_exim(name, directory):
    results = evaluate.evaluate(evaluate.plain_run, binary(), directory, name, expressions(name))
    assert compare(name, results, corpus.differences()) == ''


@pytest.mark.parametrize('name', corpus.names())
def test_recorded_results_are_those_of_a_live_exim(name, directory, tmp_path):
    peers = os.environ.get('MARTLET_PEERS', os.path.join(os.path.dirname(corpus.HERE), '..', 'build', 'peers'))
    if not os.path.exists(os.path.join(peers, 'exim.complete')) or not place.available():
        pytest.skip('no Exim is there to compare with (scripts/peers.sh), or no root')
    peer = evaluate.Peer(peers, tmp_path / 'place')
    try:
        results = evaluate.evaluate(peer.run, '/usr/sbin/exim4', directory, name, expressions(name))
    finally:
        peer.stop()
    assert compare(name, results, {}) == ''


def test_the_generator_writes_what_is_recorded():
    for name in generate.FILES:
        assert expressions('generated-' + name) == list(generate.lines(name)), 'differential --generate, then --record'


def test_the_corpus_is_whole():
    entries = [e for name in corpus.names() for e in corpus.read(corpus.path_of(name))[0]]
    assert all(e.result is not None for e in entries)
    assert len({e.expression for e in entries}) >= LEAST


def test_differences_are_differences():
    """None that is not in the corpus, or no longer differs."""
    recorded = {}
    for name in corpus.names():
        for e in corpus.read(corpus.path_of(name))[0]:
            recorded.setdefault(e.expression, set()).add(e.result)
    for expression, e in corpus.differences().items():
        assert expression in recorded and e.result not in recorded[expression], e.file + ': ' + expression


def test_the_documentation_names_each_kind_of_difference():
    with open(os.path.join(os.path.dirname(corpus.HERE), '..', 'docs', 'expansions-exim.md')) as f:
        page = f.read()
    for kind in 'newer', 'purpose':
        entries, _ = corpus.read(os.path.join(corpus.HERE, f'differences-{kind}.txt'))
        reasons = [line[2:] for e in entries for line in e.comment if line.startswith('# ')][1:]
        assert reasons and all('- ' + reason in page for reason in reasons), reasons
