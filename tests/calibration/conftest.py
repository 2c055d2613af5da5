"""Prints what simulations counted, after `make calibrate`."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    counted = dict(pair for report in reports if report.when == "call" for pair in report.user_properties)
    if counted:
        terminalreporter.section("errors")
        for figure in sorted(counted):
            terminalreporter.write_line(f"{figure}: {counted[figure]}")
