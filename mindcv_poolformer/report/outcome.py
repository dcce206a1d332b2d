"""What a validation gives: lines to print, a result file, a report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.counted import counted
from ..runtime.errors import UserError
from ..runtime.files import replaced_file
from ..runtime.launch import World
from .findings import Findings
from .folder import check_target, write_report
from .page import PAGE


@dataclass(frozen=True)
class Targets:
    """Where an outcome goes.

    Args:
        result_file: takes the facts, as JSON; empty for none.
        report: folder of the report; empty for none.
        overwrite: replace an existing report.
    """

    result_file: str
    report: str
    overwrite: bool

    def check(self) -> None:
        """Refuse what cannot or must not be written to, before the work instead of after it.

        Raises:
            UserError: the result file is something else, or as :func:`check_target`.
        """
        name = self.result_file
        if name and Path(name).exists() and not Path(name).is_file():
            raise UserError(f"result_file: found {name} to be no file, expected one, or a new name")
        if self.report:
            check_target(Path(self.report), self.overwrite)
        elif self.overwrite:
            raise UserError("overwrite: found it without report, expected one")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was validated, and what was found.

    Args:
        lines: for people.
        facts: for the result file and the report.
        findings: on this rank's images, None where the report is written already.
    """

    lines: list[str]
    facts: dict[str, Any]
    findings: Findings | None = None

    def publish(self, targets: Targets, world: World) -> None:
        """Print the lines and write what is asked for, on one rank; all have to call it.

        Raises:
            UserError: something cannot be written.
        """
        findings = None
        if self.findings and targets.report:
            findings = self.findings.of_all_ranks(world.size)
        if not world.is_main:
            return
        print("\n".join(self.lines))
        if targets.result_file:
            with replaced_file(Path(targets.result_file)) as file:
                file.write_text(json.dumps(self.facts, indent=2) + "\n")
            print(f"results: {targets.result_file}")
        if findings:
            write_report(Path(targets.report), findings, self.facts)
            mistakes = counted(len(findings.mistakes), "mistake")
            print(
                f"report: {Path(targets.report) / PAGE}, {mistakes}, "
                f"expected calibration error {findings.calibration_error:.2%}"
            )
        elif targets.report:
            print(f"report: {Path(targets.report) / PAGE}")
