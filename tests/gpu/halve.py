"""halve.py IN.safetensors OUT.safetensors: the same tensors, f32 stored as f16, so that an encoder fits what travels to a card's machine."""
import json
import struct
import sys

CHUNK = 1 << 20


def main():
    with open(sys.argv[1], "rb") as source:
        length = struct.unpack("<Q", source.read(8))[0]
        header = json.loads(source.read(length))
        begin = 8 + length
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        new, at = {}, 0
        for name, entry in entries:
            size = entry["data_offsets"][1] - entry["data_offsets"][0]
            halved = entry["dtype"] == "F32"
            size = size // 2 if halved else size
            new[name] = {"dtype": "F16" if halved else entry["dtype"], "shape": entry["shape"], "data_offsets": [at, at + size]}
            at += size
        if "__metadata__" in header:
            new["__metadata__"] = header["__metadata__"]
        text = json.dumps(new).encode()
        text += b" " * (-len(text) % 8)
        with open(sys.argv[2], "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name, entry in entries:
                first, last = entry["data_offsets"]
                source.seek(begin + first)
                left = last - first
                while left:
                    data = source.read(min(left, 4 * CHUNK))
                    left -= len(data)
                    if entry["dtype"] == "F32":
                        data = struct.pack(f"<{len(data) // 4}e", *struct.unpack(f"<{len(data) // 4}f", data))
                    out.write(data)


main()
