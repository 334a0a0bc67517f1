"""Does a score hold on answers of known quality? From labelled answers to tables with intervals.

``records`` reads answers, ``scoring`` scores them, ``measures`` and ``claims`` say how far what is
claimed holds, ``failures`` makes answers that try to trick the reward, ``notebook`` shows it all.
"""
