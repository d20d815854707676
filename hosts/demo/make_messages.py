"""Writes messages.{train,dev,test}.tsv from sentences.txt: fills the slots and adds an opening or a closing here and there.

A sentence belongs to one split only, so that no message of dev or test is a variation of one seen in training.
"""

import random
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
PRODUCTS = {
    "en": "kettle,lamp,keyboard,backpack,blender,headset,desk,camera,toaster,watch,router,jacket,speaker,heater,scale,drill".split(","),
    "zh": "水壶,台灯,键盘,背包,搅拌机,耳机,书桌,相机,面包机,手表,路由器,外套,音箱,取暖器,体重秤,电钻".split(","),
}
OPENINGS = {
    "en": ["Hello, ", "Hi, ", "Excuse me, ", "Good morning. ", "Sorry to bother you. ", "Quick question: ", "Hey, "],
    "zh": ["你好，", "您好，", "请问，", "麻烦问一下，", "客服在吗，", "打扰了，", "那个，"],
}
CLOSINGS = {
    "en": [" Thanks.", " Thank you!", " Please help.", " It is urgent.", " Please answer soon.", " Kind regards, Sam"],
    "zh": ["谢谢。", "谢谢！", "请帮帮忙。", "比较急。", "请尽快回复。", "麻烦了。"],
}
VARIANTS = {"train": 5, "dev": 3, "test": 3}
KEEP = {"train": 480, "dev": 60, "test": 60}


def read():
    blocks, key = {}, None
    for line in (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\[(\w+) (\w+)( train)?\]", line):
            key = match.groups()
            blocks[key] = []
        elif line and not line.startswith("#"):
            blocks[key].append(line)
    return blocks


def fill(sentence, intent, language, draw):
    text = sentence.format(
        p=draw.choice(PRODUCTS[language]), n=draw.choice(["", "A", "B", "KX"]) + str(draw.randint(10_000, 999_999)),
        d=draw.randint(2, 9), m=draw.randint(5, 480),
    )
    if intent == "greeting":
        return text if draw.random() < 0.5 else text.lower().rstrip(".。!！")
    chance = draw.random()
    if chance < 0.3:
        text = draw.choice(OPENINGS[language]) + text
    elif chance < 0.55:
        text += draw.choice(CLOSINGS[language])
    if language == "en" and draw.random() < 0.25:
        text = text.lower()
    if draw.random() < 0.15:
        text = text.rstrip(".。?？!！")
    return text


def main():
    draw = random.Random(7)
    splits = {"train": {}, "dev": {}, "test": {}}
    for (intent, language, only), sentences in read().items():
        for number, sentence in enumerate(sentences):
            split = "train" if only else {3: "dev", 9: "test"}.get(number % 10, "train")
            cell = splits[split].setdefault((intent, language), [])
            variants = {fill(sentence, intent, language, draw) for _ in range(VARIANTS[split])}
            cell.append(sorted(variants))
    for split, cells in splits.items():
        rows, seen, turn = [], set(), 0
        # One variation of every sentence first, then the second ones, until there are enough.
        while len(rows) < KEEP[split] and turn < max(VARIANTS.values()):
            layer = [
                (group[turn], intent) for (intent, _), groups in cells.items() for group in groups if turn < len(group)
            ]
            draw.shuffle(layer)
            for text, intent in layer:
                if text not in seen and len(rows) < KEEP[split]:
                    seen.add(text)
                    rows.append(f"{text}\t{intent}\n")
            turn += 1
        draw.shuffle(rows)
        (HERE / f"messages.{split}.tsv").write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
