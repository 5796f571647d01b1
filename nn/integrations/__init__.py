"""Training loops of other libraries, each by one file of its own that is imported by name:

    sparseopt.nn.integrations.lightning        Pruning(s), a callback of Lightning's Trainer
    sparseopt.nn.integrations.transformers     Pruning(s), a callback of the Trainer of transformers
    sparseopt.nn.integrations.accelerate       attach(accelerator, s, optimizer)

All of them want `s = prune(model, ...)` before the library sees the model, and do what two lines do in a loop of one's
own: `s.attach(optimizer)` and, if asked to, `s.fold()`. In addition, their checkpoints carry the state of `s`.
"""
