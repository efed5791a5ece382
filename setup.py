"Package metadata: everything that pyproject.toml calls dynamic is read from settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).resolve().parent
ini = ConfigParser(delimiters=["="], comment_prefixes=["#"])
ini.read(here/"settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
lines = lambda key: [o.strip() for o in cfg.get(key, "").splitlines() if o.strip()]

extras = {k.removesuffix("_requirements"): lines(k) for k in cfg if k.endswith("_requirements")}
extras["all"] = sorted({o for reqs in extras.values() for o in reqs})

# PyPI has no files beside the README: its links become absolute there.
web = "https://github.com/kvnlng/ArrhythmiaClassifier/blob/main/"
readme = (here/"README.md").read_text(encoding="utf-8").replace("](nbs/images/", f"]({web.replace('blob', 'raw')}nbs/images/").replace("](nbs/", f"]({web}nbs/")

setup(
    author=cfg["author"], license=cfg["license"], keywords=cfg["keywords"].split(),
    install_requires=lines("requirements"), extras_require=extras,
    entry_points={"console_scripts": lines("console_scripts"),
                  "nbdev": [f"{cfg['lib_name']} = {cfg['lib_name']}._modidx:d"]},
    long_description=readme, long_description_content_type="text/markdown",
    packages=[cfg["lib_name"]], package_data={cfg["lib_name"]: ["data/*", "data/models/*/*"]},
)
