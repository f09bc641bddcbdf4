"""Documents: small synthetic texts as bags of words, by topic, with an author and a source each.

An author has words of their own for each topic, beside a few that all use for it, and noise.
"""

import numpy as np

from fused_ray.api import DataSet, Loaded, Section, generator

TOPICS = ("sport", "law", "health", "music")


class Documents(Section):
    words: int = 120
    """Size of the vocabulary."""
    authors: int = 12
    train: int = 600
    """Documents to train on; half as many to test on."""


def load(seed: int, *, words: int, authors: int, train: int) -> Loaded:
    """Bags of words float32 [n, words], topics [n], and of training documents `author` and `source`, [n] each."""
    fixed = generator(seed, "documents/words")
    usual = fixed.dirichlet(np.full(words, 0.1), len(TOPICS))
    personal = fixed.dirichlet(np.full(words, 0.1), (authors, len(TOPICS)))

    def documents(split: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = generator(seed, f"documents/{split}")
        author, topic = rng.integers(authors, size=count), rng.integers(len(TOPICS), size=count)
        share = 0.05 * usual[topic] + 0.45 * personal[author, topic] + 0.5 / words
        return np.log1p(rng.poisson(40 * share)).astype(np.float32), topic, author

    (inputs, topic, author), (test_inputs, test_topic, _) = documents("train", train), documents("test", train // 2)
    columns = {"author": author, "source": generator(seed, "documents/source").integers(1000, size=train)}
    return Loaded(inputs, topic, test_inputs, test_topic, TOPICS, columns)


DATASET = DataSet(load, images=False, section=Documents)
