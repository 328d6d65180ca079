"""What must hold between the keys of a run configuration, beyond each key's own rule: one sentence a mistake."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fedsec.config.added import added
from fedsec.config.lists import audits, integers, pairs
from fedsec.config.malice import Attack
from fedsec.config.sections import Classifier, Cut, Defence, Gan, Leakage, Pgsl, Privacy, Train

if TYPE_CHECKING:
    from fedsec.config import RunConfig

FIRST_STEPS = 3
"""Steps at a round's start that have a loss of their own in the report: the generator is still nearly the server's."""
CLASSIFIED = 224
"""Pixels a side at which only classifiers work: what ResNet-18 was made for."""
AUDITS = (
    *("span", "row-space", "bn-only", "bn-update", "see-through-gradients", "inverting-gradients", "idlg", "dlg"),
    *("released", "first-layer", "random", "global", "proxy", "update-only", "update+random", "update+global"),
    *("update+proxy", "both", "maps-only", "maps+bn"),
)
"""What ``leakage.attacks`` can name (``fedsec.probes.audit.ATTACKS``; a test holds the two together)."""

SPLIT_AUDITS = ("white-box", "adaptive", "adaptive-joint", "decoder", "unsplit")
"""The same of ``train.task`` = 'split-learning' (``fedsec.probes.split_learning.attacks.ATTACKS`` that need no
gradient)."""

EARLIER = {"leakage.attacks": "row-space"}
"""Defaults of before, which kept logs hold for tasks that never read them."""
KNOWING = ("latent-conditional", "discriminator-only", "below-the-bar", "best-share", "sleeper")
"""What ``attack.update`` can name that knows the rule (``fedsec.attacks.knowing``; a test holds the two together)."""

SPLIT: dict[str, Any] = {"cut": Cut(), "pgsl": Pgsl()}
"""The sections that split learning alone reads."""


def cross_checks(config: RunConfig) -> list[str]:
    mistakes = _list_checks(config)
    if config.attack.blend > 1 and config.attack.name != "warp":
        mistakes.append(f"attack.blend = {config.attack.blend}: must be at most 1; only 'warp' counts in half pixels")
    if config.attack.size > config.data.size - 2:
        mistakes.append(f"attack.size = {config.attack.size}: must leave a border on {config.data.size} px images")
    if config.data.size == CLASSIFIED and config.train.task != "classifier":
        mistakes.append(f"data.size = {CLASSIFIED}: only train.task = 'classifier' has networks of that size; take 128")
    if config.gan.loss != "wgan-gp" and config.train.penalty != Train().penalty:
        mistakes.append(f"train.penalty = {config.train.penalty}: only gan.loss = 'wgan-gp' has a penalty")
    if config.defence.bound and config.defence.name not in ("fed-avg", "fed-detect", "fed-inspect"):
        mistakes.append(
            f"defence.bound = {config.defence.bound}: {config.defence.name!r} weighs no clients; leave it out"
        )
    if config.defence.name == "fed-inspect" and config.gan.share == "both":
        mistakes.append(
            "gan.share = 'both': fed-inspect looks at generators alone and would average discriminators that nobody "
            "inspected; set gan.share = 'generator', or take another defence"
        )
    if config.defence.inspects == "odd" and not config.gan.mirror:
        mistakes.append("defence.inspects = 'odd' needs gan.mirror: without it honest clients are not symmetric either")
    if not config.run.name or any(c in config.run.name for c in "/\\:\0") or config.run.name.startswith("."):
        mistakes.append(f"run.name = {config.run.name!r}: must be a plain folder name")
    return mistakes + _attack_checks(config) + _TASKS[config.train.task](config)


def _attack_checks(config: RunConfig) -> list[str]:
    """When attackers attack, and what those that know a rule need."""
    attack, rounds, share = config.attack, config.train.rounds, config.gan.share
    mistakes = []
    if attack.active and attack.first(rounds) > min(attack.last(rounds), rounds):
        mistakes.append(
            f"attack.start = {attack.start}: nobody would ever attack in {rounds} rounds with attack.stop = "
            f"{attack.stop}; start earlier"
        )
    if attack.update == "discriminator-only" and share != "both":
        mistakes.append(
            f"attack.update = 'discriminator-only': with gan.share = {share!r} no discriminator is sent; set gan.share "
            "= 'both', or take another attack"
        )
    if attack.update == "latent-conditional" and config.gan.family != "dcgan":
        mistakes.append(
            f"attack.update = 'latent-conditional': trains a DCGAN, gan.family is {config.gan.family!r}; take another"
        )
    if attack.update in KNOWING and config.train.task != "gan":
        mistakes.append(
            f"attack.update = {attack.update!r}: knows rules about generators, train.task = {config.train.task!r} has "
            "none; take another"
        )
    return mistakes


def _list_checks(config: RunConfig) -> list[str]:
    """Keys that hold numbers with commas. ``distinct``: numbers of partitions, seeds or sizes, each named once."""
    mistakes = []
    clients = config.split.clients
    for key, text, least, distinct, empty_ok in (
        ("attack.malicious", config.attack.malicious, 0, True, False),
        ("run.seeds", config.run.seeds, 0, True, False),
        ("measure.utility", config.measure.utility, 0, True, True),
        ("leakage.sites", config.leakage.sites, 0, True, True),
        ("split.images", config.split.images, 1, False, config.split.scheme != "sizes"),
        ("classifier.batches", config.classifier.batches, 1, False, True),
    ):
        try:
            numbers = integers(text)
        except ValueError:
            mistakes.append(f"{key} = {text!r}: must be whole numbers with commas, e.g. '0,1,2'")
            continue
        wrong = any(n < least for n in numbers) or (distinct and len(set(numbers)) < len(numbers))
        partitions = key in ("attack.malicious", "leakage.sites") and config.split.scheme != "site"
        if (not numbers and not empty_ok) or wrong:
            mistakes.append(f"{key} = {text!r}: must be {'distinct ' * distinct}numbers >= {least}, at least one")
        elif partitions and numbers and max(numbers) >= (clients or 10_000):
            mistakes.append(f"{key} = {text!r}: there are {clients} clients, numbered from 0")
        elif not distinct and numbers and len(numbers) != clients:
            mistakes.append(
                f"{key} = {text!r}: names {len(numbers)} clients, split.clients = {clients}; make them agree"
            )
    if config.split.images and config.split.scheme != "sizes":
        mistakes.append(f"split.images = {config.split.images!r}: only split.scheme = 'sizes' reads it")
    return mistakes


def _gan_checks(config: RunConfig) -> list[str]:
    mistakes = _detection_checks(config) + _family_checks(config) + _share_checks(config)
    if config.train.batch < 2:
        mistakes.append(f"train.batch = {config.train.batch}: must be at least 2, or a batch has no variance")
    return mistakes + _unread(config, {"classifier": Classifier(), "leakage": Leakage(), **SPLIT})


def _classifier_checks(config: RunConfig) -> list[str]:
    mistakes = _unread(config, {"gan": Gan(), **SPLIT})
    name, task = config.defence.name, "train.task = 'classifier'"
    if name in ("fed-detect", "fed-inspect", "fltrust"):
        mistakes.append(f"defence.name = {name!r}: reads generators; {task} has none, take another")
    if config.attack.name != "none" or config.attack.report != "honest":
        mistakes.append(f"attack.name and attack.report are attacks on generators; {task} knows attack.update alone")
    if config.privacy.images:
        mistakes.append(f"privacy.image-bound: DP-SGD is of a discriminator, which {task} lacks")
    if name == "dp-fixed" and config.privacy.noised_by == "clients":
        mistakes.append(f"privacy.noised-by = 'clients': {task} leaves the noise to the server")
    sends = config.classifier.sends
    if name.startswith("dp-") and config.classifier.norm in ("batch", "frozen") and sends == "statistics":
        mistakes.append("classifier.sends = 'statistics': noise can make a variance negative; dp-* needs 'weights'")
    if config.classifier.norm == "frozen" and sends == "weights":
        mistakes.append("classifier.norm = 'frozen': all must use the same statistics; send them, or take another norm")
    if config.classifier.network == "perceptron" and config.classifier.norm == "batch":
        mistakes.append("classifier.norm = 'batch': a perceptron has one value a channel and image; take another norm")
    if config.leakage.probe == "statistics" and (config.classifier.norm != "batch" or sends == "weights"):
        mistakes.append(
            "leakage.probe = 'statistics': reads what train-mode BatchNorm sends; take classifier.norm = 'batch' and "
            "classifier.sends = 'statistics', or leakage.probe = 'inversion'"
        )
    if config.leakage.limit and config.leakage.probe != "inversion":
        mistakes.append(
            f"leakage.limit = {config.leakage.limit}: only leakage.probe = 'inversion' measures what it limits"
        )
    if config.leakage.images != Leakage().images:
        mistakes.append(
            f"leakage.images = {config.leakage.images}: {task} attacks all images of an update; leave it out"
        )
    return mistakes + _audit_checks(config.leakage, (*AUDITS, *added("leakage.attacks")))


def _audit_checks(leakage: Leakage, known: tuple[str, ...]) -> list[str]:
    """The attacks of an audit and their iterations."""
    mistakes = []
    if not audits(leakage) or not set(audits(leakage)) <= set(known):
        mistakes.append(f"leakage.attacks = {leakage.attacks!r}: must be of {', '.join(known)}")
    try:
        strange = not set(pairs(leakage.iterations)) <= set(known)
    except ValueError:
        strange = True
    if strange:
        example = f"{known[1]}=300"
        mistakes.append(f"leakage.iterations = {leakage.iterations!r}: write 'attack=number', e.g. '{example}'")
    return mistakes


def _split_checks(config: RunConfig) -> list[str]:
    others = {"gan": Gan(), "classifier": Classifier()}
    adversary = {"attack": Attack(), "defence": Defence(), "privacy": Privacy()}
    mistakes = _unread(config, {**others, **adversary})
    audited = ("every", "sites", "attacks", "iterations", "images") if config.leakage.every else ()
    by = "" if audited else "leakage.every = 0"
    mistakes += _unread(config, {"leakage": Leakage()}, by=by, but=audited)
    mistakes += _audit_checks(config.leakage, SPLIT_AUDITS) if config.leakage.every else []
    mistakes += _unread(config, {"train": Train()}, but=("task", "rounds", "batch", "lr"))
    if config.train.batch < 2:
        mistakes.append(f"train.batch = {config.train.batch}: must be at least 2, or a batch has no variance")
    if not config.pgsl.on:
        return mistakes + _unread(config, {"pgsl": Pgsl()}, by="pgsl.on = False", but=("on",))
    mapping, recovering = ("scores", "label", "scale", "step"), ("threshold", "lam")
    if config.pgsl.perturb == "off":
        but: tuple[str, ...] = ("on", "perturb", "recovery", "fusion", *recovering)
        mistakes += _unread(config, {"pgsl": Pgsl()}, by="pgsl.perturb = 'off'", but=but)
    if config.pgsl.recovery == "off":
        but = ("on", "perturb", "recovery", "fusion", *mapping)
        mistakes += _unread(config, {"pgsl": Pgsl()}, by="pgsl.recovery = 'off'", but=but)
    return mistakes


def _unread(config: RunConfig, sections: dict[str, Any], *, by: str = "", but: tuple[str, ...] = ()) -> list[str]:
    """Keys that were set and that this task (or the setting ``by``) never reads; it reads those named in ``but``."""
    reader = by or f"train.task = {config.train.task!r}"
    return [
        f"{name}.{item.name.rstrip('_').replace('_', '-')}: {reader} does not read it; leave it out"
        for name, usual in sections.items()
        for item in fields(usual)
        if getattr(getattr(config, name), item.name) not in (item.default, EARLIER.get(f"{name}.{item.name}"))
        and item.name not in but
    ]


def _detection_checks(config: RunConfig) -> list[str]:
    if config.defence.name != "fed-detect" or config.defence.reads != "drop":
        return []
    mistakes = []
    if config.defence.rule != "calibrated":
        mistakes.append(f"defence.reported = 'drop': rule {config.defence.rule!r} reads a loss; take 'last' or 'auto'")
    if config.train.steps < 2 * FIRST_STEPS:
        mistakes.append(
            f"train.steps = {config.train.steps}: FedDetect compares a round's first {FIRST_STEPS} with all of them; "
            f"take at least {2 * FIRST_STEPS}, or set defence.reported = 'mean'"
        )
    return mistakes


def _family_checks(config: RunConfig) -> list[str]:
    mistakes = []
    if config.gan.family == "diffusion":
        if config.gan.width % 16:
            mistakes.append(f"gan.width = {config.gan.width}: a denoiser's must be a multiple of 16")
        adversarial = {"gan.loss": config.gan.loss, "gan.augment": config.gan.augment, "gan.share": config.gan.share}
        usual = Gan()
        odd = [
            f"{key} = {value!r}"
            for key, value in adversarial.items()
            if value != getattr(usual, key.removeprefix("gan."))
        ]
        mistakes += [f"{text}: gan.family = 'diffusion' has no discriminator" for text in odd]
        if config.privacy.images:
            mistakes.append("privacy.image-bound: DP-SGD is of a discriminator, which gan.family = 'diffusion' lacks")
        if config.train.beta1 == Train().beta1:
            mistakes.append(
                f"train.beta1 = {config.train.beta1}: is a GAN's; gan.family = 'diffusion' trains with "
                "train.beta1=0.9 train.lr=2e-3"
            )
    if config.privacy.images and config.gan.loss == "wgan-gp":
        mistakes.append("privacy.image-bound: a gradient penalty has no gradient by image; take another gan.loss")
    if config.defence.name.startswith("dp-") and config.gan.statistics == "shared":
        mistakes.append("gan.statistics = 'shared': noise can make a shared variance negative; dp-* needs 'local'")
    if config.defence.name == "dp-adaptive" and config.privacy.noised_by == "clients":
        mistakes.append("privacy.noised-by = 'clients': dp-adaptive needs the count at the server; take dp-fixed")
    return mistakes


def _share_checks(config: RunConfig) -> list[str]:
    """Of noise that clients draw, a share each: whose sum is only as noisy as those who answer make it."""
    fewest = config.privacy.fewest
    if config.privacy.noised_by != "clients":
        return [f"privacy.fewest = {fewest}: only privacy.noised-by = 'clients' reads it; leave it out"] * bool(fewest)
    if not config.defence.name.startswith("dp-"):
        return []
    mistakes = []
    if not fewest:
        mistakes.append(
            "privacy.noised-by = 'clients': of m replies the noise is z sqrt(m / shares); set privacy.fewest, the "
            "fewest replies that a round is released with, to which the shares are cut"
        )
    if config.train.sampling == "poisson":
        mistakes.append(
            "train.sampling = 'poisson': coins may ask fewer than privacy.fewest, and what they are for, that nobody "
            "knows who took part, privacy.noised-by = 'clients' cannot give: take 'fixed'"
        )
    if config.attack.update != "none":
        mistakes.append(
            f"attack.update = {config.attack.update!r}: a forged update carries no share of the noise that "
            "privacy.noised-by = 'clients' counts on; take 'server'"
        )
    return mistakes


_TASKS = {"gan": _gan_checks, "classifier": _classifier_checks, "split-learning": _split_checks}
