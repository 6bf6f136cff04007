"""Formulas over named numbers: + - * / ^, parentheses and a few functions, and nothing else.

Read with Python's own parser, evaluated by walking what it found: a name is a number that was
given, a call is one of FUNCTIONS. All numbers are floats, so none can grow without end.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping

FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp,
    "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip
OPERATORS: Mapping[type, Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: math.pow,
}  # fmt: skip
ALLOWED = (ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp)
SIGNS: Mapping[type, Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class FormulaError(Exception):
    """A formula cannot be read, or has no value for these numbers; says why."""


def calculate(formula: str, numbers: Mapping[str, float]) -> float:
    """The value of a formula. Raises FormulaError."""
    tree = _parsed(formula)
    try:
        value = float(_value(tree, numbers))
    except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise FormulaError(f"{formula!r} has no value: {error}") from None
    if not math.isfinite(value):
        raise FormulaError(f"{formula!r} is {value}")
    return value


def names_of(formula: str) -> set[str]:
    """Names that a formula needs. Raises FormulaError."""
    found = {node.id for node in ast.walk(_parsed(formula)) if isinstance(node, ast.Name)}
    return found - FUNCTIONS.keys()


def check_formula(formula: str) -> None:
    """Raise FormulaError where a formula holds anything that has no place in one."""
    for node in ast.walk(_parsed(formula)):
        is_function = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if isinstance(node, ast.expr) and not is_function and not isinstance(node, ALLOWED):
            raise FormulaError(f"{formula!r}: {ast.unparse(node)!r} is not allowed")


def _parsed(formula: str) -> ast.expr:
    try:
        return ast.parse(formula.replace("^", "**").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError(f"{formula!r} is no formula: {error}") from None


def _value(node: ast.expr, numbers: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in numbers:
            return float(numbers[name])
        case ast.Name(id=name):
            raise ValueError(f"there is no {name}; known are {', '.join(numbers)}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left, numbers), _value(right, numbers))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in SIGNS:
            return SIGNS[type(op)](_value(operand, numbers))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return float(FUNCTIONS[name](*(_value(arg, numbers) for arg in args)))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed")
