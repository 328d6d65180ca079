"""What a run guarantees: each arm by itself, and all that left of the same images together."""

from __future__ import annotations

import math

from fedsec.log.record import RunRecord
from fedsec.privacy.ledger import KINDS, Kind, spent
from fedsec.reports.markup import inert, paragraph, section, table


def guarantees(record: RunRecord) -> str:
    """The report's section. An arm that noises nothing guarantees nothing, and is told so."""
    rows = []
    for arm in record.header.arms:
        finals = [cell.final() for (its, _), cell in record.finished().items() if its == arm]
        told = [row.score.reason for final in finals for name, row in final.items() if name.startswith("epsilon-")]
        texts = list(dict.fromkeys(told)) or ["no guarantee" if finals else "not finished"]
        rows.append((inert(arm), "<br>".join(inert(text, 800) for text in texts)))
    each = table("What each arm guarantees, one seed of it by itself", ("arm", "guarantee"), rows)
    together = [(inert(f"{kind}: {KINDS[kind]}"), inert(text, 800)) for kind, text in jointly(record).items()]
    if not together:
        return section("Differential privacy", each)
    head = "All arms, seeds and tries of this run folder together: they trained on the same images"
    whole = table(head, ("what is hidden", "guarantee"), together)
    note = (
        "Other runs on these images add to it. In a simulation noise repeats with the seed: the numbers are what a "
        "real run of this kind would be worth."
    )
    return section("Differential privacy", each, whole, paragraph(note, "soft"))


def jointly(record: RunRecord) -> dict[Kind, str]:
    """In words, for each guarantee of any cell: what all tries of all cells of the folder are worth together."""
    tries = {cell: its.tries for cell, its in record.cells.items()}
    every = [one for own in tries.values() for one in own if one.rounds]
    found: dict[Kind, str] = {}
    for kind in KINDS:
        if not any(one.line(kind) for one in every):
            continue
        total = spent(kind, every)
        if math.isfinite(total.epsilon):
            found[kind] = f"{total.words}; of {len(every)} tries of {len(tries)} cells"
            continue
        bare = sorted({arm for (arm, _), own in tries.items() if any(one.rounds and not one.line(kind) for one in own)})
        why = f"arms without it: {', '.join(bare)}" if bare else "an arm's noise is 0"
        old = any(not one.lines and not one.images for one in every)
        found[kind] = f"no guarantee; {why}" + (" (or from a log that does not say)" if old else "")
    return found
