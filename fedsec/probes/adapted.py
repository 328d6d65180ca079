"""Who has to be beaten before a protection is said to protect: ADAPTED is the index, PROTECTIONS x ATTACKS.

A protection is judged by the attack that knows it. Where none of ours was made to beat one, ``unbeaten`` says what is
missing; such a protection is not called safe anywhere. Attackers of the literature are named so that a reader knows
whom we did not run. Systematised by Carletti et al., "SoK: Gradient Inversion Attacks in Federated Learning", USENIX
Security 2025; Du et al., "SoK: Gradient Leakage in Federated Learning" (arXiv 2404.05403) holds the opposite view, that
simple post-processing defends, of attacks that do not know of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Adapted:
    """``attack``: of ``fedsec.probes.audit.ATTACKS``. ``knows``: what it makes of the protection. ``literature``: who
    has beaten it elsewhere. ``unbeaten``: what an attacker could do that ours does not; '' where we know of nothing."""

    attack: str
    knows: str
    literature: str
    unbeaten: str


LEARNED = "Learning to Invert (Wu et al., UAI 2023)"
ADAPTED: dict[str, Adapted] = {
    "noise": Adapted(
        "span",
        "that the update is a signal of few directions plus noise, whose deviation it reads off; pools rounds",
        f"Balunovic et al. (ICLR 2022); {LEARNED}; Mjolnir (Liu et al., AAAI 2025)",
        "a generative prior; the errors of each position, which span leaves open; at weak noise it stops short",
    ),
    "clip-noise": Adapted("span", "as noise; clipping alone only scales the update", LEARNED, "as noise"),
    "prune": Adapted(
        "span",
        "nothing: what is left out counts as noise. row-space completes it while the rank is low",
        f"Gradient Obfuscation Gives a False Sense of Security (Yue et al., USENIX Security 2023); {LEARNED}",
        "the likelihood of the entries that were kept, and that the others are smaller",
    ),
    "quantise": Adapted(
        "span",
        "that rounding at random is right on average, so noise of a known deviation",
        f"Yue et al. (USENIX Security 2023); {LEARNED}",
        "that each entry is one of a few values",
    ),
    "local-statistics": Adapted(
        "span", "that the images' own moments normalise; nothing else is missing", "Geiping et al. (2020)", ""
    ),
    "passes": Adapted(
        "span",
        "that all passes meet the same images: taken as one step, what the model moves between counts as noise; "
        "row-space on that one step is a second answer",
        "Dimitrov et al., Data Leakage in Federated Averaging (TMLR 2022)",
        "the steps one by one, from span's images on",
    ),
    "batches": Adapted(
        "span",
        "that the patches of all images together explain the update",
        "Yin et al. (2021); SPEAR (Dimitrov et al. 2024); Cocktail Party (Kariyappa et al., ICML 2023)",
        "that each image by itself is likely, beyond the prior; orders of batches",
    ),
    "group-norm": Adapted("span", "that no mean is taken off the patches", "Geiping et al. (2020)", ""),
    "gate": Adapted(
        "span",
        "nothing: the gate makes this attack, and an update that passes it was drawn by no more than this one",
        "none known to us",
        "an attacker with more iterations, more rounds or a better prior than the gate; candidates",
    ),
}
"""Protections of ``fedsec.privacy.protection``, and what else stands in an attack's way, by name."""
