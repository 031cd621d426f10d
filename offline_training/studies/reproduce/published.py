"""Published macro-F1 (NuCLR, Arora et al., NeurIPS 2025, from the paper's slides; over runs of the authors)."""

from __future__ import annotations

TRANSDUCTIVE = "transductive"
TRANSDUCTIVE_ZERO_SHOT = "transductive zero-shot"
INDUCTIVE = "inductive zero-shot"
METHODS = ("NuCLR", "NeuPRINT", "NEMO", "LOLCAT")

Row = tuple[float | None, float | None, float | None, float | None]
"""Macro-F1 of METHODS; None where nothing is published."""

PUBLISHED: dict[tuple[str, str], dict[str, Row]] = {
    ("allen", "cell_type"): {
        TRANSDUCTIVE_ZERO_SHOT: (0.7218, 0.3999, 0.4256, None),
        INDUCTIVE: (0.7200, None, 0.4194, 0.4121),
    },
    ("bugeon", "ei"): {
        TRANSDUCTIVE: (0.8080, 0.6702, None, 0.7205),
        TRANSDUCTIVE_ZERO_SHOT: (0.6979, 0.6424, None, None),
        INDUCTIVE: (0.7009, None, None, 0.7463),
    },
    ("bugeon", "subclass"): {
        TRANSDUCTIVE: (0.6088, 0.4949, None, 0.2900),
        TRANSDUCTIVE_ZERO_SHOT: (0.3890, 0.3385, None, None),
        INDUCTIVE: (0.4440, None, None, 0.2418),
    },
    ("ibl", "brain_region"): {
        TRANSDUCTIVE: (0.6686, 0.2684, 0.4188, 0.2851),
        TRANSDUCTIVE_ZERO_SHOT: (0.5343, 0.2464, 0.3804, None),
        INDUCTIVE: (0.5295, None, 0.3793, 0.2532),
    },
    ("steinmetz", "brain_region"): {
        TRANSDUCTIVE: (0.9594, 0.4315, 0.6989, 0.3205),
        TRANSDUCTIVE_ZERO_SHOT: (0.7338, 0.3832, 0.6681, None),
        INDUCTIVE: (0.5810, None, 0.5595, 0.3191),
    },
}
"""{(archive, task): {setting: macro-F1 of METHODS}}."""
