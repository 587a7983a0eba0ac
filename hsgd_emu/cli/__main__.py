"""`python -m hsgd_emu.cli`."""

from hsgd_emu.cli import main

main()
