"""What a node kind costs and how it runs, side by side: one rule a kind, in one table."""

from pqjax.layers.rule import Rule, Setting, StepCost, Task
from pqjax.layers.table import RULES, choosing_rule, rule_of, task_of
