"Build the docs site from the notebooks into _docs, offline, with smalldocs; fail on any of its warnings, broken links among them."
import json, os, re, shutil, sys
from pathlib import Path

from nbdev.serve import proc_nbs
from smalldocs.config import load
from smalldocs.site import Site

from readme import opening

ROOT = Path(__file__).resolve().parent.parent
PAGE = re.compile(r"\b(\d+[a-z]?)_(\w+)\.ipynb\b")


def plain_names(proc):
    "Pages are core.html, not 00_core.html: the addresses that the modules' docstrings give. Links and the sidebar follow."
    for f in [*proc.rglob("*.ipynb"), *proc.rglob("*.yml")]:
        text = f.read_text(encoding="utf-8"); new = PAGE.sub(r"\2.ipynb", text)
        if new != text: f.write_text(new, encoding="utf-8")
        if PAGE.fullmatch(f.name): f.rename(f.with_name(PAGE.sub(r"\2.ipynb", f.name)))


def openings(nbs, proc):
    "Put back what nbdev drops of the first cells."
    for f in proc.rglob("*.ipynb"):
        nb = json.loads(f.read_text(encoding="utf-8")); more = opening(nbs/f.relative_to(proc))
        at = next((i + 1 for i, c in enumerate(nb["cells"]) if c["cell_type"] == "raw"), None)
        if at is None: continue
        nb["cells"][at:at] = more; f.write_text(json.dumps(nb), encoding="utf-8")


def sidebar(nbs):
    "nbdev's list of notebooks as sections that a reader looks for."
    names = lambda pattern: sorted(p.relative_to(nbs).as_posix() for p in nbs.glob(pattern) if p.name[0] != "_")
    parts = dict(Tutorials=names("tutorials/*.ipynb"), Explanations=names("explanations/*.ipynb"), Library=names("[0-9]*.ipynb"))
    lines = ["website:", "  sidebar:", "    contents:", "      - index.ipynb"]
    for title, files in parts.items(): lines += [f"      - section: {title}", "        contents:"] + [f"          - {f}" for f in files]
    return "\n".join(lines) + "\n"


def main():
    os.chdir(ROOT); nbs, proc, out = ROOT/"nbs", ROOT/"_proc", ROOT/"_docs"
    (nbs/"sidebar.yml").write_text(sidebar(nbs), encoding="utf-8")
    for d in (proc, out): shutil.rmtree(d, ignore_errors=True)
    proc_nbs(str(nbs), n_workers=2)
    shutil.copytree(nbs/"images", proc/"images", dirs_exist_ok=True)
    openings(nbs, proc); plain_names(proc)
    site = Site(load(proc), quiet=True); site.out = out; site.build()
    for f in [*out.rglob("*.llms.md")]: shutil.copy(f, f.with_name(f.name.replace(".llms.md", ".html.md")))   # the modules' docstrings name core.html.md
    bad = [w for w in site.warnings if "output-file is not read" not in w]      # plain_names has read it
    for w in bad: print("warning:", w)
    print(f"_docs: {len(site.pages)} pages, {len(bad)} warnings")
    sys.exit(bool(bad))


if __name__ == "__main__": main()
