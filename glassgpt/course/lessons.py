"""What each section of the ladder adds, in words for a learner."""

from __future__ import annotations

ADDS = {  # by the name of the section
    "bigram": (
        "A table has one row for each character. The row of the current character holds a score for every character "
        "that could come next. That is already a language model: it can be trained, and it can write."
    ),
    "embedding": (
        "Two small tables replace the large one. The first gives each character a vector, and the head compares that "
        "vector with each possible next character. Positions get vectors too; they matter once positions exchange "
        "information."
    ),
    "averaging": (
        "Each position takes the mean of itself and all positions before it. Later positions are masked, because they "
        "hold the answer. A plain mean forgets the order, and the current character becomes one voice among many."
    ),
    "head": (
        "Each position sends out a query (what do I look for?) and a key (what do I offer?). The product of a query "
        "and a key is a score, and softmax turns the scores into weights. The output is the sum of the values, each "
        "times its weight."
    ),
    "multihead": (
        "One head has one pattern of attention. Several smaller heads, each with its own queries, keys and values, "
        "attend to several things at once. Their outputs are put side by side, and a projection mixes them."
    ),
    "feedforward": (
        "Attention moves information between positions. An MLP then computes with it at each position: up to four "
        "times the channels, through a nonlinearity, and down again."
    ),
    "blocks": (
        "Attention and MLP together are a block. A block keeps the shape, so blocks can be stacked: the second one "
        "reads what the first one made. But each block replaces its input, and mixes the positions once more: little "
        "is left of the current character."
    ),
    "residual": (
        "A block now adds to its input instead of replacing it. The embedding runs through the whole model as a "
        "stream, which every part reads and adds to. The gradient reaches each part directly, so deep models train."
    ),
    "layernorm": (
        "The stream is a sum, so its scale changes from block to block. Layer norm gives attention and MLP their "
        "input at one scale: mean 0 and standard deviation 1 over the channels of a position. The stream itself "
        "stays as it is."
    ),
    "decoder": (
        "All parts are there, and the model grows: more layers and more channels. Dropout can set random activations "
        "to 0 while it trains, so that a large model does not learn a small text by heart. GPT-2 has the same parts."
    ),
}
