"""table.py SPEED.jsonl...: both sides' lines as one table: tokens per second, the ratio to the best of PyTorch's ways in the same precision, the
share of the card's measured matrix rate, and where a step of ours goes."""
import json
import sys


def main():
    lines = []
    for path in sys.argv[1:]:
        with open(path) as file:
            lines += [json.loads(line) for line in file if line.startswith("{")]
    rate = next((line["tflops"] for line in lines if line.get("work") == "matrix rate"), None)
    print("matrix rate", "unknown" if rate is None else f"{rate:.0f} TFLOP/s bf16")
    print(f"{'workload':26} {'ours':>12} {'tokens/s':>11} {'ms':>8} {'share':>6}   {'best of PyTorch':>16} {'tokens/s':>11} {'ratio':>6} {'community':>9}")
    for ours in [line for line in lines if line["side"] == "easytransfer" and "tokens_per_s" in line]:
        same = [line for line in lines if line["side"] == "pytorch" and "tokens_per_s" in line
                and (line["work"], line["shape"]) == (ours["work"], ours["shape"])]
        peers = [line for line in same if line["way"].endswith(" " + ours["way"])]
        best = max(peers, key=lambda line: line["tokens_per_s"], default=None)
        community = next((line for line in same if line["way"] == "community"), None)
        share = "" if rate is None else f"{100 * ours['tflops'] / rate:.0f}%"
        text = f"{ours['work'] + ' ' + ours['shape']:26} {ours['way']:>12} {ours['tokens_per_s']:11.0f} {ours['ms_per_batch']:8.2f} {share:>6}"
        if best:
            text += f"   {best['way']:>16} {best['tokens_per_s']:11.0f} {ours['tokens_per_s'] / best['tokens_per_s']:6.2f}"
            if community:
                text += f" {ours['tokens_per_s'] / community['tokens_per_s']:9.2f}"
        print(text)
    for line in [line for line in lines if line.get("work") == "families"]:
        whole = sum(line["ms_per_batch"].values())
        print(f"\n{line['shape']} in {line['way']}: {whole:.2f} ms a step by the card's clock")
        for name, ms in sorted(line["ms_per_batch"].items(), key=lambda item: -item[1]):
            print(f"  {100 * ms / max(whole, 1e-9):5.1f}% {ms:9.3f} ms  {name}")
    for line in [line for line in lines if "failed" in line]:
        print("failed:", line["way"], line["work"], line["shape"], line["failed"])


main()
