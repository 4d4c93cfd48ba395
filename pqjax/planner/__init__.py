"""How a network is run: presets, exact costs, and the plan both sides agree on."""

from pqjax.planner.choose import plan
from pqjax.planner.document import read_plan
from pqjax.planner.plan import Line, Plan, Step
from pqjax.planner.presets import PRESETS, Preset, find_preset
from pqjax.planner.price import StepCost
from pqjax.planner.wishes import check_class_names
