"""What the malicious clients of a configuration do, and what they have to know for it, in words."""

from __future__ import annotations

from fedsec.attacks.knowing import KNOWING
from fedsec.attacks.poison import POISONS
from fedsec.attacks.reports import REPORTS
from fedsec.attacks.updates import UPDATES
from fedsec.config import Attack


def threat(attack: Attack) -> list[str]:
    """A line for each thing they do; none when nobody attacks."""
    lines = []
    if attack.name != "none":
        share = "" if attack.fraction == 1 else f", {attack.fraction:.0%} of them"
        made = POISONS[attack.name]
        rule = f" and the rule in use ({made.against})" if made.against else ""
        lines.append(f"{made.does}{share}; they know their own images{rule}")
    if attack.update in KNOWING:
        knowing = KNOWING[attack.update]
        lines.append(f"{knowing.does}; they know {knowing.knows}")
    elif attack.update != "none":
        update = UPDATES[attack.update]
        seen = {
            "own update": "their own updates",
            "all updates": "every client's update of the round",
            "global models": "the models they were sent",
        }[update.knows]
        lines.append(f"send an update of {attack.update} ({update.source}); they know {seen}")
    if attack.report != "honest":
        report = REPORTS[attack.report]
        seen = {
            "all reports": "every client's reported losses of the round",
            "last round's median": "the losses reported last round",
            "nothing": "nothing",
        }[report.knows]
        lines.append(f"report as their losses {report.meaning}; they know {seen}")
    return [*lines, *_when(attack)] if lines else []


def _when(attack: Attack) -> list[str]:
    """A line on the rounds and classes they choose, where it is not all of them."""
    told = []
    if attack.start < 0:
        told.append(_from_the_end(attack))
    elif attack.start > 1:
        told.append(f"from round {attack.start} on")
    if attack.stop > 0 or attack.stop < 0 <= attack.start:
        told.append(f"to round {attack.stop}" if attack.stop > 0 else f"until {-attack.stop - 1} rounds are to come")
    if attack.period > 1:
        told.append(f"in one round of {attack.period}")
    if attack.ramp:
        told.append(f"with a share of images that grows over {attack.ramp} rounds")
    if attack.class_ >= 0:
        told.append(f"with images of class {attack.class_} alone")
    return [f"attack {', '.join(told)}, and are honest otherwise; they know the number of the round"] if told else []


def _from_the_end(attack: Attack) -> str:
    """Of a start that is counted from the end, and a stop that is too."""
    if attack.stop < 0:
        last = f" until {-attack.stop - 1} are" if attack.stop != attack.start else " alone"
        return f"when {-attack.start - 1} rounds are to come{last}"
    return "in the last round alone" if attack.start == -1 else f"in the last {-attack.start} rounds alone"
