"""Files with the results of `fastws probe`: JUnit's XML for CI systems, and a page for people.

This module knows these formats. It does not know how a check is made, or which answers are right.
Answers come from strangers: all text is made printable, and then escaped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from fastws import __version__

from ._probing import OUT_OF_TIME
from ._terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._probing import Check, Result

__all__ = ["html", "junit"]


def junit(subject: str, results: Sequence[Result]) -> str:
    """Return the results as XML in JUnit's form.

    A wrong answer is a failure, a check that could not be made is skipped, and one for which there
    was no time is an error.

    Args:
        subject: the server or client.
        results: what came of the checks.
    """
    suites = Element("testsuites", name="fastws probe")
    suite = SubElement(suites, "testsuite", name="fastws probe", timestamp=_now())
    properties = SubElement(suite, "properties")
    SubElement(properties, "property", name="subject", value=printable(subject))
    SubElement(properties, "property", name="fastws", value=__version__)
    counts = dict.fromkeys(("failures", "errors", "skipped"), 0)
    for result in results:
        check, answer = result.check, printable(result.answer)
        case = SubElement(
            suite,
            "testcase",
            classname=f"fastws.probe.{check.group.lower()}",
            name=f"{check.name}, {result.manner}",
            time=f"{result.seconds:.3f}",
        )
        if result.verdict == "wrong":
            counts["failures"] += 1
            expected = " or ".join(check.expected)
            failure = SubElement(case, "failure", message=f"{answer} instead of {expected}")
            failure.text = f"{check.rule} (RFC {check.section})"
        elif result.answer == OUT_OF_TIME:
            counts["errors"] += 1
            SubElement(case, "error", message=answer)
        elif result.verdict == "skipped":
            counts["skipped"] += 1
            SubElement(case, "skipped", message=answer)
    for element in (suites, suite):
        element.set("tests", str(len(results)))
        element.set("time", f"{sum(result.seconds for result in results):.3f}")
        for name, count in counts.items():
            element.set(name, str(count))
    indent(suites)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{tostring(suites, 'unicode')}\n"


def html(subject: str, results: Sequence[Result]) -> str:
    """Return the results as a page that needs nothing else.

    Args:
        subject: the server or client.
        results: what came of the checks.
    """
    checks: dict[Check, list[Result]] = {}
    for result in results:
        checks.setdefault(result.check, []).append(result)
    wrong = [check for check in checks if "wrong" in _verdicts(checks[check])]
    sections = [("Wrong answers", wrong)]
    sections += [(group, [each for each in checks if each.group == group]) for group in _GROUPS]
    verdicts = _verdicts(results)
    return _PAGE.format(
        style=_STYLE,
        subject=escape(printable(subject)),
        version=escape(__version__),
        time=_now(),
        total=", ".join(_count(verdicts, each) for each in _VERDICTS),
        sections="".join(_section(name, part, checks) for name, part in sections if part),
    )


def _section(name: str, part: list[Check], checks: dict[Check, list[Result]]) -> str:
    rows = "".join(_row(check, checks[check]) for check in part)
    return f"<h2>{name}</h2>\n<div><table>\n{_HEAD}{rows}</table></div>\n"


def _row(check: Check, results: list[Result]) -> str:
    """Return the row of a check. Answers that do not depend on the manner are there once."""
    if len({(result.verdict, result.answer) for result in results}) == 1:
        results = results[:1]
    lines = [
        _mark(result.verdict, result.verdict)
        + f" {escape(printable(result.answer))}"
        + (f" <small>({result.manner})</small>" if len(results) > 1 else "")
        for result in results
    ]
    columns = (
        escape(check.name),
        "<br>".join(lines),
        escape(" or ".join(check.expected)),
        f"{escape(check.rule)} <small>{_links(check.section)}</small>",
    )
    return f"<tr>{''.join(f'<td>{column}</td>' for column in columns)}</tr>\n"


def _links(sections: str) -> str:
    """Return links to sections of RFCs, such as "6455 §8.1, 3629 §3"."""
    links = []
    for section in sections.split(", "):
        number, _, part = section.partition(" §")
        where = f"https://www.rfc-editor.org/rfc/rfc{number}#section-{part}"
        links.append(f'<a href="{escape(where)}">RFC {escape(section)}</a>')
    return ", ".join(links)


def _mark(text: str, verdict: str) -> str:
    return f'<b class="{verdict}">{text}</b>'


def _count(verdicts: list[str], verdict: str) -> str:
    """Return how many results there are, in the colour of the verdict if there are any."""
    count = verdicts.count(verdict)
    return _mark(f"{count} {verdict}", verdict) if count else f"{count} {verdict}"


def _verdicts(results: Sequence[Result]) -> list[str]:
    return [result.verdict for result in results]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_GROUPS: Final = ("Handshake", "Frames", "Messages", "Compression")
_VERDICTS: Final = ("ok", "wrong", "skipped")
_HEAD: Final = "<tr><th>sent</th><th>answer</th><th>expected</th><th>rule</th></tr>\n"

_STYLE: Final = """\
:root { color-scheme: light dark; --ok: #11632b; --wrong: #b3101f; --skipped: #6a4a00;
  --line: #c8ccd0; --link: #0a4fb3; --text: #17191c; --back: #ffffff }
@media (prefers-color-scheme: dark) { :root { --ok: #6fd68b; --wrong: #ff8f8f; --skipped: #e5bd5c;
  --line: #44484d; --link: #8bb8ff; --text: #e8eaed; --back: #16181b } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 75rem; margin: 0 auto; padding: 1rem;
  color: var(--text); background: var(--back) }
h1 { font-size: 1.4rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin-top: 2rem }
div { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
  border-bottom: 1px solid var(--line) }
td { overflow-wrap: break-word }
a { color: var(--link) }
.ok { color: var(--ok) } .wrong { color: var(--wrong) } .skipped { color: var(--skipped) }
@media (max-width: 40rem) {
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line) }
  td { display: block; padding: 0; border: 0 }
  th { display: none }
  td:first-child { font-weight: bold }
  td:nth-child(3)::before { content: "expected " }
}"""

# (The address of the page must not be told to the sites it links to.)
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>fastws probe: {subject}</title>
<style>
{style}
</style>
<h1>fastws probe: {subject}</h1>
<p>{total}. Data is sent twice, on two connections: all at once, and byte by byte.</p>
<p><small>fastws {version}, {time}</small></p>
{sections}"""
