"""The sections of a run configuration: one frozen dataclass each, every key with its default, rule and meaning.

A field ``test_fraction`` of Data is the key ``data.test-fraction``. Defaults stand in ``pyproject.toml`` too, since
Flower lets no other key be overridden; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedsec.config.settings import above, at_least, between, setting


@dataclass(frozen=True)
class Data:
    source: str = setting("phantom", meaning="'phantom', or a folder, CSV or .npz of real images")
    format: Literal["auto", "folders", "isic2019", "csv", "medmnist"] = setting("auto", meaning="layout of the source")
    modality: Literal["skin", "chest"] = setting("skin", meaning="which phantom, and gray or RGB")
    count: int = setting(2000, at_least(40), meaning="images the phantom draws")
    size: Literal[32, 64, 128, 224] = setting(32, meaning="pixels a side; 224 for classifiers alone")
    grouping: Literal["classes", "malignant"] = setting("malignant", meaning="labels as they are, or benign/malignant")
    test_fraction: float = setting(0.2, between(0.05, 0.5), meaning="share of lesions/patients held out")
    seed: int = setting(0, at_least(0), meaning="of the phantom, the split and the partition")
    quarantine: bool = setting(False, meaning="go on without unusable files, counted and listed, instead of stopping")
    cache: str = setting("", meaning="folder of decoded images; '' = FEDSEC_CACHE or the user's cache folder")


@dataclass(frozen=True)
class Split:
    scheme: Literal["iid", "dirichlet", "pathological", "site", "sizes"] = setting(
        "iid", meaning="how rows go to clients"
    )
    clients: int = setting(
        0, between(0, 10_000), meaning="number of clients; 0 = one a connected node (site: one a site)"
    )
    alpha: float = setting(0.3, above(0), meaning="dirichlet: smaller is more skewed")
    classes: int = setting(1, at_least(1), meaning="pathological: classes a client holds")
    images: str = setting("", meaning="sizes: training images of each client, e.g. '8,32,1'; the others go to nobody")


@dataclass(frozen=True)
class Gan:
    family: Literal["dcgan", "diffusion"] = setting("dcgan", meaning="what draws the images")
    loss: Literal["non-saturating", "hinge", "wgan-gp"] = setting("non-saturating", meaning="adversarial loss")
    augment: Literal["none", "flip", "colour", "translate", "colour+translate"] = setting(
        "none", meaning="differentiable augmentation of what D sees"
    )
    mirror: bool = setting(True, meaning="train on each image and its mirror image (not for chests)")
    denoising: int = setting(25, between(1, 1000), meaning="diffusion: steps from noise to an image")
    latent: int = setting(64, at_least(1), meaning="length of z")
    width: int = setting(32, at_least(4), meaning="channels at the highest resolution")
    share: Literal["generator", "both"] = setting("generator", meaning="which networks are averaged")
    statistics: Literal["local", "shared"] = setting(
        "local", meaning="whether BatchNorm running statistics leave the client (they are a leak)"
    )
    ema: float = setting(0.8, between(0, 0.9999), meaning="decay a round of the server's generator average")


@dataclass(frozen=True)
class Classifier:
    """A federated image classifier (``train.task`` = 'classifier'): what hospitals train, and what an update leaks."""

    network: Literal["resnet18", "convnet", "perceptron"] = setting("resnet18", meaning="the network")
    norm: Literal["batch", "frozen", "group", "layer", "none"] = setting(
        "batch", meaning="normalisation; batch: by each batch's statistics, frozen: by the running ones"
    )
    momentum: float = setting(0.0, between(0, 0.999), meaning="of the clients' SGD")
    bn_momentum: float = setting(0.1, between(0.001, 1), meaning="weight of the newest batch in running statistics")
    epochs: int = setting(0, at_least(0), meaning="passes over its images that a client takes a round; 0 = train.steps")
    batches: str = setting("", meaning="images a step of each client, e.g. '4,8,1'; '' = train.batch for all")
    sends: Literal["statistics", "weights"] = setting(
        "statistics", meaning="what leaves a client: weights and running statistics, or weights alone (FedBN)"
    )
    weighting: Literal["images", "uniform"] = setting(
        "images", meaning="a client's share of the average: by its images, or the same for all"
    )
    protect: str = setting(
        "", meaning="what a client does to its update before it leaves, e.g. 'noise=0.1' or 'prune=0.9,quantise=1'"
    )


@dataclass(frozen=True)
class Cut:
    """Split learning (``train.task`` = 'split-learning'): how training is cut into messages. ``train.rounds`` counts
    them; what averages, scores or closes the U comes on top."""

    batches: int = setting(2, at_least(1), meaning="mini-batches a message carries")
    labels: Literal["server", "client"] = setting(
        "server", meaning="where labels and last layer are; client: U-shaped, a message takes two round trips"
    )
    average: int = setting(0, at_least(0), meaning="messages between averages of the clients' halves; 0 = never")
    held: int = setting(128, at_least(1), meaning="held-out images a client is scored on, at most")
    noise: float = setting(0.0, at_least(0), meaning="noise on what a client sends, over the activations' deviation")
    decorrelation: float = setting(0.0, at_least(0), meaning="weight of NoPeek's penalty on what activations share")


@dataclass(frozen=True)
class Pgsl:
    """Proximal gradient split learning; ``fedsec.defences.pgsl.Pgsl`` says what each switch means."""

    on: bool = setting(False, meaning="whether clients perturb and the server recovers and fuses")
    perturb: Literal["jsma", "random", "off"] = setting("jsma", meaning="the map: Eq. 1, its values shuffled, or none")
    scores: Literal["logits", "softmax"] = setting("logits", meaning="of what the map is the gradient")
    label: Literal["predicted", "true"] = setting("predicted", meaning="the map's class while training")
    scale: Literal["raw", "peak"] = setting("raw", meaning="step times the map, or step at the map's largest value")
    step: float = setting(1.0, at_least(0), meaning="length of the perturbation; images span 2")
    recovery: Literal["residual", "low-rank", "off"] = setting(
        "residual", meaning="what the recovered stream reads: activations less their low-rank part, that part, or all"
    )
    threshold: Literal["relative", "absolute"] = setting(
        "relative", meaning="lam in shares of the largest singular value, or as it is"
    )
    lam: float = setting(0.1, at_least(0), meaning="threshold of singular values")
    fusion: bool = setting(True, meaning="whether there is a fused stream")


@dataclass(frozen=True)
class Train:
    task: Literal["gan", "classifier", "split-learning"] = setting("gan", meaning="what the clients train together")
    rounds: int = setting(100, at_least(1), meaning="federated rounds; messages of each client (split-learning)")
    fraction: float = setting(1.0, between(0.001, 1), meaning="share of the clients that a round asks")
    sampling: Literal["fixed", "poisson"] = setting(
        "fixed", meaning="who is asked: a fixed number drawn without replacement, or each by a coin of its own"
    )
    steps: int = setting(20, at_least(1), meaning="steps a client takes each round (gan: D and G steps)")
    batch: int = setting(32, at_least(1), meaning="images a step")
    lr: float = setting(2e-4, above(0), meaning="learning rate: Adam's (gan, split-learning), SGD's (classifier)")
    beta1: float = setting(0.5, between(0, 0.999), meaning="Adam beta1")
    penalty: float = setting(10.0, at_least(0), meaning="weight of the gradient penalty (wgan-gp)")


@dataclass(frozen=True)
class Defence:
    name: Literal[
        "fed-avg",
        "fed-detect",
        "fed-inspect",
        "oracle",
        "median",
        "trimmed-mean",
        "krum",
        "multi-krum",
        "bulyan",
        "geometric-median",
        "centred-clipping",
        "norm-clipping",
        "foolsgold",
        "fltrust",
        "dp-fixed",
        "dp-adaptive",
    ] = setting("fed-avg", meaning="how replies are weighted and put together")
    rule: Literal["released", "paper", "calibrated"] = setting("calibrated", meaning="FedDetect's reading")
    reported: Literal["auto", "drop", "first", "mean", "last"] = setting(
        "auto", meaning="generator loss read: first 3 steps, all, last, or the drop first to all; auto: by rule"
    )
    inspects: Literal["all", "whole", "sharp", "odd", "mark"] = setting("all", meaning="fed-inspect: part looked at")
    latents: Literal["secret", "public"] = setting(
        "secret", meaning="fed-inspect: latents from the server's secret, or from the run's seed, which clients know"
    )
    decay: float = setting(0.9, between(0.01, 0.999), meaning="FedDetect's weight decay per counted flag")
    warmup: int = setting(10, at_least(0), meaning="rounds before FedDetect may change a weight")
    false_flags: float = setting(0.01, between(1e-4, 0.2), meaning="calibrated: false-flag rate a client-round")
    byzantine: int = setting(
        0, at_least(0), meaning="clients a reducer must withstand; 0 = a quarter of those asked, at least 1"
    )
    mixing: Literal["none", "nearest-neighbour", "bucketing"] = setting(
        "none", meaning="what stands in front of a reducer"
    )
    root: int = setting(100, at_least(1), meaning="fltrust: clean images at the server")
    bound: float = setting(
        0.0,
        at_least(0),
        meaning="weighing defences: longest update that counts whole, over the median length; 0: any (fed-inspect: 1)",
    )

    @property
    def reads_losses(self) -> bool:
        """Whether what clients report changes what the server does."""
        return self.name in ("fed-detect", "fed-inspect")

    @property
    def reads(self) -> str:
        """``reported`` with 'auto' resolved."""
        return {"calibrated": "drop"}.get(self.rule, "last") if self.reported == "auto" else self.reported


@dataclass(frozen=True)
class Privacy:
    """Noise that hides a client (``defence.name`` = dp-*) or one image of a client (``image_bound`` above 0)."""

    noise: float = setting(0.0, at_least(0), meaning="dp-*: standard deviation of the noise on the sum, over the bound")
    bound: float = setting(
        1.0, between(1e-9, 1e9), meaning="dp-*: L2 norm an update is clipped to; dp-adaptive: at first"
    )
    noised_by: Literal["server", "clients"] = setting("server", meaning="dp-fixed: who draws it; clients: a share each")
    fewest: int = setting(0, at_least(0), meaning="fewest replies whose sum is released; clients' shares are for those")
    image_bound: float = setting(
        0.0, between(0, 1e9), meaning="DP-SGD of the discriminator: L2 norm an image's gradient is clipped to; 0 = off"
    )
    image_noise: float = setting(1.0, at_least(0), meaning="DP-SGD: standard deviation of the noise, over the bound")
    delta: float = setting(0.0, between(0, 0.5), meaning="0: n^-1.1, at most 1e-3, of n clients or images")
    budget: float = setting(
        0.0, at_least(0), meaning="largest epsilon of all arms and seeds: they stop before it; 0: none"
    )

    @property
    def images(self) -> bool:
        """Whether discriminators are trained by DP-SGD."""
        return self.image_bound > 0


@dataclass(frozen=True)
class Leakage:
    """What a curious server could draw out of single updates (classifier) or activations (split-learning), and what a
    site does about it."""

    every: int = setting(
        0,
        at_least(0),
        meaning="rounds between audits, from round 1 on (split-learning: messages, and the last); 0 = none",
    )
    sites: str = setting("", meaning="partitions that are audited, e.g. '0,4,8'; '' = all")
    attacks: str = setting("span", meaning="attacks of an audit, with commas; the prior is always there")
    images: int = setting(16, at_least(1), meaning="split-learning: training images of a site under attack, at most")
    iterations: str = setting("", meaning="fewer iterations than the attack's own, e.g. 'bn-only=300'")
    probe: Literal["none", "statistics", "inversion"] = setting(
        "none", meaning="what a site tries on its own update each round before it leaves"
    )
    limit: float = setting(
        0.0,
        at_least(0),
        meaning="inversion: largest RDLV, or share of images recognised, at which an update may leave; 0 = no limit",
    )
    unmeasured: Literal["withhold", "send"] = setting(
        "withhold", meaning="inversion: what becomes of an update whose site's own attack could not be made"
    )
    keep: bool = setting(False, meaning="keep what the server holds after each audited reply under views/ (90 MB each)")


@dataclass(frozen=True)
class Measure:
    every: int = setting(10, at_least(1), meaning="rounds between sample grids and quick scores")
    samples: int = setting(1000, between(50, 100_000), meaning="generated images the scores rest on")
    utility: str = setting("25,100", meaning="real images a class in the utility test, e.g. '10,25,100'; '' = skip")
    fid_weights: str = setting("", meaning="pytorch-fid's Inception weights; '' = its own cache, if there")


@dataclass(frozen=True)
class Run:
    name: str = setting("isic", meaning="name of the run folder")
    out: str = setting("runs", meaning="where run folders lie")
    seeds: str = setting("0", meaning="training seeds, e.g. '0,1,2'; an arm may have its own")
    arms: str = setting(
        '{"vanilla": {}}', meaning="JSON: arm name -> overrides of any key outside [data], [split] and [speed]"
    )


@dataclass(frozen=True)
class Speed:
    """May change only how fast the answer comes."""

    workers: int = setting(0, at_least(0), meaning="worker processes; 0 = one a core, or GPU clients that fit")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", meaning="where clients train")
    arms_at_once: int = setting(2, at_least(1), meaning="cells (arm x seed) that share the nodes side by side")
