"""make_optimizers.py: five steps of PyTorch's optimizers on two small parameters with given gradients, as optimizers.json.

SGD, Adam and AdamW are torch.optim's, Adafactor is transformers' with a rate from outside (no parameter scaling, no relative steps).
Everything is float32, as in training. There is no reference of LAMB in either library.
"""

import torch
from transformers.optimization import Adafactor

from reference import HERE, write_json

STEPS = 5
LR = 0.05
CASES = [
    ("sgd", {}, {}),
    ("sgd", {"momentum": 0.9}, {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
    ("sgd", {"momentum": 0.8, "weight_decay": 0.1}, {"momentum": 0.8, "weight_decay": 0.1}),
    ("sgd", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    ("adam", {}, {}),
    ("adam", {"weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95}, {"weight_decay": 0.1, "betas": (0.8, 0.95)}),
    ("adamw", {}, {}),
    ("adamw", {"weight_decay": 0.1, "epsilon": 1e-6}, {"weight_decay": 0.1, "eps": 1e-6}),
    ("adafactor", {}, {}),
    ("adafactor", {"weight_decay": 0.1, "decay_rate": -0.7, "clip_threshold": 0.5},
     {"weight_decay": 0.1, "decay_rate": -0.7, "clip_threshold": 0.5}),
]
MAKERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adafactor": lambda params, lr, **more: Adafactor(
        params, lr=lr, scale_parameter=False, relative_step=False, warmup_init=False, **more
    ),
}


def flat(tensor):
    return [float(value) for value in tensor.detach().flatten()]


def main():
    torch.manual_seed(3)
    shapes = {"matrix": (3, 5), "vector": (4,)}
    start = {name: torch.randn(shape) for name, shape in shapes.items()}
    # Of very different sizes, so that what a step does to large and small gradients is seen.
    grads = [{name: torch.randn(shape) * 10.0 ** (step - 3) for name, shape in shapes.items()} for step in range(STEPS)]
    cases = []
    for name, ours, theirs in CASES:
        params = {key: torch.nn.Parameter(value.clone()) for key, value in start.items()}
        optimizer = MAKERS[name](list(params.values()), lr=LR, **theirs)
        after = []
        for grad in grads:
            for key, param in params.items():
                param.grad = grad[key].clone()
            optimizer.step()
            after.append({key: flat(param) for key, param in params.items()})
        cases.append({"optimizer": name, "options": ours, "after": after})
    write_json(HERE / "optimizers.json", {
        "lr": LR,
        "shapes": shapes,
        "start": {key: flat(value) for key, value in start.items()},
        "gradients": [{key: flat(value) for key, value in grad.items()} for grad in grads],
        "cases": cases,
    }, indent=None)


if __name__ == "__main__":
    main()
