"""Is the Databricks bundle right, as far as that can be told offline? python tools/bundle.py [--without COMMAND ...]

Jobs are read with the types of databricks-bundles, which refuse unknown and missing fields; every task's command line is parsed by our own command line;
variables, cluster keys and pinned packages are looked up; a model or table that a command can be given must be named with the target's variables. Faults planted on purpose must be found. `databricks bundle validate` needs a workspace and was never run."""
import argparse, copy, re, sys
from configparser import ConfigParser
from pathlib import Path

import typer, yaml
from databricks.bundles.jobs import Job
from packaging.requirements import Requirement

from arrhythmia_classifier.cli import app

ROOT = Path(__file__).resolve().parent.parent
TOP = {"bundle", "include", "artifacts", "variables", "targets"}
COMMANDS = typer.main.get_command(app).commands
ini = ConfigParser(delimiters=["="], comment_prefixes=["#"]); ini.read(ROOT/"settings.ini", encoding="utf-8")
NAMED = {"--name", "--table", "--records", "--results"}   # left out, a command takes those of main.ecg or of its own machine, and in another target the wrong ones
BOUNDS = {(r := Requirement(l)).name: r for l in ini["DEFAULT"]["requirements"].split("\n") if l}


def command_faults(words, fetched=()):
    "What our command line would say of these words, and what is not of this target; `fetched` are folders of earlier tasks."
    if not words or words[0] not in COMMANDS: return [f"no command {words[:1]}; there are {', '.join(COMMANDS)}"]
    c = COMMANDS[words[0]]; context = c.context_class(c, info_name=words[0])
    try: given, extra, _ = c.make_parser(context).parse_args(list(map(str, words[1:])))
    except Exception as e: return [f"{words[0]}: {e}"]
    said = lambda v: isinstance(v, (str, list, tuple)) and len(v) > 0
    lack = [p.name for p in c.params if p.required and not said(given.get(p.name))]
    other = [o for p in c.params for o in NAMED.intersection(p.opts) if "${var." not in str(given.get(p.name)) and given.get(p.name) not in fetched]
    return [f"{words[0]}: too many words: {extra}"]*bool(extra) + [f"{words[0]}: no {n}" for n in lack] + [f"{words[0]}: {o} is not given with ${{var...}}" for o in other]


def job_faults(key, job, variables):
    try: Job.from_dict(job)
    except (ValueError, TypeError) as e: return [f"{key}: {e}"]
    out = [f"{key}: no variable {v}" for v in set(re.findall(r"\$\{var\.(\w+)\}", str(job))) - set(variables)]
    clusters = {c["job_cluster_key"] for c in job.get("job_clusters", ())}; tasks = {t["task_key"] for t in job["tasks"]}
    commands = {t["task_key"]: list(map(str, (t.get("python_wheel_task") or {}).get("parameters", []))) for t in job["tasks"]}
    for t in job["tasks"]:
        wheel = t.get("python_wheel_task") or {}
        if (wheel.get("package_name"), wheel.get("entry_point")) != ("arrhythmia_classifier", "arrhythmia"): out.append(f"{key}: {t['task_key']} is not a task of our wheel")
        before = [commands[d["task_key"]] for d in t.get("depends_on", ()) if d["task_key"] in commands]
        out += [f"{key}: {f}" for f in command_faults(commands[t["task_key"]], [w[2] for w in before if w[0] == "fetch" and len(w) > 2])]
        if t.get("job_cluster_key") not in clusters: out.append(f"{key}: no cluster {t.get('job_cluster_key')}")
        out += [f"{key}: no task {d['task_key']}" for d in t.get("depends_on", ()) if d["task_key"] not in tasks]
        pins = [Requirement(l["pypi"]["package"]) for l in t.get("libraries", ()) if "pypi" in l]
        if {"torch", "mlflow"} - {p.name for p in pins} or not any("whl" in l for l in t.get("libraries", ())): out.append(f"{key}: {t['task_key']} lacks the wheel, torch or mlflow")
        out += [f"{key}: {p} is not what settings.ini allows" for p in pins if not BOUNDS[p.name].specifier.contains(str(p.specifier).removeprefix("=="))]
    return out


def main(without=()):
    root = yaml.safe_load((ROOT/"databricks.yml").read_text()); files = sorted(f for p in root["include"] for f in ROOT.glob(p))
    jobs = {k: j for f in files for k, j in yaml.safe_load(f.read_text())["resources"]["jobs"].items()}; variables = root["variables"]
    faults = [f"databricks.yml: unknown {k}" for k in root.keys() - TOP] + [f"databricks.yml: no variable {v}" for v in set(re.findall(r"\$\{var\.(\w+)\}", str(root))) - set(variables)]
    faults += [f"no target {t}" for t in {"dev", "prod"} - root["targets"].keys()] + [f"target sets no variable {v}" for t in root["targets"].values() for v in set(t.get("variables", ())) - set(variables)]
    faults += [f"no job {k}" for k in {"ingest", "train", "finetune", "batch", "monitor"} - set(jobs)]
    for k, j in jobs.items(): faults += job_faults(k, j, variables)
    faults = [f for f in faults if not any(f"no command ['{c}']" in f for c in without)]
    if faults: sys.exit("\n".join(faults))

    def planted(change, key="batch"):
        j = copy.deepcopy(jobs[key]); change(j); return job_faults(key, j, variables)
    words = lambda j: j["tasks"][-1]["python_wheel_task"]["parameters"]
    def without_option(j, option): i = words(j).index(option); del words(j)[i:i + 2]
    for what, change in dict(field=lambda j: j.update(taskz=[]), command=lambda j: words(j).__setitem__(0, "bach"), option=lambda j: words(j).append("--recrods"), value=lambda j: words(j).append("--records"),
                             word=lambda j: words(j).append("one too many"), required=lambda j: j["tasks"][0]["python_wheel_task"].update(parameters=["ingest", "--spark"]),
                             cluster=lambda j: j["tasks"][0].update(job_cluster_key="other"), variable=lambda j: words(j).extend(["--home", "${var.nowhere}"]),
                             pin=lambda j: j["tasks"][0]["libraries"][1]["pypi"].update(package="torch==2.1.0")).items():
        if not planted(change): sys.exit(f"a planted fault was not found: {what}")
    for option in ("--name", "--records"):
        if not any(option in f for f in planted(lambda j: without_option(j, option), "monitor")): sys.exit(f"a planted fault was not found: the monitor without {option}")
    if not planted(lambda j: j["tasks"][-1].update(depends_on=[]), "monitor"): sys.exit("a planted fault was not found: records that nobody fetched")
    print(f"{len(jobs)} jobs, {sum(len(j['tasks']) for j in jobs.values())} tasks, {len(variables)} variables; 12 planted faults found" + (f"; commands not looked up: {', '.join(without)}" if without else ""))


if __name__ == "__main__":
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0]); a.add_argument("--without", nargs="*", default=[], help="commands that this checkout lacks"); main(**vars(a.parse_args()))
