# %% [markdown] lang="en"
# You have trained with code. Many teams train with files: one YAML a stage, one command each, no Python at all. LLaMA-Factory is the best known tool for that. Here BLOOMZ goes through the whole of it: pre-training on medical text, SFT, merging, DPO, 4-bit GPTQ, and a server that answers the OpenAI API.
#
# **For** those who know from lessons 01 and 09 what SFT and DPO are. The texts are Chinese, but you need not read Chinese.
# **At the end you have** seven YAML files that run on any machine once their paths are changed, a model in which every change is measured, a table that says what every key is called in TRL, and a server that you have asked with `curl`.
#
# The medical answers are an exercise, not advice.
#
# The steps, as in every lesson: parameters → machine → data → load → before → the YAML → train → after → quantize and serve.

# %% [markdown] lang="zh"
# 前面各课都是写代码训练。不少团队却是靠文件训练的：一个阶段一份 YAML，一条命令，不写 Python。这类工具里最有名的就是 LLaMA-Factory。这一课让 BLOOMZ 走完全程：医学文本上的继续预训练、SFT、合并、DPO、4 比特 GPTQ，最后起一个兼容 OpenAI 接口的服务。
#
# **适合谁**：学过第 01 课和第 09 课，知道 SFT 和 DPO 是什么的人。
# **学完你会得到**：七份 YAML，改几个路径就能搬到别的机器上用；一个每一步都量得出变化的模型；一张对照表，每个键在 TRL 里叫什么；一个你亲手用 `curl` 问过的服务。
#
# 里面的问诊内容只是练习，不是医疗建议。
#
# 步骤和其他课一样：参数 → 机器 → 数据 → 加载 → 训练前 → 写 YAML → 训练 → 训练后 → 量化与部署。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# BLOOMZ-7B1 needs a GPU with 24 GB, and about 32 GB of ordinary memory for merging. On a free T4 take `MODEL = "bigscience/bloomz-1b7"`, `VRAM_GB = 12` and `DISK_GB = 20`; the YAML stays the same. `owner/dataset:file` is a file in a data set on the Hub. `WANTED` and `UNWANTED` are search patterns of your own, as in lesson 09: they only count.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# BLOOMZ-7B1 要 24 GB 显存，合并时还要 32 GB 左右的内存。用免费 T4 的话，`MODEL = "bigscience/bloomz-1b7"`，`VRAM_GB = 12`，`DISK_GB = 20`，YAML 一个字都不用改。`owner/dataset:file` 指 Hub 上某个数据集里的一个文件。`WANTED` 和 `UNWANTED` 是你自己定的正则，和第 09 课一样，只用来数数。

# %% tags=["parameters"]
MODEL = "bigscience/bloomz-7b1"  # Hub name, folder, or nano/bloom-medical
MODEL_SOURCE = "huggingface"  # or "modelscope"
PT_DATA = "shibing624/medical:pretrain/medical_book_zh.json"  # rows with text
SFT_DATA = "shibing624/medical:finetune/train_zh_0.json"  # Alpaca rows or conversations
DPO_DATA = "shibing624/medical:reward/train.json"  # pairs in any form of lesson 09
ROWS = 3000  # at most, of each
OUTPUT_DIR = "outputs/12_llamafactory"
TEMPLATE = "default"  # LLaMA-Factory's name of the prompt format
QUANTIZATION_BIT = "null"  # "4" for QLoRA, where memory is short
CUTOFF = 1024  # tokens of a row
BATCH_SIZE = 1  # a pair of DPO is two rows, and 250,880 logits a token are large
GRADIENT_ACCUMULATION = 16
PT_STEPS = 200
SFT_STEPS = 200
DPO_STEPS = 100
PT_LEARNING_RATE = 1e-4
SFT_LEARNING_RATE = 1e-4
DPO_LEARNING_RATE = 5e-6
HELD_OUT = 64  # rows of each kind kept away from training
ASKED = 32  # held-out questions answered before and after
SERVED = 8  # of these, how many the server answers
WANTED = "(?m)^1[.、]|建议"
UNWANTED = "抱歉|对不起|希望这"
MAX_NEW_TOKENS = 256
TEMPERATURE = 0.7
CALIBRATION_LENGTH = 512  # tokens of a text that GPTQ calibrates with
KERNEL = "auto"  # of the 4-bit model; "torch" where there is no GPU
SEED = 3407
VRAM_GB = 20  # stop early on a machine with less
DISK_GB = 70

# %% [markdown] lang="en"
# ## 2 · The machine, and a second environment
#
# LLaMA-Factory wants other versions than this course. That is common, and no reason to downgrade anything: give the tool an environment of its own and talk to it by files and commands. The next cells make it, once (a few seconds where the packages are in uv's cache; else about 3 GB to download).

# %% [markdown] lang="zh"
# ## 2 · 机器，和另一个环境
#
# LLaMA-Factory 要的版本和本课程不一样。这很常见，犯不着为它降级：单独给它一个环境，用文件和命令跟它打交道。下面几格会建好这个环境，只建一次（包已在 uv 缓存里的话几秒钟，否则要下载约 3 GB）。

# %%
from helpers import parameters, runtime

parameters.check(globals())
runtime.require(vram_gb=VRAM_GB, disk_gb=DISK_GB, folder=OUTPUT_DIR, written=0.6, models=[MODEL], source=MODEL_SOURCE)
print(runtime.describe())

# %%
from helpers import llamafactory

factory = llamafactory.environment()

# %%
import json
import subprocess
from importlib import metadata

import numpy as np
import pandas as pd

NAMES = ["torch", "transformers", "trl", "peft", "accelerate", "datasets"]
ASK = "import json, sys; from importlib import metadata; print(json.dumps({n: metadata.version(n) for n in sys.argv[1:]}))"
there = subprocess.run([factory.command("python"), "-c", ASK, *NAMES], capture_output=True, text=True, check=True)
pd.DataFrame({"this course": {n: metadata.version(n) for n in NAMES}, "LLaMA-Factory": json.loads(there.stdout)})

# %% [markdown] lang="en"
# ## 3 · Data
#
# Three stages, three kinds of rows: plain text, questions with an answer, questions with a better and a worse answer.

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# 三个训练阶段，三种数据：纯文本；一问一答；一问配一好一差两个回答。

# %%
from pathlib import Path

from helpers import data

folder = Path(OUTPUT_DIR, "data").resolve()
texts = llamafactory.load_texts(llamafactory.first_rows(PT_DATA, folder, ROWS))[:ROWS]
instructions = llamafactory.load_instructions(llamafactory.first_rows(SFT_DATA, folder, ROWS))
pairs = data.load_preferences(llamafactory.first_rows(DPO_DATA, folder, ROWS), limit=ROWS)
print(texts[0][:300])

# %%
rows = {
    "pt": [{"text": text} for text in texts],
    "sft": instructions.to_list()[:ROWS],
    "dpo": [pair | {"prompt": "\n".join(turn["content"] for turn in pair["prompt"])} for pair in pairs],
}
for (name, kind), source in zip(rows.items(), (PT_DATA, SFT_DATA, DPO_DATA)):
    data.check_held_out(len(kind), HELD_OUT, source)
    for part, chosen in {name: kind[HELD_OUT:], f"{name}_held_out": kind[:HELD_OUT]}.items():
        path = folder / f"{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(chosen, ensure_ascii=False, indent=1), encoding="utf-8")
        print(f"{len(chosen):6,} rows  {path.name}")

# %% [markdown] lang="en"
# LLaMA-Factory finds data by name in one file, `dataset_info.json`: which file it is, and which of its columns is what. Alpaca's columns need no words. `ranking` marks pairs.

# %% [markdown] lang="zh"
# LLaMA-Factory 按名字找数据，名字登记在 `dataset_info.json` 里：是哪个文件，哪一列是什么。Alpaca 的列名不用说明；成对的数据要写上 `ranking`。

# %%
columns = {
    "pt": {"columns": {"prompt": "text"}},
    "sft": {},
    "dpo": {"ranking": True, "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
}
info = {
    part: {"file_name": f"{part}.json"} | how for name, how in columns.items() for part in (name, f"{name}_held_out")
}
(folder / "dataset_info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
print(json.dumps(info, indent=2))

# %% [markdown] lang="en"
# ## 4 · Load
#
# Here only to ask it; LLaMA-Factory loads the model itself, in a process of its own. So the function loads, asks and lets go: on a GPU the two would not fit beside each other.

# %% [markdown] lang="zh"
# ## 4 · 加载
#
# 这里加载只是为了提问；训练时 LLaMA-Factory 会在自己的进程里加载模型。所以这个函数加载、提问、随即释放，否则两份模型在一块 GPU 上放不下。

# %%
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from helpers import generation, hub, memory, report

memory.free("model")  # of an earlier run
base = hub.resolve_model(MODEL, MODEL_SOURCE)
QUESTION = "Human: {}</s>\nAssistant:"  # the template "default", as it is written
questions = rows["dpo"][:ASKED]


def ask(model_name):
    """A sampled answer to each held-out question."""
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    model = AutoModelForCausalLM.from_pretrained(model_name, dtype=runtime.dtype(), device_map="auto")
    set_seed(SEED)
    prompts = [QUESTION.format(row["prompt"]) for row in questions]
    plain = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    answers = generation.complete(model, tokenizer, prompts, MAX_NEW_TOKENS, batch_size=16, **plain)
    del model
    memory.free()
    return pd.DataFrame(answers)


# %% [markdown] lang="en"
# ## 5 · Before training
#
# `right`: the answer holds what is wanted, in the very words that the chosen answer has there.

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# `right`：回答里有想要的内容，而且那几个字和选中的回答一模一样。

# %%
import re


def figures(answers):
    found = [re.search(WANTED, text) for text in answers["text"]]
    right = [bool(match) and match[0] in row["chosen"] for match, row in zip(found, questions)]
    return {
        "stopped": answers["stopped"].mean(),
        "wanted": sum(map(bool, found)) / len(found),
        "right": sum(right) / len(right),
        "unwanted": answers["text"].str.contains(UNWANTED).mean(),
    }


asked = {"base": ask(base)}
print(f"{questions[0]['prompt']}\n→ {asked['base']['text'][0]!r}")
pd.DataFrame({name: figures(answers) for name, answers in asked.items()}).round(3)

# %% [markdown] lang="en"
# ## 6 · The YAML
#
# What all training stages share. Bloom keeps queries, keys and values in one matrix, so LoRA's target is `query_key_value`. `eval_on_start` measures the held-out rows before the first step: a before and after for nothing. And put `"no"` in quotes: bare, YAML reads it as *false*.

# %% [markdown] lang="zh"
# ## 6 · 写 YAML
#
# 先写各训练阶段共用的部分。Bloom 的查询、键、值放在同一个矩阵里，所以 LoRA 的目标是 `query_key_value`。`eval_on_start` 会在第一步之前先测一遍留出数据，训练前后的对比就有了。`"no"` 要加引号：不加，YAML 会把它读成**假**。

# %%
COMMON = f"""
### the same in every stage
template: {TEMPLATE}
finetuning_type: lora
lora_target: query_key_value
quantization_bit: {QUANTIZATION_BIT}
dataset_dir: {folder}
cutoff_len: {CUTOFF}
do_train: true
{llamafactory.precision()}
per_device_train_batch_size: {BATCH_SIZE}
gradient_accumulation_steps: {GRADIENT_ACCUMULATION}
per_device_eval_batch_size: {BATCH_SIZE}
lr_scheduler_type: cosine
logging_steps: 1
save_strategy: "no"
eval_strategy: steps
eval_on_start: true
report_to: none
seed: {SEED}
"""

# %% [markdown] lang="en"
# You know every one of these keys already, under another name:

# %% [markdown] lang="zh"
# 这些键你都认识，只是换了名字：

# %%
pd.DataFrame(llamafactory.KEYS.items(), columns=["YAML", "TRL, PEFT, transformers"])

# %% [markdown] lang="en"
# ## 7 · Train
#
# **Stage 1, pre-training.** No questions, no template: text after text, each closed by EOS, packed into rows of exactly `cutoff_len` tokens.

# %% [markdown] lang="zh"
# ## 7 · 训练
#
# **第一阶段：继续预训练**（也叫增量预训练，LLaMA-Factory 里是 `stage: pt`）。没有问答，没有模板：一篇接一篇，每篇以 EOS 结尾，打包成正好 `cutoff_len` 个 token 的行。

# %%
work = Path(OUTPUT_DIR).resolve()
pt_yaml = llamafactory.write(
    work / "1_pt.yaml",
    f"""
### 1: pre-training
stage: pt
model_name_or_path: {base}
lora_rank: 8
lora_alpha: 16
dataset: pt
eval_dataset: pt_held_out
packing: true
max_steps: {PT_STEPS}
eval_steps: {PT_STEPS}
learning_rate: {PT_LEARNING_RATE}
output_dir: {work}/1_pt
""",
    COMMON,
)
print(pt_yaml.read_text(encoding="utf-8"))

# %%
pt = llamafactory.run(factory, "train", pt_yaml)
perplexity = np.exp(pt.held_out()["loss"]).rename("perplexity of the held-out texts")
perplexity

# %% [markdown] lang="en"
# **Stage 2, SFT.** With `adapter_name_or_path` the same adapter goes on learning: no merge in between, rank 8 stays rank 8.

# %% [markdown] lang="zh"
# **第二阶段：SFT。** 写上 `adapter_name_or_path`，就是接着训同一个适配器：中间不用合并，秩还是 8。

# %%
sft_yaml = llamafactory.write(
    work / "2_sft.yaml",
    f"""
### 2: supervised fine-tuning
stage: sft
model_name_or_path: {base}
adapter_name_or_path: {work}/1_pt
dataset: sft
eval_dataset: sft_held_out
max_steps: {SFT_STEPS}
eval_steps: {SFT_STEPS}
learning_rate: {SFT_LEARNING_RATE}
output_dir: {work}/2_sft
""",
    COMMON,
)
sft = llamafactory.run(factory, "train", sft_yaml)
sft.held_out()["loss"]

# %% [markdown] lang="en"
# What did the loss see? LLaMA-Factory writes the first example into its log: look there before you believe a curve. Only the answer is trained on, and it ends in `</s>`.

# %% [markdown] lang="zh"
# 损失函数看到的是什么？LLaMA-Factory 会把第一条样本写进日志：信一条曲线之前，先看看它。只有回答参与训练，而且以 `</s>` 结尾。

# %%
report.label_mask(AutoTokenizer.from_pretrained(pt.folder), *sft.example())

# %% [markdown] lang="en"
# **Stage 3, merge.** `export` adds the adapter into the weights and writes an ordinary checkpoint. DPO starts from there: its reference is then simply the model without the new adapter (lesson 09 shows what goes wrong otherwise).

# %% [markdown] lang="zh"
# **第三阶段：合并。** `export` 把适配器加进权重，写成普通的检查点。DPO 从这里出发：不挂新适配器的模型就是参考模型（不合并会出什么事，见第 09 课）。


# %%
def merge(name, model, adapter):
    """The YAML that adds an adapter to its model."""
    return llamafactory.write(
        work / f"{name}.yaml",
        f"""
model_name_or_path: {model}
adapter_name_or_path: {adapter}
finetuning_type: lora
template: {TEMPLATE}
export_dir: {work}/{name}
export_size: 5  # GB a file
export_device: cpu
""",
    )


merged = llamafactory.run(factory, "export", merge("3_merged", base, sft.folder))
asked["SFT"] = ask(merged.folder)
pd.DataFrame({name: figures(answers) for name, answers in asked.items()}).round(3)

# %% [markdown] lang="en"
# With the model the template is saved, as the tokenizer's chat template. What you ask with must be the same text, character for character:

# %% [markdown] lang="zh"
# 合并时，模板也作为分词器的聊天模板存了下来。提问用的文本必须和它一字不差：

# %%
chat = [{"role": "user", "content": questions[0]["prompt"]}]
templated = AutoTokenizer.from_pretrained(merged.folder).apply_chat_template(chat, tokenize=False)
template_agrees = templated == QUESTION.format(questions[0]["prompt"])
print(f"{templated}\nthe same: {template_agrees}")

# %% [markdown] lang="en"
# **Stage 4, DPO**, with a new and smaller adapter, rank 4: it has less to learn.

# %% [markdown] lang="zh"
# **第四阶段：DPO**，换一个更小的新适配器，秩 4：要学的东西没那么多。

# %%
dpo_yaml = llamafactory.write(
    work / "4_dpo.yaml",
    f"""
### 4: direct preference optimization
stage: dpo
model_name_or_path: {merged.folder}
lora_rank: 4
lora_alpha: 8
pref_beta: 0.1
pref_loss: sigmoid
dataset: dpo
eval_dataset: dpo_held_out
max_steps: {DPO_STEPS}
eval_steps: {DPO_STEPS}
learning_rate: {DPO_LEARNING_RATE}
output_dir: {work}/4_dpo
""",
    COMMON,
)
dpo = llamafactory.run(factory, "train", dpo_yaml)
dpo.held_out()[["loss", "margins", "accuracies", "logps/chosen", "logps/rejected"]]

# %%
llamafactory.loss_plot({"1 · pre-training": pt, "2 · SFT": sft, "4 · DPO": dpo})

# %% [markdown] lang="en"
# ## 8 · After training
#
# **Stage 5, merge again:** DPO's adapter goes into the weights, as SFT's did in stage 3. Then the same questions for the third time.

# %% [markdown] lang="zh"
# ## 8 · 训练之后
#
# **第五阶段：再合并一次。** 和第三阶段一样，把 DPO 的适配器并进权重，然后拿同一批问题问第三遍。

# %%
final = llamafactory.run(factory, "export", merge("5_final", merged.folder, dpo.folder))
asked["DPO"] = ask(final.folder)
table = pd.DataFrame({name: figures(answers) for name, answers in asked.items()}).round(3)
table

# %%
shown = [{"question": row["prompt"], "chosen": row["chosen"]} for row in questions[:6]]
report.side_by_side(
    [row | {name: answers["text"][place] for name, answers in asked.items()} for place, row in enumerate(shown)]
)

# %% [markdown] lang="en"
# ## 9 · Quantize and serve
#
# **Stage 6, GPTQ.** It rounds each weight to 4 bits, and corrects the weights that are left so that the layer's output on *calibration text* changes least. So calibrate with text like the one that the model will see: chats in its template, each longer than `export_quantization_maxlen`.

# %% [markdown] lang="zh"
# ## 9 · 量化与部署
#
# **第六阶段：GPTQ。** 它逐个把权重舍入到 4 比特，同时修正剩下的权重，让这一层在**校准文本**上的输出变化最小。所以校准文本要像模型将来见到的东西：套好模板的对话，每条都比 `export_quantization_maxlen` 长。

# %%
chats = [f"{QUESTION.format(row['prompt'])}{row['chosen']}</s>\n" for row in rows["dpo"][HELD_OUT:]]
calibration = [{"text": "".join(chats[start : start + 24])} for start in range(0, len(chats), 8)]
calibration_file = folder / "calibration.json"
calibration_file.write_text(json.dumps(calibration, ensure_ascii=False), encoding="utf-8")
gptq_yaml = llamafactory.write(
    work / "6_gptq.yaml",
    f"""
model_name_or_path: {final.folder}
template: {TEMPLATE}
export_dir: {work}/6_gptq
export_size: 5
export_quantization_bit: 4
export_quantization_dataset: {calibration_file}
export_quantization_nsamples: 32
export_quantization_maxlen: {CALIBRATION_LENGTH}
""",
)
gptq = llamafactory.run(factory, "export", gptq_yaml)

# %% [markdown] lang="en"
# Look into its `config.json` before you pass the model on: the calibration text is in there, token by token. With real patients' questions that would be a leak. And here one names the kernel that multiplies the 4-bit matrices.

# %% [markdown] lang="zh"
# 模型交出去之前，先看一眼它的 `config.json`：校准文本原样写在里面，一个 token 都没少。要是真实患者的提问，这就是泄密。另外，4 比特矩阵用哪个内核来乘，也写在这里。

# %%
config_file = gptq.folder / "config.json"
config = json.loads(config_file.read_text(encoding="utf-8"))
quantization = config["quantization_config"]
print(
    f"calibration rows in config.json: {len(quantization['dataset'] or [])}, {config_file.stat().st_size / 1024:.0f} KiB"
)
quantization |= {"dataset": None, "backend": KERNEL}
runtime.write_text(config_file, json.dumps(config, indent=2))
print(f"without: {config_file.stat().st_size / 1024:.0f} KiB")


# %%
def size_mib(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1024**2


sizes = {"after DPO": size_mib(final.folder), "GPTQ, 4 bits": size_mib(gptq.folder)}
pd.DataFrame({"MiB": sizes}).round(2)

# %% [markdown] lang="en"
# **Stage 7, the server.** `with` stops it when the block ends, also when a line in it fails. First `curl`, as any program on any machine would ask; then Python.

# %% [markdown] lang="zh"
# **第七阶段：服务。** 用 `with`，代码块一结束服务就停，中途出错也会停。先用 `curl` 问，别的机器上的程序也是这么问的；再用 Python 问。

# %%
import requests

api_yaml = llamafactory.write(
    work / "7_api.yaml", f"model_name_or_path: {gptq.folder}\ntemplate: {TEMPLATE}\ninfer_backend: huggingface"
)
request = {"model": "bloom", "messages": chat, "temperature": 0, "max_tokens": MAX_NEW_TOKENS}
request_file = work / "request.json"
request_file.write_text(json.dumps(request, ensure_ascii=False), encoding="utf-8")
with llamafactory.api(factory, api_yaml) as server:
    print(f"answers after {server.seconds:.0f} s at {server.url}")
    address = f"{server.url}/chat/completions"
    # !curl -s {address} -H "Content-Type: application/json" -d @{request_file}
    served = []
    for row in questions[:SERVED]:
        body = request | {"messages": [{"role": "user", "content": row["prompt"]}]}
        reply = requests.post(address, json=body, timeout=600)
        reply.raise_for_status()
        served.append(reply.json()["choices"][0]["message"]["content"])

# %% [markdown] lang="en"
# Do four bits change the answers? The same questions to the model before GPTQ, greedily, as the server was asked:

# %% [markdown] lang="zh"
# 压到 4 比特，回答变了吗？同样的问题，问量化之前的模型，和服务一样用贪心解码：

# %%
memory.free("model")  # of an earlier run
tokenizer = AutoTokenizer.from_pretrained(final.folder)
model = AutoModelForCausalLM.from_pretrained(final.folder, dtype=runtime.dtype(), device_map="auto")
prompts = [QUESTION.format(row["prompt"]) for row in questions[:SERVED]]
whole = [answer.text for answer in generation.complete(model, tokenizer, prompts, MAX_NEW_TOKENS)]
same = sum(a.strip() == b.strip() for a, b in zip(whole, served)) / SERVED
print(f"word for word the same: {same:.0%} of {SERVED}")
report.side_by_side(
    [{"question": q["prompt"], "after DPO": a, "4 bits, served": b} for q, a, b in zip(questions, whole, served)]
)

# %%
flat = {f"{name}_{column.lower()}": value for column in table for name, value in table[column].items()}
report.summary(
    OUTPUT_DIR,
    perplexity_before=perplexity.iloc[0],
    perplexity_after=perplexity.iloc[-1],
    sft_loss_before=sft.held_out()["loss"].iloc[0],
    sft_loss_after=sft.held_out()["loss"].iloc[-1],
    dpo_loss=dpo.held_out()["loss"].iloc[-1],
    dpo_margin=dpo.held_out()["margins"].iloc[-1],
    dpo_accuracy=dpo.held_out()["accuracies"].iloc[-1],
    **flat,
    template_agrees=template_agrees,
    size_before=sizes["after DPO"],
    size_4bit=sizes["GPTQ, 4 bits"],
    same_as_before_4bit=same,
    seconds=sum(stage.seconds for stage in (pt, sft, merged, dpo, final, gptq)),
    server_seconds=server.seconds,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | a stage fails at once with `Some keys are not used` | a key is misspelt, or belongs to an older version | compare with the table in section 6; the message names the key |
# | `Output directory already exists and is not empty` | LLaMA-Factory neither overwrites nor mixes | a new `output_dir`, or delete the old one (this lesson's `run` does) |
# | loss falls, but the served model talks nonsense | another `template` in the API's YAML than in training | the same line in every file; print the rendered prompt |
# | DPO starts with a margin that is not 0 | `adapter_name_or_path` without merging first: the reference is the base | merge, then DPO on the merged model |
# | out of memory in DPO alone | a pair is two rows, and each is read twice | `QUANTIZATION_BIT = "4"`, or a smaller `CUTOFF` |
# | `Cannot find satisfying example` in GPTQ | no calibration text is longer than `export_quantization_maxlen` | join texts, or lower that number |
# | GPTQ stops with `index 0 is out of bounds` | it takes groups of 128 weights, and a layer's width is no multiple | another model; there is no key for it |
# | the server is killed while it loads | no memory left: the notebook still holds a model | `memory.free("model")`, then start it |
#
# **Now you:** set `DPO_LEARNING_RATE` to twice its value and run again from the parameters. Trimmed (1e-3, then 2e-3) the margin gets nearly three times as wide. And the answers? (Guess first; the reading has the figures.)

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | 一启动就报 `Some keys are not used` | 键写错了，或者是旧版本的键 | 对照第 6 节的表；报错里写着是哪个键 |
# | `Output directory already exists and is not empty` | LLaMA-Factory 既不覆盖也不混写 | 换一个 `output_dir`，或删掉旧的（本课的 `run` 会替你删） |
# | 损失降了，部署之后模型却胡说 | API 的 YAML 里的 `template` 和训练时不一样 | 每份文件都写同一行；把套好模板的提示词打印出来看 |
# | DPO 一开始间隔就不是 0 | 没合并就写了 `adapter_name_or_path`，参考模型成了基座 | 先合并，再在合并后的模型上做 DPO |
# | 只有 DPO 显存不够 | 一对是两行，每行还要过两遍模型 | `QUANTIZATION_BIT = "4"`，或者调小 `CUTOFF` |
# | GPTQ 报 `Cannot find satisfying example` | 没有一条校准文本比 `export_quantization_maxlen` 长 | 把几条拼起来，或把这个数调小 |
# | GPTQ 报 `index 0 is out of bounds` | 它按 128 个权重一组来算，有一层的宽度不是 128 的倍数 | 换模型；没有键可以改它 |
# | 服务加载到一半被系统杀掉 | 内存不够：笔记本里还占着一份模型 | 先 `memory.free("model")`，再启动 |
#
# **轮到你了**：把 `DPO_LEARNING_RATE` 调成两倍，从参数那格重新跑。精简版里（1e-3 改成 2e-3），间隔会变成将近三倍。回答呢？（先猜一猜，数字在讲解里。）
