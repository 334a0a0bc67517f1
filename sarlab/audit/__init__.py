"""Does a score hold on answers of known quality? From labelled answers to tables with intervals.

``labelled`` reads answers and scores them, ``courts`` say with ``measures`` how far what is claimed
holds for SAR and for every design; ``notebook`` (04) and ``zoo`` (05) show it. ``failures`` is the
gallery of answers that try to trick a reward; ``reward_audit`` tries them on any reward.
"""
