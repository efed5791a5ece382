"Write README.md from nbs/index.ipynb, offline: nbdev's page, nbconvert's Markdown, links that work from the repository's root."
import json, re, sys, tempfile
from pathlib import Path

import nbformat
import yaml
from nbconvert import MarkdownExporter
from nbdev.processors import FilterDefaults
from nbdev.serve_drv import exec_nb

ROOT = Path(__file__).resolve().parent.parent
KEYS = {"cell_type", "id", "metadata", "source", "outputs", "execution_count", "attachments"}


def opening(path):
    "What a notebook's title cell says below its title and purpose, as a cell: nbdev makes a header of the two and drops the rest."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    title = next(("".join(c["source"]) for c in cells if c["cell_type"] == "markdown" and "".join(c["source"]).startswith("# ")), "")
    text = re.sub(r"\A#[^\n]*\n+(>[^\n]*\n*)?", "", title).strip()
    return [dict(cell_type="markdown", id="opening", metadata={}, source=text)] if text else []


def page(path):
    "The notebook as nbdev shows it, without the cell keys that nbformat does not know, and the header that nbdev made of its title."
    with tempfile.TemporaryDirectory() as d:
        exec_nb(path, Path(d)/path.name, FilterDefaults)
        nb = json.loads((Path(d)/path.name).read_text(encoding="utf-8"))
    head = {}
    for c in nb["cells"]:
        c["source"] = "".join(c["source"])
        if c["cell_type"] == "raw" and c["source"].startswith("---"): head, c["source"] = yaml.safe_load(c["source"].strip().strip("-")), ""
        if re.search(r"^#\| echo: false", c["source"], re.M):                 # only what it gives, as text
            text = "".join("".join(o["data"]["text/markdown"]) for o in c["outputs"]); c.clear(); c |= dict(cell_type="markdown", id=f"table-{nb['cells'].index(c)}", metadata={}, source=text)
        if c["cell_type"] == "code": c["source"] = "\n".join(l for l in c["source"].split("\n") if not l.startswith("#|"))
    nb["metadata"] = dict(language_info=dict(name="python"))
    nb["cells"] = opening(path) + [{k: v for k, v in c.items() if k in KEYS} for c in nb["cells"] if c["source"].strip()]
    return nbformat.reads(json.dumps(nb), as_version=4), head


def from_root(m):
    "A link of the notebook as one from the repository's root, checked to lead somewhere."
    text, target, rest = m.groups()
    if re.match(r"[a-z]+:|#", target): return m[0]
    if not (ROOT/"nbs"/target).exists(): sys.exit(f"README: {target} is not there")
    return f"{text}(nbs/{target}{rest})"


def main():
    nb, head = page(ROOT/"nbs"/"index.ipynb")
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources["outputs"]: sys.exit("README: index.ipynb shows a figure as output; save it in nbs/images and link it")
    text = re.sub(r"<!--.*?-->", "", text)
    text = re.sub(r"\n```\n+```python\n", "\n\n", text)                                # imports stand apart in the notebook; here an example is one block
    if head: text = f"# {head['title']}\n\n> {head['description']}\n\n{text}"
    text = re.sub(r"(!?\[[^\]]*\])\(([^)\s#]*)([^)]*)\)", from_root, text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    if html := re.search(r"</?[a-zA-Z][^>\n]*>", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)): sys.exit(f"README: {html[0]} is HTML, which PyPI may drop")
    (ROOT/"README.md").write_text("<!-- made from nbs/index.ipynb by tools/readme.py: change it there -->\n\n" + text, encoding="utf-8")
    print(f"README.md: {len(text.splitlines())} lines")


if __name__ == "__main__": main()
