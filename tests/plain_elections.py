"""The algebra of sql/elections again, in plain numpy, one target after the other: what the SQL is held to."""

from math import erf, exp, log, pi, sqrt

import numpy as np

MEMORY, FEWEST, MAD = 6, 3, 1.482602218505602
ETA, SHARING, ALPHA, CAP = 0.25, 0.05, 0.05, 4.0
FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)


def foreseen(packets, scores, uses_own, *, left_out=False):
    """[network -> (mean, variance)] for each packet in order; None where too little is known.

    `packets`: dicts of node, time, y, v, sorted by (time, id); `scores`: network -> matrix, from the threshold on.
    """
    return [_foreseen(packets, scores, uses_own, target, left_out) for target in range(len(packets))]


def _foreseen(packets, scores, uses_own, target, left_out):
    now = packets[target]
    known = _known(packets, target, left_out)
    others = [at for at in known if packets[at]["node"] != now["node"]]
    if len(others) < FEWEST:
        return None
    y = np.array([packet["y"] for packet in packets])
    v = np.array([packet["v"] for packet in packets])
    node = np.array([packet["node"] for packet in packets])
    middle = np.median(y[others])
    mad = MAD * np.median(np.abs(y[others] - middle))
    v = np.maximum(v, np.median(v[others]) / 2)
    if len(others) >= 5 and mad > 0:
        known = [at for at in known if abs(y[at] - middle) <= 3.5 * mad]
    believed = np.array([at for at in known if at in others])
    tau2 = max(0.0, y[believed].var(ddof=1) - v[believed].mean())
    w = 1 / (v[believed] + tau2)
    mean, variance = (w * y[believed]).sum() / w.sum(), 1 / w.sum()
    found = {"everyone": (mean, tau2 + variance)}
    for network, matrix in scores.items():
        at = np.array(known) if uses_own[network] else believed
        s = matrix[np.ix_(at, at)].copy()
        np.fill_diagonal(s, 0)
        if not uses_own[network]:
            s[node[at][:, None] == node[at][None, :]] = 0
        own = matrix[target, at]
        if s.sum() == 0 or own.sum() == 0:
            found[network] = found["everyone"]
            continue
        excess = (y[at][:, None] - y[at][None, :]) ** 2 - v[at][:, None] - v[at][None, :]
        within = min(tau2, max(0.0, (s * excess).sum() / (2 * s.sum())))
        w = own / (v[at] + within)
        near, spread = (w * y[at]).sum() / w.sum(), (own * w).sum() / w.sum() ** 2
        trust = (tau2 - within) / (tau2 - within + spread)
        if trust == 0:
            found[network] = found["everyone"]
            continue
        found[network] = (
            mean + trust * (near - mean),
            within + trust * spread + (1 - trust) ** 2 * variance,
        )
    return found


def _known(packets, target, left_out):
    before = [
        at
        for at, packet in enumerate(packets)
        if at != target and (left_out or packet["time"] < packets[target]["time"])
    ]
    newest = {}
    for at in reversed(before):
        newest.setdefault(packets[at]["node"], []).append(at)
    return sorted(at for several in newest.values() for at in several[:MEMORY])


def crps(mean, sd, y):
    z = (y - mean) / sd
    density = exp(-z * z / 2) / sqrt(2 * pi)
    return sd * (z * erf(z / sqrt(2)) + 2 * density - 1 / sqrt(pi))


def scored(packets, forecasts):
    """[(time, network -> (score, mean, sd in units))] for each packet with a forecast, in order."""
    found = []
    for packet, forecast in zip(packets, forecasts, strict=True):
        if forecast is None:
            continue
        unit = sqrt(forecast["everyone"][1] + packet["v"])
        row = {}
        for network, (mean, variance) in forecast.items():
            sd = sqrt(variance + packet["v"])
            row[network] = (min(CAP, crps(mean, sd, packet["y"]) / unit), mean / unit, sd / unit)
        found.append((packet["time"], row))
    return found


def rounds_of(scores):
    """[network -> its rows] for each time, in order."""
    times = sorted({time for time, _ in scores})
    return [[row for when, row in scores if when == time] for time in times]


def shares(scores):
    """[(network -> share before, network -> share after, regret so far)] for each round, by Herbster and Warmuth."""
    networks = list(scores[0][1])
    share = np.full(len(networks), 1 / len(networks))
    loss, followed, found = np.zeros(len(networks)), 0.0, []
    for rows in rounds_of(scores):
        cost = np.array([sum(row[network][0] for row in rows) for network in networks])
        before = share
        followed += before @ cost
        loss += cost
        v = before * np.exp(-ETA * cost)
        v /= v.sum()
        share = (1 - SHARING) * v + SHARING / (len(networks) - 1) * (1 - v)
        named = [dict(zip(networks, one, strict=True)) for one in (before, share)]
        found.append((*named, followed - loss.min()))
    return found


def terms(scores):
    """[(incumbent, number of the round it came in, evidence)], from 0 on."""
    rounds, networks = rounds_of(scores), list(scores[0][1])
    found = [("everyone", 0, None)]
    growth = {}
    for number, rows in enumerate(rounds, 1):
        incumbent = found[-1][0]
        evidence = {}
        for network in networks:
            if network == incumbent:
                continue
            pairs = [(row[incumbent], row[network]) for row in rows]
            gain = np.mean([one[0] - other[0] for one, other in pairs])
            bound = np.mean([min(CAP, abs(a[1] - b[1]) + abs(a[2] - b[2]) / sqrt(pi)) for a, b in pairs])
            for fraction in FRACTIONS:
                step = log(1 + fraction * max(-1.0, min(1.0, gain / bound))) if bound > 1e-12 else 0.0
                growth[network, fraction] = growth.get((network, fraction), 0.0) + step
            evidence[network] = np.mean([exp(growth[network, fraction]) for fraction in FRACTIONS])
        best = max(evidence, key=evidence.get)
        if evidence[best] >= (len(networks) - 1) / ALPHA:
            found.append((best, number, evidence[best]))
            growth = {}
    return found
