"""``risk.html``: one page a site in plain words, for the person who signs: what leaves, what was drawn, what helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fedsec.log import runlog
from fedsec.log.files import write_whole
from fedsec.log.record import RunRecord
from fedsec.log.values import values_of
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.measures import HEADINGS
from fedsec.reports.gallery import Pictures
from fedsec.reports.leaks import (
    LEAST,
    PRIOR,
    UNKNOWN,
    Leak,
    batch_of,
    images_of,
    leaks,
    setting,
    sites,
    strongest,
    verdict,
)
from fedsec.reports.markup import inert, page, paragraph, table
from fedsec.reports.split_learning.leaks import answer
from fedsec.reports.words import digits, percent

RISK = "risk.html"
WIDTH = 640
HEADS = {
    "drawn": "its images can be drawn",
    "in part": "its images can be drawn in part",
    LEAST: "the attacks tried here drew none of its images",
    UNKNOWN: UNKNOWN,
}
MEANS = {
    "drawn": "Somebody who reads what this site sends to the server can draw its training images.",
    "in part": "Somebody who reads what this site sends to the server can draw more than is public anyway.",
    LEAST: "No attack tried here drew more than can be drawn without looking, one that was made to know the protection "
    "among them. A stronger one may.",
    UNKNOWN: "No attack tried here drew its images, or none could be made, and the strongest that are known were not "
    "made: several rounds pooled, and who has the image files. That is no sign of safety.",
}


def write_risk(folder: Path) -> Path | None:
    """Write ``risk.html`` from the run's log and pictures; None when no update of the run was attacked."""
    folder = Path(folder)
    record = runlog.read(folder)
    found = leaks(record)
    if not sites(found):
        return None
    pictures = Pictures(folder, "leaks")
    name = str(record.header.config.get("run.name", "run"))
    sheets = "".join(_sheet(record, found, pictures, site) for site in sites(found))
    path = folder / RISK
    write_whole(path, page(f"{name}: risk sheets", sheets))
    return path


def _sheet(record: RunRecord, found: Sequence[Leak], pictures: Pictures, site: int) -> str:
    arms = [arm for arm in record.header.arms if strongest(found, arm, site)]
    first = arms[0]
    leak = strongest(found, first, site)
    assert leak is not None
    prior = next((row for row in found if (row.arm, row.partition, row.attack) == (first, site, PRIOR)), None)
    worst = verdict(found, first, site)
    told = f"{MEANS[worst]} " + _numbers(leak, prior)
    facts, limits = (paragraph(inert(text, 900), "soft") for text in (_facts(record, first, site), _limits(record)))
    return (
        f'<section class="sheet"><header><h1>Site {site}: {HEADS[worst]} ({inert(first)})</h1>{facts}</header>'
        f'<div class="verdict"><p class="head">{inert(told, 900)}</p></div>'
        f"{_shown(pictures, leak)}{_protections(record, found, arms, site)}{limits}</section>"
    )


def _facts(record: RunRecord, arm: str, site: int) -> str:
    images, batch = images_of(record, site), batch_of(record, arm, site)
    if record.header.config.get("train.task") == "split-learning":
        return _split_facts(record, arm, images, batch)
    epochs = int(setting(record, arm, "classifier.epochs") or 0)
    steps = epochs * -(-images // batch) or int(setting(record, arm, "train.steps"))
    kept = setting(record, arm, "classifier.sends") == "weights"
    leaves = f"the changed weights of a {setting(record, arm, 'classifier.network')}"
    leaves += "" if kept else ", and the running statistics of its normalisation layers"
    return (
        f"In each of the {record.header.config.get('train.rounds', '?')} rounds the site trains on "
        f"{_count(images, 'image')} in {_count(steps, 'step')} of {batch}. What leaves: {leaves}; no image, no label. "
        "Who could look: whoever runs the server, or reads what travels to it."
    )


def _split_facts(record: RunRecord, arm: str, images: int, batch: int) -> str:
    count = int(setting(record, arm, "cut.batches")) * batch
    leaves = "activations of the first layers, held-out images' among them"
    leaves += " and its labels" if setting(record, arm, "cut.labels") == "server" else ", no label"
    leaves += ", and the weights of its half" if setting(record, arm, "cut.average") else ""
    return (
        f"In each of the {record.header.config.get('train.rounds', '?')} messages the site sends "
        f"{_count(count, 'image')} of its {images} through its half of the network. What leaves: {leaves}; no image. "
        "Who could look: whoever runs the server, or reads what travels to it. The attackers here also had the site's "
        "half of the network."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _numbers(leak: Leak, prior: Leak | None) -> str:
    if not math.isfinite(leak.strength):
        return " ".join(dict.fromkeys(f"{leak.attack}: {row.reason}." for row in leak.rows if row.reason))
    text, without = "", digits(prior.of(leak.ssim).mean) if prior else "not yet measured"
    if math.isfinite(leak.identified):
        crowd = 1 / leak.of("iip-chance").mean
        text += f"{percent(leak.identified)} of the images are picked out of a crowd of {crowd:.0f}"
        worst = min(leak.by_embedding, key=lambda name: leak.by_embedding[name])
        rest = leak.by_embedding[worst]
        text += f" ({percent(rest)} when searched by {worst}). " if rest < leak.identified else ". "
    return text + (
        f"Similarity with the true images, 1 is equal, by {HEADINGS[leak.ssim]}: {digits(leak.of(leak.ssim).mean)} for "
        f"who looks, {without} for who does not."
    )


def _shown(pictures: Pictures, leak: Leak) -> str:
    if not leak.picture:
        return ""
    told = (
        "From the top: the site's images, what is known without looking, what the attack drew, that at full contrast."
    )
    picture = pictures.show(leak.picture, told, WIDTH)
    return f"<figure><figcaption>{inert(told)}</figcaption>{picture}</figure>"


def _protections(record: RunRecord, found: Sequence[Leak], arms: Sequence[str], site: int) -> str:
    rows, split = [], record.header.config.get("train.task") == "split-learning"
    for arm in arms:
        leak = strongest(found, arm, site)
        assert leak is not None
        value = mean_interval(values_of(record, arm, answer(record, arm) if split else "auc")).mean
        score = digits(value) if math.isfinite(value) else "not finished"
        rows.append((inert(arm), inert(verdict(found, arm, site)), digits(leak.rdlv), inert(leak.attack), score))
    head = ("protection", "an image is", "RDLV", "by", "accuracy of the model" if split else "AUC of the model")
    return table("What each protection leaves, and what the model is worth with it", head, rows)


def _limits(record: RunRecord) -> str:
    rounds = ", ".join(map(str, sorted({row.round for leak in leaks(record) for row in leak.rows})))
    at = "after message" if record.header.config.get("train.task") == "split-learning" else "in round"
    return (
        f"Attacked was what was sent {at} {rounds}, with the attacks named; stronger ones may exist. RDLV: 0 is no "
        "better than the public prior, 0.5 half again as similar to the site's image. This sheet says nothing about "
        "membership, nor about what the final model gives away."
    )
