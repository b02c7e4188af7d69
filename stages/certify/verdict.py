"""Whether a file may be released: a pure function of its figures, torch's, and the settings."""

from typing import Any

from stages.settings import CertifySettings


def failures(settings: CertifySettings, form: str, figures: dict[str, Any], torch: dict[str, Any]) -> list[str]:
    """Return a line for each figure of a file that keeps it from being released; none: it passes.

    The window of the Fréchet distance lies on both sides, as in MLPerf Inference's rule for SDXL: another distance
    means other pictures, though they be nearer.
    """
    found = []
    low, high = (torch["fd"] * (1 + sign * settings.fd_window) for sign in (-1, 1))
    if not low <= figures["fd"] <= high:
        found.append(
            f"Fréchet distance {figures['fd']:.2f}; expected {low:.2f} to {high:.2f}, certify.fd_window "
            f"{settings.fd_window:g} around torch's {torch['fd']:.2f}"
        )
    if figures["recall"] < torch["recall"] - settings.recall_window:
        found.append(
            f"recall {figures['recall']:.3f}; expected at least {torch['recall'] - settings.recall_window:.3f}, "
            f"torch's {torch['recall']:.3f} less certify.recall_window {settings.recall_window:g}"
        )
    least = getattr(settings.psnr, form)
    if figures["psnr"]["p5"] < least:
        found.append(
            f"95 % of pictures reach {figures['psnr']['p5']:.1f} dB to torch's; certify.psnr.{form} asks for {least:g}"
        )
    return found
