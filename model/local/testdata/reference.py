"""Makes reference.json and codepoints.json, what the reference implementations
say: token numbers and words by Hugging Face's tokenizers, vectors by ONNX
Runtime's own Python package.

    pip install onnxruntime==1.30.0 tokenizers==0.22.2 numpy
    python reference.py MODELS_DIR

MODELS_DIR is a directory that `rag-processor models pull` has filled with the
models named below. The texts are ours; long ones are cut to 512 tokens.
"""
import hashlib
import json
import os
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer, normalizers, pre_tokenizers

LOCK = json.load(open("../models.lock.json"))
FILES = {f["id"]: f for f in LOCK["files"]}
MODELS = ["bge-small-en-v1.5", "bge-small-en-v1.5-int8", "all-minilm-l6-v2-int8"]

TEXTS = [
    "",
    " \t\r\n",
    "hello",
    "What is the boundary layer of a supersonic flat plate?",
    "The QUICK brown fox, jumped: over (the) lazy-dog's back... 42%!",
    "Café naïve Ångström façade Zürich — “quotes” ‘single’ … ½ ² ™",
    "İstanbul DİYARBAKIR ẞtraße ΑΣ ΟΔΥΣΣΕΥΣ Ⅷ ﬁne",
    "東京は日本の首都です。我爱北京天安门。",
    "서울은 대한민국의 수도이다",
    "Привет, мир! Ёлка й",
    "العربية: مَرْحَبًا بِالعَالَم",
    "हिन्दी में पाठ",
    "emoji 👩‍👩‍👧‍👦 🇩🇪 ❤️ ☃ 😀 end",
    "zero\u200bwidth\u00adsoft\ufeffbom\u2028line\u0085next\x00nul\x07bell\x7fdel",
    "[CLS] special [SEP][MASK] [UNK] [pad] [PAD]x",
    "x" * 100 + " " + "y" * 101 + " " + "antidisestablishmentarianism",
    "a\u0301\u0323 e\u0301 n\u0303 \u0041\u030a ǆ ŉ",
    "https://example.com/a_b?c=d&e=%20#f user@example.com C:\\path\\file.txt",
    "def f(x):\n\treturn x**2 + {'a': [1, 2, 3]}[\"a\"][0]  # comment",
    "3.14159 1,234,567 1e-9 $5 €7 £8 ¥9 10°C ±3",
    "豈 㐀 𠀀 ｶﾀｶﾅ ｆｕｌｌ",
    "  leading and trailing  ",
    "a<mask> b <mask>c</s>",
    "a\u2581b \u2581\u2581 c",
    "tabs\tand\nnewlines  two",
    "ﬁ ﬂ ㌀ ｱｲｳ ①② é é ไทยภาษา שלום",
    "Long text about aerodynamics and heat transfer in slip flow. " * 80,
]


def path(dir, id):
    f = FILES[id]
    return os.path.join(dir, f["sha256"], f["name"])


def main(dir):
    out = {"texts": TEXTS, "ids": [], "models": {}}
    tok = Tokenizer.from_file(path(dir, "bert-uncased-tokenizer"))
    tok.no_truncation()
    tok.no_padding()
    out["ids"] = [tok.encode(t, add_special_tokens=False).ids for t in TEXTS]
    # A vocabulary of 602 pieces, made as XLM-RoBERTa's was: see README.md.
    uni = Tokenizer.from_file("unigram.json")
    out["unigram_spaces"] = [uni.encode(t, add_special_tokens=False).ids for t in TEXTS]
    uni.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always"),
    ])
    out["unigram_words"] = [uni.encode(t, add_special_tokens=False).ids for t in TEXTS]
    for m in LOCK["models"]:
        if m["name"] not in MODELS:
            continue
        session = onnxruntime.InferenceSession(path(dir, m["model"]), providers=["CPUExecutionProvider"])
        vectors = []
        for text, query in [(t, False) for t in TEXTS] + [(TEXTS[3], True)]:
            tok.enable_truncation(m["max_tokens"] + 2)
            enc = tok.encode((m.get("query_prefix", "") if query else "") + text)
            feed = {
                "input_ids": np.array([enc.ids], np.int64),
                "attention_mask": np.array([enc.attention_mask], np.int64),
                "token_type_ids": np.array([enc.type_ids], np.int64),
            }
            hidden = session.run(["last_hidden_state"], feed)[0][0]
            v = hidden[0] if m["pooling"] == "cls" else hidden.mean(axis=0)
            v = v / np.linalg.norm(v)
            vectors.append([round(float(x), 6) for x in v])
        out["models"][m["name"]] = vectors
    with open("reference.json", "w") as f:
        json.dump(out, f, separators=(",", ":"), ensure_ascii=True)
        f.write("\n")

    # How each code point c splits "a<c>b": a hash for each block of 4,096.
    norm = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
    pre = pre_tokenizers.BertPreTokenizer()
    lines = {}
    for c in range(0x110000):
        if not 0xD800 <= c < 0xE000:
            lines[c] = "|".join(w for w, _ in pre.pre_tokenize_str(norm.normalize_str("a" + chr(c) + "b")))
    # Ranges of code points on which Go's tables of Unicode and the older ones of
    # tokenizers disagree: 624, nearly all of them newer than Unicode 8.
    differ = json.load(open("codepoints.json"))["differ"]
    skip = {c for first, last in differ for c in range(first, last + 1)}
    blocks = []
    for b in range(0, 0x110000, 0x1000):
        h = hashlib.sha256()
        for c in range(b, b + 0x1000):
            if c in lines and c not in skip:
                h.update((lines[c] + "\n").encode())
        blocks.append(h.hexdigest()[:16])
    with open("codepoints.json", "w") as f:
        json.dump({"differ": differ, "blocks": blocks}, f, separators=(",", ":"))
        f.write("\n")


main(sys.argv[1])
