"""Does a score hold on answers of known quality? From labelled answers to tables with intervals.

``scoring`` reads answers and scores them, ``measures`` and ``claims`` say how far what is
claimed holds, ``notebook`` shows it. ``courts`` say what every design of the table would pay,
``zoo`` shows it. ``failures`` is the gallery of answers that try to trick a reward;
``reward_audit`` tries them, and a short training, on any reward.
"""
