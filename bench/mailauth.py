"""Signatures and SPF without a network: our library in a loop, libopendkim and libspf2 doing the same, and OpenSSL's part alone.

Rates are per second of CPU. `primitive`: SHA-256 over the body and one operation with the key, which nobody can do without.
"""
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = (4096, 1 << 20)


def rates(*command):
    out = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, timeout=300).stdout
    return {name: float(value) for name, value in (line.split() for line in out.split('\n') if line)}


def build_peers(directory):
    """libopendkim and libspf2; None where they are not installed."""
    program = os.path.join(directory, 'mailauth_peers')
    done = subprocess.run(['cc', '-O2', '-w', os.path.join(HERE, 'mailauth_peers.c'), '-o', program, '-lopendkim', '-lspf2', '-lcrypto', '-lresolv'],
                          capture_output=True, text=True)
    if done.returncode != 0:
        print('mailauth: libopendkim or libspf2 are missing: ' + done.stderr[:200])
        return None
    return program


def best(rounds, *command):
    """The fastest of some rounds: what other work on the machine disturbs is not of interest."""
    found = {}
    for _ in range(rounds):
        for name, value in rates(*command).items():
            found[name] = max(value, found.get(name, 0))
    return found


def run(a, directory):
    ours = os.path.join(os.path.dirname(os.path.abspath(a.binary)), 'mailauth_bench')
    peers, results = build_peers(directory), {}
    rounds, seconds = max(2, a.rounds), 0.5
    for size in SIZES:
        for key in ('rsa', 'ed'):
            got = best(rounds, ours, key, size, seconds)
            theirs = best(rounds, peers, key, size, seconds) if peers and key == 'rsa' else {}
            for what in ('verify', 'sign'):
                line = f'mailauth {key:3} {size:7} {what:6} {got[what]:9.1f}/s, primitive {got["primitive-" + what]:9.1f}/s'
                if what in theirs:
                    line += f', libopendkim {theirs[what]:9.1f}/s ({got[what] / theirs[what]:.2f} times)'
                print(line, flush=True)
            results[(f'mailauth {key} {size}', 'martlet')] = [got]
            if theirs:
                results[(f'mailauth {key} {size}', 'libopendkim')] = [theirs]
    got = best(rounds, ours, 'spf', seconds)['spf']
    line = f'mailauth SPF {got:.0f}/s'
    results[('mailauth spf', 'martlet')] = [{'spf': got}]
    if peers:
        theirs = best(rounds, peers, 'spf', seconds)['spf']
        line += f', libspf2 {theirs:.0f}/s ({got / theirs:.2f} times)'
        results[('mailauth spf', 'libspf2')] = [{'spf': theirs}]
    print(line, flush=True)
    return True, results
