"""Read damaged and hostile records: thousands of mutants of headers and signal files, each from its own seed.

  python tools/fuzz.py --n 20000 --seed 0      every mutant must give a Record or a BadRecord
  python tools/fuzz.py --only 0:1234           one mutant again, with its traceback

Fails on any other exception, on more than a second of processor time for one mutant, on more than 1 GB of memory,
on any file opened outside the mutant's folder, and on any connection.
"""
import argparse, collections, io, os, resource, shutil, signal, sys, tempfile, time, traceback, warnings
from pathlib import Path

import numpy as np
import scipy.io, soundfile

from arrhythmia_classifier.core import BadRecord
from arrhythmia_classifier.matlab import read_matlab
from arrhythmia_classifier.records import read_record

# Mutants (seed, number) that once broke something; each run begins with them.
KEPT = [(0, k) for k in (4567, 9807, 13113, 14033, 18153, 18314, 18515)] + [(1, 18022), (2, 387), (2, 9348), (3, 10340)]  # segments whose units differ; a skew of 10^9; 10^12 leads

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
WORDS = [b"0", b"-1", b"1", b"12", b"1000000000000", b"9" * 30, b"9" * 5000, b"nan", b"inf", b"1e999", b"1e-320", b"-0", b"~", b"-", b".", b"..", b"../secret.dat", b"/dev/zero", b"/etc/passwd",
         b"secret.dat", b"pipe", b"far.dat", b"loop.dat", b"sub", b"http://127.0.0.1/a.dat", b"s3://a/b.dat", b"C:\\a.dat", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\t", b"#", b"# Dx: ", b"# Age: 300", b"\xc2\xb5V",
         b"8", b"16", b"24", b"32", b"61", b"80", b"160", b"212", b"310", b"311", b"508", b"516", b"524", b"x2", b"x0", b"x99999999", b":3", b":999999999", b"+24", b"+99999999999", b"/mmHg", b"/uV", b"(0)", b"(99999999999)",
         b"r/2", b"seg0", b"r", b"lay", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n", b"fLaC"]


FORMS = ["16", "mat", "24", "32", "61", "80", "160", "212", "files", "8", "310", "311", "516", "524", "frames", "segments", "layout"]
MATLAB = ["mat5", "mat5z"]         # every tenth mutant

def fixture(rng, form):
    "A whole record in one of FORMS: {file name: bytes}."
    n = 400
    leads = list(LEADS[:int(rng.choice([1, 2, 8, 12]))]); x = np.cumsum(rng.integers(-9, 10, (n, len(leads))), 0).astype("<i2")
    def line(lead, file="r.dat", fmt="16", x=None): return f"{file} {fmt} 200(0)/mV 16 0 {0 if x is None else x[0]} {0 if x is None else int(x.sum(dtype=np.int16))} 0 {lead}"
    def head(name, lines, n=n, k=None): return "\n".join([f"{name} {k or len(lines)} 250 {n} 10:00:00 01/01/2020", *lines, "# Age: 61", "# Sex: Female", "# Dx: 59118001,426783006", ""]).encode()
    noise = rng.bytes(4 * n * len(leads) + 64)
    if form.startswith("mat5"):                                          # MATLAB's own files, without a header beside them
        f = io.BytesIO(); scipy.io.savemat(f, dict(ECG=dict(data=x.T/200, age=61., sex="Female")), do_compression=form == "mat5z")
        return {"r.mat": f.getvalue()}
    if form == "files": return {"r.hea": head("r", [line(l, f"r{k}.dat", "16" if k % 2 else "212") for k, l in enumerate(leads)]), **{f"r{k}.dat": noise[:2 * n] for k in range(len(leads))}}
    if form == "mat": return {"r.hea": head("r", [line(l, "r.mat", "16x1+24", s) for l, s in zip(leads, x.T)]), "r.mat": bytes(24) + x.tobytes()}
    if form == "frames": return {"r.hea": head("r", [line(l, fmt=f"16x{1 + k % 2}") for k, l in enumerate(leads)]), "r.dat": noise}
    if form in ("516", "524"):
        with tempfile.NamedTemporaryFile(suffix=".flac") as f:
            soundfile.write(f.name, x[:, :8], 250, "PCM_16" if form == "516" else "PCM_24", format="FLAC"); data = Path(f.name).read_bytes()
        return {"r.hea": head("r", [line(l, fmt=form) for l in leads[:8]]), "r.dat": data}
    if form in ("segments", "layout"):
        out = {f"seg{k}.hea": head(f"seg{k}", [line(l, f"seg{k}.dat") for l in leads]) for k in range(2)} | {f"seg{k}.dat": x.tobytes() for k in range(2)}
        rest = ["seg0 400", "seg1 400"] if form == "segments" else ["lay 0", "seg0 400", "~ 50", "seg1 400"]
        if form == "layout": out["lay.hea"] = head("lay", [line(l, "~", "0") for l in leads], 0)
        return out | {"r.hea": head(f"r/{len(rest)}", rest, 800 + 50 * (form == "layout"), len(leads))}
    return {"r.hea": head("r", [line(l, fmt=form, x=s if form == "16" else None) for l, s in zip(leads, x.T)]), "r.dat": x.tobytes() if form == "16" else noise}


def read(folder):
    "The record as a folder's reader takes it: by its header, or a MATLAB file that has none."
    return read_matlab(folder/"r.mat") if not (folder/"r.hea").exists() and (folder/"r.mat").exists() else read_record(folder/"r")


def mutate(data, rng, words):
    "Some bytes, one step away."
    at = int(rng.integers(len(data) + 1)); to = min(len(data), at + int(rng.choice([1, 1, 2, 8, 60]))); word = words[rng.integers(len(words))]
    kind = rng.integers(9)
    if kind == 0: return data[:at] + word + data[at:]
    if kind == 1: return data[:at] + data[to:]
    if kind == 2: return data[:at] + rng.bytes(to - at) + data[to:]
    if kind == 3: return data[:at] + data[at:to] * int(rng.integers(2, 5)) + data[to:]
    if kind == 4: return data[:at]
    parts = data.split(b" "); k, l = rng.integers(len(parts), size=2)
    if kind == 5: parts[k] = word; return b" ".join(parts)
    if kind == 6: parts[k], parts[l] = parts[l], parts[k]; return b" ".join(parts)
    lines = data.split(b"\n"); k, l = rng.integers(len(lines), size=2)
    if kind == 7: lines[k] = lines[l]; return b"\n".join(lines)
    return b"\n".join(lines[:k] + lines[k + 1:])


def mutant(seed, k):
    "{file name: bytes} of mutant k."
    rng = np.random.default_rng([seed, k]); form = rng.choice(FORMS); files = fixture(rng, MATLAB[k//10 % 2] if k % 10 == 9 else form); heads = [f for f in files if f.endswith(".hea")]; rest = [f for f in files if not f.endswith(".hea")]
    for _ in range(int(rng.integers(1, 5))):
        name = str(rng.choice(heads if heads and rng.random() < .75 else rest)); files[name] = mutate(files[name], rng, WORDS)
    if rng.random() < .03: del files[str(rng.choice(list(files)))]
    return files


def opened_elsewhere(root):
    "A list that grows by every file opened outside the mutants' folder, and every connection."
    found, inside, secret = [], os.path.realpath(root), os.path.realpath(root/"secret.dat")
    def hook(event, args):
        if event == "open" and isinstance(args[0], (str, bytes)):
            real = os.path.realpath(os.fsdecode(args[0]))
            if not real.startswith(inside) or real == secret: found.append(real)
        if event in ("socket.connect", "subprocess.Popen", "os.system"): found.append(f"{event} {args}")
    sys.addaudithook(hook)
    return found


class TooLong(BaseException): pass


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--n", type=int, default=20000); a.add_argument("--seed", type=int, default=0); a.add_argument("--only", help="SEED:NUMBER of one mutant")
    o = a.parse_args(); warnings.simplefilter("ignore"); np.seterr(all="ignore")
    todo = [tuple(map(int, o.only.split(":")))] if o.only else KEPT + [(o.seed, k) for k in range(o.n)]
    if hasattr(resource, "RLIMIT_AS"): resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))      # an allocation of terabytes fails at once
    def late(*_): raise TooLong
    signal.signal(signal.SIGPROF, late)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024; says, bad, slowest, begun = collections.Counter(), [], (0., None), time.time()
    with tempfile.TemporaryDirectory() as top:
        tempfile.tempdir = top; root = Path(top)/"data"; (Path(top)/"secret.dat").write_bytes(bytes(9999))
        for form in FORMS + MATLAB:                                      # unharmed, each form is read; and what libraries load late is loaded
            root.mkdir()
            for name, data in fixture(np.random.default_rng(0), form).items(): (root/name).write_bytes(data)
            read(root); shutil.rmtree(root)
        elsewhere = opened_elsewhere(Path(top))
        for seed, k in todo:
            root.mkdir(); (root/"sub").mkdir(); os.mkfifo(root/"pipe"); os.symlink("/etc/passwd", root/"far.dat"); os.symlink("loop.dat", root/"loop.dat")
            files = mutant(seed, k)
            for name, data in files.items(): (root/name).write_bytes(data)
            t = time.process_time(); signal.setitimer(signal.ITIMER_PROF, 1.)
            try: read(root); says["read"] += 1
            except BadRecord as e: says[e.reason] += 1
            except (Exception, TooLong) as e:
                bad.append((seed, k)); says[type(e).__name__] += 1
                if len(bad) < 4 or o.only: seen = list(elsewhere); print(f"mutant {seed}:{k}"); traceback.print_exc(limit=-4); elsewhere[:] = seen   # a traceback opens sources
            finally: signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, (time.process_time() - t, (seed, k)))
            if elsewhere: bad.append((seed, k)); print(f"mutant {seed}:{k} opened {elsewhere[:3]}"); elsewhere.clear()
            if o.only: print(*[f"--- {n}\n{d[:1500]!r}" for n, d in files.items()], sep="\n")
            for f in root.iterdir(): f.rmdir() if f.is_dir() and not f.is_symlink() else f.unlink()
            root.rmdir()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - base
    print(f"{len(todo)} mutants in {time.time() - begun:.0f} s: {', '.join(f'{w} {n}' for w, n in says.most_common())}")
    print(f"slowest {slowest[0]:.2f} s of processor time (mutant {slowest[1]}), {grown:.0f} MB more memory at the peak, {len(bad)} broke something {bad[:9]}")
    return int(bool(bad) or grown > 1024 or slowest[0] > 1 or not 0 < says["read"] < len(todo) and not o.only)


if __name__ == "__main__": sys.exit(main())
