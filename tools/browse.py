"""Look at the docs site in headless Chromium as a reader does: `python tools/browse.py [--site _docs] [--pages REGEX]`; exit code 1 with one line a fault.

Every internal link and anchor answers; no page logs an error, fails a request or asks another server for anything; formulas and diagrams are drawn; both
colour schemes; nothing sticks out of a phone's width; axe-core finds no serious or critical fault, in either scheme; search finds what is looked for."""
import argparse, functools, os, re, shutil, sys, threading, time
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

ROOT = Path(__file__).resolve().parent.parent
PHONE, DESK = dict(width=390, height=844), dict(width=1280, height=900)


class Page(HTMLParser):
    "The ids of a page, and the addresses it names: links, and what the browser loads."
    def __init__(self, text): super().__init__(); self.ids, self.links, self.loads = set(), [], []; self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs); self.ids |= {a[k] for k in ("id", "name") if a.get(k)}
        if tag == "a" and a.get("href"): self.links.append(a["href"])
        if tag != "a": self.loads += [a[k] for k in ("src", "href") if a.get(k)]


def broken_links(site):
    "Links, anchors and files of pages that lead nowhere inside the site, and files that another server would have to give."
    pages = {f.relative_to(site).as_posix(): Page(f.read_text(encoding="utf-8")) for f in sorted(site.rglob("*.html"))}
    for name, p in pages.items():
        for href in p.links + p.loads:
            u = urlsplit(urljoin(f"http://site/{name}", href))
            if u.netloc != "site":
                if href in p.loads and u.scheme in ("http", "https"): yield f"{name}: loads {href}"
                continue
            path = unquote(u.path).lstrip("/") or "index.html"; path = path + "index.html" if path.endswith("/") else path
            if not (site/path).is_file(): yield f"{name}: {href} is not there"
            elif u.fragment and path in pages and unquote(u.fragment) not in pages[path].ids: yield f"{name}: no #{u.fragment} in {path}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


def chromium(): # path of an installed browser, or None
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def launch(playwright):
    return playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio"])


def watch(page, home, faults):
    "Append to `faults` what goes wrong while a page is used; a request to another server is stopped and is a fault."
    page.on("console", lambda m: m.type == "error" and faults.append(f"console: {m.text[:200]}"))
    page.on("pageerror", lambda e: faults.append(f"script: {str(e)[:200]}"))
    page.on("requestfailed", lambda r: faults.append(f"failed: {r.url[:200]}"))
    page.on("response", lambda r: r.status >= 400 and faults.append(f"{r.status}: {r.url[:200]}"))
    page.route(lambda url: not url.startswith((home, "data:", "blob:")), lambda route: (faults.append(f"asks {route.request.url[:200]}"), route.abort()))


DRAWN = """() => { const pre = [...document.querySelectorAll("pre.mermaid")];
  return {diagrams: pre.length, drawn: pre.filter((d) => d.querySelector("svg") && d.querySelectorAll("svg .node, svg .actor, svg .label").length && !/Syntax error/.test(d.textContent)).length,
          dark: document.documentElement.classList.contains("quarto-dark"), paper: getComputedStyle(document.body).backgroundColor,
          formulas: document.querySelectorAll(".math").length, set: document.querySelectorAll(".katex").length, wrong: document.querySelectorAll(".katex-error").length}; }"""
WIDE = """() => { const w = document.documentElement.clientWidth; if (document.documentElement.scrollWidth <= w + 1) return [];
  return [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > w + 1 && getComputedStyle(e).position !== "fixed").slice(0, 4)
    .map((e) => `${e.tagName.toLowerCase()}.${e.className}`.slice(0, 60)).concat(`${document.documentElement.scrollWidth} of ${w}`); }"""
AXE = """async (rules) => (await axe.run(document, {resultTypes: ["violations"], runOnly: rules})).violations
  .filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => `${v.impact} ${v.id}: ${v.nodes.length} times, as ${v.nodes[0].html.slice(0, 160)} at ${v.nodes[0].target.join(" ").slice(0, 120)}`)"""


def settled(page):
    "Wait until fonts are there and each diagram is drawn."
    page.wait_for_function("() => document.readyState === 'complete' && [...document.querySelectorAll('pre.mermaid')].every((d) => d.querySelector('svg') || d.dataset.text && !window.mermaid)", timeout=15_000)


def look(page, url, axe):
    "Faults of one page, as a reader at a desk by day, by night, and on a phone would meet them."
    page.set_viewport_size(DESK); page.emulate_media(color_scheme="light"); page.goto(url, wait_until="load"); settled(page)
    for scheme in ("light", "dark"):
        if scheme == "dark": page.evaluate("() => window.smalldocsToggleScheme()"); page.wait_for_timeout(50); settled(page)
        d = page.evaluate(DRAWN); light = sum(map(int, re.findall(r"\d+", d["paper"])[:3])) > 384
        if d["drawn"] < d["diagrams"]: yield f"{scheme}: {d['diagrams'] - d['drawn']} of {d['diagrams']} diagrams not drawn"
        if d["wrong"] or d["set"] < d["formulas"]: yield f"{scheme}: {d['formulas']} formulas, {d['set']} set, {d['wrong']} wrong"
        if d["dark"] != (scheme == "dark") or light != (scheme == "light"): yield f"{scheme}: the page is {d['paper']}, dark: {d['dark']}"
        if axe:
            if scheme == "light": page.evaluate(axe)
            for v in page.evaluate(AXE, ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] if scheme == "light" else ["color-contrast"]): yield f"{scheme}: {v}"
    page.evaluate("() => localStorage.clear()"); page.set_viewport_size(PHONE)
    if wide := page.evaluate(WIDE): yield "phone: wider than the screen: " + ", ".join(wide)


def search(page, home, word, wanted):
    "Faults of a search for a word: some page of the wanted name must be among the hits, and its link must lead there."
    page.set_viewport_size(DESK); page.goto(home + "index.html", wait_until="load")
    page.locator(".smalldocs-search input").first.press_sequentially(word); hits = page.locator(".smalldocs-search-results a.search-result")
    try: hits.first.wait_for(timeout=60_000)
    except Exception: yield f"search: {word} finds nothing"; return
    found = [h.get_attribute("href") for h in hits.all()]; mine = [i for i, h in enumerate(found) if wanted in h]
    if not mine: yield f"search: {word} finds {found}, not {wanted}"; return
    hits.nth(mine[0]).click(); page.wait_for_url(f"**/{wanted}*")
    if word not in page.content(): yield f"search: {page.url} has no {word}"


def toggle(page, home):
    "Faults of the switch between the schemes: it turns the page over, diagrams with it, and the choice stays on the next page."
    faults = []; page.emulate_media(color_scheme="light"); page.goto(home + "explanations/architecture.html", wait_until="load"); settled(page)
    before = page.locator("pre.mermaid svg").first.inner_html(); page.locator(".quarto-color-scheme-toggle").first.click(); page.wait_for_timeout(300); settled(page)
    if not page.evaluate(DRAWN)["dark"]: faults.append("switch: the page did not turn dark")
    try: page.wait_for_function("(was) => { const s = document.querySelector('pre.mermaid svg'); return s && s.innerHTML !== was; }", arg=before, timeout=60_000)
    except Exception: faults.append("switch: the diagrams did not follow")
    page.goto(home + "index.html", wait_until="load")
    if not page.evaluate(DRAWN)["dark"]: faults.append("switch: forgotten on the next page")
    page.evaluate("() => localStorage.clear()"); page.emulate_media(color_scheme="dark"); page.reload(wait_until="load")
    if not page.evaluate(DRAWN)["dark"]: faults.append("switch: a reader whose system is dark gets a light page")
    page.emulate_media(color_scheme="light"); return faults


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0]); p.add_argument("--site", type=Path, default=ROOT/"_docs"); p.add_argument("--pages", default="", help="only pages whose path has this regular expression")
    p.add_argument("--no-axe", action="store_true"); a = p.parse_args(); begun = time.time()
    if not (a.site/"index.html").is_file(): sys.exit(f"browse: {a.site} must hold a built site (python tools/docs.py)")
    if not chromium(): sys.exit("browse: no Chromium found; install it (Debian: apt install chromium) or name it in $CHROMIUM")
    try: import axe_playwright_python; from playwright.sync_api import sync_playwright
    except ImportError as e: sys.exit(f"browse: {e.name} is missing: pip install 'arrhythmia_classifier[dev]'")
    axe = None if a.no_axe else (Path(axe_playwright_python.__file__).parent/"axe.min.js").read_text(encoding="utf-8")
    faults = list(broken_links(a.site)); names = [n for f in sorted(a.site.rglob("*.html")) if re.search(a.pages, n := f.relative_to(a.site).as_posix())]
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(a.site))); threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"; slow = {}; seen = dict(diagrams=0, formulas=0)
    try:
        with sync_playwright() as pw:
            browser = launch(pw); page = browser.new_page(reduced_motion="reduce"); met = []; watch(page, home, met)
            for name in names:
                t = time.time()
                try:
                    faults += [f"{name}: {f}" for f in look(page, home + name, axe)]; d = page.evaluate(DRAWN); seen["diagrams"] += d["drawn"]; seen["formulas"] += d["set"]
                except Exception as e: faults.append(f"{name}: {type(e).__name__}: {str(e).splitlines()[0][:200]}")
                faults += [f"{name}: {f}" for f in met]; met.clear(); slow[name] = time.time() - t
            if not a.pages:
                faults += [*search(page, home, "FocalLoss", "loss.html"), *toggle(page, home)] + [f"search, switch: {f}" for f in met]
                for k, n in seen.items():
                    if not n: faults.append(f"the site has no {k}: nothing was checked")
            browser.close()
    finally: server.shutdown(); server.server_close()
    for f in dict.fromkeys(faults): print(f)
    print(f"{len(names)} pages, {seen['diagrams']} diagrams, {seen['formulas']} formulas, {len(dict.fromkeys(faults))} faults, {time.time() - begun:.0f} s; slowest: "
          + ", ".join(f"{n} {s:.1f} s" for n, s in sorted(slow.items(), key=lambda x: -x[1])[:3]))
    sys.exit(bool(faults))


if __name__ == "__main__": main()
