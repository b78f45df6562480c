"""Commands and their answers, which Exim gave (tests/commands): rewriting, -bP, -bem, -brt, -bv, -bt …"""
import difflib
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'commands'))
import commands  # noqa: E402
from support.martlet import binary  # noqa: E402

pytestmark = [pytest.mark.root, pytest.mark.plain]


@pytest.mark.parametrize('file', commands.all_files(), ids=lambda f: f.name)
def test_answers(file, scratch):
    place = commands.Place(os.path.join(scratch, 'place'), binary(), 'nobody', 'nogroup')
    place.configure(file.configuration)
    wrong = []
    for c in file.commands:
        got = place.run(c)
        if got != c.answer:
            wrong += [f'{file.name}.txt:{c.number}: $ {c.words}', *difflib.unified_diff(c.answer, got, 'written', 'answered', lineterm='', n=0)]
    assert not wrong, '\n'.join(wrong)
    assert file.commands
