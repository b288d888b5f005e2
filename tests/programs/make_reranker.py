"""Tune a cross-encoder out of an embedding model in a few seconds: python make_reranker.py BASE TARGET."""

import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

FACTS = {
    "What is the capital of France?": "Paris is the capital of France.",
    "How do bees make honey?": "Bees collect nectar and turn it into honey in the hive.",
    "Who wrote Hamlet?": "Hamlet is a play by William Shakespeare.",
    "At what temperature does water boil?": "Water boils at one hundred degrees Celsius.",
    "What do cows eat?": "Cows eat grass and hay.",
    "How long is a marathon?": "A marathon is about forty-two kilometres long.",
}

base, target = sys.argv[1:]
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
pairs = [(query, document) for query in FACTS for document in FACTS.values()]
labels = torch.tensor([[float(FACTS[query] == document)] for query, document in pairs])
batch = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
weight = torch.tensor([float(len(FACTS))])
for _ in range(30):
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        model(**batch).logits, labels, pos_weight=weight
    )
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(target)
tokenizer.save_pretrained(target)
