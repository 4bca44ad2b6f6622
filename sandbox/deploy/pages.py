"""A report as CI shows it: JUnit XML for its test results, Markdown for a job's page or a comment."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from sandbox.deploy.report import Failure, Report, failure_lines

# What XML 1.0 cannot hold, even escaped: most control characters, surrogates.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """One test case for each service that was deployed, one for what belongs to none."""
    suite = ElementTree.Element("testsuite", name=_xml(f"sandbox deploy {report.environment}"))
    failed_services = {f.service for f in report.failure.findings if f.service} if report.failure else set()
    cases = 0
    for service in report.services:
        if service.action != "kept":
            cases += 1
            case = ElementTree.SubElement(suite, "testcase", classname="service", name=_xml(service.name))
            if report.failure and service.name in failed_services:
                _failed(case, report, report.failure)
    case = ElementTree.SubElement(suite, "testcase", classname="deploy", name=_xml(report.environment))
    case.set("time", f"{report.seconds:.3f}")
    if report.failure:
        _failed(case, report, report.failure)
    suite.set("tests", str(cases + 1))
    suite.set("failures", str(sum(1 for _ in suite.iter("failure"))))
    suite.set("errors", "0")
    suite.set("time", f"{report.seconds:.3f}")
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _failed(case: ElementTree.Element, report: Report, failure: Failure) -> None:
    element = ElementTree.SubElement(case, "failure", message=_xml(failure.line))
    more = [report.headline, *failure_lines(failure, most=40), report.look, report.reproduce]
    element.text = _xml("\n".join(line for line in more if line))


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def markdown(report: Report) -> str:
    """How it ended, why, what stands, and what to type; ends with a line break."""
    mark = {"deployed": "✅", "planned": "📝", "rolled back": "↩️", "incomplete": "🛑", "refused": "⛔"}[report.outcome]
    found = [f"### {mark} {_plain(report.headline)}", ""]
    if report.failure:
        found += [*_code(failure_lines(report.failure)), ""]
    if report.capture:
        partial = ", partial" if report.capture.partial else ""
        said = f"`{report.capture.id}`{partial}" if report.capture.id else f"nothing: {_plain(report.capture.error)}"
        found += [f"Captured: {said}", ""]
    typed = [command for command in (report.look, report.reproduce) if command]
    if typed:
        found += [*_code(typed, "sh"), ""]
    if report.lost:
        found += ["Lost with the data that was restored:", "", *(f"- {_plain(line)}" for line in report.lost), ""]
    services = [service for service in report.services if service.action != "kept"]
    if services:
        found += ["| service | | commit | |", "| --- | --- | --- | --- |"]
        found += [f"| {_cell(s.name)} | {s.action} | {s.commit[:12]} | {_cell(s.detail)} |" for s in services]
        found.append("")
    return "\n".join(found)


def _code(lines: list[str], language: str = "text") -> list[str]:
    """A fenced block that its own contents cannot end."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *(line.replace("\r", "") for line in lines), fence]


def _plain(text: str) -> str:
    """Text of one line that Markdown and HTML take for nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~@])", r"\\\1", " ".join(text.split()))


def _cell(text: str) -> str:
    return _plain(text)[:300]
