"""The slow, obvious twin of `reference`: Python integers, one element at a time, ring by ring."""

import numpy as np

from pqjax.graph import TensorType


def read(v, out: TensorType):
    """The low bits of an integer, read as a format says."""
    v = int(v) & ((1 << out.bits) - 1)
    return v - (1 << out.bits) if out.signed and v >> (out.bits - 1) else v


def dot(x, w):
    """A sum of products in Python integers; numpy's own may be 64-bit ones here and there."""
    return sum(int(a) * int(c) for a, c in zip(np.ravel(x), np.ravel(w), strict=True))


def half_of(shift, rounding):
    return 1 << (shift - 1) if rounding == "nearest" and shift > 0 else 0


def requantized(node, source, v):
    shift = source.scale - node.out.scale
    if shift > 0:
        v = read(v + half_of(shift, node.rounding), source) >> shift
    else:
        v = v << -shift
    if node.rule == "saturate":
        return min(max(v, node.out.low), node.out.high)
    return v


def element(node, source, v):
    """One element of a step that works element by element, before it is fit to its format."""
    kind = node.kind
    if kind == "Relu":
        return max(v, 0)
    if kind == "Requantize":
        return requantized(node, source, v)
    if kind in ("Truncate", "TruncateReduce"):
        return read(v + half_of(node.shift, node.rounding), source) >> node.shift
    if kind == "ScaleUp":
        return v << node.shift
    if kind == "Clamp":
        return min(max(v, node.low), node.high)
    if kind == "Saturate":
        v = read(v + half_of(node.shift, node.rounding), source) >> node.shift
        return min(max(v, node.low), node.high)
    assert kind in ("Extend", "Narrow", "Unguard"), kind
    return v


def every_value_slowly(graph, weights, x):
    """Every node's tensor by name, of one input."""
    values = {graph.input.name: np.asarray(x).astype(object)}
    for node in graph.nodes[1:]:
        v, source = values[node.sources[0]], graph.source(node)
        y = np.empty(node.out.shape, object)
        if node.kind == "Conv":
            w, b = (weights[f"{node.name}/{part}"].astype(object) for part in ("weight", "bias"))
            p = np.pad(v, (*node.padding, (0, 0)))
            fan_in, each = w.shape[2], w.shape[3] // node.groups
            for i, j, k in np.ndindex(*y.shape):
                a, c, g = i * node.stride[0], j * node.stride[1], k // each * fan_in
                rows = [a + node.dilation[0] * tap for tap in range(node.kernel[0])]
                cols = [c + node.dilation[1] * tap for tap in range(node.kernel[1])]
                part = p[np.ix_(rows, cols, range(g, g + fan_in))]
                y[i, j, k] = dot(part, w[..., k]) + b[k]
        elif node.kind == "Dense":
            w, b = (weights[f"{node.name}/{part}"].astype(object) for part in ("weight", "bias"))
            for k in range(len(y)):
                y[k] = dot(v, w[:, k]) + b[k]
        elif node.kind == "Product":
            heads, other = node.heads, values[node.sources[1]]
            a = v.reshape(-1, heads, v.shape[2] // heads)
            b = other.reshape(-1, heads, other.shape[2] // heads)
            y = y.reshape(len(a), heads, -1)
            for i, h, j in np.ndindex(*y.shape):
                y[i, h, j] = dot(a[i, h], b[j, h] if node.transposed else b[:, h, j])
            y = y.reshape(node.out.shape)
        elif node.kind in ("MaxPool", "AvgPool"):
            for i, j, k in np.ndindex(*y.shape):
                a, c = i * node.stride[0], j * node.stride[1]
                if node.kind == "MaxPool":
                    y[i, j, k] = v[a : a + node.window[0], c : c + node.window[1], k].max()
                    continue
                a, c = a - node.padding[0][0], c - node.padding[1][0]
                part = v[max(a, 0) : a + node.window[0], max(c, 0) : c + node.window[1], k]
                whole = node.multiplier * node.window[0] * node.window[1]
                y[i, j, k] = part.sum() * ((2 * whole + part.size) // (2 * part.size))
        elif node.kind == "Add":
            y = v + values[node.sources[1]]
        elif node.kind == "Concat":
            y = np.concatenate([values[source] for source in node.sources], axis=-1)
        elif node.kind == "Flatten":
            y = v.reshape(-1)
        elif node.kind == "Subsample":
            y = v[:: node.stride[0], :: node.stride[1]]
        elif node.kind == "Pad":
            y = np.pad(v, node.margins, "edge" if node.edge else "constant")
        elif node.kind == "Take":
            y = v[..., list(node.channels)]
        elif node.kind == "ArgMax":
            y[0] = max(range(v.size), key=lambda i: (v[i], -i))
        else:
            for at in np.ndindex(*y.shape):
                y[at] = element(node, source, v[at])
        values[node.name] = np.array(
            [read(e, node.out) for e in np.ravel(y)], object
        ).reshape(node.out.shape)  # fmt: skip
    return values
