"""check_full.py PATH: compares every hidden state and pooled output that a program wrote with transformers.

PATH is a safetensors file with tensors tNN.layerK [T, 384] and tNN.pooled [384] for the texts of texts.json, or a folder with
tNN.layerK.npy and tNN.pooled.npy. `hidden_states` of tests/suite writes ours.
Prints one JSON object; the exit status is 1 when something is missing or differs by more than --tolerance.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from reference import hidden_states, load_encoder, read_texts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    if arguments.path.is_dir():
        ours = {p.stem: np.load(p) for p in arguments.path.glob("t*.npy")}
        for p in arguments.path.glob("*.safetensors"):
            ours |= load_file(p)
    else:
        ours = load_file(arguments.path)
    model = load_encoder()
    missing, wrong_shape, compared, worst, by_layer = [], [], 0, (0.0, None), {}
    for row in read_texts():
        states, pooled = hidden_states(model, row["ids"], row["segments"])
        expected = {f"layer{layer}": state for layer, state in enumerate(states.numpy())}
        expected["pooled"] = pooled.numpy()[None, :]
        for layer, state in expected.items():
            name = f"{row['name']}.{layer}"
            mine = ours.get(name)
            if mine is None:
                missing.append(name)
            elif mine.reshape(-1, mine.shape[-1]).shape != state.shape:
                wrong_shape.append([name, list(mine.shape), list(state.shape)])
            else:
                difference = np.abs(mine.reshape(state.shape).astype(np.float64) - state)
                error = float("inf") if np.isnan(difference).any() else float(difference.max())
                compared += state.size
                worst = max(worst, (error, name), key=lambda pair: pair[0])
                by_layer[layer] = max(by_layer.get(layer, 0.0), error)
    good = not missing and not wrong_shape and worst[0] <= arguments.tolerance
    print(json.dumps({
        "values": compared, "max_abs_error": worst[0], "at": worst[1], "by_layer": by_layer,
        "missing": missing, "wrong_shape": wrong_shape, "good": good,
    }, indent=1))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
