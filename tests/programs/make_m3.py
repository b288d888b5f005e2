"""Give an embedding model a sparse and a multi-vector head, as BGE-M3 has them: python make_m3.py BASE TARGET."""

import sys

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

base, target = sys.argv[1:]
torch.manual_seed(0)
transformer = SentenceTransformer(base, device="cpu")[0]
width = transformer.get_embedding_dimension()
SentenceTransformer(modules=[transformer, Pooling(width, "cls"), Normalize()]).save(target)
for name, size in (("sparse_linear", 1), ("colbert_linear", width)):
    torch.save(torch.nn.Linear(width, size).state_dict(), f"{target}/{name}.pt")
