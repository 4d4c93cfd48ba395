"""Costs as formulas, beside the cost model: text that a table prints and that is evaluated as printed.

The paper's are in `published.json`; those here are exact, of IKNP and KKOT with λ = 128 and chosen
messages where the papers' public code sends them. None of them calls the cost model.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

λ = 128

# l1 -> l2 for Ext; l1 bits shifted by l2 for Trunc and TR.
SMALL = {
    "Ext": "wrap(l1) + b2a(l2 - l1)",
    "Ext, MSB known": "130 + b2a(l2 - l1)",
    "Ext, MSB known, one correlation": "λ + l2 - l1",
    "TR": "wrap(l2) + b2a(l1 - l2)",
    "Trunc": "wrap(l2) + mill_eq(l1 - l2) + 148 + b2a(l1) + b2a(l2)",
    "Trunc, MSB known": "wrap(l2) + 130 + b2a(l1) + b2a(l2)",
    "Trunc as TR, Ext": "wrap(l2) + b2a(l1 - l2) + wrap(l1 - l2) + b2a(l2)",
    "Wrap": "wrap(l1)",
    "B2A": "b2a(l1)",
    "MUX": "2*(λ + l1)",
    "ReLU": "wrap(l1 - 1) + 2*(λ + 2*l1)",
}

# Y = W X, W d1 x d2 of l1 bits, X d2 x d3 of l2 bits, e = ceil(log2 d2), L = l1 + l2 + e.
CHOICES = {
    1: {
        "extension": "0",
        "multiplication": "d2*d3*(l2*λ + d1*S(l2))",
        "wrap_and_mux": "d2*d3*(wrap(l2) + λ + 2*d1*(l1 + e))",
    },
    2: {
        "extension": "0",
        "multiplication": "d1*d2*((l1 + e)*λ + d3*S(l1 + e))",
        "wrap_and_mux": "d2*d3*(wrap(l2) + λ + 2*d1*(l1 + e))",
    },
    3: {
        "extension": "d2*d3*(wrap(l2) + b2a(e))",
        "multiplication": "d2*d3*((l2 + e)*λ + d1*S(l2 + e))",
        "wrap_and_mux": "d2*d3*(wrap(l2 + e) + λ + 2*d1*l1)",
    },
    4: {
        "extension": "d2*d3*(wrap(l2) + b2a(e))",
        "multiplication": "d1*d2*(l1*λ + d3*S(l1))",
        "wrap_and_mux": "d2*d3*(wrap(l2 + e) + λ + 2*d1*l1)",
    },
}
PARTS = ("extension", "multiplication", "wrap_and_mux")

# X (d1, d2) and Y (d2, d3) both shared, in a and b bits after extension: two cross terms, each over
# the cheaper operand's bits; then both operands' wraps, with a multiplexer in either direction.
SHARED_PRODUCT = (
    "2*min(d1*d2*(a*λ + d3*S(a)), d2*d3*(b*λ + d1*S(b)))"
    " + d1*d2*(wrap(a) + 2*(λ + 2*d3*(L - a))) + d2*d3*(wrap(b) + 2*(λ + 2*d1*(L - b)))"
)


def wrap(bits: int) -> int:
    """A comparison: one 1-of-2^l OT up to 4 bits, else digits of 4 bits and a tree of ANDs."""
    if bits <= 4:
        return 130 if bits == 1 else 256 + 2**bits
    q = -(-bits // 4)
    return 288 * q + 148 * (2 * (q - 1) - (q - 1).bit_length())


def mill_eq(bits: int) -> int:
    """A comparison that also says whether the two are equal."""
    q = -(-bits // 4)
    return 256 + 2 * 2**bits if q == 1 else 288 * q + 148 * 2 * (q - 1)


def b2a(bits: int) -> int:
    """An XOR-shared bit into an additive share; one bit is both."""
    return λ + bits if bits > 1 else 0


def steps(n: int, bits: int) -> int:
    """S(n): bit i of a factor needs a correlation of `bits` - i bits."""
    return n * bits - n * (n - 1) // 2


def extra_bits(d2: int) -> int:
    """e: the bits that a sum of d2 terms adds."""
    return (d2 - 1).bit_length()


def product_names(d1: int, d2: int, d3: int, l1: int, l2: int) -> dict[str, int]:
    """The names that the formulas of `CHOICES` and of the paper's table 4 use."""
    e = extra_bits(d2)
    return {"d1": d1, "d2": d2, "d3": d3, "l1": l1, "l2": l2, "e": e, "L": l1 + l2 + e}


_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_FUNCTIONS: dict[str, Callable[..., int]] = {
    "wrap": wrap,
    "mill_eq": mill_eq,
    "b2a": b2a,
    "min": min,
}


def evaluate(text: str, names: Mapping[str, int]) -> int:
    """The value of a formula: sums, differences and products of whole numbers and `names`.

    S(n) stands for `steps(n, L)`.

    Raises:
      ValueError: anything else in the formula, or a name that has no value.
    """
    functions = dict(_FUNCTIONS)
    if "L" in names:
        functions["S"] = lambda n: steps(n, names["L"])
    values = {"λ": λ, **names}

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in functions and not node.keywords:
                return functions[node.func.id](*map(value, node.args))
        if isinstance(node, ast.Name) and node.id in values:
            return values[node.id]
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        raise ValueError(f"{ast.unparse(node)!r} in the formula {text!r} has no value")

    return value(ast.parse(text, mode="eval"))
