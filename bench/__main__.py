"""Run the benchmarks, and show the results.

python -m bench [--quick] [--parts NAME,…] [-k WORDS] [--into RESULTS.json] [--no-charts]
python -m bench tables RESULTS.json
python -m bench targets RESULTS.json
python -m bench compare A.json B.json
python -m bench charts RESULTS.json [--directory DIRECTORY] [--page]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import busy, highlights, report, targets
from .results import Results

ROOT = Path(__file__).parent.parent
CHARTS = ROOT / "docs" / "_static" / "charts"
PAGE = ROOT / "docs" / "explanation" / "performance.md"


def run(args: argparse.Namespace) -> int:
    from . import run as runs

    plan = runs.QUICK if args.quick else runs.FULL
    parts = args.parts.split(",") if args.parts else list(plan)
    if unknown := set(parts) - set(plan):
        print(f"no such parts: {', '.join(sorted(unknown))}; there are", *plan, file=sys.stderr)
        return 2
    watch = busy.Watch()
    if warning := watch.before():
        print(warning, file=sys.stderr, flush=True)
    results = runs.measure(plan, parts, keyword=args.k)
    disturbance = watch.after()
    if args.into and args.into.exists():
        results = Results.load(args.into).updated(results)
    path = runs.save(results, args.into)
    print(report.describe(results), report.tables(results), sep="\n\n")
    if not args.quick:
        print(f"\n{targets.report(results)}")
    complete = not args.quick and set(parts) == set(plan) and not args.k
    if complete and args.charts:
        # The documentation only shows runs that included everything.
        draw(results, CHARTS, page=True)
    print(f"\nwritten to {path}")
    # Last, so that nobody overlooks it.
    print(f"\n{highlights.report(results)}", flush=True)
    if disturbance:
        print(f"\n{disturbance}", file=sys.stderr)
    return int(bool(results.content["failed"] or results.content["problems"]))


def draw(results: Results, directory: Path, page: bool) -> None:
    try:
        from . import charts
    except ImportError as exc:
        print(f"no charts: {exc}", file=sys.stderr)
        return
    for path in charts.draw(results, directory):
        print(f"{path} ({path.stat().st_size / 1024:.0f} KiB)")
    if page:
        _replace(PAGE, "speed", f"{report.summary(results)}\n{caption(results)}")
        _replace(ROOT / "README.md", "number", charts.headline(results))


def _replace(path: Path, name: str, new: str) -> None:
    """Replace the lines between two comments, unless there is nothing to replace them with."""
    if not new:
        return
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, _, rest = path.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}{new}{end}{after}", "utf-8")


def caption(results: Results) -> str:
    """Return what the page says about the run behind its charts."""
    content = results.content
    versions = content["versions"]
    own = ("python", "fastws", "commit", "c compiler", "c++ compiler", "node", "ws", "bufferutil")
    others = ", ".join(
        f"{name} {version}" for name, version in versions.items() if version and name not in own
    )
    # The text after the numbers says who built the kernel, which is nobody's business.
    linux = ".".join(content["kernel"].split(".")[:2])
    text = (
        f"Measured on {content['date'][:10]} on {content['cpu']} ({content['cores']} cores), "
        f"Linux {linux}, CPython {versions['python']}, fastws at "
        f"{versions.get('commit') or 'an unknown commit'}; {others}. "
        f"{content['method']}"
    )
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) > 105:
            lines.append(line)
            line = ""
        line = f"{line} {word}".lstrip()
    return "\n".join([*lines, line]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.set_defaults(command=run)
    parser.add_argument("--quick", action="store_true", help="fewer cases, less time: minutes")
    parser.add_argument(
        "--parts",
        metavar="NAME,…",
        help="only these: codec, echo, growth, idle, otherwise (TLS and compression), handshakes, "
        "fanout, paced, contest, clients",
    )
    parser.add_argument(
        "--into", type=Path, metavar="RESULTS.json", help="replace what was measured in this file"
    )
    parser.add_argument("--no-charts", dest="charts", action="store_false")
    parser.add_argument("-k", default="", metavar="WORDS", help="these cases, as pytest's -k")
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, text: str, *files: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text)
        for file in files:
            one.add_argument(file, type=Path)
        return one

    def of_one(show: object) -> dict[str, object]:
        return {"command": lambda args: print(show(Results.load(args.results)))}

    command("tables", "print ratios", "results").set_defaults(**of_one(report.tables))
    command("targets", "print what is reached", "results").set_defaults(**of_one(targets.report))
    command("compare", "print what changed", "before", "after").set_defaults(
        command=lambda args: print(
            report.compare(Results.load(args.before), Results.load(args.after))
        )
    )
    charts = command("charts", "draw them", "results")
    charts.add_argument("--directory", type=Path, default=CHARTS)
    charts.add_argument("--page", action="store_true", help=f"and write the tables in {PAGE.name}")
    charts.set_defaults(
        command=lambda args: draw(Results.load(args.results), args.directory, args.page)
    )
    args = parser.parse_args()
    return args.command(args) or 0


if __name__ == "__main__":
    sys.exit(main())
