"""Work that is cut short, counted: ``make interrupted``, or ``python -m tests.cut_short_campaign --help``.

The tests cut each operation short some dozens of times; this command does so thousands of times on each storage, prints
what was left behind, and ends with an error if anything was. Each row is measured by a process of its own (``child``),
which is ended if it hangs.
"""
