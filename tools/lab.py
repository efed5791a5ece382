"""Run tutorials in JupyterLab as a reader does: `python tools/lab.py [NOTEBOOK...]`; exit code 1 with one line a fault.

Starts JupyterLab on loopback over a copy of `nbs/`, opens each notebook in headless Chromium, presses Run All Cells, waits until no cell is waiting or running,
and looks for error outputs in what Lab saved. Ends the server with all its kernels."""
import argparse, json, os, re, secrets, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

from browse import chromium, launch

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ["tutorials/explore_corpus.ipynb", "tutorials/read_evaluation.ipynb", "tutorials/calibrate_thresholds.ipynb"]


def cleared(source, dest):
    "A copy without outputs, so that whatever is there afterwards was made by Lab."
    shutil.copytree(source, dest, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "_*"))
    for f in dest.rglob("*.ipynb"):
        nb = json.loads(f.read_text(encoding="utf-8"))
        for c in nb["cells"]:
            if c["cell_type"] == "code": c.update(outputs=[], execution_count=None)
        f.write_text(json.dumps(nb), encoding="utf-8")


def free_port():
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); return s.getsockname()[1]


def start(folder, port, token, log):
    "JupyterLab in a process group of its own, with settings of its own: nobody's ~/.jupyter is read or written."
    env = os.environ | dict(PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])), ARRHYTHMIA_QUIET="1", OMP_NUM_THREADS="1", **{f"JUPYTER_{k}": str(folder.parent/"jupyter") for k in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")},
                            JUPYTERLAB_SETTINGS_DIR=str(folder.parent/"jupyter"), JUPYTERLAB_WORKSPACES_DIR=str(folder.parent/"jupyter"), IPYTHONDIR=str(folder.parent/"ipython"))
    env.pop("MPLBACKEND", None)                                               # a kernel shows figures inline unless told otherwise
    return subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}", "--ServerApp.allow_root=True", "--LabApp.news_url=None",
                             f"--ServerApp.root_dir={folder}", "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate"], env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def group_members(pgid): # processes that live in a session that we started, with those that left its group: kernels have groups of their own
    out = []
    for p in Path("/proc").glob("[0-9]*"):
        try: f = (p/"stat").read_text().rpartition(")")[2].split()
        except OSError: continue
        if int(f[3]) == pgid and f[0] != "Z": out.append(int(p.name))        # field 6, the session
    return out


def children(pid): # of a process, and theirs
    parent = {}
    for p in Path("/proc").glob("[0-9]*"):
        try: parent[int(p.name)] = int((p/"stat").read_text().rpartition(")")[2].split()[1])
        except OSError: continue
    out, new = set(), {pid}
    while new: new = {k for k, v in parent.items() if v in new} - out; out |= new
    return out


def alive(pids): # those that run
    out = set()
    for p in pids:
        try:
            if Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[0] != "Z": out.add(p)
        except OSError: pass
    return out


def stop(server):
    "End the server and every process that it started, kernels included; gives those that would not go."
    mine = children(server.pid) | {server.pid}
    if server.poll() is None: server.send_signal(signal.SIGTERM)
    try: server.wait(20)
    except subprocess.TimeoutExpired: pass
    end = time.time() + 10; left = alive(mine | set(group_members(server.pid)))
    while left and time.time() < end: time.sleep(.2); left = alive(mine | set(group_members(server.pid)))
    for p in left:
        try: os.kill(p, signal.SIGKILL)
        except ProcessLookupError: pass
    server.wait(5); time.sleep(.3); return alive(left)


def api(home, token, path):
    with urllib.request.urlopen(urllib.request.Request(f"{home}/api/{path}", headers=dict(Authorization=f"token {token}")), timeout=10) as r: return json.load(r)


def wait_for(what, seconds, tell, step=.3):
    end = time.time() + seconds
    while time.time() < end:
        try:
            if (got := what()): return got
        except OSError: pass
        time.sleep(step)
    raise TimeoutError(tell)


def run_notebook(page, home, token, name, folder, seconds):
    "Open, run all, save; the faults of the saved notebook."
    page.goto(f"{home}/lab/tree/{name}?token={token}&reset", wait_until="load")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    if page.locator("dialog.jp-Dialog, .jp-Dialog").count(): page.locator(".jp-Dialog .jp-mod-accept").first.click()
    wait_for(lambda: any(k["execution_state"] == "idle" for k in api(home, token, "kernels")), 60, "the kernel did not start")
    page.locator(".lm-MenuBar-item", has_text="Run").first.click(); page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells")).first.click()
    cells = [c for c in json.loads((folder/name).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    def done():
        page.keyboard.press("Control+s"); page.wait_for_timeout(700)
        now = [c for c in json.loads((folder/name).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        failed = [o for c in now for o in c["outputs"] if o["output_type"] == "error"]
        idle = all(k["execution_state"] == "idle" for k in api(home, token, "kernels"))
        return now if failed or idle and all(c["execution_count"] for c in now if "".join(c["source"]).strip()) else None
    now = wait_for(done, seconds, f"not done after {seconds} s", 1.)
    errors = [f"{o['ename']}: {o['evalue'][:200]}" for c in now for o in c["outputs"] if o["output_type"] == "error"]
    shown = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count()
    pictures = sum("image/png" in o.get("data", {}) for c in now for o in c["outputs"])
    return errors + ([f"{shown} errors on the screen"] if shown and not errors else []), len(cells), pictures


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0]); p.add_argument("notebooks", nargs="*", default=NOTEBOOKS, help="paths below nbs/"); p.add_argument("--seconds", type=int, default=150, help="that one notebook may take"); a = p.parse_args()
    if not chromium(): sys.exit("lab: no Chromium found; install it (Debian: apt install chromium) or name it in $CHROMIUM")
    try: import jupyterlab; from playwright.sync_api import sync_playwright; import ipykernel  # noqa: F401
    except ImportError as e: sys.exit(f"lab: {e.name} is missing: pip install 'arrhythmia_classifier[dev,lab]'")
    for n in a.notebooks:
        if not (ROOT/"nbs"/n).is_file(): sys.exit(f"lab: NOTEBOOK must be a path below nbs/, got {n}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("lab: ended by a signal"))          # so that the server is ended, too
    faults, begun = [], time.time()
    with tempfile.TemporaryDirectory(prefix="lab-") as d, open(Path(d)/"log", "w+") as log:
        folder = Path(d)/"nbs"; cleared(ROOT/"nbs", folder); port, token = free_port(), secrets.token_hex(16); home = f"http://127.0.0.1:{port}"
        server = start(folder, port, token, log)
        try:
            def up():
                if server.poll() is not None: log.seek(0); sys.exit(f"lab: JupyterLab ended with {server.returncode}: {log.read()[-600:]}")
                return api(home, token, "status")
            wait_for(up, 60, "JupyterLab did not start")
            with sync_playwright() as pw:
                browser = launch(pw)
                for n in a.notebooks:
                    page = browser.new_page(viewport=dict(width=1400, height=900)); t = time.time()
                    try:
                        errors, cells, pictures = run_notebook(page, home, token, n, folder, a.seconds); faults += [f"{n}: {e}" for e in errors]
                        print(f"{n}: {cells} code cells, {pictures} figures, {len(errors)} errors, {time.time() - t:.0f} s", flush=True)
                    except Exception as e: faults.append(f"{n}: {type(e).__name__}: {str(e).splitlines()[0][:200]}")
                    finally: page.close()
                    for k in api(home, token, "sessions"): urllib.request.urlopen(urllib.request.Request(f"{home}/api/sessions/{k['id']}", method="DELETE", headers=dict(Authorization=f"token {token}")), timeout=20).close()
                browser.close()
        finally:
            if left := stop(server): faults.append(f"{len(left)} processes would not end")
    for f in faults: print(f)
    print(f"{len(a.notebooks)} notebooks in JupyterLab, {len(faults)} faults, {time.time() - begun:.0f} s; no process left" if not left else "")
    sys.exit(bool(faults))


if __name__ == "__main__": main()
