"""The page of a leakage run: pictures, what each attack drew, leak over rounds, and leak against accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsec.log.record import RunRecord
from fedsec.log.values import values_of
from fedsec.metrics.intervals import Interval, mean_interval
from fedsec.metrics.measures import HEADINGS, OLD_SSIM, SSIM
from fedsec.privacy.protection import parsed
from fedsec.reports import figures
from fedsec.reports.curves import curve
from fedsec.reports.gallery import Pictures
from fedsec.reports.leaks import (
    OWN,
    PRIOR,
    UNKNOWN,
    Leak,
    batch_of,
    images_of,
    leaks,
    likeness,
    setting,
    sites,
    strongest,
    unmade,
    verdict,
)
from fedsec.reports.markup import figure, inert, paragraph, plots, section, table
from fedsec.reports.sources import ladder
from fedsec.reports.words import Verdict, digits, percent

WIDTH = 640
DRAWABLE = ("drawn", "in part")
SCORES = ("iip-pixels", "iip-features", SSIM, OLD_SSIM, "rdlv", "psnr")


def leak_verdict(record: RunRecord) -> Verdict:
    """Which sites' images a curious server could draw, and what each protection changes."""
    found = leaks(record)
    arms = [arm for arm in record.header.arms if any(leak.arm == arm for leak in found)]
    if not sites(found):
        return Verdict("No update was attacked in this run: leakage.every is 0, or no audited round was reached.", ())
    points = [(arm, tuple(_sentence(record, found, arm, site) for site in sites(found))) for arm in arms]
    first = arms[0]
    worst = [site for site in sites(found) if (leak := strongest(found, first, site)) and leak.level in DRAWABLE]
    told = ", ".join(f"site {site} ({_holds(record, site)})" for site in worst)
    unknown = sum(verdict(found, first, site) == UNKNOWN for site in sites(found))
    head = f"In {first}, a server that only looks could draw images of {told or 'none of the sites that it tried'}"
    rest = f"; of {unknown} nothing is known" if unknown else ""
    rest += f"; {len(sites(found))} of {record.header.clients} sites were audited."
    return Verdict(head + rest, (*points, ("Read with care", _cautions(record, found))))


def _holds(record: RunRecord, site: int) -> str:
    count = images_of(record, site)
    return f"{count} training image" + ("s" if count > 1 else "")


def _sentence(record: RunRecord, found: Sequence[Leak], arm: str, site: int) -> str:
    leak = strongest(found, arm, site)
    if leak is None:
        return f"Site {site}: not audited, its update did not arrive or no audited round was reached."
    prior = next((row for row in found if (row.arm, row.partition, row.attack) == (arm, site, PRIOR)), None)
    text = f"Site {site} ({_holds(record, site)}, batches of {batch_of(record, arm, site)}): "
    text += f"{verdict(found, arm, site)}. "
    if not math.isfinite(leak.strength):
        return text + "No attack gave a number" + "".join(f"; {why}" for why in unmade(found, arm, site)) + "."
    text += f"Best attack {leak.attack}: "
    if math.isfinite(leak.identified):
        chance = leak.of("iip-chance").mean
        shares = ", ".join(f"{percent(share)} by {name}" for name, share in leak.by_embedding.items())
        text += f"of its images picked out of a crowd, where chance is {percent(chance)}: {shares}; "
    return text + f"RDLV {digits(leak.rdlv)}; {likeness(leak, prior)}."


def _cautions(record: RunRecord, found: Sequence[Leak]) -> tuple[str, ...]:
    said = ["That no attack tried here succeeds is no proof that none does."]
    rounds = sorted({row.round for leak in found for row in leak.rows})
    said.append(f"Audited: rounds {', '.join(map(str, rounds))} of {record.header.config.get('train.rounds', '?')}.")
    if len(record.header.seeds) == 1:
        said.append("One seed: no interval.")
    if record.end is None or record.end.status != "finished":
        said.append("The run has not come to its end: this is what the log holds so far.")
    if record.header.data.source == "phantom":
        said.append("Phantom images, drawn by a program: numbers on real radiographs differ.")
    return tuple(said)


def leak_sections(record: RunRecord, folder: Path) -> str:
    found = leaks(record)
    drawn, told = pictures(record, folder, found), attacks(found, SCORES) + ladder(found)
    return drawn + told + _over_rounds(record, found) + _prices(record, found)


def pictures(record: RunRecord, folder: Path, found: Sequence[Leak]) -> str:
    """The best attack of each site and arm: truth, prior and reconstruction."""
    store = Pictures(folder, "leaks")
    drawn = []
    for site in sites(found):
        for arm in record.header.arms:
            leak = strongest(found, arm, site)
            if leak is not None and leak.picture:
                name = f"site {site}, {arm}"
                caption = f"{leak.attack}, RDLV of the likest image {digits(leak.highest)}"
                drawn.append(
                    figure(
                        store.show(leak.picture, f"truth, prior, reconstruction twice: {name}", WIDTH), name, caption
                    )
                )
    if not drawn:
        return section("Reconstructions", paragraph("No attack left a picture."))
    lead = (
        "From top to bottom: the site's own image, the public prior (what is known without looking), what the attack "
        "drew, and the same at full contrast, an image a column. The best attack of each site and arm, in the audited "
        "round it did best."
    )
    return section("Reconstructions", paragraph(inert(lead, 600), "soft"), plots(drawn))


def attacks(found: Sequence[Leak], scores: Sequence[str]) -> str:
    """A row an arm, site and attack: what it drew, or why it could not be made. Of the two SSIMs a column each that
    the log holds: a row without that one has no value there."""
    if not found:
        return ""
    held = {leak.ssim for leak in found if leak.attack != OWN}
    scores = [name for name in scores if name not in {SSIM, OLD_SSIM} - held]
    rows = [
        (
            inert(leak.arm),
            str(leak.partition),
            inert(leak.attack),
            *(_value(leak.of(name)) for name in scores),
            digits(leak.highest) if math.isfinite(leak.highest) else "–",
            str(len(leak.rows)),
        )
        for leak in found
        if leak.attack != OWN
    ]
    head = ("arm", "site", "attack", *(inert(HEADINGS.get(name, name)) for name in scores), "highest RDLV", "audits")
    told = "Mean over audited rounds and seeds, below it the 95 % interval over seeds. RDLV 0 is the public prior."
    own = [leak for leak in found if leak.attack == OWN]
    reasons = {
        (leak.arm, leak.partition, leak.attack, row.reason): None for leak in found for row in leak.rows if row.reason
    }
    unmade = table(
        "Attacks that could not be made", ("arm", "site", "attack", "why"), [tuple(map(inert, r)) for r in reasons]
    )
    return section("What each attack drew", table(told, head, rows, numeric=True), unmade if reasons else "", _own(own))


def _own(found: Sequence[Leak]) -> str:
    """What probing sites reported of themselves."""
    if not found:
        return ""
    names = list(dict.fromkeys(name for leak in found for row in leak.rows for name in row.values))
    rows = [
        (inert(leak.arm), str(leak.partition), *(_value(leak.of(name)) for name in names), str(len(leak.rows)))
        for leak in found
    ]
    return table(
        "What sites found in their own updates", ("arm", "site", *map(inert, names), "rounds"), rows, numeric=True
    )


def _value(over: Interval) -> str:
    if not math.isfinite(over.mean):
        return "–"
    text = digits(over.mean)
    return text + (f"<small>{digits(over.low)} to {digits(over.high)}</small>" if math.isfinite(over.low) else "")


def _over_rounds(record: RunRecord, found: Sequence[Leak]) -> str:
    """RDLV of each site's best attack over audited rounds, a figure an arm."""
    drawings = []
    for arm in record.header.arms:
        curves = []
        for place, site in enumerate(sites(found)):
            leak = strongest(found, arm, site)
            values: dict[float, list[float]] = {}
            for row in leak.rows if leak else ():
                values.setdefault(float(row.round), []).append(row.values.get("rdlv", math.nan))
            curves += curve(figures.arm_look(place), values)
        if curves and any(len(line.x) > 1 for line in curves):
            drawn = figures.curves_over(curves, across="round", label="RDLV", title=f"RDLV over rounds, {arm}")
            drawings.append(figure(drawn, arm))
    lead = "0: no more than the public prior shows; 1: twice as similar to the site's image as the prior."
    return section("Leak over rounds", paragraph(lead, "soft"), _key(found), plots(drawings)) if drawings else ""


def _key(found: Sequence[Leak]) -> str:
    return figures.legend([(figures.arm_look(i), f"site {site}") for i, site in enumerate(sites(found))])


def _prices(record: RunRecord, found: Sequence[Leak]) -> str:
    """Leak and accuracy over sigma0, and of every arm side by side."""
    arms = [arm for arm in record.header.arms if any(leak.arm == arm for leak in found)]
    rows = []
    for arm in arms:
        own = [strongest(found, arm, site) for site in sites(found)]
        each = [mean_interval(values_of(record, arm, name)).mean for name in ("epsilon-client", "epsilon-replies")]
        epsilon = next((value for value in each if math.isfinite(value)), math.nan)
        rows.append(
            (
                inert(arm),
                *(_value(mean_interval(values_of(record, arm, name))) for name in ("auc", "balanced-accuracy")),
                digits(epsilon) if math.isfinite(epsilon) else "–",
                *(f"{digits(leak.rdlv)}<small>{inert(leak.attack)}</small>" if leak else "–" for leak in own),
            )
        )
    head = ("arm", "AUC", "balanced accuracy", "epsilon", *(f"RDLV, site {site}" for site in sites(found)))
    told = "The price of each protection: how well the final model tells the classes apart on held-out images."
    if not rows:
        return ""
    return section("Leak against accuracy", table(told, head, rows, numeric=True), _noise(record, found))


def _sigma0(record: RunRecord, arm: str) -> float | None:
    """Of an arm that adds noise alone, or nothing."""
    steps = parsed(str(setting(record, arm, "classifier.protect")))
    if not steps:
        return 0.0
    return steps[0].strength if [step.name for step in steps] == ["noise"] else None


def _noise(record: RunRecord, found: Sequence[Leak]) -> str:
    """Curves over sigma0 of the arms that differ in it alone."""
    levels: Mapping[str, float] = {
        arm: sigma0
        for arm in record.header.arms
        if (sigma0 := _sigma0(record, arm)) is not None
        and setting(record, arm, "classifier.norm") == "batch"
        and setting(record, arm, "classifier.sends") == "statistics"
    }
    if len(set(levels.values())) < 3:
        return ""
    curves = []
    for place, site in enumerate(sites(found)):
        values: dict[float, list[float]] = {}
        for arm, sigma in levels.items():
            leak = strongest(found, arm, site)
            if leak is not None:
                values[sigma] = [row.values.get("rdlv", math.nan) for row in leak.rows]
        curves += curve(figures.arm_look(place), values)
    scores = {sigma: values_of(record, arm, "auc") for arm, sigma in levels.items()}
    across = "sigma0 (noise over the update's 95th percentile)"
    drawn = [
        figure(figures.curves_over(curves, across=across, label="RDLV", title="RDLV over sigma0"), "RDLV over sigma0"),
        figure(
            figures.curves_over(
                curve(figures.arm_look(0), scores), across=across, label="AUC", title="AUC over sigma0"
            ),
            "AUC over sigma0",
            "final model, held-out images",
        ),
    ]
    return _key(found) + plots(drawn)
