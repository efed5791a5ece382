"""Do the committed pages show what their cells give now? `python tools/fresh.py [NOTEBOOK...]`; exit code 1 with one line a page that does not.

The tables of the index, of the scores, the speed, the model card and the data sheet are outputs kept in the notebooks, made from `benchmarks/*.json` and from the shipped
classifier. Where one of these changes, `nbdev-test NOTEBOOK --save` and `nbdev-clean` make the page again. And are the figures those of today's network and weights? The JSON files
say which they measured; where the network's code or the weights are others, the benchmark has to run again (of `gpu.json` it is only said: not every machine has a card)."""
import ast, json, os, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["index.ipynb"] + [f"explanations/{k}.ipynb" for k in ("scores", "speed", "card", "datasheet")]


def tables(cells): # Markdown outputs, in order
    return ["".join(o["data"]["text/markdown"]) for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {})]


def now(path):
    "The same outputs, made anew; of the index only the cells that its tables need."
    from IPython.display import Markdown
    space, out = {}, []
    for c in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(c["source"])
        if c["cell_type"] != "code" or path.name == "index.ipynb" and not re.search(r"echo: false|import json|json\.loads", source): continue
        body = ast.parse(source); last = ast.Expression(body.body.pop().value) if body.body and isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, path.name, "exec"), space); value = eval(compile(last, path.name, "eval"), space) if last else None
        if isinstance(value, Markdown): out.append(value.data)
    return out


def outdated():
    "JSON files of another network or of other weights: name, line."
    sys.path.insert(0, str(ROOT/"benchmarks"))
    from timing import network_code
    from arrhythmia_classifier.shipped import load_shipped
    net, weights = network_code(), load_shipped().card.sha256[:12]
    for kind, now, names in (("network", net, ("inference", "mask_cost", "threads", "holter", "batch", "gpu")), ("model", weights, ("quantise", "batch", "ptbxl", "external"))):
        for k in names:
            f = ROOT/"benchmarks"/f"{k}.json"; got = json.loads(f.read_text(encoding="utf-8")).get(kind) if f.is_file() else None
            if got != now: yield k, f"benchmarks/{k}.json: its {kind} is {got}, today's {now}; python benchmarks/{dict(ptbxl='score').get(k, k)}.py measures anew"


def main():
    os.environ.setdefault("MPLBACKEND", "agg"); old = 0
    for k, line in outdated(): old += k != "gpu"; print(line + ", on a card; the page Speed says so"*(k == "gpu"))
    for name in sys.argv[1:] or PAGES:
        path = ROOT/"nbs"/name; kept = tables(json.loads(path.read_text(encoding="utf-8"))["cells"])
        os.chdir(path.parent); made = now(path)
        changed = [i for i, (a, b) in enumerate(zip(kept, made)) if a.strip() != b.strip()]
        if len(kept) != len(made) or changed: old += 1; print(f"nbs/{name}: {len(changed) or 'the number of'} of its {len(kept)} tables are not what its cells give now; nbdev-test nbs/{name} --save makes them anew")
        else: print(f"nbs/{name}: {len(kept)} tables as its cells give them")
    sys.exit(bool(old))


if __name__ == "__main__": main()
