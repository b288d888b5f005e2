"""Time `model.generate` for each line of standard input: `generate_raw.py MODEL TOKENS`; prints tokens a second."""

import sys
import time

from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto").eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
count = int(sys.argv[2])
for line in sys.stdin:
    messages = [{"role": "user", "content": line.strip()}]
    tokens = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    begun = time.perf_counter()
    model.generate(**tokens, do_sample=False, min_new_tokens=count, max_new_tokens=count)
    print(count / (time.perf_counter() - begun), flush=True)
