"""What a policy can do: judged answers, intervals, comparisons, and their tables and figures."""
