"""`python -m ssn_probe` is the command line."""

from ssn_probe.cli.commands import main

main(prog_name="ssn-probe")
