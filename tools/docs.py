"Build the docs site from the notebooks into _docs with smalldocs; fail on any of its warnings, broken links among them. No page of it fetches anything from elsewhere."
import base64, hashlib, json, os, re, shutil, subprocess, sys, tarfile, tempfile
from pathlib import Path

from nbdev.serve import proc_nbs
from smalldocs.config import load
from smalldocs.layout import KATEX
from smalldocs.site import Site

from readme import opening

ROOT = Path(__file__).resolve().parent.parent
PAGE = re.compile(r"\b(\d+[a-z]?)_(\w+)\.ipynb\b")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home()/".cache")/"arrhythmia-docs"
# formulas and diagrams: the versions that smalldocs names, fetched once by npm, checked against these sums (SHA-512, as npm states them), copied into the site
SCRIPTS = {"katex@0.16.11": ("RQrI8rlHY92OLf3rho/Ts8i/XvjgguEjOkO1BEXcU3N8BqPpSzBNwV/G0Ukr+P/l3ivvJUE/Fa/CwbS6HesGNQ==", r"dist/(katex\.min\.(js|css)|contrib/auto-render\.min\.js|fonts/.*\.woff2)|LICENSE"),
           "mermaid@11.4.1": ("Mb01JT/x6CKDWaxigwfZYuYmDZ6xtrNwNlidKZwkSrDaY9n90tdrJTV5Umk+wP1fZscGptmKFXHsXMDEVZ+Q6A==", r"dist/mermaid\.min\.js|LICENSE")}
# what smalldocs leaves out for people who do not see the page or do not use a mouse, and diagrams that follow the colour scheme
READY = """
document.querySelectorAll("pre.mermaid").forEach((d, i) => { d.dataset.text = d.textContent; d.setAttribute("role", "img");
  let h = d; while (h && !/^H[1-6]$/.test(h.tagName)) h = h.previousElementSibling || h.parentElement;
  d.setAttribute("aria-label", "Diagram: " + (h ? h.textContent.trim() : document.title)); });
const reach = () => document.querySelectorAll("pre, table, .sd-table, .cell-output, .math.display").forEach((e) => {
  if (e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight) e.tabIndex = 0; else e.removeAttribute("tabindex"); });
reach(); addEventListener("load", reach); document.fonts.ready.then(reach); addEventListener("resize", reach);
let last, drawing = Promise.resolve();
const draw = () => { const dark = document.documentElement.classList.contains("quarto-dark"); if (dark === last) return; last = dark;
  const all = [...document.querySelectorAll("pre.mermaid")]; if (!all.length || !window.mermaid) return;
  drawing = drawing.then(() => { all.forEach((d) => { d.removeAttribute("data-processed"); d.textContent = d.dataset.text; });
    mermaid.initialize({startOnLoad: false, theme: dark ? "dark" : "default"}); return mermaid.run({nodes: all}); }); };
draw(); new MutationObserver(draw).observe(document.documentElement, {attributes: true, attributeFilter: ["class"]});
"""


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
    def section(folder, first): # those that are read in this order, then the rest
        there = names(f"{folder}/*.ipynb"); ahead = [f for k in first.split() if (f := f"{folder}/{k}.ipynb") in there]
        return ahead + [f for f in there if f not in ahead]
    parts = {"Tutorials": section("tutorials", "quick_start explore_corpus gpu_training fine_tune read_evaluation calibrate_thresholds mlflow_lifecycle batch_prediction databricks explain_patient export_edge"), "How to": section("how-to", "predict_my_records train_on_my_folder"),
             "Explanations": section("explanations", "architecture scores speed sizing card datasheet security") + ["changelog.qmd"], "Library": names("[0-9]*.ipynb")}
    lines = ["website:", "  sidebar:", "    contents:", "      - index.ipynb"]
    for title, files in parts.items(): lines += [f"      - section: {title}", "        contents:"] + [f"          - {f}" for f in files]
    return "\n".join(lines) + "\n"


def packed(name):
    "The npm package's tarball, from the cache or by npm, with the sum that it must have."
    kept = CACHE/f"{name.replace('@', '-')}.tgz"; must = SCRIPTS[name][0]
    if not kept.exists():
        npm = shutil.which("npm")
        if not npm: sys.exit(f"docs: npm is needed once to fetch {name} into {CACHE}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as d:
            got = subprocess.run([npm, "pack", "--silent", "--ignore-scripts", name], cwd=d, capture_output=True, text=True)
            if got.returncode: sys.exit(f"docs: npm could not fetch {name}: {got.stderr.strip()[-300:]}")
            next(Path(d).glob("*.tgz")).replace(kept)
    data = kept.read_bytes()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != must: sys.exit(f"docs: {kept} is not the {name} that was asked for; delete it and build again")
    return kept


def local_scripts(out):
    "KaTeX, mermaid and our own script beside the pages; no page asks another server for anything."
    for name, (_, wanted) in SCRIPTS.items():
        with tarfile.open(packed(name)) as t:
            for m in t:
                f = m.name.partition("/")[2]
                if m.isfile() and re.fullmatch(wanted, f) and ".." not in f:
                    dest = out/"site_libs"/name.partition("@")[0]/f.removeprefix("dist/"); dest.parent.mkdir(parents=True, exist_ok=True); dest.write_bytes(t.extractfile(m).read())
    for f in (out/"site_libs"/"themes").glob("*.css"):                        # the reader's own sans serif in place of one from a font server
        css = f.read_text(encoding="utf-8"); f.write_text(re.sub(r"@import url\([^)]*\);?", "", css), encoding="utf-8")
    (out/"site_libs"/"ready.js").write_text(READY, encoding="utf-8")
    for f in out.rglob("*.html"):
        text = f.read_text(encoding="utf-8"); libs = "../"*(len(f.relative_to(out).parts) - 1) + "site_libs"
        text = text.replace(KATEX, f"{libs}/katex")
        text, n = re.subn(r'<script type="module">import mermaid from .*?</script>', "", text)
        scripts = ["mermaid/mermaid.min.js"]*bool(n) + ["ready.js"]
        f.write_text(accessible(text.replace("</head>", "".join(f'<script src="{libs}/{s}" defer></script>' for s in scripts) + "</head>", 1)), encoding="utf-8")


def accessible(text):
    "What smalldocs' pages lack for a screen reader: icons inside a named link are silent, a figure without a text of its own is named after its section."
    text = re.sub(r'<i class="(bi [^"]*)" role="img"></i>', r'<i class="\1" aria-hidden="true"></i>', text)
    out, heading = [], ""
    for part in re.split(r"(<h[1-6][ >].*?</h[1-6]>|<img [^>]*>)", text, flags=re.S):
        if re.match("<h[1-6]", part): heading = re.sub(r"<[^>]+>|[\"#]", "", part).strip()
        elif part.startswith("<img ") and (" alt=" not in part or ' alt=""' in part): part = f'<img alt="Figure: {heading}" ' + part.removeprefix("<img ").replace(' alt=""', "").replace('alt="" ', "")
        out.append(part)
    return "".join(out)


def main():
    os.chdir(ROOT); nbs, proc, out = ROOT/"nbs", ROOT/"_proc", ROOT/"_docs"
    (nbs/"sidebar.yml").write_text(sidebar(nbs), encoding="utf-8")
    for d in (proc, out): shutil.rmtree(d, ignore_errors=True)
    proc_nbs(str(nbs), n_workers=2)
    shutil.copytree(nbs/"images", proc/"images", dirs_exist_ok=True)
    openings(nbs, proc); plain_names(proc)
    site = Site(load(proc), quiet=True); site.out = out; site.build(); local_scripts(out)
    for f in [*out.rglob("*.llms.md")]: shutil.copy(f, f.with_name(f.name.replace(".llms.md", ".html.md")))   # the modules' docstrings name core.html.md
    bad = [w for w in site.warnings if "output-file is not read" not in w]      # plain_names has read it
    for w in bad: print("warning:", w)
    print(f"_docs: {len(site.pages)} pages, {len(bad)} warnings")
    sys.exit(bool(bad))


if __name__ == "__main__": main()
