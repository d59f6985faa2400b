"""Writes orders.jsonl, the orders of the order pipeline: python3 generate_orders.py > orders.jsonl

The same bytes each time. The shapes differ on purpose: fields come and go, texts are in many scripts, and sizes run
from a hundred bytes to a few kilobytes.
"""

import json
import random
import sys

ORDERS = 2400
CUSTOMERS = [
    "Zoë Łukasiewicz",
    "Nguyễn Thị Hằng",
    "Søren Ærø",
    "王小明",
    "佐藤 花子",
    "김민준",
    "Владимир Ильич Ульянов",
    "محمد بن سلمى",
    "Ἀριστοτέλης Παππᾶς",
    "אסתר כהן",
    "प्रिया शर्मा",
    "สมชาย ใจดี",
    "Jürgen Groß",
    "Françoise Dœuvre",
    "Ana Lúcia Conceição",
    "İbrahim Çelik",
    "Þórdís Gísladóttir",
    "Mary O'Brien",
    'J. "Bo" Smith',
    "Ọlájùmọ̀kẹ́ Adé",
]
GOODS = [
    ("TEA-GY", "龍井 green tea, 250 g", 1890),
    ("MUG-01", "Mug “Grüß Gott” ☕", 1250),
    ("KNF-21", "包丁 210 mm", 14900),
    ("CBL-C", "USB-C cable, 2 m", 990),
    ("BK-RAFT", "In Search of an Understandable Consensus Algorithm", 0),
    ("CHS-BR", "Brie de Meaux", 1430),
    ("SPC-7", "Épices – mélange “ras el hanout”", 760),
    ("HAT-ñ", "Sombrero de jipijapa", 8999),
    ("PLT-🪴", "Monstera deliciosa 🪴", 3450),
    ("SOK-42", "Wollsocken, Größe 42", 1595),
    ("VIN-78", "Vinyl: Волга-Волга", 2799),
    ("LMP-3", "Lampe Ælven, 3 W", 4100),
    ("PEN-F", "万年筆 F", 23000),
    ("CLK-∞", "Clock ∞", 6660),
    ("GFT-0", "🎁 wrapping", 300),
]
CITIES = [
    "Kraków",
    "Hà Nội",
    "Ålesund",
    "北京",
    "京都",
    "서울",
    "Тула",
    "القاهرة",
    "Ἀθῆναι",
    "חיפה",
    "पुणे",
    "กรุงเทพฯ",
    "Köln",
    "Nîmes",
    "São Paulo",
]
NOTES = [
    "Leave it at the door.\nThe bell is broken.",
    "Будьте добры, позвоните заранее.",
    "請勿折疊。",
    "Attention: chien méchant 🐕‍🦺!",
    'Tab\there, \\ and "quotes"',
    "🧵🧶" * 20,
    "nul is not text, but \u0001 and \u200d are",
    "ligne après ligne, " * 60,
    "長い長いメモ。" * 90,
]


def order(rng: random.Random, number: int) -> dict:
    goods = [
        {"sku": sku, "name": name, "quantity": rng.choice([1, 1, 1, 2, 3, 12, 144]), "unit_cents": cents}
        for sku, name, cents in rng.sample(GOODS, 8 if rng.random() < 0.01 else rng.choice([1, 1, 1, 2, 2, 3]))
    ]
    made = {"order_id": f"ORD-{number:06}", "customer": rng.choice(CUSTOMERS), "items": goods}
    made["total_cents"] = sum(item["quantity"] * item["unit_cents"] for item in goods)
    made["currency"] = rng.choice(["EUR", "EUR", "JPY", "USD", "PLN"])
    if rng.random() < 0.5:
        made["ship_to"] = {"city": rng.choice(CITIES), "floor": rng.choice([None, -1, 0, 3, "4½"])}
    if rng.random() < 0.12:
        made["note"] = rng.choice(NOTES)
    if rng.random() < 0.1:
        made["gift"] = {
            "wrap": True,
            "card": {"text": "Wszystkiego najlepszego! 🎂", "signed": [rng.choice(CUSTOMERS) for _ in range(3)]},
        }
    if rng.random() < 0.05:
        made["coupons"] = []
    if rng.random() < 0.05:
        made["weight_kg"] = round(rng.uniform(0.05, 32), 3)
    return made


def main() -> None:
    rng = random.Random(20261121)
    for number in range(1, ORDERS + 1):
        line = json.dumps(order(rng, number), ensure_ascii=False, separators=(",", ":"))
        sys.stdout.buffer.write(line.encode() + b"\n")


if __name__ == "__main__":
    main()
