"""What the speed benchmarks share: taking turns, a busy neighbour, how busy the machine was with other things, and of which network the figures are."""
import ast, hashlib, os, random, subprocess, sys, time
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def network_code():
    "12 hex digits of the code that makes the network, comments and docstrings aside: figures of another one are out of date, see tools/fresh.py."
    h = hashlib.sha256()
    for name in ("layers", "model"):
        tree = ast.parse((Path(__file__).resolve().parent.parent/"arrhythmia_classifier"/f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None: node.body = node.body[1:] or [ast.Pass()]
        h.update(ast.dump(tree).encode())
    return h.hexdigest()[:12]


def seconds(f):
    t = time.perf_counter(); f()
    return time.perf_counter() - t


def turns(ways, rounds, warm=1):
    "Seconds of each of `{name: function}`, one number a round; in every round all take a turn, in an order of its own."
    took, order = {k: [] for k in ways}, random.Random(0)
    for r in range(warm + rounds):
        for k in order.sample(list(ways), len(ways)):
            s = seconds(ways[k])
            if r >= warm: took[k].append(s)
    return took


def ratio(took, of, to):
    "Median over the rounds of how many times longer `of` takes than `to`: the two stood side by side in each."
    return round(float(np.median(np.array(took[of])/np.array(took[to]))), 3)


class Watch:
    "Share of the machine's processor time that others used since it was made; None where /proc is not there."
    def __init__(self): self.begun = self._read()
    def _read(self):
        try: user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        except OSError: return None
        return time.time(), (user + nice + system + irq + soft + steal)/os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])
    def others(self):
        if self.begun is None: return None
        wall, busy, own = (b - a for a, b in zip(self.begun, self._read()))
        return round(max(0., busy - own)/(wall*os.cpu_count()), 3)


@contextmanager
def neighbour(n=1):
    "So many processes that compute without end, for as long as the block lasts."
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try: time.sleep(.3); yield
    finally:
        for h in hogs: h.kill(); h.wait()
