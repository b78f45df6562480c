"""Expansions and lookups: the same lines for `-be` on the standard input of Martlet and of Debian's Exim.

What a run costs without any line is measured beside it and taken off, so that the rates are those of the lines alone. Both
programs run in one place, with one configuration and one output (a file each, which must be equal).
"""
import os
import statistics
import subprocess
import time

from support.place import Place
from support.util import read, write

MAIN = '''
primary_hostname = mx.example.org
qualify_domain = example.org
exim_user = Debian-exim
exim_group = Debian-exim
log_file_path = {d}/%slog
spool_directory = {d}/spool
keep_environment =
domainlist local_domains = example.org : *.example.org : example.net
hostlist relay_from_hosts = 127.0.0.1 : 10.0.0.0/8 : 192.168.0.0/16
'''

# What an ACL asks of a recipient: is the domain ours, may the host relay, does its name look like a dial-up line's, is the
# sender on a list, does a rule for the user change the address, which limit holds. Variables, five conditions in lists and
# groups, regular expressions, a lookup, extract, sg, filter, map; nested as policies are.
POLICY = (r'${if and{{match_domain{mail.example.org}{+local_domains}}{!match_ip{192.0.2.17}{+relay_from_hosts}}'
          r'{!match{mx17.$qualify_domain}{\N(?i)^(dsl|dyn|dial|pool|ppp|cable|[0-9]+[-.][0-9]+[-.])[a-z0-9.-]*\.[a-z]+$\N}}'
          r'{!inlisti{Offers@Spam.Example}{spammer@example.com : offers@bulk.example : win@lottery.example}}'
          r'{!forany{mail.example.net : relay.example.com : $primary_hostname}{match{$item}{\N^(localhost|.*\.localdomain|\[)\N}}}'
          r'{or{{eqi{$primary_hostname}{backup.example.org}}{match{${lc:Sales.Dept+Orders@Mail.Example.ORG}}'
          r'{\N^([a-z.]+)\+([a-z]+)@(.*)$\N}}}}}'
          r'{${lookup{$1}lsearch{@DIR@/rules}'
          r'{${extract{owner}{$value}{${sg{$value}{@local}{@$qualify_domain}}}{postmaster@$qualify_domain}}'
          r' tag=${uc:$2} size=${if >{${extract{size}{$value}{$value}{0}}}{1M}{large}{${eval:10*1024}}}'
          r' via ${map{${filter{alpha:beta:gamma:delta}{match{$item}{^[ab]}}}}{<$item>}}}'
          r'{unknown user ${quote_local_part:$1}}}}'
          r'{relay denied to ${mask:192.0.2.17/24} by $primary_hostname}}')
RULES = ''.join(f'user{n}: owner=owner{n}@local size={n}K\n' for n in range(20)) + 'sales.dept: owner=anna@local size=4M\n'
LINES = 50000


def rule_lines(count):
    return [POLICY] * count


def lookups(keys):
    return [f'${{lookup{{{k}}}lsearch{{@DIR@/big}}{{$value}}{{none}}}}' for k in keys]


def spread(count):
    """Keys all over the big file, no two alike."""
    return [f'key{(n * 7919 + 13) % LINES}' for n in range(count)]


# scenario: lines for Martlet, lines for Exim (which need not be as many for the same precision).
INPUTS = {
    'policy': (lambda: rule_lines(20000), lambda: rule_lines(3000)),
    'lsearch': (lambda: lookups(spread(40000)), lambda: lookups(spread(300))),
    'first': (lambda: lookups([f'key{LINES - 1}']), lambda: lookups([f'key{LINES - 1}'])),
    'missing': (lambda: lookups(['absent']), lambda: lookups(['absent'])),
}
# How often within a round: what takes a millisecond is repeated.
REPEAT = {'policy': 1, 'lsearch': 1, 'first': 15, 'missing': 15}
TITLES = {'policy': 'policy line', 'lsearch': 'lsearch, 50,000 lines', 'first': 'its first, the last key', 'missing': 'its first, no such key'}
WANTED = {'policy': 10, 'lsearch': 20, 'first': 1, 'missing': 1}


class Pair:
    """Martlet and Exim with the same files."""

    def __init__(self, directory, peers, martlet):
        self.directory = directory
        self.place = Place(os.path.join(directory, 'place'), [os.path.join(peers, 'exim')], ['Debian-exim'])
        self.programs = {'martlet': martlet, 'exim': '/usr/sbin/exim4'}
        self.conf = write(os.path.join(directory, 'conf'), MAIN.format(d=directory))
        write(os.path.join(directory, 'rules'), RULES)
        write(os.path.join(directory, 'big'), ''.join(f'key{n}: user{n}@example.net, owner-{n}@example.org\n' for n in range(LINES)))
        self.place.start()

    def run(self, name, lines):
        """Seconds of the clock and of the processor, and what was printed."""
        text = ''.join(line.replace('@DIR@', self.directory) + '\n' for line in lines)
        source, out = write(os.path.join(self.directory, 'in'), text), os.path.join(self.directory, 'out')
        with open(source, 'rb') as stdin, open(out, 'wb') as stdout:
            start = time.monotonic()
            process = subprocess.Popen(self.place.command([self.programs[name], '-C', self.conf, '-be']), stdin=stdin,
                                       stdout=stdout, stderr=subprocess.STDOUT, cwd='/')
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f'{name} -be ended with status {process.returncode}: {read(out)[-500:]}')
        return seconds, usage.ru_utime + usage.ru_stime, read(out)

    def measure(self, name, scenario):
        """Seconds of the clock and of the processor for a line."""
        lines = INPUTS[scenario][name == 'exim']()
        clock, cpu = [], []
        for _ in range(REPEAT[scenario]):
            empty = self.run(name, [])
            full = self.run(name, lines)
            clock.append(full[0] - empty[0])
            cpu.append(full[1] - empty[1])
        return {'clock': statistics.median(clock) / len(lines), 'cpu': statistics.median(cpu) / len(lines)}, full[2], len(lines)

    def stop(self):
        self.place.stop()


def answers(text, count):
    return text.replace('\n> ', '\n').split('\n')[:count]


def run(a, scratch):
    """All rounds; prints the table. True when both programs said the same."""
    pair = Pair(scratch, a.peers, os.path.abspath(a.binary))
    results, same = {}, True
    try:
        for number in range(a.rounds):
            for scenario in INPUTS:
                said = {}
                for name in ('martlet', 'exim'):
                    got, out, lines = pair.measure(name, scenario)
                    said[name] = answers(out, min(lines, 300))
                    results.setdefault((scenario, name), []).append(got)
                    print(f'round {number + 1} {scenario:8} {name:8} {got["clock"] * 1e6:10.2f} us/line, CPU {got["cpu"] * 1e6:10.2f}', flush=True)
                n = min(map(len, said.values()))
                if said['martlet'][:n] != said['exim'][:n]:
                    same = False
                    print(f'{scenario}: not the same results: {said["martlet"][:2]} and {said["exim"][:2]}')
    finally:
        pair.stop()
    table(a, results)
    return same, results


def table(a, results):
    print(f'\n{"median of " + str(a.rounds) + " rounds, lines/s":<34}{"martlet":>12}{"exim":>12}{"martlet/exim":>14}{"by CPU":>9}{"wanted":>8}')
    for scenario in INPUTS:
        m, e = ({k: statistics.median(r[k] for r in results[(scenario, n)]) for k in ('clock', 'cpu')} for n in ('martlet', 'exim'))
        cpu = f'{e["cpu"] / m["cpu"]:9.1f}' if m['cpu'] > 0 else f'{"-":>9}'
        print(f'{TITLES[scenario]:<34}{1 / max(m["clock"], 1e-9):>12.0f}{1 / max(e["clock"], 1e-9):>12.0f}'
              f'{e["clock"] / max(m["clock"], 1e-9):>14.1f}{cpu}{">= " + str(WANTED[scenario]):>8}')
