"""What each number of a report means, in one sentence, with where it was published."""

from stages.evaluate.page.score_names import KINDS, ScoreName
from stages.evaluate.page.section import Row, Section, Table

INTERVAL = (
    "interval",
    "Where the score would lie in 95 of 100 repetitions with other generated pictures of the same model.",
    "Efron 1979, Bootstrap methods",
)
PARTS = {
    "smallest_difference": (
        "smallest difference",
        "Two models whose scores differ by less cannot be told apart with these numbers of pictures.",
        "from the standard errors of both scores",
    ),
    "memorisation": (
        "memorisation",
        "Share of generated pictures that are nearer to a training picture than all but a few hold-out pictures are; "
        "pictures that the data themselves repeat are no copies.",
        "Meehan et al. 2020, A non-parametric test to detect data-copying; Carlini et al. 2023",
    ),
    "variety": (
        "Vendi score",
        "How many really different pictures the generated ones amount to.",
        "Friedman and Dieng 2022, The Vendi score",
    ),
    "latent_space": (
        "path length",
        "How much a picture changes for a small step of the latent; jumps between neighbours make it large.",
        "Karras et al. 2019, A style-based generator architecture",
    ),
    "sampling": (
        "guidance, steps, truncation",
        "What the same seeds give with another strength of guidance, with fewer or more sampling steps, or with "
        "latents or styles held nearer to their mean (truncation), which trades variety for typical pictures; "
        "distances of fewer pictures are larger and compare with one another alone.",
        "Ho and Salimans 2022, Classifier-free diffusion guidance; Song et al. 2021, Denoising diffusion implicit "
        "models; Karras et al. 2019, A style-based generator architecture; Brock et al. 2019, Large scale GAN training",
    ),
    "spectrum": (
        "checkerboard",
        "Power at the frequencies that upsampling layers leave behind, over what real pictures hold there.",
        "Odena et al. 2016, Deconvolution and checkerboard artifacts; Durall et al. 2020, Watch your up-convolution",
    ),
    "balance": (
        "balance",
        "What the discriminator says of real and of generated pictures over the training; apart for good means that "
        "the generator gets no useful signal. Without a discriminator: how the loss went; loss_t0 to loss_t3 are the "
        "quarters of the timesteps, the least noisy first.",
        "Karras et al. 2020, Training generative adversarial networks with limited data",
    ),
    "probe": (
        "conditional accuracy",
        "How often a classifier trained on the data sees in a picture the class that was asked for.",
        "Ravuri and Vinyals 2019, Classification accuracy score",
    ),
    "usefulness": (
        "usefulness",
        "Whether a classifier gets better on rare classes when generated pictures are added to its training.",
        "Shmelkov et al. 2018, How good is my GAN?",
    ),
}


def guide_section(names: list[ScoreName], parts: list[str]) -> Section:
    """Return the guide to the scores and parts of the report that a page shows."""
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in names)]
    rows: list[Row] = [(KINDS[kind].title, KINDS[kind].meaning, KINDS[kind].source) for kind in kinds]
    if kinds:
        rows.append(INTERVAL)
    rows += [row for part, row in PARTS.items() if part in parts]
    note = (
        "A score is named after the network whose features it compares. Only the Fréchet distance in the standard "
        "Inception network is FID; values of other networks, resize filters or numbers of pictures are other scales."
    )
    return Section(
        "How to read this", tables=[Table(("number", "what it says", "source"), rows, text=True)], notes=[note]
    )
