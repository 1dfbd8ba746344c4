# %% [markdown] lang="en"
# A vision-language model reads a picture as it reads text: the picture becomes tokens, and what follows is next-token prediction. So it fine-tunes like text, with a few settings more. Here it learns to read car dashboards from an Excel sheet: total distance, speed, time, temperature, gear.
#
# **For** anyone who has done lesson 01.
# **At the end you have** an adapter that turns a dashboard into five lines which a program can parse, an accuracy for each field on pictures it never trained on, and the memory and minutes it took.
#
# The steps, the same in every lesson: parameters → machine → data → load → before → LoRA → train → after → save.

# %% [markdown] lang="zh"
# 视觉语言模型看图，其实和读字差不多：图片先变成一串 token，后面照旧是预测下一个 token。所以微调方法也和文本一样，只是多几个设置。这一课用一张 Excel 表教它读汽车仪表盘：总里程、车速、时间、温度、挡位。
#
# **适合谁**：做完第 01 课的人。
# **学完你会得到**：一个适配器，能把仪表盘照片变成程序能解析的五行文字；每个字段在没见过的图片上的准确率；以及这次训练用了多少显存、多少分钟。
#
# 每一课都是同样的步骤：参数 → 机器 → 数据 → 加载 → 训练前 → LoRA → 训练 → 训练后 → 保存。

# %% [markdown] lang="en"
# ## 1 · Parameters
#
# The sheet comes with the course: 120 drawn dashboards. For your own photographs, make a sheet with the columns `id`, `prompt`, `image`, `response`, put its path here, and set `TRUTH = ""`.

# %% [markdown] lang="zh"
# ## 1 · 参数
#
# 课程自带一张表，配 120 张画出来的仪表盘；想用中文的提示词和标注，把 `DATASET` 换成 `data_samples/odometer/odometer_zh.xlsx`。要用自己的照片，就做一张表，列名是 `id`、`prompt`、`image`、`response`，把路径填在这里，再把 `TRUTH` 设成 `""`。

# %% tags=["parameters"]
MODEL = "unsloth/Qwen2.5-VL-3B-Instruct"  # Hub name, folder, or nano/qwen2_5_vl
MODEL_SOURCE = "huggingface"  # or "modelscope"
DATASET = "data_samples/odometer/odometer_en.xlsx"  # or odometer_zh.xlsx beside it, or a sheet of yours
TRUTH = "data_samples/odometer/truth.json"  # "": nobody knows better than the labels
OUTPUT_DIR = "outputs/05_qwen2_5_vl_odometer"
MAX_IMAGE_TOKENS = 512  # a larger picture is made smaller
MAX_SEQ_LENGTH = 2048  # tokens, those of the picture included
LOAD_IN_4BIT = True
GRADIENT_CHECKPOINTING = True  # recompute instead of remember; False is faster, where memory allows
TRAIN_PICTURES = 0  # 0: all that are not held out
HELD_OUT = 32  # pictures kept away from training
MAX_STEPS = 60  # -1: train EPOCHS epochs instead
EPOCHS = 1
BATCH_SIZE = 8
GRADIENT_ACCUMULATION = 1
LEARNING_RATE = 2e-4
RESPONSES_ONLY = True  # the loss ignores the prompts
MAX_NEW_TOKENS = 96
SEED = 3407
VRAM_GB = 8  # stop early on a machine with less
DISK_GB = 12

# %% [markdown] lang="en"
# ## 2 · The machine
#
# `FastVisionModel` comes from `helpers.vision`: Unsloth's own where there is a GPU. Unsloth's refuses a CPU, so there the same calls go to transformers and PEFT.

# %% [markdown] lang="zh"
# ## 2 · 机器
#
# `FastVisionModel` 从 `helpers.vision` 导入：有 GPU 时就是 Unsloth 原版。原版不支持 CPU，所以在 CPU 上，同样的几个调用会交给 transformers 和 PEFT。

# %%
from helpers import parameters, runtime

parameters.check(globals())
runtime.require(vram_gb=VRAM_GB, disk_gb=DISK_GB, folder=OUTPUT_DIR, unsloth=True, models=[MODEL], source=MODEL_SOURCE)
print(runtime.describe())

# %%
import unsloth  # first: it replaces parts of transformers and trl
import torch
from peft import PeftModel
from trl import SFTConfig, SFTTrainer
from unsloth_zoo.vision_utils import UnslothVisionDataCollator

from helpers import data, export, generation, hub, memory, pictures, report
from helpers.vision import FastVisionModel

# %% [markdown] lang="en"
# ## 3 · Data
#
# Each row of the sheet is a prompt, a picture and the wanted answer. The loader opens every picture once: a missing or broken one is an error now, with its row, and not at step 43.

# %% [markdown] lang="zh"
# ## 3 · 数据
#
# 表里每行是一条提示词、一张图片、一份期望的回答。读表时每张图都会打开一次：缺图、坏图现在就报错，指明哪一行，而不是训到第 43 步才崩。

# %%
rows = data.load_odometer_excel(DATASET)
data.report_marks(rows, "{prompt}{response}")  # rows that forge a turn or a picture, if any
report.side_by_side(rows, 2)

# %% [markdown] lang="en"
# ### Did anybody check the labels?
#
# The published sheet that this lesson is modelled on has two answers for one picture: gear N and gear P, +45 °C and +4.5 °C. Nothing crashes on that; the model just learns noise. `check_labels` names every response that cannot be parsed, contradicts another row for the same picture, or contradicts the truth where it is known. Pictures with such a row are set aside.

# %% [markdown] lang="zh"
# ### 标注有人核对过吗？
#
# 这一课参考的那份公开表格里，同一张图有两份答案：挡位一个写 N、一个写 P，温度一个写 +45 °C、一个写 +4.5 °C。程序不会因此报错，模型只会老老实实把噪声学进去。`check_labels` 会点名三种标注：解析不了的，和同一张图的另一行打架的，和已知真值对不上的。出现这种行的图片先放到一边。

# %%
faults = data.check_labels(rows, data.load_truth(TRUTH) if TRUTH else None)
doubtful = {fault["image"] for fault in faults}
clean = rows.filter(lambda row: row["image"].rsplit("/", 1)[-1] not in doubtful)
print(f"{len(faults)} faults; {len(rows) - len(clean)} rows of {len(doubtful)} pictures set aside, {len(clean)} kept")
report.side_by_side(faults or [{"fault": "none"}])

# %%
first = {image: place for place, image in reversed(list(enumerate(clean["image"])))}  # no picture on both sides
train_rows, held_out = data.hold_out(clean.select(sorted(first.values())), HELD_OUT, SEED, DATASET)
if TRAIN_PICTURES:
    train_rows = train_rows.select(range(min(TRAIN_PICTURES, len(train_rows))))
print(
    f"{len(train_rows)} pictures to train on, {len(held_out)} held out, {len(clean) - len(first)} repeated rows left out"
)
report.pictures(train_rows["image"][:8])

# %% [markdown] lang="en"
# ### What a picture costs
#
# The vision tower cuts the picture into patches of 14 × 14 pixels; 2 × 2 of them become one token. So a picture costs (height / 28) · (width / 28) tokens, and a 12-megapixel photograph would cost about 15,500. `shrink` keeps it below `MAX_IMAGE_TOKENS`.

# %% [markdown] lang="zh"
# ### 一张图要花多少 token
#
# 视觉塔把图片切成 14 × 14 像素的小块，每 2 × 2 块合成一个 token。所以一张图要花（高 / 28）×（宽 / 28）个 token；手机拍的 1200 万像素照片，一张就是大约 15,500 个。`shrink` 把它压到 `MAX_IMAGE_TOKENS` 以内。

# %%
from PIL import Image

sample = Image.open(held_out["image"][0])
fitted = pictures.shrink(sample, MAX_IMAGE_TOKENS)
print(f"{sample.width} × {sample.height} pixels → {fitted.width} × {fitted.height}, {pictures.tokens(fitted)} tokens")
fitted

# %% [markdown] lang="en"
# ## 4 · Load the model in 4 bits
#
# The language model's weights go to 4 bits. The vision tower stays in 16: it is small, and rounding hurts it most. What comes with the model is a *processor*: a tokenizer for text and an image processor for pictures.

# %% [markdown] lang="zh"
# ## 4 · 以 4 比特加载模型
#
# 压成 4 比特的是语言模型；视觉塔留在 16 位，它不大，却最怕舍入误差。随模型一起来的是 *processor*：管文字的分词器加上管图片的图像处理器。

# %%
dtype = runtime.dtype()  # bfloat16, or float16 on GPUs older than Ampere
memory.free("model", "trainer")  # of an earlier run
model, processor = FastVisionModel.from_pretrained(
    model_name=hub.resolve_model(MODEL, MODEL_SOURCE),
    max_seq_length=MAX_SEQ_LENGTH,
    dtype=dtype,
    load_in_4bit=LOAD_IN_4BIT,
)
seeing = sum(weights.numel() for name, weights in model.named_parameters() if "visual" in name)
print(f"vision tower: {seeing:,} parameters; all in {model.get_memory_footprint() / 1024**2:,.1f} MiB")

# %% [markdown] lang="en"
# A row becomes a conversation; the picture is one part of the user's message. `with_transform` does this when a row is read, so that pictures stay files until a batch needs them. (A plain list of conversations is no data set for `SFTTrainer`.)

# %% [markdown] lang="zh"
# 一行数据变成一段对话，图片是用户消息里的一个部分。`with_transform` 在取数据的那一刻才做转换，所以图片平时只是硬盘上的文件，轮到它进批次才读进内存。（直接给一个 Python 列表不行，`SFTTrainer` 要的是 `Dataset`。）


# %%
def question(prompt, path):
    picture = pictures.shrink(Image.open(path), MAX_IMAGE_TOKENS)
    return {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]}


def to_messages(batch):
    conversations = []
    for prompt, path, response in zip(batch["prompt"], batch["image"], batch["response"]):
        answer = {"role": "assistant", "content": [{"type": "text", "text": response}]}
        conversations.append([question(prompt, path), answer])
    return {"messages": conversations}


train_set, held_out_set = train_rows.with_transform(to_messages), held_out.with_transform(to_messages)
train_set[0]["messages"]

# %% [markdown] lang="en"
# ## 5 · Before training
#
# Ask about the held-out pictures, greedily, and parse the answers: `field: value` lines or JSON, miles or kilometres, English or Chinese names. A field that cannot be parsed counts as wrong.

# %% [markdown] lang="zh"
# ## 5 · 训练之前
#
# 用贪心解码问一遍留出的图片，再解析回答：一行一个「字段：值」或者 JSON 都行，英里公里、中英文字段名都认。解析不出来的字段算错。


# %%
def answer(rows, **options):
    """Greedy answers to the rows' prompts, each with its picture."""
    FastVisionModel.for_inference(model)
    asked = [question(prompt, path) for prompt, path in zip(rows["prompt"], rows["image"])]
    texts = [processor.apply_chat_template([message], add_generation_prompt=True) for message in asked]
    images = [message["content"][0]["image"] for message in asked]
    return generation.complete(model, processor, texts, MAX_NEW_TOKENS, images=images, batch_size=8, **options)


before = answer(held_out)
truths = [data.parse_reading(response) for response in held_out["response"]]
accuracy_before = data.field_accuracy([data.parse_reading(a.text) for a in before], truths)
print(f"asked:  {held_out['prompt'][0]}\nanswer: {before[0].text}\nwanted: {held_out['response'][0]}")
accuracy_before

# %% [markdown] lang="en"
# ## 6 · LoRA
#
# Four switches say where adapters go: into the vision tower or the language model or both, beside attention or MLP projections or both. To read unfamiliar instruments the eyes must learn, too; where only the form of the answer is new, the language model alone is enough.

# %% [markdown] lang="zh"
# ## 6 · LoRA
#
# 四个开关决定适配器挂在哪儿：视觉塔还是语言模型，注意力还是 MLP，可以都挂。要读没见过的仪表，眼睛也得练；如果只是换一种回答格式，光调语言模型就够了。

# %%
if not isinstance(model, PeftModel):  # the adapters hang there already, when this cell runs again
    model = FastVisionModel.get_peft_model(
        model,
        finetune_vision_layers=True,  # the eyes
        finetune_language_layers=True,  # what is made of what they see
        finetune_attention_modules=True,
        finetune_mlp_modules=True,
        r=16,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing="unsloth" if GRADIENT_CHECKPOINTING else False,
        random_state=SEED,
    )
model.print_trainable_parameters()

# %% [markdown] lang="en"
# ## 7 · Train
#
# Three settings differ from text. The trainer must not tokenize the data set (`skip_prepare_dataset`), must not look for a text column (`dataset_text_field=""`), and must not drop the columns that the model's `forward` does not name (`remove_unused_columns=False`); the collator makes the batch from the conversations. Unsloth 2026.10 sets all three itself when it sees its own collator; TRL alone wants them said.

# %% [markdown] lang="zh"
# ## 7 · 训练
#
# 和文本相比，有三个设置不同：训练器不要自己去分词（`skip_prepare_dataset`），不要找文本列（`dataset_text_field=""`），也不要删掉模型 `forward` 里没有的列（`remove_unused_columns=False`），批次由 collator 从对话现场生成。Unsloth 2026.10 认出自家的 collator 就会自动设好这三项；单用 TRL 时必须自己写。

# %%
config = SFTConfig(
    output_dir=f"{OUTPUT_DIR}/checkpoints",
    remove_unused_columns=False,  # this and the next two: see above
    dataset_text_field="",
    dataset_kwargs={"skip_prepare_dataset": True},
    max_length=MAX_SEQ_LENGTH,
    gradient_checkpointing=GRADIENT_CHECKPOINTING,
    per_device_train_batch_size=BATCH_SIZE,
    per_device_eval_batch_size=BATCH_SIZE,
    gradient_accumulation_steps=GRADIENT_ACCUMULATION,
    max_steps=MAX_STEPS,
    num_train_epochs=EPOCHS,
    warmup_steps=5,
    learning_rate=LEARNING_RATE,
    lr_scheduler_type="linear",
    optim="adamw_8bit",
    weight_decay=0.01,
    bf16=dtype == torch.bfloat16,
    fp16=dtype == torch.float16,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    seed=SEED,
)

# %%
collator = UnslothVisionDataCollator(
    model,
    processor,
    max_seq_length=MAX_SEQ_LENGTH,
    resize="max",  # leave the pictures as shrink made them
    train_on_responses_only=RESPONSES_ONLY,
    instruction_part="<|im_start|>user\n",
    response_part="<|im_start|>assistant\n",
)
FastVisionModel.for_training(model)
trainer = SFTTrainer(
    model=model,
    processing_class=processor,
    data_collator=collator,
    train_dataset=train_set,
    eval_dataset=held_out_set,
    args=config,
)

# %% [markdown] lang="en"
# One example as the loss sees it: a run of `<|image_pad|>`, one for each cell of the picture, then the prompt, then in green the answer with its end token.

# %% [markdown] lang="zh"
# 看一条样本在损失函数眼里的样子：先是一长串 `<|image_pad|>`，图片的每一格占一个，然后是提示词，最后绿色的是答案和结束符。

# %%
batch = collator([train_set[0]])
shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
print(*(f"{name:20} {shape}" for name, shape in shapes.items()), sep="\n")
report.label_mask(processor.tokenizer, batch["input_ids"][0], batch["labels"][0])

# %%
held_out_before = trainer.evaluate()["eval_loss"]
print(f"held-out loss before training: {held_out_before:.3f}")

# %%
with memory.track() as cost:
    trainer.train()
print(cost)

# %%
log = trainer.state.log_history
report.loss_plot(log)

# %% [markdown] lang="en"
# ## 8 · After training
#
# The same held-out pictures again. Beside before and after stands what an answer gets that never looks: of each field the value that agrees with most of the training data. Only what lies above that was read from the picture.

# %% [markdown] lang="zh"
# ## 8 · 训练之后
#
# 还是那些留出的图片，再问一遍。训练前后两列旁边，再放一列「不看图」的成绩：每个字段固定只答一个值，训练数据里和它对得上的行最多。超过这一列的部分，才是真从图里读出来的。

# %%
import pandas as pd

held_out_after = trainer.evaluate()["eval_loss"]
after = answer(held_out)
accuracy_after = data.field_accuracy([data.parse_reading(a.text) for a in after], truths)
usual = data.majority([data.parse_reading(response) for response in train_rows["response"]])
blind = data.field_accuracy([usual] * len(truths), truths)
print(f"held-out loss {held_out_before:.3f} → {held_out_after:.3f}")
accuracy = pd.DataFrame({"without looking": blind, "before": accuracy_before, "after": accuracy_after})
accuracy.map("{:.0%}".format)

# %%
seen = [{"wanted": r, "before": b.text, "after": a.text} for r, b, a in zip(held_out["response"], before, after)]
report.side_by_side(seen[:4])

# %% [markdown] lang="en"
# Held-out pictures say more than training pictures: compare the two. A large gap means that pictures were memorised.

# %% [markdown] lang="zh"
# 留出图片的成绩比训练图片的更说明问题。把两者放在一起看：差得多，说明它在背图。

# %%
known = train_rows.select(range(min(HELD_OUT, len(train_rows))))
wanted = [data.parse_reading(response) for response in known["response"]]
accuracy_known = data.field_accuracy([data.parse_reading(a.text) for a in answer(known)], wanted)
pd.DataFrame({"trained on": accuracy_known, "held out": accuracy_after}).map("{:.0%}".format)

# %%
pd.DataFrame(
    {
        "pictures": len(train_rows),
        "tokens a picture": pictures.tokens(fitted),
        "steps": trainer.state.global_step,
        "minutes": round(cost.seconds / 60, 2),
        f"{cost.device} peak, GiB": round(cost.peak_gib, 2),
        "before it, GiB": round(cost.start_gib, 2),
    },
    index=["this run"],
).T

# %% [markdown] lang="en"
# ## 9 · Save, and reload in a fresh process
#
# The adapter holds both parts, eyes and language. The processor is saved beside it: without the image settings a reloaded model would see other patches.

# %% [markdown] lang="zh"
# ## 9 · 保存，再到全新进程里加载
#
# 适配器里眼睛和语言两部分都有。processor 也存在旁边：图像设置要是丢了，重新加载的模型切出来的小块就不一样了。

# %%
from pathlib import Path

adapter = Path(OUTPUT_DIR, "adapter").resolve()
with export.replacing(adapter) as folder:  # whole, or not at all
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
for file in sorted(adapter.iterdir()):
    print(f"{file.stat().st_size / 1024:10,.1f} KiB  {file.name}")

# %%
# %%writefile {OUTPUT_DIR}/read.py
import json
import sys

asked = json.loads(sys.stdin.read())
sys.path.insert(0, asked["course"])  # helpers is there

import unsloth
from PIL import Image

from helpers import generation, pictures, runtime, vision

model, processor = vision.FastVisionModel.from_pretrained(
    asked["adapter"], dtype=runtime.dtype(), load_in_4bit=asked["load_in_4bit"]
)
vision.FastVisionModel.for_inference(model)
picture = pictures.shrink(Image.open(asked["image"]), asked["max_image_tokens"])
message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked["prompt"]}]}
text = processor.apply_chat_template([message], add_generation_prompt=True)
(reading,) = generation.complete(model, processor, [text], asked["max_new_tokens"], images=[picture])
print(json.dumps(reading.text))

# %%
import json
import subprocess
import sys

memory.free()  # room on the GPU for the second process
asked = {"course": str(runtime.root()), "adapter": str(adapter), "load_in_4bit": LOAD_IN_4BIT}
asked |= {"image": held_out["image"][0], "prompt": held_out["prompt"][0]}
asked |= {"max_image_tokens": MAX_IMAGE_TOKENS, "max_new_tokens": MAX_NEW_TOKENS}
command = [sys.executable, f"{OUTPUT_DIR}/read.py"]
process = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
assert process.returncode == 0, process.stderr
here, reloaded = answer(held_out.select(range(1)))[0].text, json.loads(process.stdout.splitlines()[-1])
read_here, reread = data.parse_reading(here), data.parse_reading(reloaded)
same = [field for field, value in read_here.items() if reread.get(field) == value]
print(f"here:\n{here}\n\nfresh process:\n{reloaded}\n\nthe same: {', '.join(same)}")

# %%
loss = report.losses(log)
report.summary(
    OUTPUT_DIR,
    loss_start=loss.head(5).mean(),
    loss_end=loss.tail(5).mean(),
    held_out_loss_before=held_out_before,
    held_out_loss_after=held_out_after,
    label_faults=len(faults),
    held_out=len(held_out),
    **{f"{field}_blind": share for field, share in blind.items()},
    **{f"{field}_before": share for field, share in accuracy_before.items()},
    **{f"{field}_after": share for field, share in accuracy_after.items()},
    answer_before=before[0].text,
    answer_after=after[0].text,
    wanted=held_out["response"][0],
    same_fields_after_reload=len(same),
    seconds=cost.seconds,
    peak_gib=cost.peak_gib,
)

# %% [markdown] lang="en"
# ## 10 · When it goes wrong
#
# | what you see | why | what to do |
# |---|---|---|
# | `Mismatch in image token count`; or a loss of `nan`; or too few green tokens | `max_length` cut into the picture, or into the answer | lower `MAX_IMAGE_TOKENS`, or raise `MAX_SEQ_LENGTH` |
# | perfect on training pictures, wrong on new ones | it memorised them: too few pictures, too many epochs | more pictures, held-out accuracy after each epoch |
# | one field stays at "without looking" | it is too small to see, or labels contradict each other | raise `MAX_IMAGE_TOKENS`, read `check_labels` again |
# | right digits, wrong unit or order | labels mix formats | one format for all responses |
# | out of memory | the largest picture decides | lower `MAX_IMAGE_TOKENS` first, then `BATCH_SIZE` |
#
# **Now you:** set `TRAIN_PICTURES = 2` and run again from the parameters. Look at the two accuracy tables of section 8: what did it learn?

# %% [markdown] lang="zh"
# ## 10 · 出了问题怎么办
#
# | 现象 | 原因 | 办法 |
# |---|---|---|
# | `Mismatch in image token count`；或损失是 `nan`；或绿色 token 太少 | `max_length` 截断了图片，或截断了回答 | 调小 `MAX_IMAGE_TOKENS`，或调大 `MAX_SEQ_LENGTH` |
# | 训练图全对，新图全错 | 在背图：图太少、轮数太多 | 加图片，每轮都看留出准确率 |
# | 某个字段始终和「不看图」一样 | 字太小看不清，或者标注自相矛盾 | 调大 `MAX_IMAGE_TOKENS`，再看一遍 `check_labels` |
# | 数字对，单位或顺序乱 | 标注混用了几种格式 | 所有回答统一成一种格式 |
# | 显存不够 | 最大的那张图说了算 | 先减 `MAX_IMAGE_TOKENS`，再减 `BATCH_SIZE` |
#
# **轮到你了**：把 `TRAIN_PICTURES` 设成 `2`，从参数那格重新跑。看第 8 节最后两张准确率表：它到底学会了什么？
