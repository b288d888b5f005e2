"""Write a tiny LoRA adapter of a model, which changes what that says: `make_adapter.py MODEL FOLDER [RANK]`."""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

source, target, rank = sys.argv[1], sys.argv[2], int((*sys.argv[3:], 4)[0])
torch.manual_seed(rank)
model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
places = ["q_proj", "v_proj", "down_proj"]
model = get_peft_model(
    model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=places, task_type="CAUSAL_LM")
)
for name, weight in model.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(weight, std=0.3)
model.save_pretrained(target)
question = "Tell me about the sea."
from transformers import AutoTokenizer  # noqa: E402

tokenizer = AutoTokenizer.from_pretrained(source)
message = [{"role": "user", "content": question}]
tokens = tokenizer.apply_chat_template(
    message, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
made = model.generate(**tokens, do_sample=False, max_new_tokens=12)[
    0, tokens["input_ids"].shape[1] :
]
print(tokenizer.decode(made, skip_special_tokens=True))
